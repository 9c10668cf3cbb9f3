"""The judge: the first half of SDXL-inpainting's UNet (input, embeddings, down blocks, middle block) and a head.

It is put together from the modules of diffusers' own class, under their own names, so the published tensors fit key
by key; the second half is never in memory. Its input is RORem's: latents of the edited picture, the mask, and in the
last channels the latents of the source, whole; or, better at telling what changed, how far the two lie apart.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rasura.discriminator import heads

if TYPE_CHECKING:
    import torch

TIME = 0
"""The timestep it is run at; no noise is added, so a score is a function of the pictures."""

SDXL_UNET: Mapping[str, Any] = {
    "sample_size": 128,
    "in_channels": 9,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}
# Two levels. Eight groups: 32 would be one or two channels each, which forgets contrast.
TINY_UNET: Mapping[str, Any] = {
    "sample_size": 16,
    "in_channels": 97,
    "out_channels": 48,
    "block_out_channels": (48, 64),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 1),
    "attention_head_dim": (1, 2),
    "cross_attention_dim": 64,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 80,
    "use_linear_projection": True,
    "norm_num_groups": 8,
}

LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
LORA_PARAMETERS = 2_850_816
"""Of rank 4 at SDXL's size."""

HEAD = "cls_pred_branch"
"""RORem's name for the head; kept, so that its file fits."""


class WrongJudge(ValueError):
    """Weights that do not fit the judge they are opened as. Says which tensor, and what was expected."""


@dataclass(frozen=True)
class Config:
    """What a judge is made of.

    feed: what the last channels show. `source` is RORem's; `difference` is |edited - source|.
    link: from logit to score. `sigmoid` goes with cross entropy; `softplus` with squared error, as RORem has it, and
        can pass 1.
    size: side of the square view it judges, px. view: the hole with as much context as `context` hole sizes, or the
        whole picture, squeezed into the square.
    looks: a score's logit is the mean over so many looks at a view: as it is, mirrored, upside down, both. 4 rank
        better than 1 and cost four times as much.
    """

    preset: Literal["sdxl", "tiny"] = "sdxl"
    unet: Mapping[str, Any] = field(default_factory=lambda: dict(SDXL_UNET))
    head: Literal["rorem", "pooled"] = "pooled"
    feed: Literal["source", "difference"] = "difference"
    link: Literal["sigmoid", "softplus"] = "sigmoid"
    rank: int = 4
    size: int = 512
    view: Literal["crop", "whole"] = "crop"
    context: float = 0.75
    looks: int = 1

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        return int((self.unet["in_channels"] - 1) // 2)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self) | {"unet": dict(self.unet)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Config":
        """The inverse; lists of the UNet's become tuples, as its class wants them."""
        unet = {key: tuple(one) if isinstance(one, list) else one for key, one in value["unet"].items()}
        return cls(**{**value, "unet": unet})


SDXL = Config()
TINY = Config(preset="tiny", unet=TINY_UNET, size=64, view="whole")
ROREM = Config(head="rorem", feed="source", link="softplus", view="whole")
"""RORem's own choices, for its published weights."""
PRESETS = {"sdxl": SDXL, "tiny": TINY, "rorem": ROREM}


def make_head(config: Config) -> "torch.nn.Module":
    """The head alone, with random weights."""
    widths, groups = config.unet["block_out_channels"], config.unet.get("norm_num_groups", 32)
    return heads.rorem(widths[-1], groups) if config.head == "rorem" else heads.pooled(widths, groups)


def build(config: Config, device: str = "cpu") -> "torch.nn.Module":
    """A judge with random weights; on the `meta` device it has none and costs nothing.

    It is called with `edited` and `source` (n, c, h, w) scaled latents, `mask` (n, 1, h, w) in {0, 1}, `tokens`
    (1, 77, d) and `pooled` (1, p) of the empty prompt; it answers with logits (n,).
    """
    import torch
    from diffusers import UNet2DConditionModel

    with torch.device(device):
        unet: Any = UNet2DConditionModel(**config.unet)  # type: ignore[no-untyped-call]
        head = make_head(config)
    judge = heads.module(
        logits,
        conv_in=unet.conv_in,
        time_proj=unet.time_proj,
        time_embedding=unet.time_embedding,
        add_time_proj=unet.add_time_proj,
        add_embedding=unet.add_embedding,
        down_blocks=unet.down_blocks,
        mid_block=unet.mid_block,
        **{HEAD: head},
    )
    judge.config = config  # type: ignore[assignment]
    return judge


def logits(
    self: Any,
    edited: "torch.Tensor",
    mask: "torch.Tensor",
    source: "torch.Tensor",
    tokens: "torch.Tensor",
    pooled: "torch.Tensor",
) -> "torch.Tensor":
    """The judge's forward pass; see `build`."""
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
    answer: torch.Tensor = getattr(self, HEAD)(levels, mask)
    return answer


def score(logit: "torch.Tensor", link: str) -> "torch.Tensor":
    """Uncalibrated score of a logit: in (0, 1) by sigmoid, in (0, inf) by RORem's softplus."""
    import torch
    import torch.nn.functional as F

    return torch.sigmoid(logit) if link == "sigmoid" else F.softplus(logit)


def add_lora(judge: "torch.nn.Module", seed: int = 0) -> None:
    """Freezes the judge but for a LoRA on its attentions and its whole head.

    The head must be named in `modules_to_save`: peft freezes what is not a LoRA, the head with it, and RORem's
    released training lost its head that way.
    """
    import warnings

    import torch
    from peft import LoraConfig, inject_adapter_in_model

    config: Any = judge.config
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.rank,
        init_lora_weights="gaussian",
        target_modules=list(LORA_TARGETS),
        modules_to_save=[HEAD],
    )
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        inject_adapter_in_model(lora, judge)


