"""The order of a review that asks the candidates of a scene best first, until one is accepted: pure arithmetic.

A loop keeps one candidate of a scene, so that after the first yes the others need no vote. Rates of yes over the votes
would then be biased: candidates after a yes are missing. Therefore a random share of the scenes is asked completely,
and each vote has its inclusion probability: 1 for a candidate that is asked in any case; the share of complete scenes
for one after a yes, and for one that the discriminator holds for hopeless. Weighted by the inverse, the votes estimate
totals without bias (Horvitz and Thompson 1952).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rasura.annotator.store.policy import draw_uniform


class Asked(NamedTuple):
    """A candidate that a review asks about.

    probability: of its inclusion, given the answers about its scene. complete: its scene is asked completely.
    """

    probability: float
    complete: bool


def is_complete_scene(scene: str, share: float, seed: int) -> bool:
    """Return whether a scene is asked completely; that does not depend on any answer."""
    return draw_uniform(seed, "complete scene", scene) < share


def order_candidates(ids: Sequence[str], scores: Mapping[str, float | None], seed: int) -> list[str]:
    """Order a scene's candidates by falling score; those without one come last, in random order.

    Examples:
        >>> order_candidates(["a", "b", "c"], {"a": 0.2, "b": 0.9}, seed=0)
        ['b', 'a', 'c']
    """

    def key(id: str) -> tuple[bool, float, float]:
        score = scores.get(id)
        return score is None, -(score or 0.0), draw_uniform(seed, id)

    return sorted(ids, key=key)


def count_likely(order: Sequence[str], scores: Mapping[str, float | None], floor: float) -> int:
    """Count the candidates at the head of an order whose score is not below a floor, or that have none.

    Examples:
        >>> count_likely(["a", "b", "c"], {"a": 0.9, "b": 0.004}, floor=0.01)
        1
    """
    likely = 0
    for id in order:
        score = scores.get(id)
        if score is not None and score < floor:
            break
        likely += 1
    return likely


def list_asked(
    order: Sequence[str], likely: int, accepted: Mapping[str, bool], complete: bool, share: float
) -> dict[str, Asked]:
    """List the candidates of a scene that are asked or have been, with their inclusion probabilities.

    Args:
        order: of the scene's candidates.
        likely: number of them, from the first, that are asked until a yes.
        accepted: answers so far; True for a yes, False for a no. A candidate without an answer ends the list, unless
            the scene is complete.
        complete: the scene is asked completely.
        share: of the complete scenes.

    Examples:
        >>> list(list_asked(["a", "b", "c"], 3, {"a": False, "b": True}, complete=False, share=0.1))
        ['a', 'b']
        >>> list_asked(["a", "b"], 2, {"a": True, "b": False}, complete=True, share=0.1)["b"]
        Asked(probability=0.1, complete=True)
        >>> list(list_asked(["a", "b"], 2, {}, complete=False, share=0.1))
        ['a']
    """
    asked: dict[str, Asked] = {}
    is_needed = True
    for rank, id in enumerate(order):
        is_needed = is_needed and rank < likely
        if not is_needed and not complete:
            break
        asked[id] = Asked(1.0 if is_needed else share, complete)
        if id not in accepted and not complete:
            break
        is_needed = is_needed and not accepted.get(id, False)
    return asked


def estimate_rate(votes: Sequence[tuple[bool, float]], count: int) -> float:
    """Estimate the share of yes among all candidates, asked or not.

    Args:
        votes: answer and inclusion probability of each vote.
        count: of all candidates.

    Raises:
        ValueError: a candidate could not have been included, or there are none.

    Examples:
        >>> estimate_rate([(True, 1.0), (True, 0.5), (False, 1.0)], count=6)
        0.5
    """
    if count < 1 or any(probability <= 0 for _, probability in votes):
        raise ValueError(f"{count} candidates, and inclusion probabilities that must be above 0")
    return sum(yes / probability for yes, probability in votes) / count
