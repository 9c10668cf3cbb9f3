"""Connected components of masks: labels, selection, holes, hysteresis."""

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import Mask
from rasura.stages.imaging.filters import Floats
from rasura.stages.imaging.morphology import compute_distance_to

Labels = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]  # (n,), one a component


def label_components(mask: Mask) -> tuple[int, Labels, npt.NDArray[np.int64]]:
    """Label the 8-connected components of a mask.

    Returns:
        Their number n; (h, w) labels, 1 to n, 0 outside the mask; (n,) areas in px.

    Examples:
        >>> count, labels, areas = label_components(np.array([[True, True, False, True]]))
        >>> count, labels.tolist(), areas.tolist()
        (2, [[1, 1, 0, 2]], [2, 1])
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return count - 1, np.asarray(labels, np.int32), np.asarray(stats[1:, cv2.CC_STAT_AREA], np.int64)


def select_components(labels: Labels, flags: Flags) -> Mask:
    """Return (h, w) bool, True on the components whose flag is set; `flags[i]` is component i + 1.

    Examples:
        >>> select_components(np.array([[1, 1, 0, 2]]), np.array([False, True]))
        array([[False, False, False,  True]])
    """
    return np.concatenate([[False], flags])[labels].astype(bool)


def fill_holes(mask: Mask, largest: int | None = None) -> Mask:
    """Return `mask` with its holes filled: background regions that do not touch the picture's border.

    Args:
        mask: (h, w) bool.
        largest: px; larger holes stay open. None: all are filled.
    """
    _, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    height, width = mask.shape
    left, top, wide, high, area = (stats[1:, k] for k in range(5))
    inner = (left > 0) & (top > 0) & (left + wide < width) & (top + high < height)
    if largest is not None:
        inner &= area <= largest
    return mask | select_components(np.asarray(labels, np.int32), inner)


def fill_small_holes(mask: Mask, share: float = 0.03) -> Mask:
    """Return `mask` with the holes filled that are at most `share` of the mask's area."""
    return fill_holes(mask, max(4, int(share * mask.sum())))


def apply_hysteresis(values: Floats, low: float) -> Mask:
    """Return (h, w) bool, True in components above `low` that somewhere exceed twice `low`.

    Examples:
        >>> apply_hysteresis(np.array([[3, 5, 0, 3]], np.float32), 2)
        array([[ True,  True, False, False]])
    """
    _, labels, areas = label_components(values > low)
    strong = np.bincount(labels[values > 2 * low], minlength=len(areas) + 1)[1:] > 0
    return select_components(labels, strong)


def flag_border_components(labels: Labels, count: int) -> Flags:
    """Return (count,) bool: the components that touch the picture's border."""
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return np.bincount(border, minlength=count + 1)[1:] > 0


def flag_near_components(mask: Mask, anchor: Mask, reach: float) -> Flags:
    """Return (n,) bool: the components of `mask` that come within `reach` px of `anchor`.

    Examples:
        >>> mask, anchor = np.zeros((2, 1, 6), bool)
        >>> mask[0, [2, 5]], anchor[0, 0] = True, True
        >>> flag_near_components(mask, anchor, 3)
        array([ True, False])
    """
    _, labels, areas = label_components(mask)
    if not anchor.any():
        return np.zeros(len(areas), bool)
    return np.bincount(labels[compute_distance_to(anchor) <= reach], minlength=len(areas) + 1)[1:] > 0
