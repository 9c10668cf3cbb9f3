"""Random masks that have nothing to do with an object: holes that a model has to fill from what is around them."""

import numpy as np

from rasura.manifests.images import Mask

REFERENCE_SIDE = 512
STROKES, SEGMENTS = (4, 10), (1, 5)
LENGTH, WIDTH = (10, 210), (5, 105)  # px at the reference side
MOST_AREA = 0.5
"""Share of the picture from which on no stroke is added."""


def draw_brush(shape: tuple[int, int], rng: np.random.Generator) -> Mask:
    """Draw strokes of a brush, as LaMa's medium masks have them (arXiv 2109.07161, supplement).

    4 to 10 zigzag strokes of 1 to 5 straight segments, each of its own length and width; every second one turns back.
    Lengths were published for pictures whose shorter side is 512 px and scale with it.

    Args:
        shape: (h, w) of the picture, px.
        rng: for one row.

    Returns:
        (h, w) bool, at least one pixel of it True.

    Examples:
        >>> mask = draw_brush((64, 96), np.random.default_rng(0))
        >>> mask.shape, bool(mask.any())
        ((64, 96), True)
    """
    import cv2

    height, width = shape
    scale = min(shape) / REFERENCE_SIDE
    canvas = np.zeros(shape, np.uint8)
    for _ in range(int(rng.integers(STROKES[0], STROKES[1] + 1))):
        x, y = float(rng.uniform(0, width)), float(rng.uniform(0, height))
        for segment in range(int(rng.integers(SEGMENTS[0], SEGMENTS[1] + 1))):
            angle = float(rng.uniform(0, 4)) * (-1 if segment % 2 else 1)
            length, thickness = (float(rng.uniform(*limits)) * scale for limits in (LENGTH, WIDTH))
            start = round(x), round(y)
            x = min(max(x + length * np.cos(angle), 0), width - 1)
            y = min(max(y + length * np.sin(angle), 0), height - 1)
            cv2.line(canvas, start, (round(x), round(y)), 1, max(1, round(thickness)))
        if canvas.mean() > MOST_AREA:
            break
    if not canvas.any():  # a stroke along the frame of a tiny picture
        canvas[height // 2, width // 2] = 1
    return np.asarray(canvas > 0, bool)


def resize_mask(mask: Mask, shape: tuple[int, int]) -> Mask:
    """Resize a mask to (h, w), nearest pixel.

    Examples:
        >>> resize_mask(np.array([[True, False]]), (2, 4)).astype(int).tolist()
        [[1, 1, 0, 0], [1, 1, 0, 0]]
    """
    rows = np.arange(shape[0]) * mask.shape[0] // shape[0]
    columns = np.arange(shape[1]) * mask.shape[1] // shape[1]
    return np.asarray(mask[rows[:, None], columns[None]], bool)
