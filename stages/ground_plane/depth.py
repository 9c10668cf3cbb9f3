"""Depth of a photo behind one small protocol, and the arithmetic that its backends share.

Everything here is inverse depth, 1/Z, (h, w) float32 with 0 = infinitely far: a plane is linear in it whatever the
focal length, the sky is a number, and a network that gives disparity only up to a factor fits in as it is.
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Output = Literal["depth", "disparity"]

MIN_DEPTH = 1e-3  # in the depth's own unit: nothing is nearer to a camera


class DepthNetwork(Protocol):
    """A network that estimates depth."""

    metric: bool
    """Whether the inverse depth is in 1/m; else it is right up to a factor."""

    def predict_inverse_depth(self, pictures: Sequence[Array]) -> list[Array]:
        """Return inverse depth (h', w') float32 of each (h, w, 3) uint8 picture, at any resolution of its frame."""
        ...


def inverse_depth(depth: Array, unit: float) -> Array:
    """Convert depths (h, w) to 1/Z, Z = depth * unit. A depth of 0 means that none was measured: infinitely far.

    Raises:
        ValueError: a depth is negative.
    """
    values = np.nan_to_num(np.asarray(depth, np.float32), nan=0.0, posinf=0.0)
    if values.size and float(values.min()) < 0:
        raise ValueError(f"a depth of {float(values.min()):g}: depths are 0 (unknown) or more")
    return np.where(values > 0, 1 / (np.maximum(values, MIN_DEPTH) * unit), 0.0).astype(np.float32)


def clip_disparity(disparity: Array) -> Array:
    """Return disparity as inverse depth up to a factor: what is below 0 is infinitely far."""
    return np.maximum(np.nan_to_num(np.asarray(disparity, np.float32)), 0.0)


def compute_work_grid(shape: tuple[int, int], long_side: int) -> tuple[int, int]:
    """Return (width, height) of the grid that planes are looked for in: the picture's own aspect, never enlarged.

    Examples:
        >>> compute_work_grid((480, 640), 320), compute_work_grid((48, 64), 320)
        ((320, 240), (64, 48))
    """
    height, width = shape
    scale = min(1.0, long_side / max(height, width))
    return max(8, round(width * scale)), max(8, round(height * scale))


def resample(values: Array, size: tuple[int, int]) -> Array:
    """Resize a float map to (width, height). Shrinking averages, so that a thin object leaves a trace."""
    shrinks = size[0] < values.shape[1] or size[1] < values.shape[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(values, np.float32), size, interpolation=how))


def group_by_shape(pictures: Sequence[Array]) -> list[list[int]]:
    """Return the indices of the pictures that share a shape, group by group.

    A batch is padded nowhere, so it gives what each picture gives alone (the libraries' post-processing does not know
    about padding).
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, picture in enumerate(pictures):
        groups.setdefault(picture.shape, []).append(index)
    return list(groups.values())
