"""Cameras above ground planes, and sizes by class."""

import numpy as np
import pytest
from support.paste_scenes import make_ground_columns

from rasura.stages.compositing.class_sizes import (
    compute_silhouette,
    estimate_min_depression,
    find_class_size,
    fit_box_scale,
)
from rasura.stages.compositing.projection import View, apply_homography, compute_transfer_homography, read_view

SIZE = (640, 480)


def make_view(pitch=20.0, eye=1.6, focal=500.0, roll=0.0):
    view = read_view(make_ground_columns(pitch, eye, focal, roll=roll), SIZE)
    assert view is not None
    return view


def picture_of(view, points):
    """Pixels of points (n, 3) in the camera frame."""
    return points[:, :2] / points[:, 2:] * view.focal + np.array(view.size) / 2


def on_floor(view, right, ahead):
    """Camera-frame points of the floor, metres to the right of the camera and ahead of it, along the floor."""
    n = np.array(view.normal)
    forward = np.array([0, 0, 1.0]) - n * n[2]
    forward /= np.linalg.norm(forward)
    side = np.cross(n, forward)
    return view.height * n + np.outer(np.atleast_1d(right), side) + np.outer(np.atleast_1d(ahead), forward)


@pytest.mark.parametrize("roll", [0.0, 12.0])
def test_pixels_a_metre_depression_and_bearing_are_those_of_the_point_itself(roll):
    """Floor points at known places, projected through the camera: density f/Z, atan(eye / distance), and direction."""
    view = make_view(roll=roll)
    for right, ahead in ((0.0, 4.0), (1.0, 3.0), (-1.5, 6.0)):
        point = on_floor(view, right, ahead)
        ((x, y),) = picture_of(view, point)
        assert view.pixels_per_unit(x, y) == pytest.approx(view.focal / point[0, 2])
        assert view.depression(x, y) == pytest.approx(np.degrees(np.arctan2(1.6, np.hypot(right, ahead))))
        assert view.bearing(x, y) == pytest.approx(np.degrees(np.arctan2(right, ahead)))
        top = picture_of(view, point - 1.1 * np.array(view.normal))[0, 1]
        assert view.measure_height((x, y), top) == pytest.approx(1.1)


def test_above_the_horizon_there_is_no_floor():
    """Density is 0 there, and no floor coordinates can start there."""
    view = make_view(pitch=5)
    assert view.pixels_per_unit(320, 10) == 0
    with pytest.raises(ValueError, match="not below the horizon"):
        view.compute_ground_homography(320, 10)


def test_a_shadow_keeps_its_place_beside_the_object_in_metres():
    """Points beside a foot, seen by one camera, are carried to where another camera sees the points that lie the same
    metres to the right of and behind another foot, along the line of sight there. With `turn` they go round."""
    source, target = make_view(30, 2.0, 600), make_view(12, 1.4, 450)
    foot, place = np.array([0.7, 4.0]), np.array([-1.2, 6.0])
    offsets = np.array([[0.4, 0.0], [0.0, 0.8], [-0.5, -0.3]])

    def beside(where, turn=0.0):
        away = where / np.linalg.norm(where)
        right = np.array([away[1], -away[0]])
        c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        turned = offsets @ np.array([[c, s], [-s, c]])
        return where + turned[:, :1] * right + turned[:, 1:] * away

    for turn in (0.0, 25.0):
        here = picture_of(source, on_floor(source, *beside(foot).T))
        there = picture_of(target, on_floor(target, *beside(place, turn).T))
        (stand,) = picture_of(source, on_floor(source, *foot))
        (spot,) = picture_of(target, on_floor(target, *place))
        matrix = compute_transfer_homography(source, tuple(stand), target, tuple(spot), turn)
        assert np.allclose(apply_homography(matrix, here), there, atol=1e-6)


def test_a_mirrored_view_is_the_view_of_the_mirrored_picture():
    """Density and bearing at mirrored pixels, also with a leaning camera."""
    view = make_view(roll=8)
    other = view.mirror()
    assert other.pixels_per_unit(640 - 200, 400) == pytest.approx(float(view.pixels_per_unit(200, 400)))
    assert other.bearing(640 - 200, 400) == pytest.approx(-view.bearing(200, 400))


def test_another_unit_changes_lengths_and_not_the_picture():
    """Twice as many units of half the length: half the pixels a unit, the same homography."""
    view, other = make_view(), make_view().rescale(2)
    assert other.pixels_per_unit(300, 400) == pytest.approx(float(view.pixels_per_unit(300, 400)) / 2)
    point = compute_transfer_homography(view, (300.0, 400.0), view, (350.0, 420.0))
    assert np.allclose(compute_transfer_homography(other, (300.0, 400.0), other, (350.0, 420.0)), point)


@pytest.mark.parametrize(
    "columns",
    [
        {},
        make_ground_columns() | {"ground_plane": None},
        make_ground_columns() | {"ground_focal": None},
        make_ground_columns() | {"ground_focal": 0.0},
        make_ground_columns() | {"ground_plane": [0.0, 1.0, 0.0]},
        make_ground_columns() | {"ground_plane": [0.0, 1.0, 0.0, -1.6]},
        make_ground_columns() | {"ground_plane": [0.0, -1.0, 0.0, 1.6]},
        make_ground_columns() | {"ground_plane": [0.0, 0.0, 0.0, 1.6]},
        make_ground_columns() | {"ground_plane": [0.0, float("nan"), 0.0, 1.6]},
    ],
)
def test_columns_that_describe_no_floor_give_no_view(columns):
    """Absent, unknown, upside down, behind the camera, or no numbers."""
    assert read_view(columns, SIZE) is None


def test_a_plane_of_any_length_is_the_same_plane():
    """2n.P = 2d is n.P = d."""
    view = read_view({"ground_plane": [0.0, 2.0, 0.0, 3.2], "ground_focal": 500, "ground_metric": None}, SIZE)
    assert view == View((0.0, 1.0, 0.0), 1.6, 500.0, SIZE, False)


def test_labels_are_found_however_they_are_written():
    """Case, underscores, other names; the recipe's own table goes first; what has no usual size is None."""
    assert find_class_size("Car") == find_class_size("automobile") == find_class_size(" car ")
    assert find_class_size("traffic_light") == find_class_size("traffic light")
    assert find_class_size("car", {"car": (1.0, 1.0, 1.0)}) == (1.0, 1.0, 1.0)
    assert find_class_size("thing") is None
    assert find_class_size(None) is None


@pytest.mark.parametrize("yaw", [0, 40, 90])
@pytest.mark.parametrize("depression", [0, 20, 45])
def test_an_outline_of_known_size_gives_back_its_pixels_a_metre(yaw, depression):
    """A car's box drawn at 80 px a metre, turned and looked down on: found within 5 %."""
    size = find_class_size("car")
    assert size is not None
    wide, tall = compute_silhouette(size, yaw, depression)
    assert fit_box_scale(80 * wide, 80 * tall, size, depression) == pytest.approx(80, rel=0.05)


def test_a_car_that_is_higher_than_wide_was_seen_from_above():
    """From 40 degrees, lengthwise: at least 20. From the side at eye's height, and upright things: nothing is told."""
    car, person = find_class_size("car"), find_class_size("person")
    assert car is not None
    assert person is not None
    assert 20 <= estimate_min_depression(*compute_silhouette(car, 0, 40), car) <= 40
    assert estimate_min_depression(*compute_silhouette(car, 90, 8), car) == 0
    assert estimate_min_depression(*compute_silhouette(person, 30, 8), person) == 0
