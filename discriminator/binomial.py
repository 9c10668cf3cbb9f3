"""Exact confidence bounds of a share, from yes and no votes (Clopper and Pearson)."""

import math
from collections.abc import Callable

import numpy as np

CONFIDENCE = 0.95


def compute_binomial_tail(yes: int, count: int, share: float) -> float:
    """Return P(X >= yes) for X of Binomial(count, share).

    Examples:
        >>> round(compute_binomial_tail(2, 3, 0.5), 9)
        0.5
    """
    if yes <= 0:
        return 1.0
    if share <= 0 or share >= 1:
        return float(share >= 1)
    ks = np.arange(yes, count + 1)
    ways = math.lgamma(count + 1) - np.array([math.lgamma(k + 1) + math.lgamma(count - k + 1) for k in ks])
    return float(min(1.0, np.exp(ways + ks * math.log(share) + (count - ks) * math.log1p(-share)).sum()))


def compute_lower_bound(yes: int, count: int, confidence: float = CONFIDENCE) -> float:
    """Return the one-sided Clopper-Pearson bound: the largest share that `yes` of `count` rules out from below.

    Examples:
        Fewer than 29 votes cannot show a share of 0.9.

        >>> round(compute_lower_bound(29, 29), 4)
        0.9019
    """
    return _bisect(lambda share: compute_binomial_tail(yes, count, share) <= 1 - confidence) if yes > 0 else 0.0


def compute_upper_bound(yes: int, count: int, confidence: float = CONFIDENCE) -> float:
    """Return the one-sided Clopper-Pearson bound from above."""
    return 1 - compute_lower_bound(count - yes, count, confidence)


def compute_interval(yes: int, count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the two-sided Clopper-Pearson interval.

    Examples:
        >>> [round(bound, 4) for bound in compute_interval(5, 10)]
        [0.1871, 0.8129]
    """
    half = 1 - (1 - confidence) / 2
    return compute_lower_bound(yes, count, half), compute_upper_bound(yes, count, half)


def _bisect(is_below: Callable[[float], bool]) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return low
