"""What of a candidate the judge looks at: a square of its own size, cut or squeezed out of pictures of any size."""

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.boxes import bounds, square_around

Array = npt.NDArray[Any]


class View(NamedTuple):
    """A candidate at the judge's size: (s, s, 3) uint8 twice, and (s, s) bool."""

    source: Array
    target: Array
    mask: Array


def window(region: Array, context: float) -> tuple[int, int, int, int]:
    """Square around a region (h, w) bool, x0, y0, x1, y1, with `context` region sizes around; cut at the edges."""
    x0, y0, x1, y1 = bounds(region)
    return square_around((x0, y0, x1, y1), round(max(x1 - x0, y1 - y0) * (1 + 2 * context)), region.shape)


def view(source: Array, target: Array, mask: Array, size: int, how: str = "crop", context: float = 0.75) -> View:
    """A candidate as the judge sees it.

    `crop` is a square around the mask and whatever else differs, so that a change outside the mask is in view;
    `whole` squeezes the whole picture into the square, as RORem does.

    Args:
        source, target: (h, w, 3) uint8. mask: (h, w) bool.

    Raises:
        ValueError: shapes or types do not fit, or the mask is empty.
    """
    if source.shape != target.shape or source.shape[:2] != mask.shape or source.dtype != np.uint8:
        raise ValueError(
            f"a candidate is (h, w, 3) uint8 twice and (h, w) bool, not {source.shape} {source.dtype}, "
            f"{target.shape} {target.dtype} and {mask.shape} {mask.dtype}"
        )
    if not mask.any():
        raise ValueError("the mask is empty: there is nothing to judge")
    x0, y0, x1, y1 = 0, 0, mask.shape[1], mask.shape[0]
    if how == "crop":
        x0, y0, x1, y1 = window(mask | np.any(source != target, axis=2), context)
    return View(
        _scaled(source[y0:y1, x0:x1], size), _scaled(target[y0:y1, x0:x1], size), _covered(mask[y0:y1, x0:x1], size)
    )


def _scaled(picture: Array, size: int) -> Array:
    if picture.shape[:2] == (size, size):
        return np.ascontiguousarray(picture)
    how = cv2.INTER_AREA if min(picture.shape[:2]) > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (size, size), interpolation=how))


def _covered(mask: Array, size: int) -> Array:
    """A mask at another size; any touched pixel counts, so that none shrinks to nothing."""
    if mask.shape == (size, size):
        return np.ascontiguousarray(mask)
    return np.asarray(cv2.resize(mask.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)) > 0


def flipped(one: View) -> View:
    """The same, mirrored."""
    source, target, mask = (np.ascontiguousarray(part[:, ::-1]) for part in one)
    return View(source, target, mask)


def turned(one: View, quarters: int) -> View:
    """The same, turned by that many quarters against the clock."""
    source, target, mask = (np.ascontiguousarray(np.rot90(part, quarters)) for part in one)
    return View(source, target, mask)


def recoloured(one: View, order: Array, negative: bool) -> View:
    """The same with its colour channels in another order, or as a negative too."""
    source, target = (np.ascontiguousarray(part[..., order]) for part in (one.source, one.target))
    return View(255 - source, 255 - target, one.mask) if negative else View(source, target, one.mask)


def looks(one: View, count: int) -> list[View]:
    """The view as it is, mirrored, upside down, and both: the first `count` of these.

    Raises:
        ValueError: it is not one to four.
    """
    if not 1 <= count <= 4:
        raise ValueError(f"looks is {count}: a view is looked at one to four times")
    over = turned(one, 2)
    return [one, flipped(one), flipped(over), over][:count]
