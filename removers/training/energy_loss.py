"""The energy score: a loss that a one-step remover can learn textures by.

The mean square is least for the mean of all answers that fit, which is a blur. The energy score of two answers a, b to
the same question from different noise, (|a - y| + |b - y|) / 2 - |a - b| / 2, is least on average where the answers are
distributed as the truth is (Gneiting and Raftery 2007; for generative networks Shen and Meinshausen, arXiv 2307.00835).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SCALES = (1, 2)
"""Sides of the squares of latents whose numbers are one vector: what lies in one has to fit together."""


def score(
    first: "torch.Tensor", second: "torch.Tensor", truth: "torch.Tensor", weight: "torch.Tensor"
) -> "torch.Tensor":
    """The mean energy score over all places and `SCALES`.

    Args:
        first, second, truth: (n, c, h, w) float; h and w divisible by every scale. weight: (n, 1, h, w).
    """
    import torch
    import torch.nn.functional as F

    def distance(one: "torch.Tensor", other: "torch.Tensor", side: int) -> "torch.Tensor":
        square = F.pixel_unshuffle(one - other, side).pow(2).mean(1, keepdim=True)
        return (square + 1e-8).sqrt()  # smooth where two answers are one

    found = []
    for side in SCALES:
        away = (distance(first, truth, side) + distance(second, truth, side)) / 2
        spread = distance(first, second, side) / 2
        found.append((F.avg_pool2d(weight, side) * (away - spread)).mean())
    return torch.stack(found).mean()
