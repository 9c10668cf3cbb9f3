"""Rendering of cut-outs: placements, ground planes, layers, colours, and the camera's noise and compression."""

from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
from support.paste_scenes import FLAT, make_background, make_foreground, make_ground_columns

from rasura.stages.compositing.cutouts import (
    align_shadow_sides,
    find_cut_sides,
    make_cutout,
    mirror_cutout,
    split_layers,
    wrap_degrees,
)
from rasura.stages.compositing.degrade import degrade_triplet
from rasura.stages.compositing.harmonize import (
    ColorStatistics,
    compute_gains,
    denoise,
    estimate_grain,
    match_grain,
    measure_colourfulness,
)
from rasura.stages.compositing.placement import (
    Placement,
    PlacementLimits,
    collide,
    draw_gaussian_placement,
    estimate_frame_scales,
    find_placements,
    measure_overlap,
    summarize_areas,
)
from rasura.stages.compositing.projection import apply_homography, compute_transfer_homography, read_view
from rasura.stages.compositing.rendering import HarmonizeSettings, paint_layers, render_foreground, resize
from rasura.stages.matting.layers import compose

SIZE = (320, 240)
WIDE = PlacementLimits(min_height=0.01, max_height=2, max_upscale=9, max_pitch_difference=90, max_outside=0.0)


def make_placement(x, y, scale=1.0):
    return Placement((x, y), scale, (0, 0, 0, 0), None)


def list_placements(thing, here=None, ground=None, limits=WIDE, seed=0, things=()):
    mask = np.zeros((240, 320), bool) if ground is None else ground
    if ground is None:
        mask[120:] = True
    view = None if here is None else read_view(here, SIZE)
    return find_placements(
        make_cutout(thing), frozenset(), mask, view, FLAT, things, limits, np.random.default_rng(seed)
    )


def test_at_its_own_place_before_its_own_camera_an_object_keeps_its_size():
    """Both floors known, in metres: scale 1 at its own foot; at another place the ratio of the pixels a metre; and
    twice as large where the other camera's focal length is twice as long."""
    cutout = make_ground_columns(20, 1.6, 300)
    thing = make_foreground(at=(150, 130), **cutout)
    view = read_view(cutout, SIZE)
    original = make_cutout(thing)
    placements, _ = list_placements(thing, cutout)
    assert len(placements) > 20
    for placement in placements:
        expected = view.pixels_per_unit(
            placement.contact_point[0] + 0.5, placement.contact_point[1] + 1
        ) / view.pixels_per_unit(*original.photo_contact_point)
        assert placement.scale == pytest.approx(float(expected))
        if placement.contact_point[1] + 1 == original.photo_contact_point[1]:
            assert placement.scale == pytest.approx(1.0)


def test_metres_come_from_the_class_or_the_eye_where_the_photo_has_none():
    """Not metric: a person 60 px high is 1.7 m; metric but three times too large for a person: the class again;
    no class: the camera is at eye's height; nothing at all: the frame."""
    loose, person = make_ground_columns(0.5, 3.0, 300, metric=False), {"label": "person"}
    cutout = make_cutout(make_foreground(height=60, width=20, at=(150, 130), **loose) | person)
    assert cutout.size_rule == "class-size"
    assert 60 / cutout.pixels_per_metre == pytest.approx(1.7, rel=0.1)
    wrong = make_cutout(
        make_foreground(height=60, width=20, at=(150, 130), **make_ground_columns(0.5, 9.0, 300)) | person
    )
    assert wrong.size_rule == "class-size"
    assert wrong.pixels_per_metre == pytest.approx(cutout.pixels_per_metre, rel=0.01)
    right = make_cutout(
        make_foreground(height=60, width=20, at=(150, 130), **make_ground_columns(10, 1.6, 300)), size_trust=9
    )
    assert right.size_rule == "metric"
    unknown = make_cutout(make_foreground(at=(150, 130), **loose))
    assert unknown.size_rule == "camera-height"
    assert unknown.view.height == pytest.approx(1.6)
    assert make_cutout(make_foreground()).size_rule == "frame"
    assert make_cutout(make_foreground()).view is None


