"""The flat area of a picture with its plane, from a depth map or from the picture alone."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.stages.ground_plane.depth import compute_work_grid, resample
from rasura.stages.ground_plane.plane import (
    compute_plane,
    compute_relative_error,
    find_flat_area,
    fit_ground_plane,
    fit_region_plane,
    is_ground_plane,
    make_pixel_rows,
    recedes,
)
from rasura.stages.ground_plane.region import estimate_horizon, find_smooth_region, make_default_plane, remove_specks

Array = npt.NDArray[Any]

WORK_SIDE = 320  # px: long side at which planes are looked for
COARSE_SIDE = 100  # rows or columns below which a depth map does not show where the ground ends


@dataclass(frozen=True, eq=False)
class PlaneFit:
    """The flat area of one picture, in its own pixels, and its plane."""

    mask: Array  # (h, w) bool
    plane: tuple[float, float, float, float]  # n and d of n.P = d
    residual: float | None  # median relative depth error on the mask; None: a default plane


def is_coarse(inverse: Array) -> bool:
    """Return whether a depth map has too few rows or columns to show where the ground ends."""
    return bool(min(inverse.shape) < COARSE_SIDE)


def fit_plane_to_depth(
    inverse: Array,
    picture: Array,
    focal: float,
    rng: np.random.Generator,
    allowed: Array | None,
    feet: Array,
    evidence: str,
    tolerance: float,
    support: float,
) -> PlaneFit | str:
    """Fit a plane and its flat area to a map of inverse depth, or return why there is none.

    Args:
        inverse: (h', w') of the complete frame. picture: (h, w, 3) uint8. focal: px. allowed: (h, w) bool or None.
        feet: (h, w) bool, the ground in front of objects, see `known_objects.mask_contact_points`.
        evidence, tolerance, support: see `GroundParams`.
    """
    shape = picture.shape[:2]
    size = compute_work_grid(shape, WORK_SIDE)
    values = resample(inverse, size)
    cells = None if allowed is None else resize_mask(allowed, size)
    plane = fit_ground_plane(values, shape, focal, rng, cells, tolerance, support)
    if plane is None:
        area = "the lower half" if cells is None else "the classes"
        return f"no plane that could be a floor holds enough of {area}"
    flat, error = find_flat_area(values, plane, shape, tolerance)
    if cells is not None:
        flat &= cells
    mask = resize_mask(remove_specks(flat), (shape[1], shape[0]))
    if allowed is not None:
        mask &= allowed
    if evidence == "calm" or (evidence == "auto" and is_coarse(inverse) and allowed is None):
        # without the depth's help: limited to what is near a ground plane, every wall is one
        smooth = find_smooth_region(picture, feet=feet)
        region_plane = fit_region_plane(values, shape, resize_mask(smooth, size))
        if region_plane is None or not recedes(region_plane):
            return "the calm region at the lower border does not recede upwards"
        mask = find_smooth_region(picture, mask & smooth, feet)
        plane = region_plane if is_ground_plane(compute_plane(region_plane, focal, shape)) else plane
        error = compute_relative_error(values.ravel(), plane, make_pixel_rows(size, shape)).reshape(values.shape)
    near = resize_mask(mask, size) & np.isfinite(error)
    residual = float(np.median(error[near])) if near.any() else None
    return PlaneFit(mask, compute_plane(plane, focal, shape), residual)


def estimate_plane_from_region(
    picture: Array, focal: float, allowed: Array | None, feet: Array, evidence: str
) -> PlaneFit:
    """Estimate the area that objects stand on without depth, with a default plane.

    The area touches the lower border (or `feet`) and is smooth, or, with classes, is all that is allowed.
    """
    mask = allowed if allowed is not None and evidence != "calm" else find_smooth_region(picture, allowed, feet)
    mask = mask.copy()
    height = len(mask)
    horizon = estimate_horizon(mask)
    mask[: max(0, int(horizon + 0.08 * height))] = False
    return PlaneFit(mask, make_default_plane(horizon, focal, height), None)


def resize_mask(mask: Array, size: tuple[int, int]) -> Array:
    """Resize a (h, w) bool mask to (width, height)."""
    if mask.shape == size[::-1]:
        return mask
    return np.asarray(cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)) >= 0.5
