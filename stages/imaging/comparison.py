"""Comparison of two pictures of one scene: their difference, and where they show the same."""

import cv2
import numpy as np

from rasura.manifests.images import RGB, Mask
from rasura.stages.imaging.filters import Floats, blur, box_mean, channel_max
from rasura.stages.imaging.morphology import dilate, disc


def compute_difference(source: RGB, clean: RGB, side: int = 5) -> Floats:
    """Return (h, w) float32, grey levels: the largest over channels of |side × side mean of source − clean|."""
    return channel_max(np.abs(box_mean(source.astype(np.float32) - clean, side)))


def compute_range_distance(first: RGB, second: RGB, reach: int) -> Floats:
    """Return by how much `first` is outside the range of values that `second` has within `reach` px.

    Zero on edges that only moved a little: a painted line that the camera saw one pixel aside is nothing new.

    Args:
        first, second: (h, w, 3) uint8.
        reach: px.

    Returns:
        (h, w) float32, grey levels, the largest over channels.
    """
    smooth, other = blur(first, 1.0), blur(second, 1.0)
    kernel = disc(reach)
    over = smooth - cv2.dilate(other, kernel)
    under = np.asarray(cv2.erode(other, kernel), np.float32) - smooth
    return channel_max(np.maximum(np.maximum(over, under), 0))


def find_unchanged_pixels(first: Floats, second: Floats, margin: int = 9) -> Mask:
    """Return (h, w) bool, True where two grey pictures show the same, `margin` px away from anything that differs.

    The common offset is subtracted first, so that a flicker of the lamp changes no pixel.
    """
    delta = blur(first, 1.5) - blur(second, 1.5)
    delta -= np.median(delta)
    limit = max(10.0, 4 * 1.4826 * float(np.median(np.abs(delta))))
    return ~dilate(np.abs(delta) > limit, margin)
