"""Ratings of removers from rankings of their candidates, by the model of Bradley and Terry: pure functions."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SCALE = 400 / np.log(10)
"""Points of a rating for one unit of log strength: 400 points are odds of 10 to 1, as in chess."""
CENTRE = 1000.0
PRIOR = 0.5
"""Weight of one win and one loss of everyone against an average opponent, which keeps ratings finite."""
CONFIDENCE_Z = 1.959964
FEW = 30
"""Scenes below which the interval is at least that of independent comparisons."""

Ranking = tuple[str, int, Sequence[Sequence[str]]]
"""Scene, reviewer, and groups of removers, the best first; those of one group are equally good."""


@dataclass(frozen=True)
class Rating:
    """A remover's rating.

    Attributes:
        name: of the remover.
        rating: 1000 is average; 400 points more are odds of 10 to 1.
        low, high: interval of 95 % confidence.
        comparisons: pairs that it was part of; one of equals counts, too.
        won: share of them that it won; half of those of equals.
    """

    name: str
    rating: float
    low: float
    high: float
    comparisons: int
    won: float


def list_comparisons(rankings: Iterable[Ranking]) -> list[tuple[str, str, str, float]]:
    """List the pairs that rankings compare: (scene, first, second, share of the win of the first).

    Of one that only picks the best, the others are not compared with each other: a group of equals beside the first
    that holds all others says nothing about them.

    Examples:
        >>> list_comparisons([("s", 1, [["a"], ["b"], ["c"]])])
        [('s', 'a', 'b', 1.0), ('s', 'a', 'c', 1.0), ('s', 'b', 'c', 1.0)]
        >>> list_comparisons([("s", 1, [["a"], ["b", "c"]])])
        [('s', 'a', 'b', 1.0), ('s', 'a', 'c', 1.0)]
        >>> list_comparisons([("s", 1, [["a", "b"]])])
        [('s', 'a', 'b', 0.5)]
    """
    pairs = []
    for scene, _, groups in rankings:
        is_pick = len(groups) == 2 and len(groups[0]) == 1
        for rank, group in enumerate(groups):
            for better in group:
                pairs += [(scene, better, worse, 1.0) for later in groups[rank + 1 :] for worse in later]
            if not (is_pick and rank == 1):
                pairs += [(scene, one, other, 0.5) for i, one in enumerate(group) for other in group[i + 1 :]]
    return [pair for pair in pairs if pair[1] != pair[2]]


def rate_removers(rankings: Iterable[Ranking], rounds: int = 200) -> list[Rating]:
    """Rate the removers that rankings compare, the best first.

    P(i beats j) = 1 / (1 + exp(θ_j - θ_i)); θ by Newton's method on the log likelihood with a weak prior. The interval
    is from the sandwich estimator over scenes, because the comparisons of one scene are not independent.

    Source:
        Bradley and Terry 1952, Rank analysis of incomplete block designs; White 1982 (sandwich estimator).

    Examples:
        >>> first, last = rate_removers([(f"s{n}", 1, [["a"], ["b"]] if n % 4 else [["b"], ["a"]]) for n in range(40)])
        >>> first.name, first.won, first.low < first.rating < first.high
        ('a', 0.75, True)
    """
    pairs = list_comparisons(rankings)
    names = sorted({name for _, first, second, _ in pairs for name in (first, second)})
    if not names:
        return []
    index = {name: number for number, name in enumerate(names)}
    first = np.array([index[pair[1]] for pair in pairs])
    second = np.array([index[pair[2]] for pair in pairs])
    won = np.array([pair[3] for pair in pairs])
    theta = _fit(first, second, won, len(names), rounds)
    errors = _estimate_errors(theta, first, second, won, [pair[0] for pair in pairs])
    ratings = []
    for name, number in index.items():
        value = CENTRE + SCALE * (theta[number] - theta.mean())
        reach = CONFIDENCE_Z * SCALE * errors[number]
        shares = np.concatenate([won[first == number], 1 - won[second == number]])
        figures = (float(value), float(value - reach), float(value + reach))
        ratings.append(Rating(name, *figures, len(shares), float(shares.mean())))
    return sorted(ratings, key=lambda rating: (-rating.rating, rating.name))


Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


def _predict(theta: Floats, first: Indices, second: Indices) -> Floats:
    return np.asarray(1 / (1 + np.exp(np.clip(theta[second] - theta[first], -60, 60))))


def _compute_curvature(theta: Floats, first: Indices, second: Indices) -> Floats:
    """Compute the matrix of second derivatives of the log likelihood with its prior, with its sign turned."""
    p = _predict(theta, first, second)
    weight, size = p * (1 - p), len(theta)
    curvature = np.zeros((size, size))
    np.add.at(curvature, (first, first), weight)
    np.add.at(curvature, (second, second), weight)
    np.add.at(curvature, (first, second), -weight)
    np.add.at(curvature, (second, first), -weight)
    average = 1 / (1 + np.exp(-theta))
    return curvature + np.diag(2 * PRIOR * average * (1 - average))


def _fit(first: Indices, second: Indices, won: Floats, size: int, rounds: int) -> Floats:
    theta = np.zeros(size)
    for _ in range(rounds):
        residual = won - _predict(theta, first, second)
        slope = PRIOR * (1 - 2 / (1 + np.exp(-theta)))
        np.add.at(slope, first, residual)
        np.add.at(slope, second, -residual)
        step = np.linalg.solve(_compute_curvature(theta, first, second), slope)
        theta = theta + step * min(1.0, 2.0 / max(1e-12, float(np.abs(step).max())))
        if np.abs(step).max() < 1e-10:
            break
    return np.asarray(theta)


def _estimate_errors(theta: Floats, first: Indices, second: Indices, won: Floats, scenes: Sequence[str]) -> Floats:
    """Estimate the standard errors of strengths relative to their average."""
    residual = won - _predict(theta, first, second)
    slopes: dict[str, Floats] = defaultdict(lambda: np.zeros(len(theta)))
    for scene, one, other, rest in zip(scenes, first.tolist(), second.tolist(), residual.tolist(), strict=True):
        slopes[scene][one] += rest
        slopes[scene][other] -= rest
    gathered = np.stack(list(slopes.values()))
    inverse = np.linalg.inv(_compute_curvature(theta, first, second))
    few = len(gathered) / max(1, len(gathered) - 1)  # scenes are a sample
    sandwich = inverse @ (few * gathered.T @ gathered) @ inverse
    contrast = np.eye(len(theta)) - 1 / len(theta)

    def compute_errors(covariance: npt.NDArray[Any]) -> Floats:
        return np.asarray(np.sqrt(np.clip(np.diag(contrast @ covariance @ contrast.T), 0, None)))

    # few scenes that are alike show no spread; the curvature is what is known then
    return (
        compute_errors(sandwich)
        if len(gathered) >= FEW
        else np.maximum(compute_errors(sandwich), compute_errors(inverse))
    )
