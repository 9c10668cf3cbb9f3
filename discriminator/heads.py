"""From the network's maps to one number a picture.

A head is a torch module that is called with the maps (n, c, h, w) of all levels, the middle block's last, and with the
hole at the latents' size (n, 1, h, w), and answers with logits (n,).
"""

from collections.abc import Callable, Sequence
from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ROREM_PARAMETERS = 78_656_001
ROREM_MAP = 16
"""RORem's head wants a map of 16 x 16: pictures of 512 px and no other size."""

POOLED_WIDTH = 64


def module(forward: Callable[..., "torch.Tensor"], **parts: Any) -> "torch.nn.Module":
    """A torch module of these parts whose call is that function, with the module as its first argument."""
    import torch

    made = torch.nn.Module()
    for name, part in parts.items():
        made.add_module(name, part)
    made.forward = MethodType(forward, made)
    return made


def rorem(channels: int, groups: int = 32) -> "torch.nn.Module":
    """RORem's: three convolutions of 4 x 4 (strides 2, 2, 4) down to one cell, then one number.

    A plain Sequential, so that the tensors of its `cls_pred_branch.pt` fit by name.
    """
    from torch import nn

    def down(stride: int, padding: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, channels, 4, stride, padding), nn.GroupNorm(groups, channels), nn.SiLU()]

    head = nn.Sequential(*down(2, 1), *down(2, 1), *down(4, 0), nn.Conv2d(channels, 1, 1))

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


def pooled(widths: Sequence[int], groups: int = 32) -> "torch.nn.Module":
    """Ours: any size, and all levels. Of each level's map a learned mixture is pooled seven ways: mean and deviation in
    the hole and in a ring around it, how far the two means lie apart, largest value in the hole, mean everywhere.

    Coarse levels know what stands there, fine ones whether its texture is the surroundings'. The mean in the hole is
    what most verdicts hang on, the deviations tell a flat fill, the largest value finds what is small in it.
    """
    from torch import nn

    kept = [min(width, POOLED_WIDTH) for width in widths]
    return module(
        _pooled,
        norms=nn.ModuleList([nn.GroupNorm(groups, width) for width in widths]),
        mixes=nn.ModuleList([nn.Conv2d(width, keep, 1) for width, keep in zip(widths, kept, strict=True)]),
        hidden=nn.Linear(7 * sum(kept), 2 * POOLED_WIDTH),
        score=nn.Linear(2 * POOLED_WIDTH, 1),
    )


def _pooled(self: Any, levels: Sequence["torch.Tensor"], mask: "torch.Tensor") -> "torch.Tensor":
    import torch
    import torch.nn.functional as F

    reach = max(1, min(mask.shape[2:]) // 8)
    around = F.max_pool2d(mask, 2 * reach + 1, 1, reach) - mask
    found = []
    for features, norm, mix in zip(levels, self.norms, self.mixes, strict=True):
        mixed = F.silu(mix(F.silu(norm(features))))
        # any touched cell keeps its share: a hole smaller than a cell still counts
        size: Any = features.shape[2:]
        region, ring = (F.adaptive_avg_pool2d(one, size) for one in (mask, around))
        (inside, uneven), (beside, texture) = (_mean_and_deviation(mixed, one) for one in (region, ring))
        largest = mixed.masked_fill(region.expand_as(mixed) <= 0, float("-inf")).amax((2, 3))
        found += [inside, beside, largest, mixed.mean((2, 3)), (inside - beside).abs(), uneven, texture]
    answer: torch.Tensor = self.score(F.silu(self.hidden(torch.cat(found, dim=1))))
    return answer.squeeze(1)


def _mean_and_deviation(maps: "torch.Tensor", weight: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor"]:
    """Of maps (n, c, h, w) under weights (n, 1, h, w), both (n, c); without any weight, 0 and almost 0."""
    share = weight / weight.sum((2, 3), keepdim=True).clamp(min=1e-6)
    mean = (maps * share).sum((2, 3), keepdim=True)
    # a root's slope has no end at 0, where a map is flat
    deviation = ((maps - mean).square() * share).sum((2, 3)).add(1e-4).sqrt()
    return mean.flatten(1), deviation
