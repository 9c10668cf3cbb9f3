"""Attention-guided fusion: where the network looked at the object and its effects its picture counts, elsewhere the
original's fine structure on the network's colours.

After ObjectClear's released code (arXiv 2505.22636, `utils/attention_guided_fusion.py`), which differs from the
paper's blended alpha; every constant is the released one.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LEVELS = 5
BINOMIAL = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 16
MULTIPLE = 16
"""The coarsest level halves four times: sides that are no multiple of 16 are continued by reflection first."""


def attention_to_uint8(attention: Array, shape: tuple[int, int]) -> Array:
    """(h, w) uint8 at the latents' shape from token attention (h / 2, w / 2): bilinear, lowest 0, highest 255."""
    grown = cv2.resize(attention.astype(np.float32), shape[::-1], interpolation=cv2.INTER_LINEAR)
    low, high = float(grown.min()), float(grown.max())
    scaled: Array = (grown - low) / (high - low + 1e-8)
    return np.asarray(scaled * 255, np.uint8)


def fusion_weight(attention: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Where the attention is above 128, (h, w) float32 of 0 and 1; and the same grown by 10 px with a soft rim.

    Args:
        attention: (h', w') uint8, as `attention_to_uint8` gives. shape: of the picture, px.
    """
    found = np.where(attention > 128, 1, 0).astype(np.float32)
    inside: Array = np.asarray(cv2.resize(found, shape[::-1], interpolation=cv2.INTER_NEAREST))
    wide = cv2.dilate(inside, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (21, 21)))
    soft = cv2.GaussianBlur(np.asarray(wide, np.float32), (9, 9), sigmaX=2)
    return inside, np.clip(np.maximum(inside, soft), 0, 1)


def _lines(given: int, wanted: int) -> tuple[Array, Array, Array]:
    """For each wanted sample the two given ones around it and the second one's share; the ends fall on the ends."""
    at = np.linspace(0, given - 1, wanted) if wanted > 1 else np.zeros(1)
    low = np.minimum(at.astype(int), given - 1)
    return low, np.minimum(low + 1, given - 1), (at - low)


def stretched(picture: Array, shape: tuple[int, int]) -> Array:
    """(h, w, c) at another shape, linear, corner pixels on corner pixels (scipy's `zoom` of order 1)."""
    low, high, share = _lines(picture.shape[0], shape[0])
    rows = picture[low] * (1 - share)[:, None, None] + picture[high] * share[:, None, None]
    low, high, share = _lines(picture.shape[1], shape[1])
    columns = rows[:, low] * (1 - share)[None, :, None] + rows[:, high] * share[None, :, None]
    return np.asarray(columns, picture.dtype)


def blurred(picture: Array, radius: int) -> Array:
    """One level's low frequencies, (h, w, c) float32: 3 x 3 binomial, then down by `radius` and up again."""
    smooth = np.asarray(cv2.filter2D(picture, -1, BINOMIAL, borderType=cv2.BORDER_REPLICATE))
    if radius == 1:
        return smooth
    height, width = picture.shape[:2]
    return stretched(stretched(smooth, (round(height / radius), round(width / radius))), (height, width))


def split(picture: Array) -> tuple[Array, Array]:
    """High and low frequencies, (h, w, c) float32 each; their sum is the picture."""
    high, rest = np.zeros_like(picture), picture
    for level in range(LEVELS):
        low = blurred(rest, 2**level)
        high += rest - low
        rest = low
    return high, rest


def recoloured(structure: Array, colour: Array) -> Array:
    """uint8 (h, w, 3) with the first one's high and the second one's low frequencies (0-255 floats in)."""
    high, _ = split(structure.astype(np.float32) / 255)
    _, low = split(colour.astype(np.float32) / 255)
    return np.asarray(np.clip((high + low) * 255, 0, 255), np.uint8)


def fuse(original: Array, removed: Array, attention: Array) -> tuple[Array, Array]:
    """The fused picture (h, w, 3) uint8, and the weight (h, w) float32 with which the network's picture is in it.

    Args:
        original, removed: (h, w, 3) uint8. attention: (h', w') uint8.
    """
    height, width = original.shape[:2]
    inside, weight = fusion_weight(attention, (height, width))
    outside = (1 - inside)[..., None]
    sides = ((0, -height % MULTIPLE), (0, -width % MULTIPLE), (0, 0))
    structure, colour = (np.pad(one * outside, sides, mode="reflect") for one in (original, removed))
    wave = recoloured(structure, colour)[:height, :width]
    fused = wave * (1 - weight[..., None]) + removed * weight[..., None]
    return fused.astype(np.uint8), weight
