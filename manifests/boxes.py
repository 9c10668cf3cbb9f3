"""Boxes of masks: x0, y0, x1, y1 in px, the last two exclusive."""

import numpy as np

from rasura.manifests.images import Mask

Box = tuple[int, int, int, int]


def bounds(mask: Mask) -> Box:
    """The box of the True pixels of (h, w), of which there must be some."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


def square_around(box: Box, side: int, shape: tuple[int, ...]) -> Box:
    """The square of `side` px around a box, moved into a picture of (h, w, …); cut where the picture is smaller."""

    def span(low: int, high: int, length: int) -> tuple[int, int]:
        start = min(max(0, (low + high - side) // 2), max(0, length - side))
        return start, min(length, start + side)

    x0, x1 = span(box[0], box[2], shape[1])
    y0, y1 = span(box[1], box[3], shape[0])
    return x0, y0, x1, y1
