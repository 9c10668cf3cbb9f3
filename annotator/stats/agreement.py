"""How well reviewers agree, and what they say together: pure functions of votes, no database.

A vote here is (item, reviewer, verdict), at most one of a reviewer on an item. Verdicts are names without an order.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rasura.annotator.store.enums import Verdict

Vote = tuple[str, int, str]  # item, reviewer, verdict


def by_item(votes: Iterable[Vote]) -> dict[str, dict[int, str]]:
    """Votes as item -> reviewer -> verdict."""
    items: dict[str, dict[int, str]] = defaultdict(dict)
    for item, reviewer, verdict in votes:
        items[item][reviewer] = verdict
    return dict(items)


def cohen_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's κ of two reviewers' verdicts on the same items.

    κ = (p_o - p_e) / (1 - p_e), p_o the share of equal verdicts, p_e = Σ_v p_1(v) p_2(v) the share that chance gives
    (Cohen 1960).

    Returns:
        -1 to 1; None where there is no pair, or where chance alone gives all (both always say the same one word).
    """
    total = len(pairs)
    if not total:
        return None
    observed = sum(one == other for one, other in pairs) / total
    first, second = Counter(one for one, _ in pairs), Counter(other for _, other in pairs)
    expected = sum(first[verdict] * second[verdict] for verdict in first) / total**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


@dataclass(frozen=True)
class Pair:
    """Two reviewers on the items that both judged."""

    one: int
    other: int
    items: int
    agreed: int
    kappa: float | None


def pairs(votes: Iterable[Vote]) -> list[Pair]:
    """Cohen's κ of every two reviewers who share an item."""
    shared: dict[tuple[int, int], list[tuple[str, str]]] = defaultdict(list)
    for verdicts in by_item(votes).values():
        reviewers = sorted(verdicts)
        for index, one in enumerate(reviewers):
            for other in reviewers[index + 1 :]:
                shared[one, other].append((verdicts[one], verdicts[other]))
    return [
        Pair(one, other, len(both), sum(first == second for first, second in both), cohen_kappa(both))
        for (one, other), both in sorted(shared.items())
    ]


def krippendorff_alpha(votes: Iterable[Vote]) -> float | None:
    """Krippendorff's α over all reviewers and items, nominal, with missing votes.

    α = 1 - D_o / D_e over the coincidence matrix o_vw = Σ_items (pairs of verdicts v, w by different reviewers) /
    (m - 1), m the item's votes; D_o = Σ_{v≠w} o_vw / n, D_e = Σ_{v≠w} n_v n_w / (n (n - 1)) (Krippendorff 2011).
    Items with one vote say nothing.

    Returns:
        At most 1, 0 is chance; None where no two votes can be compared or all say the same one word.
    """
    differing = 0.0
    totals: Counter[str] = Counter()
    for verdicts in by_item(votes).values():
        counts, size = Counter(verdicts.values()), len(verdicts)
        if size < 2:
            continue
        totals.update(counts)
        differing += (size**2 - sum(count**2 for count in counts.values())) / (size - 1)
    n = totals.total()
    chance = n**2 - sum(count**2 for count in totals.values())
    return None if chance == 0 else 1 - (n - 1) * differing / chance


def accuracy_weight(right: int, wrong: int) -> float:
    """Weight of a reviewer's vote from items with a known answer.

    log((right + 1) / (wrong + 1)), not below 0: the log odds of being right, after one imagined answer of each kind and
    so 0 where nothing is known; it is what a vote adds to the log odds of the majority's verdict when reviewers err
    independently.
    """
    return max(0.0, math.log((right + 1) / (wrong + 1)))


@dataclass(frozen=True)
class Consensus:
    """What the votes on an item say together."""

    verdict: str | None  # None: a tie
    share: float  # of the votes' weight that the leading verdict has
    votes: int


def consensus(verdicts: Mapping[int, str], weights: Mapping[int, float] | None = None) -> Consensus:
    """The verdict with the most votes, or with the most weight.

    Args:
        verdicts: reviewer -> verdict.
        weights: reviewer -> weight; all count 1 where None, and where all of these reviewers have none.
    """
    given = {reviewer: weights.get(reviewer, 0.0) if weights else 1.0 for reviewer in verdicts}
    if not any(given.values()):
        given = dict.fromkeys(verdicts, 1.0)
    tally: dict[str, float] = defaultdict(float)
    for reviewer, verdict in verdicts.items():
        tally[verdict] += given[reviewer]
    if not tally:
        return Consensus(None, 0.0, 0)
    ranked = sorted(tally.items(), key=lambda entry: -entry[1])
    total = sum(tally.values())
    tie = len(ranked) > 1 and math.isclose(ranked[0][1], ranked[1][1])
    return Consensus(None if tie else ranked[0][0], ranked[0][1] / total, len(verdicts))


@dataclass(frozen=True)
class Habits:
    """One reviewer's numbers."""

    votes: int
    yes: int
    no: int
    unsure: int
    median_seconds: float | None
    right: int  # of the items with a known answer
    wrong: int

    @property
    def yes_rate(self) -> float | None:
        """Share of yes among yes and no."""
        return self.yes / (self.yes + self.no) if self.yes + self.no else None

    @property
    def accuracy(self) -> float | None:
        """Share of right answers among those that are known; "unsure" is wrong."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else None


def habits(verdicts: Sequence[str], seconds: Sequence[float], known: Sequence[tuple[str, str]]) -> Habits:
    """A reviewer's numbers.

    Args:
        verdicts: on candidates.
        seconds: that each of them took, where known.
        known: (verdict, right answer) on honeypots.
    """
    counts, ordered = Counter(verdicts), sorted(seconds)
    middle = len(ordered) // 2
    median = None
    if ordered:
        median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    right = sum(verdict == answer for verdict, answer in known)
    yes, no, unsure = (counts[verdict] for verdict in Verdict)
    return Habits(len(verdicts), yes, no, unsure, median, right, len(known) - right)
