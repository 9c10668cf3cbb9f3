"""The trimap of an object's edge: definite foreground, and the unknown region in which coverage is estimated."""

import cv2
import numpy as np

from rasura.manifests.images import RGB, Mask
from rasura.stages.imaging.filters import Floats, blur, box_mean, estimate_gradient
from rasura.stages.imaging.morphology import compute_distance_inside, compute_distance_to, dilate, disc, erode

OUTLINE_MARGIN = 2  # px beside M_o's outline where an edge is steepest
WIDE_EDGE = 3.5  # px; lens and mask make this of any edge: only more is motion or blur
HALF_WIDTH = 0.6  # share of a wide edge's width that is unknown on each side of the outline


def estimate_edge_width(change: Floats, object_mask: Mask, reach: int) -> Floats:
    """Estimate over how many px the object's edge nearby runs from nothing to all; 1 if it is sharp.

    Contrast over steepest slope of the difference to the background, both the largest within `reach`: only an edge
    that is soft everywhere along that stretch is wide. The background's own texture is not in the difference.

    Args:
        change: (h, w, 3) source − clean.
        object_mask: (h, w) bool, M_o.
        reach: px.

    Returns:
        (h, w) float32, px.
    """
    smooth = blur(change, 0.8)
    across, down = estimate_gradient(smooth)
    slope = across**2 + down**2
    steepness = np.sqrt(np.asarray(slope, np.float32).sum(2)) / 8
    edge = dilate(object_mask, OUTLINE_MARGIN) & ~erode(object_mask, OUTLINE_MARGIN)
    kernel = disc(reach)
    steepest = np.asarray(cv2.dilate(np.where(edge, steepness, 0), kernel), np.float32)
    contrast = np.asarray(cv2.dilate(np.sqrt((smooth * smooth).sum(2)) * object_mask, kernel), np.float32)
    width = np.clip(contrast / np.maximum(steepest, 1e-3), 1, 2 * reach)
    return np.where(steepest > 0, width, 1).astype(np.float32)


def find_non_shadow_changes(source: RGB, clean: RGB, noise: float) -> Mask:
    """Return (h, w) bool, True where no shadow makes `clean` into `source`: brighter, or of another colour.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        noise: sigma of the 5 × 5 mean difference, grey levels.
    """
    observed, base = source.astype(np.float32), clean.astype(np.float32)
    share = (observed * base).sum(2) / np.maximum((base * base).sum(2), 1)
    residual = np.abs(box_mean(observed - np.clip(share, 0, 1)[..., None] * base, 3)).max(2)
    return np.asarray(residual > max(6.0, 3 * noise))


def find_unknown_bands(
    change: Floats, object_mask: Mask, foreground_mask: Mask, unshadowlike: Mask, reach: int, rim: int = 2
) -> tuple[Mask, Mask, Floats]:
    """Find where coverage is unknown: `rim` px on both sides of the outline, all of a wide edge, and possible hair.

    Args:
        change: (h, w, 3) source − clean.
        object_mask, foreground_mask: (h, w) bool, M_o and M_fg.
        unshadowlike: (h, w) bool, changes that no shadow explains.
        reach: px around the object's outline beyond which nothing is unknown.

    Returns:
        (h, w) bool: the edge, unknown for certain; (h, w) bool: unknown if it turns out to be strands; (h, w) float32
        px: the width of the edge.
    """
    width = estimate_edge_width(change, object_mask, reach)
    half = np.where(width > WIDE_EDGE, HALF_WIDTH * width + 1, rim)
    outside = compute_distance_to(object_mask)
    distance = np.where(object_mask, compute_distance_inside(object_mask), outside)
    edge = (distance <= half) & (object_mask | foreground_mask)
    strands = foreground_mask & ~object_mask & unshadowlike & (outside <= reach) & ~edge
    return edge, strands, width


def find_definite_foreground(object_mask: Mask, edge: Mask) -> Mask:
    """Return (h, w) bool, the object without its edge; of something as thin as a wire, its middle."""
    definite = object_mask & ~edge
    if definite.any() or not object_mask.any():
        return definite
    inside = compute_distance_inside(object_mask)
    return np.logical_and(object_mask, inside >= 0.7 * float(inside.max()))
