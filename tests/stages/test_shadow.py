"""Light direction from the shadow that an object casts: on synthetic scenes whose sun is known."""

import cv2
import numpy as np
import pytest
from support.pair_scenes import capture, freeze, make_floor

from rasura.stages.shadow import Shadow, ShadowParams
from rasura.stages.shadow_fit.camera import compute_shadow_vector, make_ground_camera
from rasura.stages.shadow_fit.light import cluster_azimuth, estimate_light
from rasura.stages.shadow_fit.solids import DiscStack, Prism, fit_disc_stack, fit_prism, render_silhouette
from rasura.stages.shadow_fit.sun import find_azimuth_peaks, resembles_prism

cv2.setNumThreads(1)
SIZE = (360, 240)


def make_pillar(camera, at, radius=0.12, height=0.55):
    """A round pillar on the floor, `at` (right, away) of the point in the middle of the picture's lower half."""
    right, away, _ = camera.axes
    ray = camera.cast_rays(np.array([[SIZE[0] / 2, SIZE[1] * 0.6]]))[0]
    foot = ray / (ray @ camera.normal) + at[0] * right + at[1] * away
    heights = np.linspace(0, height, 12)
    links = [(k, k + 1) for k in range(11)]
    return DiscStack(foot, np.zeros(12), np.full(12, radius), heights, links)


def draw_silhouette(camera, solid):
    """(h, w) bool: the pillar itself, as the camera sees it."""
    right, away, up = camera.axes
    ring = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = solid.radius[0] * (np.cos(ring)[:, None] * right + np.sin(ring)[:, None] * away)
    points = np.concatenate([solid.foot + circle + z * up for z in (solid.height[0], solid.height[-1])])
    mask = np.zeros(SIZE[::-1], np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(camera.project(points)).astype(np.int32)), 1)
    return mask > 0


def make_lit_pair(azimuth, elevation=42.0, pitch=21.0, pillars=((0.0, 0.0),), soft=1.0, depth=0.5, seed=0):
    """A record with input, gt, M_o, M_fg of pillars under a sun; azimuth None: an overcast sky."""
    rng = np.random.default_rng(seed)
    camera = make_ground_camera(pitch, SIZE, 40.0)
    solids = [make_pillar(camera, at) for at in pillars]
    mask = np.any([draw_silhouette(camera, solid) for solid in solids], axis=0)
    if azimuth is None:
        feet = [DiscStack(s.foot, s.shift[:2], s.radius[:2] * 1.4, s.height[:2] * 0, [(0, 1)]) for s in solids]
        along, wide = compute_shadow_vector(camera, 0.0, 80.0), 9
    else:
        feet, along, wide = solids, compute_shadow_vector(camera, azimuth, elevation), soft
    shade = cv2.GaussianBlur(render_silhouette(feet, camera, along, mask.shape), (0, 0), wide) * depth
    background = make_floor(SIZE[1], SIZE[0], seed)
    source = np.where(mask[..., None], (60, 110, 170), background * (1 - shade[..., None]))
    return {
        "id": "x",
        "input": freeze(capture(source, rng, 1)),
        "gt": freeze(capture(background, rng, 1)),
        "object_mask": freeze(mask),
        "foreground_mask": freeze(mask | (shade > 0.03)),
    }


def measure_angle(first, second):
    """Degrees between two directions."""
    return abs((first - second + 180) % 360 - 180)


def test_the_sun_is_found_all_around():
    """Eleven directions, elevations and pitches not told to the method: median error <= 6 degrees, none above 22.5,
    and confidence above a half. (Straight away from the camera a pillar hides its own shadow.)"""
    errors = []
    for k, azimuth in enumerate(a for a in range(0, 360, 30) if a != 90):
        record = make_lit_pair(azimuth, 32 + 2.5 * (k % 8), 15 + 1.2 * k, seed=k)
        out = Shadow(ShadowParams()).process_one(record).records[0]
        errors.append(measure_angle(out["shadow_azimuth"], azimuth))
        assert out["shadow_confidence"] > 0.5
        assert 0 <= out["shadow_cluster"] <= 7
    assert np.median(errors) <= 6
    assert max(errors) <= 22.5


def test_several_objects_share_one_sun():
    """Three pillars whose shadows all fall one way: within 12 degrees."""
    record = make_lit_pair(205, pillars=((-0.6, 0.1), (0.1, -0.1), (0.6, 0.25)))
    out = Shadow(ShadowParams()).process_one(record).records[0]
    assert measure_angle(out["shadow_azimuth"], 205) <= 12


