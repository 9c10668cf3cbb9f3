"""Spot check of an automatic round: some tens of votes certify the precision of what the round keeps.

The candidates are ranked, best first, before anybody votes. Their prefixes (the best 2 %, 4 %, ... of them) are fixed
then, and so is one random number for each candidate. The sample of a prefix is its candidates in the order of these
numbers: uniform without replacement, and a vote serves all prefixes that have its candidate.

Within a prefix the votes are evidence about K, its number of candidates that would get a yes. A bet against a value of
K pays, vote by vote, the likelihood of the votes under a mixture of larger values over that under K. If K is true, the
bet multiplies its stake by 1 / (1 - confidence) at any time with a probability of at most 1 - confidence (Ville), so
that one may look after every vote (Waudby-Smith and Ramdas, "Confidence sequences for sampling without replacement",
NeurIPS 2020, arXiv 2010.09686). Rejections are not kept: a prefix is certified once K is shown to be at least the
precision target's share of the prefix without the rejections among its votes. Then the next prefix is tested with what
it shares of the votes, until the votes are used up.

What is kept of the largest certified prefix are its candidates without a vote; and each candidate with a yes is kept.
The certificate of one prefix is wrong with a probability of at most 1 - confidence. For the sequence of prefixes this
follows from the fixed order as long as rejections are few (fixed-sequence testing); in general it was simulated, on
populations made to break it (`python -m benchmarks spot_check`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from rasura.manifests.ids import compute_seed

Array = npt.NDArray[Any]

PREFIXES = 50
"""Number of prefixes, in equal steps up to all candidates."""
PRIOR = 8
"""The mixture's weights are those of a beta-binomial distribution (PRIOR, 1): most of a prefix is yes."""
PAGE = 10
"""Votes that people are asked for at a time."""


@dataclass(frozen=True)
class SpotCheck:
    """The state of a spot check.

    certified: size of the largest certified prefix.
    least_yes: number of its candidates that would get a yes, at least, at the confidence.
    voted: items whose votes were used, in the order of use.
    waiting: items whose votes are needed next; empty when the check is complete.
    kept: items that are kept, as of now.
    """

    certified: int
    least_yes: int
    voted: Sequence[str]
    waiting: Sequence[str]
    kept: Sequence[str]


def list_prefix_sizes(count: int, steps: int = PREFIXES) -> list[int]:
    """List the sizes of the prefixes of so many candidates.

    Examples:
        >>> list_prefix_sizes(500)[:3], list_prefix_sizes(3)
        ([10, 20, 30], [1, 2, 3])
    """
    return sorted({-(-count * step // steps) for step in range(1, steps + 1)} - {0})


def compute_least_yes(size: int, sampled: int, yes: int, confidence: float) -> int:
    """Compute a lower bound on the number of yes in a population, from a uniform sample without replacement.

    It holds at all sample sizes together with a probability of at least `confidence`.

    Args:
        size: of the population.
        sampled, yes: votes, and those of them that are yes.

    Raises:
        ValueError: the numbers contradict each other.

    Examples:
        >>> [compute_least_yes(100, *votes, 0.9) for votes in ((20, 20), (100, 83), (0, 0))]
        [87, 83, 0]
    """
    if not 0 <= yes <= sampled <= size:
        raise ValueError(f"{yes} yes of {sampled} votes in a population of {size}")
    return _compute_least_yes(size, sampled, yes, confidence)


@lru_cache(maxsize=4096)
def _compute_least_yes(size: int, sampled: int, yes: int, confidence: float) -> int:
    factorials = _compute_log_factorials(size + PRIOR)
    possible = np.arange(yes, size - sampled + yes + 1)  # values of K that the votes leave
    likelihood = _choose(factorials, size - sampled, possible - yes) - _choose(
        factorials, size, possible
    )  # of one order of the votes, up to a constant
    total = np.arange(size + 1)
    weight = factorials[total + PRIOR - 1] - factorials[total]
    # there is no bet against the largest value that is left: no larger one explains the votes
    payoff = _sum_after(weight[possible] + likelihood)[:-1] - likelihood[:-1]
    wealth = payoff - _sum_after(weight)[possible[:-1]]
    refuted = np.append(wealth >= -np.log1p(-confidence), False)
    return int(possible[np.argmin(refuted)])


def _compute_log_factorials(largest: int) -> Array:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, largest + 1)))])


def _choose(factorials: Array, count: int, chosen: Array) -> Array:
    return np.asarray(factorials[count] - factorials[chosen] - factorials[count - chosen])


def _sum_after(logarithms: Array) -> Array:
    """Return for each place the logarithm of the sum over the later places, -inf at the last."""
    sums = np.logaddexp.accumulate(logarithms[::-1])[::-1]
    return np.append(sums[1:], -np.inf)


def run_spot_check(
    items: Sequence[str],
    votes: Mapping[str, bool],
    budget: int,
    precision_target: float,
    confidence: float,
    seed: int = 0,
    page: int = PAGE,
) -> SpotCheck:
    """Evaluate the votes of a spot check so far, and list the items whose votes are needed next.

    The result depends on nothing but the arguments: the same check is continued whenever there are more votes.

    Args:
        items: ranked, best first; the same in every call of one check.
        votes: so far, True for a yes. Anything that is not a yes is False.
        budget: number of votes, at most, those so far included.
        precision_target: share of yes among what is kept.
        seed: of the random numbers that order the samples.
        page: number of items that are listed next, at most. After the first, they are the ones that would follow if
            all votes were yes; votes on them are never wasted, but some may come before they are needed.

    Raises:
        ValueError: an item is there twice.

    Examples:
        All of the first candidates are good: the votes certify most of them.

        >>> items = [f"item {k}" for k in range(100)]
        >>> votes = {}
        >>> while (check := run_spot_check(items, votes, 30, precision_target=0.8, confidence=0.9)).waiting:
        ...     votes |= {item: items.index(item) < 50 for item in check.waiting}
        >>> len(votes), check.certified >= 40, all(votes[item] for item in check.kept if item in votes)
        (30, True, True)
    """
    if len(set(items)) != len(items):
        raise ValueError("an item is in the ranking twice")
    order = sorted(range(len(items)), key=lambda index: compute_seed(seed, "spot check", items[index]))
    given = sum(item in votes for item in items)
    answers: dict[int, bool] = {}  # votes used, and after the first missing one, votes supposed to be yes
    waiting: list[str] = []
    certified = least_yes = 0
    for size in list_prefix_sizes(len(items)):
        sampled = yes = least = 0
        passed = False
        for index in (index for index in order if index < size):
            if index not in answers:
                if items[index] not in votes:
                    if given + len(waiting) >= budget or len(waiting) >= page:
                        break
                    waiting.append(items[index])
                answers[index] = votes.get(items[index], True)
            sampled, yes = sampled + 1, yes + answers[index]
            rejections = sum(not answer for place, answer in answers.items() if place < size)
            least = compute_least_yes(size, sampled, yes, confidence)
            if least >= precision_target * (size - rejections) - 1e-9:
                passed = True
                break
        if not passed:
            break
        if not waiting:
            certified, least_yes = size, least
    voted = [items[index] for index in answers if items[index] in votes]
    return SpotCheck(certified, least_yes, voted, waiting, _list_kept(items, votes, certified))


def _list_kept(items: Sequence[str], votes: Mapping[str, bool], certified: int) -> list[str]:
    return [item for index, item in enumerate(items) if votes.get(item, index < certified)]
