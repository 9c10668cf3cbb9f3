"""COCO's JSON of annotations: which objects are in which picture, as polygons or run lengths.

A file has `images` (id, file_name, width, height), `annotations` (id, image_id, category_id, segmentation, iscrowd) and
`categories` (id, name). A segmentation is a list of polygons [x0, y0, x1, y1, …] in px, or run lengths {counts, size}
of the columns, plain or as COCO's text (pycocotools, `rleFrString`).
"""

import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from rasura.manifests.errors import InputError
from rasura.manifests.foreign.long_json import Entry, NotLongJson, ParseFloat, iterate_entries
from rasura.manifests.images import Mask


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
        objects: in the order of the file.
    """

    file_name: str
    size: tuple[int, int] | None
    objects: Sequence[Any]


class CocoImage(NamedTuple):
    """The entry of a picture.

    Attributes:
        name: of its file; of LVIS, which has none, the path in its address.
        size: width and height for which the segmentations are; None where the file does not say.
        licence: its key among the licences.
    """

    name: str
    size: tuple[int, int] | None
    licence: Any


class BadEntry(NamedTuple):
    """An entry that is not in COCO's form.

    Attributes:
        key: of its list.
        number: its place there, from 0.
        reason: what is wrong with it.
    """

    key: str
    number: int
    reason: str

    @property
    def place(self) -> str:
        """Its place in the file, as annotations[17]."""
        return f"{self.key}[{self.number}]"

    def describe(self) -> str:
        """Describe it in a few words."""
        return f"{self.place} {self.reason}"


class CocoFile(NamedTuple):
    """The contents of a file.

    Attributes:
        images: by their ids, in the order of the file.
        objects: by the ids of the images, in the order of the file.
        categories: entries by their ids.
        licences: addresses or names by their ids.
        orphans: number of objects whose image is not among them.
        bad_entries: those that could not be read, in the order of the file.
    """

    images: dict[Any, CocoImage]
    objects: dict[Any, list[Any]]
    categories: dict[Any, Mapping[str, Any]]
    licences: dict[Any, str]
    orphans: int
    bad_entries: list[BadEntry]


ListObjects = Callable[[Mapping[str, Any], int, int, int], Iterable[Any]]
"""Objects of an annotation: of its entry, its number in the file, its first byte and the one after its last."""


def parse_finite(text: str) -> float | str:
    """Parse a number; one that is not finite stays text, so that only its own segmentation is wrong."""
    value = float(text)
    return value if math.isfinite(value) else text


def read_coco(
    source: IO[bytes], where: str, list_objects: ListObjects, parse_float: ParseFloat | None = None
) -> CocoFile:
    """Read a file of annotations, in pieces: of an annotation stays what `list_objects` makes of it.

    Args:
        source: the file, from its beginning.
        where: the file, for messages.
        list_objects: of an annotation.
        parse_float: as `iterate_entries`.

    Returns:
        What it holds. An entry that is not in COCO's form costs itself, and is among `bad_entries`.

    Raises:
        NotCoco: it is not JSON, lacks `images` or `annotations`, has a list without any entry in COCO's form, or two
            images have one id.
    """
    file = CocoFile({}, {}, {}, {}, 0, [])
    counts: Counter[str] = Counter()
    try:
        for entry in iterate_entries(source, where, parse_float):
            number = counts[entry.key]
            try:
                _add_entry(file, entry, number, list_objects)
            except KeyError as error:
                file.bad_entries.append(BadEntry(entry.key, number, f"has no {error.args[0]!r}"))
            except (TypeError, AttributeError, ValueError) as error:  # such as an id that is a list
                file.bad_entries.append(BadEntry(entry.key, number, f"is not in COCO's form: {error}"))
            counts[entry.key] += 1
    except NotLongJson as error:
        raise NotCoco(str(error)) from None
    except _SharedId as error:
        raise NotCoco(f"'{where}': {error}, so their annotations cannot be told apart") from None
    failures = Counter(bad.key for bad in file.bad_entries)
    for bad in file.bad_entries:
        if failures[bad.key] == counts[bad.key]:
            reason = f"{bad.describe()}, and no other of its `{bad.key}` can be read"
            raise NotCoco(f"'{where}' is not in COCO's form: {reason}")
    if missing := {"images", "annotations"} - set(counts):
        raise NotCoco(f"'{where}' has no entries in `{min(missing)}`, as COCO's files do")
    orphans = sum(len(objects) for id, objects in file.objects.items() if id not in file.images)
    return file._replace(orphans=orphans)


class _SharedId(Exception):
    """Two images have one id."""


def _add_entry(file: CocoFile, entry: Entry, number: int, list_objects: ListObjects) -> None:
    """Add an entry to the contents of a file, or nothing of it."""
    value = entry.value
    if entry.key in ("images", "categories", "licenses", "annotations") and not isinstance(value, dict):
        raise TypeError(f"{json.dumps(value)[:40]} is no object")
    if entry.key == "images":
        image = _parse_image(value)
        other = file.images.setdefault(value["id"], image)
        if other.name != image.name:
            raise _SharedId(f"'{other.name}' and '{image.name}' have the id {value['id']!r}")
    elif entry.key == "categories":
        file.categories[value["id"]] = {"name": str(value["name"]), "isthing": value.get("isthing", 1)}
    elif entry.key == "licenses":
        file.licences[value["id"]] = str(value.get("url") or value.get("name") or "")
    elif entry.key == "annotations":
        image_id, objects = value["image_id"], list(list_objects(value, number, entry.start, entry.end))
        file.objects.setdefault(image_id, []).extend(objects)


def _parse_image(value: Mapping[str, Any]) -> CocoImage:
    name = value.get("file_name") or urlsplit(str(value["coco_url"])).path.lstrip("/")
    return CocoImage(str(name), parse_size(value), value.get("license"))


def parse_coco(data: bytes, where: str) -> tuple[Sequence[CocoPicture], CocoFile]:
    """Parse the pictures of a file with all of their segmentations.

    Args:
        data: contents of the file, in UTF-8, UTF-16 or UTF-32.
        where: the file, for messages.

    Returns:
        The pictures, in the order of the file, with a `CocoObject` each; and all that the file holds.

    Raises:
        NotCoco: as `read_coco`.
    """

    def list_objects(entry: Mapping[str, Any], number: int, *_: int) -> Iterable[Any]:
        yield str(entry.get("id", number)), entry.get("category_id"), entry.get("segmentation"), entry.get("iscrowd")

    encoding = json.detect_encoding(data)
    text = data if encoding.startswith("utf-8") else data.decode(encoding, "replace").encode()
    file = read_coco(io.BytesIO(text), where, list_objects, parse_finite)
    pictures = []
    for image_id, image in file.images.items():
        objects = [
            CocoObject(id, (look_up(file.categories, category) or {}).get("name"), segmentation, parse_flag(crowd))
            for id, category, segmentation, crowd in file.objects.get(image_id, ())
        ]
        pictures.append(CocoPicture(image.name, image.size, objects))
    return pictures, file


def look_up(values: Mapping[Any, Any], key: Any) -> Any:
    """Return the value of a key that others wrote; None where there is none, or it cannot be one."""
    return values.get(key) if isinstance(key, str | int | float) else None


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
