"""Planes in depth maps, and the camera and sizes that a plane implies.

Camera frame: x right, y down, z forward, in the unit of the depth. A ground plane is the points with n.P = d, |n| = 1
and d > 0, the camera's height above it; a level camera has n = (0, 1, 0). The points of a plane have
1/Z = n.((x - cx)/f, (y - cy)/f, 1)/d = a x + b y + c: linear in the pixel, whatever the focal length, which only
determines how steep the plane is. So planes are fitted to the inverse depth, in pixels of the picture (the middle of
the pixel in column i is at x = i + 0.5), on whatever grid the depth comes in.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MIN_UPWARD = float(np.sin(np.deg2rad(20)))  # least n_y: ground is not seen from straight above, and no wall is ground
MAX_ROLL = float(np.sin(np.deg2rad(25)))  # most |n_x|: the ground does not roll, cameras hardly
MAX_SIDEWAYS = (
    0.6  # most |a / b| of a region that recedes upwards; on 28 photographs ground had up to 0.5, walls from 0.7
)
POINTS, TRIALS, PLANES = 3000, 300, 3  # points used of a map; triples drawn; planes tried in turn
MIN_RELATIVE_ERROR = 0.015  # that every depth map is allowed: the effect of rounding and resampling


def compute_plane(inverse: Array, focal: float, shape: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return (nx, ny, nz, d) of the plane 1/Z = a x + b y + c: n/d = (a f, b f, c + a cx + b cy).

    Args:
        inverse: (3,) a, b, c. focal: px. shape: (height, width); the optical axis is taken to meet the middle.

    Examples:
        A level camera 2 m up, whose horizon is the middle row of a picture of 100 x 100 px.

        >>> nx, ny, nz, d = compute_plane(np.array([0.0, 0.005, -0.25]), 100.0, (100, 100))
        >>> ny, nz, d
        (1.0, 0.0, 2.0)
    """
    height, width = shape
    a, b, c = (float(v) for v in inverse)
    scaled = np.array([a * focal, b * focal, c + a * width / 2 + b * height / 2])
    d = 1 / max(float(np.linalg.norm(scaled)), 1e-12)
    n = scaled * d
    return float(n[0]), float(n[1]), float(n[2]), d


def compute_ground_scale(plane: tuple[float, float, float, float], focal: float, shape: tuple[int, int]) -> Array:
    """Return (3,) a, b, c: pixels per unit of length at pixel (x, y) of a picture are a x + b y + c = focal / Z.

    Examples:
        >>> compute_ground_scale((0.0, 1.0, 0.0, 2.0), 100.0, (100, 100)).tolist()
        [0.0, 0.5, -25.0]
    """
    height, width = shape
    nx, ny, nz, d = plane
    return np.array([nx, ny, focal * nz - nx * width / 2 - ny * height / 2]) / d


def is_ground_plane(plane: tuple[float, float, float, float]) -> bool:
    """Return whether something could stand on the plane: its normal points up, and it does not roll."""
    return plane[1] > MIN_UPWARD and abs(plane[0]) < MAX_ROLL


def recedes(inverse: Array) -> bool:
    """Return whether a plane (3,) a, b, c goes away from the camera upwards, and not mainly sideways.

    The latter is what walls do that are not seen head-on. Weaker than `is_ground_plane`: for planes of coarse networks,
    which hardly show how steep bare ground is.
    """
    return bool(inverse[1] > 0 and abs(inverse[0]) < MAX_SIDEWAYS * inverse[1])


def make_pixel_rows(size: tuple[int, int], shape: tuple[int, int]) -> Array:
    """Return (n, 3) rows x, y, 1 of a grid's cells, `size` (width, height), in pixels of a picture of `shape`."""
    xs = (np.arange(size[0]) + 0.5) * shape[1] / size[0]
    ys = (np.arange(size[1]) + 0.5) * shape[0] / size[1]
    gx, gy = np.meshgrid(xs, ys)
    return np.column_stack([gx.ravel(), gy.ravel(), np.ones(gx.size)])


def compute_relative_error(inverse: Array, plane: Array, rows: Array) -> Array:
    """Return |plane / value - 1| of inverse depths (n,) at `rows` (n, 3); infinite in the sky, beyond the horizon."""
    fitted = rows @ plane
    valid = (inverse > 0) & (fitted > 0)
    return np.where(valid, np.abs(fitted / np.where(valid, inverse, 1) - 1), np.inf)


