"""Solids that approximate an object, fitted to its silhouette, and the shadows that they cast on the ground plane.

A slender object is approximated by a stack of discs, a flat or boxy one by a prism: a car's depth is not its width, and
a ring on the ground is not as high as its picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import Mask
from rasura.stages.imaging.filters import Floats
from rasura.stages.shadow_fit.camera import Array, GroundCamera

DISC_ANGLES = np.linspace(0, 2 * np.pi, 10, endpoint=False)
BODY_SHARE = 0.6  # of an object's height, from below: the part whose width gives its depth
MIN_RAY_SLOPE = 0.02  # slope of a ray below which it meets the ground plane too far away
SUPERSAMPLING = 4  # pixels of an outline in one of the mask
SUBPIXEL_BITS = 3  # of the polygons that are drawn: eighths of a px


def _project_to_subpixels(camera: GroundCamera, points: Array) -> npt.NDArray[np.int32]:
    """Return the positions (..., 2) of points (..., 3) in eighths of a px."""
    return np.asarray(np.clip(camera.project(points) * 2**SUBPIXEL_BITS, -30000, 30000), np.int32)


@dataclass(frozen=True, eq=False)
class DiscStack:
    """A stack of n horizontal discs around an axis.

    Attributes:
        foot: (3,) the axis' foot on the ground plane.
        shift: (n,) positions of the discs' centres to the right of the axis.
        radius, height: (n,) of the discs.
        links: pairs of discs between which the object continues.
    """

    foot: Array
    shift: Array
    radius: Array
    height: Array
    links: list[tuple[int, int]]

    def draw(self, canvas: npt.NDArray[np.uint8], camera: GroundCamera, vertical: Array) -> None:
        """Set the pixels of the stack's image; `vertical` (3,) is what a height of 1 is drawn as."""
        right, away, _ = camera.axes
        centres = self.foot + self.shift[:, None] * right + self.height[:, None] * vertical
        circle = np.cos(DISC_ANGLES)[:, None] * right + np.sin(DISC_ANGLES)[:, None] * away
        rings = _project_to_subpixels(camera, centres[:, None] + self.radius[:, None, None] * circle)
        for first, second in self.links or [(0, 0)]:
            hull = cv2.convexHull(np.concatenate([rings[first], rings[second]]))
            cv2.fillConvexPoly(canvas, hull, 1, shift=SUBPIXEL_BITS)


@dataclass(frozen=True, eq=False)
class Prism:
    """Upright walls of one height over outlines on the ground plane.

    Attributes:
        outlines: (n, 3) each.
        height: of all walls.
    """

    outlines: list[Array]
    height: float

    def draw(self, canvas: npt.NDArray[np.uint8], camera: GroundCamera, vertical: Array) -> None:
        """Set the pixels of the prism's image; `vertical` (3,) is what a height of 1 is drawn as."""
        for outline in self.outlines:
            base = _project_to_subpixels(camera, outline)
            top = _project_to_subpixels(camera, outline + self.height * vertical)
            cv2.fillPoly(canvas, [base], 1, shift=SUBPIXEL_BITS)
            cv2.fillPoly(canvas, [top], 1, shift=SUBPIXEL_BITS)
            walls = np.stack([base, np.roll(base, -1, 0), np.roll(top, -1, 0), top], 1)
            for wall in walls:
                cv2.fillConvexPoly(canvas, wall, 1, shift=SUBPIXEL_BITS)


Solid = DiscStack | Prism


