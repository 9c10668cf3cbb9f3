"""A spot check certifies what a round keeps: valid on populations made to break it; nothing is lost or kept twice."""

import numpy as np
import pytest

from rasura.discriminator.calibration import Rule, Threshold
from rasura.discriminator.certification import compute_least_yes, list_prefix_sizes, run_spot_check
from rasura.discriminator.scaling import Scaling
from rasura.discriminator.selection import Candidate, select_candidates


def check_round(truth, votes, target, seed):
    """Run a check page by page, as people are asked; return the indices that are kept and the number of votes."""
    items, answers = [str(rank) for rank in range(len(truth))], {}
    while True:
        check = run_spot_check(items, answers, votes, target, 0.9, seed)
        if not check.waiting:
            return [int(item) for item in check.kept], len(answers)
        assert not set(check.waiting) & set(answers)
        answers |= {item: bool(truth[int(item)]) for item in check.waiting}


def test_the_bound_holds_after_every_vote():
    """Looked at after each of 60 votes, the lower bound is above the true number in at most a tenth of the samples."""
    for size, yes in ((80, 60), (200, 178), (400, 300)):
        truth = np.arange(size) < yes
        broken = 0
        for seed in range(400):
            sample = np.random.default_rng([21, size, seed]).permutation(truth)[:60]
            broken += any(compute_least_yes(size, n, int(sample[:n].sum()), 0.9) > yes for n in range(5, 61, 5))
        assert broken / 400 <= 0.1 + 0.03
    assert compute_least_yes(50, 50, 41, 0.9) == 41
    with pytest.raises(ValueError, match="3 yes of 2 votes"):
        compute_least_yes(10, 2, 3, 0.9)


@pytest.mark.parametrize(("target", "rate"), [(0.8, 0.77), (0.8, 0.7), (0.9, 0.87)])
def test_populations_just_below_the_target_are_seldom_kept(target, rate):
    """Where all candidates are alike and a little too bad, what is kept is below the target in under a tenth."""
    broken = 0
    for seed in range(150):
        truth = np.random.default_rng([22, seed]).permutation(np.arange(200) < rate * 200)
        kept, count = check_round(truth, 40, target, seed)
        assert count <= 40
        broken += bool(kept) and truth[kept].mean() < target
    assert broken / 150 <= 0.1


def test_good_rounds_keep_most_of_what_is_right():
    """Of 500 whose best 170 are right at .8, 60 votes keep over a hundred on average, at .9 precision."""
    rank = (np.arange(500) + 0.5) / 500
    rate = np.minimum(1, 1.343 / (1 + np.exp((rank - 0.2684) / 0.2387)))
    sizes, precisions = [], []
    for seed in range(40):
        truth = np.random.default_rng([23, seed]).random(500) < rate
        kept, _ = check_round(truth, 60, 0.8, seed)
        sizes.append(len(kept))
        precisions.append(truth[kept].mean())
    assert np.mean(sizes) > 110
    assert np.mean(precisions) > 0.85
    assert list_prefix_sizes(0) == []
    assert run_spot_check([], {}, 60, 0.8, 0.9).kept == []


def test_votes_decide_what_they_are_about():
    """A voted yes is kept and a voted no is not, wherever they stand; the size of pages does not matter."""
    truth = np.random.default_rng(24).random(120) < 0.85
    items = [str(rank) for rank in range(120)]
    for page in (1, 7, 60):
        answers = {}
        while (check := run_spot_check(items, answers, 60, 0.8, 0.9, 3, page)).waiting:
            assert len(check.waiting) <= page
            answers |= {item: bool(truth[int(item)]) for item in check.waiting}
        kept = set(check.kept)
        assert all((item in kept) == yes for item, yes in answers.items())
        assert check.certified >= 80
    with pytest.raises(ValueError, match="twice"):
        run_spot_check(["a", "a"], {}, 60, 0.8, 0.9)


def make_rule(*removers):
    limit = Threshold(0.8, 95, 100, 0.9)
    return Rule(Scaling(1.0), 0.8, 0.9, limit, dict.fromkeys(removers, limit), True)


def make_round(seed=0, scenes=60):
    rng = np.random.default_rng(seed)
    return [
        Candidate(f"{scene}-{remover}", str(scene), remover, float(rng.random()))
        for scene in range(scenes)
        for remover in ("a", "b", "new")
    ]


@pytest.mark.parametrize("spot_check", [None, 20])
@pytest.mark.parametrize("share", [1.0, 0.6])
def test_every_candidate_has_a_decision_with_a_reason(spot_check, share):
    """All are decided on; of a scene one is kept at most; new removers go to people; the cap of a remover holds."""
    rows = make_round()
    votes = {}
    while True:
        selection = select_candidates(
            rows, make_rule("a", "b"), remover_share=share, spot_check=spot_check, votes=votes, overall=True
        )
        if not selection.waiting:
            break
        votes |= dict.fromkeys(selection.waiting, True)
    assert set(selection.decisions) == {row.id for row in rows}
    assert all(decision.kept or decision.reason for decision in selection.decisions.values())
    kept = [row for row in rows if selection.decisions[row.id].kept]
    assert kept
    assert len({row.scene for row in kept}) == len(kept)
    assert all(selection.decisions[row.id].reason == "left to people" for row in rows if row.remover == "new")
    if spot_check is None:
        assert all(row.probability > 0.8 for row in kept)
        assert max(sum(row.remover == name for row in kept) for name in "ab") <= max(1, share * len(kept))
    assert len(votes) <= (spot_check or 0)
    shuffled = select_candidates(
        rows[::-1], make_rule("a", "b"), remover_share=share, spot_check=spot_check, votes=votes, overall=True
    )
    assert shuffled.decisions == selection.decisions


def test_what_cannot_be_right_is_refused():
    """An id twice, or a probability that is none, is an error and no decision."""
    rows = make_round(scenes=2)
    with pytest.raises(ValueError, match="twice"):
        select_candidates([rows[0], rows[0]], make_rule("a"))
    for bad in (float("nan"), 1.2):
        with pytest.raises(ValueError, match="probability"):
            select_candidates([rows[0]._replace(probability=bad)], make_rule("a"))
    assert select_candidates([], make_rule("a"), spot_check=20).decisions == {}
