"""From logits to probabilities, and the threshold above which the promise is kept.

The promise is: of what is kept, at least that share would get a person's yes. Two things break it where it is taken
from a curve. The threshold that looks best on some hundred votes is the luckiest of many: here thresholds are tested
in an order that no vote had a say in, from a few starting points towards looser ones, and a run ends with its first
failure. The error is shared among the runs (fixed-sequence testing with several starts, as in Learn then Test,
arXiv 2110.01052), so that the chance that any accepted threshold breaks the promise stays below 1 - confidence. And
the best of several candidates of a scene is a biased pick: here the votes are put through the same pick before they
are counted (`best_of_each`).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rasura.discriminator.evaluation import OneClass

Array = npt.NDArray[Any]

PROMISE, CONFIDENCE = 0.9, 0.95
STEPS = 48
"""Thresholds that are tried."""
STARTS = (1.0, 1.5, 2.25)
"""Where runs start, in multiples of the fewest votes that could pass: with one no among so few nothing passes."""


def sigmoid(values: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
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


def from_json(value: Mapping[str, Any]) -> Calibration:
    """The inverse of `dataclasses.asdict`."""
    if value["kind"] == "isotonic":
        return Isotonic(tuple(value["logits"]), tuple(value["probabilities"]))
    return Scaling(value["temperature"], value["shift"])


def fit_scaling(logits: Array, votes: Array, weights: Array | None = None, shift: bool = True) -> Scaling:
    """Temperature (and shift) with the least cross entropy on held-out votes, by Newton's method.

    Without the shift it is temperature scaling, with it Platt's. A network trained with softplus and squared error
    needs the shift: its even odds are not at logit 0. Votes may be shares.

    Raises:
        OneClass
    """
    values, votes, weights = _checked(logits, votes, weights)
    columns = np.stack([values, np.ones_like(values)] if shift else [values], axis=1)
    # a pinch of ridge: perfectly separated votes would drive the slope to infinity
    ridge = 1e-3 * np.eye(columns.shape[1])
    start = np.array([1.0, 0.0][: columns.shape[1]])

    def loss(at: Array) -> float:
        lines = columns @ at
        entropy = weights * (np.logaddexp(0, lines) - votes * lines)
        return float(entropy.sum() + (at - start) @ ridge @ (at - start) / 2)

    found = start
    for _ in range(200):
        probability = sigmoid(columns @ found)
        slope = columns.T @ (weights * (probability - votes)) + ridge @ (found - start)
        bend = columns.T @ (columns * (weights * probability * (1 - probability))[:, None]) + ridge
        step = np.linalg.solve(bend, slope)
        length = 1.0
        while loss(found - length * step) > loss(found) and length > 1e-6:  # far from the answer Newton leaps too far
            length /= 2
        found = found - length * step
        if np.abs(length * step).max() < 1e-9:
            break
    # a slope that is not positive would turn the order round: then the scores say nothing, and all are the base rate
    return Scaling(1 / max(float(found[0]), 1e-6), float(found[1]) if shift else 0.0)


def fit_isotonic(logits: Array, votes: Array, weights: Array | None = None) -> Isotonic:
    """The rising step function with the least squared error (pool adjacent violators), joined by lines.

    Raises:
        OneClass
    """
    values, votes, weights = _checked(logits, votes, weights)
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


def _checked(values: Array, votes: Array, weights: Array | None) -> tuple[Array, Array, Array]:
    values, votes = np.asarray(values, float), np.asarray(votes, float)
    weights = np.ones_like(votes) if weights is None else np.asarray(weights, float)
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} of {len(values)} logits are not finite")
    if (votes >= 1).all() or (votes <= 0).all():
        raise OneClass(f"all {len(votes)} votes are the same: nothing can be calibrated on them")
    return values, votes, weights


def binomial_tail(yes: int, count: int, share: float) -> float:
    """P(X >= yes) for X of Binomial(count, share)."""
    if yes <= 0:
        return 1.0
    if share <= 0 or share >= 1:
        return float(share >= 1)
    ks = np.arange(yes, count + 1)
    ways = math.lgamma(count + 1) - np.array([math.lgamma(k + 1) + math.lgamma(count - k + 1) for k in ks])
    return float(min(1.0, np.exp(ways + ks * math.log(share) + (count - ks) * math.log1p(-share)).sum()))


def lower_bound(yes: int, count: int, confidence: float = CONFIDENCE) -> float:
    """One-sided Clopper-Pearson bound: the largest share that `yes` of `count` rules out from below.

    29 of 29 give .9019 at 95 %: fewer votes than 29 can keep no promise of .9.
    """
    return _bound(lambda share: binomial_tail(yes, count, share) <= 1 - confidence) if yes > 0 else 0.0


def upper_bound(yes: int, count: int, confidence: float = CONFIDENCE) -> float:
    """The same from above."""
    return 1 - lower_bound(count - yes, count, confidence)


def interval(yes: int, count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Two-sided Clopper-Pearson interval."""
    half = 1 - (1 - confidence) / 2
    return lower_bound(yes, count, half), upper_bound(yes, count, half)


