"""Ladders: a good candidate above worse and worse versions of itself. Their order is known without votes.

Votes on removers' candidates say little of how failures rank among each other: nearly all are rejected, and a strong
blur and a hole filled from another picture get the same low score. A ladder has no votes, only an order: each step
down must lower the logit (RankNet's pairwise logistic loss, Burges et al., ICML 2005).
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rasura.discriminator.augment import Case, blur_hole, fill_with_other
from rasura.discriminator.dataset import Example

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]

BLUR = (0.02, 0.3)
"""Range of a blur's sigma, in square roots of the hole's area."""


def make_ladder(example: Example, other: Array, rng: np.random.Generator) -> list[Array]:
    """Make the lower steps of an accepted candidate's ladder: a blur, a stronger blur, and another picture.

    Args:
        other: (h, w, 3) uint8, another picture of any size.

    Returns:
        Edited pictures (h, w, 3) uint8, from better to worse.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> picture, other = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
        >>> mask = np.zeros((32, 32), bool)
        >>> mask[8:24, 8:24] = True
        >>> steps = make_ladder(Example(picture, picture, mask, 1.0, "a"), other, rng)
        >>> bool(picture[mask].std() > steps[0][mask].std() > steps[1][mask].std()), len(steps)
        (True, 3)
    """
    weak, strong = np.sort(np.exp(rng.uniform(math.log(BLUR[0]), math.log(BLUR[1]), 2)))
    case = Case(example.source, example.target, example.mask, None, other)
    blurs = [blur_hole(example.target, example.mask, float(share)) for share in (weak, strong)]
    return [*blurs, fill_with_other(case, rng)]


def list_pairs(positions: Sequence[int]) -> list[tuple[int, int]]:
    """List the pairs (better, worse) of a ladder: neighbours, and its two ends.

    Args:
        positions: of its candidates, from the best to the worst.

    Examples:
        >>> list_pairs([3, 8, 9])
        [(3, 8), (8, 9), (3, 9)]
    """
    return [*pairwise(positions), (positions[0], positions[-1])]


def compute_order_loss(logits: "torch.Tensor", pairs: Sequence[tuple[int, int]]) -> "torch.Tensor":
    """Return the mean logistic loss of the differences of logits (n,) over pairs (better, worse); 0 without pairs."""
    import torch
    import torch.nn.functional as F

    if not pairs:
        return logits.new_zeros(())
    better, worse = torch.tensor(pairs, device=logits.device).T
    return F.softplus(logits[worse] - logits[better]).mean()
