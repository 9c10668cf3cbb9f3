"""LoRA: files in any layout, checked and fused into a network's weights; and layers beside the weights that learn.

A LoRA adds to a layer's weight W the product of two small matrices: W + scale * up @ down, with `down` (r, in) or
(r, in, k, k) and `up` (out, r) or (out, r, 1, 1). Fused, it costs nothing when the network runs.
"""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rasura.networks.weights import BadWeights, check_values, describe_content

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

ATTENTIONS = ("to_q", "to_k", "to_v", "to_out.0")
"""Layers of an attention."""
RANK = 64
RECIPE_TARGETS = (
    *ATTENTIONS,
    *("proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut"),
    *("downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj"),
)
"""Layers that RORem's four-step LoRA (r = alpha = 64) changes; the same as LCM-LoRA's."""


class WrongLora(BadWeights):
    """A LoRA that does not fit the network: made for another base, or no LoRA at all."""


class Pair(NamedTuple):
    """The two matrices of one layer, and the factor of their product."""

    down: "torch.Tensor"
    up: "torch.Tensor"
    scale: float


def parse_key(key: str) -> tuple[str, str]:
    """Split a key of a LoRA file, in any known layout, into the layer's name and `down`, `up` or `alpha`.

    Raises:
        WrongLora: the key is in no known layout.

    Examples:
        >>> parse_key("unet.mid_block.attn1.to_q.lora_A.weight")
        ('mid_block.attn1.to_q', 'down')
        >>> parse_key("mid_block.attn1.processor.to_out_lora.up.weight")
        ('mid_block.attn1.to_out.0', 'up')
    """
    for pattern, part in _LAYOUTS:
        if pattern.search(key):
            name = pattern.sub("", key)
            for prefix in ("base_model.model.", "unet.", "lora_unet_"):
                name = name.removeprefix(prefix)
            name = name.replace(".processor.", ".")
            return name + ".0" if name.endswith(".to_out") else name, part
    raise WrongLora(f"'{key}' is no key of a LoRA file (peft, diffusers or kohya layout)")


def pair_tensors(tensors: Mapping[str, "torch.Tensor"], layers: Iterable[str]) -> dict[str, Pair]:
    """Match the tensors of a file to the layers of a network: layer name to its pair.

    Raises:
        WrongLora: unknown keys, layers the network does not have, or half a pair.
    """
    names = {name: name for name in layers}
    names |= {name.replace(".", "_"): name for name in names}  # kohya's
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        name, part = parse_key(key)
        if name not in names:
            raise WrongLora(f"the LoRA changes '{name}', which this network does not have: it is for another base")
        parts.setdefault(names[name], {})[part] = value
    for name, pair in parts.items():
        if not {"down", "up"} <= pair.keys():
            raise WrongLora(f"the LoRA has only half of the pair for '{name}': {', '.join(pair)}")
    return {
        name: Pair(pair["down"], pair["up"], float(pair["alpha"]) / len(pair["down"]) if "alpha" in pair else 1.0)
        for name, pair in parts.items()
    }


