"""The arithmetic of layers: the shadow's alpha, the light that was added, putting them back."""

import cv2
import numpy as np
import pytest
from support.pair_scenes import capture, make_floor, make_scene

from rasura.networks.metrics.psnr import compute_psnr
from rasura.stages.matting.layers import (
    compose,
    compute_tail_weight,
    estimate_added_light,
    estimate_shadow_alpha,
    measure_light_energy,
    merge_layers,
)

cv2.setNumThreads(1)


def test_alpha_recovers_a_known_shadow():
    """Mean error of the shadow's alpha <= 0.01 and 95 % of it <= 0.03, under noise."""
    for seed in range(3):
        pair = make_scene(seed, noise=1.5)
        calm = ~cv2.dilate(pair.foreground_mask.astype(np.uint8), np.ones((9, 9))).astype(bool)
        effects = pair.foreground_mask & ~pair.object_mask
        alpha = estimate_shadow_alpha(pair.source, pair.clean, effects, calm)
        near = cv2.dilate(pair.object_mask.astype(np.uint8), np.ones((7, 7))) > 0
        error = np.abs(alpha - pair.alpha)[effects & ~near]
        assert error.mean() <= 0.01
        assert np.percentile(error, 95) <= 0.03


def test_grain_is_not_carried_along():
    """In an even shadow the alpha's own noise is at most a third of the noise that the pixels had."""
    rng = np.random.default_rng(0)
    background = np.full((160, 200, 3), 120, np.float32)
    where = np.zeros((160, 200), bool)
    where[40:120, 60:150] = True
    shade = np.where(where, 0.7, 1)[..., None]
    source, clean = capture(background * shade, rng, 3), capture(background, rng, 3)
    alpha = estimate_shadow_alpha(
        source, clean, where, ~cv2.dilate(where.astype(np.uint8), np.ones((9, 9))).astype(bool)
    )
    assert alpha[55:105, 75:135].std() < 3 * np.sqrt(2) / 120 / np.sqrt(3) / 3
    assert alpha[55:105, 75:135].mean() == pytest.approx(0.3, abs=0.01)


def test_brightening_is_added_light_and_no_alpha():
    """Where source is 20 levels redder and brighter than gt, alpha is 0 and the light layer holds the 20, to 1 level
    in the mean; noise is not in it where nothing was added."""
    rng = np.random.default_rng(0)
    background = make_floor(160, 200, 1)
    where = np.zeros((160, 200), bool)
    where[30:130, 30:170] = True
    glow = np.zeros((160, 200, 3), np.float32)
    glow[50:110, 60:100] = (20, 6, 0)
    source, clean = capture(background + glow, rng, 1), capture(background, rng, 1)
    calm = ~cv2.dilate(where.astype(np.uint8), np.ones((9, 9))).astype(bool)
    alpha = estimate_shadow_alpha(source, clean, where, calm)
    light = estimate_added_light(source, clean, alpha, where, calm)
    assert alpha[60:100, 65:95].max() <= 0.02
    assert np.abs(light[60:100, 65:95].mean((0, 1)) - (20, 6, 0)).max() < 1
    assert light[60:100, 115:160].mean() < 0.5
    assert not light[~where].any()


def test_a_neutral_shadow_needs_no_light():
    """The additive layer's energy in a purely darkened region is below 1 % of the darkening's."""
    for seed in range(2):
        pair = make_scene(seed, noise=2)
        effects = pair.foreground_mask & ~cv2.dilate(pair.object_mask.astype(np.uint8), np.ones((9, 9))).astype(bool)
        calm = ~cv2.dilate(pair.foreground_mask.astype(np.uint8), np.ones((9, 9))).astype(bool)
        alpha = estimate_shadow_alpha(pair.source, pair.clean, effects, calm)
        light = np.rint(estimate_added_light(pair.source, pair.clean, alpha, effects, calm)).astype(np.uint8)
        assert measure_light_energy(light, pair.source, pair.clean, effects) < 0.01