def find_runs(row: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the start and end (exclusive) of each run of True in a row.

    Examples:
        >>> find_runs(np.array([True, True, False, True]))
        [(0, 2), (3, 4)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def fit_disc_stack(mask: Mask, camera: GroundCamera, depth: float = 0.5, rows: int = 20) -> DiscStack | None:
    """Fit the stack of discs whose image is `mask`, with its foot in the mask's lowest row.

    Args:
        mask: (h, w) one object.
        camera: over the ground plane.
        depth: distance of the axis behind the object's front, in widths: 0 for a ball, half for a box.
        rows: number of the mask's rows that become discs.

    Returns:
        The stack; None where the foot is above the horizon.
    """
    ys = np.flatnonzero(mask.any(1))
    right, away, up = camera.axes
    body = mask[max(ys[0], ys[-1] - max(1, int(len(ys) * BODY_SHARE))) : ys[-1] + 1]
    columns = np.flatnonzero(body.any(0))
    middle, width = (columns[0] + columns[-1] + 1) / 2, columns[-1] + 1 - columns[0]
    ray = camera.cast_rays(np.array([middle, ys[-1] + 1.0]))
    slope = float(ray @ camera.normal)
    if slope < MIN_RAY_SLOPE:
        return None
    front = ray / slope
    foot = front + away * (depth * width * front[2] / camera.focal)
    discs: list[tuple[float, float, float]] = []
    links: list[tuple[int, int]] = []
    previous: list[tuple[int, int, int]] = []  # start, end and disc of the runs in the row before
    for y in np.unique(np.linspace(ys[0], ys[-1], min(rows, len(ys))).astype(int)):
        current = []
        for start, end in find_runs(mask[y]):
            rays = camera.cast_rays(np.array([[start, y + 0.5], [end, y + 0.5]]))
            points = rays * ((foot @ away) / np.maximum(rays @ away, 1e-3))[:, None] - foot
            left_end, right_end = points @ right
            height = max(0.0, float((points @ up).mean()))
            current.append((start, end, len(discs)))
            discs.append(((left_end + right_end) / 2, abs(right_end - left_end) / 2, height))
        links += [(old[2], new[2]) for old in previous for new in current if old[0] < new[1] and new[0] < old[1]]
        previous = current
    shift, radius, heights = np.array(discs).T
    return DiscStack(foot, shift, radius, heights, links)


def count_true_above(mask: Mask) -> npt.NDArray[np.int32]:
    """Return, for each pixel, the length of the run of True that ends there, counted from above.

    Examples:
        >>> count_true_above(np.array([[True], [True], [False], [True]])).ravel().tolist()
        [1, 2, 0, 1]
    """
    counts = np.zeros(mask.shape, np.int32)
    run = np.zeros(mask.shape[1], np.int32)
    for y, row in enumerate(mask):
        run = (run + 1) * row
        counts[y] = run
    return counts


def fit_prism(mask: Mask, camera: GroundCamera, share: float) -> Prism | None:
    """Fit the widest prism of one height whose image is inside `mask`.

    A pixel of the ground plane is in its base where the mask continues upwards from there for as long as the prism is
    high.

    Args:
        mask: (h, w) one object.
        camera: over the ground plane.
        share: its height over that of the mask's longest columns.

    Returns:
        The prism; None above the horizon.
    """
    run = count_true_above(mask)
    height_px = max(1.0, share * float(np.percentile(run.max(0)[mask.any(0)], 90)))
    rows, columns = np.indices(mask.shape)
    slope = camera.cast_rays(np.stack([columns + 0.5, rows + 1.0], -1)) @ camera.normal  # one over the distance
    nearest = float(slope[mask].max())
    if nearest < MIN_RAY_SLOPE:
        return None
    base = mask & (slope > MIN_RAY_SLOPE) & (run >= np.maximum(height_px * slope / nearest, 1))
    fine = np.repeat(np.repeat(base.astype(np.uint8), SUPERSAMPLING, 0), SUPERSAMPLING, 1)
    contours, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    corners = [
        camera.cast_rays((cv2.approxPolyDP(contour, 1.6, True)[:, 0] + 0.5) / SUPERSAMPLING) for contour in contours
    ]
    outlines = [rays / np.maximum(rays @ camera.normal, MIN_RAY_SLOPE / 2)[:, None] for rays in corners]
    if not outlines:
        return None
    _, away, up = camera.axes
    points = np.concatenate(outlines)
    foot = points[np.argmin(points @ away)]
    above = camera.cast_rays(camera.project(foot) - np.array([0.0, height_px]))
    return Prism(outlines, float((above * (foot @ away) / max(above @ away, 1e-3) - foot) @ up))


def render_silhouette(solids: Sequence[Solid], camera: GroundCamera, vertical: Array, shape: tuple[int, int]) -> Floats:
    """Render solids as (h, w) float32, 0 or 1.

    Args:
        solids: what is drawn.
        camera: over the ground plane.
        vertical: (3,) what a height of 1 is drawn as: `camera.axes[2]` gives the objects as the camera sees them,
            `compute_shadow_vector` their shadows.
        shape: (h, w).
    """
    canvas = np.zeros(shape, np.uint8)
    for solid in solids:
        solid.draw(canvas, camera, vertical)
    return canvas.astype(np.float32)


def compute_soft_iou(rendered: Floats, measured: Floats, region: Floats | None = None) -> float:
    """Compute the soft intersection over union of two shapes: Σ min / Σ max.

    Args:
        rendered, measured: (h, w) float32, 0 to 1.
        region: (h, w) weight of the pixels; None: all count.

    Examples:
        >>> compute_soft_iou(np.array([1, 1, 0], np.float32), np.array([1, 0.5, 0.5], np.float32))
        0.6
    """
    both, either = np.minimum(rendered, measured), np.maximum(rendered, measured)
    if region is not None:
        both, either = both * region, either * region
    return float(both.sum()) / max(float(either.sum()), 1e-6)
