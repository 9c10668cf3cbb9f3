"""CATDiffusion: a transformer that guesses what CLIP would see in a hole, and a UNet that attends to its guess.

Source: arXiv 2409.08260 and its release. Names and shapes of the semantic inpainter's tensors are those of the release
below `fusion_model.`; the UNet is Stable Diffusion 1.5's with one more attention in each transformer block, `attn3` and
`norm4`, the reference adapter.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rasura.networks.pretrained import MissingWeights, fill_module, read_unet_tensors
from rasura.networks.weights import find_single, read_tensors

PREFIX = "fusion_model."
"""Before the semantic inpainter's names in a checkpoint of the release, which holds all networks."""
HEAD = 64
"""Width of a head of the semantic inpainter's attentions, where no configuration says how many there are."""
EPS = 1e-5


class Features(NamedTuple):
    """What CLIP's vision model sees in pictures.

    tokens: (n, k², w), the last hidden states of the patches. pooled: (n, 1, w), the normalised class token.
    cells: (n, k²), 1 where a patch touches the hole.
    """

    tokens: Tensor
    pooled: Tensor
    cells: Tensor


class Perceptron(nn.Module):
    """Two linear layers with CLIP's quick GELU between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)

    def forward(self, values: Tensor) -> Tensor:
        hidden = self.fc1(values)
        return cast("Tensor", self.fc2(hidden * torch.sigmoid(1.702 * hidden)))


class TokenEmbeddings(nn.Module):
    """The place of each patch, and whether it touches the hole, added to what CLIP sees there."""

    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        self.position_embedding = nn.Embedding(places, width)
        self.mask_embedding = nn.Embedding(2, width)

    def forward(self, tokens: Tensor, cells: Tensor) -> Tensor:
        touched: Tensor = self.mask_embedding(cells.long())
        return tokens + self.position_embedding.weight + touched


class SemanticInpainter(nn.Module):
    """A transformer over [pooled token, patches, label] that predicts CLIP's features of the picture with the object.

    Args:
        width: of CLIP's tokens. layers, heads: of the transformer. hidden: width inside its perceptrons.
        places: patches of a picture, k²; k is even. label, label_hidden: width of CLIP's pooled text, and inside the
            perceptron that maps it to a token.

    Examples:
        >>> network = SemanticInpainter(width=8, layers=1, heads=2, hidden=16, places=16, label=4, label_hidden=8)
        >>> features = Features(torch.zeros(2, 16, 8), torch.zeros(2, 1, 8), torch.zeros(2, 16))
        >>> [tuple(values.shape) for values in network(features, torch.zeros(2, 1, 4))]
        [(2, 16, 8), (2, 1, 8)]
    """

    def __init__(
        self,
        width: int = 1024,
        layers: int = 24,
        heads: int = 16,
        hidden: int = 4096,
        places: int = 256,
        label: int = 768,
        label_hidden: int = 3072,
    ) -> None:
        from transformers import CLIPVisionConfig
        from transformers.models.clip.modeling_clip import CLIPEncoder

        super().__init__()
        self.heads = heads
        self.embeddings = TokenEmbeddings(places, width)
        create: Any = CLIPVisionConfig
        config = create(
            hidden_size=width,
            intermediate_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            layer_norm_eps=EPS,
            attn_implementation="sdpa",
        )
        self.encoder = CLIPEncoder(config)
        self.post_layernorm = nn.LayerNorm(width, eps=EPS)
        self.label_mlp = Perceptron(label, label_hidden, width)
        self.spatial_mlp = Perceptron(width, hidden, width)
        self.global_mlp = Perceptron(width, hidden, width)

    def forward(self, features: Features, label: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predicted tokens of the patches (n, k², w) and the predicted pooled token (n, 1, w).

        Args:
            features: of the picture with its hole hidden.
            label: (n, 1, d), CLIP's pooled text of what belongs into the hole.
        """
        patches = self.spatial_mlp(self.embeddings(features.tokens, features.cells))
        sequence = torch.cat([self.global_mlp(features.pooled), patches, self.label_mlp(label)], dim=1)
        outputs = self.encoder(inputs_embeds=sequence).last_hidden_state
        return outputs[:, 1:-1], self.post_layernorm(outputs[:, :1])


