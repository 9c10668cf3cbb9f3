"""Thin upright things of a photo (poles, posts, table legs) that would stand in front of a pasted object.

No box detector finds a pole. Its two edges are long straight upright lines, and where they go on below the foot of a
pasted object the pole stands nearer to the camera and would have to hide it. Lines that lie on the ground (joints of
tiles, kerbs, lane marks) do not: what is above the object's foot of them is ground too.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.stages.ground_plane.line_segments import find_segments

Array = npt.NDArray[Any]

MAX_LEAN = np.deg2rad(15.0)  # from the picture's vertical
MAX_TURN, MAX_OFFSET, MAX_GAP = np.deg2rad(4.0), 0.006, 0.15  # of pieces of one line; offset and gap in heights
MIN_LENGTH = 0.1  # of the picture's height
MIN_BELOW, MIN_ABOVE = 0.02, 0.2  # that it goes on below the foot (heights of the picture), and above (of the object)
MAX_ON_GROUND = 0.5  # share of its part beside the object that is ground: more is a line on the ground
SAMPLES = 12


def find_upright_lines(picture: Array) -> Array:
    """Find the long upright lines of a picture (h, w, 3) uint8, joined: (n, 4) x, y of the top and of the foot."""
    height, width = picture.shape[:2]
    segments = find_segments(picture)
    steep = np.flatnonzero(np.abs(segments.angles - np.pi / 2) < MAX_LEAN)
    long_side = max(height, width)
    middles = segments.middles[steep] * long_side + np.array([width, height]) / 2
    half = segments.lengths[steep] * long_side / 2
    direction = np.column_stack([np.cos(segments.angles[steep]), np.sin(segments.angles[steep])])
    lines = np.column_stack([middles - half[:, None] * direction, middles + half[:, None] * direction])
    lines = lines[np.lexsort((lines[:, 0], lines[:, 1]))]
    joined: list[Array] = []
    for line in lines:
        for k, other in enumerate(joined):
            if _continues(other, line, height):
                joined[k] = np.concatenate([other[:2], line[2:] if line[3] > other[3] else other[2:]])
                break
        else:
            joined.append(line)
    kept = [line for line in joined if line[3] - line[1] >= MIN_LENGTH * height]
    return np.array(kept).reshape(-1, 4)


def _continues(upper: Array, lower: Array, height: int) -> bool:
    """Return whether a line (4,) is the continuation of another, which begins above it."""
    turn = np.arctan2(upper[2] - upper[0], upper[3] - upper[1]) - np.arctan2(lower[2] - lower[0], lower[3] - lower[1])
    slope = (upper[2] - upper[0]) / max(upper[3] - upper[1], 1e-6)
    offset = upper[2] + slope * (lower[1] - upper[3]) - lower[0]
    near = -MAX_GAP * height < lower[1] - upper[3] < MAX_GAP * height
    return bool(abs(turn) < MAX_TURN and abs(offset) < max(1.5, MAX_OFFSET * height) and near)


def find_hidden_boxes(boxes: Array, lines: Array, ground: Array) -> Array:
    """Find the boxes (n, 4) before which a thin thing stands, (n,) bool.

    Args:
        lines: (m, 4), see `find_upright_lines`. ground: (h, w) bool.

    Examples:
        A pole from row 10 to row 90 hides what has its foot in row 70, not what has it in row 95.

        >>> pole, ground = np.array([[50.0, 10, 50, 90]]), np.arange(100)[:, None] * np.ones(100) > 60
        >>> find_hidden_boxes(np.array([[40, 30, 60, 70], [40, 55, 60, 95]]), pole, ground).tolist()
        [True, False]
    """
    hidden = np.zeros(len(boxes), bool)
    height, width = ground.shape
    wide_ground = cv2.erode(ground.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    for x_top, y_top, x_foot, y_foot in lines:
        tall = boxes[:, 3] - boxes[:, 1]
        crosses = (y_foot > boxes[:, 3] + MIN_BELOW * height) & (y_top < boxes[:, 3] - MIN_ABOVE * tall)
        slope = (x_foot - x_top) / max(y_foot - y_top, 1e-6)
        upper = np.maximum(boxes[:, 1], y_top)
        rows = upper[:, None] + (boxes[:, 3] - upper)[:, None] * (np.arange(SAMPLES) + 0.5) / SAMPLES
        columns = x_top + slope * (rows - y_top)
        inside = (columns > boxes[:, :1]) & (columns < boxes[:, 2:3])
        on_ground = wide_ground[
            np.clip(rows, 0, height - 1).astype(np.intp), np.clip(columns, 0, width - 1).astype(np.intp)
        ]
        share = (on_ground & inside).sum(axis=1) / np.maximum(inside.sum(axis=1), 1)
        hidden |= crosses & (inside.sum(axis=1) >= SAMPLES / 4) & (share <= MAX_ON_GROUND)
    return hidden
