"""Selection of the candidates that an automatic round keeps: at most one a scene, none without evidence.

Rows with scores and votes go in, and a decision on every row comes out. Nothing is read or written here.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from rasura.discriminator.calibration import Rule, pick_best_of_scenes
from rasura.discriminator.certification import run_spot_check

TO_PEOPLE, NOT_BEST, TOO_LOW = "left to people", "not the scene's best", "score too low"
TOO_MANY, VOTED_NO, UNCERTIFIED, UNDECIDED = "too many alike", "voted no", "not certified", "not decided"


class Candidate(NamedTuple):
    """A scored candidate.

    id: of its row or item. probability: calibrated (`Rule.calibration`), of a person's yes.
    """

    id: str
    scene: str
    remover: str | None
    probability: float


class Decision(NamedTuple):
    """Whether a candidate is kept; if not, the reason in few words, and its detail."""

    kept: bool
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Selection:
    """The decisions on a round's candidates.

    decisions: on every candidate, by id.
    waiting: candidates whose votes the spot check needs before it is complete; empty when all is decided.
    voted: candidates whose votes the spot check has used.
    """

    decisions: Mapping[str, Decision]
    waiting: Sequence[str] = ()
    voted: Sequence[str] = ()
    certified: int = 0
    kept: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kept", [id for id, decision in self.decisions.items() if decision.kept])


def select_candidates(
    candidates: Sequence[Candidate],
    rule: Rule,
    *,
    overall: bool = False,
    remover_share: float = 1.0,
    spot_check: int | None = None,
    votes: Mapping[str, bool] | None = None,
    seed: int = 0,
) -> Selection:
    """Select the candidates that an automatic round keeps.

    Candidates of a remover on which nobody has voted are left to people. Of each scene the most probable of the others
    is considered. Without a spot check it is kept above the calibrated threshold; with one, the votes certify how many
    of the best are kept (`certification.run_spot_check`).

    Args:
        rule: calibration and thresholds of the discriminator that scored them.
        overall: use the threshold for all removers alike. Without effect on a spot check.
        remover_share: of what is considered, or kept, at most so much is of one remover.
        spot_check: number of votes; None: there is none.
        votes: so far, by id; True for a yes, False for all else. Votes on other candidates are ignored.
        seed: of the spot check's sample.

    Raises:
        ValueError: an id is there twice, or a probability is not a number.

    Examples:
        >>> from rasura.discriminator.calibration import Threshold
        >>> from rasura.discriminator.scaling import Scaling
        >>> limit = Threshold(0.8, 95, 100, 0.9)
        >>> rule = Rule(Scaling(1.0), 0.9, 0.95, limit, {"telea": limit})
        >>> rows = [("a", "1", "telea", 0.9), ("b", "1", "telea", 0.7), ("c", "2", "telea", 0.5), ("d", "3", "new", 1)]
        >>> selection = select_candidates([Candidate(*row) for row in rows], rule)
        >>> [(id, decision.reason) for id, decision in selection.decisions.items()]
        [('a', ''), ('b', "not the scene's best"), ('c', 'score too low'), ('d', 'left to people')]
    """
    _check(candidates)
    decisions = {candidate.id: Decision(False, NOT_BEST) for candidate in candidates}
    known = [candidate for candidate in candidates if (candidate.remover or "") in rule.removers]
    for candidate in candidates:
        if (candidate.remover or "") not in rule.removers:
            decisions[candidate.id] = Decision(False, TO_PEOPLE, f"nobody has voted on '{candidate.remover}'")
    best = [
        known[k] for k in pick_best_of_scenes(np.array([row.probability for row in known]), [r.scene for r in known])
    ]
    ranked = sorted(best, key=lambda row: (-row.probability, row.id))
    if spot_check is None:
        accepted = []
        for candidate in ranked:
            decisions[candidate.id] = _apply_threshold(candidate, rule, overall)
            if decisions[candidate.id].kept:
                accepted.append(candidate)
        for candidate in _limit_share(accepted, remover_share)[1]:
            decisions[candidate.id] = _describe_too_many(candidate, remover_share)
        return Selection(decisions)
    ranked, surplus = _limit_share(ranked, remover_share)
    for candidate in surplus:
        decisions[candidate.id] = _describe_too_many(candidate, remover_share)
    ids = [candidate.id for candidate in ranked]
    answers = {id: yes for id, yes in (votes or {}).items() if id in set(ids)}
    check = run_spot_check(ids, answers, spot_check, rule.precision_target, rule.confidence, seed)
    kept = set(check.kept)
    for rank, id in enumerate(ids):
        if id in kept:
            decisions[id] = Decision(True)
        elif id in answers:
            decisions[id] = Decision(False, VOTED_NO)
        elif check.waiting:
            decisions[id] = Decision(False, UNDECIDED, "the spot check waits for votes")
        else:
            decisions[id] = Decision(False, UNCERTIFIED, f"rank {rank + 1}; the best {check.certified} are certified")
    return Selection(decisions, check.waiting, check.voted, check.certified)


def _check(candidates: Sequence[Candidate]) -> None:
    twice = [id for id, count in Counter(candidate.id for candidate in candidates).items() if count > 1]
    if twice:
        raise ValueError(f"the candidate {twice[0]} is there twice")
    for candidate in candidates:
        if not 0 <= candidate.probability <= 1:
            raise ValueError(f"the probability of the candidate {candidate.id} is {candidate.probability}")


def _apply_threshold(candidate: Candidate, rule: Rule, overall: bool) -> Decision:
    remover = candidate.remover or ""
    match rule.decide(candidate.probability, remover, overall):
        case "keep":
            return Decision(True)
        case "people":
            return Decision(False, TO_PEOPLE, f"too few votes on '{remover}' for a calibrated threshold")
        case _:
            threshold = (rule.overall if overall else rule.removers[remover]).threshold
            limit = f"at most {threshold:.3f}" if threshold is not None else f"no threshold for '{remover}' holds"
            return Decision(False, TOO_LOW, f"{candidate.probability:.3f}: {limit}")


def _describe_too_many(candidate: Candidate, share: float) -> Decision:
    return Decision(
        False, TOO_MANY, f"at most {share:.0%} may be of one remover, and better ones of '{candidate.remover}' are"
    )


def _limit_share(ranked: Sequence[Candidate], share: float) -> tuple[list[Candidate], list[Candidate]]:
    """Order candidates so that at most a share of each prefix is of one remover, better ones first.

    Returns:
        The candidates in that order, and those for which there is no place.
    """
    if share >= 1:
        return list(ranked), []
    queues: dict[str | None, deque[tuple[int, Candidate]]] = {}
    for rank, candidate in enumerate(ranked):
        queues.setdefault(candidate.remover, deque()).append((rank, candidate))
    counts: Counter[str | None] = Counter()
    ordered: list[Candidate] = []
    while True:
        limit = max(1.0, share * (len(ordered) + 1))
        allowed = [remover for remover, queue in queues.items() if queue and counts[remover] + 1 <= limit]
        if not allowed:
            return ordered, [candidate for queue in queues.values() for _, candidate in queue]
        remover = min(allowed, key=lambda name: queues[name][0][0])
        ordered.append(queues[remover].popleft()[1])
        counts[remover] += 1
