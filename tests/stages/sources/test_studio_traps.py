import hashlib
import json
import math
from importlib.util import find_spec
from itertools import combinations
from typing import get_args

import numpy as np
import pytest

from rasura.stages.sources.studio import develop as studio_develop
from rasura.stages.sources.studio.render import render
from rasura.stages.sources.studio.scene import describe_scene, project, sample_vertices
from rasura.stages.sources.studio.studio import Studio, StudioParams
from rasura.stages.sources.studio.traps import EXCLUSIVE, Trap, describe_trap_scene, find_conflict
from rasura.stages.stage import InvalidValues, Kept

rendering = pytest.mark.skipif(find_spec("mitsuba") is None, reason="needs rasura[studio]")
TRAPS = get_args(Trap)
SEED = 11
FIRST_RELEASE = (("mixed", "all"), ("sun", "one"), ("soft", "all"), ("lamp", "one"))


def measure_shot(scene, index):
    """Return the box of an object in the picture, (2, 2) in -1..1."""
    where = project(sample_vertices(scene["objects"][index]), scene["camera"], scene["aspect"])
    return np.stack([where.min(0), where.max(0)])


def test_scenes_without_traps_are_what_they_were():
    """The descriptions of ordinary scenes are those of the first release, byte for byte."""
    digest = hashlib.sha256()
    for seed, index, light, remove in [(s, k, *how) for s in (1, 2) for k in range(8) for how in FIRST_RELEASE]:
        scene = describe_trap_scene(seed, index, (), (1.5, 1.0)[index % 2], light, remove)
        assert scene == describe_scene(seed, index, (1.5, 1.0)[index % 2], light, remove)
        digest.update(json.dumps(scene, sort_keys=True).encode())
    assert digest.hexdigest() == "6a936b00c63eea34899281becace03db610e99fe5f9d0c585924a9bdec9377b1"


@pytest.mark.skipif(find_spec("mitsuba") is None, reason="listing needs rasura[studio]")
def test_ids_without_traps_are_what_they_were():
    """The id of a pair, from which its noise is drawn, is that of the first release."""
    item = Studio(StudioParams(count=1, seed=5, width=96, height=64, spp=4)).items(None)[0]
    assert item["id"] == "230356907f7e06bf7b78727786139476"


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_is_data_and_repeatable(trap):
    """A trap gives the same JSON each time, another one for another index, and a scene other than without it."""
    first = describe_trap_scene(SEED, 0, [trap])
    assert json.loads(json.dumps(first)) == first == describe_trap_scene(SEED, 0, [trap])
    assert first != describe_trap_scene(SEED, 1, [trap])
    assert first != describe_scene(SEED, 0)
    assert all(np.isfinite(sample_vertices(item)).all() for item in first["objects"])


def test_any_two_traps_can_be_combined_in_any_order_unless_they_exclude_each_other():
    """Each pair of traps (every fourth is tried) makes one scene whatever their order; exclusive ones are refused, by
    the recipe too."""
    for pair in [*EXCLUSIVE, *list(combinations(TRAPS, 2))[::4]]:
        if pair in EXCLUSIVE or pair[::-1] in EXCLUSIVE:
            assert find_conflict(pair)
            with pytest.raises(ValueError, match="cannot be in one scene"):
                describe_trap_scene(SEED, 3, pair)
            with pytest.raises(InvalidValues, match="cannot be in one scene"):
                StudioParams(traps=list(pair))
        else:
            assert describe_trap_scene(SEED, 3, pair) == describe_trap_scene(SEED, 3, pair[::-1])


