"""RORem's published discriminator to a judge's folder: its LoRA's names, and its head out of a pickle."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rasura.discriminator import model as judge
from rasura.discriminator import network
from rasura.discriminator.model import Judge
from rasura.discriminator.network import HEAD, WrongJudge

if TYPE_CHECKING:
    import torch

LORA_FILE, HEAD_FILE = "pytorch_lora_weights.safetensors", "cls_pred_branch.pt"


def lora_name(key: str) -> str:
    """Our name of a LoRA's tensor, from diffusers' layouts (`unet.….lora.down.weight`, `….lora_A.weight`)."""
    name = key.removeprefix("unet.").removeprefix("base_model.model.").replace(".processor.", ".")
    name = re.sub(r"(\.lora\.down|_lora\.down|\.lora_A\.default)\.weight$", ".lora_A.weight", name)
    name = re.sub(r"(\.lora\.up|_lora\.up|\.lora_B\.default)\.weight$", ".lora_B.weight", name)
    return re.sub(r"\.to_out\.lora", ".to_out.0.lora", name)


def rorem(folder: Path) -> dict[str, "torch.Tensor"]:
    """The published tensors under our names, each checked against the network at full size.

    Args:
        folder: with `pytorch_lora_weights.safetensors` and `cls_pred_branch.pt`.

    Raises:
        WrongJudge: a file is missing or is no such file, a tensor is missing, unknown or of another shape.
    """
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name in (LORA_FILE, HEAD_FILE):
        if not (folder / name).is_file():
            raise WrongJudge(f"no {name} in {folder}: RORem's discriminator is both files")
    try:
        lora = load_file(folder / LORA_FILE)
        head: Any = torch.load(folder / HEAD_FILE, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise WrongJudge(f"{folder} cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(head, Mapping) or not all(isinstance(value, torch.Tensor) for value in head.values()):
        raise WrongJudge(f"{folder / HEAD_FILE} holds more than tensors")
    given = {lora_name(key): value for key, value in lora.items()}
    given |= {f"{HEAD}.{key.removeprefix(HEAD + '.')}": value for key, value in head.items()}
    fit(given, expected())
    return given


def expected() -> dict[str, tuple[int, ...]]:
    """Names and shapes of RORem's two files: 544 tensors of the LoRA, 14 of the head."""
    full = network.build(network.ROREM, "meta")
    head = {name: tuple(value.shape) for name, value in full.state_dict().items() if name.startswith(HEAD)}
    return network.lora_shapes(full, network.ROREM.rank) | head


def fit(given: Mapping[str, "torch.Tensor"], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Checks tensors against names and shapes.

    Raises:
        WrongJudge
    """
    for name in sorted(set(given) | set(wanted)):
        shape = tuple(given[name].shape) if name in given else "missing"
        if shape != wanted.get(name, "unknown"):
            raise WrongJudge(f"'{name}' is {shape} in the file, and should be {wanted.get(name, 'absent')}")


def convert(folder: Path, prompt: Mapping[str, "torch.Tensor"], out: Path) -> None:
    """Writes a judge's folder from RORem's two files and the empty prompt's embeddings (`tokens`, `pooled`).

    Raises:
        WrongJudge: as `rorem`; nothing is written.
    """
    import torch

    tensors = rorem(folder)
    shell: Any = None  # the weights are the published ones; no network is needed to write them down
    config = network.ROREM
    made = Judge(config, shell, shell, prompt["tokens"], prompt["pooled"], torch.device("cpu"), torch.float32)
    judge.save(made, out, tensors, {"from": "RORem's published discriminator", "files": [LORA_FILE, HEAD_FILE]}, False)
