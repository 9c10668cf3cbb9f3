"""Poles and posts of a photo: an object is not drawn over what stands in front of it."""

import cv2
import numpy as np
import pytest

from rasura.stages.compositing.thin_objects import find_hidden_boxes, find_upright_lines


def scene(width=6, top=20, foot=260, x=200, lean=0.0, joint=False):
    """A wall over a floor from row 140 with a pole, or a joint of the floor's tiles, and the floor's mask."""
    rng = np.random.default_rng(0)
    picture = np.full((300, 400, 3), 160, np.float64)
    picture[140:] = 110
    ends = ((x, 150), (x, 295)) if joint else ((int(x + lean * (foot - top)), top), (x, foot))
    cv2.line(picture, *ends, (30, 30, 30), 2 if joint else width)
    ground = np.zeros((300, 400), bool)
    ground[140:] = True
    if not joint:
        ground &= ~(np.abs(np.arange(400) - x) <= width)[None]
    return np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8), ground


@pytest.mark.parametrize(("width", "lean"), [(2, 0.0), (6, 0.0), (16, 0.0), (6, 0.1)])
def test_a_pole_in_front_hides_what_stands_behind_it(width, lean):
    """Thin or thick, upright or leaning: behind it is hidden, in front of it or beside it is not."""
    picture, ground = scene(width, lean=lean)
    lines = find_upright_lines(picture)
    assert len(lines)
    behind, front, beside = [170, 90, 235, 210], [170, 160, 235, 285], [260, 90, 320, 210]
    assert find_hidden_boxes(np.array([behind, front, beside]), lines, ground).tolist() == [True, False, False]


def test_joints_of_a_floor_hide_nothing():
    """A line that lies on the ground is no pole, however upright it is in the picture."""
    picture, ground = scene(joint=True)
    boxes = np.array([[170, 150, 235, 240], [170, 90, 235, 200]])
    assert find_hidden_boxes(boxes, find_upright_lines(picture), ground)[0] == np.False_
    assert not find_hidden_boxes(boxes, np.zeros((0, 4)), ground).any()