def merge_tokens(predicted: Tensor, features: Features) -> Tensor:
    """Return tokens (n, k², w): the predicted ones in the hole, CLIP's own elsewhere."""
    inside = features.cells[..., None].to(predicted.dtype)
    return inside * predicted + (1 - inside) * features.tokens


def pool_tokens(tokens: Tensor) -> Tensor:
    """Return (n, k² / 4, w) of tokens (n, k², w): the means of squares of 2 × 2 patches.

    Examples:
        >>> pool_tokens(torch.arange(16.0).view(1, 16, 1)).flatten().tolist()
        [2.5, 4.5, 10.5, 12.5]
    """
    count, places, width = tokens.shape
    side = round(places**0.5)
    pooled = F.avg_pool2d(tokens.transpose(1, 2).reshape(count, width, side, side), 2)
    return pooled.flatten(2).transpose(1, 2)


class ReferenceBlock(nn.Module):
    """A transformer block of Stable Diffusion's UNet that attends to reference tokens between itself and the text."""

    def __init__(self, block: Any, width: int) -> None:
        """Take over a block's layers, and add the adapter's with random weights.

        Args:
            block: diffusers' `BasicTransformerBlock`.
            width: of the reference tokens.
        """
        from diffusers.models.attention_processor import Attention

        super().__init__()
        self.norm1, self.attn1, self.norm2, self.attn2 = block.norm1, block.attn1, block.norm2, block.attn2
        self.norm3, self.ff = block.norm3, block.ff
        channels, heads = block.attn1.query_dim, block.attn1.heads
        create: Any = Attention
        self.attn3 = create(channels, cross_attention_dim=width, heads=heads, dim_head=channels // heads)
        self.norm4 = nn.LayerNorm(channels)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        timestep: Tensor | None = None,
        cross_attention_kwargs: Mapping[str, Tensor] | None = None,
        class_labels: Tensor | None = None,
    ) -> Tensor:
        """Return (n, t, c) of (n, t, c), called as diffusers calls its own block.

        Args:
            encoder_hidden_states: (n, 77, d), the text. cross_attention_kwargs: `reference`, (n, r, w).
        """
        assert cross_attention_kwargs is not None
        hidden_states = hidden_states + self.attn1(self.norm1(hidden_states))
        hidden_states = hidden_states + self.attn3(self.norm4(hidden_states), cross_attention_kwargs["reference"])
        hidden_states = hidden_states + self.attn2(self.norm2(hidden_states), encoder_hidden_states)
        return cast("Tensor", hidden_states + self.ff(self.norm3(hidden_states)))


def add_adapters(unet: Any, width: int) -> Any:
    """Return a UNet whose transformer blocks have a reference adapter, with random weights."""
    for module in list(unet.modules()):
        if hasattr(module, "transformer_blocks"):
            blocks = [ReferenceBlock(block, width) for block in module.transformer_blocks]
            module.transformer_blocks = nn.ModuleList(blocks)
    return unet


def is_adapter(name: str) -> bool:
    """Return whether a parameter of the UNet is the reference adapter's.

    Examples:
        >>> is_adapter("mid_block.attentions.0.transformer_blocks.0.attn3.to_q.weight"), is_adapter("conv_in.bias")
        (True, False)
    """
    return ".attn3." in name or ".norm4." in name


