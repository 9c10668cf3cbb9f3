"""The energy score: a loss by which a one-step remover learns textures.

The mean square is least for the mean of all answers that fit, which is a blur. The energy score of two answers a, b to
the same question from different noise, (|a - y| + |b - y|) / 2 - |a - b| / 2, is least on average where the answers are
distributed as the truth is (Gneiting and Raftery 2007; for generative networks Shen and Meinshausen, arXiv 2307.00835).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SCALES = (1, 2)
"""Sides of the squares of latents whose values are one vector: they have to fit together."""


def compute_energy_score(
    first: "torch.Tensor", second: "torch.Tensor", truth: "torch.Tensor", weight: "torch.Tensor"
) -> "torch.Tensor":
    """Return the mean energy score over all places and `SCALES`.

    Args:
        first, second, truth: (n, c, h, w) float; h and w divisible by every scale.
        weight: (n, 1, h, w).
    """
    import torch
    import torch.nn.functional as F

    def compute_distance(a: "torch.Tensor", b: "torch.Tensor", side: int) -> "torch.Tensor":
        square = F.pixel_unshuffle(a - b, side).pow(2).mean(1, keepdim=True)
        return (square + 1e-8).sqrt()  # smooth where two answers are equal

    scores = []
    for side in SCALES:
        error = (compute_distance(first, truth, side) + compute_distance(second, truth, side)) / 2
        spread = compute_distance(first, second, side) / 2
        scores.append((F.avg_pool2d(weight, side) * (error - spread)).mean())
    return torch.stack(scores).mean()
