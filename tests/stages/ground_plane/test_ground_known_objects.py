"""The camera from things of known size that stand on its floor, and what is floor because they stand on it."""

import cv2
import numpy as np
import pytest

from rasura.manifests.schemas import Kind
from rasura.stages.background import Background
from rasura.stages.compositing.class_places import classify_ground, classify_scene, explain_misplacement
from rasura.stages.compositing.class_sizes import compute_silhouette, find_class_size, matches_proportions
from rasura.stages.compositing.projection import View
from rasura.stages.ground import Ground, GroundParams
from rasura.stages.ground_plane.known_objects import (
    CameraPrior,
    estimate_camera,
    limit_to_reliable_area,
    make_plane,
    mask_contact_points,
    select_sightings,
)
from rasura.stages.ground_plane.region import find_smooth_region
from rasura.stages.stage import Kept, MissingColumns, Params

SHAPE = (480, 640)
FOCAL = 554.0  # 60 degrees across
GUESS = CameraPrior(pitch=5.0, pitch_error=12.0)


def make_detections(pitch, height, feet, label="person", factor=1.0):
    """Boxes, as a detector finds them, of things with their feet on pixels before a camera that looks down by `pitch`
    from `height` metres; `factor` times as large as is usual."""
    n = make_plane(pitch, height, 0.0)
    view = View((float(n[0]), float(n[1]), float(n[2])), height, FOCAL, SHAPE[::-1])
    size = find_class_size(label)
    assert size is not None
    detections = []
    for x, y in feet:
        wide, tall = compute_silhouette(size, 0, float(view.depression(x, y)))
        scale = factor * float(view.pixels_per_unit(x, y))
        detections.append((label, 0.9, (x - wide * scale / 2, y - tall * scale, x + wide * scale / 2, y)))
    return detections


def estimate(detections, prior=GUESS, pixel=(320, 380), focal_reported=True):
    return estimate_camera(select_sightings(detections, SHAPE), prior, FOCAL, SHAPE, pixel, focal_reported)


def measure_pitch(plane):
    return float(np.rad2deg(np.arcsin(plane[2])))


@pytest.mark.parametrize(("pitch", "height", "off"), [(2, 1.6, 1), (12, 1.6, 1), (10, 3.0, 2), (-4, 1.2, 4)])
def test_things_at_several_distances_tell_horizon_and_height(pitch, height, off):
    """Four people whose feet are on one floor: the camera's pitch within a degree (4 where the camera is held low), the
    sizes within a tenth, and the error that is stated is true and far below that of a guess."""
    base = SHAPE[0] / 2 - FOCAL * np.tan(np.deg2rad(pitch))  # the horizon's row
    detections = make_detections(
        pitch, height, [(80, base + 90), (240, base + 130), (400, base + 175), (560, base + 190)]
    )
    assert len(select_sightings(detections, SHAPE)) == 4
    estimated = estimate(detections, pixel=(320, base + 150))
    assert measure_pitch(estimated.plane) == pytest.approx(pitch, abs=off)
    assert abs(measure_pitch(estimated.plane) - pitch) <= 2 * estimated.view_error
    own, true = (
        View(plane[:3], plane[3], FOCAL, SHAPE[::-1]) for plane in (estimated.plane, make_plane(pitch, height, 0.0))
    )
    assert own.pixels_per_unit(320, base + 150) == pytest.approx(true.pixels_per_unit(320, base + 150), rel=0.1)
    guess = estimate([], pixel=(320, base + 150))
    assert estimated.view_error < 0.5 * guess.view_error
    assert estimated.size_error < 0.12 < guess.size_error


def test_one_thing_tells_the_horizon_of_a_camera_at_eye_height():
    """One person 350 px above the lower border: with a camera held as cameras are the horizon is at the eyes. The size
    is right where they stand, and the view is less sure than with several."""
    detections = make_detections(14, 1.6, [(320, 420)])
    one = estimate(detections, pixel=(320, 420))
    assert measure_pitch(one.plane) == pytest.approx(14, abs=5)
    assert one.size_error < 0.22  # of 15 %, told wider than it was measured
    assert (
        one.view_error
        > estimate(detections + make_detections(14, 1.6, [(100, 240), (500, 300)]), pixel=(320, 420)).view_error
    )