def _bound(ruled_out: Any) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if ruled_out(middle) else (low, middle)
    return low


def least_votes(promise: float = PROMISE, confidence: float = CONFIDENCE) -> int:
    """Votes, all of them yes, without which no threshold can be shown to keep the promise: 39 for .9 at 95 %."""
    return math.ceil(math.log((1 - confidence) / len(STARTS)) / math.log(promise))


@dataclass(frozen=True)
class Keep:
    """Above which probability candidates are kept; None where no threshold keeps the promise.

    yes, count: votes above it, rounded down. precision: their share; `low` its lower bound at the confidence.
    """

    threshold: float | None
    yes: int = 0
    count: int = 0
    low: float = 0.0
    why: str = ""

    @property
    def precision(self) -> float:
        """Share of yes among the votes above the threshold."""
        return self.yes / self.count if self.count else float("nan")


def keep_threshold(
    probabilities: Array, votes: Array, promise: float = PROMISE, confidence: float = CONFIDENCE
) -> Keep:
    """The loosest threshold that is shown to keep the promise on held-out votes; see the module's text.

    The grid goes by numbers of candidates, from the fewest that could pass to all, so that votes had no say in it.
    A candidate's vote is yes where more than half of its reviewers said so.
    """
    probabilities, yes = np.asarray(probabilities, float), np.asarray(votes, float) > 0.5
    order = np.argsort(-probabilities, kind="stable")
    ranked, hits = probabilities[order], np.cumsum(yes[order])
    fewest, count = least_votes(promise, confidence), len(ranked)
    if count < fewest:
        return Keep(None, count=count, why=f"{count} votes, at least {fewest} are needed")
    sizes = np.unique(np.round(np.geomspace(fewest, count, STEPS)).astype(int))
    # candidates of one score stand or fall together
    sizes = np.unique([int(np.searchsorted(-ranked, -ranked[size - 1], side="right")) for size in sizes])
    strict = 1 - (1 - confidence) / len(STARTS)
    accepted = 0
    for start in STARTS:
        for size in sizes[sizes >= start * fewest]:
            if lower_bound(int(hits[size - 1]), int(size), strict) < promise:
                break
            accepted = max(accepted, int(size))
    if not accepted:
        return Keep(None, count=count, why=f"no threshold keeps {promise:.2f} at {confidence:.0%} confidence")
    below = float(ranked[accepted]) if accepted < count else 0.0
    found = int(hits[accepted - 1])
    return Keep((float(ranked[accepted - 1]) + below) / 2, found, accepted, lower_bound(found, accepted, confidence))


