"""Calibration of logits to probabilities, and the threshold above which the precision target holds.

The precision target: of the candidates that are kept, at least that share would get a person's yes. Two things break
it where a threshold is read from a curve. The threshold that looks best on some hundred votes is the luckiest of many:
here thresholds are tested in an order that does not depend on the votes, from a few starting points towards looser
ones, and a sequence ends with its first failure. The error is shared among the sequences (fixed-sequence testing with
several starts, as in Learn then Test, arXiv 2110.01052), so that the chance that any accepted threshold misses the
target stays below 1 - confidence. And the best of several candidates of a scene is a biased pick: here the votes go
through the same pick before they are counted (`pick_best_of_scenes`).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rasura.discriminator.binomial import CONFIDENCE, compute_lower_bound
from rasura.discriminator.evaluation import SingleClassVotes
from rasura.manifests.errors import TrainingError

Array = npt.NDArray[Any]

PRECISION_TARGET = 0.9
STEPS = 48
"""Number of thresholds that are tried."""
STARTS = (1.0, 1.5, 2.25)
"""Starts of the sequences, in multiples of the fewest votes that could pass: one no among so few fails."""


def sigmoid(values: Array) -> Array:
    """Return 1 / (1 + exp(-x)), without overflow.

    Examples:
        >>> sigmoid(np.array([-1000.0, 0.0])).tolist()
        [0.0, 0.5]
    """
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(values, float))))


@dataclass(frozen=True)
class Scaling:
    """probability = sigmoid(logit / temperature + shift)."""

    temperature: float
    shift: float = 0.0
    kind: Literal["scaling"] = "scaling"

    def __call__(self, logits: Array) -> Array:
        return sigmoid(np.asarray(logits, float) / self.temperature + self.shift)


@dataclass(frozen=True)
class Isotonic:
    """A rising line through (logit, probability), flat at both ends."""

    logits: tuple[float, ...]
    probabilities: tuple[float, ...]
    kind: Literal["isotonic"] = "isotonic"

    def __call__(self, logits: Array) -> Array:
        return np.asarray(np.interp(np.asarray(logits, float), self.logits, self.probabilities))


Calibration = Scaling | Isotonic


def parse_calibration(value: Mapping[str, Any]) -> Calibration:
    """Return the calibration of a JSON object, the inverse of `dataclasses.asdict`."""
    if value["kind"] == "isotonic":
        return Isotonic(tuple(value["logits"]), tuple(value["probabilities"]))
    return Scaling(value["temperature"], value["shift"])


def fit_scaling(logits: Array, votes: Array, weights: Array | None = None, shift: bool = True) -> Scaling:
    """Fit temperature (and shift) with the least cross entropy on held-out votes, by Newton's method.

    Without the shift it is temperature scaling, with it Platt's. A network trained with softplus and squared error
    needs the shift: its even odds are not at logit 0.

    Args:
        logits, votes, weights: (n,); votes are shares of yes.

    Raises:
        SingleClassVotes: all votes are the same.
        ValueError: logits are not finite.
    """
    values, votes, weights = _check_votes(logits, votes, weights)
    columns = np.stack([values, np.ones_like(values)] if shift else [values], axis=1)
    # a pinch of ridge: perfectly separated votes would drive the slope to infinity
    ridge = 1e-3 * np.eye(columns.shape[1])
    start = np.array([1.0, 0.0][: columns.shape[1]])

    def compute_loss(parameters: Array) -> float:
        lines = columns @ parameters
        entropy = weights * (np.logaddexp(0, lines) - votes * lines)
        return float(entropy.sum() + (parameters - start) @ ridge @ (parameters - start) / 2)

    fitted = start
    for _ in range(200):
        probability = sigmoid(columns @ fitted)
        gradient = columns.T @ (weights * (probability - votes)) + ridge @ (fitted - start)
        hessian = columns.T @ (columns * (weights * probability * (1 - probability))[:, None]) + ridge
        step = np.linalg.solve(hessian, gradient)
        length = 1.0
        # far from the minimum a whole Newton step is too long
        while compute_loss(fitted - length * step) > compute_loss(fitted) and length > 1e-6:
            length /= 2
        fitted = fitted - length * step
        if np.abs(length * step).max() < 1e-9:
            break
    # a slope that is not positive would reverse the order: then the scores say nothing, and all are the base rate
    return Scaling(1 / max(float(fitted[0]), 1e-6), float(fitted[1]) if shift else 0.0)


def fit_isotonic(logits: Array, votes: Array, weights: Array | None = None) -> Isotonic:
    """Fit the rising step function with the least squared error (pool adjacent violators), joined by lines.

    Args:
        logits, votes, weights: (n,); votes are shares of yes.

    Raises:
        SingleClassVotes: all votes are the same.
        ValueError: logits are not finite.
    """
    values, votes, weights = _check_votes(logits, votes, weights)
    order = np.argsort(values, kind="stable")
    blocks: list[list[float]] = []  # lowest logit, highest logit, sum of votes, weight
    for value, vote, weight in zip(values[order], votes[order], weights[order], strict=True):
        if blocks and value == blocks[-1][1]:
            blocks[-1][2] += vote * weight
            blocks[-1][3] += weight
        else:
            blocks.append([value, value, vote * weight, weight])
        while len(blocks) > 1 and blocks[-2][2] / blocks[-2][3] >= blocks[-1][2] / blocks[-1][3]:
            last = blocks.pop()
            blocks[-1] = [blocks[-1][0], last[1], blocks[-1][2] + last[2], blocks[-1][3] + last[3]]
    knots = [(edge, total / weight) for low, high, total, weight in blocks for edge in dict.fromkeys((low, high))]
    return Isotonic(tuple(float(x) for x, _ in knots), tuple(float(y) for _, y in knots))


def _check_votes(values: Array, votes: Array, weights: Array | None) -> tuple[Array, Array, Array]:
    values, votes = np.asarray(values, float), np.asarray(votes, float)
    weights = np.ones_like(votes) if weights is None else np.asarray(weights, float)
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} of {len(values)} logits are not finite")
    if (votes >= 1).all() or (votes <= 0).all():
        raise SingleClassVotes(
            f"all {len(votes)} votes are the same: a calibration needs votes of both kinds; collect more"
        )
    return values, votes, weights


def count_least_votes(precision_target: float = PRECISION_TARGET, confidence: float = CONFIDENCE) -> int:
    """Return the number of votes, all of them yes, without which no threshold can be shown to hold.

    Examples:
        >>> count_least_votes(0.9, 0.95)
        39
    """
    return math.ceil(math.log((1 - confidence) / len(STARTS)) / math.log(precision_target))


@dataclass(frozen=True)
class Threshold:
    """The probability above which candidates are kept; None where no threshold holds the precision target.

    yes, count: votes above it, rounded down. precision: their share; `low` its lower bound at the confidence.
    why: the reason where there is none.
    """

    threshold: float | None
    yes: int = 0
    count: int = 0
    low: float = 0.0
    why: str = ""

    @property
    def precision(self) -> float:
        """Return the share of yes among the votes above the threshold."""
        return self.yes / self.count if self.count else float("nan")


def find_threshold(
    probabilities: Array, votes: Array, precision_target: float = PRECISION_TARGET, confidence: float = CONFIDENCE
) -> Threshold:
    """Find the loosest threshold that is shown to hold the precision target on held-out votes; see the module's text.

    The grid is of numbers of candidates, from the fewest that could pass to all, so that it does not depend on votes.
    A candidate's vote is yes where more than half of its reviewers said so.

    Args:
        probabilities, votes: (n,); votes are shares of yes.
    """
    probabilities, yes = np.asarray(probabilities, float), np.asarray(votes, float) > 0.5
    order = np.argsort(-probabilities, kind="stable")
    ranked, hits = probabilities[order], np.cumsum(yes[order])
    fewest, count = count_least_votes(precision_target, confidence), len(ranked)
    if count < fewest:
        return Threshold(None, count=count, why=f"{count} votes, at least {fewest} are needed")
    sizes = np.unique(np.round(np.geomspace(fewest, count, STEPS)).astype(int))
    # candidates of one score are kept or rejected together
    sizes = np.unique([int(np.searchsorted(-ranked, -ranked[size - 1], side="right")) for size in sizes])
    strict = 1 - (1 - confidence) / len(STARTS)
    accepted = 0
    for start in STARTS:
        for size in sizes[sizes >= start * fewest]:
            if compute_lower_bound(int(hits[size - 1]), int(size), strict) < precision_target:
                break
            accepted = max(accepted, int(size))
    if not accepted:
        why = f"no threshold keeps {precision_target:.2f} at {confidence:.0%} confidence"
        return Threshold(None, count=count, why=why)
    below = float(ranked[accepted]) if accepted < count else 0.0
    threshold, hit = (float(ranked[accepted - 1]) + below) / 2, int(hits[accepted - 1])
    return Threshold(threshold, hit, accepted, compute_lower_bound(hit, accepted, confidence))


def pick_best_of_scenes(scores: Array, scenes: Sequence[str]) -> Array:
    """Return the indices of each scene's best candidate, the first of equals, as a loop that keeps one a scene picks.

    Examples:
        >>> pick_best_of_scenes(np.array([0.2, 0.9, 0.5]), ["a", "a", "b"]).tolist()
        [1, 2]
    """
    best: dict[str, int] = {}
    for index, scene in enumerate(scenes):
        if scene not in best or scores[index] > scores[best[scene]]:
            best[scene] = index
    return np.array(sorted(best.values()), int)


@dataclass(frozen=True)
class Rule:
    """The rule from logits to decisions, kept as `calibration.json` beside the discriminator.

    picked: only each scene's best candidate was counted for the thresholds.
    """

    calibration: Calibration
    precision_target: float
    confidence: float
    overall: Threshold
    removers: Mapping[str, Threshold]
    picked: bool = False

    def decide(
        self, probability: float, remover: str | None, overall: bool = False
    ) -> Literal["keep", "drop", "people"]:
        """Decide about one candidate.

        Args:
            overall: use the threshold for all removers alike, which leaves nothing to people.

        Returns:
            `people` where the remover has too few votes for a threshold of its own; else `keep` or `drop`. Candidates
            of a remover that has enough votes and no threshold that holds are all dropped: they are mostly bad.
        """
        limit = self.overall if overall else self.removers.get(remover or "")
        least = count_least_votes(self.precision_target, self.confidence)
        if limit is None or (not overall and limit.threshold is None and limit.count < least):
            return "people"
        return "keep" if limit.threshold is not None and probability > limit.threshold else "drop"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object; its key for the precision target is `promise`."""
        value = asdict(self)
        return {"promise": value.pop("precision_target"), **value}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Rule":
        """Return the rule of a JSON object."""
        removers = {name: Threshold(**threshold) for name, threshold in value["removers"].items()}
        overall, calibration = Threshold(**value["overall"]), parse_calibration(value["calibration"])
        return cls(calibration, value["promise"], value["confidence"], overall, removers, value["picked"])


