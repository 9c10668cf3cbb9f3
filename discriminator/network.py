"""The discriminator's network: the first half of SDXL-inpainting's UNet (input, embeddings, down blocks, middle block)
and a head.

It is assembled from the modules of diffusers' own class, under their own names, so the published tensors fit key by
key; the second half is never in memory. Its input is RORem's: latents of the edited picture, the mask, and in the last
channels the latents of the whole source; or, better at finding changes, the distance of the two.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from rasura.discriminator import heads
from rasura.networks import lora
from rasura.networks.setting_types import Count, Number, Side
from rasura.networks.unet_config import SDXL_UNET, make_tiny_config
from rasura.networks.weights import BadWeights

if TYPE_CHECKING:
    import torch

TIME = 0
"""The timestep of the network; no noise is added, so a score is a function of the pictures."""

TINY_UNET: Mapping[str, Any] = make_tiny_config(channels=48, sample_size=16, widths=(48, 64))

LORA_PARAMETERS = 2_850_816
"""Parameters of the LoRA of rank 4 at SDXL's size."""

HEAD = "cls_pred_branch"
"""RORem's name for the head; kept, so that its file fits."""


class WrongDiscriminator(BadWeights):
    """A folder or weights that are no discriminator, or do not fit the one that they are opened as."""


@dataclass(frozen=True)
class Config:
    """The configuration of a discriminator.

    feed: content of the last channels. `source` is RORem's; `difference` is |edited - source|.
    link: from logit to score. `sigmoid` goes with cross entropy; `softplus` with squared error, as RORem has it, and
        can exceed 1.
    size: side of the square crop that is judged, px. view: the hole with as much context as `context` hole sizes, or
        the whole picture, resized to the square.
    looks: a score's logit is the mean over so many orientations of a crop: as it is, mirrored, upside down, both. 4
        rank better than 1 and cost four times as much.
    """

    preset: Literal["sdxl", "tiny"] = "sdxl"
    unet: Mapping[str, Any] = field(default_factory=lambda: dict(SDXL_UNET))
    head: Literal["rorem", "pooled"] = "pooled"
    feed: Literal["source", "difference"] = "difference"
    link: Literal["sigmoid", "softplus"] = "sigmoid"
    rank: Count = 4
    size: Side = 512
    view: Literal["crop", "whole"] = "crop"
    context: Number = 0.75
    looks: Annotated[int, Field(ge=1, le=4)] = 1

    @property
    def channels(self) -> int:
        """Return the number of channels of the latents."""
        return int((self.unet["in_channels"] - 1) // 2)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self) | {"unet": dict(self.unet)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Config":
        """Return the configuration of a JSON object; lists of the UNet's become tuples, as its class expects."""
        unet = {key: tuple(size) if isinstance(size, list) else size for key, size in value["unet"].items()}
        return cls(**{**value, "unet": unet})


SDXL = Config()
TINY = Config(preset="tiny", unet=TINY_UNET, size=64, view="whole")
ROREM = Config(head="rorem", feed="source", link="softplus", view="whole")
"""RORem's own choices, for its published weights."""
PRESETS = {"sdxl": SDXL, "tiny": TINY, "rorem": ROREM}


def make_head(config: Config) -> "torch.nn.Module":
    """Create the head alone, with random weights."""
    widths, groups = config.unet["block_out_channels"], config.unet.get("norm_num_groups", 32)
    return (
        heads.make_rorem_head(widths[-1], groups) if config.head == "rorem" else heads.make_pooled_head(widths, groups)
    )


def build(config: Config, device: str = "cpu") -> "torch.nn.Module":
    """Create a network with random weights; on the `meta` device it has none and costs nothing.

    Returns:
        A module that is called with `edited` (n, c, h, w) scaled latents, `mask` (n, 1, h, w) in {0, 1}, `source`
        (n, c, h, w) scaled latents, `tokens` (1, 77, d) and `pooled` (1, p) of the empty prompt, and returns logits
        (n,).
    """
    import torch
    from diffusers import UNet2DConditionModel

    with torch.device(device):
        unet: Any = UNet2DConditionModel(**config.unet)  # type: ignore[no-untyped-call]
        head = make_head(config)
    discriminator = heads.make_module(
        compute_logits,
        conv_in=unet.conv_in,
        time_proj=unet.time_proj,
        time_embedding=unet.time_embedding,
        add_time_proj=unet.add_time_proj,
        add_embedding=unet.add_embedding,
        down_blocks=unet.down_blocks,
        mid_block=unet.mid_block,
        **{HEAD: head},
    )
    discriminator.config = config  # type: ignore[assignment]
    return discriminator


def compute_logits(
    self: Any,
    edited: "torch.Tensor",
    mask: "torch.Tensor",
    source: "torch.Tensor",
    tokens: "torch.Tensor",
    pooled: "torch.Tensor",
) -> "torch.Tensor":
    """Compute the forward pass; see `build`."""
    import torch

    config: Config = self.config
    count, dtype = len(edited), edited.dtype
    last = source if config.feed == "source" else (edited - source).abs()
    hidden = self.conv_in(torch.cat([edited, mask, last], dim=1))
    time = torch.full((count,), TIME, device=edited.device)
    embedded = self.time_embedding(self.time_proj(time).to(dtype))
    sides = torch.tensor([config.size, config.size, 0, 0, config.size, config.size], device=edited.device)
    sizes = self.add_time_proj(sides).to(dtype).flatten().expand(count, -1)
    embedded = embedded + self.add_embedding(torch.cat([pooled.to(dtype).expand(count, -1), sizes], dim=1))
    text = tokens.to(dtype).expand(count, -1, -1)
    levels = []
    for block in self.down_blocks:
        if getattr(block, "has_cross_attention", False):
            hidden, states = block(hidden, embedded, encoder_hidden_states=text)
        else:
            hidden, states = block(hidden, embedded)
        levels.append(states[-2] if block.downsamplers is not None else states[-1])
    levels[-1] = self.mid_block(hidden, embedded, encoder_hidden_states=text)
    logits: torch.Tensor = getattr(self, HEAD)(levels, mask)
    return logits


def compute_score(logit: "torch.Tensor", link: str) -> "torch.Tensor":
    """Return the uncalibrated score of a logit: in (0, 1) by sigmoid, in (0, inf) by RORem's softplus."""
    import torch
    import torch.nn.functional as F

    return torch.sigmoid(logit) if link == "sigmoid" else F.softplus(logit)


def add_lora(discriminator: "torch.nn.Module", seed: int = 0) -> None:
    """Freeze a discriminator but for a new LoRA on its attentions, and its whole head."""
    config: Any = discriminator.config
    lora.add_lora(discriminator, config.rank, seed, lora.ATTENTIONS, learned=[HEAD])


def unfreeze_parameters(discriminator: "torch.nn.Module", everything: bool) -> None:
    """Let everything learn, or the head alone."""
    for name, value in discriminator.named_parameters():
        value.requires_grad_(everything or (name.startswith(HEAD) and ".original_module." not in name))


def list_lora_shapes(discriminator: "torch.nn.Module", rank: int) -> dict[str, tuple[int, ...]]:
    """Return the names on disk and the shapes of the LoRA's tensors."""
    return lora.list_shapes(discriminator, lora.ATTENTIONS, rank, prefix="")


def enable_checkpointing(discriminator: "torch.nn.Module") -> None:
    """Trade time for memory in training: blocks are computed again on the way back."""
    from functools import partial

    from torch.utils.checkpoint import checkpoint

    module: Any
    for module in discriminator.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = True
            module._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
