"""Straight line segments of a picture, with the error of their direction.

Source: von Gioi, Jakubowicz, Morel and Randall, "LSD: a Line Segment Detector" (IPOL 2012), as OpenCV has it.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

WORK_SIDE = 768  # px: long side at which segments are looked for
MIN_LENGTH = 0.035  # of the diagonal
FRAME_MARGIN = 4  # px of the work grid: what runs along the frame is the frame's
MAX_SEGMENTS = 250
ANGLE_FLOOR = np.deg2rad(1.0)  # error of the best segment's direction: lenses and things are not that straight
END_ERROR = 0.8  # px of the work grid, of a segment's ends


@dataclass(frozen=True, eq=False)
class Segments:
    """Line segments, longest first. Lengths count in long sides of the picture, from its middle."""

    middles: Array  # (n, 2)
    angles: Array  # (n,) radians of the direction, 0 to the right, growing downwards
    errors: Array  # (n,) radians
    weights: Array  # (n,) a long line is more certain than a short one
    lengths: Array  # (n,)

    def __len__(self) -> int:
        return len(self.angles)


def find_segments(picture: Array) -> Segments:
    """Find the straight line segments of a picture (h, w, 3) uint8, at most `MAX_SEGMENTS` of them.

    The error of a direction is hypot(1 degree, 0.8 px / length), the weight length / (0.08 diagonal) within 0.4 to 2.5.
    """
    height, width = picture.shape[:2]
    scale = min(1.0, WORK_SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA) if scale < 1 else grey
    lines = cv2.createLineSegmentDetector(cv2.LSD_REFINE_STD).detect(grey)[0]
    ends = np.zeros((0, 4)) if lines is None else np.asarray(lines, np.float64).reshape(-1, 4)
    long_side, diagonal = max(grey.shape), float(np.hypot(*grey.shape))
    length = np.hypot(ends[:, 2] - ends[:, 0], ends[:, 3] - ends[:, 1])
    limits = np.array([grey.shape[1], grey.shape[0]] * 2) - FRAME_MARGIN
    inside = ((ends >= FRAME_MARGIN) & (ends <= limits)).all(axis=1)
    kept = np.flatnonzero((length >= MIN_LENGTH * diagonal) & inside)
    kept = kept[np.lexsort((ends[kept, 0], ends[kept, 1], -length[kept]))][:MAX_SEGMENTS]
    ends, length = ends[kept], length[kept]
    middles = (ends[:, :2] + ends[:, 2:]) / 2 - np.array([grey.shape[1], grey.shape[0]]) / 2
    return Segments(
        middles / long_side,
        np.arctan2(ends[:, 3] - ends[:, 1], ends[:, 2] - ends[:, 0]) % np.pi,
        np.hypot(ANGLE_FLOOR, END_ERROR / np.maximum(length, 1)),
        np.clip(length / (0.08 * diagonal), 0.4, 2.5),
        length / long_side,
    )
