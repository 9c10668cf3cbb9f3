"""Results with a deliberate mistake, made from a row with a true target: pure functions.

Arrays: pictures (h, w, 3) uint8, masks (h, w) bool with True = object.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.annotator.store.enums import Variant
from rasura.manifests.boxes import compute_bounds
from rasura.manifests.images import RGB, Mask

Alpha = npt.NDArray[np.float32]  # (h, w), 0 to 1


STRIP = 256  # rows that are blended at once, since floats take four times the memory of a picture


def _blend(over: RGB, under: RGB, alpha: Alpha) -> RGB:
    blended = np.empty_like(under)
    for start in range(0, len(under), STRIP):
        rows = slice(start, start + STRIP)
        part = alpha[rows, :, None]
        blended[rows] = np.clip(over[rows] * part + under[rows] * (1 - part) + 0.5, 0, 255)
    return blended


def _scale_tones(picture: RGB, factors: Sequence[float], offset: float = 0) -> RGB:
    scaled = np.empty_like(picture)
    for start in range(0, len(picture), STRIP):
        rows = slice(start, start + STRIP)
        scaled[rows] = np.clip(picture[rows] * np.asarray(factors, np.float32) + offset + 0.5, 0, 255)
    return scaled


def make_untouched(source: RGB, mask: Mask) -> RGB:
    """Leave the object, with noise of one level that nobody sees: equal bytes would tell that nothing was done."""
    noisy = source.copy()
    random = np.random.default_rng(int(mask.sum()))
    hole = noisy[mask].astype(np.int16)
    noisy[mask] = np.clip(hole + random.integers(-1, 2, hole.shape), 0, 255).astype(np.uint8)
    return noisy


def _feather(mask: Mask, radius: float) -> Alpha:
    return np.asarray(cv2.GaussianBlur(mask.astype(np.float32), (0, 0), max(radius, 0.5)))


def make_blur(target: RGB, mask: Mask) -> RGB:
    """Blur the true target where the object was (σ = 1/8 of the hole's size), with a seam around it."""
    left, top, right, bottom = compute_bounds(mask)
    sigma = max(3.0, min(bottom - top, right - left) / 8)
    blurred = np.asarray(cv2.GaussianBlur(target, (0, 0), sigma), np.uint8)
    dilated = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return _blend(_scale_tones(blurred, (1, 1, 1), 9), target, _feather(dilated, 0.8))


def make_shadow(source: RGB, target: RGB, mask: Mask) -> RGB:
    """Remove the object and leave its shadow: the true target in M_o and 4 px around it, the source elsewhere."""
    dilated = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    return _blend(target, source, _feather(dilated, 1.0))


def _shrink_and_mirror(picture: npt.NDArray[Any], width: int, height: int) -> npt.NDArray[Any]:
    small = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))
    return small[:, ::-1]


def make_hallucination(source: RGB, target: RGB, mask: Mask) -> RGB:
    """Put a smaller, mirrored copy of the object where it was in the true target."""
    left, top, right, bottom = compute_bounds(mask)
    height, width = max(1, round((bottom - top) * 0.6)), max(1, round((right - left) * 0.6))
    cut = _shrink_and_mirror(source[top:bottom, left:right], width, height).astype(np.uint8)
    shape = mask[top:bottom, left:right].astype(np.float32)
    alpha = _shrink_and_mirror(shape, width, height).astype(np.float32)
    result = target.copy()
    x = left + (right - left - width) // 2
    place = (slice(bottom - height, bottom), slice(x, x + width))
    result[place] = _blend(cut, target[place], alpha)
    return result


def make_leak(target: RGB, mask: Mask) -> RGB:
    """Make everything outside the mask of the true target a little warmer and darker."""
    return _blend(target, _scale_tones(target, (1.02, 0.93, 0.84)), _feather(mask, 1.0))


def render_result(variant: str, source: RGB, target: RGB, mask: Mask) -> RGB:
    """Render the picture that is shown as the result.

    Args:
        variant: a word of `Variant`.
        source: picture with the object.
        target: picture without it.
        mask: of the object.
    """
    if variant == Variant.TARGET or not mask.any():
        return target
    match Variant(variant):
        case Variant.BLUR:
            return make_blur(target, mask)
        case Variant.SHADOW:
            return make_shadow(source, target, mask)
        case Variant.HALLUCINATED:
            return make_hallucination(source, target, mask)
        case Variant.LEAK:
            return make_leak(target, mask)
    return make_untouched(source, mask)
