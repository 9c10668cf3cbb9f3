"""Floors and horizons that people drew, and what is said of a camera: read strictly, and used before any estimate."""

import json

import numpy as np
import pytest

from rasura.manifests.camera_tags import read_camera_pose
from rasura.stages.compositing.projection import View
from rasura.stages.ground import Ground, GroundParams
from rasura.stages.ground_plane.drawing import BadDrawing, hash_drawings, list_drawings, parse_drawing
from rasura.stages.stage import Kept, Rejected

BASE = {"version": 1, "width": 640, "height": 480}
FLOOR = [[[0, 480], [640, 480], [400, 300], [200, 300]]]
SHAPE = (480, 640)


def picture(seed=0):
    """A busy picture in which no estimate sees a floor, (480, 640, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 255, (*SHAPE, 3)).astype(np.uint8)


def write(folder, name, **keys):
    path = folder / f"{name}.ground.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(BASE | keys))
    return path


def look(record, **params):
    stage = Ground(GroundParams(**params))
    stage.setup()
    return stage.process_one({"id": "a", "source": picture()} | record)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"version": 2}, "version"),
        ({"width": 0}, "width"),
        ({"flor": FLOOR}, "flor"),
        ({"floor": [[[0, 0], [5, 5]]]}, "floor"),
        ({"floor": [[[0, 0], [900, 0], [0, 100]]]}, "outside"),
        ({"floor": [[[0, 0], [10, 0], [20, 0]]]}, "no area"),
        ({"floor": [[[0, 0], [float("nan"), 0], [0, 100]]]}, "floor"),
        ({"not_floor": FLOOR}, "cut out"),
        ({"horizon": [[0, 10]]}, "horizon"),
        ({"horizon": [[10, 0], [12, 400]]}, "horizon"),
        ({"horizon": [[0, 0], [400, 400]]}, "tilted"),
        ({"uprights": [{"foot": [0, 10], "top": [0, 50], "metres": 2}]}, "above"),
        ({"uprights": [{"foot": [0, 90], "top": [0, 50], "metres": -2}]}, "metres"),
        ({"camera_height": "tall"}, "camera_height"),
        ({"camera_height": "1.5"}, "camera_height"),
        ({"camera_height": 900}, "camera_height"),
        ({"floor": [[[0, 300], [400, 100], [400, 300], [0, 100]]]}, "cross each other"),
        ({"floor": [[[0, 290], [300, 290], [200, 150]]], "horizon": [[0, 250], [400, 250]]}, "above the horizon"),
        ({"horizon": [[0, -5000], [400, -5000]]}, "heights from the picture's middle"),
        ({"horizon": [[0, 145], [400, 145]], "camera_pitch": 60}, "contradict"),
        ({"horizon": [[0, 145], [400, 145]], "camera_pitch": 20, "field_of_view": 60}, "contradict"),
    ],
)
def test_a_mistake_in_a_drawing_is_told_in_a_sentence(keys, words):
    """Unknown keys, wrong kinds, shapes without an area, points outside: the file and the key are named."""
    with pytest.raises(BadDrawing, match=words) as caught:
        parse_drawing(json.dumps(BASE | keys), "a.ground.json")
    assert "a.ground.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 5000, '{"version": 1}', "\x00"])
def test_what_is_no_drawing_is_told(text):
    with pytest.raises(BadDrawing):
        parse_drawing(text, "a")


def test_the_photographs_name_finds_its_drawing(tmp_path):
    """Beside the photo, or in a folder of drawings; two that fit equally well are an error, none is none."""
    write(tmp_path, "one", floor=FLOOR)
    write(tmp_path, "a/two", floor=FLOOR)
    write(tmp_path, "b/two", floor=FLOOR)
    drawings = list_drawings(tmp_path)
    for origin in (f"{tmp_path}/one.jpg", "photos/one.jpg", "s3://bucket/one.png", "one"):
        assert drawings.find(origin) == tmp_path / "one.ground.json"
    assert drawings.find("elsewhere/b/two.jpg") == tmp_path / "b/two.ground.json"
    assert drawings.find(f"{tmp_path}/c/one.jpg") is None  # inside the folder only what is beside
    assert drawings.find("three.jpg") is drawings.find("two.jpg") is drawings.find("") is None
    before = hash_drawings(tmp_path)
    write(tmp_path, "one", floor=FLOOR, camera_height=1.5)
    assert hash_drawings(tmp_path) != before
    for folder in (tmp_path / "absent", tmp_path / "a" / "x"):
        with pytest.raises(BadDrawing):
            list_drawings(folder)


def test_a_drawn_floor_and_horizon_are_used_as_they_are(tmp_path):
    """On a picture of noise: the area is the polygon without its hole, the horizon the drawn one, the metres the
    stated height's; a photo that was scaled since is the same, one of other proportions fails."""
    hole = [[[300, 400], [340, 400], [340, 440], [300, 440]]]
    write(tmp_path, "p", floor=FLOOR, not_floor=hole, horizon=[[0, 150], [640, 150]], camera_height=1.6)
    outcome = look({"origin": "x/p.jpg"}, drawings=str(tmp_path))
    assert isinstance(outcome, Kept)
    row = outcome.records[0]
    assert row["ground_rule"] == "drawn, horizon, camera"
    assert row["ground_mask"][470, 50:600].all()
    assert not row["ground_mask"][410:430, 310:330].any()
    assert not row["ground_mask"][:290].any()
    a, b, c = row["ground_scale"]
    assert a == pytest.approx(0, abs=1e-9)
    assert -c / b == pytest.approx(150, abs=0.5)
    assert 1.6 * b == pytest.approx(1, abs=0.05)
    assert row["ground_view_error"] < 6
    assert row["ground_size_error"] < 0.15
    assert row["ground_metric"] is True
    small = np.ascontiguousarray(picture()[::2, ::2])
    half = look({"origin": "p.jpg", "source": small}, drawings=str(tmp_path))
    assert isinstance(half, Kept)
    assert half.records[0]["ground_area"] == pytest.approx(row["ground_area"], abs=0.02)
    with pytest.raises(BadDrawing, match="640 x 480"):
        look({"origin": "p.jpg", "source": picture()[:300]}, drawings=str(tmp_path))
    other = look({"origin": "q.jpg"}, drawings=str(tmp_path))
    assert isinstance(other, Rejected) or "drawn" not in other.records[0]["ground_rule"]


