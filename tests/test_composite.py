"""Foregrounds onto backgrounds."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from stages.composite import (
    Composite,
    CompositeParams,
    at_frame,
    compose,
    cut_sides,
    foot_of,
    natural_scale,
    overlap,
    place,
    resized,
    triplet,
)
from stages.stage import Kept, Rejected

ASSETS = Path(os.environ.get("RASURA_ASSETS", Path(__file__).parents[1].parent / "shared" / "assets"))
FLAT = [0.0, 0.0, 100.0]  # pixels per metre that are the same everywhere


def foreground(name="a", height=60, width=30, colour=(200, 40, 40), shadow=True, at=(100, 80), size=(320, 240)):
    """A block with a soft shadow to its right, cut from a photo of `size` where its crop lay at `at`."""
    full = width + (40 if shadow else 0)
    rgba = np.zeros((height, full, 4), np.uint8)
    rgba[:, :width, :3] = colour
    rgba[:, :width, 3] = 255
    if shadow:
        rgba[height - 15 :, width:, 3] = 100
    solid = np.zeros((height, full), bool)
    solid[:, :width] = True
    rgba.flags.writeable = solid.flags.writeable = False
    box = [float(at[0]), float(at[1]), float(at[0] + full), float(at[1] + height)]
    return {
        "id": name,
        "label": f"thing {name}",
        "foreground": rgba,
        "foreground_object": solid,
        "foreground_box": box,
        "source_size": list(size),
    }


def background(height=240, width=320, seed=0):
    rng = np.random.default_rng(seed)
    picture = rng.integers(60, 200, (height, width, 3)).astype(np.uint8)
    picture.flags.writeable = False
    return picture


def record(foregrounds, name="r", ground=None, scale=None, picture=None):
    picture = background() if picture is None else picture
    if ground is None:
        ground = np.zeros(picture.shape[:2], bool)
        ground[120:] = True
    return {
        "id": name,
        "background": picture,
        "ground_mask": ground,
        "ground_scale": FLAT if scale is None else scale,
        "ground_rule": "lower-region",
        "ground_area": 0.5,
        "ground_residual": None,
        "foregrounds": foregrounds,
        "licence": "CC0",
    }


def run(*args, seed=0, params=None, **kwargs):
    return Composite(params or CompositeParams(), seed).process_one(record(*args, **kwargs))


def test_outside_the_foreground_mask_source_and_target_are_one():
    """Bit for bit, for one and two objects; inside the object mask the source shows the object, the target does not."""
    for count in (1, 2):
        for k in range(6):
            things = [foreground("a"), foreground("b", colour=(30, 60, 220))][:count]
            outcome = run(things, name=f"r{k}")
            assert isinstance(outcome, Kept)
            (out,) = outcome.records
            outside = ~out["foreground_mask"]
            assert np.array_equal(out["source"][outside], out["target"][outside])
            assert not (out["mask"] & ~out["foreground_mask"]).any()
            changed = (out["source"] != out["target"]).any(axis=2)
            assert changed[out["mask"]].mean() > 0.9
            assert out["mask"].any()


def test_the_record_loses_its_ingredients_and_gets_the_label_of_what_is_removed():
    """Columns are those of a triplet; placement names what is removed, in order from far to near."""
    outcome = run([foreground("a"), foreground("b")])
    assert isinstance(outcome, Kept)
    (out,) = outcome.records
    assert set(out) == {
        *("id", "licence", "kind", "source", "target", "mask", "foreground_mask", "label", "placement"),
    }
    placement = json.loads(out["placement"])
    assert out["kind"] == "simulated"
    assert out["label"] == f"thing {placement['removed']}"
    feet = [one["foot"][1] for one in placement["objects"]]
    assert feet == sorted(feet)
    assert sorted(placement["order"]) == ["a", "b"]


def test_with_one_object_the_target_is_the_background():
    """The answer is exact: nothing of the object, its shadow or the resizing is left."""
    picture = background(seed=3)
    outcome = run([foreground()], picture=picture)
    assert isinstance(outcome, Kept)
    assert np.array_equal(outcome.records[0]["target"], picture)


def test_feet_stand_on_the_ground_and_objects_stay_inside():
    """Over many seeds the foot is on the ground mask and the object's box in the frame."""
    ground = np.zeros((240, 320), bool)
    ground[150:200, 40:280] = True
    for seed in range(12):
        outcome = run([foreground()], ground=ground, seed=seed)
        assert isinstance(outcome, Kept)
        (one,) = json.loads(outcome.records[0]["placement"])["objects"]
        x, y = (int(v) for v in one["foot"])
        assert ground[y, x]
        x0, y0, x1, y1 = one["box"]
        assert 0 <= x0 < x1 <= 320
        assert 0 <= y0 < y1 <= 240
        assert y1 - 1 == y


