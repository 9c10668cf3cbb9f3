"""Moebius's network: Stable Diffusion 1.5's UNet of three levels, in which every expensive part is a cheaper one.

Source: arXiv 2606.19195 and its release (Apache-2.0). Convolutions are depthwise-separable; attention among pixels and
to the embeddings are lambda layers (Bello, "LambdaNetworks", arXiv 2102.08602, multi-query, with the content and the
position lambda of its section 2); the feed-forward part mixes neighbours (SANA's Mix-FFN, arXiv 2410.10629). There is
no middle block. The position tables fix the size of the picture.
"""

from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

NEIGHBOURS = 15
"""Side of the square of neighbours that a pixel's position lambda sees."""
EXPANSION = 2.5
"""Width of the feed-forward part, in widths of its tokens."""


class SeparableConv(nn.Module):
    """A 3 x 3 convolution of each channel alone, then one of 1 x 1; with a shortcut where the widths are equal."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv_pw = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.has_shortcut = inputs == outputs

    def forward(self, x: "Tensor") -> "Tensor":
        """Return (n, outputs, h, w) of (n, inputs, h, w)."""
        y: Tensor = self.bn2(self.conv_pw(F.relu(self.bn1(self.conv_dw(x)))))
        return y + x if self.has_shortcut else y


def to_plane(tokens: "Tensor") -> "Tensor":
    """Return tokens (n, side², c) of a square as (n, c, side, side)."""
    side = round(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], side, side)


def to_tokens(plane: "Tensor") -> "Tensor":
    """Return a plane (n, c, h, w) as tokens (n, h w, c)."""
    return plane.flatten(2).transpose(1, 2)


class LambdaLayer(nn.Module):
    """A lambda layer in place of attention: context becomes one linear map, which each query is put through.

    With keys k (m, dk), softmax over the m context positions, and values v (m, dv): the content lambda is k^T v, the
    position lambda of query n is e_n^T v with a learned e; y_n = (content + position_n)^T q_n for each of the heads,
    which share keys and values.
    """

    norm_v: nn.Module

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Conv2d(width, width, 1, bias=False)
        self.norm_q = nn.BatchNorm2d(width)

    def read_queries(self, tokens: "Tensor") -> "Tensor":
        """Return queries (n, heads, dk, tokens)."""
        queries: Tensor = self.norm_q(self.to_q(to_plane(tokens)))
        return queries.reshape(len(tokens), self.heads, -1, tokens.shape[1])

    def join(self, queries: "Tensor", content: "Tensor", by_position: "Tensor") -> "Tensor":
        """Return tokens (n, t, c) of queries, the content lambda (n, dk, dv) and what the position lambdas gave."""
        by_content = torch.einsum("nhkt,nkv->nhvt", queries, content)
        return (by_content + by_position).flatten(1, 2).transpose(1, 2)


class SelfLambda(LambdaLayer):
    """A lambda layer among pixels; positions are those of the neighbours."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        inner = width // heads
        self.to_k = nn.Conv2d(width, inner, 1, bias=False)
        self.to_v = nn.Conv2d(width, inner, 1, bias=False)
        self.norm_v = nn.BatchNorm2d(inner)
        around = NEIGHBOURS // 2
        self.pos_conv = nn.Conv3d(1, inner, (1, NEIGHBOURS, NEIGHBOURS), padding=(0, around, around))

    def forward(self, hidden_states: "Tensor", **unused: Any) -> "Tensor":
        """Return (n, tokens, width) of (n, tokens, width); takes the arguments of diffusers' attention."""
        plane = to_plane(hidden_states)
        queries = self.read_queries(hidden_states)
        keys = self.to_k(plane).flatten(2).softmax(-1)
        values = self.norm_v(self.to_v(plane))
        content = torch.einsum("nkm,nvm->nkv", keys, values.flatten(2))
        positions = self.pos_conv(values[:, None]).flatten(3)  # (n, dk, dv, tokens)
        return self.join(queries, content, torch.einsum("nhkt,nkvt->nhvt", queries, positions))


