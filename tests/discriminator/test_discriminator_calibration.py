"""Calibration and evaluation are arithmetic: known values, and the promise under simulation."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from rasura.discriminator import binomial, calibration, evaluation
from rasura.discriminator.calibration import Rule, Threshold, calibrate, find_threshold
from rasura.discriminator.evaluation import SingleClassVotes
from rasura.discriminator.scaling import Isotonic, Scaling, fit_isotonic, fit_scaling, parse_calibration, sigmoid


def votes_of(probabilities, seed=0):
    return (np.random.default_rng(seed).random(len(probabilities)) < probabilities).astype(float)


def apply(mapping, logits):
    return mapping(logits, ["x"] * len(logits))


def test_auc_is_the_share_of_pairs_in_order():
    """By hand: four candidates, one pair of four wrong; ties count half, soft votes in shares; one class is told."""
    assert evaluation.compute_auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == 0.75
    assert evaluation.compute_auc([0.5, 0.5], [0, 1]) == 0.5
    assert evaluation.compute_auc([0.1, 0.9], [0, 1]) == 1
    rng = np.random.default_rng(0)
    scores, votes = rng.random(60).round(1), rng.random(60)
    pairs = [
        (votes[i] * (1 - votes[j]), (scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
        for i in range(60)
        for j in range(60)
    ]
    expected = sum(weight * right for weight, right in pairs) / (votes.sum() * (1 - votes).sum())
    assert evaluation.compute_auc(scores, votes) == pytest.approx(expected)
    with pytest.raises(SingleClassVotes, match="all 3 votes are no"):
        evaluation.compute_auc([0.1, 0.2, 0.3], [0, 0, 0])


def test_calibration_error_by_hand():
    """Two bins: .2 against no yes, .8 against all yes: .2 each."""
    assert evaluation.compute_expected_error([0.2] * 5 + [0.8] * 5, [0] * 5 + [1] * 5, bins=2) == pytest.approx(0.2)
    probabilities = np.linspace(0.01, 0.99, 5000)
    assert evaluation.compute_expected_error(probabilities, votes_of(probabilities)) < 0.03
    assert evaluation.compute_brier([0.5, 1], [1, 1]) == 0.125
    assert [one.size for one in evaluation.compute_reliability([0.1, 0.2, 0.3], [0, 1, 1], bins=2)] == [2, 1]


def test_precision_and_yield():
    """Above .5 of [.2, .6, .7, .9] three quarters are kept, two thirds of them right; above 1 nothing is."""
    point = evaluation.measure_threshold([0.2, 0.6, 0.7, 0.9], [0, 0, 1, 1], 0.5)
    assert (point.kept, point.size, point.precision) == (0.75, 3, pytest.approx(2 / 3))
    assert np.isnan(evaluation.measure_threshold([0.2], [1], 1).precision)
    points = evaluation.compute_curve([0.2, 0.6, 0.7, 0.9], [0, 0, 1, 1], points=5)
    assert [one.kept for one in points] == sorted((one.kept for one in points), reverse=True)
    rates = evaluation.compute_success_rates([0.9, 0.2, 0.8], [1, 0, 0], ["a", "a", "b"])
    assert rates["a"] == (50, 50, 2)
    assert rates["b"] == (0, 100, 1)


@pytest.mark.parametrize(
    ("yes", "count", "low", "high"),
    [(0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0), (5, 10, 0.1871, 0.8129), (81, 263, 0.2527, 0.3676)],
)
def test_clopper_pearson_known_values(yes, count, low, high):
    """Two-sided 95 % intervals as textbooks print them."""
    interval = binomial.compute_interval(yes, count)
    assert interval == (pytest.approx(low, abs=2e-4), pytest.approx(high, abs=2e-4))


def test_bounds_at_the_edge():
    """29 of 29 is the first run that rules out .9 from below at 95 %; 28 of 28 does not."""
    assert binomial.compute_lower_bound(29, 29) > 0.9 > calibration.compute_lower_bound(28, 28)
    assert binomial.compute_lower_bound(0, 5) == 0
    assert binomial.compute_upper_bound(5, 5) == 1
    assert binomial.compute_binomial_tail(2, 3, 0.5) == pytest.approx(0.5)
    assert calibration.count_least_votes() == 39


def test_scaling_finds_the_temperature_and_the_shift():
    """Logits made too sure by a factor of 2.5 and shifted by 1 are brought back; order never changes; soft votes and
    weights count as the same number of single votes."""
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1.5, 8000)
    votes = votes_of(sigmoid(truth), 1)
    logits = 2.5 * (truth - 1)
    scaling = fit_scaling(logits, votes)
    assert scaling.temperature == pytest.approx(2.5, rel=0.1)
    assert scaling.shift == pytest.approx(1, abs=0.1)
    assert evaluation.compute_expected_error(apply(scaling, logits), votes) < 0.02
    assert evaluation.compute_expected_error(sigmoid(logits), votes) > 0.1
    assert (np.diff(apply(scaling, np.linspace(-9, 9, 50))) > 0).all()
    alone = fit_scaling(2.5 * truth, votes, shift=False)
    assert alone.temperature == pytest.approx(2.5, rel=0.1)
    assert alone.shift == 0
    pooled = fit_scaling(np.array([-1.0, 0.7]), np.array([0.25, 0.5]), np.array([4.0, 2.0]))
    single = fit_scaling(np.array([-1.0] * 4 + [0.7] * 2), np.array([1, 0, 0, 0, 1, 0]))
    assert pooled.temperature == pytest.approx(single.temperature, rel=1e-4)
    with pytest.raises(SingleClassVotes):
        fit_scaling(logits, np.ones_like(votes))
    with pytest.raises(ValueError, match="not finite"):
        fit_scaling(np.array([np.nan, 0.1]), np.array([0, 1]))


def test_scores_that_say_the_opposite_say_nothing():
    """Where high logits go with no, the order is not turned round: everybody gets the base rate."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 2000)
    scaling = fit_scaling(logits, votes_of(sigmoid(-logits - 1)))
    assert np.ptp(apply(scaling, logits)) < 0.01


