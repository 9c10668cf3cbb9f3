"""Augmentations of triplets: masks that are wider or narrower than the object, colours, and random crops."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

REFERENCE_SIDE = 512
"""Shorter side of the pictures that sides in px were published for."""
SQUARES = ((0.005, 5), (0.02, 8), (0.05, 12), (0.1, 17), (0.25, 23), (1.0, 30))
"""ObjectClear's largest square in px, by the largest share of the picture that a mask takes."""
GREY = np.array([0.299, 0.587, 0.114], np.float32)
"""Share of red, green and blue in a grey level."""
HUE = 15
"""Largest shift of the hue, in steps of 256 around the circle."""


def widen_mask(mask: Array, side: int) -> Array:
    """Return a mask (h, w) bool, dilated by a square of that side in px; 0 leaves it as it is.

    RORem's masks are dilated by 20 px at 512 px (its release, `dilate_mask`). A square of an even side reaches one px
    further down and to the right.

    Examples:
        >>> widen_mask(np.array([[False, False, False, True, False, False]]), 4).astype(int).tolist()
        [[0, 0, 1, 1, 1, 1]]
    """
    if side <= 1:
        return mask
    return np.asarray(cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8))) > 0


def vary_mask(mask: Array, rng: np.random.Generator, scale: float = 1.0) -> tuple[Array, str]:
    """Return a mask (h, w) bool with its mode: dilated (two of three times), eroded (one of six) or exact.

    It is dilated or eroded by a square whose side is drawn from 1 px to that of `SQUARES`. A mask that erosion would
    take away stays as it is.

    Args:
        scale: of the sides, which were published for pictures of 512 px.

    Source: ObjectClear's release, `OBERParquetDataset`.
    """
    largest = next(side for share, side in SQUARES if mask.mean() <= share)
    side = int(rng.integers(1, max(1, round(largest * scale)) + 1))
    first, second = rng.uniform(size=2)
    if first < 0.67:
        return widen_mask(mask, side), "dilated"
    if second < 0.5:
        # the frame is no rim
        eroded = np.asarray(cv2.erode(mask.astype(np.uint8), np.ones((side | 1, side | 1), np.uint8)), np.uint8) > 0
        if eroded.any():
            return eroded, "eroded"
    return mask, "exact"


def vary_colours(pictures: tuple[Array, Array], rng: np.random.Generator) -> tuple[Array, Array]:
    """Change brightness, contrast, saturation and hue of a pair of pictures (h, w, 3) uint8, of both alike.

    Factors are from 0.8 to 1.2. Contrast is around the mean of the first picture, so that pixels that were the same in
    both stay the same; ObjectClear's release takes each picture's own mean.
    """
    brightness, contrast, saturation = rng.uniform(0.8, 1.2, 3).astype(np.float32)
    shift = int(rng.integers(-HUE, HUE + 1))
    mean = np.clip(pictures[0] * brightness, 0, 255).dot(GREY).mean()

    def change(picture: Array) -> Array:
        values = np.clip(picture * brightness, 0, 255)
        values = np.clip(mean + (values - mean) * contrast, 0, 255)
        grey = values.dot(GREY)[..., None]
        values = np.clip(grey + (values - grey) * saturation, 0, 255)
        hsv = cv2.cvtColor(np.rint(values).astype(np.uint8), cv2.COLOR_RGB2HSV_FULL)
        hsv[..., 0] = (hsv[..., 0].astype(int) + shift) % 256
        return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))

    return change(pictures[0]), change(pictures[1])


def draw_square(mask: Array, smallest: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw a square of the picture that has the mask's centre in it, x0, y0, x1, y1.

    Its side is from `smallest` px to the shorter side of the picture; that side itself where the picture is smaller.

    Args:
        mask: (h, w) bool; the picture's centre counts where it is empty.
    """
    height, width = mask.shape
    shortest = min(height, width)
    side = int(rng.integers(min(smallest, shortest), shortest + 1))
    centre = (height // 2, width // 2)
    if mask.any():
        rows, columns = np.nonzero(mask)
        centre = int(rows.mean()), int(columns.mean())
    top, left = (
        int(rng.integers(max(0, middle - side + 1), min(middle, length - side) + 1))
        for middle, length in zip(centre, mask.shape, strict=True)
    )
    return left, top, left + side, top + side
