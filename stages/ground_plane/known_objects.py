"""The camera's pose above a ground plane, from objects of known size that stand on it.

Hoiem, Efros and Hebert, "Putting Objects in Perspective" (IJCV 2008): of objects on one ground plane, the height in the
picture over the height in metres is the plane's pixels per metre at their feet, which grow linearly from 0 at the
horizon. One object gives the camera's height if the horizon is available, or the horizon of a camera that is held
before the eyes; two or more at different distances give both. Here that is Bayes' rule on a grid over pitch and camera
height: the prior comes from other evidence, the estimate has its own error, and an object of another size than its
class's (a child, a ladder) is an outlier.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rasura.stages.compositing.class_sizes import find_class_name, find_class_size, fit_box_scales, matches_proportions
from rasura.stages.ground_plane.plane import compute_ground_scale
from rasura.stages.ground_plane.region import DEFAULT_CAMERA_HEIGHT

Array = npt.NDArray[Any]
Box = tuple[float, float, float, float]

_CLASSES_BY_SPREAD: Mapping[float, str] = {
    # relative spread of an object's height as a detector's box shows it (the objects, their posture, the box): classes
    0.06: "washing machine, dishwasher, vending machine, door",
    0.10: "man, woman, taxi, desk, picnic table",
    0.12: "person, car, zebra, toilet, shopping cart, wheelchair",
    0.15: "bus, van, motorcycle, bicycle, scooter, horse, cow, sheep, chair, office chair, armchair, couch, bench, "
    "refrigerator, oven, fire hydrant, parking meter, table, stroller, phone booth, golf cart, piano, donkey, camel",
    0.20: "giraffe, stool, barrel, mailbox, nightstand, high chair, bollard, lawn mower, goat, deer, wheelbarrow",
    0.25: "elephant, suitcase, trash can, pig, tractor",
    0.30: "truck, traffic cone",
}
HEIGHT_SPREAD: Mapping[str, float] = {
    name: spread for spread, names in _CLASSES_BY_SPREAD.items() for name in names.split(", ")
}
"""Objects that stand on the ground and have a usual size. Left out: what is put on tables, hangs, is carried, or comes
in all sizes (dogs, birds, plants)."""
PEOPLE = frozenset(["person", "man", "woman"])
OBJECT_TOLERANCE = 1.35  # factor by which proportions may be off
PERSON_TOLERANCE = 1.6  # of people, who swing arms and legs
BOX_ERROR = 1.5  # px, of the height of a detector's box
UPRIGHT_SPREAD = 0.04  # relative, of a length that a person marked
OUTLIER_SHARE = 0.1  # of objects of another size than their class's
SIZE_ERROR_WIDENING = 1.3  # of 67 photographs with such objects, 20 % were off by more than the error allows
EYE_LEVEL_SPREAD = 0.15  # log units: of the heights of cameras that are held before the eyes;
ELSEWHERE_SHARE, ELSEWHERE_SPREAD = 0.25, 0.7  # share of those that are held anywhere else, and their spread
FOCAL_SPREAD = 0.2  # log units: of the focal length where a field of view is assumed
GRID_SHAPE = (121, 141)  # pitch, camera height


@dataclass(frozen=True)
class Sighting:
    """An object of known size that is completely visible, standing."""

    label: str
    box: Box  # px
    spread: float  # relative, of its height
    metres: float | None = None  # of an upright line of known length; None: an object of its class's size


@dataclass(frozen=True)
class CameraPrior:
    """A camera's pose as it is estimated without objects."""

    pitch: float  # degrees by which it looks down
    pitch_error: float
    height: float = DEFAULT_CAMERA_HEIGHT  # metres above the ground
    height_error: float | None = None  # log units; None: held by somebody, or anywhere
    roll: float = 0.0  # degrees; taken as exact


@dataclass(frozen=True)
class CameraEstimate:
    """A camera's pose above its ground plane, and its errors."""

    plane: tuple[float, float, float, float]  # n and d of n.P = d, metres
    size_error: float  # relative, of pixels per metre at one pixel
    view_error: float  # degrees, of the depression there


def select_sightings(
    detections: Sequence[tuple[str, float, Box]],
    shape: tuple[int, int],
    min_score: float = 0.5,
    min_height: int = 16,
) -> list[Sighting]:
    """Select the detections that give a size: confident, of a known size, completely visible, upright.

    The frame must not touch the box. Its proportions must be those of the class: a person who is broader than 0.6 of
    their height sits, bends or is hidden from the waist. An object before which another one ends lower is hidden by it.

    Args:
        detections: label, score, box. shape: height, width of the picture. min_height: px.
    """
    height, width = shape
    sightings = []
    for label, score, box in detections:
        spread, size = HEIGHT_SPREAD.get(find_class_name(label)), find_class_size(label)
        wide, tall = box[2] - box[0], box[3] - box[1]
        cut = box[0] <= 2 or box[1] <= 2 or box[2] >= width - 2 or box[3] >= height - 2
        if spread is None or size is None or score < min_score or cut or tall < min_height:
            continue
        if not matches_proportions(
            wide, tall, size, PERSON_TOLERANCE if find_class_name(label) in PEOPLE else OBJECT_TOLERANCE
        ):
            continue
        if any(
            _occludes(other, box)
            for _, other_score, other in detections
            if other_score >= min_score / 2 and other != box
        ):
            continue
        sightings.append(Sighting(label, box, float(np.hypot(spread, BOX_ERROR / tall))))
    return sightings