def read(path: Path) -> dict[str, "torch.Tensor"]:
    """Read the tensors of a LoRA file (safetensors).

    Raises:
        WrongLora: it cannot be read, or holds nothing.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WrongLora(f"'{path}' cannot be read as safetensors: {describe_content(path) or error}") from None
    if not tensors:
        raise WrongLora(f"'{path}' holds no tensors")
    return tensors


def fuse(network: "torch.nn.Module", tensors: Mapping[str, "torch.Tensor"], scale: float = 1.0) -> int:
    """Add a LoRA to the network's weights, in place, after all of it was checked.

    Returns:
        The number of layers that changed.

    Raises:
        WrongLora: a layer the network does not have, another shape, or half a pair; then nothing was changed.
    """
    import torch

    layers = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    }
    pairs = pair_tensors(tensors, layers)
    for name, pair in pairs.items():
        shape = (pair.up.shape[0], *pair.down.shape[1:])
        if shape != tuple(layers[name].weight.shape) or pair.up.shape[1] != pair.down.shape[0]:
            raise WrongLora(
                f"the LoRA's pair for '{name}' makes {shape}, the layer is {tuple(layers[name].weight.shape)}: "
                "it is for another base"
            )
    with torch.no_grad():
        for name, pair in pairs.items():
            weight = layers[name].weight
            # in float32: a product of 64 terms rounded to half precision each would not be the trained one
            product = pair.up.flatten(1).float() @ pair.down.flatten(1).float() * (scale * pair.scale)
            weight.copy_((weight.float() + product.view(weight.shape).to(weight.device)).to(weight.dtype))
    return len(pairs)


def fuse_file(network: "torch.nn.Module", path: Path) -> None:
    """Add the LoRA of a file to the network's weights, in place.

    Raises:
        WrongLora: the file cannot be read, or is for another base.
        BadWeights: it holds values that are not finite.
    """
    tensors = read(path)
    try:
        fuse(network, tensors)
    except WrongLora as error:
        raise WrongLora(f"'{path}': {error}") from error
    check_values(path, network)


def list_shapes(
    network: "torch.nn.Module", targets: Iterable[str], rank: int, prefix: str = "unet."
) -> dict[str, tuple[int, ...]]:
    """Return the names on disk and the shapes of a LoRA on the layers whose names end in `targets`."""
    import torch

    shapes: dict[str, tuple[int, ...]] = {}
    ends = tuple(targets)
    for name, module in network.named_modules():
        if any(name == end or name.endswith("." + end) for end in ends):
            if isinstance(module, torch.nn.Conv2d):
                shapes[f"{prefix}{name}.lora_A.weight"] = (rank, module.in_channels, *module.kernel_size)
                shapes[f"{prefix}{name}.lora_B.weight"] = (module.out_channels, rank, 1, 1)
            elif isinstance(module, torch.nn.Linear):
                shapes[f"{prefix}{name}.lora_A.weight"] = (rank, module.in_features)
                shapes[f"{prefix}{name}.lora_B.weight"] = (module.out_features, rank)
    return shapes


def add_lora(
    network: "torch.nn.Module", rank: int, seed: int, targets: Sequence[str] = ATTENTIONS, learned: Sequence[str] = ()
) -> None:
    """Freeze a network but for a new LoRA (alpha = rank), which changes nothing yet.

    Args:
        targets: the LoRA is on the layers whose names end in these.
        learned: modules that are learned whole. They must be named here: peft freezes all that is no LoRA, and RORem's
            released training lost its head that way.
    """
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        init_lora_weights="gaussian",
        target_modules=list(targets),
        modules_to_save=list(learned) or None,
    )
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        inject_adapter_in_model(config, network)


def has_lora(network: "torch.nn.Module") -> bool:
    """Return whether a LoRA is beside the network's weights."""
    return any(".lora_A." in name for name, _ in network.named_parameters())


@contextmanager
def disable_lora(network: "torch.nn.Module") -> Iterator[None]:
    """Run a network as it was before `add_lora`, while the context lasts."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def strip_peft(name: str) -> str:
    """Return a parameter's name on disk: without the parts that peft inserts.

    Examples:
        >>> strip_peft("mid_block.attn1.to_q.lora_A.default.weight")
        'mid_block.attn1.to_q.lora_A.weight'
        >>> strip_peft("conv1.base_layer.weight")
        'conv1.weight'
    """
    return (
        name.replace(".modules_to_save.default.", ".")
        .replace(".default.weight", ".weight")
        .replace(".base_layer.", ".")
    )


def collect_trainable(network: "torch.nn.Module") -> dict[str, "torch.Tensor"]:
    """Return the parameters that are learned, by their names on disk."""
    return {strip_peft(name): value.detach() for name, value in network.named_parameters() if value.requires_grad}


def load_trainable(network: "torch.nn.Module", tensors: Mapping[str, "torch.Tensor"]) -> None:
    """Copy tensors of `collect_trainable` into a network to which a LoRA was added.

    Raises:
        WrongLora: other layers, or another rank.
    """
    parameters = collect_trainable(network)
    if differing := sorted(parameters.keys() ^ tensors.keys()):
        raise WrongLora(f"the LoRA to go on from is of another base: '{differing[0]}' is in one of the two alone")
    for name, value in parameters.items():
        if value.shape != tensors[name].shape:
            raise WrongLora(
                f"the LoRA to go on from has {tuple(tensors[name].shape)} for '{name}', this training "
                f"{tuple(value.shape)}: give it the same `rank`, or it is of another base"
            )
        value.copy_(tensors[name])


def compute_plain_state(network: "torch.nn.Module") -> dict[str, "torch.Tensor"]:
    """Return all tensors as a network without a LoRA has them: the LoRA fused, learned modules in their places."""
    state: dict[str, Any] = {
        name: value.detach() for name, value in network.state_dict().items() if ".original_module." not in name
    }
    tensors = {strip_peft(name): value.clone() for name, value in state.items() if ".lora_" not in name}
    for name, down in state.items():
        if ".lora_A." in name:
            up = state[name.replace(".lora_A.", ".lora_B.")]
            tensors[f"{name.split('.lora_A.')[0]}.weight"] += (up.float() @ down.float()).to(down.dtype)
    return tensors
