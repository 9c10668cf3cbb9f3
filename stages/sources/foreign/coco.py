"""COCO's and LVIS's annotations with their photographs: a row for each object, or for each segment of a panoptic map.

The file of annotations is read in pieces: a row keeps the place of its outline there, and reads it on the worker.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from rasura.manifests.foreign.long_json import parse_entry
from rasura.manifests.formats.coco import (
    BadSegmentation,
    CocoFile,
    CocoImage,
    CocoPicture,
    NotCoco,
    draw_segmentation,
    look_up,
    parse_flag,
    read_coco,
)
from rasura.manifests.ids import compute_content_id
from rasura.manifests.images import Mask, decode_image, load_upright, open_image
from rasura.manifests.remote_files import open_to_read
from rasura.stages.sources.files import ChangedInput, RunContext, survey_files
from rasura.stages.sources.foreign.pictures import prepare_photo
from rasura.stages.sources.foreign.rows import (
    LONGEST_TEXT,
    ClassParams,
    ForeignParams,
    ForeignRow,
    ForeignSource,
    count_entries,
    has_files,
    locate,
    read_range,
)
from rasura.stages.sources.listing import MissingInput, SourceFile, expand_path, find_files
from rasura.stages.sources.photo_masks import count_bad_entries, match_pictures
from rasura.stages.sources.provided_masks import NO_MASK
from rasura.stages.stage import Record, Rejected


class CocoParams(ForeignParams, ClassParams):
    path: str = Field(min_length=1, description="folder of the photographs, such as val2017")
    annotations: str = Field(
        min_length=1, description="JSON file: instances or panoptic of COCO, LVIS, or another one in their form"
    )
    panoptic: str | None = Field(
        None, description="folder of the panoptic PNG files; null: named as the JSON file is, without .json"
    )
    stuff: bool = Field(False, description="panoptic: also what is no thing, such as sky")
    crowds: bool = Field(False, description="also what marks a group (iscrowd)")
    min_area: float = Field(0.0, ge=0, description="objects with fewer pixels, by the file's own count, are left out")


class Annotation(NamedTuple):
    """An object as it is listed: of instances, the bytes of its entry; of a panoptic map, its file and number.

    Attributes:
        digest: of its entry; None of a segment.
    """

    id: str
    category: Any
    crowd: bool
    area: float
    place: Sequence[Any]
    digest: str | None


def read_contents(path: str) -> CocoFile:
    """List the contents of a file of annotations, in pieces: of an outline stays its place.

    Raises:
        MissingInput: it is not there, or not in COCO's form.
    """
    try:
        with open_to_read(path) as source:
            return read_coco(source, path, _list_annotations)
    except FileNotFoundError:
        raise MissingInput(f"there is no file '{path}'") from None
    except NotCoco as error:
        raise MissingInput(str(error)) from None


def _list_annotations(value: Mapping[str, Any], _: int, start: int, end: int) -> Iterable[Annotation]:
    """Yield the objects of an entry."""
    if "segments_info" not in value:
        text = json.dumps([value.get("category_id"), value.get("segmentation"), value.get("iscrowd")], sort_keys=True)
        digest = compute_content_id(text.encode())[:8]
        area = _parse_area(value.get("area"))
        id = str(value.get("id", start))
        yield Annotation(id, value.get("category_id"), parse_flag(value.get("iscrowd")), area, [start, end], digest)
        return
    for segment in value["segments_info"]:
        number = segment["id"] if isinstance(segment.get("id"), int) else -1  # which no pixel has
        place = [str(value["file_name"]), number]
        area = _parse_area(segment.get("area"))
        crowd = parse_flag(segment.get("iscrowd"))
        yield Annotation(str(number), segment.get("category_id"), crowd, area, place, None)


def _parse_area(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("inf")


class Coco(ForeignSource):
    """Photographs with the objects that COCO's or LVIS's annotations mark: a row an object.

    Examples:
        - coco: {path: val2017, annotations: annotations/instances_val2017.json, exclude: [person], max_side: 1024}
    """

    name = "coco"
    version = "1"
    input_paths = ("path", "annotations")
    Params = CocoParams
    params: CocoParams

    def list_inputs(self) -> Sequence[SourceFile]:
        """List the photographs.

        Raises:
            MissingInput: there are none, or no file of annotations.
        """
        find_files(self.params.annotations)
        return self._find_photos(Counter())

    def _find_photos(self, passed_over: Counter[str]) -> list[SourceFile]:
        own = (expand_path(self.params.annotations), f"{self._panoptic_folder()}/")
        files = find_files(self.params.path, passed_over=passed_over)
        return [file for file in files if file.path != own[0] and not file.path.startswith(own[1])]

    def _panoptic_folder(self) -> str:
        folder = self.params.panoptic or self.params.annotations.removesuffix(".json")
        return expand_path(folder).rstrip("/")

    def survey_inputs(self, run: RunContext) -> tuple[str, int]:
        folder = self._panoptic_folder()
        maps = [folder] if self.params.panoptic or has_files(folder) else []
        identity, count = survey_files(self.params.path, self.params.annotations, *maps)
        return identity, max(count, count_entries(self.params.annotations))

    def list_rows(self, run: RunContext) -> Iterable[ForeignRow]:
        params, passed_over = self.params, run.passed_over
        files = self._find_photos(passed_over)
        place = expand_path(params.annotations)
        contents = read_contents(place)
        others = []
        for bad in contents.bad_entries:
            if bad.place.startswith("annotations"):  # which would have been a row
                fault = ("annotation not in COCO's form", bad.describe())
                yield ForeignRow(locate(place, bad.place), {}, {}, fault=fault)
            else:
                others.append(bad)
        count_bad_entries(others, passed_over)
        maps = {}
        if any(entry.digest is None for entries in contents.objects.values() for entry in entries):
            folder = self._panoptic_folder()
            maps = {file.path.rpartition("/")[2]: file for file in find_files(folder, "*.png", passed_over)}
        pictures = [
            CocoPicture(image.name, image.size, [(id, entry) for entry in contents.objects.get(id, ())])
            for id, image in contents.images.items()
        ]
        annotations = match_pictures(files, expand_path(params.path), pictures, contents.orphans, place, passed_over)
        for file in files:
            entries = [entry for picture in annotations.pictures.get(file.path, ()) for entry in picture.objects]
            if reason := annotations.ambiguous.get(file.path):
                yield ForeignRow(file.path, {"source": file}, {}, fault=("annotations ambiguous", reason))
            elif not entries:
                passed_over["photo without an annotated object"] += 1
            for id, entry in entries:
                row = self._make_row(file, contents, contents.images[id], entry, maps, passed_over)
                if row is not None:
                    yield row

    def _make_row(
        self,
        file: SourceFile,
        contents: CocoFile,
        image: CocoImage,
        entry: Annotation,
        maps: Mapping[str, SourceFile],
        passed_over: Counter[str],
    ) -> ForeignRow | None:
        """Make the row of an object; None where the parameters leave it out."""
        params, category = self.params, look_up(contents.categories, entry.category) or {}
        left_out = {
            "group of objects (crowds: true takes them)": entry.crowd and not params.crowds,
            "stuff and no thing (stuff: true takes it)": not category.get("isthing", 1) and not params.stuff,
            "smaller than min_area": entry.area < params.min_area,
        }
        if reason := next((reason for reason, applies in left_out.items() if applies), None):
            passed_over[reason] += 1
            return None
        label = category["name"][:LONGEST_TEXT] if category else None
        details: Record = {"label": label, "size": image.size, "annotation": entry.id}
        details["licence"] = look_up(contents.licences, image.licence) or None
        origin, key = locate(file.path, entry.id), entry.digest or entry.id
        if entry.digest is not None:
            details["place"] = list(entry.place)
            return ForeignRow(origin, {"source": file}, details, f"{label}.{key}")
        name, number = entry.place
        details["number"] = number
        if name not in maps:
            fault = ("no mask", f"there is no '{name}' in '{self._panoptic_folder()}'")
            return ForeignRow(origin, {"source": file}, details, key, fault)
        return ForeignRow(origin, {"source": file, "map": maps[name]}, details, key)

    def load(self, item: Record) -> Record | Rejected:
        details = item["details"]
        encoded = self.read_part(item, "source") or b""
        source = decode_image(encoded, self.params.max_pixels)
        size = (source.shape[1], source.shape[0])
        if details["size"] is not None and tuple(details["size"]) != size:
            return Rejected("mask of another size", f"annotated at {tuple(details['size'])}, picture {size}")
        try:
            mask = self._draw_map(item, size) if "number" in details else self._draw_outline(item, size)
        except BadSegmentation as error:
            return Rejected("no mask in its file", f"annotation {details['annotation']}: {error}")
        return prepare_photo(source, mask, encoded, self.params, NO_MASK | {"mask_values": "annotation"})

    def _draw_outline(self, item: Record, size: tuple[int, int]) -> Mask:
        """Draw the polygons or run lengths of an object, read from its place in the file."""
        path, (start, end) = expand_path(self.params.annotations), item["details"]["place"]
        try:
            value = parse_entry(read_range(path, start, end))
            (entry,) = _list_annotations(value, 0, start, end)
        except (ValueError, TypeError, KeyError, AttributeError):
            value, entry = None, None
        if entry is None or entry.id != item["details"]["annotation"] or not item["key"].endswith(f".{entry.digest}"):
            raise ChangedInput(f"'{path}' is not what it was when it was listed; run again")
        return draw_segmentation(value.get("segmentation"), size)

    def _draw_map(self, item: Record, size: tuple[int, int]) -> Mask:
        """Return the pixels of a segment: its number is red + 256 green + 65536 blue."""
        image = open_image(self.read_part(item, "map") or b"", self.params.max_pixels)
        if image.size != size:
            raise BadSegmentation(f"its panoptic map is {image.size}, the picture {size}")
        colours = np.asarray(load_upright(image).convert("RGB"), np.int64)
        mask = colours @ np.array([1, 256, 65536]) == item["details"]["number"]
        if not mask.any():
            raise BadSegmentation("it marks no pixel of its panoptic map")
        return np.asarray(mask)