def test_the_nearer_object_hides_the_farther_one():
    """The farther one's masks lose the hidden part; the nearer one and its shadow stay in the target."""
    far = place(foreground("far", colour=(200, 0, 0)), (100, 150), 1.0, (240, 320))
    near = place(foreground("near", colour=(0, 0, 200)), (115, 180), 1.0, (240, 320))
    picture = np.full((240, 320, 3), 100, np.uint8)
    source, target, mask, fg = triplet(picture, [far, near], 0)
    hidden = np.zeros((240, 320), bool)
    hidden[near.window] = near.solid
    assert not (mask & hidden).any()
    assert not (fg & hidden).any()
    assert 0 < mask.sum() < far.solid.sum()
    assert (source[hidden] == target[hidden]).all()
    assert (target[hidden] == (0, 0, 200)).all()
    shadow = np.zeros((240, 320), bool)
    shadow[near.window] = (near.alpha > 0.3) & ~near.solid
    assert (target[shadow] == round(100 * (1 - 100 / 255))).all()
    _, target, mask, _ = triplet(picture, [far, near], 1)
    assert mask.sum() == near.solid.sum()
    assert (target[far.window][far.solid] == (200, 0, 0)).all()


def test_a_shadow_darkens_as_equation_1_says():
    """Black with alpha: (1 - alpha) * background, and never brighter than it."""
    layer = place(foreground(), (100, 150), 1.0, (240, 320))
    picture = background(seed=1)
    out = compose(picture, [layer])
    shadow = np.zeros((240, 320), bool)
    shadow[layer.window] = ~layer.solid & (layer.alpha > 0)
    assert shadow.any()
    assert np.allclose(out[shadow], picture[shadow] * (1 - 100 / 255), atol=0.01)


@pytest.mark.parametrize("scale", [0.37, 0.8, 1.3])
def test_resizing_makes_no_fringe(scale):
    """What lies under transparent pixels (black here) does not bleed in: a white disc on white stays white."""
    rgba = np.zeros((80, 80, 4), np.uint8)
    disc = cv2.circle(np.zeros((80, 80), np.uint8), (40, 40), 30, 1, -1) > 0
    rgba[disc] = 255
    colour, alpha, solid = resized(rgba, disc, scale)
    over_white = colour + (1 - alpha[..., None]) * 255
    assert over_white.min() > 254
    assert solid.sum() == pytest.approx(disc.sum() * scale**2, rel=0.06)


def test_size_follows_the_ground():
    """At its own place an object keeps its share of the frame; at twice the pixels per metre it is twice as large."""
    scale = (0.0, 1.0, -100.0)  # horizon at row 100
    own = (50.0, 150.0)
    same = natural_scale((100.0, 300.0), own, (100.0, 200.0), (200.0, 400.0), scale)
    assert same == pytest.approx(2.0)
    assert natural_scale((100.0, 200.0), own, (100.0, 200.0), (200.0, 400.0), scale) == pytest.approx(1.0)
    assert natural_scale((100.0, 90.0), own, (100.0, 200.0), (200.0, 400.0), scale) == 0.0


