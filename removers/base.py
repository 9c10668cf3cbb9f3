"""The protocol of a remover, and the wrapper that all of them run in.

A remover fills a hole in a picture. It gets RGB uint8 and a boolean mask, True = hole, whatever its network expects:
polarity, fill colour and value range are converted inside the remover, at its own boundary. The steps that every
remover needs (a grown hole, a crop with context, its native size, a paste that changes nothing else) are here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.boxes import compute_bounds, place_square
from rasura.networks.finite import check_finite
from rasura.networks.memory import NetworkMemory

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Capability:
    """The properties of a remover.

    role: a remover shows what was behind; an inserter paints something new into the hole and makes bad removals.
    native_size: side in px of the square its network works on; None where any size is possible.
    licence: of the weights. non_commercial: they, and their results, may not be used commercially.
    effects: it also removes shadow and reflection. It gets the whole picture, its shorter side at the native size and
        both sides multiples of 16, and returns itself where it changed something.
    name: of the model. steps: runs of its network for one picture; None where it is no network or the number is not
        fixed. needs_weights: it reads weights from files. memory: what its network needs, by which the engine gives its
        workers GPUs; None where it is no network.
    parameters: of all networks that are in memory while it runs, as published.
    """

    role: Literal["remover", "inserter"]
    native_size: int | None
    needs_prompt: bool
    licence: str
    non_commercial: bool = False
    effects: bool = False
    name: str = ""
    steps: int | None = None
    needs_weights: bool = False
    memory: NetworkMemory | None = None
    parameters: int = 0


class Filled(NamedTuple):
    """The result of a remover of effects: the picture (h, w, 3) uint8, and its weight (h, w) in [0, 1]."""

    picture: Array
    weight: Array


@runtime_checkable
class Remover(Protocol):
    """A model that fills holes."""

    name: str
    capability: Capability

    def weights(self) -> Mapping[str, Path]:
        """Return the files that `setup` reads, by name; they are checked and hashed before a run.

        Raises:
            BadWeights: a file is missing or of another model.
        """
        ...

    def setup(self) -> None:
        """Load the model; called once in each worker."""
        ...

    def fill(self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]) -> Sequence[Array | Filled]:
        """Fill the holes of pictures.

        Args:
            pictures: (h, w, 3) uint8 RGB; of the native size if there is one.
            holes: (h, w) bool, True = hole; not empty, not everything.
            seeds: one for each picture; the same seed gives the same fill whatever else is in the batch.

        Returns:
            Pictures (h, w, 3) uint8, in order; with their weights if the remover removes effects.
        """
        ...


@runtime_checkable
class Inserter(Remover, Protocol):
    """A model that paints into holes what a text says, one for each picture."""

    def set_texts(self, texts: Sequence[str]) -> None:
        """Announce all texts that `paint` will get, before `setup`: text encoders are released after it."""
        ...

    def paint(
        self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int], texts: Sequence[str]
    ) -> Sequence[Array | Filled]:
        """Paint into the holes of pictures as `Remover.fill` fills them, each by its own text.

        Args:
            texts: one for each picture, of those that `set_texts` got.
        """
        ...


class NothingToFill(ValueError):
    """An empty mask: there is nothing to fill."""


class NoContext(ValueError):
    """A mask that covers the whole picture: nothing is left to continue."""


def disk(radius: int) -> Array:
    """Return a round structuring element of that radius in px, (2 r + 1, 2 r + 1) uint8.

    Examples:
        >>> disk(1).tolist()
        [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    """
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def dilate(mask: Array, radius: int) -> Array:
    """Return a mask (h, w) bool, grown by `radius` px in every direction.

    Examples:
        >>> dilate(np.array([[False, False, True, False, False]]), 1).astype(int).tolist()
        [[0, 1, 1, 1, 0]]
    """
    if radius <= 0:
        return mask.copy()
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disk(radius))) > 0


def make_hole(mask: Array, dilation: int) -> Array:
    """Return the hole to be filled, (h, w) bool: the mask, grown by that many px.

    Raises:
        NothingToFill: the mask is empty.
        NoContext: the hole is the whole picture.
    """
    if not mask.any():
        raise NothingToFill("the mask is empty")
    hole = dilate(mask, dilation)
    if hole.all():
        raise NoContext(f"the mask, grown by {dilation} px, covers the whole picture")
    return hole


def compute_crop_window(hole: Array, context: float) -> tuple[int, int, int, int]:
    """Return a square around the hole with context, x0, y0, x1, y1; cut (then no square) where the picture is smaller.

    Its side is the longer side of the hole's box times 1 + 2 * context, at least 64 px more than the box.

    Examples:
        >>> hole = np.zeros((200, 300), bool)
        >>> hole[90:110, 140:160] = True
        >>> compute_crop_window(hole, context=0.75)
        (108, 58, 192, 142)
    """
    x0, y0, x1, y1 = compute_bounds(hole)
    longest = max(x1 - x0, y1 - y0)
    return place_square((x0, y0, x1, y1), max(round(longest * (1 + 2 * context)), longest + 64), hole.shape)


def compute_feather(mask: Array, hole: Array, width: int) -> Array:
    """Return the weight of the fill, (h, w) float32: 1 on the mask, falling to 0 at the hole's edge, 0 outside.

    Args:
        width: the hole's dilation in px. The ramp uses the ring between mask and hole, so that the object itself is
            never mixed back in.
    """
    if width <= 0:
        return hole.astype(np.float32)
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    weight = np.clip(1 - (distance - width / 2) / (width / 2 + 1), 0, 1)  # full weight half-way out: masks are tight
    return np.asarray(np.where(hole, weight, 0), np.float32)


def compute_native_shape(shape: tuple[int, int], capability: Capability) -> tuple[int, int]:
    """Return the height and width in px at which a remover works on a crop of that shape.

    For effects: short side at the native size, both rounded up to multiples of 16 (ObjectClear's rule).

    Examples:
        >>> compute_native_shape((300, 500), Capability("remover", 512, False, "CC0", effects=True))
        (512, 864)
    """
    native = capability.native_size
    if native is None:
        return shape
    if not capability.effects:
        return native, native
    height, width = (-(-(native * side // min(shape)) // 16) * 16 for side in shape)
    return height, width


def resize(picture: Array, shape: tuple[int, int]) -> Array:
    """Return a picture or a weight at that height and width: area mean where it shrinks, cubic where it grows."""
    if picture.shape[:2] == shape:
        return np.ascontiguousarray(picture)
    interpolation = cv2.INTER_AREA if shape[0] * shape[1] < picture.shape[0] * picture.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, shape[::-1], interpolation=interpolation))


def resize_crop(picture: Array, hole: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Return a crop and its hole at that height and width; nothing of what is in the hole shows outside of it.

    Every pixel that the hole touches is hole: a smaller one would leave a rim of the object. Where a picture grows,
    each new pixel mixes a few of the old ones around it, also across the hole's edge; those outside the hole are mixed
    with the hole's nearest surroundings in the object's place.

    Args:
        picture: (h, w, 3) uint8. hole: (h, w) bool.
    """
    if hole.shape == shape:
        return np.ascontiguousarray(picture), hole
    area: Array = np.asarray(cv2.resize(hole.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)) > 0
    hidden = resize(extend_surroundings(picture, hole), shape)
    return np.asarray(np.where(area[..., None], resize(picture, shape), hidden)), area


def extend_surroundings(picture: Array, hole: Array) -> Array:
    """Return a picture whose hole has the colours of the nearest pixels outside of it.

    Examples:
        >>> row = np.array([[[1], [2], [99], [99], [99], [6]]], np.uint8)
        >>> extend_surroundings(row, row[..., 0] == 99)[0, :, 0].tolist()
        [1, 2, 2, 2, 6, 6]
    """
    if hole.all():
        return np.zeros_like(picture)
    _, labels = cv2.distanceTransformWithLabels(
        hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colours = np.zeros((labels.max() + 1, *picture.shape[2:]), picture.dtype)
    colours[labels[~hole]] = picture[~hole]
    return np.asarray(colours[labels])


def remove(
    remover: Remover,
    pictures: Sequence[Array],
    masks: Sequence[Array],
    seeds: Sequence[int],
    dilation: int = 8,
    context: float = 0.75,
) -> list[Array]:
    """Remove what the masks cover. Pixels outside the dilated mask are those of the input, bit-exact.

    Args:
        pictures: (h, w, 3) uint8 RGB each.
        masks: (h, w) bool, True = to be removed.
        seeds: one for each picture.
        dilation: px by which a mask grows before it is filled: masks are tight, and a rim left behind draws the
            object again.
        context: picture around the hole that the remover gets, in units of the hole's size.

    Returns:
        Pictures (h, w, 3) uint8, in order.

    Raises:
        NothingToFill, NoContext: of the dilated mask.
        ValueError: shapes or types do not fit, or a remover returned pictures of another number or shape.
    """
    crops, crop_holes, windows, holes = [], [], [], []
    capability = remover.capability
    for picture, mask in zip(pictures, masks, strict=True):
        if picture.dtype != np.uint8 or picture.ndim != 3 or mask.dtype != np.bool_ or mask.shape != picture.shape[:2]:
            raise ValueError(
                f"a remover takes (h, w, 3) uint8 and (h, w) bool, not {picture.shape} {picture.dtype} "
                f"and {mask.shape} {mask.dtype}"
            )
        hole = make_hole(mask, dilation)
        height, width = mask.shape
        x0, y0, x1, y1 = window = (0, 0, width, height) if capability.effects else compute_crop_window(hole, context)
        shape = compute_native_shape((y1 - y0, x1 - x0), capability)
        crop, crop_hole = resize_crop(picture[y0:y1, x0:x1], hole[y0:y1, x0:x1], shape)
        crops.append(crop)
        crop_holes.append(crop_hole)
        windows.append(window)
        holes.append(hole)
    fills = remover.fill(crops, crop_holes, list(seeds))
    if len(fills) != len(crops):
        raise ValueError(f"remover '{remover.name}' returned {len(fills)} pictures for {len(crops)}")
    results = []
    for picture, mask, hole, window, crop, result in zip(pictures, masks, holes, windows, crops, fills, strict=True):
        fill, extra = result if isinstance(result, Filled) else (result, None)
        if fill.shape != crop.shape or fill.dtype != np.uint8:
            raise ValueError(f"remover '{remover.name}' returned {fill.shape} {fill.dtype} for {crop.shape} uint8")
        if extra is not None and extra.shape != crop.shape[:2]:
            raise ValueError(f"remover '{remover.name}' returned a weight {extra.shape} for {crop.shape}")
        if extra is not None:
            check_finite(extra, "its weights")
        results.append(paste(picture, fill, window, compute_feather(mask, hole, dilation), extra))
    return results


def paste(
    picture: Array, fill: Array, window: tuple[int, int, int, int], weight: Array, extra: Array | None = None
) -> Array:
    """Return a picture with a fill in a window; pixels without weight stay as they are, bit-exact.

    Args:
        picture: (h, w, 3) uint8.
        fill: (h', w', 3) uint8, resized to the window.
        window: x0, y0, x1, y1 in px.
        weight: (h, w) float32, the share of the fill.
        extra: (h', w') float, a weight of the remover's own; the larger one counts.
    """
    x0, y0, x1, y1 = window
    shape = (y1 - y0, x1 - x0)
    weight = weight[y0:y1, x0:x1]
    if extra is not None:
        weight = np.maximum(weight, np.clip(resize(extra.astype(np.float32), shape), 0, 1))
    changed = weight > 0
    mixed = resize(fill, shape) * weight[..., None] + picture[y0:y1, x0:x1] * (1 - weight[..., None])
    pasted = picture.copy()
    pasted[y0:y1, x0:x1][changed] = np.rint(mixed).astype(np.uint8)[changed]
    return pasted
