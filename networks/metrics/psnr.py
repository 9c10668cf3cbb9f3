"""Peak signal-to-noise ratio of two pictures."""

from typing import Any

import numpy as np
import numpy.typing as npt


def compute_psnr(
    first: npt.NDArray[Any],
    second: npt.NDArray[Any],
    region: npt.NDArray[np.bool_] | None = None,
    most: float = 99.0,
    least_error: float = 1e-5,
) -> float:
    """Return the PSNR of two arrays of one shape, in dB.

    Args:
        first, second: (h, w) or (h, w, 3), 0 to 255.
        region: (h, w), the pixels that count; None for all.
        most: the largest value, so that equal pictures have a mean.
        least_error: mean squared error below which the pictures count as equal.

    Examples:
        >>> black = np.zeros((2, 2), np.uint8)
        >>> round(compute_psnr(black, black + 51), 2)
        13.98
        >>> compute_psnr(black, black)
        99.0
    """
    if region is not None:
        first, second = first[region], second[region]
    error = float(np.mean((first.astype(np.float32) - second.astype(np.float32)) ** 2, dtype=np.float64))
    return most if error < least_error else float(min(most, 10 * np.log10(255**2 / error)))
