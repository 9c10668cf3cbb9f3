"""Where a composite puts its objects."""

import json

import numpy as np
import pytest
from support.composites import compose, compose_kept
from support.paste_scenes import make_background, make_foreground, make_ground_columns

from rasura.stages.compositing.placement import measure_overlap
from rasura.stages.stage import Kept, Rejected


def test_feet_stand_on_the_ground_and_objects_stay_inside():
    """Over many seeds the foot is on the ground mask and the object's box in the frame."""
    ground = np.zeros((240, 320), bool)
    ground[150:200, 40:280] = True
    for seed in range(12):
        (one,) = json.loads(compose_kept([make_foreground()], ground=ground, seed=seed)["placement"])["objects"]
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
            compose_kept([make_foreground(shadow=False)], ground=ground, seed=seed, params={"max_outside": 0.5})[
                "placement"
            ]
        )["objects"]
        x0, y0, x1, y1 = one["box"]
        inside = (min(x1, 320) - max(x0, 0)) * (min(y1, 240) - max(y0, 0)) / ((x1 - x0) * (y1 - y0))
        assert inside >= 0.49
        reached += inside < 1
    assert reached


def test_objects_that_their_photo_cut_stand_at_the_same_side_again():
    """By default they are refused; where the recipe allows them a cut left edge lies on the left frame, a cut base on
    the lower frame."""
    thing = make_foreground(shadow=False, at=(0, 180), size=(320, 240))
    refused = compose([thing])
    assert isinstance(refused, Rejected)
    assert refused.reason == "cut object"
    (one,) = json.loads(compose_kept([thing], params={"allow_cut": True})["placement"])["objects"]
    assert abs(one["box"][0]) <= 2
    assert abs(one["box"][3] - 240) <= 2


def test_objects_overlap_no_more_than_allowed():
    """With a cap of zero two objects never touch; when there is no room for that, one is left out, and its id with it,
    or the record is rejected where the recipe wants all."""
    for seed in range(8):
        out = compose_kept([make_foreground("a"), make_foreground("b")], seed=seed, params={"overlap": 0.0})
        one, two = json.loads(out["placement"])["objects"]
        assert measure_overlap(one["box"], two["box"]) == 0
    narrow = np.zeros((240, 320), bool)
    narrow[180:190, 130:165] = True
    things = [make_foreground("a", shadow=False), make_foreground("b", shadow=False)]
    out = compose_kept(things, ground=narrow, params={"overlap": 0.0})
    assert out["objects"] == 1
    assert out["parents"] == ["bg", "a"]
    assert isinstance(compose(things, ground=narrow, params={"overlap": 0.0, "skip_unplaceable": False}), Rejected)


def test_each_object_is_seen_well_enough():
    """The nearer object may hide the farther one, but no more than `min_visible` leaves."""
    for seed in range(10):
        out = compose_kept(
            [make_foreground(name, height=80, width=60) for name in "abc"], seed=seed, params={"min_visible": 0.7}
        )
        assert 0.7 <= out["placement_visible"] <= 1


def test_a_view_from_another_height_is_refused():
    """A cut-out that was looked down on from 60 degrees fits nowhere on a floor seen at 10 to 25; the reason says so.

    One that was seen alike fits, and the difference is measured."""
    above = make_foreground(**make_ground_columns(pitch=60))
    refused = compose([above], **make_ground_columns(pitch=5))
    assert isinstance(refused, Rejected)
    assert refused.reason == "seen from another height"
    out = compose_kept(
        [make_foreground(**make_ground_columns(pitch=8))], **make_ground_columns(pitch=5), params={"min_height": 0.01}
    )
    assert out["placement_pitch"] <= 15
    assert out["placement_rule"] == "metric"


def test_a_car_seen_from_above_is_not_put_on_a_level_view():
    """Also where its own camera is unknown: its proportions tell. A car seen from the side fits."""
    above = make_foreground(height=60, width=30, label="car", shadow=False)
    refused = compose([above], ground_place="outdoors", **make_ground_columns(pitch=2, focal=900))
    assert isinstance(refused, Rejected)
    assert refused.reason == "seen from another height"
    side = make_foreground(height=30, width=80, label="car", shadow=False)
    assert (
        compose_kept([side], ground_place="outdoors", **make_ground_columns(pitch=2))["placement_rule"] == "class-size"
    )


@pytest.mark.parametrize(
    "broken",
    [
        {"ground": np.zeros((240, 320), bool)},
        {"ground_mask": None},
        {"ground_scale": None},
        {"scale": [0.0, 0.0, -1.0]},
        {"picture": make_background(20, 900), "ground": np.ones((20, 900), bool), "scale": [0.0, 0.0, -3.0]},
    ],
)
def test_where_nothing_fits_the_background_is_rejected(broken):
    """No ground, an unknown one, or one above the horizon only: 'no place', with what was tried."""
    outcome = compose([make_foreground()], **broken)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "no place"
    assert outcome.detail