def test_light_energy_is_the_share_of_the_darkening():
    """A layer of 5 levels in a shadow of 50 has 1 % of its energy; light where the pair brightened counts nothing."""
    clean = np.full((60, 80, 3), 150, np.uint8)
    source, light, effects = clean.copy(), np.zeros_like(clean), np.ones((60, 80), bool)
    source[20:40, 20:40] -= 50
    light[20:40, 20:40] = 5
    effects[:] = False
    effects[22:38, 22:38] = True
    assert measure_light_energy(light, source, clean, effects) == pytest.approx(0.01, rel=0.02)
    source[:, 60:] += 30
    light[:, 60:] = 30
    effects[:, 60:] = True
    assert measure_light_energy(light, source, clean, effects) == pytest.approx(0.01, rel=0.1)
    assert measure_light_energy(light, clean, clean, effects) == 0


def test_a_faint_tail_runs_out_beyond_the_mask():
    """The weight is 1 on M_fg and falls to 0 within the width outside it; what is strong out there is no tail."""
    where = np.zeros((80, 120), bool)
    where[20:60, 20:60] = True
    alpha = np.full(where.shape, 0.02, np.float32)
    alpha[:, 66:70] = 0.3
    weight = compute_tail_weight(alpha, where, 10)
    assert (weight[where] == 1).all()
    assert (np.diff(weight[40, 59:66]) < 0).all()
    assert not weight[:, 66:70].any()
    assert not weight[:, 72:].any()
    assert (compute_tail_weight(alpha, where, 0) == where).all()


def test_stacked_is_object_over_shadow():
    """Over any background the one layer gives what object over shadow gives, to one level and a half."""
    rng = np.random.default_rng(0)
    coverage = rng.random((30, 40)).astype(np.float32)
    coverage[:5], coverage[5:10] = 0, 1
    shade = (0.6 * rng.random((30, 40))).astype(np.float32)
    colour = rng.uniform(0, 255, (30, 40, 3)).astype(np.float32)
    layer = merge_layers(coverage, colour, shade)
    assert (layer[5:10, :, 3] == 255).all()
    assert not layer[:5, :, :3].any()
    for background in (rng.integers(0, 256, (30, 40, 3), np.uint8), np.full((30, 40, 3), 255, np.uint8)):
        truth = coverage[..., None] * colour + ((1 - coverage) * (1 - shade))[..., None] * background
        assert np.abs(compose(layer, None, background) - truth).max() <= 1.5


def test_compose_adds_light_and_stops_at_white():
    """α F + (1 − α) B + L, rounded; never beyond 255."""
    background = np.full((4, 4, 3), 200, np.uint8)
    layer = np.zeros((4, 4, 4), np.uint8)
    layer[..., 3] = 51
    light = np.zeros((4, 4, 3), np.uint8)
    light[..., 0], light[..., 1] = 10, 250
    assert (compose(layer, light, background) == (170, 255, 160)).all()
    assert (compose(layer, None, background) == 160).all()


def test_compose_clips_at_the_border():
    """A foreground that hangs over the border is cut; one that lies outside changes nothing; background is kept."""
    background = np.full((20, 30, 3), 50, np.uint8)
    background.flags.writeable = False
    layer = np.full((10, 10, 4), 255, np.uint8)
    light = np.full((10, 10, 3), 9, np.uint8)
    assert (compose(layer, light, background, 25, 15)[15:, 25:] == 255).all()
    assert (compose(layer, light, background, -5, -5)[:5, :5] == 255).all()
    assert (compose(layer, light, background, 40, 0) == background).all()
    assert (compose(layer, light, background, -5, -5)[5:, 5:] == 50).all()


def test_psnr():
    """20 log10(255 / error) for an even error; 99 for equality."""
    first = np.zeros((5, 5, 3), np.uint8)
    assert compute_psnr(first, first) == 99
    assert compute_psnr(first, first + np.uint8(2)) == pytest.approx(20 * np.log10(255 / 2))
