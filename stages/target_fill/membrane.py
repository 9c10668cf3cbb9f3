"""Smooth fields that continue known values into a region: Laplace's equation, plain or screened."""

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import Mask
from rasura.stages.imaging.filters import Floats

COARSEST_SIDE = 24  # px: a level this small is solved by sweeps alone
COARSE_SWEEPS, FINE_SWEEPS = 60, 12


def _halve(values: npt.NDArray[np.float32]) -> Floats:
    """Return the sum over 2 × 2 px, the last row and column repeated where a side is odd."""
    height, width = values.shape[:2]
    even = cv2.copyMakeBorder(values, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    size = (even.shape[1] // 2, even.shape[0] // 2)
    return np.asarray(cv2.resize(even, size, interpolation=cv2.INTER_AREA), np.float32) * np.float32(4)


def _sweep(field: Floats, values: Floats, known: npt.NDArray[np.float32], screening: float, count: int) -> Floats:
    """Return `field` after `count` Jacobi sweeps of (4 + screening) u = sum of the neighbours, where not known."""
    kernel = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32) / np.float32(4 + screening)
    free = (1 - known)[..., None]
    fixed = values * known[..., None]
    for _ in range(count):
        mean = np.asarray(cv2.filter2D(field, cv2.CV_32F, kernel, borderType=cv2.BORDER_REPLICATE), np.float32)
        field = mean.reshape(field.shape) * free + fixed
    return field


def solve_membrane(values: Floats, known: Mask, decay: float | None = None) -> Floats:
    """Solve Δu = u / decay² where the values are not known, by Jacobi sweeps on a pyramid, coarse to fine.

    Args:
        values: (h, w, channels) float32; read where known.
        known: (h, w) bool.
        decay: px over which the field dies away inside; None: it does not (a membrane).

    Returns:
        (h, w, channels) float32: `values` where known; zeros where nothing is known.

    Examples:
        >>> known = np.array([[True, False, False, False, True]])
        >>> values = np.array([0, 9, 9, 9, 4], np.float32).reshape(1, 5, 1)
        >>> solve_membrane(values, known).round(1).ravel().tolist()
        [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    if not known.any():
        return np.zeros_like(values)
    screening = 0.0 if decay is None else 1 / decay**2
    weight = known.astype(np.float32)
    levels = [(np.where(known[..., None], values, np.float32(0)), weight)]
    while min(levels[-1][1].shape) > COARSEST_SIDE:
        above, share = levels[-1]
        total, summed = _halve(share), _halve(above * share[..., None]).reshape(*_halve(share).shape, -1)
        levels.append((summed / np.maximum(total, 1)[..., None], (total > 0).astype(np.float32)))
    coarse_values, coarse_known = levels[-1]
    start = (coarse_values * coarse_known[..., None]).sum((0, 1)) / coarse_known.sum()
    field = np.broadcast_to(start, coarse_values.shape).astype(np.float32)
    factor = 4.0 ** (len(levels) - 1)
    field = _sweep(field, coarse_values, coarse_known, screening * factor, COARSE_SWEEPS)
    for level_values, level_known in reversed(levels[:-1]):
        factor /= 4
        size = (level_known.shape[1], level_known.shape[0])
        field = np.asarray(cv2.resize(field, size, interpolation=cv2.INTER_LINEAR), np.float32)
        field = _sweep(field.reshape(level_values.shape), level_values, level_known, screening * factor, FINE_SWEEPS)
    return field
