"""The factory of the depth backends. Their model libraries are imported when one is opened."""

from collections.abc import Mapping
from pathlib import Path

from rasura.networks.memory import Library, NetworkMemory, count_parameters, estimate_memory
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


def estimate_networks(files: Mapping[str, Path], backend: str) -> NetworkMemory | None:
    """Estimate the memory of the networks of stage `ground`; None where it has none.

    Args:
        files: of its weights, by the names under which rows record them.
        backend: of the depth.
    """
    libraries: Mapping[str, Library] = {"classes": "torch", "things": "onnx"}
    libraries = {**libraries, "depth": "onnx" if backend == "depth-onnx" else "torch"}
    memory: NetworkMemory | None = None
    for name, library in libraries.items():
        paths = [path for key, path in files.items() if key.partition("/")[0] == name]
        if paths:
            parameters = count_parameters(paths)
            part = estimate_memory(parameters, 80_000_000 + parameters, "float32", library=library)
            memory = memory + part if memory else part
    return memory