@pytest.mark.parametrize("fov", [40.0, 75.0])
@pytest.mark.parametrize("pitch", [3.0, 25.0])
def test_an_upright_of_known_length_gives_the_metres(tmp_path, fov, pitch):
    """A door's edge of 2.03 m before a camera 1.4 m up that looks down: its sizes within a twentieth."""
    focal = 320 / np.tan(np.deg2rad(fov / 2))
    n = (0.0, float(np.cos(np.deg2rad(pitch))), float(np.sin(np.deg2rad(pitch))))
    view = View(n, 1.4, focal, SHAPE[::-1])
    foot, horizon = (320.0, 400.0), 240 - focal * n[2] / n[1]
    top = min(np.arange(-900.0, 399.0, 0.25), key=lambda row: abs(view.measure_height(foot, row) - 2.03))
    upright = {"foot": foot, "top": [320, float(top)], "metres": 2.03}
    write(tmp_path, "p", floor=FLOOR, horizon=[[0, horizon], [640, horizon]], uprights=[upright])
    outcome = look({"origin": "p.jpg", "camera_fov": fov}, drawings=str(tmp_path))
    assert isinstance(outcome, Kept)
    a, b, c = outcome.records[0]["ground_scale"]
    assert a * 320 + b * 400 + c == pytest.approx(float(view.pixels_per_unit(*foot)), rel=0.05)
    assert outcome.records[0]["ground_size_error"] < 0.1


@pytest.mark.parametrize("by", ["recipe", "columns"])
def test_a_camera_that_somebody_states_is_believed(by):
    """Height, pitch and field of view from the recipe or columns: that plane, with their errors; columns win."""
    plain = np.full((*SHAPE, 3), 120, np.uint8)
    plain[:200] = picture()[:200]
    if by == "recipe":
        outcome = look({"source": plain}, camera_height=2.0, pitch=20.0, field_of_view=50.0)
    else:
        columns = {"camera_height": 2.0, "camera_pitch": 20.0, "camera_fov": 50.0}
        outcome = look({"source": plain} | columns, camera_height=9.0, pitch=1.0, field_of_view=90.0)
    assert isinstance(outcome, Kept)
    row = outcome.records[0]
    assert row["ground_plane"] == pytest.approx([0, np.cos(np.deg2rad(20)), np.sin(np.deg2rad(20)), 2.0], abs=0.02)
    assert row["ground_focal"] == pytest.approx(320 / np.tan(np.deg2rad(25)))
    assert row["ground_view_error"] < 4
    assert row["ground_size_error"] < 0.2
    assert "camera" in row["ground_rule"]
    assert row["ground_metric"] is True


def test_a_field_of_view_that_nobody_states_is_of_the_longer_side():
    """Portrait and landscape pictures of one camera get one focal length."""
    focals = []
    for shape in ((480, 640), (640, 480)):
        outcome = look({"source": np.full((*shape, 3), 120, np.uint8)}, evidence="auto")
        assert isinstance(outcome, Kept)
        focals.append(outcome.records[0]["ground_focal"])
    assert focals[0] == focals[1] == pytest.approx(320 / np.tan(np.deg2rad(30)))


@pytest.mark.parametrize(("name", "value"), [("camera_height", -1.0), ("camera_pitch", 120.0), ("camera_fov", 400.0)])
def test_a_column_that_no_camera_has_fails(name, value):
    with pytest.raises(ValueError, match=name):
        look({name: value})


def test_metadata_tell_pitch_and_height():
    """A drone's XMP; nothing, broken or absurd values tell nothing."""
    xmp = b'<x drone-dji:RelativeAltitude="+12.50" drone-dji:GimbalPitchDegree="-30.10"/>'
    assert read_camera_pose(xmp) == {"camera_pitch": 30.1, "camera_height": 12.5}
    nothing = {"camera_pitch": None, "camera_height": None}
    low = b'<x drone-dji:RelativeAltitude="+0.50" drone-dji:GimbalPitchDegree="-95"/>'
    assert read_camera_pose(low) == read_camera_pose(b"") == read_camera_pose(b"\xff\xd8broken") == nothing
