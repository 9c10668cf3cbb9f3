"""Placements of a cut-out on a background: standing on its ground plane, or drawn as in Syn4Removal."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.stages.compositing.cutouts import DEFAULT_DEPRESSION, Box, Cutout
from rasura.stages.compositing.projection import View
from rasura.stages.compositing.thin_objects import find_hidden_boxes

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Placement:
    """A position and a scale for a cut-out."""

    contact_point: tuple[int, int]  # the pixel on which its last row stands
    scale: float  # px of the background per px of the cut-out
    box: Box  # of the object, on the background, not clipped to the frame
    pitch_difference: float | None  # degrees that it is looked down on here more than in its own photo


@dataclass(frozen=True)
class PlacementLimits:
    """Limits that a placement must keep to; see `CompositeParams`."""

    tries: int = 300
    min_support: float = 0.8
    min_height: float = 0.07
    max_height: float = 0.75
    max_upscale: float = 1.3
    max_outside: float = 0.0
    max_pitch_difference: float = 15.0
    max_overlap: float = 0.5
    max_occlusion: float = 0.05
    scale_jitter: float = 0.05


def snap_to_frame(
    feet: Array, scales: Array, cutout: Cutout, sides: frozenset[str], size: tuple[int, int]
) -> tuple[Array, Array]:
    """Move contact points so that the sides on which the object was cut are at the frame.

    Args:
        feet: (n, 2). scales: (n,). sides: see `find_cut_sides`. size: width, height of the background.

    Returns:
        x and y, (n,) each.
    """
    x0, y0, x1, y1 = cutout.object_box
    x, y = feet[:, 0].copy(), feet[:, 1].copy()
    if "left" in sides:
        x = ((cutout.contact_point[0] - x0) * scales).astype(np.int64)
    elif "right" in sides:
        x = (size[0] - (x1 - cutout.contact_point[0]) * scales).astype(np.int64)
    if "bottom" in sides:
        y[:] = size[1] - 1
    elif "top" in sides:
        y = ((y1 - y0) * scales).astype(np.int64) - 1
    return x, y


def estimate_frame_scales(feet: Array, cutout: Cutout, size: tuple[int, int], ground_scale: Sequence[float]) -> Array:
    """Estimate scales where metres are unknown, from the share of its photo's frame that the object filled.

    It keeps that share at the same place of the new frame, and elsewhere grows with the ground's pixels per length,
    a x + b y + c: s = frame ratio * (pixels per length at the contact point) / (pixels per length at its old place).

    Returns:
        (n,) background px per cut-out px, 0 where the ground has no scale (on or above the horizon).
    """
    a, b, c = ground_scale
    width, height = size
    ratio = min(width / cutout.photo_size[0], height / cutout.photo_size[1])
    x, y = cutout.photo_contact_point
    old_place = (x / cutout.photo_size[0] * width, y / cutout.photo_size[1] * height)
    bottom = a * width / 2 + b * height + c
    # the old place may be above this photo's horizon
    at_old_place = max(a * old_place[0] + b * old_place[1] + c, 0.25 * bottom)
    at_feet = a * feet[:, 0] + b * feet[:, 1] + c
    if bottom <= 0:
        return np.zeros(len(feet))
    return np.asarray(np.where(at_feet > 0, ratio * at_feet / at_old_place, 0.0))


def compute_scales(
    feet: Array, cutout: Cutout, view: View | None, ground_scale: Sequence[float], size: tuple[int, int]
) -> Array:
    """Compute (n,) scales at contact points (n, 2): the ratio of pixels per metre, else `estimate_frame_scales`."""
    if view is None or cutout.pixels_per_metre is None:
        return estimate_frame_scales(feet, cutout, size, ground_scale)
    return np.asarray(view.pixels_per_unit(feet[:, 0] + 0.5, feet[:, 1] + 1.0) / cutout.pixels_per_metre)


def compute_boxes(cutout: Cutout, feet: Array, scales: Array) -> Array:
    """Compute the object's boxes on the background, (n, 4) int x0, y0, x1, y1, with its foot on pixels (n, 2)."""
    x0, y0, x1, y1 = cutout.object_box
    left = np.rint(feet[:, 0] + 0.5 - (cutout.contact_point[0] - x0) * scales)
    right = left + np.maximum(1, np.rint((x1 - x0) * scales))
    top = feet[:, 1] + 1 - np.maximum(1, np.rint((y1 - y0) * scales))
    return np.column_stack([left, top, right, feet[:, 1] + 1]).astype(np.int64)


