"""Where a cut-out can go on a background: standing on its floor, or drawn as in Syn4Removal."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.stages.compositing.cutouts import Box, Cutout
from rasura.stages.compositing.projection import View

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Spot:
    """A place for a cut-out."""

    foot: tuple[int, int]  # the pixel on which its last row stands
    scale: float  # px of the background per px of the cut-out
    box: Box  # of the object, on the background, not cut by the frame
    pitch: float | None  # degrees that it is looked down on here more than in its own photo


@dataclass(frozen=True)
class Limits:
    """What a place must keep to; see `CompositeParams`."""

    tries: int = 300
    on_ground: float = 0.8
    min_height: float = 0.07
    max_height: float = 0.75
    max_upscale: float = 1.3
    max_outside: float = 0.0
    pitch: float = 15.0
    overlap: float = 0.5
    hides: float = 0.05
    jitter: float = 0.05


def at_frame(
    feet: Array, scales: Array, one: Cutout, sides: frozenset[str], size: tuple[int, int]
) -> tuple[Array, Array]:
    """Feet (n,), (n,) in x and y, moved so that an object's cut sides lie on the frame. `size`: width, height."""
    x0, y0, x1, y1 = one.outline
    x, y = feet[:, 0].copy(), feet[:, 1].copy()
    if "left" in sides:
        x = ((one.foot[0] - x0) * scales).astype(np.int64)
    elif "right" in sides:
        x = (size[0] - (x1 - one.foot[0]) * scales).astype(np.int64)
    if "bottom" in sides:
        y[:] = size[1] - 1
    elif "top" in sides:
        y = ((y1 - y0) * scales).astype(np.int64) - 1
    return x, y


def frame_scales(feet: Array, one: Cutout, size: tuple[int, int], ground_scale: Sequence[float]) -> Array:
    """How many background pixels one pixel of the cut-out should be where nobody knows metres.

    Its photo shows how large it was where it stood. It keeps that share of the frame at the same place of the new
    frame, and elsewhere grows with the ground's pixels per length, a x + b y + c: s = frame ratio * here / there.

    Returns:
        (n,), 0 where the ground has no scale (on or above the horizon).
    """
    a, b, c = ground_scale
    width, height = size
    ratio = min(width / one.size[0], height / one.size[1])
    own = (one.stand[0] / one.size[0] * width, one.stand[1] / one.size[1] * height)
    bottom = a * width / 2 + b * height + c
    there = max(a * own[0] + b * own[1] + c, 0.25 * bottom)  # its own place may lie above this photo's horizon
    here = a * feet[:, 0] + b * feet[:, 1] + c
    if bottom <= 0:
        return np.zeros(len(feet))
    return np.asarray(np.where(here > 0, ratio * here / there, 0.0))


def scales_at(
    feet: Array, one: Cutout, view: View | None, ground_scale: Sequence[float], size: tuple[int, int]
) -> Array:
    """(n,) sizes at feet (n, 2): pixels a metre here over pixels a metre in its own photo, else `frame_scales`."""
    if view is None or one.density is None:
        return frame_scales(feet, one, size, ground_scale)
    return np.asarray(view.density(feet[:, 0] + 0.5, feet[:, 1] + 1.0) / one.density)


def boxes_of(one: Cutout, feet: Array, scales: Array) -> Array:
    """(n, 4) int: the object's box on the background, x0, y0, x1, y1, with its foot on pixels (n, 2)."""
    x0, y0, x1, y1 = one.outline
    left = np.rint(feet[:, 0] + 0.5 - (one.foot[0] - x0) * scales)
    right = left + np.maximum(1, np.rint((x1 - x0) * scales))
    top = feet[:, 1] + 1 - np.maximum(1, np.rint((y1 - y0) * scales))
    return np.column_stack([left, top, right, feet[:, 1] + 1]).astype(np.int64)


def outside(boxes: Array, size: tuple[int, int]) -> Array:
    """(n,) share of each box (n, 4) that lies beyond the frame of (width, height)."""
    wide = np.minimum(boxes[:, 2], size[0]) - np.maximum(boxes[:, 0], 0)
    high = np.minimum(boxes[:, 3], size[1]) - np.maximum(boxes[:, 1], 0)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return np.asarray(1 - np.maximum(wide, 0) * np.maximum(high, 0) / np.maximum(area, 1))


def overlap(box: Sequence[int], other: Sequence[int]) -> float:
    """Share of `other` that `box` covers."""
    wide = min(box[2], other[2]) - max(box[0], other[0])
    high = min(box[3], other[3]) - max(box[1], other[1])
    area = (other[2] - other[0]) * (other[3] - other[1])
    return max(0, wide) * max(0, high) / area if area > 0 else 0.0


