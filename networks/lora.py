"""LoRA files: read whatever layout they are in, checked against the network, and folded into its weights.

A LoRA adds to a layer's weight W the product of two small matrices: W + scale * up @ down, with `down` (r, in) or
(r, in, k, k) and `up` (out, r) or (out, r, 1, 1). Folded in, it costs nothing when the network runs.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

# peft: …to_q.lora_A.weight; diffusers: …to_q.lora.down.weight; old diffusers: ….processor.to_q_lora.down.weight
_LAYOUTS = (
    (re.compile(r"\.lora_A(\.default)?\.weight$"), "down"),
    (re.compile(r"\.lora_B(\.default)?\.weight$"), "up"),
    (re.compile(r"\.lora\.down\.weight$"), "down"),
    (re.compile(r"\.lora\.up\.weight$"), "up"),
    (re.compile(r"_lora\.down\.weight$"), "down"),
    (re.compile(r"_lora\.up\.weight$"), "up"),
    (re.compile(r"\.lora_down\.weight$"), "down"),
    (re.compile(r"\.lora_up\.weight$"), "up"),
    (re.compile(r"\.alpha$"), "alpha"),
)

RANK = 64
RECIPE_TARGETS = (
    "to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2",
    "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj",
)  # fmt: skip
"""Layers that RORem's four-step LoRA (r = alpha = 64) changes; the same as LCM-LoRA's."""


class WrongLora(ValueError):
    """A LoRA that does not fit the network: made for another base, or no LoRA at all."""


class Pair(NamedTuple):
    """The two matrices of one layer, and what their product is multiplied with."""

    down: "torch.Tensor"
    up: "torch.Tensor"
    scale: float


def _layer(key: str) -> tuple[str, str]:
    """Name of the layer, and which part of the pair it is.

    Raises:
        WrongLora: the key is in no layout that is known.
    """
    for pattern, part in _LAYOUTS:
        if pattern.search(key):
            name = pattern.sub("", key)
            for prefix in ("base_model.model.", "unet.", "lora_unet_"):
                name = name.removeprefix(prefix)
            return name.replace(".processor.", ".").replace("to_out_lora", "to_out.0"), part
    raise WrongLora(f"'{key}' is no key of a LoRA file (peft, diffusers or kohya layout)")


def pairs(tensors: Mapping[str, "torch.Tensor"], layers: Iterable[str]) -> dict[str, Pair]:
    """Layer name to its pair, for a network with these layers.

    Raises:
        WrongLora: unknown keys, layers the network does not have, or half a pair.
    """
    known = {name: name for name in layers}
    known |= {name.replace(".", "_"): name for name in known} | {
        name.removesuffix(".0"): name for name in known if name.endswith("to_out.0")
    }
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        name, part = _layer(key)
        if name not in known:
            raise WrongLora(f"the LoRA changes '{name}', which this network does not have: it is for another base")
        parts.setdefault(known[name], {})[part] = value
    for name, given in parts.items():
        if not {"down", "up"} <= given.keys():
            raise WrongLora(f"the LoRA has only half of the pair for '{name}': {', '.join(given)}")
    return {
        name: Pair(one["down"], one["up"], float(one["alpha"]) / len(one["down"]) if "alpha" in one else 1.0)
        for name, one in parts.items()
    }


def read(path: Path) -> dict[str, "torch.Tensor"]:
    """Tensors of a LoRA file (safetensors).

    Raises:
        WrongLora: it cannot be read, or holds nothing.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WrongLora(f"{path} cannot be read as safetensors: {error}") from None
    if not tensors:
        raise WrongLora(f"{path} holds no tensors")
    return tensors


def fuse(network: "torch.nn.Module", tensors: Mapping[str, "torch.Tensor"], scale: float = 1.0) -> int:
    """Adds a LoRA to the network's weights, in place; how many layers it changed. All is checked before anything is.

    Raises:
        WrongLora
    """
    import torch

    layers = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    }
    found = pairs(tensors, layers)
    for name, pair in found.items():
        given = (pair.up.shape[0], *pair.down.shape[1:])
        if given != tuple(layers[name].weight.shape) or pair.up.shape[1] != pair.down.shape[0]:
            raise WrongLora(
                f"the LoRA's pair for '{name}' makes {given}, the layer is {tuple(layers[name].weight.shape)}: "
                "it is for another base"
            )
    with torch.no_grad():
        for name, pair in found.items():
            weight = layers[name].weight
            # in float32: a product of 64 terms rounded to half precision each would not be the trained one
            product = pair.up.flatten(1).float() @ pair.down.flatten(1).float() * (scale * pair.scale)
            weight.copy_((weight.float() + product.view(weight.shape).to(weight.device)).to(weight.dtype))
    return len(found)


def shapes(network: "torch.nn.Module", targets: Iterable[str], rank: int) -> dict[str, tuple[int, ...]]:
    """Keys (diffusers layout, `unet.` in front) and shapes of a LoRA on the layers whose names end in `targets`."""
    import torch

    made: dict[str, tuple[int, ...]] = {}
    ends = tuple(targets)
    for name, module in network.named_modules():
        if any(name == end or name.endswith("." + end) for end in ends):
            if isinstance(module, torch.nn.Conv2d):
                made[f"unet.{name}.lora_A.weight"] = (rank, module.in_channels, *module.kernel_size)
                made[f"unet.{name}.lora_B.weight"] = (module.out_channels, rank, 1, 1)
            elif isinstance(module, torch.nn.Linear):
                made[f"unet.{name}.lora_A.weight"] = (rank, module.in_features)
                made[f"unet.{name}.lora_B.weight"] = (module.out_features, rank)
    return made
