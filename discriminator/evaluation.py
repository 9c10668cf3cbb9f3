"""How good scores are against people's votes: ranking, calibration, and what is kept at which threshold.

Arrays are 1-d, one entry a candidate. `votes` are shares of yes in [0, 1] (one reviewer: 0 or 1); `weights` count
reviewers where they are more than one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class OneClass(ValueError):
    """Votes that are all yes or all no: nothing can be ranked, learned or calibrated on them."""


class Bin(NamedTuple):
    """One bar of a reliability diagram: mean score, share of yes, number of candidates (`size`)."""

    score: float
    yes: float
    size: int


class Point(NamedTuple):
    """One point of the precision and yield curve: what is kept above `threshold`."""

    threshold: float
    precision: float
    kept: float
    size: int


def auc(scores: Array, votes: Array) -> float:
    """Probability that a yes scores above a no; ties count half. Soft votes are both, in their shares.

    Raises:
        OneClass
    """
    scores, votes = np.asarray(scores, float), np.asarray(votes, float)
    yes, no = votes.sum(), (1 - votes).sum()
    if yes == 0 or no == 0:
        raise OneClass(
            f"all {len(votes)} votes are {'no' if yes == 0 else 'yes'}: scores cannot be ranked against them"
        )
    order = np.argsort(scores, kind="stable")
    ranked, voted = scores[order], votes[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    yes_at, no_at = (np.add.reduceat(share, starts) for share in (voted, 1 - voted))
    below = np.cumsum(no_at) - no_at
    return float((yes_at * (below + no_at / 2)).sum() / (yes * no))


def reliability(probabilities: Array, votes: Array, bins: int = 10) -> list[Bin]:
    """Bins of equal numbers of candidates, by score: equal widths leave most of them empty when scores crowd."""
    probabilities, votes = np.asarray(probabilities, float), np.asarray(votes, float)
    order = np.argsort(probabilities, kind="stable")
    groups = [group for group in np.array_split(order, bins) if len(group)]
    return [Bin(float(probabilities[g].mean()), float(votes[g].mean()), len(g)) for g in groups]


def expected_error(probabilities: Array, votes: Array, bins: int = 10) -> float:
    """Expected calibration error: mean distance between score and share of yes over the reliability bins."""
    found = reliability(probabilities, votes, bins)
    return sum(abs(one.score - one.yes) * one.size for one in found) / len(probabilities)


def brier(probabilities: Array, votes: Array) -> float:
    """Mean squared error of the probabilities."""
    return float(np.mean((np.asarray(probabilities, float) - np.asarray(votes, float)) ** 2))


def curve(scores: Array, votes: Array, points: int = 101) -> list[Point]:
    """Precision and yield at thresholds between the lowest and the highest score; empty ends are left out."""
    scores, votes = np.asarray(scores, float), np.asarray(votes, float)
    made = []
    for threshold in np.quantile(scores, np.linspace(0, 1, points)):
        kept = scores > threshold
        if kept.any():
            made.append(Point(float(threshold), float(votes[kept].mean()), float(kept.mean()), int(kept.sum())))
    return made


def kept_at(scores: Array, votes: Array, threshold: float) -> Point:
    """Precision and yield at one threshold; precision is NaN where nothing is kept."""
    scores, votes = np.asarray(scores, float), np.asarray(votes, float)
    kept = scores > threshold
    precision = float(votes[kept].mean()) if kept.any() else float("nan")
    return Point(threshold, precision, float(kept.mean()), int(kept.sum()))


class Rates(NamedTuple):
    """Success of one remover by people and by the judge, %, and on how many candidates."""

    people: float
    judge: float
    size: int


def success_rates(
    probabilities: Array, votes: Array, removers: Sequence[str], threshold: float = 0.5
) -> Mapping[str, Rates]:
    """For each remover the share that people accept and the share above the threshold.

    RORem reports this agreement of rates (76.2 % against 75.6 %); it says nothing about single candidates.
    """
    probabilities, votes = np.asarray(probabilities, float), np.asarray(votes, float)
    names = np.asarray(removers)
    return {
        str(name): Rates(
            100 * float(votes[names == name].mean()),
            100 * float((probabilities[names == name] > threshold).mean()),
            int((names == name).sum()),
        )
        for name in sorted(set(removers))
    }


def evaluate(probabilities: Array, votes: Array, removers: Sequence[str]) -> dict[str, Any]:
    """All of it, as a JSON object.

    Raises:
        OneClass
    """
    return {
        "count": len(probabilities),
        "auc": auc(probabilities, votes),
        "ece": expected_error(probabilities, votes),
        "brier": brier(probabilities, votes),
        "reliability": [one._asdict() for one in reliability(probabilities, votes)],
        "curve": [one._asdict() for one in curve(probabilities, votes)],
        "removers": {name: one._asdict() for name, one in success_rates(probabilities, votes, removers).items()},
    }
