"""Foregrounds onto backgrounds."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.paste_scenes import background, floor, foreground, record

from rasura.stages.composite import Composite, CompositeParams
from rasura.stages.compositing.cutouts import cutout, foot_of
from rasura.stages.compositing.placement import Spot, overlap
from rasura.stages.compositing.rendering import lay, triplet
from rasura.stages.stage import Kept, Rejected

GUESSES = {"max_view_error": None, "max_size_error": None}  # floors and sizes that nobody measured are taken


def run(*args, seed=0, params=None, **kwargs):
    return Composite(CompositeParams(**GUESSES | (params or {})), seed).process_one(record(*args, **kwargs))


def kept(*args, **kwargs):
    outcome = run(*args, **kwargs)
    assert isinstance(outcome, Kept), outcome
    (out,) = outcome.records
    return out


def random_things(rng, count):
    """Foregrounds of random shapes, shadows, light and cameras; some know all of it, some nothing."""
    things = []
    for k in range(count):
        height, width = (int(v) for v in rng.integers(20, 70, 2))
        thing = foreground(f"t{k}", height, width, tuple(int(v) for v in rng.integers(0, 255, 3)), at=(90, 120))
        rgba = thing["foreground"].copy()
        solid = thing["foreground_object"]
        rgba[..., 3] = np.where(solid, 255, rng.integers(0, 200, solid.shape))
        rgba[:4, :, 3] = rng.integers(0, 255, (4, solid.shape[1]))  # a torn rim with colours of its own
        rgba[:4, :, :3] = rng.integers(0, 255, (4, solid.shape[1], 3))
        if rng.random() < 0.5:
            thing["foreground_light"] = np.where(solid[..., None], 0, rng.integers(0, 30, (*solid.shape, 3))).astype(
                np.uint8
            )
        if rng.random() < 0.7:
            thing |= floor(pitch=float(rng.uniform(5, 30)), eye=float(rng.uniform(1, 3)), metric=rng.random() < 0.5)
        if rng.random() < 0.7:
            thing |= {"shadow_azimuth": float(rng.uniform(0, 360)), "shadow_confidence": float(rng.random())}
        things.append(thing | {"foreground": rgba})
    return things


@pytest.mark.parametrize("params", [{}, {"noise": (1, 4)}, {"jpeg": (60, 95)}, {"noise": (2, 2), "jpeg": (75, 75)}])
@pytest.mark.parametrize("placement", ["ground", "gaussian"])
def test_outside_the_foreground_mask_source_and_target_are_one(params, placement):
    """Bit for bit: one to three random objects with shadows, light and torn rims, known and unknown cameras, both
    placements, clean and after noise and JPEG. M_o is part of M_fg, and the object shows in it.
    """
    made = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        more = floor(pitch=15) if seed % 2 else {}
        outcome = run(
            random_things(rng, int(rng.integers(1, 4))),
            name=f"r{seed}",
            picture=background(seed=seed),
            params={"placement": placement, "max_pitch": 60, "min_height": 0.03, **params},
            **more,
        )
        if not isinstance(outcome, Kept):
            continue
        made += 1
        (out,) = outcome.records
        outside = ~out["foreground_mask"]
        assert np.array_equal(out["source"][outside], out["target"][outside])
        assert not (out["mask"] & outside).any()
        assert out["mask"].any()
        changed = (out["source"] != out["target"]).any(axis=2)
        assert changed[out["mask"]].mean() > 0.8
    assert made >= 8


def test_the_record_loses_its_ingredients_and_gets_the_label_of_what_is_removed():
    """Columns are those of a triplet and what was measured; placement names the removed one, from far to near."""
    stage = Composite(CompositeParams(**GUESSES), 0)
    out = kept([foreground("a"), foreground("b")])
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
    picture = background(seed=3)
    out = kept([foreground()], picture=picture, params={"placement": placement})
    assert np.array_equal(out["target"], picture)


def test_feet_stand_on_the_ground_and_objects_stay_inside():
    """Over many seeds the foot is on the ground mask and the object's box in the frame."""
    ground = np.zeros((240, 320), bool)
    ground[150:200, 40:280] = True
    for seed in range(12):
        (one,) = json.loads(kept([foreground()], ground=ground, seed=seed)["placement"])["objects"]
        x, y = (int(v) for v in one["foot"])
        assert ground[y, x]
        x0, y0, x1, y1 = one["box"]
        assert 0 <= x0 < x1 <= 320
        assert 0 <= y0 < y1 <= 240
        assert y1 - 1 == y


