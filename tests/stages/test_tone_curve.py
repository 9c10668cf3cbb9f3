"""A camera's tone curve is taken off; what an object does to the light is no curve and no gain."""

import cv2
import numpy as np
import pytest
from support.pair_scenes import capture, make_floor

from rasura.stages.pair import Pair, PairParams

LEVELS = np.arange(256.0)


def _make_room(seed):
    """Make a floor with stripes from dark to bright, so that all levels occur, and a disc that stands on it."""
    floor = make_floor(seed=seed)
    stripes = np.linspace(0.25, 1.5, 8)[np.arange(floor.shape[1]) * 40 // floor.shape[1] * 3 % 8]
    clean = np.clip(floor * stripes[None, :, None], 3, 245)
    source = clean.copy()
    cv2.circle(source, (200, 160), 40, (60, 120, 200), -1)
    return source, clean


def _run(source, clean, **params):
    (row,) = Pair(PairParams(**params)).process_one({"id": "p", "input": source, "gt": clean}).records
    return row


@pytest.mark.parametrize("bend", [np.sin(np.pi * LEVELS / 255), np.sin(2 * np.pi * LEVELS / 255)], ids=["lift", "s"])
@pytest.mark.parametrize("seed", [201, 202])
def test_a_tone_curve_is_taken_off(bend, seed):
    rng, (source, clean) = np.random.default_rng(seed), _make_room(seed)
    curve = np.stack([6 * bend, 5 * bend, -5 * bend], axis=1)
    shot = capture(clean, rng, 1.0)
    bent = np.clip(np.rint(shot + np.stack([curve[shot[..., k], k] for k in range(3)], -1)), 0, 255).astype(np.uint8)
    row, plain = (_run(capture(source, rng, 1.0), bent, match_tone=tone) for tone in (True, False))
    left, before = (np.abs(cv2.blur(out["gt"] - clean.astype(np.float32), (9, 9))).mean() for out in (row, plain))
    assert row["pair_tone"] > 2
    assert plain["pair_tone"] == 0
    assert left < 0.8
    assert left < 0.5 * before


@pytest.mark.parametrize("gain", [1.0, 0.93, 1.08])
@pytest.mark.parametrize("seed", [203, 204])
def test_a_gain_and_noise_are_no_curve(gain, seed):
    rng, (source, clean) = np.random.default_rng(seed), _make_room(seed)
    row = _run(capture(source, rng, 2.0), capture(np.clip(clean / gain, 0, 255), rng, 2.0))
    assert row["pair_tone"] == 0
    np.testing.assert_allclose(row["pair_gain"], gain, atol=0.006)


@pytest.mark.parametrize("strength", [0.03, 0.06])
def test_light_kept_off_a_whole_room_is_no_gain(strength):
    """What an object takes from all of a room is most near it, less on the wall, and fades: gt stays as it is."""
    rng, (source, clean) = np.random.default_rng(205), _make_room(205)
    rows, columns = np.indices(clean.shape[:2])
    fading = 1 / (1 + (np.hypot(rows - 160, columns - 200) / 110) ** 2) * np.where(rows < 70, 0.3, 1)
    row = _run(capture(source * (1 - strength * fading)[..., None], rng, 0.5), capture(clean, rng, 0.5))
    assert row["pair_gain"] == [1.0, 1.0, 1.0]
    assert row["pair_tone"] == 0


def test_a_drift_that_differs_between_places_is_no_gain():
    """A gain by the brighter part of a picture would be wrong in all others."""
    rng, (source, clean) = np.random.default_rng(206), _make_room(206)
    slope = np.linspace(-0.015, 0.02, clean.shape[0])[:, None, None]
    row = _run(capture(np.clip(source * (1 + slope), 0, 255), rng, 0.5), capture(clean, rng, 0.5))
    assert row["pair_gain"] == [1.0, 1.0, 1.0]
