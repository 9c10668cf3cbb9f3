"""The camera above a floor, from things of known size that stand on it: where they stand and how large they look.

Hoiem, Efros and Hebert, "Putting Objects in Perspective" (IJCV 2008): of things on one floor, the height in the picture
over the height in metres is the floor's pixels a metre at their feet, which grow linearly from 0 at the horizon. One
thing tells the camera's height if the horizon is known, or the horizon of a camera that is held before the eyes; two or
more at different distances tell both. Here that is Bayes' rule on a grid over pitch and camera height: the prior is
what else is known, the answer has its own error, and what is no such thing (a child, a ladder) is an outlier.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rasura.stages.compositing.class_sizes import class_size, densities, fits_size
from rasura.stages.ground_plane.plane import scale_of_plane
from rasura.stages.ground_plane.region import EYE

Array = npt.NDArray[Any]
Box = tuple[float, float, float, float]

SPREAD: Mapping[str, float] = {
    # label: relative spread of its height as a detector's box shows it (the things themselves, their posture, the box)
    "person": 0.12, "man": 0.10, "woman": 0.10, "car": 0.12, "taxi": 0.10, "bus": 0.15, "truck": 0.30, "van": 0.15,
    "motorcycle": 0.15, "bicycle": 0.15, "horse": 0.15, "cow": 0.15, "zebra": 0.12, "giraffe": 0.20, "elephant": 0.25,
    "sheep": 0.15, "chair": 0.15, "armchair": 0.15, "stool": 0.20, "couch": 0.15, "bench": 0.15, "toilet": 0.12,
    "refrigerator": 0.15, "oven": 0.15, "fire hydrant": 0.15, "parking meter": 0.15, "suitcase": 0.25,
    "traffic cone": 0.30, "barrel": 0.20, "trash can": 0.25, "table": 0.15, "desk": 0.10,
}  # fmt: skip
"""What stands on floors and has a usual size. Left out: what lies about on tables, hangs, is carried, or comes in all
sizes (dogs, birds, plants)."""
PEOPLE = frozenset(["person", "man", "woman"])
SLACK, STRIDE = 1.35, 1.6  # factors by which proportions may be off: of things, of people, who swing arms and legs
OUTLIER = 0.1  # share of things that are not what they seem
HELD = 0.15  # log units: spread of the heights of cameras that are held before the eyes;
ELSEWHERE, FAR = 0.25, 0.7  # share of those that are held anywhere else, and their spread
FOCAL_SPREAD = 0.2  # log units: of the focal length where a field of view is assumed
CELLS = (121, 141)  # of the grid: pitch, camera height


@dataclass(frozen=True)
class Sighting:
    """A thing of known size that is seen whole, standing."""

    label: str
    box: Box  # px
    spread: float  # relative, of its height


@dataclass(frozen=True)
class Prior:
    """What is known of a camera without things."""

    pitch: float  # degrees by which it looks down
    pitch_error: float
    height: float = EYE  # metres above the floor
    height_error: float | None = None  # log units; None: held by somebody, or anywhere
    lean: float = 0.0  # degrees by which the floor leans sideways; taken as known


@dataclass(frozen=True)
class Camera:
    """A camera above its floor, and how well that is known."""

    plane: tuple[float, float, float, float]  # n and d of n.P = d, metres
    size_error: float  # relative, of pixels a metre where the floor is looked at
    view_error: float  # degrees, of the angle at which the floor is looked down on there


def sightings(
    found: Sequence[tuple[str, float, Box]], shape: tuple[int, int], least: float = 0.5, smallest: int = 24
) -> list[Sighting]:
    """Of things found (label, score, box), those that tell a size: sure, of a known size, seen whole, upright.

    The frame must not touch the box. Its proportions must be those of the class: a person who is broader than .6 of
    their height sits, bends or is hidden from the waist. A thing before which another one ends lower is hidden by it.
    """
    height, width = shape
    kept = []
    for label, score, box in found:
        spread, size = SPREAD.get(label), class_size(label)
        wide, tall = box[2] - box[0], box[3] - box[1]
        cut = box[0] <= 2 or box[1] <= 2 or box[2] >= width - 2 or box[3] >= height - 2
        if spread is None or size is None or score < least or cut or tall < smallest:
            continue
        if not fits_size(wide, tall, size, STRIDE if label in PEOPLE else SLACK):
            continue
        if any(_hides(other, box) for _, sure, other in found if sure >= least / 2 and other != box):
            continue
        kept.append(Sighting(label, box, spread))
    return kept


def _hides(other: Box, box: Box) -> bool:
    """Whether a thing with a lower foot covers a fifth of a box's width at its feet."""
    across = min(other[2], box[2]) - max(other[0], box[0])
    return other[1] < box[3] - 0.05 * (box[3] - box[1]) < other[3] - 2 and across > 0.2 * (box[2] - box[0])


