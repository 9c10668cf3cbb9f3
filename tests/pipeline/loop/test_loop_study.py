"""The study's errors cover what they say, over seeds and scenes together, and its tables show what is done so far."""

import json

import numpy as np
import pytest

from benchmarks.loop_study import ARMS, CURVE, VOTES, Results, compute_error, describe, list_units


def test_the_error_is_that_over_seeds_and_scenes():
    """Means of repeated studies with other seeds and other scenes scatter as the error says; either part alone, which a
    study of one seed or of fixed scenes reports, is too small."""
    rng = np.random.default_rng(31)
    means, errors, scenes_alone = [], [], []
    for _ in range(400):
        of_seeds, of_scenes = rng.normal(0, 3, (4, 1)), rng.normal(0, 40, (1, 300))
        values = 50 + of_seeds + of_scenes + rng.normal(0, 20, (4, 300))
        mean, error = compute_error(values)
        means.append(mean)
        errors.append(error)
        scenes_alone.append(values.mean(axis=0).std(ddof=1) / 300**0.5)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(means), rel=0.1)
    assert np.mean(scenes_alone) < 0.95 * np.std(means)


def test_a_part_of_a_study_has_its_tables(tmp_path):
    """Differences are between arms of the same seeds; what is not there yet is left out; every unit has a file of its
    own, so that an interrupted study goes on."""
    results = Results(tmp_path, seeds=4)
    units = list(list_units(4))
    assert len({results.locate(unit) for unit in units}) == len(units) == 1 + 4 * (len(ARMS) + len(CURVE) + len(VOTES))
    (tmp_path / "results").mkdir()
    common = {"votes": 2800, "triplets": 390, "true_yes": 380, "psnr": 19.2}
    for name, seed, yes in (("humans", 1, 4), ("humans", 2, 6), ("loop", 1, 6)):
        verdicts = [number < yes for number in range(10)]
        results.locate(("arm", name, seed)).write_text(json.dumps({**common, "yes": verdicts}))
    text = describe(results)
    assert "humans       2,800       390       380       50.0 ± " in text
    assert "loop - humans: +20.0 ± 13.3 points of success, 1 seeds" in text
    assert "best_first - humans" not in text
