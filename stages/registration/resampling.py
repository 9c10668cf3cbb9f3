"""Translation of a picture by fractions of a pixel."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import RGB
from rasura.stages.imaging.comparison import compute_range_distance
from rasura.stages.imaging.morphology import dilate


def translate(picture: npt.NDArray[Any], dx: float, dy: float) -> npt.NDArray[Any]:
    """Return a picture of any type moved right by dx and down by dy px (Lanczos), mirrored at the border.

    Examples:
        >>> translate(np.array([[1, 2, 3, 4]], np.float32), 1, 0)
        array([[2., 1., 2., 3.]], dtype=float32)
    """
    matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float64)
    height, width = picture.shape[:2]
    # Not INTER_CUBIC: OpenCV's kernel (a = -0.75) lays the picture up to 0.04 px beside where it was sent.
    return np.asarray(
        cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101)
    )


def fill_beyond_border(
    moved: RGB, inside: npt.NDArray[np.bool_], fill: RGB, reach: int, max_difference: float = 20.0
) -> RGB:
    """Return `moved` with its pixels without data from `fill`, where `fill` shows nothing but the same scene.

    Args:
        moved, fill: (h, w, 3) uint8.
        inside: (h, w) bool, where `moved` has data; elsewhere it is mirrored.
        reach: px that it moved by at most.
        max_difference: grey levels, see `translate_and_fill`.
    """
    unlike = compute_range_distance(fill, moved, reach + 3) > max_difference
    unlike = dilate(np.asarray(cv2.medianBlur(unlike.astype(np.uint8), 3), np.uint8) > 0, 4)
    return np.where((inside | unlike)[..., None], moved, fill).astype(np.uint8)


def translate_and_fill(picture: RGB, dx: float, dy: float, fill: RGB, max_difference: float = 20.0) -> RGB:
    """Return `picture` moved right by dx and down by dy px; pixels without data are taken from `fill`.

    Where `fill` shows an object there (it differs by more than `max_difference` grey levels from everything that
    `picture` shows near that place), `picture` is mirrored instead.

    Args:
        picture, fill: (h, w, 3) uint8.
        dx, dy: px. Zero for both returns `picture` itself.
    """
    if dx == 0 and dy == 0:
        return picture
    shifted = translate(np.ascontiguousarray(picture), dx, dy)
    height, width = picture.shape[:2]
    columns, rows = np.arange(width) - dx, np.arange(height) - dy
    inside = ((rows >= 0) & (rows <= height - 1))[:, None] & ((columns >= 0) & (columns <= width - 1))[None, :]
    return fill_beyond_border(shifted, inside, fill, int(np.ceil(max(abs(dx), abs(dy)))), max_difference)