def make_upright_sighting(foot: tuple[float, float], top: tuple[float, float], metres: float) -> Sighting:
    """Make a sighting of an upright line of known length, from its foot and top in px."""
    middle = (foot[0] + top[0]) / 2
    return Sighting("upright", (middle - 0.5, top[1], middle + 0.5, foot[1]), UPRIGHT_SPREAD, metres)


def measure_upright(box: Box, pitch: Array, roll: float, focal: float, shape: tuple[int, int]) -> Array:
    """Measure an upright line from its box for each pitch (n,), in heights of the camera, in full perspective.

    The foot is P = r / n.r; P - h n is seen in row t: h = (f Py - (t - cy) Pz) / (f ny - (t - cy) nz). What is not
    possible (a foot above the horizon) is very small.
    """
    height, width = shape
    nx, ny, nz, _ = make_plane(pitch, 1.0, roll)
    x, y = ((box[0] + box[2]) / 2 - width / 2) / focal, (box[3] - height / 2) / focal
    along = np.maximum(nx * x + ny * y + nz, 1e-4)
    row = (box[1] - height / 2) / focal
    below = ny - row * nz
    return np.asarray(np.maximum((y - row) / along / np.where(np.abs(below) > 1e-9, below, 1e-9), 1e-6))


def _occludes(other: Box, box: Box) -> bool:
    """Return whether an object with a lower foot covers a fifth of a box's width at its feet."""
    across = min(other[2], box[2]) - max(other[0], box[0])
    return other[1] < box[3] - 0.05 * (box[3] - box[1]) < other[3] - 2 and across > 0.2 * (box[2] - box[0])


