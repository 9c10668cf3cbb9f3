"""COCO's JSON of annotations: which objects are in which picture, as polygons or run lengths.

A file has `images` (id, file_name, width, height), `annotations` (id, image_id, category_id, segmentation, iscrowd) and
`categories` (id, name). A segmentation is a list of polygons [x0, y0, x1, y1, …] in px, or run lengths {counts, size}
of the columns, plain or as COCO's text (pycocotools, `rleFrString`).
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rasura.manifests.errors import InputError
from rasura.manifests.images import Mask
from rasura.manifests.json_lines import parse_json


class NotCoco(InputError):
    """A file that holds no annotations in COCO's form."""


class BadSegmentation(ValueError):
    """A segmentation that marks nothing, or is no such thing."""


@dataclass(frozen=True)
class CocoObject:
    """One annotation.

    Attributes:
        id: of the annotation, as text.
        label: name of its class; None where the file has none.
        segmentation: polygons, or run lengths.
        crowd: whether it marks a group.
    """

    id: str
    label: str | None
    segmentation: Any
    crowd: bool


@dataclass(frozen=True)
class CocoPicture:
    """One picture.

    Attributes:
        file_name: as the file has it.
        size: width and height for which the segmentations are; None where the file does not say.
        objects: in the order of the file: of a file that is parsed at once, a `CocoObject` each.
    """

    file_name: str
    size: tuple[int, int] | None
    objects: Sequence[Any]


class CocoFile(NamedTuple):
    """The contents of a file.

    Attributes:
        pictures: in the order of the file.
        orphans: number of annotations whose picture is not among them.
    """

    pictures: Sequence[CocoPicture]
    orphans: int


def _parse_float(text: str) -> float | str:
    """Parse a number; one that is not finite stays text, so that only its own segmentation is wrong."""
    value = float(text)
    return value if math.isfinite(value) else text


def parse_coco(data: bytes, where: str) -> CocoFile:
    """Parse the pictures of a file with their objects.

    Args:
        data: contents of the file.
        where: the file, for messages.

    Raises:
        NotCoco: it is not JSON, lacks `images` or `annotations`, or two pictures have one id.
    """
    try:
        values = parse_json(data, parse_float=_parse_float, parse_constant=str)
    except ValueError as error:
        raise NotCoco(f"'{where}' is not JSON: {error}") from None
    if not isinstance(values, dict) or not all(isinstance(values.get(key), list) for key in ("images", "annotations")):
        raise NotCoco(f"'{where}' holds no lists `images` and `annotations`, as COCO's files do")
    try:
        labels = {entry["id"]: str(entry["name"]) for entry in values.get("categories") or []}
        pictures: dict[Any, Any] = {}
        for entry in values["images"]:
            other = pictures.setdefault(entry["id"], entry)
            if other["file_name"] != entry["file_name"]:
                names = f"'{other['file_name']}' and '{entry['file_name']}'"
                raise NotCoco(
                    f"'{where}': {names} have the id {entry['id']!r}, so their annotations cannot be told apart"
                )
        orphans = 0
        objects: dict[Any, list[CocoObject]] = {id: [] for id in pictures}
        for number, entry in enumerate(values["annotations"]):
            if entry["image_id"] not in objects:
                orphans += 1
            else:
                label = labels.get(entry.get("category_id"))
                crowd, id = parse_flag(entry.get("iscrowd")), str(entry.get("id", number))
                objects[entry["image_id"]].append(CocoObject(id, label, entry.get("segmentation"), crowd))
        named = [CocoPicture(str(entry["file_name"]), parse_size(entry), objects[id]) for id, entry in pictures.items()]
        return CocoFile(named, orphans)
    except (KeyError, TypeError, AttributeError) as error:
        raise NotCoco(f"'{where}' is not in COCO's form: {error!r}") from None


def parse_flag(value: Any) -> bool:
    """Parse a flag that is 0 or 1, also where a program wrote it as text.

    Examples:
        >>> [parse_flag(value) for value in (0, "0", None, False, 1, "1", True)]
        [False, False, False, False, True, True, True]
    """
    return str(value).strip().casefold() not in ("", "0", "0.0", "false", "none")


def parse_size(entry: Any) -> tuple[int, int] | None:
    """Parse the width and height of a picture's entry; None where it has none."""
    size = entry.get("width"), entry.get("height")
    return (int(size[0]), int(size[1])) if all(isinstance(side, int) for side in size) else None