def test_descriptions_hold_what_the_traps_promise():
    """On many seeds: sun low, lamp large, strips thin; what casts a shadow from outside is not in the picture; a ghost
    is in it and clear of the objects; an occluder stands before the object; objects that touch are near each other."""
    for index in range(5):
        scenes = {trap: describe_trap_scene(SEED + 1, index, [trap]) for trap in TRAPS}
        assert scenes["sun_at_horizon"]["light"]["elevation"] <= 8
        assert scenes["soft_penumbra"]["light"]["size_deg"] >= 14
        light = scenes["hard_shadow"]["light"]
        loss = light["ratio"] * math.sin(math.radians(light["elevation"]))
        assert 0.119 < loss / (1 + loss) < 0.751
        outside = scenes["shadow_from_outside"]
        box = measure_shot(outside, outside["not_in_gt"][0])
        assert box[0, 0] > 1 or box[1, 0] < -1
        ghost = scenes["ghost_in_gt"]
        assert np.abs(measure_shot(ghost, ghost["only_in_gt"][0])).max() < 1
        hidden = scenes["behind_occluder"]
        assert sample_vertices(hidden["objects"][1])[:, 1].min() < sample_vertices(hidden["objects"][0])[:, 1].min()
        assert hidden["removed"] == [0]
        assert len(scenes["touching_objects"]["removed"]) >= 3
        assert {len(scenes["moving_things"][shot]) for shot in ("not_in_gt", "only_in_gt")} <= {1, 2}


def test_tone_drift_is_slow_and_bounded():
    """The drift stays within its levels, reaches half of them, and nowhere steps by more than a level between pixels
    of one colour."""
    for seed in range(20):
        drift = studio_develop.compute_drift(np.full((240, 360, 3), 128.0), seed, 12.0)
        ramp = studio_develop.compute_drift(np.tile(np.linspace(0, 255, 90)[None, :, None], (60, 1, 3)), seed, 12.0)
        assert np.abs(ramp).max() <= 12
        assert np.abs(ramp).max() > 4
        assert np.abs(np.diff(drift, axis=0)).max() < 1
        assert np.abs(np.diff(drift, axis=1)).max() < 1


@rendering
@pytest.mark.parametrize("trap", ["ghost_in_gt", "moving_things", "tone_drift", "shadow_from_outside"])
def test_the_true_empty_scene_is_input_without_its_objects(trap):
    """Where gt is not the empty scene, the truth is: outside the true M_fg the empty scene equals input, and there gt
    differs from both."""
    index = next(k for k in range(9) if describe_trap_scene(SEED + 2, k, [trap])["removed"])
    arrays = render(describe_trap_scene(SEED + 2, index, [trap]), 96, 64, 4)
    away = ~arrays["foreground_mask"]
    assert np.abs(arrays["input"].astype(int) - arrays["empty"])[away].mean() < 2
    assert np.abs(arrays["gt"].astype(int) - arrays["empty"]).max() >= 4
    assert arrays["object_mask"].any()


@rendering
def test_a_record_has_the_true_empty_scene(tmp_path):
    """`true_empty` is gt where nothing else differs, and not gt where the tone drifts; a cached render gives the same;
    a scene from which nothing is removed has an empty true mask and no label."""
    plain, drifted = (
        Studio(StudioParams(count=1, seed=5, width=48, height=32, spp=4, traps=traps, cache=str(tmp_path)))
        for traps in ([], ["tone_drift"])
    )
    for stage, equal in ((plain, True), (drifted, False)):
        records = [stage.process_one(stage.items(None)[0]) for _ in range(2)]
        assert all(isinstance(record, Kept) for record in records)
        first, second = (record.records[0] for record in records)
        assert np.array_equal(first["true_empty"], first["gt"]) == equal
        assert np.array_equal(first["true_empty"], second["true_empty"])
    seed = next(s for s in range(99) if not describe_trap_scene(s, 0, ["shadow_from_outside"])["removed"])
    stage = Studio(
        StudioParams(count=1, seed=seed, width=48, height=32, spp=4, traps=["shadow_from_outside"], cache=str(tmp_path))
    )
    record = stage.process_one(stage.items(None)[0]).records[0]
    assert not record["true_object_mask"].any()
    assert record["label"] is None
