"""What joins the training set: one function decides about all candidates of a round, and gives each a reason."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from rasura.discriminator import calibration
from rasura.discriminator.calibration import Rule
from rasura.manifests.ids import compute_seed

NOT_BEST = "not the scene's best"
LEFT_TO_PEOPLE = "left to people"
FAILED_CHECK = "the discriminator failed its check"
NO_DISCRIMINATOR = "no discriminator"


@dataclass(frozen=True)
class Candidate:
    """A candidate of a round as it is decided about.

    score: the discriminator's; None where it has none. votes: verdict to the number of reviewers who gave it.
    """

    id: str
    scene: str
    remover: str
    score: float | None = None
    votes: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Decision:
    """What was decided about a candidate.

    reason: why it was not kept, a short phrase; empty where it was. verdict: of the reviewers, where they were asked.
    """

    kept: bool
    reason: str = ""
    detail: str = ""
    verdict: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the decision as `decisions.json` has it."""
        return asdict(self)


KEPT = Decision(True)
Decisions = Mapping[str, Decision]
Basis = Literal["votes", "score", "nothing"]
"""What decides: people's votes, the discriminator's score at the precision target, or nothing (all are kept)."""


def decide(
    candidates: Sequence[Candidate], basis: Basis, seed: int, rule: Rule | None = None, overall: bool = False
) -> Decisions:
    """Decide about every candidate of a round; of a scene at most one is kept.

    Args:
        seed: for the order of equally good candidates.
        rule: the discriminator's, for decisions by score; None where there is no discriminator.
        overall: use the discriminator's threshold for all removers alike.

    Returns:
        The decisions by the candidates' ids, one for each.

    Examples:
        >>> votes = [Candidate("a.x", "a", "x", votes={"yes": 2}), Candidate("a.y", "a", "y", votes={"no": 1})]
        >>> {id: decision.reason for id, decision in decide(votes, "votes", 0).items()}
        {'a.x': '', 'a.y': 'rejected by votes'}
    """
    decisions = _DECIDERS[basis](candidates, rule, overall)
    values = {candidate.id: _compute_value(candidate, basis) for candidate in candidates}
    return decisions | _keep_one_a_scene(candidates, decisions, values, seed)


def _compute_value(candidate: Candidate, basis: Basis) -> float:
    """Return what the candidates of a scene are ordered by: share of yes, or score."""
    if basis == "votes":
        votes = candidate.votes or {}
        return votes.get("yes", 0) / max(1, sum(votes.values()))
    return candidate.score or 0.0 if basis == "score" else 0.0


def _keep_one_a_scene(
    candidates: Sequence[Candidate], decisions: Decisions, values: Mapping[str, float], seed: int
) -> dict[str, Decision]:
    """Return decisions against all but the best of a scene's kept candidates."""
    scenes: dict[str, list[str]] = defaultdict(list)
    for candidate in candidates:
        if decisions[candidate.id].kept:
            scenes[candidate.scene].append(candidate.id)
    others: dict[str, Decision] = {}
    for ids in scenes.values():
        best, *rest = sorted(ids, key=lambda id: (-values[id], compute_seed(seed, "keep", id)))
        for id in rest:
            others[id] = Decision(False, NOT_BEST, f"{best} is kept", decisions[id].verdict)
    return others


def find_verdict(votes: Mapping[str, int]) -> str | None:
    """Return the verdict of most votes, yes or no; None where there are as many of one as of the other.

    Examples:
        >>> find_verdict({"yes": 2, "no": 1}), find_verdict({"unsure": 1})
        ('yes', None)
    """
    yes, no = votes.get("yes", 0), votes.get("no", 0)
    return None if yes == no else "yes" if yes > no else "no"


def _decide_by_votes(candidates: Sequence[Candidate], rule: Rule | None, overall: bool) -> dict[str, Decision]:
    decisions = {}
    for candidate in candidates:
        votes = candidate.votes or {}
        verdict = find_verdict(votes)
        text = ", ".join(f"{count} {verdict}" for verdict, count in sorted(votes.items()))
        if verdict == "yes":
            decisions[candidate.id] = Decision(True, verdict=verdict)
        elif verdict == "no":
            decisions[candidate.id] = Decision(False, "rejected by votes", text, verdict)
        else:
            decisions[candidate.id] = Decision(False, "votes are even" if votes else "no vote", text)
    return decisions


def _decide_by_score(candidates: Sequence[Candidate], rule: Rule | None, overall: bool) -> dict[str, Decision]:
    if rule is None:
        return {candidate.id: Decision(False, NO_DISCRIMINATOR) for candidate in candidates}
    decisions = {candidate.id: Decision(False, "no score") for candidate in candidates}
    scored = [candidate for candidate in candidates if candidate.score is not None]
    decisions |= {candidate.id: Decision(False, NOT_BEST, f"score {candidate.score:.3f}") for candidate in scored}
    scores, scenes = np.array([candidate.score for candidate in scored], float), [c.scene for c in scored]
    # the precision target was shown to hold for each scene's best candidate, and holds for no other
    for index in calibration.pick_best_of_scenes(scores, scenes) if scored else ():
        candidate, score = scored[index], float(scores[index])
        match rule.decide(score, candidate.remover, overall):
            case "keep":
                decisions[candidate.id] = KEPT
            case "people":
                detail = f"{score:.3f}: too few votes on '{candidate.remover}' for a calibrated threshold"
                decisions[candidate.id] = Decision(False, LEFT_TO_PEOPLE, detail)
            case _:
                decisions[candidate.id] = Decision(False, "score too low", f"{score:.3f}")
    return decisions


def _decide_by_nothing(candidates: Sequence[Candidate], rule: Rule | None, overall: bool) -> dict[str, Decision]:
    return {candidate.id: KEPT for candidate in candidates}


_DECIDERS: Mapping[Basis, Callable[[Sequence[Candidate], Rule | None, bool], dict[str, Decision]]] = {
    "votes": _decide_by_votes,
    "score": _decide_by_score,
    "nothing": _decide_by_nothing,
}
