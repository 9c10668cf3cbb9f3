"""Geometry of a camera above a ground plane: sizes and viewing angles on it, and the transfer to another photo.

Camera frame: x right, y down, z forward. The ground plane is the points n.P = d with |n| = 1; d > 0 is the camera's
height above it, so that a level camera has n = (0, 1, 0). A pixel (x, y) looks along ((x - cx)/f, (y - cy)/f, 1), and
the optical axis meets the picture's middle.
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
    """A photo's camera above its ground plane. Lengths are in `height`'s unit: metres where `metric`.

    Examples:
        The foot of something 3.2 m away from a level camera 1.6 m up, which is seen 150 px below the horizon.

        >>> view = View(normal=(0.0, 1.0, 0.0), height=1.6, focal=300.0, size=(320, 400), metric=True)
        >>> float(view.pixels_per_unit(160, 350))
        93.75
        >>> round(float(view.depression(160, 350)), 1)
        26.6
    """

    normal: tuple[float, float, float]  # n, the plane's unit normal
    height: float  # d, of the camera above the plane
    focal: float  # px
    size: tuple[int, int]  # px, width and height
    metric: bool = False

    def rays(self, x: Any, y: Any) -> Array:
        """(..., 3): viewing rays through pixels, their z is 1."""
        across = (np.asarray(x, np.float64) - self.size[0] / 2) / self.focal
        down = (np.asarray(y, np.float64) - self.size[1] / 2) / self.focal
        return np.stack([across, down, np.ones_like(across)], axis=-1)

    def pixels_per_unit(self, x: Any, y: Any) -> Array:
        """Pixels per unit of length at the plane's point seen at (x, y): f / Z = f n.r / d. 0 above the horizon."""
        return np.asarray(np.maximum(self.rays(x, y) @ np.array(self.normal), 0) * self.focal / self.height)

    def depression(self, x: Any, y: Any) -> Array:
        """Degrees below the horizontal at which (x, y) looks down: 0 on the horizon, 90 straight down."""
        rays = self.rays(x, y)
        return np.asarray(np.rad2deg(np.arcsin(rays @ np.array(self.normal) / np.linalg.norm(rays, axis=-1))))

    def bearing(self, x: float, y: float) -> float:
        """Degrees on the plane by which the point at (x, y) is to the right of the direction the camera looks in."""
        n = np.array(self.normal)
        ahead = np.array([0.0, 0, 1]) - n * n[2]
        if np.linalg.norm(ahead) < 1e-6:  # straight down: the picture's top is ahead
            ahead = np.array([0.0, -1, 0])
        ahead = ahead / np.linalg.norm(ahead)
        ray = self.rays(x, y)
        return float(np.rad2deg(np.arctan2(ray @ np.cross(n, ahead), ray @ ahead)))

    def compute_ground_homography(self, x: float, y: float) -> Array:
        """Compute the (3, 3) homography from the ground plane to pixels, K [e1 e2 P].

        The plane's coordinates have their origin at the point seen at (x, y), their first axis to the right of the
        line of sight to it and their second away from the camera along that line, so that an object that is seen
        from the same side looks the same in them, wherever in the frame it stands.

        Raises:
            ValueError: (x, y) is not below the horizon.
        """
        n, ray = np.array(self.normal), self.rays(x, y)
        if ray @ n <= 1e-6:
            raise ValueError(f"pixel ({x:.1f}, {y:.1f}) is not below the horizon of the plane {self.normal}")
        point = ray * self.height / (ray @ n)
        away = point - self.height * n
        if np.linalg.norm(away) < 1e-6 * self.height:
            away = np.array([0.0, -1, 0]) + n * n[1]
        away = away / np.linalg.norm(away)
        camera = np.array([[self.focal, 0, self.size[0] / 2], [0, self.focal, self.size[1] / 2], [0, 0, 1]])
        return np.asarray(camera @ np.column_stack([np.cross(n, away), away, point]))

    def measure_height(self, foot: Point, top: float) -> float:
        """Measure an upright line that stands on the plane's point at `foot` (px) and reaches up to picture row `top`.

        P - h n is seen in row `top`: h = (f Py - (top - cy) Pz) / (f ny - (top - cy) nz).
        """
        n, ray = np.array(self.normal), self.rays(*foot)
        point = ray * self.height / (ray @ n)
        row = top - self.size[1] / 2
        below = self.focal * n[1] - row * n[2]
        return float((self.focal * point[1] - row * point[2]) / below) if abs(below) > 1e-9 else float("inf")

    def mirror(self) -> "View":
        """Return the view of the picture with left and right exchanged."""
        return replace(self, normal=(-self.normal[0], self.normal[1], self.normal[2]))

    def rescale(self, factor: float, metric: bool = True) -> "View":
        """Return the same view in another unit of length: `factor` new units are one old one."""
        return replace(self, height=self.height * factor, metric=metric)


def read_view(columns: Mapping[str, Any], size: Sequence[int]) -> View | None:
    """Read the view from the columns ground_plane, ground_focal and ground_metric.

    Args:
        columns: a record. size: the picture's width and height.

    Returns:
        None where the columns are absent, null, or describe no ground plane below the camera.
    """
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


def compute_transfer_homography(
    source: View, foot: Point, target: View, destination: Point, turn: float = 0.0
) -> Array:
    """Compute the (3, 3) homography that moves what is on one photo's ground plane onto another's.

    `foot` goes to `destination`, to the right stays to the right and away stays away; `turn` degrees rotate it about
    the foot, counter-clockwise as seen from above (right to away). Both views must count in one unit.
    """
    angle = np.deg2rad(turn)
    c, s = float(np.cos(angle)), float(np.sin(angle))
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    to_target = target.compute_ground_homography(*destination)
    matrix = to_target @ rotation @ np.linalg.inv(source.compute_ground_homography(*foot))
    return np.asarray(matrix / matrix[2, 2])


def apply_homography(matrix: Array, points: Array) -> Array:
    """Map (n, 2) points by a (3, 3) homography.

    Examples:
        >>> apply_homography(np.array([[2.0, 0, 1], [0, 2, 0], [0, 0, 1]]), np.array([[3.0, 4.0]])).tolist()
        [[7.0, 8.0]]
    """
    mapped = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return np.asarray(mapped[:, :2] / mapped[:, 2:])