def measure_outside(boxes: Array, size: tuple[int, int]) -> Array:
    """Measure the share, (n,), of each box (n, 4) that is beyond the frame of (width, height).

    Examples:
        >>> measure_outside(np.array([[-5, 0, 5, 10], [0, 0, 10, 10]]), (100, 100)).tolist()
        [0.5, 0.0]
    """
    wide = np.minimum(boxes[:, 2], size[0]) - np.maximum(boxes[:, 0], 0)
    high = np.minimum(boxes[:, 3], size[1]) - np.maximum(boxes[:, 1], 0)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return np.asarray(1 - np.maximum(wide, 0) * np.maximum(high, 0) / np.maximum(area, 1))


def measure_overlap(box: Sequence[int], other: Sequence[int]) -> float:
    """Measure the share of `other` that `box` covers.

    Examples:
        >>> measure_overlap((0, 0, 10, 10), (5, 0, 15, 20))
        0.25
    """
    wide = min(box[2], other[2]) - max(box[0], other[0])
    high = min(box[3], other[3]) - max(box[1], other[1])
    area = (other[2] - other[0]) * (other[3] - other[1])
    return max(0, wide) * max(0, high) / area if area > 0 else 0.0


def read_boxes(values: Sequence[float]) -> list[Box]:
    """Read boxes, x0, y0, x1, y1 one after another, in whole px.

    Examples:
        >>> read_boxes([0.2, 1, 9.8, 10, 3, 3, 5, 5])
        [(0, 1, 10, 10), (3, 3, 5, 5)]
    """
    numbers = [round(value) for value in values]
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in zip(*(numbers[k::4] for k in range(4)), strict=True)]


def measure_support(cutout: Cutout, boxes: Array, feet: Array, scales: Array, depression: Array, table: Array) -> Array:
    """Measure the share, (n,), of the area under and in front of each object that is ground.

    Under it: as wide as its base, from its last row half as deep as wide, foreshortened. In front of it: as wide as
    all of it, as deep again, at least a seventh of its height; what is no ground there stands nearer and would hide it.

    Args:
        depression: (n,) degrees. table: (h + 1, w + 1) integral image of the ground mask.
    """
    height, width = table.shape[0] - 1, table.shape[1] - 1
    left = boxes[:, 0] + (cutout.base_columns[0] - cutout.object_box[0]) * scales
    right = left + np.maximum(1, (cutout.base_columns[1] - cutout.base_columns[0]) * scales)
    deep = np.maximum(0.5 * (right - left) * np.sin(np.deg2rad(np.maximum(depression, 2))), 1)
    x0 = np.clip(np.floor(left), 0, width - 1).astype(np.int64)
    x1 = np.clip(np.ceil(right), x0 + 1, width).astype(np.int64)
    y = np.clip(feet[:, 1] + 1, 1, height)

    full_x0 = np.clip(boxes[:, 0], 0, width - 1)
    full_x1 = np.clip(boxes[:, 2], full_x0 + 1, width)

    def measure_share(top: Array, bottom: Array, x0: Array, x1: Array) -> Array:
        inside = table[bottom, x1] - table[top, x1] - table[bottom, x0] + table[top, x0]
        return np.asarray(inside / np.maximum((x1 - x0) * (bottom - top), 1))

    under = measure_share(np.clip(np.floor(y - deep), 0, y - 1).astype(np.int64), y, x0, x1)
    front = np.clip(np.ceil(y + np.maximum(deep, (boxes[:, 3] - boxes[:, 1]) / 7)), 0, height).astype(np.int64)
    return np.asarray(np.where(front > y, np.minimum(under, measure_share(y, front, full_x0, full_x1)), under))


