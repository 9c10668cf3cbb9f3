"""Where things can stand."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from stages.ground import (
    Ground,
    GroundParams,
    calm_region,
    flat_part,
    horizon_guess,
    plane_of_depth,
    scale_from_horizon,
)
from stages.stage import Kept, Rejected

ASSETS = Path(os.environ.get("RASURA_ASSETS", Path(__file__).parents[1].parent / "shared" / "assets"))
DEPTH = ASSETS / "weights" / "meter_xxs_kitti_192x636.onnx"
BACKGROUNDS = ASSETS / "photos" / "backgrounds"
FOCAL = 100.0


def floor_depth(height=90, width=120, horizon=20.0, tall=1.5, far=8.0, roll=0.0):
    """Depth (h, w) of a floor `tall` m below a camera, up to a wall `far` m away; tilted sideways by `roll` px/px."""
    ys, xs = np.mgrid[0:height, 0:width]
    below = ys - horizon + roll * (xs - width / 2)
    return np.minimum(np.where(below > 0, FOCAL * tall / np.maximum(below, 1e-3), np.inf), far)


def scene(height=240, width=320, horizon=100, seed=0):
    """A busy wall over a calm floor, (h, w, 3) uint8."""
    rng = np.random.default_rng(seed)
    picture = cv2.GaussianBlur(rng.uniform(0, 255, (height, width, 3)), (0, 0), 2)
    picture = np.clip((picture - 127) * 6 + 127, 0, 255)
    picture[horizon:] = rng.normal((120, 110, 100), 2, (height - horizon, width, 3))
    out = picture.astype(np.uint8)
    out.flags.writeable = False
    return out


def test_the_floor_is_found_and_gives_pixels_per_metre():
    """On an exact floor the plane's 1/Z times the focal length is focal / depth, and the wall is no part of it."""
    depth = floor_depth()
    found = plane_of_depth(depth, FOCAL, np.random.default_rng(0))
    assert found is not None
    (a, b, c), error = found
    assert (a * 60 + b * 80 + c) == pytest.approx(1 / depth[80, 60], rel=0.01)
    assert -c / b == pytest.approx(20, abs=1)  # horizon
    floor = depth < 7.9
    assert (error[floor] < 0.03).mean() > 0.99
    flat = flat_part(depth, np.array([a, b, c]), error)
    assert flat[60:].mean() > 0.95
    assert not flat[:15].any()


def test_a_thing_on_the_floor_is_no_floor():
    """A box that stands on the plane, nearer than the floor behind it, is left out of the flat part."""
    depth = floor_depth()
    depth[50:70, 40:70] = depth[70, 50]
    found = plane_of_depth(depth, FOCAL, np.random.default_rng(0))
    assert found is not None
    plane, error = found
    flat = flat_part(depth, plane, error)
    assert flat[50:62, 45:65].mean() < 0.1
    assert flat[60:85, 80:115].mean() > 0.9


def test_noise_is_borne_and_the_result_is_repeatable():
    """5 % of depth noise moves the horizon by a few pixels at most, and the same seed gives the same plane."""
    depth = floor_depth() * np.random.default_rng(1).normal(1, 0.05, (90, 120))
    one = plane_of_depth(depth, FOCAL, np.random.default_rng(4))
    two = plane_of_depth(depth, FOCAL, np.random.default_rng(4))
    assert one is not None
    assert two is not None
    assert np.array_equal(one[0], two[0])
    assert -one[0][2] / one[0][1] == pytest.approx(20, abs=5)


@pytest.mark.parametrize("depth", [np.full((90, 120), 3.0), floor_depth(roll=0.8), floor_depth().T.copy()])
def test_walls_and_tilted_planes_are_no_floors(depth):
    """A wall that faces the camera, a plane that leans by 40 degrees and a wall at the side are refused."""
    assert plane_of_depth(depth, FOCAL, np.random.default_rng(0)) is None


