"""Composition of foregrounds with backgrounds."""

import json

import cv2
import numpy as np
import pytest
from conftest import DATA
from support.composites import GUESSES, compose, compose_kept, make_random_foregrounds
from support.paste_scenes import make_background, make_foreground, make_ground_columns

from rasura.stages.composite import Composite, CompositeParams
from rasura.stages.compositing.cutouts import find_contact_point, make_cutout
from rasura.stages.compositing.placement import Placement
from rasura.stages.compositing.rendering import compose_triplet, render_foreground
from rasura.stages.stage import Kept, Rejected


@pytest.mark.parametrize("params", [{}, {"noise": (1, 4)}, {"jpeg": (60, 95)}, {"noise": (2, 2), "jpeg": (75, 75)}])
@pytest.mark.parametrize("placement", ["ground", "gaussian"])
def test_outside_the_foreground_mask_source_and_target_are_one(params, placement):
    """Bit for bit: one to three random objects with shadows, light and torn rims, known and unknown cameras, both
    placements, clean and after noise and JPEG. M_o is part of M_fg, and the object shows in it.
    """
    count = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        more = make_ground_columns(pitch=15) if seed % 2 else {}
        outcome = compose(
            make_random_foregrounds(rng, int(rng.integers(1, 4))),
            name=f"r{seed}",
            picture=make_background(seed=seed),
            params={"placement": placement, "max_pitch": 60, "min_height": 0.03, **params},
            **more,
        )
        if not isinstance(outcome, Kept):
            continue
        count += 1
        (out,) = outcome.records
        outside = ~out["foreground_mask"]
        assert np.array_equal(out["source"][outside], out["target"][outside])
        assert not (out["mask"] & outside).any()
        assert out["mask"].any()
        changed = (out["source"] != out["target"]).any(axis=2)
        assert changed[out["mask"]].mean() > 0.8
    assert count >= 8


def test_the_record_loses_its_ingredients_and_gets_the_label_of_what_is_removed():
    """Columns are those of a triplet and what was measured; placement names the removed one, from far to near."""
    stage = Composite(CompositeParams(**GUESSES), 0)
    out = compose_kept([make_foreground("a"), make_foreground("b")])
    assert set(out) == {"id", "licence", "parents", *stage.gives}
    placement = json.loads(out["placement"])
    assert out["kind"] == "simulated"
    assert out["objects"] == 2
    assert out["label"] == f"thing {placement['removed']}"
    feet = [one["foot"][1] for one in placement["objects"]]
    assert feet == sorted(feet)
    assert sorted(placement["order"]) == ["a", "b"]


@pytest.mark.parametrize("placement", ["ground", "gaussian"])
def test_with_one_object_the_target_is_the_background(placement):
    """The answer is exact: nothing of the object, its shadow or the resizing is left."""
    picture = make_background(seed=3)
    out = compose_kept([make_foreground()], picture=picture, params={"placement": placement})
    assert np.array_equal(out["target"], picture)


def test_it_is_measured_how_much_of_the_shadow_lies_on_ground():
    """All of it on an endless floor, less where the ground ends beside the object, null where there is no shadow."""
    assert compose_kept([make_foreground()], ground=np.ones((240, 320), bool))["placement_floor"] == pytest.approx(1)
    narrow = np.zeros((240, 320), bool)
    narrow[120:, 100:150] = True
    shares = [compose_kept([make_foreground()], ground=narrow, seed=seed)["placement_floor"] for seed in range(6)]
    assert min(shares) < 0.5
    assert compose_kept([make_foreground(shadow=False)])["placement_floor"] is None


def test_faults_are_errors():
    """No foregrounds, or an empty object mask, is a fault of the data before, not a judgement."""
    with pytest.raises(ValueError, match="no foregrounds"):
        compose([])
    empty = make_foreground() | {"foreground_object": np.zeros((60, 70), bool)}
    with pytest.raises(ValueError, match="object mask of a foreground is empty"):
        compose([empty])


@pytest.mark.parametrize("wrong", [{"noise": (3, 1)}, {"jpeg": (90, 50)}, {"jpeg": (10, 300)}])
def test_ranges_have_to_be_in_order(wrong):
    """From and to the wrong way round, or beyond what they can be, are an error of the recipe."""
    with pytest.raises(ValueError, match="ordered"):
        CompositeParams(**wrong)


def test_the_same_record_gives_the_same_picture_and_others_differ():
    """Place, size, noise and choice come from the record's id and the recipe's seed only."""
    things = [make_foreground("a"), make_foreground("b")]
    first, again, other = (compose_kept(things, name=name, params={"noise": (1, 3)}) for name in "xxy")
    assert np.array_equal(first["source"], again["source"])
    assert first["placement"] != other["placement"]
    gone = {json.loads(compose_kept(things, name=f"{k}")["placement"])["removed"] for k in range(12)}
    assert gone == {"a", "b"}


