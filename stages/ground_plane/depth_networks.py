"""The factory of the depth backends. Their model libraries are imported when one is opened."""

from pathlib import Path

from rasura.stages.ground_plane.depth import DepthNetwork, Output
from rasura.stages.ground_plane.depth_anything import DepthAnything
from rasura.stages.ground_plane.depth_onnx import DepthOnnx


def open_depth_network(backend: str, folder: Path, output: Output, unit: float, pixels: str) -> DepthNetwork:
    """Open the network of a backend.

    Args:
        folder: the checkpoint. output, unit, pixels: see `DepthOnnx`; an ONNX file does not contain them.

    Raises:
        ValueError: no such backend, or a file that is no depth network.
    """
    if backend == "depth-onnx":
        return DepthOnnx(folder, output, unit, pixels)
    if backend == "depth-anything":
        return DepthAnything(folder)
    raise ValueError(f"no depth backend '{backend}': there are depth-onnx and depth-anything")