def mask_contact_points(sightings: Sequence[Sighting], shape: tuple[int, int], wide: float = 1.0) -> Array:
    """Mask the ground right in front of objects' feet, (h, w) bool: what they stand on is ground.

    As wide as `wide` of them and a third as deep as they are tall, without what their own boxes cover.
    """
    feet = np.zeros(shape, bool)
    for sighting in sightings:
        x0, y0, x1, y1 = (round(v) for v in sighting.box)
        narrow = round((1 - wide) / 2 * (x1 - x0))
        feet[y1 + 2 : y1 + 2 + max(4, (y1 - y0) // 3), max(0, x0 + narrow) : max(1, x1 - narrow)] = True
    for sighting in sightings:
        x0, y0, x1, y1 = (round(v) for v in sighting.box)
        feet[max(0, y0) : y1, max(0, x0) : x1] = False
    return feet


def limit_to_reliable_area(
    mask: Array,
    boxes: Sequence[Box],
    sightings: Sequence[Sighting],
    plane: tuple[float, float, float, float],
    focal: float,
    beyond: float,
) -> Array:
    """Limit an area, (h, w) bool, to its reliable part.

    That is below the horizon by a twentieth of the height, not behind or under an object's box, and, where there are
    sightings, no farther than `beyond` times the farthest of them: what looks like ground behind everything that stands
    on it may be a wall.
    """
    height, width = mask.shape
    a, b, c = compute_ground_scale(plane, focal, (height, width))
    xs, ys = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    scale = a * xs + b * ys + c
    reliable = mask & (scale > 0.05 * height * b)
    if sightings:
        standing = [sighting.box for sighting in sightings]
        reliable &= scale * beyond >= min(a * (x0 + x1) / 2 + b * y1 + c for x0, _, x1, y1 in standing)
    for x0, y0, x1, y1 in boxes:
        reliable[max(0, int(y0)) : int(np.ceil(y1)), max(0, int(x0)) : int(np.ceil(x1))] = False
    return np.asarray(reliable)


def make_plane(pitch: Any, height: Any, roll: float) -> tuple[Any, Any, Any, Any]:
    """Return n and d of the ground plane below a camera that looks down by `pitch` degrees and is rolled by `roll`.

    Examples:
        >>> [round(float(v), 2) for v in make_plane(30.0, 1.6, 0.0)]
        [0.0, 0.87, 0.5, 1.6]
    """
    p, r = np.deg2rad(pitch), np.deg2rad(roll)
    return np.sin(r) * np.cos(p), np.cos(r) * np.cos(p), np.sin(p), height


def estimate_camera(
    sightings: Sequence[Sighting],
    prior: CameraPrior,
    focal: float,
    shape: tuple[int, int],
    pixel: tuple[float, float],
    focal_reported: bool,
) -> CameraEstimate:
    """Estimate the most probable camera, given objects that stand on its ground plane.

    For pitch p and height d: an object with its foot on pixel r = (x, y) has f n.r / d pixels per metre; its outline
    shows tall / h' of them, h' the height of its silhouette under that angle. The log of the ratio is normal with the
    object's spread, or (OUTLIER_SHARE) with one of 1.

    Args:
        focal: px. shape: height, width. pixel: (x, y) of the ground for which errors are computed.
        focal_reported: whether the focal length was reported; else it adds to the error of the view.

    Source: Hoiem, Efros and Hebert, "Putting Objects in Perspective" (IJCV 2008).
    """
    height, width = shape
    steps = np.linspace(-3.5, 3.5, GRID_SHAPE[0])
    pitch = np.clip(prior.pitch + prior.pitch_error * steps, -60, 89)
    heights, height_chance = _make_height_grid(prior)
    chance = -0.5 * steps[:, None] ** 2 + height_chance[None]

    def project(x: float, y: float) -> tuple[Array, Array]:
        """Return pixels per metre for a camera 1 m up, and degrees of depression, at a pixel, for each pitch."""
        ray = np.array([(x - width / 2) / focal, (y - height / 2) / focal, 1.0])
        nx, ny, nz, _ = make_plane(pitch, 1.0, prior.roll)
        along = nx * ray[0] + ny * ray[1] + nz
        return np.maximum(along, 1e-4) * focal, np.rad2deg(np.arcsin(along / np.linalg.norm(ray)))

    for sighting in sightings:
        x0, y0, x1, y1 = sighting.box
        scale, down = project((x0 + x1) / 2, y1)
        if sighting.metres is None:
            size = find_class_size(sighting.label)
            assert size is not None
            observed, _ = fit_box_scales(x1 - x0, y1 - y0, size, np.clip(down, 0, 89))
            per_metre = observed / scale
        else:
            per_metre = measure_upright(sighting.box, pitch, prior.roll, focal, shape) / sighting.metres
        off = np.log(per_metre)[:, None] + heights[None]
        inlier = (1 - OUTLIER_SHARE) / sighting.spread * np.exp(-0.5 * (off / sighting.spread) ** 2)
        chance = chance + np.log(np.where(down[:, None] > 0.3, inlier, 0) + OUTLIER_SHARE * np.exp(-0.5 * off**2))
    best = np.unravel_index(int(np.argmax(chance)), chance.shape)
    weight = np.exp(chance - chance[best])
    weight /= weight.sum()
    scale, down = project(*pixel)
    sizes = np.log(scale)[:, None] - heights[None]
    size_error = _compute_deviation(np.abs(sizes - sizes[best]), weight)
    size_error *= SIZE_ERROR_WIDENING if sightings else 1.0
    view_error = _compute_deviation(np.abs(down - down[best[0]]), weight.sum(axis=1))
    if not focal_reported:
        view_error = float(np.hypot(view_error, np.rad2deg(0.5 * np.sin(2 * np.deg2rad(down[best[0]]))) * FOCAL_SPREAD))
    plane = make_plane(float(pitch[best[0]]), float(np.exp(heights[best[1]])), prior.roll)
    return CameraEstimate((float(plane[0]), float(plane[1]), float(plane[2]), float(plane[3])), size_error, view_error)


def _make_height_grid(prior: CameraPrior) -> tuple[Array, Array]:
    """Return the grid of camera heights, log metres, and the log of their prior chance."""
    if prior.height_error is not None:
        steps = np.linspace(-3.5, 3.5, GRID_SHAPE[1])
        return np.log(prior.height) + prior.height_error * steps, -0.5 * steps**2
    off = np.linspace(-3 * ELSEWHERE_SPREAD, 3 * ELSEWHERE_SPREAD, GRID_SHAPE[1])
    eye_level = (1 - ELSEWHERE_SHARE) / EYE_LEVEL_SPREAD * np.exp(-0.5 * (off / EYE_LEVEL_SPREAD) ** 2)
    elsewhere = ELSEWHERE_SHARE / ELSEWHERE_SPREAD * np.exp(-0.5 * (off / ELSEWHERE_SPREAD) ** 2)
    return np.log(prior.height) + off, np.log(eye_level + elsewhere)


def _compute_deviation(off: Array, weight: Array) -> float:
    """Return the deviation that nine of ten do not exceed, as that of a normal distribution.

    Two of three would not show that a camera may be held elsewhere than before the eyes; all would show what hardly
    ever happens.
    """
    order = np.argsort(off, axis=None)
    return float(off.ravel()[order][np.searchsorted(np.cumsum(weight.ravel()[order]), 0.9)]) / 1.645