def test_no_object_is_half_outside_unless_the_recipe_says_so():
    """By default boxes stay inside; with `max_outside` some reach beyond the frame, by no more than that share."""
    ground = np.ones((240, 320), bool)
    reached = 0
    for seed in range(20):
        (one,) = json.loads(
            kept([foreground(shadow=False)], ground=ground, seed=seed, params={"max_outside": 0.5})["placement"]
        )["objects"]
        x0, y0, x1, y1 = one["box"]
        inside = (min(x1, 320) - max(x0, 0)) * (min(y1, 240) - max(y0, 0)) / ((x1 - x0) * (y1 - y0))
        assert inside >= 0.49
        reached += inside < 1
    assert reached


def test_objects_that_their_photo_cut_stand_at_the_same_side_again():
    """By default they are refused; where the recipe allows them a cut left edge lies on the left frame, a cut base on
    the lower frame."""
    thing = foreground(shadow=False, at=(0, 180), size=(320, 240))
    refused = run([thing])
    assert isinstance(refused, Rejected)
    assert refused.reason == "cut object"
    (one,) = json.loads(kept([thing], params={"allow_cut": True})["placement"])["objects"]
    assert abs(one["box"][0]) <= 2
    assert abs(one["box"][3] - 240) <= 2


def test_objects_overlap_no_more_than_allowed():
    """With a cap of zero two objects never touch; when there is no room for that, one is left out, and its id with it,
    or the record is rejected where the recipe wants all."""
    for seed in range(8):
        out = kept([foreground("a"), foreground("b")], seed=seed, params={"overlap": 0.0})
        one, two = json.loads(out["placement"])["objects"]
        assert overlap(one["box"], two["box"]) == 0
    narrow = np.zeros((240, 320), bool)
    narrow[180:190, 130:165] = True
    things = [foreground("a", shadow=False), foreground("b", shadow=False)]
    out = kept(things, ground=narrow, params={"overlap": 0.0})
    assert out["objects"] == 1
    assert out["parents"] == ["bg", "a"]
    assert isinstance(run(things, ground=narrow, params={"overlap": 0.0, "leave_out": False}), Rejected)


def test_each_object_is_seen_well_enough():
    """The nearer object may hide the farther one, but no more than `min_visible` leaves."""
    for seed in range(10):
        out = kept([foreground(name, height=80, width=60) for name in "abc"], seed=seed, params={"min_visible": 0.7})
        assert 0.7 <= out["placement_visible"] <= 1


def test_it_is_measured_how_much_of_the_shadow_lies_on_ground():
    """All of it on an endless floor, less where the ground ends beside the object, null where there is no shadow."""
    assert kept([foreground()], ground=np.ones((240, 320), bool))["placement_floor"] == pytest.approx(1)
    narrow = np.zeros((240, 320), bool)
    narrow[120:, 100:150] = True
    shares = [kept([foreground()], ground=narrow, seed=seed)["placement_floor"] for seed in range(6)]
    assert min(shares) < 0.5
    assert kept([foreground(shadow=False)])["placement_floor"] is None


def test_a_view_from_another_height_is_refused():
    """A cut-out that was looked down on from 60 degrees fits nowhere on a floor seen at 10 to 25; the reason says so.

    One that was seen alike fits, and the difference is measured."""
    above = foreground(**floor(pitch=60))
    refused = run([above], **floor(pitch=5))
    assert isinstance(refused, Rejected)
    assert refused.reason == "seen from another height"
    out = kept([foreground(**floor(pitch=8))], **floor(pitch=5), params={"min_height": 0.01})
    assert out["placement_pitch"] <= 15
    assert out["placement_rule"] == "metric"


def test_a_car_seen_from_above_is_not_put_on_a_level_view():
    """Also where its own camera is unknown: its proportions tell. A car seen from the side fits."""
    above = foreground(height=60, width=30, label="car", shadow=False)
    refused = run([above], ground_place="outdoors", **floor(pitch=2, focal=900))
    assert isinstance(refused, Rejected)
    assert refused.reason == "seen from another height"
    side = foreground(height=30, width=80, label="car", shadow=False)
    assert kept([side], ground_place="outdoors", **floor(pitch=2))["placement_rule"] == "class-size"