def feet_of(things: Sequence[Sighting], shape: tuple[int, int]) -> Array:
    """(h, w) bool: the floor right in front of things' feet, as wide as they are and a third as deep as they are tall,
    without what their own boxes cover. What they stand on is floor."""
    feet = np.zeros(shape, bool)
    for thing in things:
        x0, y0, x1, y1 = (round(v) for v in thing.box)
        feet[y1 + 2 : y1 + 2 + max(4, (y1 - y0) // 3), max(0, x0) : x1] = True
    for thing in things:
        x0, y0, x1, y1 = (round(v) for v in thing.box)
        feet[max(0, y0) : y1, max(0, x0) : x1] = False
    return feet


def within(
    mask: Array,
    boxes: Sequence[Box],
    things: Sequence[Sighting],
    plane: tuple[float, float, float, float],
    focal: float,
    beyond: float,
) -> Array:
    """What of a (h, w) area is sure: below the horizon by a twentieth of the height, not behind or under a thing's box,
    and, where things tell the floor, no farther than `beyond` times the farthest of them: what looks like floor behind
    everything that is seen to stand may be a wall."""
    height, width = mask.shape
    a, b, c = scale_of_plane(plane, focal, (height, width))
    xs, ys = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    density = a * xs + b * ys + c
    kept = mask & (density > 0.05 * height * b)
    if things:
        kept &= density * beyond >= min(a * (t.box[0] + t.box[2]) / 2 + b * t.box[3] + c for t in things)
    for x0, y0, x1, y1 in boxes:
        kept[max(0, int(y0)) : int(np.ceil(y1)), max(0, int(x0)) : int(np.ceil(x1))] = False
    return np.asarray(kept)


def plane_of(pitch: Any, height: Any, lean: float) -> tuple[Any, Any, Any, Any]:
    """n and d of a floor below a camera that looks down by `pitch` degrees, seen leaning by `lean`."""
    p, r = np.deg2rad(pitch), np.deg2rad(lean)
    return np.sin(r) * np.cos(p), np.cos(r) * np.cos(p), np.sin(p), height


def camera(
    things: Sequence[Sighting], prior: Prior, focal: float, shape: tuple[int, int], at: tuple[float, float], told: bool
) -> Camera:
    """The most probable camera, given things that stand on its floor.

    For pitch p and height d: a thing with its foot on pixel r = (x, y) has f n.r / d pixels a metre; its outline shows
    tall / h' of them, h' the height of its silhouette under that angle. log of the ratio is normal with the thing's
    spread, or (OUTLIER) with one of 1.

    Args:
        focal: px. shape: height, width. at: pixel (x, y) of the floor at which errors are asked for.
        told: whether the focal length is known; else it adds to the error of the view.
    """
    height, width = shape
    steps = np.linspace(-3.5, 3.5, CELLS[0])
    pitch = np.clip(prior.pitch + prior.pitch_error * steps, -60, 89)
    heights, known = _heights(prior)
    chance = -0.5 * steps[:, None] ** 2 + known[None]

    def above(x: float, y: float) -> tuple[Array, Array]:
        """Pixels a metre for a camera 1 m up, and degrees of depression, at a pixel, for each pitch."""
        ray = np.array([(x - width / 2) / focal, (y - height / 2) / focal, 1.0])
        nx, ny, nz, _ = plane_of(pitch, 1.0, prior.lean)
        along = nx * ray[0] + ny * ray[1] + nz
        return np.maximum(along, 1e-4) * focal, np.rad2deg(np.arcsin(along / np.linalg.norm(ray)))

    for thing in things:
        x0, y0, x1, y1 = thing.box
        floor, down = above((x0 + x1) / 2, y1)
        size = class_size(thing.label)
        assert size is not None
        seen, _ = densities(x1 - x0, y1 - y0, size, np.clip(down, 0, 89))
        off = np.log(seen / floor)[:, None] + heights[None]
        inside = (1 - OUTLIER) / thing.spread * np.exp(-0.5 * (off / thing.spread) ** 2)
        chance = chance + np.log(np.where(down[:, None] > 0.3, inside, 0) + OUTLIER * np.exp(-0.5 * off**2))
    best = np.unravel_index(int(np.argmax(chance)), chance.shape)
    weight = np.exp(chance - chance[best])
    weight /= weight.sum()
    floor, down = above(*at)
    sizes = np.log(floor)[:, None] - heights[None]
    size_error = _usual(np.abs(sizes - sizes[best]), weight)
    view_error = _usual(np.abs(down - down[best[0]]), weight.sum(axis=1))
    if not told:
        view_error = float(np.hypot(view_error, np.rad2deg(0.5 * np.sin(2 * np.deg2rad(down[best[0]]))) * FOCAL_SPREAD))
    plane = plane_of(float(pitch[best[0]]), float(np.exp(heights[best[1]])), prior.lean)
    return Camera((float(plane[0]), float(plane[1]), float(plane[2]), float(plane[3])), size_error, view_error)


def _heights(prior: Prior) -> tuple[Array, Array]:
    """The grid of camera heights, log metres, and the log of their prior chance."""
    if prior.height_error is not None:
        steps = np.linspace(-3.5, 3.5, CELLS[1])
        return np.log(prior.height) + prior.height_error * steps, -0.5 * steps**2
    off = np.linspace(-3 * FAR, 3 * FAR, CELLS[1])
    held = (1 - ELSEWHERE) / HELD * np.exp(-0.5 * (off / HELD) ** 2)
    return np.log(prior.height) + off, np.log(held + ELSEWHERE / FAR * np.exp(-0.5 * (off / FAR) ** 2))


def _usual(off: Array, weight: Array) -> float:
    """The deviation that nine of ten do not exceed, as that of a normal distribution. Two of three would not show that
    a camera may be held elsewhere than before the eyes; all would show what hardly ever happens."""
    order = np.argsort(off, axis=None)
    return float(off.ravel()[order][np.searchsorted(np.cumsum(weight.ravel()[order]), 0.9)]) / 1.645
