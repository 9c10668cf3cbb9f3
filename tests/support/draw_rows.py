"""Rows of cut-outs and backgrounds for draws."""

import math
from typing import Any

from rasura.stages.ground_plane.plane import compute_ground_scale


def make_plane(pitch: float) -> list[float]:
    """The ground of a camera that looks down by so many degrees."""
    return [0.0, math.cos(math.radians(pitch)), math.sin(math.radians(pitch)), 1.6]


def make_camera_columns(pitch: float) -> dict[str, Any]:
    """The ground columns of a picture of 64 x 48 taken with a camera that looks down so; it sees 45 degrees high."""
    focal = 24 / math.tan(math.radians(22.5))
    nx, ny, nz, d = make_plane(pitch)
    scale = [float(value) for value in compute_ground_scale((nx, ny, nz, d), focal, (48, 64))]
    return {"ground_plane": [nx, ny, nz, d], "ground_focal": focal, "ground_metric": False, "ground_scale": scale}
