"""What is wrong with gt itself: remains of the object, another thing in its place, a cut; and masks that miss."""

import cv2
import numpy as np
import pytest
from support.pair_scenes import audit_pair, capture, freeze, make_floor, make_scene

cv2.setNumThreads(1)
LIMITS = {"audit_residue": 0.035, "audit_cut": 0.4, "audit_strange": 2.5, "audit_second": 0.03}
MIN_CHANGED = 0.92


def find_faults(record):
    """Return the names of the measurements beyond their limits, as the shipped recipes reject by them."""
    faults = {name for name, limit in LIMITS.items() if record[name] is not None and record[name] > limit}
    changed = record.get("mask_changed")
    return faults | ({"mask_changed"} if changed is not None and changed < MIN_CHANGED else set())


def draw_thing(picture, centre, axes, colour=(60, 130, 60)):
    """Return a picture with a filled ellipse of one colour and dark dots on it."""
    out = picture.copy()
    cv2.ellipse(out, centre, axes, 0, 0, 360, colour, -1, cv2.LINE_AA)
    for k in range(6):
        dot = (centre[0] + (k % 3 - 1) * axes[0] // 2, centre[1] + (k // 3 * 2 - 1) * axes[1] // 3)
        cv2.circle(out, dot, max(2, min(axes) // 8), (20, 20, 90), -1, cv2.LINE_AA)
    return out


def locate(mask):
    """Return the centre of a mask, x and y, and half its width and height."""
    rows, columns = np.nonzero(mask)
    centre = (int(columns.mean()), int(rows.mean()))
    return centre, (int(np.ptp(columns)) // 2, int(np.ptp(rows)) // 2)


@pytest.mark.parametrize(
    "options",
    [{}, {"noise": 2.5}, {"darkness": 0.7}, {"gain": 0.97, "shift": (0.6, -0.4)}, {"grey": True}],
    ids=str,
)
def test_a_clean_pair_has_none_of_these_faults(options):
    """With M_o segmented and with the true mask: noise, deep shadows, a moved camera and grey on grey are no faults."""
    pair = make_scene(211, **options)
    assert find_faults(audit_pair(pair.source, pair.clean)) == set()
    assert find_faults(audit_pair(pair.source, pair.clean, given_mask=freeze(pair.object_mask))) == set()


@pytest.mark.parametrize("share", [0.15, 0.35])
def test_an_averaged_plate_shows_how_much_of_the_object_is_left(share):
    """A mean of shots with and without the object holds a ghost; the measurement is below its share, but near it."""
    pair = make_scene(212)
    mixed = np.rint((1 - share) * pair.clean.astype(np.float64) + share * pair.source).astype(np.uint8)
    out = audit_pair(pair.source, mixed)
    assert "audit_residue" in find_faults(out)
    assert 0.5 * share < out["audit_residue"] < share * 1.1


def test_a_coarse_ground_is_no_residue():
    """Behind a plain object on coarse gravel only chance correlates; at the rim both show gravel."""
    rng = np.random.default_rng(213)
    gravel = np.kron(rng.uniform(90, 180, (80, 100, 1)), np.ones((4, 4, 1))) * np.ones(3)
    full = gravel.copy()
    cv2.ellipse(full, (200, 170), (50, 80), 0, 0, 360, (30, 90, 160), -1, cv2.LINE_AA)
    out = audit_pair(capture(full, rng, 1.0), capture(gravel, rng, 1.0))
    assert "audit_residue" not in find_faults(out)


def test_another_thing_in_the_objects_place_is_strange_ground():
    """Colours that are nowhere else in gt betray it, although it has no rim outside of M_o."""
    pair = make_scene(214)
    centre, axes = locate(pair.object_mask)
    other = draw_thing(pair.clean, centre, (axes[0] - 4, axes[1] - 4))
    assert audit_pair(pair.source, other)["audit_strange"] > LIMITS["audit_strange"]
    boards = np.where(np.arange(pair.clean.shape[1]) // 20 % 2, 1.0, 0.6)[None, :, None]  # go on outside of M_fg
    patterned = (pair.clean * boards).astype(np.uint8)
    under = np.where(pair.object_mask[..., None], pair.source, pair.source * boards).astype(np.uint8)
    assert find_faults(audit_pair(under, patterned)) == set()


def test_what_is_cut_off_is_an_edge_of_gt_alone():
    """The lower part of the object stays in gt; so does a thing beside it that was elsewhere before."""
    pair = make_scene(215)
    centre, axes = locate(pair.object_mask)
    stays = pair.object_mask & (np.arange(pair.clean.shape[0])[:, None] > centre[1] + axes[1] // 5)
    rest = np.where(stays[..., None], pair.source, pair.clean)
    assert "audit_cut" in find_faults(audit_pair(pair.source, rest))
    moved = draw_thing(pair.clean, (centre[0] - axes[0] - 12, centre[1]), (26, 26))
    assert "audit_cut" in find_faults(audit_pair(pair.source, moved))


def test_given_masks_that_cover_what_stays_or_miss_what_went_are_found():
    """A mask over things that stay, one that is shifted, and one that leaves a second removed object out."""
    pair = make_scene(216)
    height = len(pair.object_mask)
    covering = pair.object_mask.copy()
    covering[10:60, 10:80] = True
    assert "mask_changed" in find_faults(audit_pair(pair.source, pair.clean, given_mask=freeze(covering)))
    moved = np.roll(pair.object_mask, -20, axis=1)
    assert "mask_changed" in find_faults(audit_pair(pair.source, pair.clean, given_mask=freeze(moved)))
    centre, axes = locate(pair.object_mask)
    second = draw_thing(pair.source, (centre[0], min(height - 25, centre[1] + axes[1] + 30)), (20, 20))
    assert "audit_second" in find_faults(audit_pair(second, pair.clean, given_mask=freeze(pair.object_mask)))


def test_an_object_that_fills_the_frame_has_no_ground_to_compare_with():
    """Without other places in the picture nothing is measured, and nothing is claimed."""
    rng = np.random.default_rng(217)
    floor = make_floor(160, 200, 217)
    full = draw_thing(floor.astype(np.float32), (100, 80), (92, 72), (200, 40, 40))
    out = audit_pair(capture(full, rng, 1.0), capture(floor, rng, 1.0))
    assert out["audit_strange"] is None