def best_of_each(scores: Array, scenes: Sequence[str]) -> Array:
    """Indices of each scene's best candidate, the first of equals: what a loop that keeps one a scene picks."""
    best: dict[str, int] = {}
    for index, scene in enumerate(scenes):
        if scene not in best or scores[index] > scores[best[scene]]:
            best[scene] = index
    return np.array(sorted(best.values()), int)


@dataclass(frozen=True)
class Rule:
    """How logits become decisions. Kept as `calibration.json` beside the judge."""

    calibration: Calibration
    promise: float
    confidence: float
    overall: Keep
    removers: Mapping[str, Keep]
    picked: bool = False

    def decide(
        self, probability: float, remover: str | None, overall: bool = False
    ) -> Literal["keep", "drop", "people"]:
        """Keep or drop; `people` where the remover has too few votes for a threshold of its own.

        With `overall` the threshold is that for all removers alike, which leaves nothing to people.

        A remover that has votes enough and no threshold that holds is dropped: its candidates are known to be bad.
        """
        rule = self.overall if overall else self.removers.get(remover or "")
        if rule is None or (
            not overall and rule.threshold is None and rule.count < least_votes(self.promise, self.confidence)
        ):
            return "people"
        return "keep" if rule.threshold is not None and probability > rule.threshold else "drop"

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Rule":
        """The inverse."""
        return cls(
            from_json(value["calibration"]), value["promise"], value["confidence"], Keep(**value["overall"]),
            {name: Keep(**one) for name, one in value["removers"].items()}, value["picked"],
        )  # fmt: skip


FILE = "calibration.json"


class NotCalibrated(ValueError):
    """A judge whose scores are no probabilities yet."""


def read_rule(folder: Path) -> Rule:
    """The rule in a judge's folder.

    Raises:
        NotCalibrated
    """
    path = folder / FILE
    if not path.is_file():
        raise NotCalibrated(f"the judge in {folder} has no {FILE}: calibrate it on held-out votes first")
    return Rule.from_json(json.loads(path.read_text()))


def write_rule(rule: Rule, folder: Path) -> None:
    """Puts a rule into a judge's folder, whole or not at all."""
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
    promise: float = PROMISE,
    confidence: float = CONFIDENCE,
    weights: Array | None = None,
) -> Rule:
    """Calibration and thresholds from held-out votes.

    Thresholds are chosen by the candidates' order alone, which scaling leaves as it is, so that the same votes may do
    both. An isotonic calibration ties candidates together by their votes: there half of the scenes calibrate and the
    other half choose the thresholds.

    Args:
        scenes: of each candidate; then only each scene's best candidate counts for thresholds, as in a loop that
            keeps one of several. None: all count.

    Raises:
        OneClass, ValueError
    """
    logits, votes = np.asarray(logits, float), np.asarray(votes, float)
    if not len(logits) == len(votes) == len(removers):
        raise ValueError(f"{len(logits)} logits, {len(votes)} votes and {len(removers)} removers")
    groups = list(scenes) if scenes is not None else [str(k) for k in range(len(logits))]
    if method == "isotonic":
        order = {scene: k for k, scene in enumerate(sorted(set(groups)))}
        first = np.array([order[scene] % 2 == 0 for scene in groups])
        counted = None if weights is None else np.asarray(weights, float)[first]
        mapping: Calibration = fit_isotonic(logits[first], votes[first], counted)
        rest = np.flatnonzero(~first)
    else:
        mapping = fit_scaling(logits, votes, weights, shift=method == "scaling")
        rest = np.arange(len(logits))
    probabilities = mapping(logits)
    if scenes is not None:
        rest = rest[best_of_each(probabilities[rest], [groups[k] for k in rest])]
    names = np.asarray(removers)
    by_remover = {
        str(name): keep_threshold(probabilities[here], votes[here], promise, confidence)
        for name in sorted(set(removers))
        for here in [rest[names[rest] == name]]
    }
    overall = keep_threshold(probabilities[rest], votes[rest], promise, confidence)
    return Rule(mapping, promise, confidence, overall, by_remover, scenes is not None)
