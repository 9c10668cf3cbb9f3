"""The region of a photograph into which an object is painted: where it can stand, and where nothing is in the way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rasura.manifests.boxes import compute_bounds
from rasura.manifests.images import RGB, Mask
from rasura.stages.compositing.class_sizes import Size, compute_silhouette, find_class_size
from rasura.stages.compositing.cutouts import DEFAULT_DEPRESSION, Box, Cutout
from rasura.stages.compositing.placement import PlacementLimits, find_placements
from rasura.stages.compositing.projection import read_view
from rasura.stages.compositing.thin_objects import find_upright_lines
from rasura.stages.imaging.filters import compute_gradient_magnitude, convert_to_grey

Array = npt.NDArray[Any]

PIXELS_PER_METRE = 100.0  # of the box that stands for the object
UNKNOWN_SIZE: Size = (0.6, 0.6, 0.6)  # metres: of a class that has no size
USUAL_SHARE, USUAL_FOOT = 0.3, 0.75  # of a picture's height: how tall objects are, and where they stand
LOWEST_FOOT = 0.55  # of the picture's height: above it stands nothing where no ground is known
ABOVE, BELOW = 0.15, 0.25  # of the room at the sides: how much of it is over and under the object


@dataclass(frozen=True)
class RegionLimits:
    """Limits of a region; see `InsertParams`."""

    tries: int = 300
    min_height: float = 0.12
    max_height: float = 0.5
    room: float = 0.5


def grow_box(box: Box, room: float, shape: Sequence[int]) -> Box:
    """Return an object's box with room for its shadow around it, inside (height, width).

    Args:
        box: x0, y0, x1, y1. room: at both sides, in lengths of the box's longer side; less above and below.

    Examples:
        >>> grow_box((100, 50, 140, 150), 0.5, (200, 300))
        (50, 42, 190, 163)
    """
    x0, y0, x1, y1 = box
    px = room * max(x1 - x0, y1 - y0)
    return (
        max(0, round(x0 - px)),
        max(0, round(y0 - ABOVE * px)),
        min(int(shape[1]), round(x1 + px)),
        min(int(shape[0]), round(y1 + BELOW * px + 0.01)),
    )


def list_object_boxes(record: Mapping[str, Any]) -> Array:
    """List the boxes of what is in the way in a photograph: detected objects, and its own object mask.

    Returns:
        (n, 4) float64, x0, y0, x1, y1.
    """
    boxes = [*(record.get("ground_things") or ()), *(record.get("detect_boxes") or ()), *(record.get("box") or ())]
    for name in ("object_mask", "mask"):
        if record.get(name) is not None and record[name].any():
            boxes += compute_bounds(record[name])
    return np.asarray(boxes, np.float64).reshape(-1, 4)


def is_free(region: Box, objects: Array) -> bool:
    """Return whether no object's box (n, 4) reaches into a region: what is in it is painted over.

    Examples:
        >>> [is_free((0, 0, 10, 10), np.array([box])) for box in ([10.0, 0, 20, 10], [9.0, 9, 20, 20])]
        [True, False]
    """
    low, high = np.maximum(objects[:, :2], region[:2]), np.minimum(objects[:, 2:], region[2:])
    return not bool((high > low).all(axis=1).any())


def make_box_cutout(size: Size, picture_size: tuple[int, int], rng: np.random.Generator) -> Cutout:
    """Make a cut-out that is nothing but the outline of an object of that size, turned at random.

    It takes the place of a foreground in `compositing.placement`. Its own photo is one of the same proportions in which
    it is as tall as objects usually are.

    Args:
        size: height, width, length in metres. picture_size: width and height of the background, px.
    """
    across, high = compute_silhouette(size, rng.uniform(0, 90), DEFAULT_DEPRESSION)
    width, height = (max(4, round(float(metres) * PIXELS_PER_METRE)) for metres in (across, high))
    photo_height = height / USUAL_SHARE
    photo_size = (max(1, round(photo_height * picture_size[0] / picture_size[1])), round(photo_height))
    return Cutout(
        id="box",
        label=None,
        rgba=np.zeros((height, width, 4), np.uint8),
        reflection=None,
        object_mask=np.ones((height, width), bool),
        crop_origin=((photo_size[0] - width) / 2, USUAL_FOOT * photo_size[1] - height),
        photo_size=photo_size,
        object_box=(0, 0, width, height),
        contact_point=(width / 2, float(height)),
        base_columns=(0, width),
        view=None,
        pixels_per_metre=PIXELS_PER_METRE,
        depression=None,
        size_rule="class-size",
        view_error=None,
        size_error=None,
        shadow_azimuth=None,
        shadow_confidence=0.0,
    )


def find_standing_boxes(
    picture: RGB, label: str, record: Mapping[str, Any], limits: RegionLimits, rng: np.random.Generator
) -> list[Box]:
    """Find boxes of an object that stands on a photograph's measured ground plane, in random order.

    Args:
        record: with the columns of `ground`.
    """
    height, width = picture.shape[:2]
    cutout = make_box_cutout(find_class_size(label) or UNKNOWN_SIZE, (width, height), rng)
    placement_limits = PlacementLimits(
        limits.tries, min_height=limits.min_height, max_height=limits.max_height, max_upscale=np.inf
    )
    view = read_view(record, (width, height))
    placements, _ = find_placements(
        cutout,
        frozenset(),
        record["ground_mask"],
        view if view is not None and view.metric else None,
        record["ground_scale"],
        (),
        placement_limits,
        rng,
        find_upright_lines(picture),
    )
    return [placement.box for placement in placements]


def find_empty_boxes(picture: RGB, label: str, limits: RegionLimits, rng: np.random.Generator) -> list[Box]:
    """Find boxes of a sensible size in the emptier half of a photograph, in random order.

    Where neither the ground plane nor its scale is available: heights are even between the limits, feet are in the
    lower part of the picture, and half of the boxes are left, those with the least detail.
    """
    height, width = picture.shape[:2]
    size = find_class_size(label) or UNKNOWN_SIZE
    gradient = compute_gradient_magnitude(convert_to_grey(picture))
    table = np.pad(gradient.cumsum(0, dtype=np.float64).cumsum(1), ((1, 0), (1, 0)))
    boxes, details = list[Box](), list[float]()
    for _ in range(limits.tries):
        across, high = compute_silhouette(size, rng.uniform(0, 90), DEFAULT_DEPRESSION)
        tall = rng.uniform(limits.min_height, limits.max_height) * height
        wide = max(2, round(tall * float(across / high)))
        foot, left = round(rng.uniform(LOWEST_FOOT, 0.98) * height), rng.random()
        box = (round(left * (width - wide)), foot - round(tall), round(left * (width - wide)) + wide, foot)
        if box[0] < 0 or box[1] < 0:
            continue
        x0, y0, x1, y1 = box
        boxes.append(box)
        details.append((table[y1, x1] - table[y0, x1] - table[y1, x0] + table[y0, x0]) / ((x1 - x0) * (y1 - y0)))
    limit = float(np.median(details)) if details else 0.0
    return [box for box, detail in zip(boxes, details, strict=True) if detail <= limit]


def find_region(
    picture: RGB, label: str, record: Mapping[str, Any], limits: RegionLimits, rng: np.random.Generator
) -> tuple[Box, str] | None:
    """Find the region into which an object of a class is painted, and the rule that it was found by.

    `row`: the row says it (column `insert_box`); `ground`: the object stands on the ground plane; `empty`: a place with
    little detail, where no ground plane is available. No detected object is in it.

    Args:
        picture: (h, w, 3) uint8. label: class of the object. record: with the columns that there are.

    Returns:
        x0, y0, x1, y1 and the rule; None where there is no room.
    """
    objects, shape = list_object_boxes(record), picture.shape[:2]
    own = record.get("insert_box")
    if own is not None:
        x0, y0, x1, y1 = (round(float(value)) for value in own)
        box = (max(0, x0), max(0, y0), min(shape[1], x1), min(shape[0], y1))
        return (box, "row") if box[0] < box[2] and box[1] < box[3] else None
    ground: Mask | None = record.get("ground_mask")
    if ground is not None and ground.any() and record.get("ground_scale") is not None:
        boxes, rule = find_standing_boxes(picture, label, record, limits, rng), "ground"
    else:
        boxes, rule = find_empty_boxes(picture, label, limits, rng), "empty"
    regions = (grow_box(box, limits.room, shape) for box in boxes)
    free = next((region for region in regions if is_free(region, objects)), None)
    return None if free is None else (free, rule)