def test_the_calm_region_is_the_floor():
    """Of a busy wall over a calm floor the floor is found, without the thing that stands on it."""
    picture = scene().copy()
    cv2.rectangle(picture, (140, 120), (190, 200), (200, 30, 30), -1)
    region = calm_region(picture)
    assert region.shape == (240, 320)
    assert region[150:, :100].mean() > 0.9
    assert region[:90].mean() < 0.02
    assert region[130:190, 150:180].mean() < 0.05


def test_scale_grows_from_the_horizon_to_the_bottom():
    """Zero on the horizon, largest at the bottom; a floor seen from above hardly changes its scale."""
    region = np.zeros((200, 100), bool)
    region[90:] = True
    horizon = horizon_guess(region)
    assert 70 < horizon < 90
    a, b, c = scale_from_horizon(horizon, 200)
    assert a == 0
    assert b * horizon + c == pytest.approx(0)
    assert b * 200 + c > b * 150 + c > 0
    above = horizon_guess(np.ones((200, 100), bool))
    assert above == -200
    assert horizon_guess(np.zeros((200, 100), bool)) == pytest.approx(110)


def test_the_stage_without_a_network():
    """Mask, rule, area and scale come out; no residual, since there is no plane; the photo stays."""
    outcome = Ground(GroundParams()).process_one({"id": "a", "source": scene(), "licence": "CC0"})
    assert isinstance(outcome, Kept)
    (out,) = outcome.records
    assert out["ground_rule"] == "lower-region"
    assert out["ground_residual"] is None
    assert out["ground_area"] == pytest.approx(float(out["ground_mask"].mean()))
    a, b, c = out["ground_scale"]
    ys, xs = np.nonzero(out["ground_mask"])
    assert (a * xs + b * ys + c > 0).all()
    assert out["licence"] == "CC0"


def test_a_picture_without_a_calm_foot_is_rejected():
    """Strong texture everywhere: there is nothing to stand on. Tiny and flat pictures do not crash."""
    checks = (np.indices((240, 320)).sum(axis=0) // 6 % 2 * 255).astype(np.uint8)
    outcome = Ground(GroundParams()).process_one({"id": "a", "source": np.dstack([checks, 255 - checks, checks])})
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "no ground"
    for shape in ((1, 1, 3), (3, 500, 3), (500, 3, 3)):
        assert Ground(GroundParams()).process_one({"id": "a", "source": np.full(shape, 90, np.uint8)}) is not None


def test_depth_without_weights_is_refused_before_the_run():
    """The backend with a network says that it needs one."""
    with pytest.raises(ValidationError, match="needs weights"):
        GroundParams(backend="depth-onnx")


@pytest.mark.skipif(not DEPTH.exists(), reason="no assets")
def test_depth_on_photographs():
    """On the beach and the harbour the water or sand at the bottom is ground, the sky is not; runs repeat exactly."""
    stage = Ground(GroundParams(backend="depth-onnx", weights=DEPTH))
    stage.setup()
    for name in ("06.png", "11.png", "12.png"):
        picture = np.ascontiguousarray(cv2.imread(str(BACKGROUNDS / name))[..., ::-1])
        record = {"id": name, "source": picture}
        outcome, again = stage.process_one(record), stage.process_one(record)
        assert isinstance(outcome, Kept)
        assert isinstance(again, Kept)
        (out,) = outcome.records
        assert np.array_equal(out["ground_mask"], again.records[0]["ground_mask"])
        assert out["ground_rule"] == "depth-plane"
        assert 0 <= out["ground_residual"] < 0.1
        assert out["ground_area"] > 0.1
        height = picture.shape[0]
        assert out["ground_mask"][: height // 3].mean() < 0.02
        a, b, c = out["ground_scale"]
        assert b > 0
        ys, xs = np.nonzero(out["ground_mask"])
        assert (a * xs + b * ys + c > 0).all()