def test_shadows_of_a_draw_fall_one_way():
    """Two shadows on opposite sides: one object is mirrored; a difference that mirroring leaves is turned away within
    `max_shadow_rotation`; the angle that is left is measured."""
    one = make_foreground("a", shadow_azimuth=10.0, shadow_confidence=0.9, **make_ground_columns(20))
    two = make_foreground("b", shadow_azimuth=158.0, shadow_confidence=0.4, **make_ground_columns(20))
    free = {"max_pitch": 90.0, "min_height": 0.01}
    out = compose_kept([one, two], **make_ground_columns(20), params={"max_shadow_rotation": 40, **free})
    placed = {each["id"]: each for each in json.loads(out["placement"])["objects"]}
    assert not placed["a"]["flipped"]
    assert placed["b"]["flipped"]
    assert out["placement_shadow"] == pytest.approx(0, abs=1e-6)
    out = compose_kept(
        [one, two],
        **make_ground_columns(20),
        params={"flip": "never", "max_shadow_rotation": 0, "max_shadow": 180, **free},
    )
    assert out["placement_shadow"] > 100
    apart = {"flip": "never", "max_shadow": 45, **free}
    out = compose_kept([one, two], **make_ground_columns(20), params=apart)
    assert json.loads(out["placement"])["order"] == ["a"]
    refused = compose([one, two], **make_ground_columns(20), params={"skip_unplaceable": False, **apart})
    assert isinstance(refused, Rejected)
    assert refused.reason == "shadows disagree"
    assert compose_kept([one, make_foreground("b")], **make_ground_columns(20), params=free)["placement_shadow"] is None


def test_the_draw_decides_what_is_mirrored():
    """A foreground's own `mirror` is followed, whatever `flip` would do."""
    for told in (True, False):
        things = [make_foreground("a", mirror=told), make_foreground("b", mirror=False, shadow_azimuth=170.0)]
        for flip in ("never", "compatible", "random"):
            objects = json.loads(compose_kept(things, params={"flip": flip})["placement"])["objects"]
            assert {one["id"]: one["flipped"] for one in objects} == {"a": told, "b": False}


def test_the_nearer_object_hides_the_farther_one():
    """The farther one's masks lose the hidden part; the nearer one and its shadow stay in the target."""
    picture = np.full((240, 320, 3), 100, np.uint8)
    far = render_foreground(
        make_cutout(make_foreground("far", colour=(200, 0, 0))), Placement((100, 150), 1.0, (0, 0, 0, 0), None), picture
    )
    near = render_foreground(
        make_cutout(make_foreground("near", colour=(0, 0, 200))),
        Placement((115, 180), 1.0, (0, 0, 0, 0), None),
        picture,
    )
    source, target, mask, fg = compose_triplet(picture, [far, near], 0)
    hidden = np.zeros((240, 320), bool)
    x0, y0, x1, y1 = near.window
    hidden[y0:y1, x0:x1] = near.object_mask
    assert not (mask & hidden).any()
    assert not (fg & hidden).any()
    assert 0 < mask.sum() < far.object_mask.sum()
    assert (source[hidden] == target[hidden]).all()
    assert (target[hidden] == (0, 0, 200)).all()
    shadow = near.shadow > 0.3
    lying = target[y0:y1, x0:x1][shadow]
    assert (lying == round(100 * (1 - 100 / 255))).all()
    _, target, mask, _ = compose_triplet(picture, [far, near], 1)
    assert mask.sum() == near.object_mask.sum()
    x0, y0, x1, y1 = far.window
    assert (target[y0:y1, x0:x1][far.object_mask] == (200, 0, 0)).all()


def test_shadows_that_meet_are_not_darker_than_the_darker_one():
    """One sun: where two shadows overlap the floor keeps the light of the darker. A kept object's shadow lies in
    source and target alike, so that M_fg of the removed one holds only what its own shadow adds."""
    picture = np.full((240, 320, 3), 100, np.uint8)
    one = render_foreground(
        make_cutout(make_foreground("one")), Placement((100, 180), 1.0, (0, 0, 0, 0), None), picture
    )
    two = render_foreground(
        make_cutout(make_foreground("two")), Placement((122, 184), 1.0, (0, 0, 0, 0), None), picture
    )
    source, target, _, fg = compose_triplet(picture, [one, two], 0)
    dark = round(100 * (1 - 100 / 255))
    assert source.min(axis=2)[fg & (source.max(axis=2) < 101)].min() >= min(dark, 40)
    both = np.zeros((240, 320), bool)
    x0, y0, x1, y1 = two.shadow_window
    both[y0:y1, x0:x1] = two.shadow > 0.3
    assert (target[both] == source[both]).all()
    assert (target[both].min(axis=1) >= 0).all()
    assert not (fg & both).any()


def test_the_foot_is_below_the_lowest_row():
    """The middle of the base, not of the whole object: an L stands on its foot."""
    solid = np.zeros((100, 60), bool)
    solid[:95, :10] = True
    solid[95:, :60] = True
    assert find_contact_point(solid) == (30.0, 100.0)


def test_a_real_person_on_a_real_floor():
    """A cut-out of a real pair laid on a real photograph keeps the guarantees at full size."""
    read = lambda name: cv2.imread(str(DATA / "pictures" / name))[..., ::-1]  # noqa: E731
    stem = "pairs/person/onebyone_0188"
    picture, solid = read(f"{stem}_input.png"), read(f"{stem}_mask.png")[..., 0] > 127
    rgba = np.dstack([picture, solid * np.uint8(255)])
    height, width = solid.shape
    thing = make_foreground() | {
        "foreground": rgba,
        "foreground_object": solid,
        "foreground_box": [0, 0, width, height],
        "source_size": [width, height],
    }
    place_on = np.ascontiguousarray(read("photos/000000051191.jpg"))
    ground = np.zeros(place_on.shape[:2], bool)
    ground[300:] = True
    outcomes = [
        compose([thing], picture=place_on, ground=ground, scale=[0, 1.0, -200.0], seed=seed) for seed in range(6)
    ]
    kept = [outcome for outcome in outcomes if isinstance(outcome, Kept)]
    assert kept
    for outcome in kept:
        (out,) = outcome.records
        assert np.array_equal(out["target"], place_on)
        assert np.array_equal(out["source"][~out["foreground_mask"]], place_on[~out["foreground_mask"]])
