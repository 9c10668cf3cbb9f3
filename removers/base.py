"""The protocol of a remover, and the wrapper that all of them run in.

A remover fills a hole in a picture. It gets RGB uint8 and a boolean mask, True = hole, whatever its network wants:
polarity, fill colour and value range are converted inside the remover, at its own edge. What every remover needs
(a wider hole, a crop with context, its native size, a paste that leaves the rest alone) is done here, once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.boxes import bounds, square_around

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Capability:
    """What a remover is.

    role: a remover shows what was behind; an inserter paints something new into the hole and makes bad removals.
    native_size: side in px of the square its network works on; None where any size goes.
    licence: of the weights. non_commercial: whether they, and what they make, may not be used commercially.
    effects: it also takes away shadow and reflection. It sees the whole picture, its shorter side at the native size
        and both sides multiples of 16, and says itself where it changed something.
    """

    role: Literal["remover", "inserter"]
    native_size: int | None
    needs_prompt: bool
    licence: str
    non_commercial: bool = False
    effects: bool = False


class Filled(NamedTuple):
    """What a remover of effects returns: the picture (h, w, 3) uint8, and how much of it counts, (h, w) in [0, 1]."""

    picture: Array
    weight: Array


@runtime_checkable
class Remover(Protocol):
    """Fills holes. `weights` are checked and hashed before the run, `setup` is called once a worker."""

    name: str
    capability: Capability

    def weights(self) -> Mapping[str, Path]: ...

    def setup(self) -> None: ...

    def fill(self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]) -> Sequence[Array | Filled]:
        """Filled pictures, (h, w, 3) uint8, in order; with their weights if the remover takes effects away.

        Args:
            pictures: (h, w, 3) uint8 RGB; of the native size if there is one.
            holes: (h, w) bool, True = hole; not empty, not everything.
            seeds: one for each picture; the same seed gives the same fill whatever else is in the batch.
        """
        ...


class NothingToFill(ValueError):
    """An empty mask: nothing was asked for."""


class NoContext(ValueError):
    """A mask that covers the whole picture: nothing is left to continue."""


def disk(radius: int) -> Array:
    """Round structuring element of that radius in px, (2 r + 1, 2 r + 1) uint8."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def dilated(mask: Array, radius: int) -> Array:
    """(h, w) bool, grown by `radius` px in every direction."""
    if radius <= 0:
        return mask.copy()
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disk(radius))) > 0


def hole_of(mask: Array, dilation: int) -> Array:
    """What is filled, (h, w) bool: the mask, grown by that many px.

    Raises:
        NothingToFill, NoContext
    """
    if not mask.any():
        raise NothingToFill("the mask is empty")
    hole = dilated(mask, dilation)
    if hole.all():
        raise NoContext(f"the mask, grown by {dilation} px, covers the whole picture")
    return hole


def crop_window(hole: Array, context: float) -> tuple[int, int, int, int]:
    """Square around the hole with context, x0, y0, x1, y1; cut (then no square) where the picture is smaller.

    Its side is the longer side of the hole's box times 1 + 2 * context, at least 64 px more than the box.
    """
    x0, y0, x1, y1 = bounds(hole)
    longest = max(x1 - x0, y1 - y0)
    return square_around((x0, y0, x1, y1), max(round(longest * (1 + 2 * context)), longest + 64), hole.shape)


def feather(mask: Array, hole: Array, width: int) -> Array:
    """Weight of the fill, (h, w) float32: 1 on the mask, falling to 0 at the hole's edge, 0 outside the hole.

    `width` is the hole's dilation: the ramp uses the ring between mask and hole, so that the object itself is never
    mixed back in.
    """
    if width <= 0:
        return hole.astype(np.float32)
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    weight = np.clip(1 - (away - width / 2) / (width / 2 + 1), 0, 1)  # full weight half-way out: masks are tight
    return np.asarray(np.where(hole, weight, 0), np.float32)