def supported(one: Cutout, boxes: Array, feet: Array, scales: Array, depression: Array, table: Array) -> Array:
    """(n,) share of the floor under and in front of each object that is ground.

    The floor it stands on: as wide as its base, from its last row half as deep as wide, foreshortened. In front of it:
    as much again, at least a seventh of its height; what is no floor there stands nearer and would hide it.

    Args:
        depression: (n,) degrees. table: (h + 1, w + 1) integral image of the ground mask.
    """
    height, width = table.shape[0] - 1, table.shape[1] - 1
    left = boxes[:, 0] + (one.base[0] - one.outline[0]) * scales
    right = left + np.maximum(1, (one.base[1] - one.base[0]) * scales)
    deep = np.maximum(0.5 * (right - left) * np.sin(np.deg2rad(np.maximum(depression, 2))), 1)
    x0 = np.clip(np.floor(left), 0, width - 1).astype(np.int64)
    x1 = np.clip(np.ceil(right), x0 + 1, width).astype(np.int64)
    y = np.clip(feet[:, 1] + 1, 1, height)

    def share(top: Array, bottom: Array) -> Array:
        inside = table[bottom, x1] - table[top, x1] - table[bottom, x0] + table[top, x0]
        return np.asarray(inside / np.maximum((x1 - x0) * (bottom - top), 1))

    under = share(np.clip(np.floor(y - deep), 0, y - 1).astype(np.int64), y)
    front = np.clip(np.ceil(y + np.maximum(deep, (boxes[:, 3] - boxes[:, 1]) / 7)), 0, height).astype(np.int64)
    return np.asarray(np.where(front > y, np.minimum(under, share(y, front)), under))


