"""Crops of candidates at the discriminator's size: squares, cut or resized from pictures of any size."""

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.boxes import compute_bounds, place_square

Array = npt.NDArray[Any]


class Crop(NamedTuple):
    """A candidate at the discriminator's size: source and target (s, s, 3) uint8, mask (s, s) bool."""

    source: Array
    target: Array
    mask: Array


def compute_window(region: Array, context: float) -> tuple[int, int, int, int]:
    """Return a square around a region (h, w) bool, x0, y0, x1, y1; cut at the picture's edges.

    Args:
        context: picture around the region, in region sizes.

    Examples:
        >>> region = np.zeros((100, 100), bool)
        >>> region[40:60, 40:50] = True
        >>> compute_window(region, context=0.5)
        (25, 30, 65, 70)
    """
    x0, y0, x1, y1 = compute_bounds(region)
    return place_square((x0, y0, x1, y1), round(max(x1 - x0, y1 - y0) * (1 + 2 * context)), region.shape)


def cut_crop(source: Array, target: Array, mask: Array, size: int, how: str = "crop", context: float = 0.75) -> Crop:
    """Return a candidate at the discriminator's size.

    Args:
        source, target: (h, w, 3) uint8.
        mask: (h, w) bool.
        size: side of the crop, px.
        how: `crop` is a square around the mask and all other differences, so that a change outside the mask is in it;
            `whole` resizes the whole picture to the square, as RORem does.
        context: picture around them, in region sizes.

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
        x0, y0, x1, y1 = compute_window(mask | np.any(source != target, axis=2), context)
    return Crop(
        _resize(source[y0:y1, x0:x1], size), _resize(target[y0:y1, x0:x1], size), _resize_mask(mask[y0:y1, x0:x1], size)
    )


def _resize(picture: Array, size: int) -> Array:
    if picture.shape[:2] == (size, size):
        return np.ascontiguousarray(picture)
    interpolation = cv2.INTER_AREA if min(picture.shape[:2]) > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (size, size), interpolation=interpolation))


def _resize_mask(mask: Array, size: int) -> Array:
    """Resize a mask; every pixel that it touches counts, so that it never becomes empty."""
    if mask.shape == (size, size):
        return np.ascontiguousarray(mask)
    return np.asarray(cv2.resize(mask.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)) > 0


def flip(crop: Crop) -> Crop:
    """Return a crop mirrored."""
    source, target, mask = (np.ascontiguousarray(part[:, ::-1]) for part in crop)
    return Crop(source, target, mask)


def rotate(crop: Crop, quarters: int) -> Crop:
    """Return a crop rotated by that many quarters against the clock."""
    source, target, mask = (np.ascontiguousarray(np.rot90(part, quarters)) for part in crop)
    return Crop(source, target, mask)


def recolour(crop: Crop, order: Array, negative: bool) -> Crop:
    """Return a crop with its colour channels in another order, or as a negative too."""
    source, target = (np.ascontiguousarray(part[..., order]) for part in (crop.source, crop.target))
    return Crop(255 - source, 255 - target, crop.mask) if negative else Crop(source, target, crop.mask)


def list_looks(crop: Crop, count: int) -> list[Crop]:
    """Return the crop as it is, mirrored, upside down, and both: the first `count` of these.

    Raises:
        ValueError: `count` is not one to four.
    """
    if not 1 <= count <= 4:
        raise ValueError(f"looks is {count}: a crop is scored in one to four orientations")
    upside_down = rotate(crop, 2)
    return [crop, flip(crop), flip(upside_down), upside_down][:count]
