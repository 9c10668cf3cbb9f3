"""Linear filters and reductions over channels, on float32."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import RGB

Floats = npt.NDArray[np.float32]


def convert_to_grey(picture: RGB) -> Floats:
    """Return the luma of (h, w, 3) uint8 as (h, w) float32, 0 to 255.

    Examples:
        >>> convert_to_grey(np.array([[[255, 255, 255], [255, 0, 0]]], np.uint8))
        array([[255.,  76.]], dtype=float32)
    """
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY), np.float32)


def box_mean(values: npt.NDArray[Any], side: int) -> Floats:
    """Return the mean over a side × side window, same shape as `values`, borders mirrored.

    Examples:
        >>> box_mean(np.array([[0, 0, 9, 0, 0]]), 3)
        array([[0., 3., 3., 3., 0.]], dtype=float32)
    """
    return np.asarray(
        cv2.blur(np.asarray(values, np.float32), (side, side), borderType=cv2.BORDER_REFLECT_101), np.float32
    )


def channel_max(values: npt.NDArray[Any]) -> Floats:
    """Return the largest of the three channels of (h, w, 3) as (h, w) float32.

    numpy is ten times slower over so short an axis.

    Examples:
        >>> channel_max(np.array([[[1, 5, 3], [7, 0, 2]]]))
        array([[5., 7.]], dtype=float32)
    """
    red, green, blue = cv2.split(np.asarray(values, np.float32))
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.float32)


def channel_mean(values: npt.NDArray[Any]) -> Floats:
    """Return the mean of the three channels of (h, w, 3) as (h, w) float32."""
    return np.asarray(cv2.transform(np.asarray(values, np.float32), np.full((1, 3), 1 / 3, np.float32)), np.float32)


def blur(values: npt.NDArray[Any], sigma: float) -> Floats:
    """Return `values` convolved with a Gaussian of `sigma` px, same shape."""
    return np.asarray(cv2.GaussianBlur(np.asarray(values, np.float32), (0, 0), sigma), np.float32)


def estimate_gradient(values: Floats) -> tuple[Floats, Floats]:
    """Return the Sobel derivatives of (h, w, ...) `values`, to the right and down: 8 times the slope a px."""
    across = np.asarray(cv2.Sobel(values, cv2.CV_32F, 1, 0), np.float32)
    return across, np.asarray(cv2.Sobel(values, cv2.CV_32F, 0, 1), np.float32)


def compute_gradient_magnitude(values: Floats) -> Floats:
    """Return the length of the Sobel gradient of (h, w) `values`, (h, w) float32.

    `cv2.magnitude` is not used: its last bit depends on where in memory its arrays begin, so that the same picture
    would give two results.

    Examples:
        >>> int(compute_gradient_magnitude(np.tile(np.arange(5, dtype=np.float32), (5, 1)))[2, 2])
        8
    """
    across, down = estimate_gradient(values)
    return np.sqrt(across * across + down * down)
