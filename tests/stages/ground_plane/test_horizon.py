"""The horizon of a photo: from straight lines and from the sky, with an error that is true, or not at all."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from rasura.stages.ground_plane.horizon import (
    MAX_HORIZON_ERROR,
    compute_horizon_pitch,
    compute_plane_horizon,
    estimate_horizon_from_lines,
    estimate_horizon_from_sky,
)
from rasura.stages.ground_plane.known_objects import make_plane
from rasura.stages.ground_plane.line_segments import find_segments
from rasura.stages.ground_plane.sky import find_sky, find_sky_end


def draw_room(pitch, fov, turn, shape, roll=0.0, seed=0, tile=0.5):
    """A tiled floor and upright posts before a camera 1.5 m up, (h, w, 3) uint8, and the true row of its horizon."""
    rng = np.random.default_rng(seed)
    height, width = shape
    focal = max(shape) / 2 / np.tan(np.deg2rad(fov) / 2)
    n = np.array([float(v) for v in make_plane(pitch, 1.5, roll)[:3]])
    ahead = np.array([0.0, 0, 1]) - n * n[2]
    ahead /= np.linalg.norm(ahead)
    right = np.cross(n, ahead)
    picture = np.full((height, width, 3), 150, np.uint8)

    def project(across, away, up):
        a, w = np.cos(turn) * across - np.sin(turn) * away, np.sin(turn) * across + np.cos(turn) * away
        point = a * right + w * ahead + (1.5 - up) * n
        return None if point[2] < 0.3 else (focal * point[:2] / point[2] + np.array([width, height]) / 2)

    def line(first, last):
        ends = [project(*first), project(*last)]
        if ends[0] is not None and ends[1] is not None:
            start, end = (tuple(int(v) for v in np.clip(np.rint(e * 16), -(2**25), 2**25)) for e in ends)
            cv2.line(picture, start, end, (40, 40, 40), 2, cv2.LINE_AA, 4)

    steps = np.arange(-6, 6.1, tile)
    for step in steps:
        for a, b in pairwise(steps):
            line((step, a, 0), (step, b, 0))
            line((a, step, 0), (b, step, 0))
    for across, away in ((-2, 3), (2, 3), (-3, 5), (3, 5), (0, 5.5)):
        line((across, away, 0), (across, away, 2.5))
    noisy = picture + rng.normal(0, 3, picture.shape)
    row = height / 2 - focal * n[2] / n[1]
    return np.clip(noisy, 0, 255).astype(np.uint8), float(row), focal


@pytest.mark.parametrize(
    ("pitch", "fov", "turn", "shape", "roll"),
    [
        (5, 60, 0.3, (400, 600), 0),
        (20, 45, 0.5, (400, 600), 0),
        (30, 70, 0.2, (600, 450), 0),
        (12, 60, 0.7, (480, 640), 3),
        (40, 55, 0.4, (500, 500), -2),
        (-4, 65, 0.35, (400, 600), 0),
    ],
)
def test_a_tiled_floor_shows_its_horizon(pitch, fov, turn, shape, roll):
    """Whatever the focal length, pitch, roll and proportions: the row within 2 degrees of view, the roll within 1.5,
    and the error that is stated is no smaller than a third of the true one."""
    picture, row, focal = draw_room(pitch, fov, turn, shape, roll)
    horizon = estimate_horizon_from_lines(find_segments(picture), shape)
    assert horizon is not None
    assert horizon.error <= MAX_HORIZON_ERROR
    off = abs(np.rad2deg(np.arctan((horizon.row - shape[0] / 2) / focal) - np.arctan((row - shape[0] / 2) / focal)))
    assert off < 2
    assert off < 3 * max(1.0, horizon.error)
    own_pitch, own_roll = compute_horizon_pitch(horizon, focal, shape)
    assert own_pitch == pytest.approx(pitch, abs=2)
    assert own_roll == pytest.approx(roll, abs=1.5)


@pytest.mark.parametrize("kind", ["noise", "nothing", "one direction", "circles", "random lines"])
def test_what_shows_no_horizon_states_none(kind):
    """Noise, an empty picture, boards that all run along, circles and lines in any direction: nothing is stated."""
    rng = np.random.default_rng(4)
    picture = np.full((300, 450, 3), 128, np.uint8)
    if kind == "noise":
        picture = rng.integers(0, 255, picture.shape).astype(np.uint8)
    for k in range(40):
        x, y = (int(v) for v in rng.integers(20, 280, 2))
        colour = tuple(int(v) for v in rng.integers(0, 255, 3))
        if kind == "one direction":
            cv2.line(picture, (x, 7 * k), (x + 120, 7 * k), colour, 2)
        elif kind == "circles":
            cv2.circle(picture, (x, y), 15, colour, 2)
        elif kind == "random lines":
            angle = rng.uniform(0, np.pi)
            end = (int(x + 60 * np.cos(angle)), int(y + 60 * np.sin(angle)))
            cv2.line(picture, (x, y), end, colour, 2, cv2.LINE_AA)
    horizon = estimate_horizon_from_lines(find_segments(picture), (300, 450))
    assert horizon is None or horizon.error > MAX_HORIZON_ERROR


def test_pitch_and_row_agree():
    """The row of a plane's horizon gives that plane's pitch and roll again."""
    for pitch, roll in ((20.0, 0.0), (-10.0, 5.0), (50.0, -3.0)):
        plane = tuple(float(v) for v in make_plane(pitch, 1.6, roll))
        row = compute_plane_horizon(plane, 500.0, (400, 600))
        horizon = type(estimate_horizon_from_sky(0.2, 0.4, (4, 6)))(row, -roll, 1.0)
        assert compute_horizon_pitch(horizon, 500.0, (400, 600)) == pytest.approx((pitch, roll), abs=1e-6)


def test_sky_bounds_the_horizon():
    """A blue or a bright sky over a textured field is found and ends at the field; a pale wall indoors is no sky; the
    horizon is between sky and ground, and less certain the farther they are apart."""
    rng = np.random.default_rng(2)
    for colour in ((120, 160, 230), (235, 240, 245)):
        picture = np.zeros((300, 450, 3), np.uint8)
        picture[:120] = colour
        picture[120:] = np.clip(rng.normal(90, 25, (180, 450, 3)), 0, 255)
        sky = find_sky(picture)
        assert sky is not None
        assert find_sky_end(sky) == pytest.approx(0.4, abs=0.03)
    wall = np.full((300, 450, 3), 190, np.uint8)
    wall[150:] = np.clip(rng.normal(200, 15, (150, 450, 3)), 0, 255)
    assert find_sky(wall) is None
    near, far = (estimate_horizon_from_sky(0.4, top, (300, 450)) for top in (0.45, 0.9))
    assert near is not None
    assert far is not None
    assert 0.38 * 300 < near.row < 0.47 * 300
    assert near.error < MAX_HORIZON_ERROR < far.error
    assert estimate_horizon_from_sky(0.6, 0.5, (300, 450)) is None