class CatDiffusion(nn.Module):
    """Both networks, as they are trained; one of them is None where a training does not run it."""

    unet: Any
    inpainter: Any

    def __init__(self, unet: Any, inpainter: SemanticInpainter | None) -> None:
        super().__init__()
        self.unet, self.inpainter = unet, inpainter

    def enable_gradient_checkpointing(self) -> None:
        """Compute activations again in the backward pass, in place of keeping them."""
        from functools import partial

        from torch.utils.checkpoint import checkpoint

        if self.unet is not None:
            self.unet.enable_gradient_checkpointing()
        if self.inpainter is None:
            return
        self.inpainter.encoder.train()  # transformers' layers look at it; nothing is dropped out in them
        for layer in self.inpainter.encoder.layers:
            layer.gradient_checkpointing = True
            layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)

    def forward(
        self,
        features: Features,
        label: Tensor,
        noisy: tuple[Tensor, Tensor, Tensor] | None = None,
        keep: Tensor | None = None,
        knows: bool = False,
    ) -> Any:
        """Return the semantic inpainter's predictions, or with `noisy` the predicted noise (n, 4, h, w).

        Args:
            features: of the picture with its hole hidden; of the whole picture where `knows`.
            label: (n, 1, d).
            noisy: the UNet's input (n, 9, h, w), timesteps (n,) and text (n, 77, e).
            keep: (n,), 0 where the reference is dropped.
            knows: the reference is CLIP's features themselves, without the semantic inpainter.
        """
        if noisy is None:
            return self.inpainter(features, label)
        tokens = features.tokens if knows else merge_tokens(self.inpainter(features, label)[0], features)
        reference = pool_tokens(tokens)
        if keep is not None:
            reference = reference * keep.to(reference.dtype)[:, None, None]
        inputs, times, text = noisy
        return self.unet(inputs, times, text, cross_attention_kwargs={"reference": reference}, return_dict=False)[0]


def open_adapted_unet(path: Path, config: Mapping[str, Any], dtype: Any, width: int | None = None) -> Any:
    """Open a UNet with a reference adapter, in evaluation mode, without gradients, on the CPU.

    Args:
        path: its folder, or a file of tensors; a checkpoint of the release, which holds other networks too, is one.
        config: of the UNet.
        width: of the reference tokens. Where it is given a UNet without an adapter gets one with random weights.

    Raises:
        MissingWeights: a file is missing, is of another network, or has no adapter.
    """
    from diffusers import UNet2DConditionModel

    tensors = read_unet_tensors(path, config)
    keys = [value for name, value in tensors.items() if name.endswith(".attn3.to_k.weight")]
    if not keys and width is None:
        raise MissingWeights(
            f"'{path}' has no reference adapter (attn3): it is a UNet of another model. The authors of CATDiffusion "
            "released no weights; `rasura remover train --preset catdiffusion` trains them"
        )
    create: Any = UNet2DConditionModel.from_config
    with torch.device("meta"):
        unet = create(config)
        unet = add_adapters(unet, keys[0].shape[1]) if keys else unet
    unet = fill_module(unet, tensors, path, dtype)
    if not keys:
        assert width is not None
        for name, value in add_adapters(unet, width).eval().requires_grad_(False).named_parameters():
            if is_adapter(name):
                value.data = value.data.to(dtype)
    return unet


def open_inpainter(path: Path, dtype: Any) -> SemanticInpainter:
    """Open a semantic inpainter, in evaluation mode, without gradients, on the CPU.

    Args:
        path: the folder that a training wrote, or a file of tensors; in a checkpoint of the release they are found
            among those of the other networks.

    Raises:
        BadWeights: the file is missing, or is of another network.
    """
    file = find_single(path)
    tensors = read_tensors(file)
    if inner := {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)}:
        tensors = inner
    try:
        sizes = measure_inpainter(tensors)
    except KeyError as error:
        raise MissingWeights(
            f"'{file}' is no semantic inpainter of CATDiffusion: it has no {error}, but {min(tensors, default='none')}"
        ) from error
    config = file.parent / "config.json" if path.is_dir() else None
    stored = json.loads(config.read_text()) if config and config.is_file() else {}
    heads = int(stored.get("heads") or max(1, sizes["width"] // HEAD))
    with torch.device("meta"):
        inpainter = SemanticInpainter(heads=heads, **sizes)
    opened: SemanticInpainter = fill_module(inpainter, tensors, file, dtype)
    return opened


def measure_inpainter(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the sizes of a semantic inpainter, but for the heads, by its tensors.

    Raises:
        KeyError: one of those that tell them is missing.
    """
    places, width = tensors["embeddings.position_embedding.weight"].shape
    label_hidden, label = tensors["label_mlp.fc1.weight"].shape
    layers = len({name.split(".")[2] for name in tensors if name.startswith("encoder.layers.")})
    hidden = tensors["spatial_mlp.fc1.weight"].shape[0]
    sizes = {"width": width, "layers": layers, "hidden": hidden, "places": places}
    return {**sizes, "label": label, "label_hidden": label_hidden}
