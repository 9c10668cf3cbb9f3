"""What LaMa and MI-GAN have in common: one file of weights, one run of a network for one picture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rasura.networks.archive import describe_code, read_archive
from rasura.networks.memory import Library, NetworkMemory, count_parameters, estimate_memory
from rasura.networks.pretrained import fill_module, refuse_others
from rasura.networks.weights import BadWeights, describe_content, pick_device_and_dtype, read_tensors

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[Any]

PIXEL_ELEMENTS = 260
"""Numbers a pixel that are alive at the peak: the 64 channels of the first and of the last layers, and copies."""
ARCHIVES = (".pt", ".pth", ".ckpt", ".bin")


@dataclass(frozen=True)
class GeneratorOptions:
    """Options of running a generator.

    size: side in px of the square around the hole that the network works on.
    device: auto, cpu or cuda:N.
    """

    size: int = 512
    device: str = "auto"


def estimate_generator_memory(path: Path, options: GeneratorOptions) -> NetworkMemory:
    """Estimate the memory of a generator: its file's parameters, and its widest layers."""
    elements = options.size**2 * PIXEL_ELEMENTS
    library: Library = "onnx" if path.suffix == ".onnx" else "torch"
    return estimate_memory(count_parameters([path]), elements, "float32", options.device, library)


def read_generator(path: Path, last_name: str, prefixes: tuple[str, ...]) -> dict[str, "Tensor"]:
    """Read a generator's tensors from safetensors, a pickle, a checkpoint of its training, or TorchScript.

    Args:
        last_name: of a tensor that every generator of the kind has.
        prefixes: that published files put before the names.

    Returns:
        Its tensors by the names of the architecture; what else is in the file is left out.

    Raises:
        BadWeights: the file cannot be read, or holds no such generator.
    """
    if content := describe_content(path):
        raise BadWeights(f"'{path}' cannot be opened as weights: {content}")
    state = read_archive(path) if path.suffix in ARCHIVES else read_tensors(path)
    for prefix in ("", *prefixes):
        if f"{prefix}{last_name}" in state:
            return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    code = describe_code(path) if path.suffix in ARCHIVES else ""
    raise BadWeights(f"'{path}' has no tensor '{last_name}': it is of another network{code}")


def list_weights(name: str, kind: str, path: Path) -> dict[str, Path]:
    """Return the one file of a generator, by its kind.

    Args:
        name: of the remover, for the error.

    Raises:
        BadWeights: it is missing.
    """
    if not path.is_file():
        raise BadWeights(f"there is no file '{path}' for remover '{name}'")
    return {kind: path}


def open_generator(
    path: Path,
    construct: Callable[..., Any],
    infer_shape: Callable[[Mapping[str, Any]], Mapping[str, int]],
    state: Mapping[str, Any],
    device: str,
) -> Callable[[Array], Array]:
    """Build the generator whose tensors `state` has, in float32, on the device.

    Returns:
        A function from its input (1, c, h, w) to the first of its outputs (3, h, w), both float32.

    Raises:
        BadWeights: the tensors do not fit.
    """
    import torch

    with torch.device("meta"), refuse_others(path, f"a {getattr(construct, '__name__', 'generator')}"):
        net = construct(**infer_shape(state))
    counters = {name: torch.tensor(0) for name in net.state_dict() if name.endswith("num_batches_tracked")}
    place, dtype = pick_device_and_dtype(device, "float32")
    net = fill_module(net, {**counters, **state}, path, dtype).to(place)

    def run(inputs: Array) -> Array:
        with torch.inference_mode():
            return np.asarray(net(torch.from_numpy(inputs).to(place))[0].cpu().numpy())

    return run


def add_symmetric_border(picture: Array, multiple: int) -> Array:
    """Return a picture (h, w, …), mirrored at its right and lower edge to sides that are multiples.

    Examples:
        >>> add_symmetric_border(np.arange(3)[None], 4).tolist()
        [[0, 1, 2, 2], [0, 1, 2, 2], [0, 1, 2, 2], [0, 1, 2, 2]]
    """
    height, width = picture.shape[:2]
    border = [(0, -height % multiple), (0, -width % multiple)] + [(0, 0)] * (picture.ndim - 2)
    return np.pad(picture, border, mode="symmetric")