def has_lora(judge: "torch.nn.Module") -> bool:
    """Whether a LoRA stands beside its weights."""
    return any(".lora_A." in name for name, _ in judge.named_parameters())


def unfreeze(judge: "torch.nn.Module", everything: bool) -> None:
    """Lets everything learn, or the head alone."""
    for name, value in judge.named_parameters():
        value.requires_grad_(everything or (name.startswith(HEAD) and ".original_module." not in name))


def trained(judge: "torch.nn.Module") -> dict[str, "torch.Tensor"]:
    """What training changes, by the names under which it is kept: the LoRA and the head, or everything without one."""
    parameters = {name: value.detach() for name, value in judge.named_parameters() if value.requires_grad}
    return {stored_name(name): value for name, value in parameters.items()}


def put_trained(judge: "torch.nn.Module", tensors: Mapping[str, "torch.Tensor"]) -> None:
    """The inverse of `trained`, for a judge with a LoRA.

    Raises:
        WrongJudge: other names or shapes.
    """
    own = {stored_name(name): value for name, value in judge.named_parameters() if value.requires_grad}
    shapes = {name: tuple(value.shape) for name, value in own.items()}
    for name in sorted(set(shapes) | set(tensors)):
        if name not in tensors or shapes.get(name) != tuple(tensors[name].shape):
            raise WrongJudge(f"'{name}' does not fit what this judge learns: it is for another base")
    for name, value in own.items():
        value.data.copy_(tensors[name])


def plain_state(judge: "torch.nn.Module") -> dict[str, "torch.Tensor"]:
    """All tensors as a judge without a LoRA has them: the LoRA folded in, the trained head in the head's place."""
    state = {name: value.detach() for name, value in judge.state_dict().items() if ".original_module." not in name}
    made = {stored_name(name): value.clone() for name, value in state.items() if ".lora_" not in name}
    for name, low in state.items():
        if ".lora_A." in name:
            high = state[name.replace(".lora_A.", ".lora_B.")]
            made[f"{name.split('.lora_A.')[0]}.weight"] += (high.float() @ low.float()).to(low.dtype)
    return made


def stored_name(name: str) -> str:
    """Name of a parameter on disk: without what peft puts into it."""
    return (
        name.replace(".modules_to_save.default.", ".")
        .replace(".default.weight", ".weight")
        .replace(".base_layer.", ".")
    )


def fold_lora(judge: "torch.nn.Module", tensors: Mapping[str, "torch.Tensor"]) -> None:
    """Adds a LoRA (`….lora_A.weight`, `….lora_B.weight`; scale 1, as rank = alpha) to the weights of a plain judge.

    Raises:
        WrongJudge: a layer it does not have, another shape, or half a pair; then nothing was changed.
    """
    import torch

    layers: dict[str, Any] = dict(judge.named_modules())
    names = {key.rsplit(".lora_", 1)[0] for key in tensors}
    found: list[tuple[Any, torch.Tensor]] = []
    for name in sorted(names):
        low, high = (tensors.get(f"{name}.lora_{part}.weight") for part in ("A", "B"))
        layer = layers.get(name)
        if low is None or high is None or not isinstance(layer, torch.nn.Linear):
            raise WrongJudge(f"'{name}' is no pair of a LoRA on this network: it is for another base")
        change = high.float() @ low.float()
        if change.shape != layer.weight.shape:
            raise WrongJudge(
                f"the LoRA's '{name}' makes {tuple(change.shape)}, the layer is {tuple(layer.weight.shape)}: "
                "it is for another base"
            )
        found.append((layer, change))
    with torch.no_grad():
        for layer, change in found:
            layer.weight.copy_((layer.weight.float() + change.to(layer.weight.device)).to(layer.weight.dtype))


def lora_shapes(judge: "torch.nn.Module", rank: int) -> dict[str, tuple[int, ...]]:
    """Names (diffusers layout, without prefix) and shapes of the LoRA's tensors."""
    import torch

    return {
        f"{name}.lora_{part}.weight": (rank, module.in_features) if part == "A" else (module.out_features, rank)
        for name, module in judge.named_modules()
        if isinstance(module, torch.nn.Linear) and any(name.endswith("." + end) for end in LORA_TARGETS)
        for part in ("A", "B")
    }


def checkpoint_blocks(judge: "torch.nn.Module") -> None:
    """Trades time for memory in training: blocks are computed again on the way back."""
    from functools import partial

    from torch.utils.checkpoint import checkpoint

    part: Any
    for part in judge.modules():
        if hasattr(part, "gradient_checkpointing"):
            part.gradient_checkpointing = True
            part._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