def fit_ground_plane(
    inverse: Array,
    shape: tuple[int, int],
    focal: float,
    rng: np.random.Generator,
    allowed: Array | None = None,
    tolerance: float = 0.06,
    support: float = 1 / 3,
) -> Array | None:
    """Fit the ground plane to a map of inverse depth, by RANSAC with least squares on the inliers.

    Where floor and table are both visible, the one that fills more of `allowed` wins and the other is off its plane. A
    plane whose own inliers are better fitted by something that is no ground (a wall that fills little of the picture
    is within the tolerance of many planes) is taken out of the points, and the next is looked for.

    Args:
        inverse: (h, w), 0 = infinitely far, any unit. shape: (height, width) of the picture. focal: in its pixels.
        allowed: (h, w) bool, where the ground can be; by default the lower 45 % of the picture.
        tolerance: relative depth error of an inlier. support: share of the allowed that the plane must have.

    Returns:
        (3,) a, b, c with 1/Z = a x + b y + c, or None when no plane that could be ground has the support.

    Source: Fischler and Bolles, "Random Sample Consensus" (CACM 1981).
    """
    height, width = inverse.shape
    rows, values = make_pixel_rows((width, height), shape), inverse.ravel().astype(np.float64)
    where = np.flatnonzero(rows[:, 1] >= 0.55 * shape[0]) if allowed is None else np.flatnonzero(allowed.ravel())
    if len(where) < 12:
        return None
    where = where[np.unique(np.linspace(0, len(where) - 1, POINTS).astype(int))]
    least = max(12, int(support * len(where)))
    for _ in range(PLANES):
        rows_left, values_left = rows[where], values[where]
        best = _search_plane(rows_left, values_left, focal, shape, rng, tolerance, least)
        if best is None:
            return None
        swallowed = compute_relative_error(values_left, best, rows_left) < tolerance
        for _ in range(4):
            error = compute_relative_error(values_left, best, rows_left)
            near = error < tolerance
            inside = (
                error < min(tolerance, max(MIN_RELATIVE_ERROR, 4 * float(np.median(error[near]))))
                if near.any()
                else near
            )
            if inside.sum() < 12:
                break
            best = np.asarray(np.linalg.lstsq(rows_left[inside], values_left[inside], rcond=None)[0])
        if is_ground_plane(compute_plane(best, focal, shape)):
            return best
        where = where[~swallowed]
        if len(where) < least:
            return None
    return None


def _search_plane(
    rows: Array, values: Array, focal: float, shape: tuple[int, int], rng: np.random.Generator, tol: float, least: int
) -> Array | None:
    """Return the plane through three points that could be ground and has the most inliers, above `least`; or None."""
    best: Array | None = None
    for _ in range(TRIALS):
        picks = rng.choice(len(rows), 3, replace=False)
        try:
            plane = np.linalg.solve(rows[picks], values[picks])
        except np.linalg.LinAlgError:
            continue
        if not is_ground_plane(compute_plane(plane, focal, shape)):
            continue
        count = int((compute_relative_error(values, plane, rows) < tol).sum())
        if count > least:
            best, least = plane, count
    return best


def fit_region_plane(inverse: Array, shape: tuple[int, int], where: Array) -> Array | None:
    """Fit the plane of a region, (3,) a, b, c, whatever its pose: least squares with outliers cut off.

    A region that was taken for ground and is none (a wall, a cupboard's front) shows it here, where `fit_ground_plane`
    would still find a ground plane that is loosely near.

    Args:
        inverse: (h, w). shape: (height, width) of the picture. where: (h, w) bool.

    Returns:
        None where fewer than 12 cells have a depth.
    """
    height, width = inverse.shape
    cells = where.ravel() & (inverse.ravel() > 0)
    if cells.sum() < 12:
        return None
    rows, values = make_pixel_rows((width, height), shape)[cells], inverse.ravel()[cells].astype(np.float64)
    inside = np.ones(len(values), bool)
    plane: Array = np.zeros(3)
    for _ in range(4):
        plane = np.linalg.lstsq(rows[inside], values[inside], rcond=None)[0]
        off = np.abs(rows @ plane / values - 1)
        inside = off <= max(MIN_RELATIVE_ERROR, 3 * float(np.median(off)))
    return plane


def find_flat_area(inverse: Array, plane: Array, shape: tuple[int, int], tolerance: float = 0.1) -> tuple[Array, Array]:
    """Find where a map of inverse depth is on a plane and runs along it: no edge of an object, no wall above its foot.

    Both limits follow the map's own accuracy, measured where it fits the plane: of an exact map little is tolerated.
    A wall at the far end has the plane's depth at its foot, but not its slope: the gradient of 1/Z must be nearer to
    the plane's (a, b), the same everywhere, than to none at all.

    Args:
        inverse: (h, w). plane: (3,) a, b, c in pixels of a picture of `shape`.
        tolerance: relative error that no pixel may exceed.

    Returns:
        (h, w) bool, and the relative error (h, w), infinite above the horizon.
    """
    height, width = inverse.shape
    rows = make_pixel_rows((width, height), shape)
    error = compute_relative_error(inverse.ravel().astype(np.float64), plane, rows).reshape(height, width)
    near = error < tolerance
    if not near.any():
        return near, error
    limit = min(tolerance, max(MIN_RELATIVE_ERROR, 4 * float(np.median(error[near]))))
    smooth = np.maximum(cv2.GaussianBlur(inverse.astype(np.float32), (0, 0), 1), 1e-12)
    beside = cv2.GaussianBlur((inverse - (rows @ plane).reshape(height, width)).astype(np.float32), (0, 0), 1)
    off = np.hypot(cv2.Sobel(beside, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(beside, cv2.CV_32F, 0, 1, scale=1 / 8))
    step = np.array([shape[1] / width, shape[0] / height])  # px of the picture a cell
    # relative to the depth there, as the map's noise is
    off = off / smooth
    slope = float(np.hypot(*(plane[:2] * step))) / smooth
    noise = 3 * float(np.median(off[error < limit])) if (error < limit).any() else 0.0
    return (error < limit) & (off < np.maximum(0.6 * slope, noise)), error
