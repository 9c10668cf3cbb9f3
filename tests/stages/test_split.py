"""Stage `split`: every pixel goes to one object, thin gaps do not split an object, a cut by the frame is measured."""

import numpy as np
import pytest

from rasura.manifests.schemas import Kind
from rasura.stages.detect import list_detections
from rasura.stages.detectors.boxes import Detection
from rasura.stages.split import Split, SplitParams, label_objects, measure_frame_share, spread_labels
from rasura.stages.stage import Kept, Rejected


def make_two_objects() -> tuple[np.ndarray, np.ndarray]:
    """A cut-out of two boxes with a shadow to the right of each; the second is smaller."""
    rgba = np.zeros((60, 120, 4), np.uint8)
    mask = np.zeros((60, 120), bool)
    for x, width in ((5, 20), (70, 12)):
        mask[20:50, x : x + width] = True
        rgba[20:50, x : x + width] = (200, 50, 50, 255)
        rgba[44:50, x + width : x + width + 18] = (0, 0, 0, 90)
    return rgba, mask


def test_every_pixel_goes_to_one_object() -> None:
    """The parts laid back where they came from give the cut-out again, each shadow with its own object."""
    rgba, mask = make_two_objects()
    light = np.zeros_like(rgba[..., :3])
    light[50:56, 5:40], light[50:56, 70:90] = 7, 9  # a reflection below each, where alpha is 0
    record = {
        "id": "p",
        "source": np.zeros((200, 300, 3), np.uint8),
        "foreground": rgba,
        "foreground_light": light,
        "foreground_object": mask,
        "foreground_box": [30.0, 40.0, 150.0, 100.0],
        "label": "box",
    }
    outcome = Split(SplitParams()).process_one(record)
    assert isinstance(outcome, Kept)
    first, second = outcome.records
    assert (first["id"], first["label"]) == ("p.o0", "box")
    assert (second["id"], second["label"]) == ("p.o1", None)
    again, again_light = np.zeros_like(rgba), np.zeros_like(light)
    for part in outcome.records:
        x0, y0, x1, y1 = (int(value) for value in part["foreground_box"])
        window = np.s_[y0 - 40 : y1 - 40, x0 - 30 : x1 - 30]
        assert not (again[window][..., 3] & part["foreground"][..., 3]).any()
        again[window] += part["foreground"]
        again_light[window] += part["foreground_light"]
    assert (again == rgba).all()
    assert (again_light == light).all()
    assert first["foreground"][..., 3].sum() > second["foreground"][..., 3].sum()
    assert (first["picture_width"], first["picture_height"]) == (300, 200)


def test_each_cut_out_has_its_own_label() -> None:
    """Where the pair's picture was searched, each object is named by the detection on it, also two of one class; what
    nothing was found on has no name."""
    rgba, mask = make_two_objects()
    record = {
        "id": "p",
        "source": np.zeros((200, 300, 3), np.uint8),
        "foreground": rgba,
        "foreground_light": np.zeros_like(rgba[..., :3]),
        "foreground_object": mask,
        "foreground_box": [30.0, 40.0, 150.0, 100.0],
        "label": "person",
        "detect_score": 0.9,
    }
    left, right = (
        Detection("person", 0.9, (34.0, 59.0, 56.0, 91.0)),
        Detection("person", 0.7, (99.0, 60.0, 113.0, 90.0)),
    )
    for detections, labels, scores in (
        ([left, right], ["person", "person"], [0.9, 0.7]),
        ([left, right._replace(label="dog")], ["person", "dog"], [0.9, 0.7]),
        ([left], ["person", None], [0.9, None]),
    ):
        outcome = Split(SplitParams()).process_one(record | list_detections(detections))
        assert isinstance(outcome, Kept)
        assert [part["label"] for part in outcome.records] == labels
        assert [part["detect_score"] for part in outcome.records] == scores


