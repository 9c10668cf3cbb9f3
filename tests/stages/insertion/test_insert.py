"""What is painted into a photograph, and where; and what becomes of a painting that is no single object."""

import cv2
import numpy as np
import pytest
from support.inserters import DrawnInserter
from support.pair_scenes import compute_iou, freeze, make_floor
from support.paste_scenes import FLAT, make_ground_columns

from rasura.manifests.boxes import compute_bounds
from rasura.removers.base import Capability
from rasura.stages.effects import Effects, EffectsParams
from rasura.stages.insertion.confirm import Confirm, ConfirmParams
from rasura.stages.insertion.insert import Insert, InsertParams
from rasura.stages.insertion.regions import RegionLimits, find_region, is_free, list_object_boxes
from rasura.stages.registry import describe
from rasura.stages.segment import Segment, SegmentParams
from rasura.stages.stage import Kept, MissingColumns, Rejected

DRAWN = "support.inserters:DrawnInserter"


def make_photo(seed=0, height=240, width=320):
    return freeze(np.rint(make_floor(height, width, 40 + seed)).astype(np.uint8))


def make_record(name="a", seed=0, **more):
    return {"id": name, "source": make_photo(seed), "licence": "CC0", "scene_id": name, **more}


def make_stage(inserter=None, seed=0, **params):
    stage = Insert(InsertParams(inserters=(DRAWN,), **params), seed)
    if inserter is not None:
        inserter.set_texts(list(stage.texts.values()))
        stage.inserters = [inserter]
    return stage


def insert_one(inserter=None, record=None, **params):
    (outcome,) = make_stage(inserter, **params).process([record or make_record()])
    assert isinstance(outcome, Kept), outcome
    return outcome.records[0]


def run_chain(row, **limits):
    """Run the pair's stages and `confirm`."""
    segment = Segment(SegmentParams(backend="grabcut"))
    for stage in (Effects(EffectsParams()), segment, Confirm(ConfirmParams(**limits))):
        outcome = stage.process_one(row)
        if isinstance(outcome, Rejected):
            return outcome
        (row,) = outcome.records
    return row


def test_source_and_target_are_one_outside_the_foreground_mask_and_the_target_is_the_photograph():
    """Bit for bit, for several photographs; the object is where it was drawn, and the row says what it is."""
    for seed in range(4):
        record = make_record(f"p{seed}", seed)
        row = insert_one(record=record, min_height=0.35)
        x0, y0, x1, y1 = (int(value) for value in row["insert_box"])
        outside = np.ones(row["gt"].shape[:2], bool)
        outside[max(0, y0 - 8) : y1 + 8, max(0, x0 - 8) : x1 + 8] = False
        assert np.array_equal(row["input"][outside], record["source"][outside])
        done = run_chain(row, max_cut=1, max_rim=255)
        assert isinstance(done, dict), done
        assert np.array_equal(done["target"], record["source"])
        assert np.array_equal(done["source"][~done["foreground_mask"]], done["target"][~done["foreground_mask"]])
        assert not (done["mask"] & ~done["foreground_mask"]).any()
        assert (done["kind"], done["remover"], done["label"]) == ("inserted", "drawn", row["insert_class"])
        assert row["insert_text"] == f"a photo of a {row['insert_class']}"
        hole = ~outside
        drawn = DrawnInserter().draw(0 * record["source"], hole, 0, "").any(axis=2)  # on black, a shadow is black
        assert compute_iou(done["mask"], drawn) > 0.85


def test_a_row_depends_on_its_id_and_the_seed_alone():
    """Not on the batch, the order, or the rows beside it; another seed paints something else."""
    records = [make_record(name, seed) for seed, name in enumerate("abc")]
    together = make_stage().process(records)
    apart = [make_stage().process([record])[0] for record in reversed(records)][::-1]
    for first, second in zip(together, apart, strict=True):
        assert first.records[0].keys() == second.records[0].keys()
        for key, value in first.records[0].items():
            assert np.array_equal(value, second.records[0][key]), key
    other = make_stage(seed=1).process(records)
    assert any(a.records[0]["insert_box"] != b.records[0]["insert_box"] for a, b in zip(together, other, strict=True))
    classes = {make_stage().process([make_record(f"n{n}")])[0].records[0]["insert_class"] for n in range(12)}
    assert len(classes) > 3


