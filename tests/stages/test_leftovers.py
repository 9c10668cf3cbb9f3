"""What reappears behind an occluder, or is too small to be an object of its own, belongs to M_fg or is reported."""

import cv2
import numpy as np
import pytest
from support.pair_scenes import capture, freeze, make_floor

from rasura.stages.effect_mask.object_core import find_clean_only_blobs
from rasura.stages.effects import Effects, EffectsParams
from rasura.stages.registration.noise import estimate_noise

cv2.setNumThreads(1)


def make_table_pair(seed, board=10, leg=(7, 22), boards=1, noise=1.0):
    """A person behind a rack: the body above its boards, parts of two legs below each, the rack in both pictures.

    Returns:
        source, clean: (320, 400, 3) uint8; (320, 400) bool, the visible person.
    """
    rng = np.random.default_rng(700 + seed)
    clean = make_floor(seed=700 + seed)
    left, top = int(rng.integers(60, 260)), int(rng.integers(40, 90))
    person = np.zeros(clean.shape[:2], bool)
    person[top : top + 70, left : left + 50] = True
    for number in range(boards):
        row = top + 70 + number * (board + leg[1])
        clean[row : row + board, left - 40 : left + 90] = (120, 85, 50)
        for x in (left + 6, left + 50 - 6 - leg[0]):
            person[row + board : row + board + leg[1], x : x + leg[0]] = True
    body = np.where((np.mgrid[:320, :400][0] % 16 < 8)[..., None], (40, 45, 60), (60, 68, 90))
    source = np.where(person[..., None], body, clean)
    return capture(source, rng, noise), capture(clean, rng, noise), person


def run(source, clean):
    record = {"id": "x", "input": freeze(source), "gt": freeze(clean), "pair_noise": estimate_noise(source, clean)}
    return Effects(EffectsParams()).process_one(record).records[0]


@pytest.mark.parametrize("noise", [0.5, 2.0])
@pytest.mark.parametrize(("leg", "boards"), [((3, 9), 1), ((3, 9), 3), ((4, 8), 4), ((7, 22), 2), ((12, 40), 1)])
def test_legs_behind_a_table_are_taken_with_the_person(leg, boards, noise):
    """Legs of any size behind one board or several are in M_fg whole (99 %), the boards are not, nothing is left."""
    source, clean, person = make_table_pair(boards, leg=leg, boards=boards, noise=noise)
    out = run(source, clean)
    assert (out["foreground_mask"] & person).sum() >= 0.99 * person.sum()
    assert out["foreground_mask"].sum() <= 1.5 * person.sum()
    assert out["effects_left"] <= 10


def test_what_is_too_far_to_be_taken_is_reported():
    """Small legs under a board that is wider than a hop are not taken, and effects_left says how strong they are."""
    source, clean, _ = make_table_pair(3, board=26, leg=(3, 9))
    out = run(source, clean)
    assert out["effects_left"] > 25


@pytest.mark.parametrize("kind", ["shadow", "far", "line"])
def test_what_is_no_part_of_the_object_is_not_taken(kind):
    """A shadow that only gt has, something far away, and a line that the camera saw aside: not in M_fg, none left."""
    source, clean, person = make_table_pair(5)
    other = np.zeros_like(person)
    rows = np.flatnonzero(person.any(1))
    if kind == "shadow":
        shade = np.zeros(person.shape, np.float32)
        shade[rows[0] : rows[0] + 60, 8:36] = 0.2
        shade = cv2.GaussianBlur(shade, (0, 0), 5)
        other = shade > 0.1
        clean = (clean * (1 - shade[..., None])).astype(np.uint8)
    elif kind == "far":
        other[300:306, 380:386] = True
        source = np.where(other[..., None], np.uint8(20), source)
    else:
        other[rows[-1] + 20 : rows[-1] + 23, 40:300] = True
        clean = np.where(other[..., None], np.uint8(245), clean)
        source = np.where(np.roll(other, 1, 0)[..., None], np.uint8(245), source)
    out = run(source, clean)
    apart = cv2.dilate(person.astype(np.uint8), np.ones((9, 9))) == 0
    assert not (out["foreground_mask"] & other & apart).any()
    assert out["effects_left"] <= 25


def test_what_only_gt_has_is_nothing_that_is_left():
    """A post that only gt shows, near the person and strong: source has no such thing, so the target has none."""
    source, clean, person = make_table_pair(6)
    columns = np.flatnonzero(person.any(0))
    post = np.zeros_like(person)
    post[210:260, columns[-1] + 22 : columns[-1] + 34] = True
    out = run(source, np.where(post[..., None], np.uint8((250, 90, 20)), clean))
    assert not (out["foreground_mask"] & post).any()
    assert out["effects_left"] <= 10


def make_beam_pair(seed):
    """A green board before bricks that are as bright: only its hue has edges.

    Returns:
        source, clean: (320, 400, 3) uint8; (320, 400) bool, the board.
    """
    rng = np.random.default_rng(seed)
    clean = make_floor(seed=seed, colour=(215, 115, 75))
    clean[::14] = clean[:, ::30] = (180, 170, 160)
    board = np.zeros(clean.shape[:2], bool)
    board[120:146, 60:330] = True
    return capture(np.where(board[..., None], (85, 220, 150), clean), rng, 1.0), capture(clean, rng, 1.0), board


@pytest.mark.parametrize("seed", [171, 172])
def test_an_object_as_bright_as_a_textured_wall_is_no_ghost(seed):
    """The board is a blob of source; with the pictures exchanged it is one of clean alone."""
    source, clean, board = make_beam_pair(seed)
    assert not find_clean_only_blobs(source, clean, board).any()
    assert find_clean_only_blobs(clean, source, board)[board].all()
    out = run(source, clean)
    assert (out["foreground_mask"] & board).sum() >= 0.99 * board.sum()
