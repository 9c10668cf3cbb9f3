"""A pinhole camera over a ground plane."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

DEFAULT_FOV = 42.0  # degrees across the picture's longest side when the focal length is not available


@dataclass(frozen=True, eq=False)
class GroundCamera:
    """A camera and the ground plane: points P of the plane satisfy n·P = 1 (x right, y down, z forward).

    Attributes:
        normal: (3,) n; its length is one over the camera's height, the unit of all points.
        focal: px.
        centre: px, the principal point.
    """

    normal: Array
    focal: float
    centre: tuple[float, float]

    @property
    def axes(self) -> Array:
        """(3, 3): unit vectors to the right, away from the camera, and up, as rows."""
        up = -self.normal / np.linalg.norm(self.normal)
        right = np.array([1.0, 0.0, 0.0]) - up[0] * up
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(up, right), up])

    def cast_rays(self, points: Array) -> Array:
        """Return the directions (..., 3), with z = 1, of pixels (..., 2).

        Examples:
            >>> make_ground_camera(0.0, (100, 50)).cast_rays(np.array([50.0, 25.0])).tolist()
            [0.0, 0.0, 1.0]
        """
        across = (points - np.asarray(self.centre)) / self.focal
        return np.concatenate([across, np.ones_like(across[..., :1])], -1)

    def project(self, points: Array) -> Array:
        """Return the pixels (..., 2) of points (..., 3); what is behind the camera goes far away.

        Examples:
            >>> make_ground_camera(0.0, (100, 50)).project(np.array([0.0, 0.0, 3.0])).tolist()
            [50.0, 25.0]
        """
        depth = np.maximum(points[..., 2:], 1e-3)
        return np.asarray(points[..., :2] / depth * self.focal + np.asarray(self.centre))


def make_ground_camera(pitch: float, size: tuple[int, int], fov: float = DEFAULT_FOV) -> GroundCamera:
    """Make a camera without roll that looks `pitch` degrees down on the ground plane.

    Args:
        pitch: degrees.
        size: width and height of the picture, px.
        fov: degrees across its longest side.
    """
    angle = math.radians(pitch)
    focal = max(size) / 2 / math.tan(math.radians(fov) / 2)
    return GroundCamera(np.array([0.0, math.cos(angle), math.sin(angle)]), focal, (size[0] / 2, size[1] / 2))


def compute_shadow_vector(camera: GroundCamera, azimuth: float, elevation: float) -> Array:
    """Compute the vector (3,) along the ground plane from a foot to the end of its shadow, for a height of 1.

    Args:
        camera: whose axes count.
        azimuth: degrees, direction in which shadows fall: 0 to the right, 90 away from the camera.
        elevation: degrees of the sun above the plane.

    Examples:
        >>> compute_shadow_vector(make_ground_camera(0.0, (100, 50)), 0.0, 45.0).round(3).tolist()
        [1.0, 0.0, 0.0]
    """
    right, away, _ = camera.axes
    angle = math.radians(azimuth)
    vector = (math.cos(angle) * right + math.sin(angle) * away) / math.tan(math.radians(elevation))
    return np.asarray(vector)
