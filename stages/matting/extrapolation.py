"""Extrapolation of values from the pixels that have them to all others."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import Mask
from rasura.removers.base import extend_surroundings
from rasura.stages.imaging.filters import Floats, blur


def extrapolate_nearest(values: Floats, valid: Mask) -> Floats:
    """Return (h, w, c) `values` with each pixel that is not valid taking those of the nearest one that is.

    Examples:
        >>> valid = np.array([[True, False, False, True]])
        >>> extrapolate_nearest(np.array([[[1], [0], [0], [4]]], np.float32), valid)[..., 0].tolist()
        [[1.0, 1.0, 4.0, 4.0]]
    """
    return np.asarray(extend_surroundings(values, ~valid), np.float32)


def extrapolate_smoothly(values: Floats, valid: Mask, sigma: float) -> Floats:
    """Return the normalized Gaussian blur of the valid pixels' values.

    Where it does not reach, the mean of ever larger squares takes its place (a pyramid).

    Args:
        values: (h, w, c).
        valid: (h, w) bool.
        sigma: px.

    Returns:
        (h, w, c) float32.
    """
    shrink = 2 if sigma >= 4 and min(valid.shape) >= 16 else 1
    stack = np.dstack([values * valid[..., None], valid.astype(np.float32)])
    if shrink > 1:
        stack = _halve(stack)
    levels: list[npt.NDArray[Any]] = [blur(stack, sigma / shrink).reshape(stack.shape)]
    while (levels[-1][..., -1] < 1e-3).any() and max(levels[-1].shape[:2]) > 1:
        levels.append(_halve(levels[-1]))
    out = levels[-1][..., :-1] / (levels[-1][..., -1:] + 1e-9)
    for level in reversed(levels[:-1]):
        height, width = int(level.shape[0]), int(level.shape[1])
        enlarged = np.asarray(cv2.resize(out, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        coarse = enlarged.reshape(height, width, -1)
        weight = level[..., -1:]
        out = np.where(weight > 1e-3, level[..., :-1] / (weight + 1e-9), coarse)
    height, width = int(valid.shape[0]), int(valid.shape[1])
    full = out if out.shape[:2] == valid.shape else cv2.resize(out, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(full.reshape(values.shape), np.float32)


def _halve(stack: Floats) -> Floats:
    """Return (h, w, c) at half its size, rounded up."""
    height, width = int(stack.shape[0]), int(stack.shape[1])
    small = cv2.resize(stack, (max(1, (width + 1) // 2), max(1, (height + 1) // 2)), interpolation=cv2.INTER_AREA)
    return np.asarray(small.reshape(*small.shape[:2], stack.shape[2]), np.float32)