def test_an_overcast_sky_is_unknown():
    """Darkening all around a foot has no direction: azimuth and elevation null, cluster -1, low confidence."""
    for seed in range(2):
        out = Shadow(ShadowParams()).process_one(make_lit_pair(None, seed=seed)).records[0]
        assert out["shadow_azimuth"] is None
        assert out["shadow_elevation"] is None
        assert out["shadow_cluster"] == -1
        assert out["shadow_confidence"] < 0.4


def test_a_known_floor_is_used():
    """With the camera's true plane and focal length the sun's height is right to 7 degrees, which a guessed pitch
    does not promise, and the direction to 8."""
    camera = make_ground_camera(34.0, SIZE, 40.0)
    record = make_lit_pair(150, 38.0, 34.0) | {
        "ground_plane": [*camera.normal.tolist(), 1.0],
        "ground_focal": camera.focal,
    }
    out = Shadow(ShadowParams()).process_one(record).records[0]
    assert measure_angle(out["shadow_azimuth"], 150) <= 8
    assert abs(out["shadow_elevation"] - 38) <= 7
    scaled = record | {"ground_plane": [*camera.normal.tolist(), 2.5]}  # the camera's height changes no angle
    assert Shadow(ShadowParams()).process_one(scaled).records[0]["shadow_azimuth"] == pytest.approx(
        out["shadow_azimuth"]
    )


def test_softness_grows_with_the_penumbra():
    """A border three times as blurred is at least 1.7 times as wide, and widths are shares of the object's height."""
    widths = [estimate_light(*_arrays(make_lit_pair(20, soft=soft))).softness for soft in (1.0, 4.0)]
    assert widths[0] is not None
    assert widths[1] is not None
    assert widths[1] > 1.7 * widths[0]
    assert 0 < widths[0] < 0.2


def _arrays(record):
    return record["input"], record["gt"], record["object_mask"], record["foreground_mask"]


def test_clusters_are_eighths_around_the_axes():
    """Bins of 45 degrees around 0, 45, …; unknown is -1."""
    assert [cluster_azimuth(a) for a in (0, 22.4, 22.6, 90, 337.4, 337.6, 359.9)] == [0, 0, 1, 2, 7, 0, 0]
    assert cluster_azimuth(None) == -1


def test_solid_from_its_picture_casts_the_same_shadow():
    """Read back from its silhouette, a pillar's shadow overlaps the true one by more than 80 %."""
    camera = make_ground_camera(20.0, SIZE, 40.0)
    solid = make_pillar(camera, (0.1, 0.0))
    fit = fit_disc_stack(draw_silhouette(camera, solid), camera, 0.5)
    assert fit is not None
    vector = compute_shadow_vector(camera, 30, 40)
    true_shadow, fitted_shadow = (render_silhouette([s], camera, vector, SIZE[::-1]) > 0 for s in (solid, fit))
    assert (true_shadow & fitted_shadow).sum() / (true_shadow | fitted_shadow).sum() > 0.8


def make_slab(camera, turn, size=(0.9, 0.4), height=0.3):
    """A box that lies on the floor, turned by degrees."""
    right, away, _ = camera.axes
    ray = camera.cast_rays(np.array([SIZE[0] / 2, SIZE[1] * 0.55]))
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * np.array(size) / 2 @ np.array([[c, s], [-s, c]])
    return Prism([ray / (ray @ camera.normal) + corners[:, :1] * right + corners[:, 1:] * away], height)


def test_what_lies_is_a_prism_and_gives_the_sun():
    """Boxes lying at four angles under four suns look more like prisms than like discs, a pillar does not; and read
    as such they tell the azimuth: median error <= 8 degrees, none above 22.5. (As discs one is 40 degrees off.)"""
    camera = make_ground_camera(22.0, SIZE, 40.0)
    assert not resembles_prism(draw_silhouette(camera, make_pillar(camera, (0.0, 0.0))), camera)
    errors = []
    for turn, azimuth in ((30, 20), (-35, 160), (0, 210), (40, 130)):
        box = make_slab(camera, turn)
        mask = render_silhouette([box], camera, camera.axes[2], SIZE[::-1]) > 0
        assert resembles_prism(mask, camera)
        shadow = render_silhouette([box], camera, compute_shadow_vector(camera, azimuth, 40.0), mask.shape)
        shade = cv2.GaussianBlur(shadow, (0, 0), 1) * 0.5
        clean = make_floor(SIZE[1], SIZE[0], turn + 90)
        source = np.where(mask[..., None], (60, 110, 170), clean * (1 - shade[..., None]))
        light = estimate_light(source.astype(np.uint8), clean.astype(np.uint8), mask, mask | (shade > 0.03))
        assert light.sun is not None
        errors.append(measure_angle(light.sun.azimuth, azimuth))
    assert np.median(errors) <= 8
    assert max(errors) <= 22.5


