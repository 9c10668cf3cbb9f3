"""Evaluation of scores against people's votes: ranking, calibration, and precision at each threshold.

Arrays are 1-d, one entry a candidate. `votes` are shares of yes in [0, 1] (one reviewer: 0 or 1).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rasura.manifests.errors import TrainingError

Array = npt.NDArray[Any]


class SingleClassVotes(TrainingError):
    """Votes that are all yes or all no: nothing can be ranked, learned or calibrated on them."""


class Bin(NamedTuple):
    """One bar of a reliability diagram: mean score, share of yes, number of candidates (`size`)."""

    score: float
    yes: float
    size: int


class Point(NamedTuple):
    """One point of the curve: precision, share (`kept`) and number (`size`) of candidates above `threshold`."""

    threshold: float
    precision: float
    kept: float
    size: int


def compute_auc(scores: Array, votes: Array) -> float:
    """Return the probability that a yes scores above a no; ties count half. Soft votes are both, in their shares.

    Raises:
        SingleClassVotes: there is no yes, or no no.

    Examples:
        >>> compute_auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
        0.75
    """
    scores, votes = np.asarray(scores, float), np.asarray(votes, float)
    yes, no = votes.sum(), (1 - votes).sum()
    if yes == 0 or no == 0:
        raise SingleClassVotes(
            f"all {len(votes)} votes are {'no' if yes == 0 else 'yes'}: scores cannot be ranked against them"
        )
    order = np.argsort(scores, kind="stable")
    ranked, ranked_votes = scores[order], votes[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    tied_yes, tied_no = (np.add.reduceat(share, starts) for share in (ranked_votes, 1 - ranked_votes))
    below = np.cumsum(tied_no) - tied_no
    return float((tied_yes * (below + tied_no / 2)).sum() / (yes * no))


def compute_reliability(probabilities: Array, votes: Array, bins: int = 10) -> list[Bin]:
    """Return bins of equal numbers of candidates, by score: bins of equal widths are mostly empty when scores crowd."""
    probabilities, votes = np.asarray(probabilities, float), np.asarray(votes, float)
    order = np.argsort(probabilities, kind="stable")
    groups = [group for group in np.array_split(order, bins) if len(group)]
    return [Bin(float(probabilities[g].mean()), float(votes[g].mean()), len(g)) for g in groups]


def compute_expected_error(probabilities: Array, votes: Array, bins: int = 10) -> float:
    """Return the expected calibration error: mean distance of score and share of yes over the reliability bins."""
    parts = compute_reliability(probabilities, votes, bins)
    return sum(abs(part.score - part.yes) * part.size for part in parts) / len(probabilities)


def compute_brier(probabilities: Array, votes: Array) -> float:
    """Return the mean squared error of the probabilities.

    Examples:
        >>> compute_brier(np.array([0.5, 1.0]), np.array([1.0, 1.0]))
        0.125
    """
    return float(np.mean((np.asarray(probabilities, float) - np.asarray(votes, float)) ** 2))


def compute_curve(scores: Array, votes: Array, points: int = 101) -> list[Point]:
    """Return precision and yield at thresholds between the lowest and the highest score, without empty ends."""
    scores, votes = np.asarray(scores, float), np.asarray(votes, float)
    curve = []
    for threshold in np.quantile(scores, np.linspace(0, 1, points)):
        kept = scores > threshold
        if kept.any():
            curve.append(Point(float(threshold), float(votes[kept].mean()), float(kept.mean()), int(kept.sum())))
    return curve


def measure_threshold(scores: Array, votes: Array, threshold: float) -> Point:
    """Return precision and yield at one threshold; precision is NaN where nothing is kept."""
    scores, votes = np.asarray(scores, float), np.asarray(votes, float)
    kept = scores > threshold
    precision = float(votes[kept].mean()) if kept.any() else float("nan")
    return Point(threshold, precision, float(kept.mean()), int(kept.sum()))


class Rates(NamedTuple):
    """Success of one remover by people and by the discriminator (`judge`), %, and the number of candidates."""

    people: float
    judge: float
    size: int


def compute_success_rates(
    probabilities: Array, votes: Array, removers: Sequence[str], threshold: float = 0.5
) -> Mapping[str, Rates]:
    """Return for each remover the share that people accept and the share above the threshold.

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
    """Return all measures as a JSON object.

    Raises:
        SingleClassVotes: there is no yes, or no no.
    """
    return {
        "count": len(probabilities),
        "auc": compute_auc(probabilities, votes),
        "ece": compute_expected_error(probabilities, votes),
        "brier": compute_brier(probabilities, votes),
        "reliability": [part._asdict() for part in compute_reliability(probabilities, votes)],
        "curve": [point._asdict() for point in compute_curve(probabilities, votes)],
        "removers": {
            name: rates._asdict() for name, rates in compute_success_rates(probabilities, votes, removers).items()
        },
    }