def draw_segmentation(segmentation: Any, size: tuple[int, int]) -> Mask:
    """Draw polygons or run lengths into a mask.

    Args:
        segmentation: as COCO has it.
        size: width and height of the picture.

    Returns:
        (height, width) bool.

    Raises:
        BadSegmentation: it marks nothing, or is no such thing.

    Examples:
        >>> draw_segmentation([[1, 0, 3, 0, 3, 2, 1, 2]], (4, 3)).astype(int).tolist()
        [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
        >>> draw_segmentation({"size": [2, 3], "counts": [1, 3, 2]}, (3, 2)).astype(int).tolist()
        [[0, 1, 0], [1, 1, 0]]
    """
    width, height = size
    try:
        if isinstance(segmentation, dict):
            mask = _draw_runs(segmentation, size)
        elif isinstance(segmentation, list) and segmentation:
            mask = np.zeros((height, width), bool)
            for polygon in segmentation:
                mask |= fill_polygon(_parse_polygon(polygon), size)
        else:
            raise BadSegmentation(f"no polygons and no run lengths: {json.dumps(segmentation)[:60]}")
    except (ValueError, TypeError, KeyError) as error:
        raise BadSegmentation(str(error)) from None
    if not mask.any():
        raise BadSegmentation("it marks no pixel")
    return mask


def _parse_polygon(polygon: Any) -> Any:
    """Parse [x0, y0, x1, y1, …] to (n, 2)."""
    if not isinstance(polygon, list):
        raise BadSegmentation("one flat list of numbers; polygons are lists in a list: [[x0, y0, x1, y1, …], …]")
    values = np.asarray(polygon, np.float64)
    if values.ndim == 1 and len(values) % 2:
        raise BadSegmentation(f"a polygon of {len(values)} numbers, which are no pairs of x and y")
    return values.reshape(-1, 2)


def fill_polygon(points: Any, size: tuple[int, int]) -> Mask:
    """Fill a polygon: the pixels whose centres are inside, by the even-odd rule.

    Args:
        points: (n, 2) x, y in px; the centre of the first pixel is (0.5, 0.5).
        size: width and height of the picture.

    Returns:
        (height, width) bool.
    """
    width, height = size
    if len(points) < 3:
        raise BadSegmentation(f"a polygon of {len(points)} points")
    if not np.isfinite(points).all():
        raise BadSegmentation("a polygon with a coordinate that is not finite")
    crossings = np.zeros((height, width + 1), np.int32)  # edges that a row crosses left of each pixel's centre
    ends = np.roll(points, -1, axis=0)
    for (x0, y0), (x1, y1) in zip(points.tolist(), ends.tolist(), strict=True):
        if y0 == y1:
            continue
        first, last = sorted((y0, y1))
        rows = np.arange(max(0, int(np.ceil(first - 0.5))), min(height, int(np.ceil(last - 0.5))))
        x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
        columns = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
        np.add.at(crossings, (rows, columns), 1)
    return np.asarray(np.cumsum(crossings, axis=1)[:, :width] % 2 == 1)


def _draw_runs(segmentation: Any, size: tuple[int, int]) -> Mask:
    width, height = size
    if list(segmentation["size"]) != [height, width]:
        raise BadSegmentation(f"run lengths of {segmentation['size']} (height, width), picture {[height, width]}")
    counts = segmentation["counts"]
    runs = parse_run_lengths(counts) if isinstance(counts, str | bytes) else [int(count) for count in counts]
    if min(runs, default=0) < 0:
        raise BadSegmentation(f"run lengths of which one is negative ({min(runs)})")
    if sum(runs) != width * height:
        raise BadSegmentation(f"run lengths of {sum(runs)} pixels, picture {width * height}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def parse_run_lengths(text: str | bytes) -> list[int]:
    """Parse COCO's text of run lengths: 5 bits a character, from the third run on as differences to the last but one.

    Examples:
        >>> parse_run_lengths("13")
        [1, 3]
    """
    data = text.encode() if isinstance(text, str) else text
    runs: list[int] = []
    position = 0
    while position < len(data):
        value = shift = 0
        more = True
        while more:
            if position >= len(data):
                raise BadSegmentation("run lengths that end in the middle of a number")
            code = data[position] - 48
            value |= (code & 31) << shift
            more = bool(code & 32)
            position, shift = position + 1, shift + 5
            if not more and code & 16:
                value |= -1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs
