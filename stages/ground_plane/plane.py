"""Planes in depth maps, and what a plane says about the camera and about sizes.

Camera frame: x right, y down, z forward, in the unit of the depth. A floor is the points with n.P = d, |n| = 1 and
d > 0, the camera's height above it; a level camera has n = (0, 1, 0). The points of a plane have
1/Z = n.((x - cx)/f, (y - cy)/f, 1)/d = a x + b y + c: linear in the pixel, whatever the focal length, which only says
how steep the plane is. So planes are fitted to the inverse depth, in pixels of the picture (the middle of the pixel in
column i is at x = i + 0.5), on whatever grid the depth comes in.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

UP = float(np.sin(np.deg2rad(20)))  # least n_y: a floor is not seen from straight above, and no wall is a floor
LEAN = float(np.sin(np.deg2rad(25)))  # most |n_x|: floors do not lean sideways, cameras hardly
ASIDE = 0.6  # most |a / b| of a region that recedes upwards; on 28 photographs floors had up to 0.5, walls from 0.7
POINTS, TRIALS, PLANES = 3000, 300, 3  # looked at of a map; drawn triples; planes tried in turn
EXACT = 0.015  # relative error that every depth map is allowed: what rounding and resampling make


def plane_columns(inverse: Array, focal: float, shape: tuple[int, int]) -> tuple[float, float, float, float]:
    """(nx, ny, nz, d) of the plane 1/Z = a x + b y + c: n/d = (a f, b f, c + a cx + b cy).

    Args:
        inverse: (3,) a, b, c. focal: px. shape: (height, width); the optical axis is taken to meet the middle.
    """
    height, width = shape
    a, b, c = (float(v) for v in inverse)
    scaled = np.array([a * focal, b * focal, c + a * width / 2 + b * height / 2])
    d = 1 / max(float(np.linalg.norm(scaled)), 1e-12)
    n = scaled * d
    return float(n[0]), float(n[1]), float(n[2]), d


def scale_of_plane(plane: tuple[float, float, float, float], focal: float, shape: tuple[int, int]) -> Array:
    """(3,) a, b, c: pixels per unit of length at pixel (x, y) of a picture are a x + b y + c = focal / Z."""
    height, width = shape
    nx, ny, nz, d = plane
    return np.array([nx, ny, focal * nz - nx * width / 2 - ny * height / 2]) / d


def is_floor(plane: tuple[float, float, float, float]) -> bool:
    """Whether something could stand on the plane: its normal points up, and it does not lean sideways."""
    return plane[1] > UP and abs(plane[0]) < LEAN


def recedes(inverse: Array) -> bool:
    """Whether a plane (3,) a, b, c goes away from the camera upwards, and not mainly sideways as walls do that are not
    seen head-on. Weaker than `is_floor`: for planes of coarse networks, which hardly see how steep a bare floor is."""
    return bool(inverse[1] > 0 and abs(inverse[0]) < ASIDE * inverse[1])


def pixels(size: tuple[int, int], shape: tuple[int, int]) -> Array:
    """(n, 3) rows x, y, 1 of a grid's cells, `size` (width, height), in pixels of a picture of `shape`."""
    xs = (np.arange(size[0]) + 0.5) * shape[1] / size[0]
    ys = (np.arange(size[1]) + 0.5) * shape[0] / size[1]
    gx, gy = np.meshgrid(xs, ys)
    return np.column_stack([gx.ravel(), gy.ravel(), np.ones(gx.size)])


def relative_error(inverse: Array, plane: Array, rows: Array) -> Array:
    """|plane / value - 1| of inverse depths (n,) at `rows` (n, 3); infinite in the sky and beyond the horizon."""
    fitted = rows @ plane
    known = (inverse > 0) & (fitted > 0)
    return np.where(known, np.abs(fitted / np.where(known, inverse, 1) - 1), np.inf)


