"""The protocol of a remover, and the wrapper that all of them run in.

A remover fills a hole in a picture. It gets RGB uint8 and a boolean mask, True = hole, whatever its network wants:
polarity, fill colour and value range are converted inside the remover, at its own edge. What every remover needs
(a wider hole, a crop with context, its native size, a paste that leaves the rest alone) is done here, once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Capability:
    """What a remover is.

    role: a remover shows what was behind; an inserter paints something new into the hole and makes bad removals.
    native_size: side in px of the square its network works on; None where any size goes.
    """

    role: Literal["remover", "inserter"]
    native_size: int | None
    needs_prompt: bool
    licence: str


@runtime_checkable
class Remover(Protocol):
    """Fills holes. `weights` are checked and hashed before the run, `setup` is called once a worker."""

    name: str
    capability: Capability

    def weights(self) -> Mapping[str, Path]: ...

    def setup(self) -> None: ...

    def fill(self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]) -> list[Array]:
        """Filled pictures, (h, w, 3) uint8, in order.

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


def crop_window(hole: Array, context: float) -> tuple[int, int, int, int]:
    """Square around the hole with context, x0, y0, x1, y1; cut (then no square) where the picture is smaller.

    Its side is the longer side of the hole's box times 1 + 2 * context, at least 64 px more than the box.
    """
    height, width = hole.shape
    xs, ys = np.flatnonzero(hole.any(axis=0)), np.flatnonzero(hole.any(axis=1))
    longest = max(int(xs[-1] - xs[0]), int(ys[-1] - ys[0])) + 1
    side = max(round(longest * (1 + 2 * context)), longest + 64)

    def span(low: int, high: int, length: int) -> tuple[int, int]:
        start = min(max(0, (low + high + 1 - side) // 2), max(0, length - side))
        return start, min(length, start + side)

    x0, x1 = span(int(xs[0]), int(xs[-1]), width)
    y0, y1 = span(int(ys[0]), int(ys[-1]), height)
    return x0, y0, x1, y1


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
    native = remover.capability.native_size
    for picture, mask in zip(pictures, masks, strict=True):
        if picture.dtype != np.uint8 or picture.ndim != 3 or mask.dtype != np.bool_ or mask.shape != picture.shape[:2]:
            raise ValueError(
                f"a remover takes (h, w, 3) uint8 and (h, w) bool, not {picture.shape} {picture.dtype} "
                f"and {mask.shape} {mask.dtype}"
            )
        if not mask.any():
            raise NothingToFill("the mask is empty")
        hole = dilated(mask, dilation)
        if hole.all():
            raise NoContext(f"the mask, grown by {dilation} px, covers the whole picture")
        x0, y0, x1, y1 = window = crop_window(hole, context)
        crop = np.ascontiguousarray(picture[y0:y1, x0:x1])
        inside: Array = hole[y0:y1, x0:x1].astype(np.uint8)
        if native is not None:
            how = cv2.INTER_AREA if native < min(crop.shape[:2]) else cv2.INTER_CUBIC
            crop = np.asarray(cv2.resize(crop, (native, native), interpolation=how))
            # any touched pixel is hole: a shrunk mask must not let the object through
            inside = np.asarray(cv2.resize(inside * 255, (native, native), interpolation=cv2.INTER_AREA))
        crops.append(crop)
        holes.append(inside > 0)
        windows.append(window)
        grown.append(hole)
    filled = remover.fill(crops, holes, list(seeds))
    if len(filled) != len(crops):
        raise ValueError(f"remover '{remover.name}' returned {len(filled)} pictures for {len(crops)}")
    results = []
    for picture, mask, hole, window, crop, fill in zip(pictures, masks, grown, windows, crops, filled, strict=True):
        if fill.shape != crop.shape or fill.dtype != np.uint8:
            raise ValueError(f"remover '{remover.name}' returned {fill.shape} {fill.dtype} for {crop.shape} uint8")
        x0, y0, x1, y1 = window
        if fill.shape[:2] != (y1 - y0, x1 - x0):
            how = cv2.INTER_AREA if fill.shape[0] > y1 - y0 else cv2.INTER_CUBIC
            fill = np.asarray(cv2.resize(fill, (x1 - x0, y1 - y0), interpolation=how))
        weight = feather(mask, hole, dilation)[y0:y1, x0:x1, None]
        changed = hole[y0:y1, x0:x1]
        mixed = np.rint(fill * weight + picture[y0:y1, x0:x1] * (1 - weight)).astype(np.uint8)
        out = picture.copy()
        out[y0:y1, x0:x1][changed] = mixed[changed]
        results.append(out)
    return results
