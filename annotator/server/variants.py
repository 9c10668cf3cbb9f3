"""Results with a known mistake, made from a row whose true target is known. Pure functions.

Arrays: pictures (h, w, 3) uint8, masks (h, w) bool with True = object.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.annotator.store.enums import Variant
from rasura.manifests.images import RGB, Mask

Alpha = npt.NDArray[np.float32]  # (h, w), 0 to 1


def box_of(mask: Mask) -> tuple[int, int, int, int]:
    """Top, left, bottom, right (exclusive) of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _mixed(over: RGB, under: RGB, alpha: Alpha) -> RGB:
    mixed = over * alpha[..., None] + under * (1 - alpha[..., None])
    return np.asarray(np.clip(mixed + 0.5, 0, 255), np.uint8)


def _toned(picture: RGB, factors: Sequence[float], offset: float = 0) -> RGB:
    return np.asarray(np.clip(picture * np.asarray(factors) + offset + 0.5, 0, 255), np.uint8)


def _feathered(mask: Mask, radius: float) -> Alpha:
    return np.asarray(cv2.GaussianBlur(mask.astype(np.float32), (0, 0), max(radius, 0.5)))


def smeared(target: RGB, mask: Mask) -> RGB:
    """The true target, blurred where the object was, with a seam around it: b over σ = 1/8 of the hole's size."""
    top, left, bottom, right = box_of(mask)
    sigma = max(3.0, min(bottom - top, right - left) / 8)
    blurred = np.asarray(cv2.GaussianBlur(target, (0, 0), sigma), np.uint8)
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return _mixed(_toned(blurred, (1, 1, 1), 9), target, _feathered(grown, 0.8))


def shadow_left(source: RGB, target: RGB, mask: Mask) -> RGB:
    """The object gone, its shadow still there: the true target in M_o and 4 px around it, the source elsewhere."""
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    return _mixed(target, source, _feathered(grown, 1.0))


def _shrunk(picture: npt.NDArray[Any], width: int, height: int) -> npt.NDArray[Any]:
    small = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))
    return small[:, ::-1]


def hallucinated(source: RGB, target: RGB, mask: Mask) -> RGB:
    """The true target with a smaller, mirrored copy of the object standing where it was."""
    top, left, bottom, right = box_of(mask)
    height, width = max(1, round((bottom - top) * 0.6)), max(1, round((right - left) * 0.6))
    cut = _shrunk(source[top:bottom, left:right], width, height).astype(np.uint8)
    shape = mask[top:bottom, left:right].astype(np.float32)
    alpha = _shrunk(shape, width, height).astype(np.float32)
    result = target.copy()
    x = left + (right - left - width) // 2
    place = (slice(bottom - height, bottom), slice(x, x + width))
    result[place] = _mixed(cut, target[place], alpha)
    return result


def leaked(target: RGB, mask: Mask) -> RGB:
    """The true target with everything outside the mask a little warmer and darker."""
    return _mixed(target, _toned(target, (1.02, 0.93, 0.84)), _feathered(mask, 1.0))


def result_of(variant: str, source: RGB, target: RGB, mask: Mask) -> RGB:
    """The picture that is shown as the result."""
    if variant == Variant.TARGET or not mask.any():
        return target
    match Variant(variant):
        case Variant.BLUR:
            return smeared(target, mask)
        case Variant.SHADOW:
            return shadow_left(source, target, mask)
        case Variant.HALLUCINATED:
            return hallucinated(source, target, mask)
        case Variant.LEAK:
            return leaked(target, mask)
    return source
