"""`inspect` and `repair`: every planted fault is named, clean pairs pass, and what is repaired is exact afterwards."""

from typing import Any

import cv2
import numpy as np
import pytest
from support.pair_scenes import Scene, capture, freeze, make_floor, make_scene, move_camera

from rasura.manifests.errors import InputError
from rasura.stages.curation.exposure_change import measure_exposure_change
from rasura.stages.curation.faults import change_limits, find_faults
from rasura.stages.curation.inspection import Inspect, InspectParams, find_change_outside
from rasura.stages.curation.repair import UNTOUCHED, Repair, RepairParams
from rasura.stages.registration.exposure import IDENTITY
from rasura.stages.registration.similarity import (
    NO_MOTION,
    Similarity,
    build_matrix,
    estimate_similarity,
    read_matrix,
    warp_and_fill,
)
from rasura.stages.stage import Kept, Record, Rejected

HEIGHT, WIDTH, SEED = 200, 260, 41


def inspect(source: Any, clean: Any, mask: Any = None, **columns: Any) -> Record:
    """Inspect a pair of read-only pictures and return its row."""
    record = {"id": "a", "input": freeze(source), "gt": freeze(clean), "given_mask": mask, "kind": None} | columns
    outcome = Inspect(InspectParams(pictures=True)).process_one(record)
    assert isinstance(outcome, Kept)
    return dict(outcome.records[0])


def list_reasons(row: Record) -> list[str]:
    return [fault.limit.reason for fault in find_faults(row) if fault.limit.level == "fault"]


def view_again(scene_seed: int, motion: tuple[float, ...] = (0, 0, 0, 1), gain: Any = 1.0) -> Any:
    """The scene's clean picture by another camera."""
    floor = move_camera(make_floor(HEIGHT, WIDTH, scene_seed), *motion)
    return capture(floor * gain, np.random.default_rng(7), 1.0)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene(SEED, HEIGHT, WIDTH)


def test_faults_are_named_and_clean_pairs_have_none(scene: Scene) -> None:
    """Shift, zoom, turn, exposure, white balance, a thing elsewhere, a foreign mask, swapped pictures; and nothing."""
    elsewhere = scene.clean.copy()
    cv2.ellipse(elsewhere, (225, 25), (20, 14), 0, 0, 360, (30, 90, 160), -1)
    foreign = np.zeros(scene.object_mask.shape, bool)
    foreign[150:190, 200:250] = True
    cases = {
        "shifted": (scene.source, view_again(SEED, (0.35, 0, 0, 1)), scene.object_mask),
        "zoomed": (scene.source, view_again(SEED, (0, 0, 0, 1.006)), scene.object_mask),
        "turned": (scene.source, view_again(SEED, (0, 0, 0.3, 1)), scene.object_mask),
        "exposure or white balance": (scene.source, view_again(SEED, gain=1.02), scene.object_mask),
        "change outside": (scene.source, elsewhere, scene.object_mask),
        "source and target swapped": (scene.clean, scene.source, scene.object_mask),
    }
    for reason, (source, clean, mask) in cases.items():
        assert reason in list_reasons(inspect(source, clean, mask)), reason
    tinted = inspect(scene.source, view_again(SEED, gain=np.array([1.0, 1.0, 0.975])), scene.object_mask)
    assert "exposure or white balance" in list_reasons(tinted)
    wrong = inspect(scene.source, scene.clean, foreign)
    assert wrong["inspect_verdict"] is not None or list_reasons(wrong)
    for mask in (scene.object_mask, None):
        row = inspect(scene.source, scene.clean, mask)
        assert row["inspect_verdict"] is None
        assert list_reasons(row) == []


@pytest.mark.parametrize("gain", [1.01, 0.99])
def test_one_per_cent_on_stored_levels_is_a_change_of_exposure(scene: Scene, gain: float) -> None:
    """Rounding to 8 bits changes nothing below level 50 and one whole level above: its steps are no object's light.
    What was matched is said, and is matched."""
    changed = np.clip(np.rint(scene.clean * gain), 0, 255).astype(np.uint8)
    dark = np.rint(scene.clean * 0.35).astype(np.uint8)  # half of its levels are rounded to what they were
    for source, target in ((scene.source, changed), (np.rint(scene.source * 0.35).astype(np.uint8), dark)):
        found = measure_exposure_change(source, target, IDENTITY)
        assert (found.size > 0.0075) == (target is changed), "of 1 %; and of none"
    row = inspect(scene.source, changed, scene.object_mask)
    assert list_reasons(row) == ["exposure or white balance"]
    outcome = Repair(RepairParams()).process_one(row)
    assert isinstance(outcome, Kept)
    assert outcome.records[0]["repair_done"] == "exposure, outside"
    before, after = (
        abs((picture.astype(np.float32) - scene.clean)[scene.foreground_mask].mean())
        for picture in (changed, outcome.records[0]["target"])
    )
    assert after < 0.4 * before


