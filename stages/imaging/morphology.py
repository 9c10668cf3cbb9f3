"""Growing, shrinking, opening and closing of masks, and distances to them."""

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import Mask
from rasura.stages.imaging.filters import Floats


def disc(radius: int) -> npt.NDArray[np.uint8]:
    """Return the structuring element of a filled circle, (2 · radius + 1) px a side.

    Examples:
        >>> disc(1)
        array([[0, 1, 0],
               [1, 1, 1],
               [0, 1, 0]], dtype=uint8)
    """
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)), np.uint8)


def dilate(mask: Mask, radius: int) -> Mask:
    """Return `mask` grown by `radius` px (a circle); unchanged for 0.

    Examples:
        >>> dilate(np.array([[False, False, True, False]]), 1)
        array([[False,  True,  True,  True]])
    """
    if radius <= 0:
        return mask.copy()
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disc(radius)), np.uint8) > 0


def erode(mask: Mask, radius: int) -> Mask:
    """Return `mask` less `radius` px (a circle); the picture's border is no edge of the mask.

    Examples:
        >>> erode(np.array([[True, True, True, False]]), 1)
        array([[ True,  True, False, False]])
    """
    if radius <= 0:
        return mask.copy()
    kernel = disc(radius)
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), radius, radius, radius, radius, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.erode(padded, kernel), np.uint8)[radius:-radius, radius:-radius] > 0


def morph(mask: Mask, operation: int, side: int) -> Mask:
    """Open or close a mask with an ellipse of `side` px, as if the picture went on beyond its border.

    Args:
        mask: (h, w) bool.
        operation: `cv2.MORPH_OPEN` or `cv2.MORPH_CLOSE`.
        side: px, odd.
    """
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), side, side, side, side, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.morphologyEx(padded, operation, kernel), np.uint8)[side:-side, side:-side] > 0


def compute_distance_to(mask: Mask) -> Floats:
    """Return (h, w) float32, px from each pixel outside `mask` to the nearest one inside; 0 inside.

    Examples:
        >>> compute_distance_to(np.array([[True, False, False]]))
        array([[0., 1., 2.]], dtype=float32)
    """
    return np.asarray(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5), np.float32)


def compute_distance_inside(mask: Mask) -> Floats:
    """Return (h, w) float32, px from each pixel of `mask` to the nearest one outside; 0 outside.

    The picture's border is no edge of the mask.
    """
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5), np.float32)[1:-1, 1:-1]
