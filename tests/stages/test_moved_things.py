"""Leaves that the wind moved are cut out of M_fg; objects, their parts and their shadows never are."""

import cv2
import numpy as np
import pytest
from support.pair_scenes import make_scene

from rasura.stages.capture import Capture, CaptureParams
from rasura.stages.effects import Effects, EffectsParams
from rasura.stages.pair import Pair, PairParams

LEAF = (205, 120, 40)


def _draw(picture, places, colour=LEAF):
    out = picture.copy()
    for x, y in places:
        cv2.ellipse(out, (x, y), (6, 4), 20, 0, 360, colour, -1, cv2.LINE_AA)
    return out


def _run(source, clean, **more):
    (row,) = Pair(PairParams()).process_one({"id": "p", "input": source, "gt": clean} | more).records
    (row,) = Effects(EffectsParams()).process_one(row).records
    return row


def _find_places(mask, gap):
    """Return three places whose distance from a mask is about `gap` px, apart from each other."""
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    distance[:20] = distance[-20:] = 0
    distance[:, :20] = distance[:, -20:] = 0
    places = []
    for _ in range(3):
        rows, columns = np.nonzero(np.abs(distance - gap) < 1)
        order = np.argsort(rows * 7 + columns * 13)
        y, x = int(rows[order[0]]), int(columns[order[0]])
        places.append((x, y))
        cv2.circle(distance, (x, y), 45, 0, -1)
    return places


@pytest.mark.parametrize("seed", [301, 302, 303])
def test_leaves_that_moved_are_cut_out_and_stay_in_the_target(seed):
    pair = make_scene(seed)
    here, there = _find_places(pair.foreground_mask, 19), _find_places(pair.foreground_mask, 45)
    source, clean = _draw(pair.source, here), _draw(pair.clean, there)
    row = _run(source, clean)
    leaves = cv2.dilate((_draw(np.zeros_like(source), here).max(2) > 0).astype(np.uint8), np.ones((3, 3))) > 0
    assert not (row["foreground_mask"] & leaves).any()
    assert (row["foreground_mask"] & pair.foreground_mask).sum() > 0.9 * pair.foreground_mask.sum()
    (triplet,) = Capture(CaptureParams()).process_one(row | {"object_mask": pair.object_mask}).records
    np.testing.assert_array_equal(triplet["target"][leaves], triplet["source"][leaves])


@pytest.mark.parametrize("seed", [304, 305])
def test_a_second_object_is_not_cut_out(seed):
    """A small thing that only the source shows, and that the clean picture has nowhere, is removed with the object."""
    pair = make_scene(seed)
    places = _find_places(pair.foreground_mask, 13)
    row = _run(_draw(pair.source, places), pair.clean)
    shown = _draw(np.zeros_like(pair.source), places).max(2) > 200
    assert row["effects_moved"] == 0
    assert (row["foreground_mask"] & shown).sum() > 0.9 * shown.sum()
    # nor where something of another colour lies in the clean picture alone
    other = _run(_draw(pair.source, places), _draw(pair.clean, [(30, 300)], (30, 40, 180)))
    assert (other["foreground_mask"] & shown).sum() > 0.9 * shown.sum()


@pytest.mark.parametrize("seed", [306, 307, 308])
def test_where_nothing_moved_nothing_is_cut_out(seed):
    pair = make_scene(seed, shift=(0.4, -0.3))
    assert _run(pair.source, pair.clean)["effects_moved"] == 0
