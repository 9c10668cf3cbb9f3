"""What contradicts that a region is ground: upright edges in it, and a lower border that it does not reach."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.stages.ground_plane.line_segments import Segments

Array = npt.NDArray[Any]

UPRIGHT_ANGLE = np.deg2rad(6.0)  # between a segment and the direction of the zenith
RIM = 0.012  # of the long side by which the region is widened: its edges show what it is
MIN_EDGE, EDGE_GAP = 0.06, 0.08  # heights: of an edge of a wall, and by which its lower end may be missed
MAX_INSIDE = 0.5  # share of an edge inside the region, above which it is a line on the floor
MIN_STANDING = 0.75  # of what most stands on: parts with less are behind an edge
SAMPLES = 24
MIN_TOTAL = 0.15  # long sides of segments below which nothing can be said


def measure_upright_share(
    segments: Segments, mask: Array, plane: tuple[float, float, float, float], focal: float
) -> float:
    """Measure the share, 0 to 1, of the straight lines on a region (by length) that point at the zenith.

    On a floor they point at the horizon, on walls, doors and cupboards half of them are upright. A line that goes away
    from the camera points at the zenith too where it is in the picture's middle; such lines count as neither.

    Args:
        mask: (h, w) bool. plane: n and d of the ground. focal: px.
    """
    height, width = mask.shape
    long_side = max(mask.shape)
    reach = max(1, round(RIM * long_side))
    near = cv2.dilate(mask.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0
    at = np.rint(segments.middles * long_side + np.array([width, height]) / 2).astype(np.intp)
    inside = near[np.clip(at[:, 1], 0, height - 1), np.clip(at[:, 0], 0, width - 1)]
    upright = inside & find_upright_segments(segments, mask.shape, plane, focal)
    total = float(segments.lengths[inside].sum())
    return float(segments.lengths[upright].sum()) / total if total >= MIN_TOTAL else 0.0


def find_upright_segments(
    segments: Segments, shape: tuple[int, ...], plane: tuple[float, float, float, float], focal: float
) -> Array:
    """Find the segments that point at the zenith, (n,) bool. Arguments as of `measure_upright_share`."""
    long_side = max(shape)
    nx, ny, nz, _ = plane
    zenith = np.array([nx * focal / long_side, ny * focal / long_side, nz])  # homogeneous, in long sides
    towards = zenith[:2] - zenith[2] * segments.middles
    off = np.abs((np.arctan2(towards[:, 1], towards[:, 0]) - segments.angles + np.pi / 2) % np.pi - np.pi / 2)
    return np.asarray(off < np.maximum(UPRIGHT_ANGLE, 2 * segments.errors))


def cut_along_walls(
    mask: Array, segments: Segments, plane: tuple[float, float, float, float], focal: float, feet: Array
) -> Array:
    """Cut a region along the upright edges that come down into it, and keep the part on which objects stand.

    A partition in the floor's colour is joined to the floor; its edge is a long upright line that begins above the
    region. Joints of a floor that run away from the camera do not.

    Args:
        mask: (h, w) bool. feet: (h, w) bool, the ground in front of objects; where it is empty the largest part stays.
    """
    height, width = mask.shape
    long_side = max(mask.shape)
    upright = find_upright_segments(segments, mask.shape, plane, focal)
    cut = mask.astype(np.uint8)
    for k in np.flatnonzero(upright & (segments.lengths * long_side > MIN_EDGE * height)):
        middle = segments.middles[k] * long_side + np.array([width, height]) / 2
        along = np.array([np.cos(segments.angles[k]), np.sin(segments.angles[k])]) * segments.lengths[k] * long_side / 2
        top, foot = middle - along, middle + along
        at = top + (foot - top) * ((np.arange(SAMPLES) + 0.5) / SAMPLES)[:, None]
        at = np.clip(np.rint(at).astype(np.intp), 0, [width - 1, height - 1])
        if mask[at[:, 1], at[:, 0]].mean() > MAX_INSIDE:
            continue  # it lies in the region: a line on the floor
        end = foot + (foot - top) / max(float(np.hypot(*(foot - top))), 1e-6) * EDGE_GAP * height
        ends = [tuple(int(v) for v in np.clip(np.rint(p), -30000, 30000)) for p in (top, end)]
        cv2.line(cut, ends[0], ends[1], 0, max(2, long_side // 200))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(cut, connectivity=4)
    standing = np.bincount(labels[feet & (cut > 0)], minlength=len(stats)).astype(np.int64)
    standing[0] = 0
    score = standing if standing.any() else np.where(np.arange(len(stats)) > 0, stats[:, cv2.CC_STAT_AREA], 0)
    kept = score >= MIN_STANDING * max(1, int(score.max()))
    kept[0] = False
    left = kept[labels]
    # what the cuts themselves took comes back, except beside a part that is gone
    reach = 2 * max(2, long_side // 200) + 1
    grown, gone = (
        cv2.dilate(part.astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0 for part in (left, (cut > 0) & ~left)
    )
    return np.asarray(left | (mask & grown & ~gone))


def measure_foot_share(mask: Array) -> float:
    """Measure the share of the picture's lower border that a region (h, w) bool reaches, within a twentieth of it.

    Examples:
        >>> measure_foot_share(np.arange(100)[:, None] * np.ones(10) > 40), measure_foot_share(np.zeros((9, 9), bool))
        (1.0, 0.0)
    """
    return float(mask[-max(1, len(mask) // 20) :].any(axis=0).mean())
