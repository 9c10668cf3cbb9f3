"""Boxes of masks: x0, y0, x1, y1 in px, the last two exclusive."""

import numpy as np

from rasura.manifests.images import Mask

Box = tuple[int, int, int, int]


def compute_bounds(mask: Mask) -> Box:
    """Compute the bounding box of a mask.

    Args:
        mask: (h, w), of which at least one pixel must be True.

    Returns:
        The smallest box around all True pixels.

    Examples:
        >>> mask = np.zeros((4, 6), bool)
        >>> mask[1:3, 2:5] = True
        >>> compute_bounds(mask)
        (2, 1, 5, 3)
    """
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


def place_square(box: Box, side: int, shape: tuple[int, ...]) -> Box:
    """Place a square around the centre of a box, inside a picture.

    Args:
        box: what to centre on.
        side: of the square, px.
        shape: of the picture, (h, w, …).

    Returns:
        The square, moved into the picture; cut where the picture is smaller than it.

    Examples:
        >>> place_square((0, 0, 10, 10), 20, (100, 15))
        (0, 0, 15, 20)
    """

    def span(low: int, high: int, length: int) -> tuple[int, int]:
        start = min(max(0, (low + high - side) // 2), max(0, length - side))
        return start, min(length, start + side)

    x0, x1 = span(box[0], box[2], shape[1])
    y0, y1 = span(box[1], box[3], shape[0])
    return x0, y0, x1, y1
