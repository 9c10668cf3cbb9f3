"""RORem's published discriminator to a discriminator's folder: its LoRA's names, and its head out of a pickle."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rasura.discriminator import model, network
from rasura.discriminator.model import Discriminator
from rasura.discriminator.network import HEAD, WrongDiscriminator
from rasura.networks import lora
from rasura.networks.weights import BadWeights, read_tensors

if TYPE_CHECKING:
    import torch

LORA_FILE, HEAD_FILE = "pytorch_lora_weights.safetensors", "cls_pred_branch.pt"


def convert_name(key: str) -> str:
    """Return the name on disk of a LoRA's tensor, from any layout of `lora.parse_key`.

    Examples:
        >>> convert_name("unet.mid_block.attn1.to_q.lora.down.weight")
        'mid_block.attn1.to_q.lora_A.weight'
    """
    name, part = lora.parse_key(key)
    return f"{name}.lora_{'A' if part == 'down' else 'B'}.weight"


def read_rorem(folder: Path) -> dict[str, "torch.Tensor"]:
    """Read the published tensors under their names here, each checked against the network at full size.

    Args:
        folder: with `pytorch_lora_weights.safetensors` and `cls_pred_branch.pt`.

    Raises:
        WrongDiscriminator: a file is missing or is no such file, a tensor is missing, unknown or of another shape.
    """
    for name in (LORA_FILE, HEAD_FILE):
        if not (folder / name).is_file():
            raise WrongDiscriminator(f"no {name} in {folder}: RORem's discriminator is both files")
    try:
        tensors = {convert_name(key): value for key, value in lora.read(folder / LORA_FILE).items()}
        head = read_tensors(folder / HEAD_FILE)
    except BadWeights as error:
        raise WrongDiscriminator(f"{folder} cannot be read as RORem's discriminator: {error}") from error
    tensors |= {f"{HEAD}.{key.removeprefix(HEAD + '.')}": value for key, value in head.items()}
    check_shapes(tensors, list_expected_shapes())
    return tensors


def list_expected_shapes() -> dict[str, tuple[int, ...]]:
    """Return names and shapes of RORem's two files: 544 tensors of the LoRA, 14 of the head."""
    full = network.build(network.ROREM, "meta")
    head = {name: tuple(value.shape) for name, value in full.state_dict().items() if name.startswith(HEAD)}
    return network.list_lora_shapes(full, network.ROREM.rank) | head


def check_shapes(tensors: Mapping[str, "torch.Tensor"], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Check tensors against names and shapes.

    Raises:
        WrongDiscriminator: the first that is missing, unknown or of another shape.
    """
    for name in sorted(set(tensors) | set(expected)):
        shape = tuple(tensors[name].shape) if name in tensors else "missing"
        if shape != expected.get(name, "unknown"):
            raise WrongDiscriminator(f"'{name}' is {shape} in the file, and should be {expected.get(name, 'absent')}")


def convert(folder: Path, prompt: Mapping[str, "torch.Tensor"], out: Path) -> None:
    """Write a discriminator's folder from RORem's two files and the empty prompt's embeddings (`tokens`, `pooled`).

    Raises:
        WrongDiscriminator: as `read_rorem`; nothing is written.
    """
    import torch

    tensors = read_rorem(folder)
    empty: Any = None  # the weights are the published ones; no network is needed to write them
    cpu, tokens, pooled = torch.device("cpu"), prompt["tokens"], prompt["pooled"]
    discriminator = Discriminator(network.ROREM, empty, empty, tokens, pooled, cpu, torch.float32)
    about = {"from": "RORem's published discriminator", "files": [LORA_FILE, HEAD_FILE]}
    model.save(discriminator, out, tensors, about, is_complete=False)
