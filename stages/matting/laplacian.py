"""Closed-form matting: coverage that is locally linear in the picture's colours.

Source: Levin, Lischinski & Weiss, A Closed-Form Solution to Natural Image Matting, 2008.
"""

import numpy as np
import numpy.typing as npt

from rasura.manifests.images import Mask
from rasura.stages.imaging.filters import Floats
from rasura.stages.imaging.morphology import dilate

Ints = npt.NDArray[np.int64]

COLOUR_NOISE = 20.0  # grey levels²: variance of colours within 3 × 3 px that is noise


def compute_matting_laplacian(guide: Floats, unknown: Mask, epsilon: float) -> tuple[Ints, Floats]:
    """Compute the matting Laplacian of the 3 × 3 windows that hold an unknown pixel (Levin et al., eq. 12).

    In each window, α is linear in the colour.

    Args:
        guide: (h, w, 3), grey levels.
        unknown: (h, w) bool.
        epsilon: grey levels², regularization: differences of the guide below it are noise.

    Returns:
        (n, 9) int64, each window's pixels as flat indices; (n, 9, 9) float32: the residual of α in a window after
        its best linear model.
    """
    width = unknown.shape[1]
    centres = dilate(unknown, 1)
    centres[[0, -1]] = False
    centres[:, [0, -1]] = False
    offsets = np.array([dy * width + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
    windows = np.flatnonzero(centres)[:, None] + offsets
    colours = guide.reshape(-1, 3)[windows]
    colours = colours - colours.mean(1, keepdims=True)
    covariance = colours.transpose(0, 2, 1) @ colours + 9 * epsilon * np.eye(3, dtype=np.float32)
    explained = colours @ np.linalg.solve(covariance, colours.transpose(0, 2, 1))
    return windows, np.asarray(np.eye(9, dtype=np.float32) - 1 / 9 - explained, np.float32)


def solve_alpha(
    alpha: Floats,
    trust: Floats,
    unknown: Mask,
    guide: Floats,
    weight: float = 0.1,
    steps: int = 15,
    epsilon: float = COLOUR_NOISE,
) -> Floats:
    """Minimize Σ trust (x − α)² + weight · xᵀ L x over the unknown pixels, the others fixed, by conjugate gradients.

    Args:
        alpha: (h, w), the estimates of the pixels by themselves, and the fixed values.
        trust: (h, w), their weight.
        unknown: (h, w) bool.
        guide: (h, w, 3) of the matting Laplacian L.
        weight: of the Laplacian.
        steps: at most.
        epsilon: grey levels², see `compute_matting_laplacian`.

    Returns:
        (h, w) float32 in [0, 1].
    """
    if min(alpha.shape) < 3:
        return alpha
    windows, laplacian = compute_matting_laplacian(guide, unknown, epsilon)
    free, data_weight = unknown.ravel().astype(np.float32), trust.ravel() + 1e-3

    def multiply(values: Floats) -> Floats:
        parts = (laplacian @ values[windows][..., None])[..., 0]
        return np.bincount(windows.ravel(), parts.ravel(), values.size).astype(np.float32)

    x = alpha.ravel().copy()
    residual = -weight * free * multiply(x)
    preconditioner = 1 / (data_weight + 6 * weight)  # Jacobi: L's diagonal is about 9 windows times 2 / 3
    direction = preconditioner * residual
    power = first = float(residual @ direction)
    for _ in range(steps):
        if power <= 1e-5 * first:
            break
        product = free * (data_weight * direction + weight * multiply(direction))
        length = power / float(direction @ product)
        x += length * direction
        residual -= length * product
        new_power = float(residual @ (preconditioner * residual))
        direction = preconditioner * residual + (new_power / power) * direction
        power = new_power
    return np.clip(x, 0, 1).reshape(alpha.shape).astype(np.float32)
