"""The arithmetic of agreement and consensus, against published examples and by what must hold for any votes."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasura.annotator.stats.agreement import (
    Consensus,
    compare_reviewers,
    compute_accuracy_weight,
    compute_cohen_kappa,
    compute_krippendorff_alpha,
    find_consensus,
    summarize_reviewer,
)

WORDS = st.sampled_from(["yes", "no", "unsure"])
VOTES = st.dictionaries(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 4)), WORDS, max_size=30)


def votes_of(table: dict[tuple[str, int], str]) -> list[tuple[str, int, str]]:
    return [(item, reviewer, verdict) for (item, reviewer), verdict in table.items()]


def test_cohen_example() -> None:
    """20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no give p_o 0.7, p_e 0.5, κ 0.4; the extremes are 1 and -1; where both
    say one word throughout there is nothing to compare."""
    both = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    assert compute_cohen_kappa(both) == pytest.approx(0.4)
    assert compute_cohen_kappa([("yes", "yes"), ("no", "no")]) == 1
    assert compute_cohen_kappa([("yes", "no"), ("no", "yes")]) == -1
    assert compute_cohen_kappa([]) is None
    assert compute_cohen_kappa([("yes", "yes")] * 5) is None


def test_krippendorff_example() -> None:
    """Krippendorff's own example (2011, section C): four observers, twelve units, missing values, nominal α = 0.743."""
    observers = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
    votes = [
        (f"unit {unit}", who, value)
        for who, values in enumerate(observers)
        for unit, value in enumerate(values)
        if value != "."
    ]
    assert compute_krippendorff_alpha(votes) == pytest.approx(0.743, abs=0.0005)


def alpha_by_pairs(votes: list[tuple[str, int, str]]) -> float | None:
    """α from its definition, pair by pair."""
    items: dict[str, list[str]] = {}
    for item, _, verdict in votes:
        items.setdefault(item, []).append(verdict)
    units = [verdicts for verdicts in items.values() if len(verdicts) > 1]
    n = sum(map(len, units))
    every = [verdict for verdicts in units for verdict in verdicts]
    expected = sum(a != b for i, a in enumerate(every) for j, b in enumerate(every) if i != j) / (n * (n - 1) or 1)
    if not expected:
        return None
    observed = sum(
        sum(a != b for i, a in enumerate(unit) for j, b in enumerate(unit) if i != j) / (len(unit) - 1)
        for unit in units
    )
    return 1 - observed / n / expected


@given(VOTES)
def test_krippendorff_is_its_definition(table: dict[tuple[str, int], str]) -> None:
    """The quick sum gives what counting all pairs gives; the order of votes and the reviewers' names do not matter."""
    votes = votes_of(table)
    alpha = compute_krippendorff_alpha(votes)
    assert alpha == (pytest.approx(alpha_by_pairs(votes)) if alpha is not None else alpha_by_pairs(votes))
    renamed = [(item, 9 - who, verdict) for item, who, verdict in votes]
    random.Random(1).shuffle(renamed)
    other = compute_krippendorff_alpha(renamed)
    assert other == (pytest.approx(alpha) if alpha is not None else None)


@given(VOTES)
def test_pairs_account_for_shared_items(table: dict[tuple[str, int], str]) -> None:
    """Every two reviewers who share items come up once, with as many items as they share; κ stays between its ends."""
    votes = votes_of(table)
    for pair in compare_reviewers(votes):
        shared = {item for item, who, _ in votes if who == pair.first} & {i for i, w, _ in votes if w == pair.second}
        assert pair.items == len(shared) >= pair.agreed
        assert pair.kappa is None or -1 - 1e-9 <= pair.kappa <= 1 + 1e-9


def test_consensus() -> None:
    """The majority; a tie has no verdict; weights decide where they are known, and nobody with a known record is
    outvoted by those who guess."""
    assert find_consensus({1: "yes", 2: "yes", 3: "no"}) == Consensus("yes", pytest.approx(2 / 3), 3)
    assert find_consensus({1: "yes", 2: "no"}).verdict is None
    assert find_consensus({}) == Consensus(None, 0.0, 0)
    good, guess = compute_accuracy_weight(20, 0), compute_accuracy_weight(5, 5)
    assert guess == 0 < good
    assert find_consensus({1: "no", 2: "yes", 3: "yes"}, {1: good, 2: guess, 3: guess}).verdict == "no"
    assert find_consensus({1: "no", 2: "yes", 3: "yes"}, {}).verdict == "yes"
    assert compute_accuracy_weight(0, 30) == 0


def test_habits() -> None:
    """Rates leave "unsure" out, the median is the middle, accuracy counts "unsure" on a known answer as wrong."""
    found = summarize_reviewer(
        ["yes", "yes", "no", "unsure"], [3.0, 1.0, 2.0, 40.0], [("yes", "yes"), ("unsure", "no")]
    )
    assert (found.votes, found.yes, found.no, found.unsure) == (4, 2, 1, 1)
    assert found.yes_rate == pytest.approx(2 / 3)
    assert found.median_seconds == 2.5
    assert found.accuracy == 0.5
    nothing = summarize_reviewer([], [], [])
    assert (nothing.yes_rate, nothing.median_seconds, nothing.accuracy) == (None, None, None)