FILE = "calibration.json"


class NotCalibrated(TrainingError):
    """A discriminator without a calibration, whose scores are no probabilities yet."""


def read_rule(folder: Path) -> Rule:
    """Read the rule in a discriminator's folder.

    Raises:
        NotCalibrated: there is none.
    """
    path = folder / FILE
    if not path.is_file():
        raise NotCalibrated(f"the discriminator in {folder} has no {FILE}: calibrate it on held-out votes first")
    return Rule.from_json(json.loads(path.read_text()))


def write_rule(rule: Rule, folder: Path) -> None:
    """Write a rule to a discriminator's folder, as a whole or not at all."""
    path = folder / FILE
    part = path.with_suffix(".part")
    part.write_text(json.dumps(rule.to_json(), indent=2, sort_keys=True) + "\n")
    part.replace(path)


def calibrate(
    logits: Array,
    votes: Array,
    removers: Sequence[str],
    scenes: Sequence[str] | None = None,
    method: Literal["temperature", "scaling", "isotonic"] = "scaling",
    precision_target: float = PRECISION_TARGET,
    confidence: float = CONFIDENCE,
    weights: Array | None = None,
) -> Rule:
    """Fit calibration and thresholds to held-out votes.

    Thresholds are chosen by the candidates' order alone, which scaling leaves as it is, so that the same votes may do
    both. An isotonic calibration ties candidates together by their votes: there half of the scenes calibrate and the
    other half choose the thresholds.

    Args:
        logits, votes, weights: (n,); votes are shares of yes.
        removers: name of each candidate's remover.
        scenes: of each candidate; then only each scene's best candidate counts for thresholds, as in a loop that
            keeps one of several. None: all count.

    Raises:
        SingleClassVotes: all votes are the same.
        ValueError: logits are not finite, or lengths differ.
    """
    logits, votes = np.asarray(logits, float), np.asarray(votes, float)
    if not len(logits) == len(votes) == len(removers):
        raise ValueError(f"{len(logits)} logits, {len(votes)} votes and {len(removers)} removers")
    groups = list(scenes) if scenes is not None else [str(k) for k in range(len(logits))]
    if method == "isotonic":
        order = {scene: k for k, scene in enumerate(sorted(set(groups)))}
        first = np.array([order[scene] % 2 == 0 for scene in groups])
        first_weights = None if weights is None else np.asarray(weights, float)[first]
        mapping: Calibration = fit_isotonic(logits[first], votes[first], first_weights)
        rest = np.flatnonzero(~first)
    else:
        mapping = fit_scaling(logits, votes, weights, shift=method == "scaling")
        rest = np.arange(len(logits))
    probabilities = mapping(logits)
    if scenes is not None:
        rest = rest[pick_best_of_scenes(probabilities[rest], [groups[k] for k in rest])]
    names = np.asarray(removers)
    by_remover = {
        str(name): find_threshold(probabilities[indices], votes[indices], precision_target, confidence)
        for name in sorted(set(removers))
        for indices in [rest[names[rest] == name]]
    }
    overall = find_threshold(probabilities[rest], votes[rest], precision_target, confidence)
    return Rule(mapping, precision_target, confidence, overall, by_remover, scenes is not None)
