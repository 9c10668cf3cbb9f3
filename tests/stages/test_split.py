"""Taking a cut-out apart: every pixel goes to one object, thin gaps do not tear an object, the frame's cut is seen."""

import numpy as np
import pytest

from rasura.manifests.schemas import Kind
from rasura.stages.split import Split, SplitParams, frame_share, nearest, objects
from rasura.stages.stage import Kept, Rejected


def _two() -> tuple[np.ndarray, np.ndarray]:
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
    rgba, mask = _two()
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


def test_what_is_known_of_the_light_goes_with_each_object() -> None:
    """Columns of light and floor that the pair has are each object's too; those it has not are not made up."""
    rgba, mask = _two()
    known = {"shadow_azimuth": 40.0, "shadow_cluster": 1, "ground_plane": [0.0, 1.0, 0.0, 1.5], "ground_metric": True}
    record = {
        "id": "p",
        "source": np.zeros((200, 300, 3), np.uint8),
        "foreground": rgba,
        "foreground_light": np.zeros_like(rgba[..., :3]),
        "foreground_object": mask,
        "foreground_box": [30.0, 40.0, 150.0, 100.0],
        "true_floor": mask,
    } | known
    outcome = Split(SplitParams()).process_one(record)
    assert isinstance(outcome, Kept)
    for part in outcome.records:
        assert {name: part[name] for name in known} == known
        assert "shadow_softness" not in part
        assert "true_floor" not in part
    given = {**Split.needs, "shadow_azimuth": Kind.FLOAT, "ground_plane": Kind.FLOATS, "true_floor": Kind.MASK}
    after = Split(SplitParams()).schema(given)
    assert {"shadow_azimuth", "ground_plane", "foreground_light"} <= set(after)
    assert not {"true_floor", "source"} & set(after)


def test_pieces_close_together_are_one_object() -> None:
    """A narrow gap or a speck makes no second object; a wide gap does."""
    mask = np.zeros((40, 60), bool)
    mask[10:30, 5:20] = mask[10:30, 24:40] = True
    mask[2:4, 55:57] = True
    assert objects(mask, 8, 0.08).max() == 1
    assert objects(mask, 2, 0.08).max() == 2
    assert ((objects(mask, 2, 0.08) > 0) == mask).all()


def test_nearest_is_the_nearest() -> None:
    """Each pixel belongs to the label that is closest to it."""
    seeds = np.zeros((20, 40), np.int32)
    seeds[10, 5], seeds[10, 34] = 1, 2
    cells = nearest(seeds)
    assert (cells[:, :19] == 1).all()
    assert (cells[:, 21:] == 2).all()
    assert not nearest(np.zeros((4, 4), np.int32)).any()


@pytest.mark.parametrize(("box", "cut"), [((0, 10, 20, 30), True), ((5, 10, 25, 30), False), ((5, 180, 25, 200), True)])
def test_an_object_cut_by_the_frame_is_seen(box: tuple[int, int, int, int], cut: bool) -> None:
    """The share of the outline on the frame is high where the picture ends at the object, and 0 elsewhere."""
    share = frame_share(np.ones((20, 20), bool), box, (300, 200))
    assert (share > 0.2) == cut
    assert share == 0 or cut


def test_an_empty_object_mask_is_rejected() -> None:
    """A cut-out without an object has nothing to paste."""
    rgba, _ = _two()
    record = {"id": "p", "source": rgba[..., :3], "foreground": rgba, "foreground_light": rgba[..., :3]}
    record["foreground_box"] = [0.0, 0.0, 120.0, 60.0]
    outcome = Split(SplitParams()).process_one({**record, "foreground_object": np.zeros((60, 120), bool)})
    assert isinstance(outcome, Rejected)


def test_effects_that_lay_on_no_floor_are_left_out() -> None:
    """A shadow that fell on the floor and on a wall: what lay on the wall goes, with its light, the floor's part stays
    as it was, the object is not touched, and the share is told. Where the floor is a guess nothing is taken."""
    rgba, mask = _two()
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