def native_shape(shape: tuple[int, int], capability: Capability) -> tuple[int, int]:
    """Height and width at which a remover works on a crop of that shape, px.

    For effects: short side at the native size, both rounded up to multiples of 16 (ObjectClear's rule).
    """
    native = capability.native_size
    if native is None:
        return shape
    if not capability.effects:
        return native, native
    height, width = (-(-(native * side // min(shape)) // 16) * 16 for side in shape)
    return height, width


def resized(picture: Array, shape: tuple[int, int]) -> Array:
    """A picture or a weight at that height and width: area mean where it shrinks, cubic where it grows."""
    if picture.shape[:2] == shape:
        return np.ascontiguousarray(picture)
    how = cv2.INTER_AREA if shape[0] * shape[1] < picture.shape[0] * picture.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, shape[::-1], interpolation=how))


def remove(
    remover: Remover,
    pictures: Sequence[Array],
    masks: Sequence[Array],
    seeds: Sequence[int],
    dilation: int = 8,
    context: float = 0.75,
) -> list[Array]:
    """Pictures without what the masks cover. Pixels outside the dilated mask are those of the input, bit-exact.

    Args:
        pictures: (h, w, 3) uint8 RGB each. masks: (h, w) bool, True = to be removed.
        dilation: px by which a mask grows before it is filled: masks are tight, and a rim left behind draws the
            object again. context: picture around the hole that the remover sees, in units of the hole's size.

    Raises:
        NothingToFill, NoContext: judged on the dilated mask.
        ValueError: shapes or types do not fit, or a remover returned something else than it was asked for.
    """
    crops, holes, windows, grown = [], [], [], []
    capability = remover.capability
    for picture, mask in zip(pictures, masks, strict=True):
        if picture.dtype != np.uint8 or picture.ndim != 3 or mask.dtype != np.bool_ or mask.shape != picture.shape[:2]:
            raise ValueError(
                f"a remover takes (h, w, 3) uint8 and (h, w) bool, not {picture.shape} {picture.dtype} "
                f"and {mask.shape} {mask.dtype}"
            )
        hole = hole_of(mask, dilation)
        height, width = mask.shape
        x0, y0, x1, y1 = window = (0, 0, width, height) if capability.effects else crop_window(hole, context)
        shape = native_shape((y1 - y0, x1 - x0), capability)
        crops.append(resized(picture[y0:y1, x0:x1], shape))
        # any touched pixel is hole: a shrunk mask must not let the object through
        inside: Array = hole[y0:y1, x0:x1].astype(np.float32)
        holes.append(np.asarray(cv2.resize(inside, shape[::-1], interpolation=cv2.INTER_AREA)) > 0)
        windows.append(window)
        grown.append(hole)
    filled = remover.fill(crops, holes, list(seeds))
    if len(filled) != len(crops):
        raise ValueError(f"remover '{remover.name}' returned {len(filled)} pictures for {len(crops)}")
    results = []
    for picture, mask, hole, window, crop, one in zip(pictures, masks, grown, windows, crops, filled, strict=True):
        fill, extra = one if isinstance(one, Filled) else (one, None)
        if fill.shape != crop.shape or fill.dtype != np.uint8:
            raise ValueError(f"remover '{remover.name}' returned {fill.shape} {fill.dtype} for {crop.shape} uint8")
        x0, y0, x1, y1 = window
        shape = (y1 - y0, x1 - x0)
        weight = feather(mask, hole, dilation)[y0:y1, x0:x1]
        if extra is not None:
            if extra.shape != crop.shape[:2]:
                raise ValueError(f"remover '{remover.name}' returned a weight {extra.shape} for {crop.shape}")
            weight = np.maximum(weight, np.clip(resized(extra.astype(np.float32), shape), 0, 1))
        changed = weight > 0
        mixed = resized(fill, shape) * weight[..., None] + picture[y0:y1, x0:x1] * (1 - weight[..., None])
        out = picture.copy()
        out[y0:y1, x0:x1][changed] = np.rint(mixed).astype(np.uint8)[changed]
        results.append(out)
    return results