def fit_floor(
    inverse: Array,
    shape: tuple[int, int],
    focal: float,
    rng: np.random.Generator,
    allowed: Array | None = None,
    tolerance: float = 0.06,
    support: float = 1 / 3,
) -> Array | None:
    """The floor in a map of inverse depth, by RANSAC with least squares on the inliers.

    Where floor and table are both seen, the one that fills more of `allowed` wins and the other is off its plane. A
    plane whose own inliers are better fitted by something that is no floor (a wall that fills little of the picture
    is within the tolerance of many planes) is taken out of the points, and the next is looked for.

    Args:
        inverse: (h, w), 0 = infinitely far, any unit. shape: (height, width) of the picture. focal: in its pixels.
        allowed: (h, w) bool, where the floor can be; by default the lower 45 % of the picture.
        tolerance: relative depth error of an inlier. support: share of the allowed that the floor must hold.

    Returns:
        (3,) a, b, c with 1/Z = a x + b y + c, or None when no plane that could be a floor has the support.
    """
    height, width = inverse.shape
    rows, values = pixels((width, height), shape), inverse.ravel().astype(np.float64)
    where = np.flatnonzero(rows[:, 1] >= 0.55 * shape[0]) if allowed is None else np.flatnonzero(allowed.ravel())
    if len(where) < 12:
        return None
    where = where[np.unique(np.linspace(0, len(where) - 1, POINTS).astype(int))]
    least = max(12, int(support * len(where)))
    for _ in range(PLANES):
        rows_left, values_left = rows[where], values[where]
        best = _most_points(rows_left, values_left, focal, shape, rng, tolerance, least)
        if best is None:
            return None
        swallowed = relative_error(values_left, best, rows_left) < tolerance
        for _ in range(4):
            error = relative_error(values_left, best, rows_left)
            near = error < tolerance
            inside = error < min(tolerance, max(EXACT, 4 * float(np.median(error[near])))) if near.any() else near
            if inside.sum() < 12:
                break
            best = np.asarray(np.linalg.lstsq(rows_left[inside], values_left[inside], rcond=None)[0])
        if is_floor(plane_columns(best, focal, shape)):
            return best
        where = where[~swallowed]
        if len(where) < least:
            return None
    return None


def _most_points(
    rows: Array, values: Array, focal: float, shape: tuple[int, int], rng: np.random.Generator, tol: float, least: int
) -> Array | None:
    """The plane through three points that is a floor and has the most inliers, more than `least`; or None."""
    best: Array | None = None
    for _ in range(TRIALS):
        picks = rng.choice(len(rows), 3, replace=False)
        try:
            plane = np.linalg.solve(rows[picks], values[picks])
        except np.linalg.LinAlgError:
            continue
        if not is_floor(plane_columns(plane, focal, shape)):
            continue
        count = int((relative_error(values, plane, rows) < tol).sum())
        if count > least:
            best, least = plane, count
    return best


def own_plane(inverse: Array, shape: tuple[int, int], where: Array) -> Array | None:
    """(3,) a, b, c of the plane that a region has by itself, whatever it is: least squares with outliers cut off.

    A region that was found as part of the floor and is none (a wall, a cupboard's front) shows it here, where
    `fit_floor` would still find a floor that is loosely near.

    Args:
        inverse: (h, w). shape: (height, width) of the picture. where: (h, w) bool.

    Returns:
        None where fewer than 12 cells have a depth.
    """
    height, width = inverse.shape
    at = where.ravel() & (inverse.ravel() > 0)
    if at.sum() < 12:
        return None
    rows, values = pixels((width, height), shape)[at], inverse.ravel()[at].astype(np.float64)
    inside = np.ones(len(values), bool)
    plane: Array = np.zeros(3)
    for _ in range(4):
        plane = np.linalg.lstsq(rows[inside], values[inside], rcond=None)[0]
        off = np.abs(rows @ plane / values - 1)
        inside = off <= max(EXACT, 3 * float(np.median(off)))
    return plane


def flat_part(inverse: Array, plane: Array, shape: tuple[int, int], tolerance: float = 0.1) -> tuple[Array, Array]:
    """Where a map of inverse depth lies on a plane and runs along it: no edge of a thing, no wall above its foot.

    Both limits follow the map's own accuracy, measured where it fits the plane: of an exact map little is forgiven.
    A wall at the far end has the plane's depth at its foot, but not its slope: the gradient of 1/Z must be nearer to
    the plane's (a, b), the same everywhere, than to none at all.

    Args:
        inverse: (h, w). plane: (3,) a, b, c in pixels of a picture of `shape`.
        tolerance: relative error that no pixel may exceed.

    Returns:
        (h, w) bool, and the relative error (h, w), infinite above the horizon.
    """
    height, width = inverse.shape
    rows = pixels((width, height), shape)
    error = relative_error(inverse.ravel().astype(np.float64), plane, rows).reshape(height, width)
    near = error < tolerance
    if not near.any():
        return near, error
    limit = min(tolerance, max(EXACT, 4 * float(np.median(error[near]))))
    smooth = np.maximum(cv2.GaussianBlur(inverse.astype(np.float32), (0, 0), 1), 1e-12)
    beside = cv2.GaussianBlur((inverse - (rows @ plane).reshape(height, width)).astype(np.float32), (0, 0), 1)
    off = np.hypot(cv2.Sobel(beside, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(beside, cv2.CV_32F, 0, 1, scale=1 / 8))
    step = np.array([shape[1] / width, shape[0] / height])  # px of the picture a cell
    # relative to the depth there, as the map's noise is
    off = off / smooth
    slope = float(np.hypot(*(plane[:2] * step))) / smooth
    noise = 3 * float(np.median(off[error < limit])) if (error < limit).any() else 0.0
    return (error < limit) & (off < np.maximum(0.6 * slope, noise)), error
