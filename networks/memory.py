"""The memory that networks need, from the headers of their files; nothing is loaded, and torch is not imported.

A network needs its weights at the precision at which it runs, the activations of one batch, and what the libraries
themselves take. The figures for activations were counted on the networks' shapes (every live tensor of a forward pass,
without a card); a card's own figure, once there is one, takes their place (`pipeline.engine.measured`).
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rasura.networks.weights import PICKLES

CONTEXT_BYTES = 600_000_000
"""What CUDA's context and the libraries' handles take in each process on a card."""
PROCESS_BYTES = 500_000_000
"""What a process with torch takes in main memory before it has a network."""
RESERVE = 1.15
"""Memory over the live tensors: workspaces of convolutions, and gaps between blocks."""
MAX_HEADER = 100_000_000
"""Size of the largest header of a safetensors file, bytes, as its format has it."""

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a number by precision."""

DECODE_ELEMENTS, ENCODE_ELEMENTS = 770, 645
"""Numbers a pixel of the picture that SDXL's VAE has alive at its peak."""
UNET_ELEMENTS = 80
"""The same of SDXL's UNet, without gradients."""
TRAIN_ELEMENTS, TRAIN_CHECKPOINTED_ELEMENTS = 3340, 300
"""The same with gradients: all activations are kept, or computed again (gradient checkpointing)."""

Library = Literal["torch", "onnx"]


@dataclass(frozen=True)
class NetworkMemory:
    """The memory that all networks of one worker need together.

    Attributes:
        gpu_bytes: on a card, with everything that the process takes there.
        cpu_bytes: in main memory, where the networks run on the CPU.
        device: `auto` takes a card where there is one; `cuda` needs one; `cpu` never takes one.
        libraries: what has to be able to use the card.

    Examples:
        >>> (NetworkMemory(2 * 10**9, 3 * 10**9) + NetworkMemory(10**9, 10**9)).gpu_bytes
        3000000000
    """

    gpu_bytes: int
    cpu_bytes: int
    device: Literal["auto", "cpu", "cuda"] = "auto"
    libraries: frozenset[str] = frozenset()

    def __add__(self, other: "NetworkMemory") -> "NetworkMemory":
        devices = {self.device, other.device}
        device = "cuda" if "cuda" in devices else "auto" if "auto" in devices else "cpu"
        return NetworkMemory(
            self.gpu_bytes + other.gpu_bytes,
            self.cpu_bytes + other.cpu_bytes,
            device,  # type: ignore[arg-type]
            self.libraries | other.libraries,
        )


def count_parameters(paths: Iterable[Path], without: tuple[str, ...] = ()) -> int:
    """Count the parameters in files of weights; other files, such as configurations, have none.

    Args:
        paths: the files.
        without: beginnings of names of tensors that are not loaded.

    Of a safetensors file the header is read. The others are taken to be in float32: their size divided by four.
    """
    total = 0
    for path in paths:
        if path.suffix == ".safetensors":
            total += sum(
                math.prod(entry["shape"])
                for name, entry in read_safetensors_header(path).items()
                if not name.startswith(without)
            )
        elif path.is_file() and (path.suffix in PICKLES or path.suffix == ".onnx"):
            size = path.stat().st_size
            size += sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*data"))  # ONNX's large tensors
            total += size // 4
    return total


def read_safetensors_header(path: Path) -> Mapping[str, Mapping[str, list[int]]]:
    """Read the names, types and shapes of a safetensors file; empty where the file is none.

    A file that is damaged is reported when it is opened, with its place in the recipe.
    """
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            entries = json.loads(file.read(size)) if size <= MAX_HEADER else {}
    except (OSError, ValueError):
        return {}
    if not isinstance(entries, dict):
        return {}
    return {name: entry for name, entry in entries.items() if isinstance(entry, dict) and "shape" in entry}


def estimate_memory(
    parameters: int,
    elements: int,
    dtype: str = "auto",
    device: str = "auto",
    library: Library = "torch",
    cpu_elements: int | None = None,
) -> NetworkMemory:
    """Estimate the memory of a network.

    Args:
        parameters: of the network.
        elements: numbers that are alive at the peak of a batch, without the parameters.
        dtype: precision; `auto` is bfloat16 on a card and float32 on a CPU.
        device: auto, cpu, cuda or cuda:N.
        library: that runs it.
        cpu_elements: those of a batch on a CPU, where it is another one.

    Raises:
        ValueError: `device` names one of several cards.

    Examples:
        RORem at 512 px, eight pictures in one run: 2.57 and 0.08 billion parameters, the VAE's 770 numbers a pixel.

        >>> memory = estimate_memory(2_650_000_000, 8 * 512 * 512 * 770)
        >>> f"{memory.gpu_bytes / 1e9:.1f} GB on a card, {memory.cpu_bytes / 1e9:.1f} GB without one"
        '10.4 GB on a card, 20.1 GB without one'
    """
    if device not in ("auto", "cpu", "cuda", "cuda:0"):
        raise ValueError(
            f"device '{device}': Ray gives each worker its card, which is the first that it sees; write `cuda`, and "
            "choose among the machine's cards with CUDA_VISIBLE_DEVICES"
        )
    cpu_elements = elements if cpu_elements is None else cpu_elements
    return NetworkMemory(
        int((parameters + elements) * RESERVE * BYTES.get(dtype, 2)) + CONTEXT_BYTES,
        int((parameters + cpu_elements) * RESERVE * BYTES.get(dtype, 4)) + PROCESS_BYTES,
        device="cuda" if device.startswith("cuda") else "cpu" if device == "cpu" else "auto",
        libraries=frozenset({library}),
    )


def estimate_training(
    parameters: int,
    trained: int,
    pixels: int,
    dtype: str = "auto",
    device: str = "auto",
    checkpointed: bool = False,
) -> NetworkMemory:
    """Estimate the memory of a training of SDXL's UNet, or of a smaller one, with AdamW.

    Each trained parameter has its float32 value, gradient and two moments.

    Args:
        parameters: of all networks that are loaded.
        trained: how many of them are trained; a LoRA's, or all.
        pixels: of the pictures of one batch together.
        dtype: precision of the forward pass.
        device: auto, cpu, cuda or cuda:N.
        checkpointed: activations are computed again in the backward pass.

    Examples:
        RORem's LoRA at 512 px, batches of 4: 2.65 billion parameters, 23 million trained.

        >>> f"{estimate_training(2_650_000_000, 23_000_000, 4 * 512 * 512).gpu_bytes / 1e9:.1f} GB"
        '15.2 GB'
    """
    elements = TRAIN_CHECKPOINTED_ELEMENTS if checkpointed else TRAIN_ELEMENTS
    running = estimate_memory(parameters, max(elements, ENCODE_ELEMENTS) * pixels, dtype, device)
    state = int(16 * trained * RESERVE)
    return NetworkMemory(running.gpu_bytes + state, running.cpu_bytes + state, running.device, running.libraries)
