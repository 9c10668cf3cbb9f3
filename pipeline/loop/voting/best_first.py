"""Human rounds that ask the candidates of a scene best first: who is asked, and how probable that was.

The arithmetic is that of the review (`annotator.store.best_first`), on scores and votes that are in the round's folder,
so that a loop counts votes from anywhere as the review does.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from rasura.annotator.store.best_first import (
    Asked,
    count_likely,
    estimate_rate,
    is_complete_scene,
    list_asked,
    order_candidates,
)
from rasura.annotator.store.enums import Verdict
from rasura.annotator.store.policy import find_majority
from rasura.pipeline.loop.recipe import RoundSettings

if TYPE_CHECKING:
    from rasura.annotator.exchange.vote_rows import VoteRow

Tallies = Mapping[str, Counter[str]]
"""Counts of verdicts by item."""


@dataclass(frozen=True)
class SceneTurns:
    """The candidates of a scene in the order in which they are asked, by the ids of their items.

    likely: number of them, from the first, that are asked until a yes. complete: all are asked. share: of the complete
    scenes.
    """

    order: Sequence[str]
    likely: int
    complete: bool
    share: float

    def list_asked(self, answers: Mapping[str, bool]) -> dict[str, Asked]:
        """List the candidates that are asked or have been: all before the first yes, then the one that is next."""
        return list_asked(self.order, self.likely, answers, self.complete, self.share)

    def is_done(self, answers: Mapping[str, bool]) -> bool:
        """Return True after the first yes, or when all were asked; of a complete scene when all have an answer."""
        return all(item in answers for item in self.list_asked(answers))


def plan_turns(
    scenes: Mapping[str, str], scores: Mapping[str, float | None], settings: RoundSettings, seed: int
) -> dict[str, SceneTurns]:
    """Plan the turns of all candidates of a round.

    Args:
        scenes: of the candidates, by item.
        scores: the discriminator's, by item.
        seed: of the order of candidates without a score, and of the scenes that are asked completely.

    Returns:
        The turns by scene.

    Examples:
        >>> settings = RoundSettings(kind="human", count=1, ask="best_first")
        >>> plan_turns({"a": "s", "b": "s"}, {"a": 0.2, "b": 0.6}, settings, 0)["s"].order
        ['b', 'a']
    """
    items: dict[str, list[str]] = defaultdict(list)
    for item, scene in scenes.items():
        items[scene].append(item)
    share, turns = settings.complete_scenes, {}
    for scene, ids in items.items():
        order = order_candidates(ids, scores, seed)
        complete = is_complete_scene(scene, share, seed)
        turns[scene] = SceneTurns(order, count_likely(order, scores, settings.floor), complete, share)
    return turns


def read_answers(tallies: Tallies, votes: int) -> dict[str, bool]:
    """Return the answers to the candidates that have all their votes: True where most of them are yes.

    Examples:
        >>> read_answers({"a": Counter(yes=2), "b": Counter(yes=1, no=1), "c": Counter(no=1)}, 2)
        {'a': True, 'b': False}
    """
    return {
        item: find_majority(list(tally.elements())) == Verdict.YES
        for item, tally in tallies.items()
        if sum(tally.values()) >= votes
    }


def answer_until_yes(turns: Mapping[str, SceneTurns], verdicts: Mapping[str, bool]) -> dict[str, Asked]:
    """Ask in turn, where every answer is available beforehand.

    Args:
        verdicts: by item.

    Returns:
        The candidates that were asked, by item; those without a verdict end the turns of their scene.
    """
    asked: dict[str, Asked] = {}
    for scene in turns.values():
        answers: dict[str, bool] = {}
        while missing := [id for id in scene.list_asked(answers) if id in verdicts and id not in answers]:
            answers[missing[0]] = verdicts[missing[0]]
        asked |= {id: turn for id, turn in scene.list_asked(answers).items() if id in answers}
    return asked


def estimate_yes_rate(turns: Mapping[str, SceneTurns], answers: Mapping[str, bool]) -> float | None:
    """Estimate the share of yes among all candidates, asked or not, of the scenes that are done; None without any."""
    done = [scene for scene in turns.values() if scene.is_done(answers)]
    votes = [(answers[id], turn.probability) for scene in done for id, turn in scene.list_asked(answers).items()]
    return estimate_rate(votes, sum(len(scene.order) for scene in done)) if done else None


def _list_all_asked(turns: Mapping[str, SceneTurns], answers: Mapping[str, bool]) -> dict[str, Asked]:
    return {id: turn for scene in turns.values() for id, turn in scene.list_asked(answers).items()}


def count_unasked(rows: "Sequence[VoteRow]", turns: Mapping[str, SceneTurns], answers: Mapping[str, bool]) -> int:
    """Count the candidates with votes of which none can be learned from: they were not to be asked (`add_inclusion`).

    Examples:
        >>> settings = RoundSettings(kind="human", count=1, ask="best_first", complete_scenes=1e-9)
        >>> turns = plan_turns({"a": "s", "b": "s"}, {"a": 0.2, "b": 0.6}, settings, 0)
        >>> count_unasked([{"item": "a"}, {"item": "b"}], turns, {"a": False, "b": True})
        1
    """
    usable = {row["item"] for row in rows if row.get("inclusion") is not None} | set(_list_all_asked(turns, answers))
    return len(set(answers) - usable)


def add_inclusion(
    rows: "Sequence[VoteRow]", turns: Mapping[str, SceneTurns], answers: Mapping[str, bool]
) -> "list[VoteRow]":
    """Add the inclusion probabilities to votes of files that lack them.

    A vote on a candidate that was not to be asked has no such probability: it is left out, because rates with it would
    be biased. What joins the training set is decided with it all the same.
    """
    asked = _list_all_asked(turns, answers)
    completed: list[VoteRow] = []
    for row in rows:
        turn = asked.get(row["item"])
        if row.get("inclusion") is not None:
            completed.append(row)
        elif turn is not None:
            values: dict[str, Any] = {"inclusion": turn.probability, "complete": turn.complete}
            completed.append(cast("VoteRow", {**row, **values}))
    return completed
