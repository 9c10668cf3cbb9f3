"""Depth of a photo behind one small protocol: a network, or a column that the record already has.

Everything here speaks inverse depth, 1/Z, (h, w) float32 with 0 = infinitely far: a plane is linear in it whatever the
focal length, the sky is a number, and a network that gives disparity only up to a factor fits in as it is.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Output = Literal["depth", "disparity"]

NEAREST = 1e-3  # in the depth's own unit: nothing stands nearer to a camera


class DepthNetwork(Protocol):
    """A network that sees how far things are."""

    metric: bool
    """Whether the inverse depth is in 1/m; else it is right up to a factor."""

    def inverse(self, pictures: Sequence[Array]) -> list[Array]:
        """Inverse depth (h', w') float32 of each (h, w, 3) uint8 picture, at any resolution of the same frame."""
        ...


def inverse_depth(depth: Array, unit: float) -> Array:
    """1/Z of depths (h, w), Z = depth * unit. A depth of 0 is one that nothing was measured at: infinitely far.

    Raises:
        ValueError: a depth is negative.
    """
    values = np.nan_to_num(np.asarray(depth, np.float32), nan=0.0, posinf=0.0)
    if values.size and float(values.min()) < 0:
        raise ValueError(f"a depth of {float(values.min()):g}: depths are 0 (unknown) or more")
    return np.where(values > 0, 1 / (np.maximum(values, NEAREST) * unit), 0.0).astype(np.float32)


def positive(disparity: Array) -> Array:
    """Disparity as inverse depth up to a factor: what is below 0 is infinitely far."""
    return np.maximum(np.nan_to_num(np.asarray(disparity, np.float32)), 0.0)


def work_grid(shape: tuple[int, int], long_side: int) -> tuple[int, int]:
    """(width, height) of the grid that planes are looked for in: the picture's own aspect, never enlarged."""
    height, width = shape
    scale = min(1.0, long_side / max(height, width))
    return max(8, round(width * scale)), max(8, round(height * scale))


def resampled(values: Array, size: tuple[int, int]) -> Array:
    """A float map on another grid, (width, height). Shrinking averages, so that a thin thing leaves a trace."""
    shrinks = size[0] < values.shape[1] or size[1] < values.shape[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(values, np.float32), size, interpolation=how))


def by_shape(pictures: Sequence[Array]) -> list[list[int]]:
    """Places of the pictures that share a shape, group by group: a batch is padded nowhere, so it gives what each
    picture gives alone (the libraries' post-processing does not know about padding)."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, picture in enumerate(pictures):
        groups.setdefault(picture.shape, []).append(place)
    return list(groups.values())


def open_depth(backend: str, folder: Path, output: Output, unit: float, pixels: str) -> DepthNetwork:
    """The network of a backend. `output`, `unit` and `pixels` are for ONNX files, which do not tell.

    Raises:
        ValueError: no such backend, or a file that is no depth network.
    """
    if backend == "depth-onnx":
        from rasura.stages.ground_plane.depth_onnx import DepthOnnx

        return DepthOnnx(folder, output, unit, pixels)
    if backend == "depth-anything":
        from rasura.stages.ground_plane.depth_anything import DepthAnything

        return DepthAnything(folder)
    raise ValueError(f"no depth backend '{backend}'")
