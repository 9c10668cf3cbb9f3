"""Cameras above floors, and what is known of sizes."""

import numpy as np
import pytest
from support.paste_scenes import floor

from rasura.stages.compositing.class_sizes import class_size, density_of, least_depression, silhouette
from rasura.stages.compositing.projection import View, floor_to_floor, through, view_of

SIZE = (640, 480)


def seen(pitch=20.0, eye=1.6, focal=500.0, roll=0.0):
    view = view_of(floor(pitch, eye, focal, roll=roll), SIZE)
    assert view is not None
    return view


def picture_of(view, points):
    """Pixels of points (n, 3) in the camera frame."""
    return points[:, :2] / points[:, 2:] * view.focal + np.array(view.size) / 2


def on_floor(view, right, ahead):
    """Camera-frame points of the floor, metres to the right of the camera and ahead of it, along the floor."""
    n = np.array(view.n)
    forward = np.array([0, 0, 1.0]) - n * n[2]
    forward /= np.linalg.norm(forward)
    side = np.cross(n, forward)
    return view.d * n + np.outer(np.atleast_1d(right), side) + np.outer(np.atleast_1d(ahead), forward)


@pytest.mark.parametrize("roll", [0.0, 12.0])
def test_pixels_a_metre_depression_and_bearing_are_those_of_the_point_itself(roll):
    """Floor points at known places, projected through the camera: density f/Z, atan(eye / distance), and direction."""
    view = seen(roll=roll)
    for right, ahead in ((0.0, 4.0), (1.0, 3.0), (-1.5, 6.0)):
        point = on_floor(view, right, ahead)
        ((x, y),) = picture_of(view, point)
        assert view.density(x, y) == pytest.approx(view.focal / point[0, 2])
        assert view.depression(x, y) == pytest.approx(np.degrees(np.arctan2(1.6, np.hypot(right, ahead))))
        assert view.bearing(x, y) == pytest.approx(np.degrees(np.arctan2(right, ahead)))
        top = picture_of(view, point - 1.1 * np.array(view.n))[0, 1]
        assert view.height_of((x, y), top) == pytest.approx(1.1)


def test_above_the_horizon_there_is_no_floor():
    """Density is 0 there, and no floor coordinates can start there."""
    view = seen(pitch=5)
    assert view.density(320, 10) == 0
    with pytest.raises(ValueError, match="not below the horizon"):
        view.floor_to_picture(320, 10)


def test_a_shadow_keeps_its_place_beside_the_object_in_metres():
    """Points beside a foot, seen by one camera, are carried to where another camera sees the points that lie the same
    metres to the right of and behind another foot, along the line of sight there. With `turn` they go round."""
    source, target = seen(30, 2.0, 600), seen(12, 1.4, 450)
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
        matrix = floor_to_floor(source, tuple(stand), target, tuple(spot), turn)
        assert np.allclose(through(matrix, here), there, atol=1e-6)


def test_a_mirrored_view_is_the_view_of_the_mirrored_picture():
    """Density and bearing at mirrored pixels, also with a leaning camera."""
    view = seen(roll=8)
    other = view.mirrored()
    assert other.density(640 - 200, 400) == pytest.approx(float(view.density(200, 400)))
    assert other.bearing(640 - 200, 400) == pytest.approx(-view.bearing(200, 400))


def test_another_unit_changes_lengths_and_not_the_picture():
    """Twice as many units of half the length: half the pixels a unit, the same homography."""
    view, other = seen(), seen().scaled(2)
    assert other.density(300, 400) == pytest.approx(float(view.density(300, 400)) / 2)
    point = floor_to_floor(view, (300.0, 400.0), view, (350.0, 420.0))
    assert np.allclose(floor_to_floor(other, (300.0, 400.0), other, (350.0, 420.0)), point)


@pytest.mark.parametrize(
    "columns",
    [
        {},
        floor() | {"ground_plane": None},
        floor() | {"ground_focal": None},
        floor() | {"ground_focal": 0.0},
        floor() | {"ground_plane": [0.0, 1.0, 0.0]},
        floor() | {"ground_plane": [0.0, 1.0, 0.0, -1.6]},
        floor() | {"ground_plane": [0.0, -1.0, 0.0, 1.6]},
        floor() | {"ground_plane": [0.0, 0.0, 0.0, 1.6]},
        floor() | {"ground_plane": [0.0, float("nan"), 0.0, 1.6]},
    ],
)
def test_columns_that_describe_no_floor_give_no_view(columns):
    """Absent, unknown, upside down, behind the camera, or no numbers."""
    assert view_of(columns, SIZE) is None


def test_a_plane_of_any_length_is_the_same_plane():
    """2n.P = 2d is n.P = d."""
    view = view_of({"ground_plane": [0.0, 2.0, 0.0, 3.2], "ground_focal": 500, "ground_metric": None}, SIZE)
    assert view == View((0.0, 1.0, 0.0), 1.6, 500.0, SIZE, False)


def test_labels_are_found_however_they_are_written():
    """Case, underscores, other names; the recipe's own table goes first; what has no usual size is None."""
    assert class_size("Car") == class_size("automobile") == class_size(" car ")
    assert class_size("traffic_light") == class_size("traffic light")
    assert class_size("car", {"car": (1.0, 1.0, 1.0)}) == (1.0, 1.0, 1.0)
    assert class_size("thing") is None
    assert class_size(None) is None


@pytest.mark.parametrize("yaw", [0, 40, 90])
@pytest.mark.parametrize("depression", [0, 20, 45])
def test_an_outline_of_known_size_gives_back_its_pixels_a_metre(yaw, depression):
    """A car's box drawn at 80 px a metre, turned and looked down on: found within 5 %."""
    size = class_size("car")
    assert size is not None
    wide, tall = silhouette(size, yaw, depression)
    assert density_of(80 * wide, 80 * tall, size, depression) == pytest.approx(80, rel=0.05)


def test_a_car_that_is_higher_than_wide_was_seen_from_above():
    """From 40 degrees, lengthwise: at least 20. From the side at eye's height, and upright things: nothing is told."""
    car, person = class_size("car"), class_size("person")
    assert car is not None
    assert person is not None
    assert 20 <= least_depression(*silhouette(car, 0, 40), car) <= 40
    assert least_depression(*silhouette(car, 90, 8), car) == 0
    assert least_depression(*silhouette(person, 30, 8), person) == 0