def test_objects_that_their_photo_cut_stand_at_the_same_side_again():
    """A cut left edge lies on the left frame, a cut base on the lower frame; a recipe may refuse them altogether."""
    thing = foreground(shadow=False, at=(0, 180), size=(320, 240))
    sides = cut_sides(thing["foreground_object"], thing["foreground_box"], thing["source_size"])
    assert sides == {"left", "bottom"}
    assert at_frame((200, 150), sides, thing["foreground_object"], 1.0, (320, 240)) == (15, 239)
    outcome = run([thing])
    assert isinstance(outcome, Kept)
    (one,) = json.loads(outcome.records[0]["placement"])["objects"]
    assert abs(one["box"][0]) <= 2
    assert abs(one["box"][3] - 240) <= 2
    refused = run([thing], params=CompositeParams(allow_cut=False))
    assert isinstance(refused, Rejected)
    assert refused.reason == "cut object"


def test_objects_overlap_no_more_than_allowed():
    """With a cap of zero two objects never touch; when there is no room for that, nothing fits."""
    for seed in range(8):
        outcome = run([foreground("a"), foreground("b")], seed=seed, params=CompositeParams(overlap=0.0))
        assert isinstance(outcome, Kept)
        one, two = json.loads(outcome.records[0]["placement"])["objects"]
        assert overlap(one["box"], two["box"]) == 0
    narrow = np.zeros((240, 320), bool)
    narrow[180:183, 100:140] = True
    outcome = run([foreground("a"), foreground("b")], ground=narrow, params=CompositeParams(overlap=0.0))
    assert isinstance(outcome, Rejected)


@pytest.mark.parametrize(
    "broken",
    [
        {"ground": np.zeros((240, 320), bool)},
        {"scale": [0.0, 0.0, -1.0]},
        {"picture": background(20, 900), "ground": np.ones((20, 900), bool), "scale": [0.0, 0.0, -3.0]},
    ],
)
def test_where_nothing_fits_the_background_is_rejected(broken):
    """No ground, or ground above the horizon only: 'no place', with what was tried."""
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


def test_the_same_record_gives_the_same_picture_and_others_differ():
    """Place, size and choice come from the record's id and the recipe's seed only."""
    things = [foreground("a"), foreground("b")]
    first, again, other = run(things, name="x"), run(things, name="x"), run(things, name="y")
    assert isinstance(first, Kept)
    assert isinstance(again, Kept)
    assert isinstance(other, Kept)
    assert np.array_equal(first.records[0]["source"], again.records[0]["source"])
    assert first.records[0]["placement"] != other.records[0]["placement"]
    gone = {json.loads(run(things, name=f"{k}").records[0]["placement"])["removed"] for k in range(12)}
    assert gone == {"a", "b"}


def test_the_foot_is_below_the_lowest_row():
    """The middle of the base, not of the whole object: an L stands on its foot."""
    solid = np.zeros((100, 60), bool)
    solid[:95, :10] = True
    solid[95:, :60] = True
    assert foot_of(solid) == (30.0, 100.0)


@pytest.mark.skipif(not (ASSETS / "pairs").exists(), reason="no assets")
def test_a_real_person_on_a_real_floor():
    """A cut-out of a real pair laid on a real photograph keeps the guarantees at full size."""
    read = lambda name: cv2.imread(str(ASSETS / name))[..., ::-1]  # noqa: E731
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
    kept = [
        out
        for seed in range(6)
        if isinstance(out := run([thing], picture=place_on, ground=ground, scale=[0, 1.0, -200.0], seed=seed), Kept)
    ]
    assert kept
    for outcome in kept:
        (out,) = outcome.records
        assert np.array_equal(out["target"], place_on)
        assert np.array_equal(out["source"][~out["foreground_mask"]], place_on[~out["foreground_mask"]])