def test_the_columns_are_those_that_the_stage_says():
    """No picture of the photograph's own row is passed on, nor a box or score of what it shows."""
    record = make_record(object_mask=np.zeros((240, 320), bool), box=[0.0, 0, 9, 9], detect_score=0.5, mask_area=0.1)
    stage = make_stage()
    columns = {key: "mask" if key == "object_mask" else "rgb" if key == "source" else "string" for key in record}
    (outcome,) = stage.process([record])
    assert set(outcome.records[0]) == set(stage.schema(columns))
    assert {"box", "detect_score", "mask_area", "object_mask"} & set(outcome.records[0]) == set()
    with pytest.raises(MissingColumns, match="source"):
        stage.schema({"id": "string"})
    assert "confirm" in describe("insert")


def test_the_region_is_free_of_what_the_photograph_shows():
    """Neither detected objects nor the photograph's own object mask reach into it, wherever they are."""
    rng = np.random.default_rng(3)
    mask = np.zeros((240, 320), bool)
    mask[120:220, 20:90] = True
    things = [200.0, 60, 300, 230]
    record = {"ground_things": things, "object_mask": mask}
    found = [find_region(make_photo(), "suitcase", record, RegionLimits(), np.random.default_rng(n)) for n in range(20)]
    assert sum(entry is not None for entry in found) > 5
    for entry in found:
        if entry is not None:
            box, rule = entry
            assert rule == "empty"
            assert is_free(box, list_object_boxes(record))
            assert not mask[box[1] : box[3], box[0] : box[2]].any()
    everything = {"ground_things": [0.0, 0, 320, 240]}
    assert find_region(make_photo(), "suitcase", everything, RegionLimits(), rng) is None