def test_a_foot_above_the_horizon_makes_a_plane_wrong():
    """A camera that looks up cannot have seen the object stand on that floor: its plane counts as unknown."""
    assert make_cutout(make_foreground(at=(100, 10), **make_ground_columns(-20))).view is None


def test_size_follows_the_frame_where_no_floor_has_metres():
    """At its own place an object keeps its share of the frame; at twice the pixels per metre it is twice as large."""
    thing = make_cutout(make_foreground(height=20, width=20, shadow=False, at=(40, 130), size=(100, 200)))
    feet = np.array([[100, 300], [100, 200], [100, 90]])
    scales = estimate_frame_scales(feet, thing, (200, 400), (0.0, 1.0, -100.0))
    assert scales == pytest.approx([2.0, 1.0, 0.0], rel=0.01)


def test_places_keep_their_distance_in_pitch_and_stand_on_ground():
    """No place is seen more than the limit steeper or flatter than the object was; bases are on the mask; refused
    positions are counted by reason."""
    thing = make_foreground(at=(150, 130), **make_ground_columns(25, 1.6, 300))
    ground = np.zeros((240, 320), bool)
    ground[130:, 60:200] = True
    placements, rejected = list_placements(
        thing, make_ground_columns(15, 1.6, 300), ground, replace(WIDE, max_pitch_difference=8.0)
    )
    assert placements
    assert all(abs(placement.pitch_difference) <= 8 for placement in placements)
    assert all(ground[placement.contact_point[1], placement.contact_point[0]] for placement in placements)
    assert isinstance(rejected, Counter)
    assert rejected["pitch"] > 0
    assert sum(rejected.values()) + len(placements) == WIDE.tries


def test_objects_do_not_stand_in_each_other():
    """Discs on the floor that overlap by more than a tenth collide; what is unknown does not."""
    assert collide((0.0, 3.0, 0.5), (0.5, 3.0, 0.5))
    assert not collide((0.0, 3.0, 0.5), (1.1, 3.0, 0.5))
    assert not collide(None, (0.0, 3.0, 0.5))


def test_statistics_of_areas():
    """Mean and deviation by label."""
    assert summarize_areas([("a", 0.1), ("a", 0.3), (None, 0.5)]) == {
        "a": (pytest.approx(0.2), pytest.approx(0.1)),
        "": (0.5, 0.0),
    }


def test_gaussian_places_avoid_what_is_there():
    """With a free corner the point is outside the others' boxes and covers at most half of each."""
    thing = make_cutout(make_foreground(shadow=False))
    others = [(60, 40, 140, 200)]
    for seed in range(20):
        placement = draw_gaussian_placement(
            thing, SIZE, others, (0.06, 0.01), PlacementLimits(), np.random.default_rng(seed)
        )
        assert measure_overlap(placement.box, others[0]) <= 0.5


def test_mirroring_twice_changes_nothing():
    """Pixels, foot, base, view and shadow direction; once, the shadow falls the other way."""
    cutout = make_cutout(
        make_foreground(
            shadow_azimuth=30.0, foreground_light=np.zeros((60, 70, 3), np.uint8), **make_ground_columns(roll=5)
        )
    )
    other = mirror_cutout(cutout)
    assert other.shadow_azimuth == 150
    assert other.contact_point[0] == cutout.object_mask.shape[1] - cutout.contact_point[0]
    assert other.photo_contact_point[0] == pytest.approx(320 - cutout.photo_contact_point[0])
    back = mirror_cutout(other)
    assert np.array_equal(back.rgba, cutout.rgba)
    assert (back.contact_point, back.base_columns, back.object_box, back.crop_origin) == (
        cutout.contact_point,
        cutout.base_columns,
        cutout.object_box,
        cutout.crop_origin,
    )
    assert back.view == cutout.view
    assert back.shadow_azimuth == cutout.shadow_azimuth
    assert not back.is_mirrored