def test_repaired_rows_are_exact_and_others_stay(scene: Scene) -> None:
    """A moved and darker target is laid on the source and equals it outside; an exact one keeps every bit; a wrong mask
    or a picture of another size leaves the row out."""
    stage = Repair(RepairParams())
    row = inspect(scene.source, view_again(SEED, (0.6, -0.4, 0.1, 1.004), 0.97), scene.object_mask)
    outcome = stage.process_one(row)
    assert isinstance(outcome, Kept)
    (made,) = outcome.records
    assert {"registration", "exposure", "outside"} == set(made["repair_done"].split(", "))
    outside = ~made["foreground_mask"]
    assert outside.mean() > 0.3
    assert (made["target"] == made["source"])[outside].all()
    floor = make_floor(HEIGHT, WIDTH, SEED)
    before, after = (
        np.abs(picture.astype(np.float32) - floor)[scene.object_mask].mean()
        for picture in (view_again(SEED, (0.6, -0.4, 0.1, 1.004), 0.97), made["target"])
    )
    assert after < 0.6 * before
    exact = np.where(scene.foreground_mask[..., None], scene.clean, scene.source)
    row = inspect(scene.source, exact, scene.object_mask, given_foreground_mask=scene.foreground_mask)
    outcome = stage.process_one(row)
    assert isinstance(outcome, Kept)
    assert outcome.records[0]["repair_done"] == UNTOUCHED
    assert (outcome.records[0]["target"] == exact).all()
    swapped = stage.process_one(inspect(scene.clean, scene.source, scene.object_mask))
    assert isinstance(swapped, Rejected)
    sizes = inspect(scene.source, scene.clean[:-8], scene.object_mask)
    assert sizes["inspect_verdict"].startswith("pictures of two sizes")
    assert isinstance(stage.process_one(sizes), Rejected)


def test_rows_that_cannot_be_compared() -> None:
    """No target is a rejection; equal pictures, black ones and tiny ones are rows with a verdict, not errors."""
    stage = Inspect(InspectParams())
    picture = np.full((40, 50, 3), 90, np.uint8)
    assert isinstance(stage.process_one({"id": "a", "source": picture, "target": None, "mask": None}), Rejected)
    for source, target in ((picture, picture), (picture * 0, picture * 0), (picture[:3, :5], picture[:3, :5] + 40)):
        outcome = stage.process_one({"id": "a", "source": freeze(source), "target": freeze(target), "mask": None})
        assert isinstance(outcome, Kept)
        assert set(outcome.records[0]) - {"id", "mask", "split"} <= set(stage.gives)


def test_similarities_are_inverse_to_each_other() -> None:
    """A matrix gives its similarity back; an estimate undoes what a camera did; equal pictures have not moved."""
    similarity = Similarity(0.012, -0.7, 3.5, -1.25)
    assert read_matrix(build_matrix(similarity, 640, 480), 640, 480) == pytest.approx(similarity, abs=1e-9)
    floor = make_floor(HEIGHT, WIDTH, SEED + 1)
    first, second = (capture(picture, np.random.default_rng(n), 1) for n, picture in enumerate((floor, floor)))
    assert estimate_similarity(first, first.copy()) == NO_MOTION
    assert estimate_similarity(first, second) == NO_MOTION
    moved = capture(move_camera(floor, 2.0, 1.0, 0.4, 0.99), np.random.default_rng(3), 1)
    estimate = estimate_similarity(first, moved)
    assert estimate.zoom == pytest.approx(1 / 0.99 - 1, abs=5e-4)
    assert abs(estimate.turn) == pytest.approx(0.4, abs=0.03)
    again = warp_and_fill(moved, estimate, first).astype(np.float32)
    assert np.abs(again - first)[8:-8, 8:-8].mean() < 0.6 * np.abs(moved.astype(np.float32) - first)[8:-8, 8:-8].mean()


def test_change_outside_spares_effects() -> None:
    """What touches the mask, or comes near it, is its effect; what is apart is outside; a given M_fg is believed."""
    mask, shadow, apart = np.zeros((3, 100, 100), bool)
    mask[20:40, 20:40], shadow[40:44, 20:60], apart[80:90, 80:95] = True, True, True
    changed = mask | shadow | apart
    assert find_change_outside(changed, changed, mask, None)[82:88, 82:93].all()
    assert not find_change_outside(changed, changed, mask, None)[:70].any()
    assert find_change_outside(changed, changed, mask, mask)[:, 50:60].any()
    assert not find_change_outside(changed, changed, None, None).any()


def test_limits_can_be_changed_by_column() -> None:
    """Of a column that has one; NaN and null pass."""
    row = {"inspect_shift": 0.3, "inspect_swap": -3.0}
    assert [fault.limit.repair for fault in find_faults(row)] == [None, "registration"]
    assert find_faults(row, change_limits({"inspect_shift": 0.4, "inspect_swap": -4})) == []
    assert find_faults({"inspect_shift": float("nan"), "inspect_zoom": None}) == []
    with pytest.raises(InputError, match="did you mean 'inspect_shift'"):
        change_limits({"inspect_shft": 1})
