"""Calibration of logits to probabilities, and the threshold above which the precision target holds.

The precision target: of the candidates that are kept, at least that share would get a person's yes. Two things break
it where a threshold is read from a curve. The threshold that looks best on some hundred votes is the luckiest of many:
here thresholds are tested in an order that does not depend on the votes, from a few starting points towards looser
ones, and a sequence ends with its first failure. The error is shared among the sequences (fixed-sequence testing with
several starts, as in Learn then Test, arXiv 2110.01052), so that the chance that any accepted threshold misses the
target stays below 1 - confidence. And the best of several candidates of a scene is a biased pick: here the votes go
through the same pick before they are counted (`pick_best_of_scenes`).

A discriminator overrates some removers and underrates others. Scaling has one intercept for each remover, with a ridge
penalty that shrinks it where votes are few. Because these change the order of the candidates, thresholds are chosen on
probabilities whose intercepts were fitted on other scenes (cross-fitting).
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rasura.discriminator.binomial import CONFIDENCE, compute_lower_bound
from rasura.discriminator.evaluation import SingleClassVotes
from rasura.discriminator.scaling import Calibration, fit_isotonic, fit_scaling, parse_calibration
from rasura.manifests.errors import TrainingError

Array = npt.NDArray[Any]

PRECISION_TARGET = 0.9
STEPS = 48
"""Number of thresholds that are tried."""
STARTS = (1.0, 1.5, 2.25)
"""Starts of the sequences, in multiples of the fewest votes that could pass: one no among so few fails."""
FOLDS = 5
"""Parts of the scenes in cross-fitting."""


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
            overall: use the threshold for all removers alike.

        Returns:
            `people` where the remover has no vote, or too few for a threshold of its own; else `keep` or `drop`.
            Candidates of a remover that has enough votes and no threshold that holds are all dropped: they are mostly
            bad.
        """
        limit = self.removers.get(remover or "")
        if limit is not None and overall:
            limit = self.overall
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


def has_rule(folder: Path) -> bool:
    """Return whether a discriminator's folder has a rule."""
    return (folder / FILE).is_file()


def read_rule(folder: Path) -> Rule:
    """Read the rule in a discriminator's folder.

    Raises:
        NotCalibrated: there is none.
    """
    if not has_rule(folder):
        raise NotCalibrated(f"the discriminator in {folder} has no {FILE}: calibrate it on held-out votes first")
    return Rule.from_json(json.loads((folder / FILE).read_text()))


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
    complete: Array | None = None,
) -> Rule:
    """Fit calibration and thresholds to held-out votes.

    Thresholds are chosen by the candidates' order. Where the votes decide on the order too, through offsets of removers
    or the ties of an isotonic calibration, the probabilities that choose them come from other scenes' votes.

    Args:
        logits, votes, weights: (n,); votes are shares of yes.
        removers: name of each candidate's remover.
        scenes: of each candidate; then only each scene's best candidate counts for thresholds, as in a loop that
            keeps one of several. None: all count.
        complete: (n,) bool, False for candidates of scenes whose other candidates were asked or not depending on votes:
            they calibrate with their weights, and choose no threshold. None: all are complete.

    Raises:
        SingleClassVotes: all votes are the same.
        ValueError: logits are not finite, or lengths differ.
    """
    logits, votes = np.asarray(logits, float), np.asarray(votes, float)
    if not len(logits) == len(votes) == len(removers):
        raise ValueError(f"{len(logits)} logits, {len(votes)} votes and {len(removers)} removers")
    names = np.asarray(removers, str)
    weights = np.ones_like(votes) if weights is None else np.asarray(weights, float)
    groups = list(scenes) if scenes is not None else [str(k) for k in range(len(logits))]

    def fit(chosen: Array) -> Calibration:
        part = logits[chosen], votes[chosen], weights[chosen]
        if method == "isotonic":
            return fit_isotonic(*part)
        return fit_scaling(*part, method == "scaling", names[chosen].tolist() if method == "scaling" else None)

    if method == "isotonic":  # its steps are ties by the votes: half of the scenes calibrate, the others choose
        first = _assign_folds(groups, 2) == 0
        mapping, rest = fit(first), np.flatnonzero(~first)
        probabilities = mapping(logits, removers)
    else:
        mapping, rest = fit(np.ones(len(logits), bool)), np.arange(len(logits))
        probabilities = mapping(logits, removers)
        if method == "scaling":
            probabilities = _predict_other_folds(fit, logits, names, _assign_folds(groups, FOLDS), probabilities)
    if complete is not None:
        rest = rest[np.asarray(complete, bool)[rest]]
    if scenes is not None:
        rest = rest[pick_best_of_scenes(probabilities[rest], [groups[k] for k in rest])]
    by_remover = {
        str(name): find_threshold(probabilities[indices], votes[indices], precision_target, confidence)
        for name in sorted(set(removers))
        for indices in [rest[names[rest] == name]]
    }
    overall = find_threshold(probabilities[rest], votes[rest], precision_target, confidence)
    return Rule(mapping, precision_target, confidence, overall, by_remover, scenes is not None)


def _assign_folds(scenes: Sequence[str], count: int) -> Array:
    """Return the fold (n,) of each candidate, the same for all of a scene."""
    order = {scene: k for k, scene in enumerate(sorted(set(scenes)))}
    return np.array([order[scene] % count for scene in scenes])


def _predict_other_folds(
    fit: Callable[[Array], Calibration], logits: Array, removers: Array, folds: Array, default: Array
) -> Array:
    """Return probabilities (n,) of each fold by the calibration of the others; `default` where these cannot be fitted.

    Args:
        fit: from the candidates that may be used, (n,) bool, to their calibration.
    """
    probabilities = default.copy()
    for fold in np.unique(folds):
        part = folds == fold
        try:
            probabilities[part] = fit(~part)(logits[part], removers[part])
        except SingleClassVotes:
            continue
    return probabilities