def test_softplus_networks_are_calibrated_with_a_shift():
    """RORem's link has its even odds at logit -.43: the shift takes most of the error away, a temperature does not."""
    rng = np.random.default_rng(2)
    logits = rng.normal(-0.43, 1, 8000)
    votes = votes_of(np.clip(np.log1p(np.exp(logits)), 0, 1), 3)
    shifted, alone = (fit_scaling(logits, votes, shift=shift) for shift in (True, False))
    left = [evaluation.compute_expected_error(apply(one, logits), votes) for one in (shifted, alone)]
    assert left[0] < 0.06 < left[1]
    isotonic = fit_isotonic(logits, votes)
    assert evaluation.compute_expected_error(apply(isotonic, logits), votes) < 0.01


def test_isotonic_pools_what_falls():
    """By hand: votes 0, 1, 0, 1 at rising scores become 0, .5, .5, 1; equal scores are one; outside it is flat."""
    isotonic = fit_isotonic(np.array([1.0, 2, 3, 4]), np.array([0, 1, 0, 1]))
    assert apply(isotonic, np.array([1, 2, 3, 4])).tolist() == [0, 0.5, 0.5, 1]
    assert apply(isotonic, np.array([0, 9])).tolist() == [0, 1]
    tied = fit_isotonic(np.array([1.0, 1, 2]), np.array([0, 1, 1]))
    assert apply(tied, np.array([1, 2])).tolist() == [0.5, 1]


def test_the_promise_holds_under_simulation():
    """On 60 worlds of 400 votes each, what is kept above the chosen threshold breaks the promise in no more of them
    than the confidence allows; a world of coin flips keeps nothing; too few votes keep nothing and say how many are
    needed."""
    broken, chosen = 0, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        probability = sigmoid(rng.normal(0.5, 3, 400))
        choice = find_threshold(probability, votes_of(probability, seed))
        if choice.threshold is None:
            continue
        chosen += 1
        fresh = sigmoid(rng.normal(0.5, 3, 20000))
        broken += fresh[fresh > choice.threshold].mean() < 0.9
        assert choice.low >= 0.9
        assert choice.precision == choice.yes / choice.count
    assert chosen > 30
    assert broken <= 3
    flips = np.random.default_rng(1).random(2000)
    assert find_threshold(flips, votes_of(np.full(2000, 0.5))).threshold is None
    few = find_threshold(np.full(38, 0.99), np.ones(38))
    assert few.threshold is None
    assert few.why == "38 votes, at least 39 are needed"
    assert find_threshold(np.linspace(0.9, 1, 39), np.ones(39)).threshold is not None


def test_the_best_of_several_keeps_the_promise_too():
    """Five candidates a scene, scored with noise, and the best of each kept if it is above the threshold: in no more
    of 20 worlds than the confidence allows is the promise broken among what a fresh world keeps that way."""
    broken, chosen = 0, 0
    for seed in range(20):
        rng = np.random.default_rng(seed)

        def world(count, rng=rng):
            truth = rng.normal(1, 3, count * 5)
            return truth, truth + rng.normal(0, 1, count * 5), [str(k) for k in np.repeat(np.arange(count), 5)]

        truth, logits, scenes = world(500)
        rule = calibrate(logits, votes_of(sigmoid(truth), seed), ["x"] * len(logits), scenes)
        assert rule.picked
        if rule.overall.threshold is None:
            continue
        chosen += 1
        fresh, seen, scenes = world(3000)
        best = calibration.pick_best_of_scenes(seen, scenes)
        assert len(best) == 3000
        kept = best[rule.calibration(seen[best], ["x"] * len(best)) > rule.overall.threshold]
        broken += sigmoid(fresh[kept]).mean() < 0.9
    assert chosen >= 15
    assert broken <= 2