def test_only_what_helps_is_mirrored():
    """Against the surest shadow: 170 is mirrored to 10, 40 stays, and so does what has no direction."""
    things = [("a", 0.0, 0.9), ("b", 170.0, 0.5), ("c", 40.0, 0.5), ("d", None, 0.0)]
    cutout = [make_cutout(make_foreground(n, shadow_azimuth=a, shadow_confidence=c)) for n, a, c in things]
    assert [cutout.is_mirrored for cutout in align_shadow_sides(cutout)] == [False, True, False, False]
    assert wrap_degrees(350) == -10


def test_cut_sides_are_those_on_the_frame():
    """Left and bottom here."""
    thing = make_foreground(shadow=False, at=(0, 180), size=(320, 240))
    assert find_cut_sides(thing["foreground_object"], thing["foreground_box"], thing["source_size"]) == {
        "left",
        "bottom",
    }


@pytest.mark.parametrize("filled", [False, True])
def test_taken_apart_and_laid_back_a_cut_out_is_what_it_was(filled):
    """Body over shadow, at its own size and place, gives `layers.compose` of the whole within a level: torn rims,
    shadows under them and light included."""
    rng = np.random.default_rng(1)
    thing = make_foreground()
    rgba = thing["foreground"].copy()
    rgba[:, 28:33, 3] = rng.integers(60, 255, (60, 5))
    rgba[:, 28:33, :3] = rng.integers(1, 255, (60, 5, 3))
    solid = thing["foreground_object"].copy()
    solid[:, 28:] = False
    light = np.zeros((60, 70, 3), np.uint8)
    light[50:, 31:60] = 20
    more = {"foreground": rgba, "foreground_object": solid, "foreground_light": light}
    picture = make_background(seed=5)
    cutout = make_cutout(thing | more | (make_ground_columns(20) if filled else {}))
    colour, alpha, shade, glow = split_layers(cutout, filled)
    assert glow is not None
    back = picture[100:160, 100:170] * (1 - shade[..., None]) + glow
    back = np.clip(back, 0, 255) * (1 - alpha[..., None]) + colour
    expected = compose(rgba, light, picture, 100, 100)[100:160, 100:170]
    assert np.abs(np.clip(back, 0, 255) - expected).max() <= 1.5


def test_a_shadow_lies_where_the_two_floors_say():
    """A dark disc on the floor beside the object, seen by another camera: its middle is where the homography of the
    floors puts it, and its outline is foreshortened as the flatter view asks."""
    source, target = make_ground_columns(35, 2.0, 300), make_ground_columns(15, 1.5, 300)
    thing = make_foreground(shadow=False, height=50, width=20, at=(120, 120))
    rgba = np.zeros((70, 120, 4), np.uint8)
    rgba[:50, :20] = (200, 0, 0, 255)
    disc = cv2.circle(np.zeros((70, 120), np.uint8), (80, 40), 18, 150, -1)
    rgba[..., 3] = np.maximum(rgba[..., 3], disc)
    solid = np.zeros((70, 120), bool)
    solid[:50, :20] = True
    box = {"foreground_box": [120.0, 120.0, 240.0, 190.0], "foreground": rgba, "foreground_object": solid}
    cutout = make_cutout(thing | box | source)
    view = read_view(target, SIZE)
    scale = float(view.pixels_per_unit(100.5, 171) / cutout.pixels_per_metre)
    layer = render_foreground(cutout, make_placement(100, 170, scale), make_background(), view)
    ys, xs = np.nonzero(layer.shadow > 0.3)
    middle = np.array([xs.mean() + layer.shadow_window[0] + 0.5, ys.mean() + layer.shadow_window[1] + 0.5])
    matrix = compute_transfer_homography(cutout.view, cutout.photo_contact_point, view, (100.5, 171))
    ring = np.array([[200.5 + 18 * np.cos(a), 160.5 + 18 * np.sin(a)] for a in np.linspace(0, 2 * np.pi, 60)])
    image = apply_homography(matrix, ring)
    assert np.abs(middle - (image.max(axis=0) + image.min(axis=0)) / 2).max() < 2
    wide, high = np.ptp(xs) + 1, np.ptp(ys) + 1
    assert wide == pytest.approx(np.ptp(image[:, 0]), abs=2.5)
    assert high == pytest.approx(np.ptp(image[:, 1]), abs=2.5)
    assert high / wide < 0.65  # seen from 35 degrees it was round