def find_conflicts(boxes: Array, objects: Array, limits: PlacementLimits) -> Array:
    """Find the boxes (n, 4) that would be wrong among the objects (m, 4) of a photo: (n,) bool.

    The lower foot is the nearer one. A cut-out cannot cover an object that stands nearer than itself (by more than
    `limits.max_occlusion` of the cut-out), and of one that stands farther off no more than `limits.max_overlap`.
    """
    if not len(objects):
        return np.zeros(len(boxes), bool)
    low = np.maximum(boxes[:, None, :2], objects[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], objects[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    area, other_area = (np.maximum(np.prod(b[:, 2:] - b[:, :2], axis=1), 1) for b in (boxes, objects))
    nearer = objects[None, :, 3] > boxes[:, None, 3]
    wrong = np.where(
        nearer, shared / area[:, None] > limits.max_occlusion, shared / other_area[None] > limits.max_overlap
    )
    return np.asarray(wrong.any(axis=1))


def draw_positions(
    cutout: Cutout,
    sides: frozenset[str],
    ground: Array,
    view: View | None,
    ground_scale: Sequence[float],
    limits: PlacementLimits,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Draw `limits.tries` positions on the ground, and a scale for each. Arguments as of `find_placements`.

    Returns:
        contact points (n, 2) int and scales (n,).
    """
    height, width = ground.shape
    flat = np.flatnonzero(ground)
    drawn = flat[rng.integers(0, len(flat), limits.tries)]
    feet = np.column_stack([drawn % width, drawn // width])
    metric = cutout.size_rule == "metric" and view is not None and view.metric
    jitter = 0.0 if metric else limits.scale_jitter
    factor = np.exp(jitter * np.clip(rng.standard_normal(limits.tries), -2, 2))
    scales = factor * compute_scales(feet, cutout, view, ground_scale, (width, height))
    for _ in range(3 if sides else 0):  # the position decides the scale and the scale the position: thrice converges
        feet = np.column_stack(snap_to_frame(feet, scales, cutout, sides, (width, height)))
        scales = factor * compute_scales(feet, cutout, view, ground_scale, (width, height))
    return feet, scales


def find_placements(
    cutout: Cutout,
    sides: frozenset[str],
    ground: Array,
    view: View | None,
    ground_scale: Sequence[float],
    objects: Sequence[float],
    limits: PlacementLimits,
    rng: np.random.Generator,
    upright_lines: Array | None = None,
) -> tuple[list[Placement], Counter[str]]:
    """Find placements on the ground plane, the better ones rather first, and count the rejected positions by reason.

    Args:
        sides: on which its photo's frame cut the object (`find_cut_sides`).
        ground: (h, w) bool, where objects can stand.
        view: the background's, in metres, or None. ground_scale: pixels per length there, a x + b y + c.
        objects: boxes of the background's objects, x0, y0, x1, y1 one after another.
        upright_lines: of the background, see `thin_objects.find_upright_lines`; None: they are not looked at.
    """
    height, width = ground.shape
    feet, scales = draw_positions(cutout, sides, ground, view, ground_scale, limits, rng)
    boxes = compute_boxes(cutout, feet, scales)
    depression, difference = np.full(len(feet), DEFAULT_DEPRESSION), np.zeros(len(feet))
    comparable = cutout.depression is not None and view is not None
    if view is not None:
        depression = view.depression(feet[:, 0] + 0.5, feet[:, 1] + 1.0)
        if cutout.depression is not None:
            difference = depression - cutout.depression
    tall = scales * cutout.object_size[1] / height
    support = measure_support(cutout, boxes, feet, scales, depression, cv2.integral(ground.astype(np.uint8)))
    slack = 0.02 if sides else 0.0  # rounding, where the frame cuts the object anyway
    faults = {
        "no scale": scales <= 0,
        "pitch": np.abs(difference) > limits.max_pitch_difference,
        "too small": tall < limits.min_height,
        "too large": (tall > limits.max_height) | (scales > limits.max_upscale),
        "beyond the frame": measure_outside(boxes, (width, height)) > limits.max_outside + slack,
        "base off the ground": support < limits.min_support,
        "among things": find_conflicts(boxes, np.asarray(objects, np.float64).reshape(-1, 4), limits),
    }
    if upright_lines is not None:
        faults["behind something thin"] = find_hidden_boxes(boxes, upright_lines, ground)
    good = np.ones(len(feet), bool)
    rejected: Counter[str] = Counter()
    for name, fault in faults.items():
        rejected[name] = int((good & fault).sum())
        good &= ~fault
    # at random, but rather where it is looked down on as in its own photo
    preference = np.abs(difference) + rng.uniform(0, limits.max_pitch_difference, len(feet))
    order = np.argsort(preference, kind="stable")
    return [
        Placement(
            (int(feet[k, 0]), int(feet[k, 1])),
            float(scales[k]),
            (int(boxes[k, 0]), int(boxes[k, 1]), int(boxes[k, 2]), int(boxes[k, 3])),
            float(difference[k]) if comparable else None,
        )
        for k in order[good[order]]
    ], +rejected


def compute_footprint(cutout: Cutout, placement: Placement, view: View) -> tuple[float, float, float] | None:
    """Compute the disc of ground that an object takes up: as wide as its base, behind its contact point.

    Returns:
        x, y (to the right of the camera, away from it) and radius, metres. None where its metres are unknown.
    """
    if cutout.pixels_per_metre is None:
        return None
    x, y = placement.contact_point[0] + 0.5, placement.contact_point[1] + 1.0
    angle, down = np.deg2rad(view.bearing(x, y)), np.deg2rad(float(view.depression(x, y)))
    base_width = cutout.base_columns[1] - cutout.base_columns[0]
    radius = 0.5 * base_width * placement.scale / float(view.pixels_per_unit(x, y))
    distance = view.height / np.tan(max(down, 0.01)) + radius
    return float(distance * np.sin(angle)), float(distance * np.cos(angle)), radius


def collide(first: tuple[float, float, float] | None, second: tuple[float, float, float] | None) -> bool:
    """Return whether two footprints (x, y, radius) overlap by more than a tenth of their radii.

    Examples:
        >>> collide((0.0, 3.0, 0.5), (0.5, 3.0, 0.5)), collide((0.0, 3.0, 0.5), (1.1, 3.0, 0.5))
        (True, False)
    """
    if first is None or second is None:
        return False
    return bool(np.hypot(first[0] - second[0], first[1] - second[1]) < 0.9 * (first[2] + second[2]))


def summarize_areas(rows: Sequence[tuple[str | None, float]]) -> dict[str, tuple[float, float]]:
    """Compute mean and standard deviation of the objects' areas (shares of the picture) by label.

    These are the statistics that Syn4Removal draws from (`draw_gaussian_placement`).

    Examples:
        >>> summarize_areas([("cup", 0.25), ("cup", 0.75)])
        {'cup': (0.5, 0.25)}
    """
    grouped: dict[str, list[float]] = {}
    for label, area in rows:
        grouped.setdefault(label or "", []).append(area)
    return {label: (float(np.mean(areas)), float(np.std(areas))) for label, areas in grouped.items()}


def draw_gaussian_placement(
    cutout: Cutout,
    size: tuple[int, int],
    others: Sequence[Box],
    areas: tuple[float, float],
    limits: PlacementLimits,
    rng: np.random.Generator,
) -> Placement:
    """Draw a placement as in Syn4Removal, which has no ground plane: the baseline.

    The object's share of the picture is drawn from N(mean, deviation) of its class, kept within mean ± variance as
    its program does, at most half of what the other objects leave free and at least 5 %. Its middle is drawn outside
    a band of 20 % at each edge and outside the others: ten points at full size, then at 1/2, 1/3, 1/4 of the area as
    long as 5 % remain; a point is good when it covers at most half (`limits.max_overlap`) of any other's box and 60 %
    of its own box are inside. Where none is good, the last one is taken. (Its program lets a later, smaller fit replace
    an earlier one; here the first counts.)

    Args:
        size: of the background, width and height. others: boxes of its own objects, and of those placed before.
        areas: mean and standard deviation of the class, shares.

    Source: Syn4Removal (arXiv 2501.08279).
    """
    width, height = size
    frame = width * height
    shares = [(b[2] - b[0]) * (b[3] - b[1]) / frame for b in others]
    taken = sum(share for share in shares if 0 < share < 0.4)
    mean, deviation = areas
    drawn = float(np.clip(rng.normal(mean, deviation), mean - deviation**2, mean + deviation**2))
    target = max(0.05, min((1 - taken) / 2, drawn))
    unscaled = float(cutout.object_mask.sum()) / frame
    placement: Placement | None = None
    for shrink in (1, 2, 3, 4):
        if placement is not None and target / shrink < 0.05:
            break
        scale = float(np.sqrt(target / shrink / unscaled))
        for _ in range(10):
            x, y = rng.uniform(0.2, 0.8, 2) * (width, height)
            free = not any(b[0] <= x < b[2] and b[1] <= y < b[3] for b in others)
            middle = (cutout.object_box[0] + cutout.object_box[2]) / 2
            foot_x = round(x + (cutout.contact_point[0] - middle) * scale)
            foot_y = round(y + cutout.object_size[1] * scale / 2)
            box = compute_boxes(cutout, np.array([[foot_x, foot_y]]), np.array([scale]))
            x0, y0, x1, y1 = (int(v) for v in box[0])
            placement = Placement((int(foot_x), int(foot_y)), scale, (x0, y0, x1, y1), None)
            covered = max((measure_overlap(placement.box, other) for other in others), default=0.0)
            if free and covered <= limits.max_overlap and float(measure_outside(box, size)[0]) <= 0.4:
                return placement
    assert placement is not None
    return placement
