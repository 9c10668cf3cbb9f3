"""What somebody says of a camera: a person's drawing, a column of the record, or the recipe, in this order."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rasura.stages.ground_plane.drawing import GroundDrawing
from rasura.stages.ground_plane.horizon import Horizon

DEFAULT_FIELD_OF_VIEW = 60.0  # degrees across the longer side, where nobody says it: most cameras have 50 to 75
DRAWN_HORIZON_ERROR = 1.5  # degrees, of a horizon that a person drew


@dataclass(frozen=True)
class ReportedCamera:
    """What is known of a camera; None: nobody says it."""

    focal: float  # px
    focal_reported: bool
    pitch: float | None = None  # degrees by which it looks down
    height: float | None = None  # metres above the ground
    horizon: Horizon | None = None  # that a person drew


def compute_focal(shape: tuple[int, int], field_of_view: float | None) -> float:
    """Compute the focal length, px, of a picture of (height, width).

    Args:
        field_of_view: degrees across the width; None: `DEFAULT_FIELD_OF_VIEW` across the longer side.

    Examples:
        >>> round(compute_focal((400, 300), None)), round(compute_focal((400, 300), 60.0))
        (346, 260)
    """
    side = max(shape) if field_of_view is None else shape[1]
    return side / 2 / float(np.tan(np.deg2rad(field_of_view or DEFAULT_FIELD_OF_VIEW) / 2))


def collect_reported_camera(
    record: Mapping[str, Any],
    drawing: GroundDrawing | None,
    shape: tuple[int, int],
    field_of_view: float | None,
    pitch: float | None,
    height: float | None,
) -> ReportedCamera:
    """Collect what is said of a photo's camera: the drawing first, then the columns, then the recipe's values.

    Args:
        record: whose columns `camera_fov`, `camera_pitch` and `camera_height` count. shape: height, width, px.
        field_of_view, pitch, height: the recipe's.

    Raises:
        ValueError: a column holds what no camera has.
    """
    columns = {name: record.get(f"camera_{name}") for name in ("fov", "pitch", "height")}
    limits = {"fov": (5.0, 170.0), "pitch": (-89.0, 90.0), "height": (0.02, 1000.0)}
    for name, (low, high) in limits.items():
        value = columns[name]
        if value is not None and not low <= float(value) <= high:
            raise ValueError(f"column camera_{name} is {value}; it must be from {low:g} to {high:g}")

    def choose(*values: float | None) -> float | None:
        return next((float(value) for value in values if value is not None), None)

    drawn = None if drawing is None else drawing.scale_horizon(shape)
    fov = choose(None if drawing is None else drawing.field_of_view, columns["fov"], field_of_view)
    return ReportedCamera(
        compute_focal(shape, fov),
        fov is not None,
        choose(None if drawing is None else drawing.camera_pitch, columns["pitch"], pitch),
        choose(None if drawing is None else drawing.camera_height, columns["height"], height),
        None if drawn is None else Horizon(*drawn, DRAWN_HORIZON_ERROR),
    )