def test_nothing_near_the_horizon_is_drawn_out():
    """A shadow that reaches its photo's horizon ends before it; the laid one stays in the frame and finite."""
    thing = make_foreground(at=(100, 100), **make_ground_columns(4, 1.6, 300))
    rgba = thing["foreground"].copy()
    rgba[:, 30:, 3] = 120
    view = read_view(make_ground_columns(10, 1.6, 300), SIZE)
    layer = render_foreground(
        make_cutout(thing | {"foreground": rgba}), make_placement(120, 200), make_background(), view
    )
    assert np.isfinite(layer.shadow).all()
    top = layer.shadow_window[1]
    assert view.pixels_per_unit(160, top + 1) > 0


def test_a_shadow_darkens_as_equation_1_says():
    """Black with alpha: (1 - alpha) * background, and never brighter than it."""
    picture = make_background(seed=1)
    layer = render_foreground(make_cutout(make_foreground()), make_placement(100, 150), picture)
    x0, y0, x1, y1 = layer.window
    out = paint_layers(picture, [layer], layer.window)
    shadow = ~layer.object_mask & (layer.shadow > 0)
    assert shadow.any()
    assert np.allclose(out[shadow], picture[y0:y1, x0:x1][shadow] * (1 - 100 / 255), atol=0.01)


@pytest.mark.parametrize("scale", [0.37, 0.8, 1.3])
def test_resizing_makes_no_fringe(scale):
    """What lies under transparent pixels (black here) does not bleed in: a white disc on white stays white."""
    disc = cv2.circle(np.zeros((80, 80), np.uint8), (40, 40), 30, 1, -1).astype(np.float32)
    size = (round(80 * scale), round(80 * scale))
    colour, alpha = resize(np.dstack([disc * 255] * 3), size), resize(disc, size)
    assert (colour + (1 - alpha[..., None]) * 255).min() > 254


def test_exposure_and_white_go_towards_the_background_within_limits():
    """A bright object before a dark picture is dimmed, by no more than the limit; one that is lit alike stays; a
    strength of 0 changes nothing."""
    dark, bright = np.full((64, 64, 3), 60, np.uint8), np.full((50, 3), 220, np.uint8)
    near = dark[:8]
    assert compute_gains(bright, ColorStatistics.measure(dark), near) == pytest.approx([1 / 1.2] * 3, rel=0.01)
    alike = np.full((50, 3), 60, np.uint8)
    assert compute_gains(alike, ColorStatistics.measure(dark), near) == pytest.approx([1, 1, 1], rel=0.01)
    assert compute_gains(bright, ColorStatistics.measure(dark), near, strength=0.0) == pytest.approx([1, 1, 1])
    warm = dark.copy()
    warm[..., 0] += 60
    red, _, blue = compute_gains(np.full((50, 3), 100, np.uint8), ColorStatistics.measure(warm), warm[:8])
    assert red > blue
    assert red / blue <= 1.05 / 0.95 + 1e-6


def test_a_coloured_thing_in_a_black_and_white_photo_is_grey():
    """And only there: in a picture with few colours it keeps its own."""
    grey = np.repeat(np.random.default_rng(0).integers(50, 200, (240, 320, 1)), 3, axis=2).astype(np.uint8)
    few = grey.copy()
    few[:40, :, 0] += 20
    assert measure_colourfulness(grey) == 0
    assert measure_colourfulness(few) == 1
    layer = render_foreground(
        make_cutout(make_foreground(shadow=False)),
        make_placement(100, 150),
        grey,
        settings=HarmonizeSettings(ColorStatistics.measure(grey)),
        rng=_rng(),
    )
    assert np.ptp(layer.colour[20, 15]) < 8  # white balance may still tint a little
    layer = render_foreground(
        make_cutout(make_foreground(shadow=False)),
        make_placement(100, 150),
        few,
        settings=HarmonizeSettings(ColorStatistics.measure(few)),
        rng=_rng(),
    )
    assert np.ptp(layer.colour[20, 15]) > 80