def test_an_object_larger_than_the_background_is_rejected():
    """An object as high as its photo is too large to be placed whole and is judged so, not squeezed in."""
    huge = make_foreground(height=236, width=310, shadow=False, at=(5, 2), size=(320, 240))
    outcome = compose([huge])
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "no place"


def test_gaussian_places_keep_to_their_rules():
    """The baseline looks at no ground: shares of the picture near the class's mean, at least 5 %, at least 60 % of the
    box inside, mostly off the edge band; and it takes a background without any ground."""
    for seed in range(12):
        params = {"placement": "gaussian", "areas": {"thing a": (0.15, 0.02)}}
        out = compose_kept(
            [make_foreground(shadow=False)], ground_mask=None, ground_scale=None, seed=seed, params=params
        )
        (one,) = json.loads(out["placement"])["objects"]
        x0, y0, x1, y1 = one["box"]
        share = (x1 - x0) * (y1 - y0) / (240 * 320)
        assert share == pytest.approx(0.15, rel=0.1)
        assert out["placement_rule"] == "gaussian"
        inside = (min(x1, 320) - max(x0, 0)) * (min(y1, 240) - max(y0, 0)) / ((x1 - x0) * (y1 - y0))
        assert inside >= 0.6
        assert (x0 + x1) / 2 + 2 >= 0.2 * 320
        assert (x0 + x1) / 2 - 2 <= 0.8 * 320


def test_nothing_is_put_on_a_guess():
    """By default: a floor or an object whose view nobody measured, and a size that only a camera's usual height tells,
    are refused, each with its own reason; measured ones pass; the recipe can allow guesses."""
    strict = {"max_view_error": 8.0, "max_size_error": 0.3}
    sure = {"ground_view_error": 2.0, "ground_size_error": 0.1}
    wide = {"min_height": 0.01, "max_pitch": 60}
    here, there = make_ground_columns(20), make_ground_columns(20)

    def reason(thing, behind, **more):
        outcome = compose([thing], **behind, params=strict | wide | more)
        return outcome.reason if isinstance(outcome, Rejected) else None

    known = make_foreground(**there, **sure)
    assert reason(known, here | sure) is None
    assert reason(known, here) == "floor is a guess"
    assert reason(known, here | sure | {"ground_view_error": 12.0}) == "floor is a guess"
    assert reason(known, here | sure | {"ground_size_error": 0.6}) == "floor is a guess"
    assert reason(make_foreground(**there), here | sure) == "view of the object is a guess"
    unsure = make_foreground(**make_ground_columns(20, metric=False), **sure)
    assert reason(unsure, here | sure) == "size of the object is a guess"
    assert reason(unsure | {"label": "suitcase", "detect_score": 0.9}, here | sure) is None
    assert reason(unsure | {"label": "suitcase", "detect_score": 0.2}, here | sure) == "size of the object is a guess"
    assert reason(unsure, here, max_view_error=None, max_size_error=None) is None


def test_things_are_put_where_their_class_can_stand():
    """A car is refused in a kitchen and where nobody knows; with others in the draw it is left out."""
    car = make_foreground("car", height=30, width=80, label="car", shadow=False)
    refused = compose([car], ground_place="indoors")
    assert isinstance(refused, Rejected)
    assert refused.reason == "out of place"
    assert "car indoors" in refused.detail
    out = compose_kept([car, make_foreground("pot")], ground_place="indoors")
    assert json.loads(out["placement"])["order"] == ["pot"]
    assert out["parents"] == ["bg", "pot"]
    assert isinstance(compose([car], ground_place="indoors", params={"check_scene_type": False}), Kept)


def test_what_stands_nearer_is_not_covered():
    """A thing of the photo whose foot is lower is never hidden by what is pasted behind it; one that is farther off may
    be, by half."""
    near, far = [120.0, 100.0, 200.0, 235.0], [100.0, 60.0, 220.0, 125.0]
    for seed in range(12):
        out = compose_kept([make_foreground(shadow=False)], ground_things=[*near, *far], seed=seed)
        (one,) = json.loads(out["placement"])["objects"]
        box = one["box"]
        area = (box[2] - box[0]) * (box[3] - box[1])
        if box[3] < near[3]:
            assert measure_overlap(near, box) * area / area <= 0.05 + 1e-9
        assert measure_overlap(box, far) <= 0.5


def test_the_floor_goes_on_in_front():
    """A strip of floor behind something that is no floor: what stood there would be hidden. Nothing is placed."""
    strip = np.zeros((240, 320), bool)
    strip[150:154] = True
    assert isinstance(compose([make_foreground(shadow=False)], ground=strip), Rejected)
    strip[150:185] = True
    assert isinstance(compose([make_foreground(shadow=False)], ground=strip), Kept)
