"""Attention-guided fusion: the network's picture where its attention was on the object and its effects, elsewhere the
original's fine structure on the network's colours.

After ObjectClear's released code (arXiv 2505.22636, `utils/attention_guided_fusion.py`), which differs from the
paper's blended alpha; every constant is the released one.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.networks.finite import check_finite

Array = npt.NDArray[Any]

LEVELS = 5
BINOMIAL = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 16
MULTIPLE = 16
"""The coarsest level halves four times: sides that are no multiple of 16 are continued by reflection first."""


def attention_to_uint8(attention: Array, shape: tuple[int, int]) -> Array:
    """Return (h, w) uint8 at the latents' shape of token attention (h / 2, w / 2): bilinear, lowest 0, highest 255.

    Raises:
        NotFinite: the attention is none.
    """
    check_finite(attention, "its attention")
    enlarged = cv2.resize(attention.astype(np.float32), shape[::-1], interpolation=cv2.INTER_LINEAR)
    low, high = float(enlarged.min()), float(enlarged.max())
    scaled: Array = (enlarged - low) / (high - low + 1e-8)
    return np.asarray(scaled * 255, np.uint8)


def compute_fusion_weight(attention: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Return a map (h, w) float32 that is 1 where attention is above 128, and the same grown by 10 px with a soft rim.

    Args:
        attention: (h', w') uint8, of `attention_to_uint8`.
        shape: height and width of the picture, px.
    """
    is_high = np.where(attention > 128, 1, 0).astype(np.float32)
    inside: Array = np.asarray(cv2.resize(is_high, shape[::-1], interpolation=cv2.INTER_NEAREST))
    wide = cv2.dilate(inside, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (21, 21)))
    soft = cv2.GaussianBlur(np.asarray(wide, np.float32), (9, 9), sigmaX=2)
    return inside, np.clip(np.maximum(inside, soft), 0, 1)


def _interpolate_indices(count: int, new_count: int) -> tuple[Array, Array, Array]:
    """Return for each new sample the indices of the two old ones around it and the second one's share."""
    positions = np.linspace(0, count - 1, new_count) if new_count > 1 else np.zeros(1)
    low = np.minimum(positions.astype(int), count - 1)
    return low, np.minimum(low + 1, count - 1), (positions - low)


def stretch(picture: Array, shape: tuple[int, int]) -> Array:
    """Resize (h, w, c) to another shape, linear, corner pixels on corner pixels (scipy's `zoom` of order 1).

    Examples:
        >>> stretch(np.array([[[0.0], [3.0]]]), (1, 4))[0, :, 0].tolist()
        [0.0, 1.0, 2.0, 3.0]
    """
    low, high, share = _interpolate_indices(picture.shape[0], shape[0])
    rows = picture[low] * (1 - share)[:, None, None] + picture[high] * share[:, None, None]
    low, high, share = _interpolate_indices(picture.shape[1], shape[1])
    columns = rows[:, low] * (1 - share)[None, :, None] + rows[:, high] * share[None, :, None]
    return np.asarray(columns, picture.dtype)


def blur(picture: Array, radius: int) -> Array:
    """Return one level's low frequencies, (h, w, c) float32: 3 x 3 binomial, then down by `radius` and up again."""
    smooth = np.asarray(cv2.filter2D(picture, -1, BINOMIAL, borderType=cv2.BORDER_REPLICATE))
    if radius == 1:
        return smooth
    height, width = picture.shape[:2]
    return stretch(stretch(smooth, (round(height / radius), round(width / radius))), (height, width))


def split(picture: Array) -> tuple[Array, Array]:
    """Split a picture into high and low frequencies, (h, w, c) float32 each; their sum is the picture."""
    high, rest = np.zeros_like(picture), picture
    for level in range(LEVELS):
        low = blur(rest, 2**level)
        high += rest - low
        rest = low
    return high, rest


def combine_frequencies(structure: Array, colour: Array) -> Array:
    """Return uint8 (h, w, 3) with the high frequencies of `structure` and the low ones of `colour`, both 0 to 255."""
    high, _ = split(structure.astype(np.float32) / 255)
    _, low = split(colour.astype(np.float32) / 255)
    return np.asarray(np.clip((high + low) * 255, 0, 255), np.uint8)


def fuse(original: Array, removed: Array, attention: Array) -> tuple[Array, Array]:
    """Fuse the network's picture with the original.

    Args:
        original, removed: (h, w, 3) uint8, the input and the network's picture.
        attention: (h', w') uint8.

    Returns:
        The fused picture (h, w, 3) uint8, and the weight (h, w) float32 of the network's picture in it.
    """
    height, width = original.shape[:2]
    inside, weight = compute_fusion_weight(attention, (height, width))
    outside = (1 - inside)[..., None]
    sides = ((0, -height % MULTIPLE), (0, -width % MULTIPLE), (0, 0))
    structure, colour = (np.pad(picture * outside, sides, mode="reflect") for picture in (original, removed))
    background = combine_frequencies(structure, colour)[:height, :width]
    fused = background * (1 - weight[..., None]) + removed * weight[..., None]
    return fused.astype(np.uint8), weight
