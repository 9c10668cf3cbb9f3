"""Agreement and consensus of reviewers: pure functions of votes, no database.

A vote here is (item, reviewer, verdict), at most one of a reviewer on an item. Verdicts are names without an order.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from rasura.annotator.store.enums import Verdict

Vote = tuple[str, int, str]  # item, reviewer, verdict


def group_by_item(votes: Iterable[Vote]) -> dict[str, dict[int, str]]:
    """Group votes as item -> reviewer -> verdict.

    Examples:
        >>> group_by_item([("a", 1, "yes"), ("a", 2, "no")])
        {'a': {1: 'yes', 2: 'no'}}
    """
    items: dict[str, dict[int, str]] = defaultdict(dict)
    for item, reviewer, verdict in votes:
        items[item][reviewer] = verdict
    return dict(items)


def compute_cohen_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Compute Cohen's κ of two reviewers' verdicts on the same items.

    κ = (p_o - p_e) / (1 - p_e), p_o the share of equal verdicts and p_e = Σ_v p_1(v) p_2(v) the share by
    chance.

    Args:
        pairs: verdicts of the first and of the second reviewer on each item.

    Returns:
        -1 to 1; None where there is no pair, or where both always give one and the same verdict.

    Source:
        Cohen 1960, A coefficient of agreement for nominal scales.

    Examples:
        >>> compute_cohen_kappa([("yes", "yes"), ("no", "no"), ("yes", "no"), ("no", "no")])
        0.5
    """
    total = len(pairs)
    if not total:
        return None
    observed = sum(first == second for first, second in pairs) / total
    first_counts, second_counts = Counter(first for first, _ in pairs), Counter(second for _, second in pairs)
    expected = sum(first_counts[verdict] * second_counts[verdict] for verdict in first_counts) / total**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


@dataclass(frozen=True)
class ReviewerPair:
    """The agreement of two reviewers on the items that both judged.

    Attributes:
        first: id of a reviewer.
        second: id of another reviewer.
        items: the number of items that both judged.
        agreed: items on which their verdicts are equal.
        kappa: Cohen's κ.
    """

    first: int
    second: int
    items: int
    agreed: int
    kappa: float | None


def compare_reviewers(votes: Iterable[Vote]) -> list[ReviewerPair]:
    """Compute the agreement of every two reviewers who share an item."""
    shared: dict[tuple[int, int], list[tuple[str, str]]] = defaultdict(list)
    for verdicts in group_by_item(votes).values():
        for first, second in combinations(sorted(verdicts), 2):
            shared[first, second].append((verdicts[first], verdicts[second]))
    return [
        ReviewerPair(
            *reviewers, len(pairs), sum(first == second for first, second in pairs), compute_cohen_kappa(pairs)
        )
        for reviewers, pairs in sorted(shared.items())
    ]


def compute_krippendorff_alpha(votes: Iterable[Vote]) -> float | None:
    """Compute Krippendorff's α over all reviewers and items, nominal, with missing votes.

    α = 1 - D_o / D_e over the coincidence matrix o_vw = Σ_items (pairs of verdicts v, w by different reviewers) /
    (m - 1), m the item's votes; D_o = Σ_{v≠w} o_vw / n, D_e = Σ_{v≠w} n_v n_w / (n (n - 1)).
    Items with one vote do not count.

    Returns:
        At most 1, 0 is chance; None where no two votes can be compared or all verdicts are the same.

    Source:
        Krippendorff 2011, Computing Krippendorff's alpha-reliability.

    Examples:
        >>> round(compute_krippendorff_alpha([("a", 1, "yes"), ("a", 2, "yes"), ("b", 1, "no"), ("b", 2, "no")]), 3)
        1.0
    """
    differing = 0.0
    totals: Counter[str] = Counter()
    for verdicts in group_by_item(votes).values():
        counts, size = Counter(verdicts.values()), len(verdicts)
        if size < 2:
            continue
        totals.update(counts)
        differing += (size**2 - sum(count**2 for count in counts.values())) / (size - 1)
    n = totals.total()
    chance = n**2 - sum(count**2 for count in totals.values())
    return None if chance == 0 else 1 - (n - 1) * differing / chance


def compute_accuracy_weight(right: int, wrong: int) -> float:
    """Compute the weight of a reviewer's vote from the answers on items with a known answer.

    log((right + 1) / (wrong + 1)), not below 0: the log odds of being right with one prior answer of each kind, so that
    it is 0 without answers. A vote adds as much to the log odds of the majority's verdict when reviewers err
    independently.

    Args:
        right: number of right answers.
        wrong: number of wrong answers.

    Examples:
        >>> compute_accuracy_weight(0, 0), compute_accuracy_weight(1, 5)
        (0.0, 0.0)
    """
    return max(0.0, math.log((right + 1) / (wrong + 1)))


@dataclass(frozen=True)
class Consensus:
    """The verdict of all votes on an item.

    Attributes:
        verdict: None for a tie, or without votes.
        share: of the votes' weight that the leading verdict has.
        votes: their number.
    """

    verdict: str | None
    share: float
    votes: int


def find_consensus(verdicts: Mapping[int, str], weights: Mapping[int, float] | None = None) -> Consensus:
    """Find the verdict with the most votes, or with the most weight.

    Args:
        verdicts: reviewer -> verdict.
        weights: reviewer -> weight; all are 1 where None, and where none of these reviewers has any.

    Examples:
        >>> find_consensus({1: "yes", 2: "no", 3: "yes"}).verdict
        'yes'
    """
    weight = {reviewer: weights.get(reviewer, 0.0) if weights else 1.0 for reviewer in verdicts}
    if not any(weight.values()):
        weight = dict.fromkeys(verdicts, 1.0)
    tally: dict[str, float] = defaultdict(float)
    for reviewer, verdict in verdicts.items():
        tally[verdict] += weight[reviewer]
    if not tally:
        return Consensus(None, 0.0, 0)
    ranked = sorted(tally.items(), key=lambda entry: -entry[1])
    total = sum(tally.values())
    tie = len(ranked) > 1 and math.isclose(ranked[0][1], ranked[1][1])
    return Consensus(None if tie else ranked[0][0], ranked[0][1] / total, len(verdicts))


@dataclass(frozen=True)
class ReviewerStatistics:
    """A reviewer's statistics.

    Attributes:
        votes: on candidates.
        yes: of them.
        no: of them.
        unsure: of them.
        median_seconds: from the picture to the answer.
        right: answers on honeypots.
        wrong: answers on honeypots; "unsure" is one.
    """

    votes: int
    yes: int
    no: int
    unsure: int
    median_seconds: float | None
    right: int
    wrong: int

    @property
    def yes_rate(self) -> float | None:
        """Share of yes among yes and no."""
        return self.yes / (self.yes + self.no) if self.yes + self.no else None

    @property
    def accuracy(self) -> float | None:
        """Share of right answers on honeypots."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else None


def summarize_reviewer(
    verdicts: Sequence[str], seconds: Sequence[float], answers: Sequence[tuple[str, str]]
) -> ReviewerStatistics:
    """Summarize a reviewer's votes.

    Args:
        verdicts: on candidates.
        seconds: from the picture to the answer, where reported.
        answers: (verdict, right answer) on honeypots.
    """
    counts, ordered = Counter(verdicts), sorted(seconds)
    middle = len(ordered) // 2
    median = None
    if ordered:
        median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    right = sum(verdict == answer for verdict, answer in answers)
    yes, no, unsure = (counts[verdict] for verdict in Verdict)
    return ReviewerStatistics(len(verdicts), yes, no, unsure, median, right, len(answers) - right)