@pytest.mark.parametrize(
    "broken",
    [
        {"ground": np.zeros((240, 320), bool)},
        {"ground_mask": None},
        {"ground_scale": None},
        {"scale": [0.0, 0.0, -1.0]},
        {"picture": background(20, 900), "ground": np.ones((20, 900), bool), "scale": [0.0, 0.0, -3.0]},
    ],
)
def test_where_nothing_fits_the_background_is_rejected(broken):
    """No ground, an unknown one, or one above the horizon only: 'no place', with what was tried."""
    outcome = run([foreground()], **broken)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "no place"
    assert outcome.detail


def test_an_object_larger_than_the_background_is_rejected():
    """An object as high as its photo is too large to be placed whole and is judged so, not squeezed in."""
    huge = foreground(height=236, width=310, shadow=False, at=(5, 2), size=(320, 240))
    outcome = run([huge])
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "no place"


def test_faults_are_errors():
    """No foregrounds, or an empty object mask, is a fault of the data before, not a judgement."""
    with pytest.raises(ValueError, match="no foregrounds"):
        run([])
    empty = foreground() | {"foreground_object": np.zeros((60, 70), bool)}
    with pytest.raises(ValueError, match="object mask of a foreground is empty"):
        run([empty])


@pytest.mark.parametrize("wrong", [{"noise": (3, 1)}, {"jpeg": (90, 50)}, {"jpeg": (10, 300)}])
def test_ranges_have_to_be_in_order(wrong):
    """From and to the wrong way round, or beyond what they can be, are an error of the recipe."""
    with pytest.raises(ValueError, match="ordered"):
        CompositeParams(**wrong)


def test_the_same_record_gives_the_same_picture_and_others_differ():
    """Place, size, noise and choice come from the record's id and the recipe's seed only."""
    things = [foreground("a"), foreground("b")]
    first, again, other = (kept(things, name=name, params={"noise": (1, 3)}) for name in "xxy")
    assert np.array_equal(first["source"], again["source"])
    assert first["placement"] != other["placement"]
    gone = {json.loads(kept(things, name=f"{k}")["placement"])["removed"] for k in range(12)}
    assert gone == {"a", "b"}


def test_shadows_of_a_draw_fall_one_way():
    """Two shadows on opposite sides: one object is mirrored; a difference that mirroring leaves is turned away within
    `turn_shadows`; the angle that is left is measured."""
    one = foreground("a", shadow_azimuth=10.0, shadow_confidence=0.9, **floor(20))
    two = foreground("b", shadow_azimuth=158.0, shadow_confidence=0.4, **floor(20))
    free = {"max_pitch": 90.0, "min_height": 0.01}
    out = kept([one, two], **floor(20), params={"turn_shadows": 40, **free})
    placed = {each["id"]: each for each in json.loads(out["placement"])["objects"]}
    assert not placed["a"]["flipped"]
    assert placed["b"]["flipped"]
    assert out["placement_shadow"] == pytest.approx(0, abs=1e-6)
    out = kept([one, two], **floor(20), params={"flip": "never", "turn_shadows": 0, "max_shadow": 180, **free})
    assert out["placement_shadow"] > 100
    apart = {"flip": "never", "max_shadow": 45, **free}
    out = kept([one, two], **floor(20), params=apart)
    assert json.loads(out["placement"])["order"] == ["a"]
    refused = run([one, two], **floor(20), params={"leave_out": False, **apart})
    assert isinstance(refused, Rejected)
    assert refused.reason == "shadows disagree"
    assert kept([one, foreground("b")], **floor(20), params=free)["placement_shadow"] is None


def test_the_draw_decides_what_is_mirrored():
    """A foreground's own `mirror` is followed, whatever `flip` would do."""
    for told in (True, False):
        things = [foreground("a", mirror=told), foreground("b", mirror=False, shadow_azimuth=170.0)]
        for flip in ("never", "compatible", "random"):
            objects = json.loads(kept(things, params={"flip": flip})["placement"])["objects"]
            assert {one["id"]: one["flipped"] for one in objects} == {"a": told, "b": False}