def in_the_way(boxes: Array, things: Array, limits: Limits) -> Array:
    """(n,) bool: boxes (n, 4) of objects that would stand wrongly among the things (m, 4) of a photo.

    The lower foot is the nearer one. An object cannot cover a thing that stands nearer than itself (by more than
    `limits.hides` of the object), and of one that stands farther off no more than `limits.overlap`.
    """
    if not len(things):
        return np.zeros(len(boxes), bool)
    low = np.maximum(boxes[:, None, :2], things[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], things[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    own, theirs = (np.maximum(np.prod(b[:, 2:] - b[:, :2], axis=1), 1) for b in (boxes, things))
    nearer = things[None, :, 3] > boxes[:, None, 3]
    wrong = np.where(nearer, shared / own[:, None] > limits.hides, shared / theirs[None] > limits.overlap)
    return np.asarray(wrong.any(axis=1))


def standing(
    one: Cutout,
    sides: frozenset[str],
    ground: Array,
    view: View | None,
    ground_scale: Sequence[float],
    things: Sequence[float],
    limits: Limits,
    rng: np.random.Generator,
) -> tuple[list[Spot], Counter[str]]:
    """Places on the floor, the better ones rather first, and how many fell to what.

    Args:
        sides: on which its photo's frame cut the object (`cut_sides`). ground: (h, w) bool, where things can stand.
        view: the background's, in metres, or None. ground_scale: pixels per length there, a x + b y + c.
        things: boxes of what the photo shows, x0, y0, x1, y1 one after another.
    """
    height, width = ground.shape
    size = (width, height)
    flat = np.flatnonzero(ground)
    drawn = flat[rng.integers(0, len(flat), limits.tries)]
    feet = np.column_stack([drawn % width, drawn // width])
    known = one.rule == "metric" and view is not None and view.metric
    spread = 0.0 if known else limits.jitter
    factor = np.exp(spread * np.clip(rng.standard_normal(limits.tries), -2, 2))
    scales = factor * scales_at(feet, one, view, ground_scale, size)
    for _ in range(3 if sides else 0):  # the place decides the size and the size the place: thrice is near enough
        feet = np.column_stack(at_frame(feet, scales, one, sides, size))
        scales = factor * scales_at(feet, one, view, ground_scale, size)
    boxes = boxes_of(one, feet, scales)
    if view is None:
        here = np.full(len(feet), 10.0)
    else:
        here = view.depression(feet[:, 0] + 0.5, feet[:, 1] + 1.0)
    own = one.depression
    pitch = here - own if own is not None and view is not None else np.zeros(len(feet))
    tall = scales * one.extent[1] / height
    table = cv2.integral(ground.astype(np.uint8))
    beyond = outside(boxes, size)
    slack = 0.02 if sides else 0.0  # rounding, where the frame cuts the object anyway
    faults = {
        "no scale": scales <= 0,
        "pitch": np.abs(pitch) > limits.pitch,
        "too small": tall < limits.min_height,
        "too large": (tall > limits.max_height) | (scales > limits.max_upscale),
        "beyond the frame": beyond > limits.max_outside + slack,
        "base off the ground": supported(one, boxes, feet, scales, here, table) < limits.on_ground,
        "among things": in_the_way(boxes, np.asarray(things, np.float64).reshape(-1, 4), limits),
    }
    good = np.ones(len(feet), bool)
    lost: Counter[str] = Counter()
    for name, fault in faults.items():
        lost[name] = int((good & fault).sum())
        good &= ~fault
    rated = own is not None and view is not None
    # by chance, but rather where it is seen as in its own photo
    order = np.argsort(np.abs(pitch) + rng.uniform(0, limits.pitch, len(feet)), kind="stable")
    return [
        Spot(
            (int(feet[k, 0]), int(feet[k, 1])),
            float(scales[k]),
            (int(boxes[k, 0]), int(boxes[k, 1]), int(boxes[k, 2]), int(boxes[k, 3])),
            float(pitch[k]) if rated else None,
        )
        for k in order[good[order]]
    ], +lost


def floor_disc(one: Cutout, spot: Spot, view: View) -> tuple[float, float, float] | None:
    """x, y (to the right of the camera, away from it) and radius, metres, of the floor that an object takes up.

    A disc as wide as its base, behind its foot. None where its metres are unknown.
    """
    if one.density is None:
        return None
    x, y = spot.foot[0] + 0.5, spot.foot[1] + 1.0
    angle, down = np.deg2rad(view.bearing(x, y)), np.deg2rad(float(view.depression(x, y)))
    radius = 0.5 * (one.base[1] - one.base[0]) * spot.scale / float(view.density(x, y))
    far = view.d / np.tan(max(down, 0.01)) + radius
    return float(far * np.sin(angle)), float(far * np.cos(angle)), radius


def collide(first: tuple[float, float, float] | None, second: tuple[float, float, float] | None) -> bool:
    """Whether two objects would stand in each other: their discs overlap by more than a tenth of their radii."""
    if first is None or second is None:
        return False
    return bool(np.hypot(first[0] - second[0], first[1] - second[1]) < 0.9 * (first[2] + second[2]))


def usual_area(rows: Sequence[tuple[str | None, float]]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of the objects' areas (shares of the picture) by label: Syn4Removal's statistics."""
    grouped: dict[str, list[float]] = {}
    for label, area in rows:
        grouped.setdefault(label or "", []).append(area)
    return {label: (float(np.mean(areas)), float(np.std(areas))) for label, areas in grouped.items()}


def gaussian(
    one: Cutout,
    size: tuple[int, int],
    others: Sequence[Box],
    areas: tuple[float, float],
    limits: Limits,
    rng: np.random.Generator,
) -> Spot:
    """A place as in Syn4Removal (arXiv 2501.08279), which knows no floor: the baseline.

    The object's share of the picture is drawn from N(mean, deviation) of its class, kept within mean ± variance as
    its program does, at most half of what the other objects leave free and at least 5 %. Its middle is drawn outside
    a band of 20 % at each edge and outside the others: ten points at full size, then at 1/2, 1/3, 1/4 of the area as
    long as 5 % remain; a point is good when it covers at most half (`limits.overlap`) of any other's box and 60 % of
    its own box are inside. Where none is good, the last one is taken. (Its program lets a later, smaller fit replace an
    earlier one; here the first counts.)

    Args:
        size: of the background, width and height. areas: mean and standard deviation of the class, shares.
    """
    width, height = size
    frame = width * height
    shares = [(b[2] - b[0]) * (b[3] - b[1]) / frame for b in others]
    taken = sum(share for share in shares if 0 < share < 0.4)
    mean, deviation = areas
    drawn = float(np.clip(rng.normal(mean, deviation), mean - deviation**2, mean + deviation**2))
    needed = max(0.05, min((1 - taken) / 2, drawn))
    own = float(one.solid.sum()) / frame
    spot: Spot | None = None
    for shrink in (1, 2, 3, 4):
        if spot is not None and needed / shrink < 0.05:
            break
        scale = float(np.sqrt(needed / shrink / own))
        for _ in range(10):
            x, y = rng.uniform(0.2, 0.8, 2) * (width, height)
            free = not any(b[0] <= x < b[2] and b[1] <= y < b[3] for b in others)
            foot = np.array(
                [
                    [
                        round(x + (one.foot[0] - (one.outline[0] + one.outline[2]) / 2) * scale),
                        round(y + one.extent[1] * scale / 2),
                    ]
                ]
            )
            box = boxes_of(one, foot, np.array([scale]))
            x0, y0, x1, y1 = (int(v) for v in box[0])
            spot = Spot((int(foot[0, 0]), int(foot[0, 1])), scale, (x0, y0, x1, y1), None)
            covered = max((overlap(spot.box, other) for other in others), default=0.0)
            if free and covered <= limits.overlap and float(outside(box, size)[0]) <= 0.4:
                return spot
    assert spot is not None
    return spot
