"""Open Images' segmented objects: its CSV files and mask files with the photographs, a row an object.

Masks are smaller or larger than the photographs that people have: they are scaled to them.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from pydantic import Field

from rasura.manifests.foreign.tables import BadRow, NotATable, iterate_table
from rasura.manifests.images import encode_mask, load_upright, open_image
from rasura.stages.imaging.mask_change import Polarity
from rasura.stages.sources.files import RunContext, read_file, survey_files
from rasura.stages.sources.foreign.pictures import load_photo
from rasura.stages.sources.foreign.rows import (
    ClassParams,
    ForeignParams,
    ForeignRow,
    ForeignSource,
    count_entries,
    locate,
)
from rasura.stages.sources.listing import MissingInput, SourceFile, expand_path, find_files
from rasura.stages.stage import Record, Rejected

BODY_PARTS = [
    f"Human {part}"
    for part in "arm beard body ear eye face foot hair hand head leg mouth nose".split()  # noqa: SIM905
]
CLOTHES = (
    "Belt|Bicycle helmet|Boot|Brassiere|Clothing|Coat|Cowboy hat|Dress|Earrings|Fashion accessory|Fedora|"
    "Football helmet|Footwear|Glasses|Glove|Goggles|Hat|Helmet|High heels|Jacket|Jeans|Miniskirt|Necklace|Sandal|"
    "Scarf|Shirt|Shorts|Skirt|Sock|Sombrero|Sports uniform|Suit|Sun hat|Sunglasses|Swim cap|Swimwear|Tiara|Tie|"
    "Trousers|Watch"
)
WORN = [*BODY_PARTS, *re.split(r"\|", CLOTHES)]
FLAGS = ("IsGroupOf", "IsDepiction", "IsInside")
LARGEST_STRETCH = 0.02  # difference of the two scales of a mask, by which it is another picture's


class OpenImagesParams(ForeignParams, ClassParams):
    path: str = Field(min_length=1, description="folder of the photographs, named by their ids")
    annotations: str = Field(
        min_length=1,
        description="CSV of the masks (…-annotations-object-segmentation.csv), or a folder or glob of some",
    )
    masks: str = Field(min_length=1, description="folder of the mask files")
    boxes: str | None = Field(
        None, description="CSV of the boxes (…-annotations-bbox.csv): groups, drawings and insides are left out by it"
    )
    descriptions: str | None = Field(
        None,
        description="CSV of the classes' names (…class-descriptions-boxable.csv); null: labels are ids",
    )
    images: str | None = Field(None, description="CSV of the photographs (…-images-…with-rotation.csv), for licences")
    exclude: list[str] = Field(
        WORN, description="no objects of these classes; by default what is worn or part of a body"
    )
    mask_polarity: Polarity = Field("white", description="what the object is in mask files: white, black or auto")
    max_per_class: int | None = Field(500, ge=1, description="objects of one class at most, drawn by lot, as RORem's")


class OpenImages(ForeignSource):
    """Photographs of Open Images with the objects that its masks mark.

    Examples:
        - openimages:
            path: train
            masks: train-masks
            annotations: train-annotations-object-segmentation.csv
            descriptions: oidv7-class-descriptions-boxable.csv
    """

    name = "openimages"
    version = "1"
    input_paths = ("path", "annotations", "masks")
    Params = OpenImagesParams
    params: OpenImagesParams

    def list_inputs(self) -> Sequence[SourceFile]:
        """List the photographs.

        Raises:
            MissingInput: there are none, or one of the other files is missing.
        """
        params = self.params
        for path in filter(None, (params.annotations, params.masks, params.boxes, params.descriptions, params.images)):
            find_files(path)
        return find_files(params.path)

    def survey_inputs(self, run: RunContext) -> tuple[str, int]:
        params = self.params
        others = filter(None, (params.annotations, params.masks, params.boxes, params.descriptions, params.images))
        identity, count = survey_files(params.path, *others)
        return identity, max(count, count_entries(params.annotations))

    def list_rows(self, run: RunContext) -> Iterable[ForeignRow]:
        params, passed_over = self.params, run.passed_over
        photos = _index_by_stem(find_files(params.path, passed_over=passed_over), passed_over)
        masks = {file.path.rpartition("/")[2]: file for file in find_files(params.masks, passed_over=passed_over)}
        labels = read_descriptions(params.descriptions) if params.descriptions else {}
        licences = self._read_licences(photos, passed_over) if params.images else {}
        flagged = self._read_flags(photos, passed_over) if params.boxes else frozenset()
        annotated, used = set[str](), set[str]()
        for file in find_files(params.annotations, "*.csv", passed_over):
            for number, values in enumerate(_read_csv(file.path, ("MaskPath", "ImageID", "LabelName"), passed_over)):
                photo, mask = photos.get(values["ImageID"]), masks.get(values["MaskPath"])
                if photo is None:
                    passed_over["annotation of a photo that is not there"] += 1
                    continue
                annotated.add(values["ImageID"])
                if mask is None:
                    passed_over["annotation whose mask file is not there"] += 1
                    continue
                used.add(values["MaskPath"])
                if _make_box_key(values, "Box") in flagged:
                    passed_over["group, drawing or inside"] += 1
                    continue
                label = labels.get(values["LabelName"], values["LabelName"])
                details: Record = {"label": label, "licence": licences.get(values["ImageID"])}
                origin = locate(photo.path, values["MaskPath"] or str(number))
                yield ForeignRow(origin, {"source": photo, "mask": mask}, details, label)
        for reason, count in {
            "photo without an annotated object": len(photos) - len(annotated),
            "mask of no annotation of a photo": len(masks) - len(used),
        }.items():
            if count:
                passed_over[reason] += count

    def _read_licences(self, photos: Mapping[str, SourceFile], passed_over: Counter[str]) -> Mapping[str, str]:
        rows = _read_csv(self.params.images or "", ("ImageID", "License"), passed_over)
        return {row["ImageID"]: row["License"] for row in rows if row["ImageID"] in photos and row["License"]}

    def _read_flags(self, photos: Mapping[str, SourceFile], passed_over: Counter[str]) -> frozenset[tuple[Any, ...]]:
        """Return the boxes of what is no single real object seen from outside."""
        rows = _read_csv(self.params.boxes or "", ("ImageID", "LabelName", "XMin", *FLAGS), passed_over)
        return frozenset(
            _make_box_key(row, "")
            for row in rows
            if row["ImageID"] in photos and any(row[flag].strip() == "1" for flag in FLAGS)
        )

    def load(self, item: Record) -> Record | Rejected:
        data = {part: self.read_part(item, part) or b"" for part in ("source", "mask")}
        fitted = fit_mask(data["mask"], data["source"], self.params.max_pixels)
        if isinstance(fitted, Rejected):
            return fitted
        return load_photo(data | {"mask": fitted}, self.params, self.params.mask_polarity)


def fit_mask(mask: bytes, photo: bytes, max_pixels: int) -> bytes | Rejected:
    """Scale a mask file to its photograph, where the two have one shape.

    Args:
        mask, photo: contents of the files.
        max_pixels: limit of each, in px.

    Returns:
        The file of a mask of the photograph's size; or why it is another picture's.

    Raises:
        BadImage: one of them cannot be read.
    """
    image, size = open_image(mask, max_pixels), open_image(photo, max_pixels).size
    if image.size == size:
        return mask
    scales = [there / here for there, here in zip(size, image.size, strict=True)]
    rounding = 1 / min(*size, *image.size)
    if abs(scales[0] / scales[1] - 1) > LARGEST_STRETCH + rounding:
        return Rejected("mask of another size", f"mask {image.size}, picture {size}")
    levels = np.asarray(load_upright(image).convert("L"))
    levels = np.where(levels > 0, np.uint8(255), np.uint8(0))  # every value but 0 is the object
    return encode_mask(np.asarray(cv2.resize(levels, size, interpolation=cv2.INTER_LINEAR)) > 127)


def read_descriptions(path: str) -> Mapping[str, str]:
    """Read the classes' names by their ids, from a file with or without a line of titles.

    Raises:
        MissingInput: it is not there, or has no two columns.
    """
    place = expand_path(path)
    try:
        rows = list(csv.reader(read_file(place).decode("utf-8-sig").splitlines()))
    except FileNotFoundError:
        raise MissingInput(f"there is no file '{place}'") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise MissingInput(f"'{place}' is no CSV in UTF-8: {error}") from None
    names = {row[0].strip(): row[1].strip() for row in rows if len(row) >= 2 and row[0].startswith("/")}
    if not names:
        raise MissingInput(f"'{place}' names no class, as /m/01g317,Person would")
    return names


def _read_csv(path: str, needed: Sequence[str], passed_over: Counter[str]) -> Iterable[Mapping[str, str]]:
    """Yield the rows of a CSV file; what is no row, such as a last line that is cut off, is added to `passed_over`.

    Raises:
        MissingInput: it lacks a column, or is no CSV.
    """
    place = expand_path(path)
    try:
        for row in iterate_table(place):
            if isinstance(row, BadRow):
                passed_over["row of a CSV file that cannot be read"] += 1
                continue
            if missing := [name for name in needed if name not in row]:
                raise MissingInput(f"'{place}' has no column {missing[0]}; it has {', '.join(list(row)[:8])}")
            yield row
    except NotATable as error:
        raise MissingInput(str(error)) from None


def _index_by_stem(files: Sequence[SourceFile], passed_over: Counter[str]) -> dict[str, SourceFile]:
    """Index photographs by their names without suffix; of two with one name, which is meant is unknown."""
    index: dict[str, SourceFile] = {}
    twice = set()
    for file in files:
        stem = file.path.rpartition("/")[2].rpartition(".")[0]
        if index.setdefault(stem, file) is not file:
            twice.add(stem)
            passed_over["second photo of one name"] += 1
    for stem in twice:
        passed_over["second photo of one name"] += 1
        del index[stem]
    return index


def _make_box_key(row: Mapping[str, str], prefix: str) -> tuple[Any, ...]:
    """Make the key by which a row of masks and one of boxes are of one object."""
    sides = (row.get(f"{prefix}{side}") or "nan" for side in ("XMin", "XMax", "YMin", "YMax"))
    try:
        return row["ImageID"], row["LabelName"], *(round(float(side), 4) for side in sides)
    except ValueError:
        return row["ImageID"], row["LabelName"]