def test_one_that_is_not_what_it_seems_moves_nothing():
    """Among four people of usual size a child half as tall and a giant on a pedestal: pitch within 3 degrees."""
    detections = make_detections(8, 1.6, [(60, 260), (180, 300), (300, 360), (420, 420)])
    outliers = make_detections(8, 1.6, [(520, 330)], factor=0.5) + make_detections(8, 1.6, [(600, 270)], factor=1.5)
    assert measure_pitch(estimate(detections + outliers).plane) == pytest.approx(8, abs=3)


def test_nothing_is_told_without_things():
    """The answer is the prior, with its own errors: an exact plane stays exact, a guess stays a guess; an assumed
    field of view adds to the error."""
    exact = estimate([], CameraPrior(20.0, 0.5, 1.4, 0.02))
    assert measure_pitch(exact.plane) == pytest.approx(20)
    assert exact.plane[3] == pytest.approx(1.4)
    assert exact.view_error < 1
    assert exact.size_error < 0.05
    assert estimate([]).view_error > 8
    assert estimate([], CameraPrior(20.0, 0.5, 1.4, 0.02), focal_reported=False).view_error > 3


@pytest.mark.parametrize(
    "detections",
    [
        [("person", 0.9, (0, 100, 60, 300))],
        [("person", 0.9, (200, 100, 260, 479))],
        [("person", 0.3, (200, 100, 260, 300))],
        [("person", 0.9, (200, 100, 330, 300))],
        [("person", 0.9, (200, 286, 204, 300))],
        [("bird", 0.9, (200, 100, 300, 300))],
        [("person", 0.9, (200, 100, 260, 300)), ("chair", 0.4, (190, 220, 270, 340))],
    ],
    ids=["cut at the left", "cut below", "unsure", "sitting", "tiny", "of any size", "behind a chair"],
)
def test_what_tells_no_size_is_left_out(detections):
    """Cut by the frame, unsure, sitting, tiny, of no usual size, hidden at its feet: no sighting; the whole one is."""
    assert not select_sightings(detections, SHAPE)
    assert len(select_sightings([("person", 0.9, (200, 100, 260, 300)), *detections[:0]], SHAPE)) == 1


def test_proportions_are_those_of_some_view():
    """A car from the side, ahead and from above is a car; one ten times as wide as high is not."""
    car = find_class_size("car")
    for yaw, down in ((0, 5), (90, 5), (0, 45)):
        assert matches_proportions(*compute_silhouette(car, yaw, down), car, 1.35)
    assert not matches_proportions(10, 1, car, 1.35)


def test_floor_is_what_things_stand_on():
    """Two floors of different colour, a wall between them: what a person stands on is taken although another one is
    at the lower border; nothing behind, above the horizon or under a box is left."""
    picture = np.zeros((240, 320, 3), np.uint8)
    picture[:] = (200, 60, 60)
    picture[120:190] = (90, 120, 90)
    picture[190:] = (40, 40, 160)
    picture[115:120] = picture[186:190] = 255
    thing = select_sightings([("person", 0.9, (150.0, 60.0, 180.0, 160.0))], (240, 320))
    feet = mask_contact_points(thing, (240, 320))
    region = find_smooth_region(picture, feet=feet)
    assert region[165:180].mean() > 0.9
    assert not region[195:].any()
    assert find_smooth_region(picture)[195:].mean() > 0.8
    plane = (0.0, 1.0, 0.0, 1.6)  # its horizon is row 120
    kept = limit_to_reliable_area(np.ones((240, 320), bool), [(150, 60, 180, 160)], thing, plane, 300.0, 1.25)
    assert not kept[:150].any()  # 40 rows below the horizon at the feet: a quarter farther is 32 rows
    assert kept[155:, :140].all()
    assert not kept[60:160, 150:180].any()