class CrossLambda(LambdaLayer):
    """A lambda layer from pixels to embeddings; each pixel of the plane has a table of them.

    Args:
        cross: width of the embeddings. side: of the plane. count: embeddings.
    """

    def __init__(self, width: int, heads: int, cross: int, side: int, count: int) -> None:
        super().__init__(width, heads)
        inner = width // heads
        self.to_k = nn.Linear(cross, inner, bias=False)
        self.to_v = nn.Linear(cross, inner, bias=False)
        self.norm_v = nn.BatchNorm1d(inner)
        self.rel_pos_emb = nn.Parameter(torch.empty(side * side, count, inner, 1))

    def forward(self, hidden_states: "Tensor", encoder_hidden_states: "Tensor", **unused: Any) -> "Tensor":
        """Return (n, tokens, width) of (n, tokens, width) and embeddings (n, count, cross)."""
        queries = self.read_queries(hidden_states)
        keys = self.to_k(encoder_hidden_states).transpose(1, 2).softmax(-1)
        values = self.norm_v(self.to_v(encoder_hidden_states).transpose(1, 2))
        content = torch.einsum("nkm,nvm->nkv", keys, values)
        # queries first: the lambdas of all pixels, (n, tokens, dk, dv), would be forty times as large
        weights = torch.einsum("nhkt,tmk->nhtm", queries, self.rel_pos_emb[..., 0])
        return self.join(queries, content, torch.einsum("nhtm,nvm->nhvt", weights, values))


class _Conv(nn.Module):
    def __init__(self, inputs: int, outputs: int, side: int, groups: int = 1, has_bias: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, side, padding=side // 2, groups=groups, bias=has_bias)

    def forward(self, x: "Tensor") -> "Tensor":
        return cast("Tensor", self.conv(x))


class MixFeedForward(nn.Module):
    """A gated feed-forward part with a 3 x 3 convolution of each channel in its middle."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = int(width * EXPANSION)
        self.inverted_conv = _Conv(width, 2 * inner, 1)
        self.depth_conv = _Conv(2 * inner, 2 * inner, 3, groups=2 * inner)
        self.point_conv = _Conv(inner, width, 1, has_bias=False)

    def forward(self, hidden_states: "Tensor", **unused: Any) -> "Tensor":
        """Return (n, tokens, width) of (n, tokens, width)."""
        values, gate = self.depth_conv(F.silu(self.inverted_conv(to_plane(hidden_states)))).chunk(2, dim=1)
        return to_tokens(self.point_conv(values * F.silu(gate)))


def lighten_unet(unet: Any, embeddings: int) -> Any:
    """Return a UNet of diffusers, without a middle block, whose parts are Moebius's.

    Args:
        unet: `UNet2DConditionModel`; its `sample_size` is the side of the latents.
        embeddings: that a pixel attends to.
    """
    config = unet.config
    unet.conv_in = SeparableConv(config.in_channels, config.block_out_channels[0])
    unet.conv_out = SeparableConv(config.block_out_channels[0], config.out_channels)
    side = config.sample_size
    levels = [side >> k for k in range(len(unet.down_blocks))]
    for block, own in zip([*unet.down_blocks, *unet.up_blocks], [*levels, *reversed(levels)], strict=True):
        for resnet in block.resnets:
            resnet.conv1 = SeparableConv(resnet.in_channels, resnet.out_channels)
            resnet.conv2 = SeparableConv(resnet.out_channels, resnet.out_channels)
        for attention in block.attentions:
            for part in attention.transformer_blocks:
                width, heads = part.attn1.query_dim, part.attn1.heads
                part.attn1 = SelfLambda(width, heads)
                part.attn2 = CrossLambda(width, heads, config.cross_attention_dim, own, embeddings)
                part.ff = MixFeedForward(width)
    return unet