def test_measurements_of_the_light_are_passed_on_to_each_object() -> None:
    """Columns of light and ground plane that the pair has are passed on to each object; missing ones are not added."""
    rgba, mask = make_two_objects()
    light = {"shadow_azimuth": 40.0, "shadow_cluster": 1, "ground_plane": [0.0, 1.0, 0.0, 1.5], "ground_metric": True}
    record = {
        "id": "p",
        "source": np.zeros((200, 300, 3), np.uint8),
        "foreground": rgba,
        "foreground_light": np.zeros_like(rgba[..., :3]),
        "foreground_object": mask,
        "foreground_box": [30.0, 40.0, 150.0, 100.0],
        "true_floor": mask,
    } | light
    outcome = Split(SplitParams()).process_one(record)
    assert isinstance(outcome, Kept)
    for part in outcome.records:
        assert {name: part[name] for name in light} == light
        assert "shadow_softness" not in part
        assert "true_floor" not in part
    before = {**Split.needs, "shadow_azimuth": Kind.FLOAT, "ground_plane": Kind.FLOATS, "true_floor": Kind.MASK}
    after = Split(SplitParams()).schema(before)
    assert {"shadow_azimuth", "ground_plane", "foreground_light"} <= set(after)
    assert not {"true_floor", "source"} & set(after)


def test_pieces_close_together_are_one_object() -> None:
    """A narrow gap or a speck makes no second object; a wide gap does."""
    mask = np.zeros((40, 60), bool)
    mask[10:30, 5:20] = mask[10:30, 24:40] = True
    mask[2:4, 55:57] = True
    assert label_objects(mask, 8, 0.08).max() == 1
    assert label_objects(mask, 2, 0.08).max() == 2
    assert ((label_objects(mask, 2, 0.08) > 0) == mask).all()


def test_labels_spread_to_the_nearest_pixels() -> None:
    """Each pixel belongs to the label that is closest to it."""
    seeds = np.zeros((20, 40), np.int32)
    seeds[10, 5], seeds[10, 34] = 1, 2
    cells = spread_labels(seeds)
    assert (cells[:, :19] == 1).all()
    assert (cells[:, 21:] == 2).all()
    assert not spread_labels(np.zeros((4, 4), np.int32)).any()


@pytest.mark.parametrize(("box", "cut"), [((0, 10, 20, 30), True), ((5, 10, 25, 30), False), ((5, 180, 25, 200), True)])
def test_an_object_cut_by_the_frame_is_recognized(box: tuple[int, int, int, int], cut: bool) -> None:
    """The share of the outline on the frame is high where the picture ends at the object, and 0 elsewhere."""
    share = measure_frame_share(np.ones((20, 20), bool), box, (300, 200))
    assert (share > 0.2) == cut
    assert share == 0 or cut


def test_an_empty_object_mask_is_rejected() -> None:
    """A cut-out without an object has nothing to paste."""
    rgba, _ = make_two_objects()
    record = {"id": "p", "source": rgba[..., :3], "foreground": rgba, "foreground_light": rgba[..., :3]}
    record["foreground_box"] = [0.0, 0.0, 120.0, 60.0]
    outcome = Split(SplitParams()).process_one({**record, "foreground_object": np.zeros((60, 120), bool)})
    assert isinstance(outcome, Rejected)


def test_effects_off_the_ground_are_removed() -> None:
    """Of a shadow on the ground and on a wall, the part on the wall is removed with its light; the other part and the
    object are unchanged, and the share is reported. Where the ground plane was not measured nothing is removed."""
    rgba, mask = make_two_objects()
    light = np.zeros_like(rgba[..., :3])
    light[44:50, 25:43] = light[44:50, 82:100] = 9
    floor = np.zeros((200, 300), bool)
    floor[:, :90] = True  # columns up to 60 of the cut-out; the second object's shadow is on the wall
    record = {
        "id": "p",
        "source": np.zeros((200, 300, 3), np.uint8),
        "foreground": rgba,
        "foreground_light": light,
        "foreground_object": mask,
        "foreground_box": [30.0, 40.0, 150.0, 100.0],
        "ground_mask": floor,
        "ground_rule": "lower-region, things",
    }
    outcome = Split(SplitParams(fade=0)).process_one(record)
    assert isinstance(outcome, Kept)
    first, second = outcome.records
    assert first["foreground_on_floor"] == second["foreground_on_floor"] == pytest.approx(0.5)
    assert (first["foreground"][..., 3] == 90).sum() == 6 * 18
    assert not ((second["foreground"][..., 3] > 0) & ~second["foreground_object"]).any()
    assert not second["foreground_light"].any()
    assert (first["foreground_light"] == 9).sum() == 3 * 6 * 18
    assert (second["foreground"][..., 3][second["foreground_object"]] == 255).all()
    for more in ({"ground_rule": "lower-region"}, {"ground_mask": None}, {"ground_rule": None}):
        outcome = Split(SplitParams()).process_one(record | more)
        assert isinstance(outcome, Kept)
        assert outcome.records[0]["foreground_on_floor"] is None
        assert (outcome.records[1]["foreground"][..., 3] == 90).any()