def test_a_pairs_own_object_tells_the_floor_it_was_taken_from():
    """No network: the removed person's mask and label turn the guess into a measured floor; an unsure label, or a cut
    object, does not. The empty scene keeps what was measured."""
    picture = np.full((*SHAPE, 3), 120, np.uint8)
    picture[:250] = np.random.default_rng(0).integers(0, 255, (250, SHAPE[1], 3))  # a wall
    (_, _, (x0, y0, x1, y1)), *_ = make_detections(14, 1.6, [(320, 420)])
    mask = np.zeros(SHAPE, bool)
    mask[round(y0) : round(y1), round(x0) : round(x1)] = True
    pair = {"id": "a", "input": picture, "gt": picture, "object_mask": mask, "label": "person"}
    pair |= {"camera_fov": 60.0}
    stage = Ground(GroundParams())

    def look(**more):
        outcome = stage.process_one(pair | more)
        assert isinstance(outcome, Kept)
        return outcome.records[0]

    known, guess = look(), look(label=None)
    assert known["ground_rule"] == "lower-region, things"
    assert known["ground_seen"] == 1
    assert known["ground_metric"] is True
    assert known["ground_view_error"] < 8 < guess["ground_view_error"]
    assert guess["ground_rule"] == "lower-region"
    assert look(detect_score=0.2)["ground_seen"] == 0
    cut = np.zeros(SHAPE, bool)
    cut[200:, 300:360] = True
    assert look(object_mask=cut)["ground_seen"] == 0


def test_a_triplets_target_is_a_background_too():
    """Its target becomes the photo; what belongs to the object goes, what was measured of the floor stays."""
    columns = {"target": Kind.RGB, "mask": Kind.MASK, "kind": Kind.STRING, "ground_plane": Kind.FLOATS}
    schema = Background(Params()).schema(columns)
    assert set(schema) == {"source", "width", "height", "ground_plane"}
    target = np.zeros((4, 5, 3), np.uint8)
    outcome = Background(Params()).process_one({"id": "a", "target": target})
    assert isinstance(outcome, Kept)
    assert outcome.records[0]["source"] is target
    with pytest.raises(MissingColumns, match="gt"):
        Background(Params()).schema({"source": Kind.RGB})


def test_places_are_told_by_what_belongs_there():
    """A sink is indoors, a bus outdoors, both say nothing; a floor's class counts as well."""
    assert classify_scene(["person", "sink"], None) == "indoors"
    assert classify_scene(["bus"], None) == "outdoors"
    assert classify_scene(["bus", "sink"], None) is classify_scene(["person"], None) is classify_scene([], None) is None
    assert classify_scene([], "grass-merged") == "outdoors"
    assert classify_ground("floor, flooring") == classify_ground("floor-wood") == "floor"
    assert classify_ground("water") is classify_ground(None) is None


@pytest.mark.parametrize(
    ("label", "floor", "place", "wrong"),
    [
        ("car", None, "indoors", True),
        ("car", None, "outdoors", False),
        ("automobile", None, None, True),
        ("car", "floor, flooring", None, True),
        ("car", "road", None, False),
        ("toilet", None, "outdoors", True),
        ("chair", None, None, False),
        ("person", None, "indoors", False),
        (None, None, None, False),
        ("cup", "table", "indoors", False),
        ("chair", "table", "indoors", True),
        (None, "table", "indoors", True),
    ],
)
def test_things_stand_where_their_class_can(label, floor, place, wrong):
    """No car in a kitchen or where nobody knows, no toilet on a meadow, nothing tall on a table; the rest anywhere."""
    assert (explain_misplacement(label, floor, place) is not None) is wrong


def test_floors_of_photographs(assets):
    """With YOLOX: of the kerb with people the view and sizes are known, and a person's own height is what it shows; a
    bathroom's wall and a house front stay guesses of view or size."""
    stage = Ground(GroundParams(object_detector=str(assets / "weights" / "yolox_nano_416.onnx")))
    stage.setup()

    def look(name):
        picture = np.ascontiguousarray(cv2.imread(str(assets / "photos" / name))[..., ::-1])
        outcome = stage.process_one({"id": name, "source": picture})
        assert isinstance(outcome, Kept)
        return outcome.records[0]

    street = look("coco/000000252219.jpg")
    assert street["ground_seen"] >= 2
    assert street["ground_view_error"] < 8
    assert street["ground_size_error"] < 0.15
    a, b, c = street["ground_scale"]
    assert (372 - 175) / (a * 362 + b * 372 + c) == pytest.approx(1.7, rel=0.12)  # the man with the cart
    assert street["ground_mask"][400:410, 150:230].mean() > 0.8
    for name in ("backgrounds/01.png", "coco/000000542145.jpg"):
        wall = look(name)
        assert wall["ground_view_error"] > 8 or wall["ground_size_error"] > 0.3