def test_gaussian_places_keep_to_their_rules():
    """The baseline looks at no ground: shares of the picture near the class's mean, at least 5 %, at least 60 % of the
    box inside, mostly off the edge band; and it takes a background without any ground."""
    for seed in range(12):
        params = {"placement": "gaussian", "areas": {"thing a": (0.15, 0.02)}}
        out = kept([foreground(shadow=False)], ground_mask=None, ground_scale=None, seed=seed, params=params)
        (one,) = json.loads(out["placement"])["objects"]
        x0, y0, x1, y1 = one["box"]
        share = (x1 - x0) * (y1 - y0) / (240 * 320)
        assert share == pytest.approx(0.15, rel=0.1)
        assert out["placement_rule"] == "gaussian"
        inside = (min(x1, 320) - max(x0, 0)) * (min(y1, 240) - max(y0, 0)) / ((x1 - x0) * (y1 - y0))
        assert inside >= 0.6
        assert (x0 + x1) / 2 + 2 >= 0.2 * 320
        assert (x0 + x1) / 2 - 2 <= 0.8 * 320


def test_the_nearer_object_hides_the_farther_one():
    """The farther one's masks lose the hidden part; the nearer one and its shadow stay in the target."""
    picture = np.full((240, 320, 3), 100, np.uint8)
    far = lay(cutout(foreground("far", colour=(200, 0, 0))), Spot((100, 150), 1.0, (0, 0, 0, 0), None), picture)
    near = lay(cutout(foreground("near", colour=(0, 0, 200))), Spot((115, 180), 1.0, (0, 0, 0, 0), None), picture)
    source, target, mask, fg = triplet(picture, [far, near], 0)
    hidden = np.zeros((240, 320), bool)
    x0, y0, x1, y1 = near.window
    hidden[y0:y1, x0:x1] = near.solid
    assert not (mask & hidden).any()
    assert not (fg & hidden).any()
    assert 0 < mask.sum() < far.solid.sum()
    assert (source[hidden] == target[hidden]).all()
    assert (target[hidden] == (0, 0, 200)).all()
    shadow = near.shade > 0.3
    lying = target[y0:y1, x0:x1][shadow]
    assert (lying == round(100 * (1 - 100 / 255))).all()
    _, target, mask, _ = triplet(picture, [far, near], 1)
    assert mask.sum() == near.solid.sum()
    x0, y0, x1, y1 = far.window
    assert (target[y0:y1, x0:x1][far.solid] == (200, 0, 0)).all()


def test_shadows_that_meet_are_not_darker_than_the_darker_one():
    """One sun: where two shadows overlap the floor keeps the light of the darker. A kept object's shadow lies in
    source and target alike, so that M_fg of the removed one holds only what its own shadow adds."""
    picture = np.full((240, 320, 3), 100, np.uint8)
    one = lay(cutout(foreground("one")), Spot((100, 180), 1.0, (0, 0, 0, 0), None), picture)
    two = lay(cutout(foreground("two")), Spot((122, 184), 1.0, (0, 0, 0, 0), None), picture)
    source, target, _, fg = triplet(picture, [one, two], 0)
    dark = round(100 * (1 - 100 / 255))
    assert source.min(axis=2)[fg & (source.max(axis=2) < 101)].min() >= min(dark, 40)
    both = np.zeros((240, 320), bool)
    x0, y0, x1, y1 = two.shade_window
    both[y0:y1, x0:x1] = two.shade > 0.3
    assert (target[both] == source[both]).all()
    assert (target[both].min(axis=1) >= 0).all()
    assert not (fg & both).any()


def test_the_foot_is_below_the_lowest_row():
    """The middle of the base, not of the whole object: an L stands on its foot."""
    solid = np.zeros((100, 60), bool)
    solid[:95, :10] = True
    solid[95:, :60] = True
    assert foot_of(solid) == (30.0, 100.0)