def test_rules_go_to_disk_and_decide_by_remover():
    """A remover that can be trusted has a threshold; one that is known to be bad is dropped; one with too few votes,
    or never seen, goes to people. The rule survives JSON."""
    rng = np.random.default_rng(0)
    good = rng.normal(2, 2, 800)
    scores = np.concatenate([good, rng.normal(0, 1, 800), good[:30]])
    votes = np.concatenate([votes_of(sigmoid(good), 1), votes_of(np.full(800, 0.3), 2), np.ones(30)])
    names = ["good"] * 800 + ["bad"] * 800 + ["new"] * 30
    for method in ("scaling", "temperature", "isotonic"):
        rule = calibrate(scores, votes, names, method=method)
        again = Rule.from_json(json.loads(json.dumps(rule.to_json())))
        assert again == rule
        assert rule.decide(0.999999, "good") == "keep" or method == "isotonic"
        assert rule.decide(0.01, "good") == "drop"
        assert rule.decide(0.999, "bad") == "drop"
        assert rule.decide(0.999, "new") == "people"
        assert rule.decide(0.999, "never seen") == "people"
        assert rule.decide(0.999, None) == "people"
    assert Threshold(None).threshold is None
    assert isinstance(parse_calibration({"kind": "scaling", "temperature": 2, "shift": 0}), Scaling)
    assert isinstance(parse_calibration({"kind": "isotonic", "logits": [0], "probabilities": [1]}), Isotonic)
    with pytest.raises(ValueError, match="2 votes"):
        calibrate(np.ones(3), np.ones(2), ["a"] * 3)


def test_offsets_correct_each_remover_and_are_shrunken_where_votes_are_few():
    """An overrated remover is lowered by what its votes show, one with few votes by less, one without by nothing."""
    rng = np.random.default_rng(11)
    removers = np.repeat(["fair", "overrated", "few"], [2000, 2000, 4])
    logits = rng.normal(0, 1.5, len(removers))
    true = {"fair": 0.0, "overrated": -2.0, "few": -2.0}
    votes = votes_of(sigmoid(logits + np.array([true[name] for name in removers])), 12)
    mapping = fit_scaling(logits, votes, removers=removers.tolist())
    offsets = mapping.offsets
    assert offsets["overrated"] - offsets["fair"] == pytest.approx(-2, abs=0.25)
    assert abs(offsets["few"]) < abs(offsets["overrated"])
    level = mapping(np.zeros(4), ["fair", "overrated", "never seen", None])
    assert level[0] > 0.4
    assert level[1] < 0.2
    assert level[2] == level[3]
    assert parse_calibration(json.loads(json.dumps(asdict(mapping)))) == mapping
    with pytest.raises(ValueError, match="broadcast"):
        mapping(np.zeros(3), ["fair"] * 2)


def test_offsets_keep_the_promise_and_rank_better():
    """Of scenes with two candidates, one by an overrated remover: with offsets more is kept, and it is right."""
    broken, kept, plain = 0, [], []
    for seed in range(20):
        rng = np.random.default_rng([7, seed])
        removers = np.array(["fair", "overrated"] * 600)
        scenes = [str(k // 2) for k in range(len(removers))]
        logits = rng.normal(0.5, 3, len(removers))
        truth = sigmoid(logits - 4.0 * (removers == "overrated"))
        rule = calibrate(logits, votes_of(truth, [8, seed]), removers.tolist(), scenes)
        alone = calibrate(logits, votes_of(truth, [8, seed]), removers.tolist(), scenes, "temperature")
        fresh = rng.normal(0.5, 3, 4000)
        names = np.array(["fair", "overrated"] * 2000)
        chance = sigmoid(fresh - 4.0 * (names == "overrated"))
        for one, shares in ((rule, kept), (alone, plain)):
            scores = one.calibration(fresh, names.tolist())
            best = calibration.pick_best_of_scenes(scores, [str(k // 2) for k in range(4000)])
            limit = one.overall.threshold
            chosen = best[scores[best] > limit] if limit is not None else best[:0]
            shares.append(len(chosen) / len(best))
            broken += one is rule and len(chosen) > 0 and chance[chosen].mean() < 0.9
    assert broken <= 2
    assert np.mean(kept) > 1.3 * np.mean(plain)


def test_candidates_of_incomplete_scenes_choose_no_threshold():
    """Votes of scenes that were asked until the first yes calibrate with their weights, and choose no threshold."""
    rng = np.random.default_rng(3)
    logits = rng.normal(1, 2, 1000)
    votes = votes_of(sigmoid(logits), 4)
    complete = np.arange(1000) < 500
    rule = calibrate(logits, votes, ["x"] * 1000, complete=complete)
    assert rule.overall.count <= 500
    assert rule.overall.threshold is not None
    assert calibrate(logits, votes, ["x"] * 1000, complete=np.zeros(1000, bool)).overall.threshold is None
