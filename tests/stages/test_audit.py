"""The audit: what it says about pairs whose faults are known."""

import cv2
import numpy as np
import pytest
from support.pair_scenes import capture, freeze, make_floor, make_scene

from rasura.stages.audit import Audit, AuditParams, compare_boxes, select_main_parts
from rasura.stages.effects import Effects, EffectsParams
from rasura.stages.pair import Pair, PairParams
from rasura.stages.select import Rule, Select, SelectParams, apply_rule
from rasura.stages.stage import Kept, MissingColumns

cv2.setNumThreads(1)


def run_audit(source, clean, **columns):
    record = {"id": "a", "input": freeze(source), "gt": freeze(clean)}
    for stage in (Pair(PairParams()), Effects(EffectsParams())):
        record = dict(stage.process_one(record).records[0])
    outcome = Audit(AuditParams()).process_one(record | columns)
    assert isinstance(outcome, Kept)
    return outcome.records[0]


def make_blocks(count, seed=0):
    """A floor on which `count` red blocks of one size stand, and the floor."""
    rng, empty = np.random.default_rng(seed), make_floor(seed=seed)
    full = empty.copy()
    for k in range(count):
        x, y = 20 + 65 * (k % 6), 40 + 130 * (k // 6)
        full[y : y + 60, x : x + 35] = (190, 40, 40)
    return capture(full, rng, 1.0), capture(empty, rng, 1.0)


def test_one_object_with_its_shadow_has_nothing_against_it():
    """A clean pair has no reason; its shadow is measured as an effect, and nothing about a detector is claimed."""
    pair = make_scene(seed=3)
    out = run_audit(pair.source, pair.clean, object_mask=pair.object_mask)
    assert out["audit_reason"] is None
    assert out["audit_objects"] == 1
    assert out["audit_noise"] < 0.05
    assert out["audit_effects"] > 0.25
    assert out["audit_agreement"] is None


def test_many_equal_changes_are_too_many_objects():
    """Five blocks of one size pass OSOR's limit of four; three do not."""
    assert run_audit(*make_blocks(5))["audit_reason"] == "too many objects"
    few = run_audit(*make_blocks(3))
    assert few["audit_objects"] == 3
    assert few["audit_reason"] is None


def test_a_picture_that_changed_all_over_is_a_collapsed_background():
    """Another floor altogether is neither an object nor noise: most of the picture differs."""
    rng = np.random.default_rng(5)
    first, second = (
        capture(make_floor(seed=s, colour=c), rng, 1.0) for s, c in ((1, (150, 140, 125)), (2, (90, 120, 160)))
    )
    record = {"input": first, "gt": second, "foreground_mask": np.ones(first.shape[:2], bool), "id": "a"}
    assert Audit(AuditParams()).process_one(record).records[0]["audit_reason"] == "background collapse"


def test_changes_strewn_beside_the_object_are_high_noise():
    """Leaves that moved all over the picture, each far smaller than the object but many, are noise."""
    pair = make_scene(seed=4)
    rng, source = np.random.default_rng(0), pair.source.copy()
    spots = np.zeros(source.shape[:2], np.uint8)
    for _ in range(90):
        x, y = int(rng.integers(0, 400)), int(rng.integers(0, 320))
        cv2.circle(spots, (x, y), 6, 1, -1)
    away = (spots > 0) & ~cv2.dilate(pair.foreground_mask.astype(np.uint8), np.ones((15, 15))).astype(bool)
    source[away] = (230, 230, 60)
    assert run_audit(source, pair.clean, object_mask=pair.object_mask)["audit_reason"] == "high noise"
    assert run_audit(pair.source, pair.clean, object_mask=pair.object_mask)["audit_noise"] < 0.05


def test_the_detected_object_must_be_the_one_that_changed():
    """The box of the object fits; one half its sides is outgrown; one elsewhere, or none, is no target."""
    pair = make_scene(seed=6)
    rows, columns = np.flatnonzero(pair.object_mask.any(1)), np.flatnonzero(pair.object_mask.any(0))
    x0, y0, x1, y1 = (float(v) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    fit = run_audit(pair.source, pair.clean, object_mask=pair.object_mask, box=[x0, y0, x1, y1])
    assert fit["audit_reason"] is None
    assert fit["audit_agreement"] == pytest.approx(1.0, abs=1e-6)
    half = [x0, y0, (x0 + x1) / 2, (y0 + y1) / 2]
    outgrown = run_audit(pair.source, pair.clean, object_mask=pair.object_mask, box=half)
    assert outgrown["audit_scale"] == pytest.approx(4.0, rel=0.05)
    assert outgrown["audit_reason"] == "scale overflow"
    aside = [x0 - (x1 - x0), y0, x0, y1]
    assert run_audit(pair.source, pair.clean, object_mask=pair.object_mask, box=aside)["audit_reason"] == (
        "no semantic target"
    )
    assert run_audit(pair.source, pair.clean, object_mask=pair.object_mask, box=None)["audit_reason"] == (
        "no semantic target"
    )


def test_select_acts_on_the_reason():
    """Kept where the reason is null, rejected where it is a listed one: the audit itself rejects nothing."""
    rule = Rule(any_of=["fine"], missing=True)
    assert apply_rule("audit_reason", None, rule) is None
    assert apply_rule("audit_reason", "high noise", rule) is not None
    columns = Audit(AuditParams()).schema(dict(Audit.needs))
    Select(SelectParams(keep={"audit_reason": rule})).schema(columns)
    with pytest.raises(MissingColumns):
        Audit(AuditParams()).schema({"source": Audit.needs["input"]})


def test_boxes_and_parts():
    """Agreement is the textbook IoU and ratio of areas; parts below 30 % of the largest are no objects."""
    assert compare_boxes(np.array([0, 0, 10, 10.0]), np.array([0, 5, 10, 15.0])) == pytest.approx((1 / 3, 1.0))
    assert compare_boxes(np.array([0, 0, 10, 10.0]), np.array([20, 0, 25, 10.0])) == pytest.approx((0.0, 2.0))
    mask = np.zeros((40, 40), bool)
    assert select_main_parts(mask)[0] == 0
    mask[:10, :10] = mask[20:26, :6] = mask[20:25, 20:25] = True
    count, parts = select_main_parts(mask)
    assert count == 2
    assert parts[:10, :10].all()
    assert not parts[20:25, 20:25].any()