def test_a_real_person_on_a_real_floor(assets: Path):
    """A cut-out of a real pair laid on a real photograph keeps the guarantees at full size."""
    read = lambda name: cv2.imread(str(assets / name))[..., ::-1]  # noqa: E731
    stem = "pairs/person/onebyone_0188"
    picture, solid = read(f"{stem}_input.png"), read(f"{stem}_mask.png")[..., 0] > 127
    rgba = np.dstack([picture, solid * np.uint8(255)])
    height, width = solid.shape
    thing = foreground() | {
        "foreground": rgba,
        "foreground_object": solid,
        "foreground_box": [0, 0, width, height],
        "source_size": [width, height],
    }
    place_on = np.ascontiguousarray(read("photos/backgrounds/12.png"))
    ground = np.zeros(place_on.shape[:2], bool)
    ground[300:] = True
    outcomes = [run([thing], picture=place_on, ground=ground, scale=[0, 1.0, -200.0], seed=seed) for seed in range(6)]
    made = [outcome for outcome in outcomes if isinstance(outcome, Kept)]
    assert made
    for outcome in made:
        (out,) = outcome.records
        assert np.array_equal(out["target"], place_on)
        assert np.array_equal(out["source"][~out["foreground_mask"]], place_on[~out["foreground_mask"]])


def test_nothing_is_put_on_a_guess():
    """By default: a floor or an object whose view nobody measured, and a size that only a camera's usual height tells,
    are refused, each with its own reason; measured ones pass; the recipe can allow guesses."""
    strict = {"max_view_error": 8.0, "max_size_error": 0.3}
    sure = {"ground_view_error": 2.0, "ground_size_error": 0.1}
    wide = {"min_height": 0.01, "max_pitch": 60}
    here, there = floor(20), floor(20)

    def reason(thing, behind, **more):
        outcome = run([thing], **behind, params=strict | wide | more)
        return outcome.reason if isinstance(outcome, Rejected) else None

    known = foreground(**there, **sure)
    assert reason(known, here | sure) is None
    assert reason(known, here) == "floor is a guess"
    assert reason(known, here | sure | {"ground_view_error": 12.0}) == "floor is a guess"
    assert reason(known, here | sure | {"ground_size_error": 0.6}) == "floor is a guess"
    assert reason(foreground(**there), here | sure) == "view of the object is a guess"
    unsure = foreground(**floor(20, metric=False), **sure)
    assert reason(unsure, here | sure) == "size of the object is a guess"
    assert reason(unsure | {"label": "suitcase", "detect_score": 0.9}, here | sure) is None
    assert reason(unsure | {"label": "suitcase", "detect_score": 0.2}, here | sure) == "size of the object is a guess"
    assert reason(unsure, here, max_view_error=None, max_size_error=None) is None


def test_things_are_put_where_their_class_can_stand():
    """A car is refused in a kitchen and where nobody knows; with others in the draw it is left out."""
    car = foreground("car", height=30, width=80, label="car", shadow=False)
    refused = run([car], ground_place="indoors")
    assert isinstance(refused, Rejected)
    assert refused.reason == "out of place"
    assert "car indoors" in refused.detail
    out = kept([car, foreground("pot")], ground_place="indoors")
    assert json.loads(out["placement"])["order"] == ["pot"]
    assert out["parents"] == ["bg", "pot"]
    assert isinstance(run([car], ground_place="indoors", params={"places": False}), Kept)


def test_what_stands_nearer_is_not_covered():
    """A thing of the photo whose foot is lower is never hidden by what is pasted behind it; one that is farther off may
    be, by half."""
    near, far = [120.0, 100.0, 200.0, 235.0], [100.0, 60.0, 220.0, 125.0]
    for seed in range(12):
        out = kept([foreground(shadow=False)], ground_things=[*near, *far], seed=seed)
        (one,) = json.loads(out["placement"])["objects"]
        box = one["box"]
        area = (box[2] - box[0]) * (box[3] - box[1])
        if box[3] < near[3]:
            assert overlap(near, box) * area / area <= 0.05 + 1e-9
        assert overlap(box, far) <= 0.5


def test_the_floor_goes_on_in_front():
    """A strip of floor behind something that is no floor: what stood there would be hidden. Nothing is placed."""
    strip = np.zeros((240, 320), bool)
    strip[150:154] = True
    assert isinstance(run([foreground(shadow=False)], ground=strip), Rejected)
    strip[150:185] = True
    assert isinstance(run([foreground(shadow=False)], ground=strip), Kept)
