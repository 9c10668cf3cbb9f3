"""Heads, from the network's maps to one logit a picture.

A head is a torch module that is called with the maps (n, c, h, w) of all levels, the middle block's last, and with the
hole at the latents' size (n, 1, h, w), and returns logits (n,).
"""

from collections.abc import Callable, Sequence
from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ROREM_PARAMETERS = 78_656_001
ROREM_MAP = 16
"""RORem's head needs a map of 16 x 16: pictures of 512 px and no other size."""

POOLED_WIDTH = 64


def make_module(forward: Callable[..., "torch.Tensor"], **parts: Any) -> "torch.nn.Module":
    """Return a torch module of these parts whose call is that function, with the module as its first argument."""
    import torch

    module = torch.nn.Module()
    for name, part in parts.items():
        module.add_module(name, part)
    module.forward = MethodType(forward, module)
    return module


def make_rorem_head(channels: int, groups: int = 32) -> "torch.nn.Module":
    """Create RORem's head: three convolutions of 4 x 4 (strides 2, 2, 4) down to one cell, then one logit.

    A plain Sequential, so that the tensors of its `cls_pred_branch.pt` fit by name.

    Args:
        groups: of its norms.
    """
    from torch import nn

    def make_block(stride: int, padding: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, channels, 4, stride, padding), nn.GroupNorm(groups, channels), nn.SiLU()]

    head = nn.Sequential(*make_block(2, 1), *make_block(2, 1), *make_block(4, 0), nn.Conv2d(channels, 1, 1))

    def forward(self: nn.Sequential, levels: Sequence["torch.Tensor"], mask: "torch.Tensor") -> "torch.Tensor":
        features = levels[-1]
        if features.shape[2:] != (ROREM_MAP, ROREM_MAP):
            side = tuple(features.shape[2:])
            raise ValueError(f"RORem's head takes a map of 16 x 16 (pictures of 512 px), not {side[0]} x {side[1]}")
        for layer in self:
            features = layer(features)
        return features.flatten(1).squeeze(1)

    head.forward = MethodType(forward, head)  # type: ignore[method-assign]
    return head


def make_pooled_head(widths: Sequence[int], groups: int = 32) -> "torch.nn.Module":
    """Create the head for any size and all levels.

    Of each level's map a learned mixture is pooled seven ways: mean and deviation in the hole and in a ring around it,
    distance of the two means, largest value in the hole, mean everywhere. Coarse levels describe the content, fine ones
    the texture. The mean in the hole decides most verdicts, the deviations show a flat fill, and the largest value
    small remains.

    Args:
        widths: channels of each level's map.
        groups: of the norms.
    """
    from torch import nn

    kept = [min(width, POOLED_WIDTH) for width in widths]
    return make_module(
        _run_pooled_head,
        norms=nn.ModuleList([nn.GroupNorm(groups, width) for width in widths]),
        mixes=nn.ModuleList([nn.Conv2d(width, keep, 1) for width, keep in zip(widths, kept, strict=True)]),
        hidden=nn.Linear(7 * sum(kept), 2 * POOLED_WIDTH),
        score=nn.Linear(2 * POOLED_WIDTH, 1),
    )


def _run_pooled_head(self: Any, levels: Sequence["torch.Tensor"], mask: "torch.Tensor") -> "torch.Tensor":
    import torch
    import torch.nn.functional as F

    reach = max(1, min(mask.shape[2:]) // 8)
    around = F.max_pool2d(mask, 2 * reach + 1, 1, reach) - mask
    pools = []
    for features, norm, mix in zip(levels, self.norms, self.mixes, strict=True):
        mixture = F.silu(mix(F.silu(norm(features))))
        # a cell counts by the share that is hole, so that a hole smaller than a cell still counts
        size: Any = features.shape[2:]
        region, ring = (F.adaptive_avg_pool2d(weight, size) for weight in (mask, around))
        inside, inside_deviation = _pool(mixture, region)
        outside, outside_deviation = _pool(mixture, ring)
        largest = mixture.masked_fill(region.expand_as(mixture) <= 0, float("-inf")).amax((2, 3))
        mean, distance = mixture.mean((2, 3)), (inside - outside).abs()
        pools += [inside, outside, largest, mean, distance, inside_deviation, outside_deviation]
    logits: torch.Tensor = self.score(F.silu(self.hidden(torch.cat(pools, dim=1))))
    return logits.squeeze(1)


def _pool(maps: "torch.Tensor", weight: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor"]:
    """Return mean and deviation, (n, c) each, of maps (n, c, h, w) under weights (n, 1, h, w); 0 without weight."""
    share = weight / weight.sum((2, 3), keepdim=True).clamp(min=1e-6)
    mean = (maps * share).sum((2, 3), keepdim=True)
    # the slope of a root is infinite at 0, where a map is flat
    deviation = ((maps - mean).square() * share).sum((2, 3)).add(1e-4).sqrt()
    return mean.flatten(1), deviation