def test_a_prism_fills_its_picture():
    """Read back from its silhouette with a third of its height, a lying box covers more than 90 % of that silhouette
    and nearly nothing else."""
    camera = make_ground_camera(22.0, SIZE, 40.0)
    mask = render_silhouette([make_slab(camera, 25)], camera, camera.axes[2], SIZE[::-1]) > 0
    fit = fit_prism(mask, camera, 0.33)
    assert fit is not None
    again = render_silhouette([fit], camera, camera.axes[2], SIZE[::-1]) > 0
    assert (again & mask).sum() / (again | mask).sum() > 0.9


def test_rivals_are_looked_at_too():
    """Two far apart azimuths that fit about equally are both kept, the better first; a weak third and the neighbours
    of the best are not."""
    grid = np.full((24, 2), 0.1)
    grid[3], grid[4, 1], grid[15, 0], grid[20, 1] = 0.6, 0.8, 0.7, 0.3
    assert find_azimuth_peaks(grid) == [(4, 1), (15, 0)]


def test_above_the_horizon_nothing_stands():
    """An object whose foot is above the horizon gives no solid, and the stage says unknown."""
    mask = np.zeros(SIZE[::-1], bool)
    mask[5:20, 100:120] = True
    assert fit_disc_stack(mask, make_ground_camera(5.0, SIZE)) is None
    assert fit_prism(mask, make_ground_camera(5.0, SIZE), 0.5) is None


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (3, 40)])
def test_odd_pictures_are_unknown(size):
    """Tiny pictures, no effects, masks that fill everything: unknown, no fault, no warning."""
    rng = np.random.default_rng(0)
    source, clean = rng.integers(0, 256, (2, *size, 3), np.uint8)
    everything, nothing = np.ones(size, bool), np.zeros(size, bool)
    one = nothing.copy()
    one[0, 0] = True
    for mask, where in ((everything, everything), (one, everything), (one, one), (nothing, nothing)):
        record = {"id": "x", "input": source, "gt": clean, "object_mask": mask, "foreground_mask": where}
        out = Shadow(ShadowParams(confident=1.0)).process_one(record).records[0]
        assert out["shadow_cluster"] in range(-1, 8)
        assert 0 <= out["shadow_confidence"] <= 1


@pytest.mark.parametrize("azimuth", [20, 200, 270])
@pytest.mark.parametrize("depth", [0.5, 0.15])
def test_a_pale_shadow_counts_like_a_dark_one(azimuth, depth):
    """A sharp shadow that takes 15 % of the light tells the direction with the same confidence as one of 50 %."""
    out = Shadow(ShadowParams()).process_one(make_lit_pair(azimuth, depth=depth, seed=31)).records[0]
    assert measure_angle(out["shadow_azimuth"], azimuth) <= 15
    assert out["shadow_confidence"] > 0.6


@pytest.mark.parametrize("depth", [0.25, 0.7])
def test_a_dark_soft_shadow_stays_unknown(depth):
    """Darkness around a foot under an overcast sky gives no direction, however dark it is."""
    out = Shadow(ShadowParams()).process_one(make_lit_pair(None, depth=depth, seed=32)).records[0]
    assert out["shadow_azimuth"] is None


@pytest.mark.parametrize("strength", [0.25, 0.5])
def test_a_mirror_image_is_no_shadow(strength):
    """What a glossy floor mirrors of a pillar has a sharp border and says nothing about the light: unknown."""
    camera = make_ground_camera(21.0, SIZE, 40.0)
    record = make_lit_pair(None, seed=33)
    image = render_silhouette([make_pillar(camera, (0.0, 0.0))], camera, -camera.axes[2], SIZE[::-1])
    image = cv2.GaussianBlur(image, (0, 0), 0.8)[..., None] * strength
    mirrored = np.rint((1 - image) * record["input"] + image * np.array((60, 70, 90))).astype(np.uint8)
    source = np.where(record["object_mask"][..., None], record["input"], mirrored)
    record |= {"input": freeze(source), "foreground_mask": freeze(record["foreground_mask"] | (image[..., 0] > 0.03))}
    assert Shadow(ShadowParams()).process_one(record).records[0]["shadow_azimuth"] is None