def test_on_a_measured_ground_the_object_stands_there_as_large_as_it_would_be():
    """Its foot is on the ground mask; a person is more than twice as tall as a suitcase at the same camera."""
    ground = np.zeros((240, 320), bool)
    ground[150:, 60:260] = True
    record = {"ground_mask": ground, "ground_scale": FLAT, **make_ground_columns(pitch=15, focal=260)}
    limits = RegionLimits(room=0, min_height=0.02, max_height=0.9)
    heights = {}
    for label in ("person", "suitcase"):
        tall = []
        for n in range(20):
            found = find_region(make_photo(), label, record, limits, np.random.default_rng(n))
            if found is not None:
                (x0, y0, x1, y1), rule = found
                assert rule == "ground"
                assert ground[y1 - 1, (x0 + x1) // 2]
                tall.append(y1 - y0)
        heights[label] = float(np.median(tall))
    assert heights["person"] > 2 * heights["suitcase"]


def test_classes_that_may_not_stand_there_are_not_painted():
    """No toilet on a road, no truck indoors; where nothing on the list may stand, the photograph is rejected."""
    road = make_record(ground_class="road", ground_place="outdoors")
    for n in range(6):
        row = insert_one(record={**road, "id": str(n)}, classes=("toilet", "suitcase"))
        assert row["insert_class"] == "suitcase"
    (outcome,) = make_stage(classes=("toilet",)).process([road])
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "no place"


def test_several_objects_a_photograph_have_ids_and_regions_of_their_own():
    """`count` rows for each inserter, each with another class or region."""
    (outcome,) = make_stage(count=3).process([make_record()])
    assert len({row["id"] for row in outcome.records}) == 3
    assert len({tuple(row["insert_box"]) for row in outcome.records}) == 3


class Misbehaving(DrawnInserter):
    """An inserter that does what `way` says."""

    capability = Capability("inserter", None, True, "Non-commercial", non_commercial=True, name="bad")
    name = "bad"

    def __init__(self, way):
        self.way = way

    def draw(self, picture, hole, seed, text):
        painted = super().draw(picture, hole, seed, text)
        x0, y0, x1, y1 = compute_bounds(hole)
        if self.way == "nothing":
            return picture
        if self.way == "darker":
            return np.clip(painted.astype(int) - 40, 0, 255).astype(np.uint8)
        if self.way == "shadow":  # light that comes from nothing
            dark = cv2.GaussianBlur(hole.astype(np.float32), (0, 0), 6)[..., None]
            return np.rint(picture * (1 - 0.4 * dark)).astype(np.uint8)
        out = picture.copy()
        if self.way == "cut":  # an object that goes on beyond the region
            out[y0 + 10 : y1, x0 : (x0 + x1) // 2] = (200, 30, 40)
        if self.way == "two":
            quarter = (x1 - x0) // 4
            out[y0 + 12 : y1 - 12, x0 + 10 : x0 + quarter] = (200, 30, 40)
            out[y0 + 12 : y1 - 12, x1 - quarter : x1 - 10] = (30, 40, 200)
        return out


@pytest.mark.parametrize(
    ("way", "reasons"),
    [
        ("nothing", {"no difference"}),
        ("darker", {"changed what lies outside"}),
        ("cut", {"cut off by the region"}),
        ("shadow", {"cut off by the region", "not confirmed", "no object found", "more than an object was painted"}),
    ],
)
def test_what_is_no_single_complete_object_is_rejected(way, reasons):
    """With the reason; what was measured is in the row that goes into `confirm`."""
    row = insert_one(Misbehaving(way))
    outcome = run_chain(row)
    assert isinstance(outcome, Rejected), outcome
    assert outcome.reason in reasons
    if way == "nothing":
        assert row["insert_change"] == 0
    if way == "darker":
        assert row["insert_outside"] == pytest.approx(40, abs=2)


def test_weights_whose_results_may_not_be_sold_are_named_in_the_licence():
    """As `inpaint` does."""
    assert insert_one(Misbehaving("two"))["licence"] == "CC0; made with bad: Non-commercial"


def test_a_detector_that_sees_another_class_rejects_only_where_that_is_asked_for():
    """`insert_seen` says what it saw; synonyms are one class."""
    row = insert_one(classes=("trash can",))
    done = run_chain({**row, "label": "dustbin", "box": [0.0, 0, 1, 1]}, require_label=True, max_cut=1, max_rim=255)
    assert (done["insert_seen"], done["label"]) == ("dustbin", "trash can")
    seen = {**row, "label": "dog", "box": [0.0, 0, 1, 1]}
    assert run_chain(seen, max_cut=1, max_rim=255)["insert_seen"] == "dog"
    outcome = run_chain(seen, require_label=True, max_cut=1, max_rim=255)
    assert (outcome.reason, outcome.detail) == ("not confirmed", "dog is seen where trash can was asked for")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"inserters": ("powerpaint",)}, "add `models: powerpaint:`"),
        ({"inserters": ("lama",), "models": {"lama": {"base": "x"}}}, "paints nothing by a text"),
        ({"inserters": (DRAWN, DRAWN)}, "named twice"),
        ({"inserters": (DRAWN,), "text": "a photo"}, "name the class"),
        ({"inserters": (DRAWN,), "text": "a {size} {label}"}, "nothing else in braces"),
        ({"inserters": (DRAWN,), "models": {"sd15": {"base": "x"}}}, "not among `inserters`"),
    ],
)
def test_a_recipe_that_names_no_inserter_is_refused_with_what_to_do(params, message):
    """Before anything is loaded."""
    with pytest.raises(ValueError, match=message):
        InsertParams(**params)


def test_a_remover_is_no_inserter():
    """A class of one's own without `paint` is refused by name."""
    with pytest.raises(ValueError, match="has no `set_texts` and `paint`"):
        Insert(InsertParams(inserters=("rasura.removers.opencv:telea",)))
