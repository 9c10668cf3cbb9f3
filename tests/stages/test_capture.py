"""A pair becomes a captured triplet."""

import cv2
import numpy as np
import pytest
from support.pair_scenes import freeze, make_scene

from rasura.manifests.schemas import Kind
from rasura.stages.capture import Capture, CaptureParams, blend_target, compute_feather_weight
from rasura.stages.stage import Rejected

cv2.setNumThreads(1)


def run(pair, **params):
    record = {
        "id": "x",
        "input": freeze(pair.source),
        "gt": freeze(pair.clean),
        "object_mask": freeze(pair.object_mask),
        "foreground_mask": freeze(pair.foreground_mask),
        "label": "blob",
    }
    return Capture(CaptureParams(**params)).process_one(record).records[0]


@pytest.mark.parametrize("feather", [0, 1, 6, 40])
def test_outside_the_foreground_target_is_source_bit_for_bit(feather):
    """Not one byte differs outside M_fg, though the two shots have different noise everywhere."""
    for seed in range(3):
        pair = make_scene(seed, noise=3)
        out = run(pair, feather=feather)
        outside = ~out["foreground_mask"]
        assert (pair.source != pair.clean)[outside].any()
        assert (out["target"] == out["source"])[outside].all()


def test_object_is_gone_without_a_ghost():
    """On M_o and 2 px around it (in M_fg) the target is gt bit for bit, and so it is deep inside the shadow."""
    pair = make_scene(1, noise=2)
    target = run(pair)["target"]
    rim = (cv2.dilate(pair.object_mask.astype(np.uint8), np.ones((3, 3))) > 0) & pair.foreground_mask
    assert (target == pair.clean)[rim].all()
    deep = cv2.erode(pair.foreground_mask.astype(np.uint8), np.ones((17, 17)), borderValue=1) > 0
    assert (target == pair.clean)[deep].all()


def test_hard_shadow_leaves_no_outline():
    """A hard shadow whose M_fg ends 2 px beyond it is gone to its last pixel: within 3 levels of gt inside it."""
    rng = np.random.default_rng(0)
    clean = np.clip(rng.normal(130, 2, (120, 160, 3)), 0, 255).astype(np.uint8)
    shadow = np.zeros((120, 160), bool)
    shadow[40:90, 50:130] = True
    source = np.where(shadow[..., None], clean * 0.5, clean).astype(np.uint8)
    where = cv2.dilate(shadow.astype(np.uint8), np.ones((5, 5))) > 0
    target = blend_target(source, clean, where, np.zeros_like(shadow), 6)
    assert np.abs(target.astype(int) - clean)[shadow].max() <= 3


def test_feather_rises_inside_only():
    """The weight is 0 outside, 1 on the object, and in between it never jumps by more than a fifth a pixel."""
    pair = make_scene(0)
    weight = compute_feather_weight(pair.foreground_mask, np.zeros_like(pair.object_mask), 8)
    assert (weight[~pair.foreground_mask] == 0).all()
    assert (weight[pair.foreground_mask] > 0).all()
    assert weight.max() == 1
    assert np.abs(np.diff(weight, axis=0)).max() < 0.2
    assert (compute_feather_weight(pair.foreground_mask, pair.object_mask, 8)[pair.object_mask] == 1).all()


def test_picture_border_is_no_rim():
    """A foreground cut by the picture's border is gt up to the border: nothing of it stays there."""
    where = np.zeros((60, 60), bool)
    where[:30, :30] = True
    weight = compute_feather_weight(where, np.zeros_like(where), 6)
    assert (weight[:20, :20] == 1).all()
    assert (compute_feather_weight(np.ones_like(where), np.zeros_like(where), 6) == 1).all()


def test_triplet_columns():
    """The pair's columns give way to the triplet's; M_o is part of M_fg; other columns stay."""
    pair = make_scene(2)
    out = run(pair)
    assert not {"input", "gt", "object_mask"} & set(out)
    assert out["kind"] == "captured"
    assert out["label"] == "blob"
    assert (out["source"] == pair.source).all()
    assert (out["mask"] == pair.object_mask).all()
    assert not (out["mask"] & ~out["foreground_mask"]).any()
    columns = dict(Capture.needs) | {"label": Kind.STRING}
    after = Capture(CaptureParams()).schema(columns)
    assert set(after) == {"kind", "source", "target", "mask", "foreground_mask", "label"}


def test_an_object_outside_foreground_mask_is_covered_all_the_same():
    """Where M_o reaches over M_fg, the stored M_fg is their union: the object leaves the target whole."""
    pair = make_scene(0)
    out = blend_target(pair.source, pair.clean, np.zeros_like(pair.object_mask), pair.object_mask)
    assert (out == pair.clean)[pair.object_mask].all()
    record = {"id": "x", "input": pair.source, "gt": pair.clean}
    record |= {"object_mask": np.zeros((320, 400), bool), "foreground_mask": pair.foreground_mask}
    assert Capture(CaptureParams()).process_one(record) == Rejected("no object found", "object_mask is empty")


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (3, 40)])
def test_tiny_pictures_pass(size):
    """Any size works, down to one pixel."""
    rng = np.random.default_rng(0)
    source, clean = rng.integers(0, 256, (2, *size, 3), np.uint8)
    mask = np.zeros(size, bool)
    mask[0, 0] = True
    target = blend_target(source, clean, mask, mask)
    assert (target[mask] == clean[mask]).all()
    assert (target[~mask] == source[~mask]).all()