def _rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("sigma", [0.0, 1.5, 4.0])
def test_grain_is_measured_beside_edges_and_slopes(sigma):
    """A ramp with hard edges and known noise: within a quarter and a fifth of a level."""
    ramp = np.linspace(60, 190, 256, dtype=np.float32)[None].repeat(256, 0)
    ramp[:, 100:130] += 40
    noisy = np.clip(ramp[..., None] + _rng().normal(0, sigma, (256, 256, 1)), 0, 255).repeat(3, axis=2)
    assert estimate_grain(np.rint(noisy).astype(np.uint8)) == pytest.approx(sigma, rel=0.25, abs=0.35)


def test_grain_is_brought_to_the_background():
    """Missing noise is added, too much is taken, both up to the limit; alike stays."""
    flat = np.full((64, 64, 3), 120, np.float32)
    opaque = np.ones((64, 64), np.float32)
    added = match_grain(flat, opaque, 0.0, 2.0, 3.0, _rng())
    assert added.std() == pytest.approx(2.0, rel=0.1)
    assert match_grain(flat, opaque, 0.0, 9.0, 3.0, _rng()).std() == pytest.approx(3.0, rel=0.1)
    assert match_grain(flat, opaque, 2.0, 2.1, 3.0, _rng()) is flat
    rough = (flat + _rng().normal(0, 3, flat.shape)).astype(np.float32)
    assert match_grain(rough, opaque, 3.0, 0.5, 3.0, _rng())[8:-8, 8:-8].std() < 1.5
    edge = flat.copy()
    edge[:, 32:] = 220
    assert np.abs(denoise(edge, opaque, 3.0) - edge).max() < 5


@pytest.mark.parametrize(("noise", "quality"), [(3.0, None), (0.0, 80), (3.0, 60)])
def test_noise_and_jpeg_leave_equal_what_was_equal(noise, quality):
    """Outside M_fg to the last bit; inside the object still shows; the pictures really changed."""
    target = make_background(seed=2)
    source = target.copy()
    where = np.zeros((240, 320), bool)
    where[83:141, 101:159] = True
    source[where] = (200, 30, 30)
    a, b = degrade_triplet(source, target, where, noise, quality, _rng())
    assert np.array_equal(a[~where], b[~where])
    assert not np.array_equal(b, target)
    assert (a[where] != b[where]).any(axis=1).mean() > 0.9
    assert a.dtype == b.dtype == np.uint8


def test_effects_that_a_frame_cut_off_run_out():
    """A shadow that goes on beyond its photo's lower border fades towards it, smoothly and to nothing, and is whole
    away from it; on a side that cuts the object too nothing fades, as the object stands at that side again."""
    rgba, solid = np.zeros((100, 60, 4), np.uint8), np.zeros((100, 60), bool)
    solid[:50, 20:40] = True
    rgba[50:, :, 3] = 128
    rgba[solid] = (200, 100, 50, 255)
    thing = {"id": "x", "label": None, "foreground": rgba, "foreground_object": solid, "source_size": [200, 200]}
    cut = split_layers(make_cutout(thing | {"foreground_box": [70.0, 100.0, 130.0, 200.0]}), False)[2]
    assert cut[-1].max() < 0.01
    assert np.allclose(cut[50:87], 128 / 255)
    assert np.abs(np.diff(cut[50:, 0])).max() < 0.08
    free = split_layers(make_cutout(thing | {"foreground_box": [70.0, 60.0, 130.0, 160.0]}), False)[2]
    assert np.allclose(free[50:], 128 / 255)
    solid[:] = False
    solid[:, 20:40] = True
    rgba[solid] = (200, 100, 50, 255)
    standing_at_it = split_layers(make_cutout(thing | {"foreground_box": [70.0, 100.0, 130.0, 200.0]}), False)[2]
    assert np.allclose(standing_at_it[-1][:20], 128 / 255)
