"""Insertion against exact truth: rendered scenes whose objects an inserter paints into their empty floors."""

import numpy as np
import pytest
from support.inserters import StudioInserter, redraw_ground
from support.pair_scenes import compute_iou, make_floor, make_scene

from rasura.manifests.boxes import compute_bounds
from rasura.manifests.storage import Store
from rasura.stages.effects import Effects, EffectsParams
from rasura.stages.insertion.confirm import Confirm, ConfirmParams
from rasura.stages.insertion.ground_restoration import find_painted_ground, measure_redrawn, restore_ground
from rasura.stages.insertion.insert import Insert, InsertParams
from rasura.stages.segment import Segment, SegmentParams
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.studio.studio import Studio, StudioParams
from rasura.stages.stage import Rejected

SEED = 7700


@pytest.fixture(scope="module")
def scenes():
    """Four rendered scenes, small."""
    pytest.importorskip("mitsuba")
    source = Studio(StudioParams(count=4, seed=SEED, width=300, height=200, spp=16))
    source.setup()
    items = source.items(RunContext(Store("/nonexistent"), "scenes", SEED))
    return [dict(source.process_one(item).records[0]) for item in items]


def paint(scenes, **arguments):
    """Paint each scene and run the pair's stages and `confirm`; a row or a rejection for each."""
    stage = Insert(InsertParams(inserters=("support.inserters:StudioInserter",)))
    studio = StudioInserter(**arguments)
    studio.set_texts(list(stage.texts.values()))
    stage.inserters = [studio]
    chain = [Effects(EffectsParams()), Segment(SegmentParams(backend="grabcut")), Confirm(ConfirmParams())]
    outcomes = []
    for scene in scenes:
        studio.add_scene(scene["true_empty"], scene["input"], scene["true_object_mask"])
        x0, y0, x1, y1 = compute_bounds(scene["true_foreground_mask"] | scene["true_object_mask"])
        box = [max(0.0, x0 - 16), max(0.0, y0 - 16), min(300.0, x1 + 16), min(200.0, y1 + 16)]
        photo = {"id": scene["id"], "source": scene["true_empty"], "licence": "CC0", "insert_box": box}
        row = stage.process([photo])[0].records[0]
        assert row["insert_rule"] == "row"
        for step in chain:
            outcome = step.process_one(row)
            if isinstance(outcome, Rejected):
                row = outcome
                break
            (row,) = outcome.records
        outcomes.append(row)
    return outcomes


@pytest.mark.parametrize("quality", [None, 85])
def test_masks_of_a_painted_object_are_the_true_ones(scenes, quality):
    """M_o and M_fg of what was painted exactly, and of what went through a lossy code; the source shows the object."""
    rows = paint(scenes, quality=quality)
    kept = [(row, scene) for row, scene in zip(rows, scenes, strict=True) if isinstance(row, dict)]
    assert len(kept) >= 3, rows
    for row, scene in kept:
        truth = scene["true_foreground_mask"] | scene["true_object_mask"]
        assert compute_iou(row["mask"], scene["true_object_mask"]) > 0.65
        assert (row["foreground_mask"] & truth).sum() > 0.95 * truth.sum()
        assert np.array_equal(row["target"], scene["true_empty"])
        off = np.abs(row["source"].astype(int) - scene["input"]).max(axis=2)
        assert off[scene["true_object_mask"]].mean() < (1 if quality is None else 12)


def test_a_ground_that_was_drawn_anew_becomes_the_photographs(scenes):
    """Outside of the object and its shadow the source is the photograph again; what stays is nearer to the truth than
    without restoration, where nearly all of the region would be M_fg."""
    exact = paint(scenes)
    for row, plain, scene in zip(paint(scenes, quality=85, redrawn=True), exact, scenes, strict=True):
        if not isinstance(row, dict) or not isinstance(plain, dict):
            continue
        assert row["insert_redrawn"] > 0.5 > plain["insert_redrawn"]
        truth = scene["true_foreground_mask"] | scene["true_object_mask"]
        assert (row["foreground_mask"] & ~truth).mean() < 0.15
        assert compute_iou(row["mask"], scene["true_object_mask"]) > 0.5
    assert any(isinstance(row, dict) for row in paint(scenes, quality=85, redrawn=True))


def test_restoration_leaves_the_object_and_gives_the_shadow_to_the_photographs_own_details():
    """On a drawn scene: the object's inside to the bit, the far ground to the bit, the shadow within a few levels."""
    scene = make_scene(61, 240, 320, noise=0)
    photo = scene.clean
    region = np.zeros(photo.shape[:2], bool)
    x0, y0, x1, y1 = compute_bounds(scene.foreground_mask)
    region[max(0, y0 - 24) : y1 + 24, max(0, x0 - 24) : x1 + 24] = True
    anew = redraw_ground(scene.source, photo, scene.object_mask, region, 5, px=4)
    painted = np.where(region[..., None], anew, photo)
    ground = find_painted_ground(painted, photo, region)
    restored = restore_ground(painted, photo, ground, region)
    assert measure_redrawn(painted, photo, ground) > 0.5
    assert measure_redrawn(scene.source, photo, ground) < 0.1
    assert (ground & scene.object_mask).sum() < 0.02 * scene.object_mask.sum()
    untouched = scene.object_mask & ~ground
    assert np.array_equal(restored[untouched], painted[untouched])
    before, after = (np.abs(picture.astype(int) - scene.source).mean(axis=2) for picture in (painted, restored))
    around = region & ~scene.object_mask
    assert after[around].mean() < 0.5 * before[around].mean()
    far = region & ~scene.foreground_mask & ground
    assert (restored[far] == photo[far]).all(axis=1).mean() > 0.8
    assert np.array_equal(restored[~region], photo[~region])


def test_a_plain_floor_is_not_redrawn():
    """Where there are no details nothing can be said, and nothing is done."""
    photo = np.full((120, 160, 3), 128, np.uint8)
    region = np.ones((120, 160), bool)
    assert measure_redrawn(photo, photo, region) == 0.0
    floor = np.rint(make_floor(120, 160, 2)).astype(np.uint8)
    assert measure_redrawn(floor, floor, region) == 0.0
    assert np.array_equal(restore_ground(floor, floor, find_painted_ground(floor, floor, region), region), floor)
