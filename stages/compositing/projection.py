"""A camera above a floor: how large things are where they stand, how steeply they are seen, and how what lies on one
photo's floor lies on another's.

Camera frame: x right, y down, z forward. The floor is the points n.P = d with |n| = 1; d > 0 is the camera's height
above it, so that a level camera has n = (0, 1, 0). A pixel (x, y) looks along ((x - cx)/f, (y - cy)/f, 1), and the
optical axis meets the picture's middle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Point = tuple[float, float]


@dataclass(frozen=True)
class View:
    """A photo's camera above its floor. Lengths are in `d`'s unit: metres where `metric`."""

    n: tuple[float, float, float]
    d: float
    focal: float  # px
    size: tuple[int, int]  # px, width and height
    metric: bool = False

    def rays(self, x: Any, y: Any) -> Array:
        """(..., 3): viewing rays through pixels, their z is 1."""
        across = (np.asarray(x, np.float64) - self.size[0] / 2) / self.focal
        down = (np.asarray(y, np.float64) - self.size[1] / 2) / self.focal
        return np.stack([across, down, np.ones_like(across)], axis=-1)

    def density(self, x: Any, y: Any) -> Array:
        """Pixels per unit of length at the floor's point seen at (x, y): f / Z = f n.r / d. 0 above the horizon."""
        return np.asarray(np.maximum(self.rays(x, y) @ np.array(self.n), 0) * self.focal / self.d)

    def depression(self, x: Any, y: Any) -> Array:
        """Degrees at which the floor's point at (x, y) is looked down on: 0 on the horizon, 90 straight down."""
        rays = self.rays(x, y)
        return np.asarray(np.rad2deg(np.arcsin(rays @ np.array(self.n) / np.linalg.norm(rays, axis=-1))))

    def bearing(self, x: float, y: float) -> float:
        """Degrees on the floor by which the point at (x, y) lies to the right of where the camera looks."""
        n = np.array(self.n)
        ahead = np.array([0.0, 0, 1]) - n * n[2]
        if np.linalg.norm(ahead) < 1e-6:  # straight down: the picture's top is ahead
            ahead = np.array([0.0, -1, 0])
        ahead = ahead / np.linalg.norm(ahead)
        ray = self.rays(x, y)
        return float(np.rad2deg(np.arctan2(ray @ np.cross(n, ahead), ray @ ahead)))

    def floor_to_picture(self, x: float, y: float) -> Array:
        """(3, 3) homography from the floor to pixels.

        The floor's coordinates have their origin at the point seen at (x, y), their first axis to the right of the
        line of sight to it and their second away from the camera along that line, so that an object that is seen
        from the same side looks the same in them, wherever in the frame it stands: K [e1 e2 P].

        Raises:
            ValueError: (x, y) is not below the horizon.
        """
        n, ray = np.array(self.n), self.rays(x, y)
        if ray @ n <= 1e-6:
            raise ValueError(f"pixel ({x:.1f}, {y:.1f}) is not below the horizon of the plane {self.n}")
        point = ray * self.d / (ray @ n)
        away = point - self.d * n
        if np.linalg.norm(away) < 1e-6 * self.d:
            away = np.array([0.0, -1, 0]) + n * n[1]
        away = away / np.linalg.norm(away)
        camera = np.array([[self.focal, 0, self.size[0] / 2], [0, self.focal, self.size[1] / 2], [0, 0, 1]])
        return np.asarray(camera @ np.column_stack([np.cross(n, away), away, point]))

    def height_of(self, foot: Point, top: float) -> float:
        """Length of an upright line on the floor's point at `foot` (px) that reaches up to picture row `top`.

        P - h n is seen in row `top`: h = (f Py - (top - cy) Pz) / (f ny - (top - cy) nz).
        """
        n, ray = np.array(self.n), self.rays(*foot)
        point = ray * self.d / (ray @ n)
        row = top - self.size[1] / 2
        below = self.focal * n[1] - row * n[2]
        return float((self.focal * point[1] - row * point[2]) / below) if abs(below) > 1e-9 else float("inf")

    def mirrored(self) -> "View":
        """The view of the picture with left and right exchanged."""
        return replace(self, n=(-self.n[0], self.n[1], self.n[2]))

    def scaled(self, factor: float, metric: bool = True) -> "View":
        """The same view in another unit of length: `factor` new units are one old one."""
        return replace(self, d=self.d * factor, metric=metric)


def view_of(columns: Mapping[str, Any], size: Sequence[int]) -> View | None:
    """The view that ground_plane, ground_focal and ground_metric describe; None where they are absent, unknown, or
    describe no floor below the camera. `size`: the picture's width and height."""
    plane, focal, metric = (columns.get(f"ground_{name}") for name in ("plane", "focal", "metric"))
    if plane is None or focal is None or len(plane) != 4 or not np.isfinite([*plane, focal]).all():
        return None
    n = np.asarray(plane[:3], np.float64)
    length = float(np.linalg.norm(n))
    if length < 1e-9 or plane[3] <= 0 or focal <= 0 or n[1] <= 0:
        return None
    n = n / length
    unit = (float(n[0]), float(n[1]), float(n[2]))
    return View(unit, float(plane[3]) / length, float(focal), (int(size[0]), int(size[1])), bool(metric))


def floor_to_floor(source: View, foot: Point, target: View, place: Point, turn: float = 0.0) -> Array:
    """(3, 3) homography by which what lies on one photo's floor around `foot` lies on another's around `place`.

    Both views must count in one unit. The foot goes to the place, to the right stays to the right and away stays away;
    `turn` degrees turn it about the foot, counter-clockwise as seen from above (right to away).
    """
    angle = np.deg2rad(turn)
    c, s = float(np.cos(angle)), float(np.sin(angle))
    turned = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    matrix = target.floor_to_picture(*place) @ turned @ np.linalg.inv(source.floor_to_picture(*foot))
    return np.asarray(matrix / matrix[2, 2])


def through(matrix: Array, points: Array) -> Array:
    """(n, 2) points under a homography."""
    ends = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return np.asarray(ends[:, :2] / ends[:, 2:])
