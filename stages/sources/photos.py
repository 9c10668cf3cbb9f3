"""Photos from a folder, a glob, or Parquet files: one record a picture, upright 8-bit sRGB.

With `masks`, photos come with the objects in them: one record a mask file, or an annotated object.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, cast

import cv2
from pydantic import Field

from rasura.manifests.camera_tags import CAMERA_COLUMNS, read_camera
from rasura.manifests.images import MAX_PIXELS, RGB, decode_image
from rasura.manifests.schemas import PROVENANCE, Kind, Schema
from rasura.stages import stage
from rasura.stages.sources.files import (
    InputPath,
    Pattern,
    RunContext,
    extract_scene_id,
    format_origin,
    read_and_verify,
    survey_files,
)
from rasura.stages.sources.listing import MissingInput, SourceFile, expand_path, find_files
from rasura.stages.sources.parquet_rows import PictureRows, check_files, is_empty_cell, is_parquet, read_cell
from rasura.stages.sources.photo_masks import (
    Annotations,
    PhotoMasks,
    draw_object,
    list_coco_items,
    list_mask_items,
    match_annotations,
    match_masks,
)
from rasura.stages.sources.provided_masks import MASK_COLUMNS, load_mask
from rasura.stages.sources.scenes import list_pictures, list_tables
from rasura.stages.stage import Kept, Outcome, Record, Rejected, Source


class PhotosParams(stage.Params):
    path: InputPath = Field(description="folder, glob, file or URI of pictures, or of .parquet files that hold them")
    pattern: str = Field("*", description="only files whose name matches")
    column: str = Field("image", description="column of the picture, where the files are Parquet")
    masks: PhotoMasks | None = Field(
        None,
        description="masks of the objects: a folder with the photos' names; {ending: _mask} for files beside them; "
        "{column: mask} of Parquet files; a .json file in COCO's form, with a row for each object",
    )
    licence: str = Field("unknown", description="licence of the pictures, kept with every row made from them")
    scene: Pattern | None = Field(None, description="regular expression on the file name; equal matches are one scene")
    max_side: int | None = Field(None, ge=16, description="longer pictures are scaled down to this many pixels")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="pictures with more pixels are refused undecoded")


def shrink_to_fit(picture: RGB, max_side: int | None) -> RGB:
    """Scale (h, w, 3) down so that its longer side is at most `max_side` pixels; never up.

    Examples:
        >>> import numpy as np
        >>> shrink_to_fit(np.zeros((300, 400, 3), np.uint8), 200).shape
        (150, 200, 3)
    """
    height, width = picture.shape[:2]
    if max_side is None or max(height, width) <= max_side:
        return picture
    factor = max_side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cast(RGB, cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


OBJECT_COLUMNS: Schema = {
    "object_mask": Kind.MASK,
    "label": Kind.STRING,  # class of an annotated object
    "mask_area": Kind.FLOAT,  # share of the picture
    **MASK_COLUMNS,
}


class PhotoInputs(NamedTuple):
    """What a source of photographs reads: photographs or files of rows, and the masks and annotations by path."""

    photos: Sequence[SourceFile]
    tables: Sequence[SourceFile]
    masks: Mapping[str, SourceFile] = MappingProxyType({})
    ambiguous: Mapping[str, str] = MappingProxyType({})
    annotations: Annotations = Annotations()


class Photos(Source):
    """Photos of a folder or of Parquet files, with the masks of objects where there are some.

    Examples:
        - photos: {path: photos, masks: {ending: _mask}, licence: CC0-1.0}
    """

    name = "photos"
    version = "4"
    input_paths = ("path",)
    gives = {
        **PROVENANCE,
        "source": Kind.RGB,
        "width": Kind.INT,
        "height": Kind.INT,
        **CAMERA_COLUMNS,
    }
    Params = PhotosParams
    params: PhotosParams

    def schema(self, columns: Schema) -> Schema:
        return {**self.gives, **(OBJECT_COLUMNS if self.params.masks else {})}

    def _columns(self) -> list[str]:
        masks = self.params.masks
        return [self.params.column, *([masks.column] if masks and masks.column else [])]

    def list_inputs(self) -> Sequence[SourceFile]:
        """List the files of photographs or of rows.

        Raises:
            MissingInput: there are none, one of rows lacks a column, or their masks are not where `masks` says.
        """
        inputs = self._find_inputs(Counter())
        return [*inputs.photos, *inputs.tables]

    def _find_inputs(self, passed_over: Counter[str]) -> PhotoInputs:
        params, columns = self.params, self._columns()
        files = check_files(find_files(params.path, params.pattern, passed_over), columns, columns)
        tables = [file for file in files if is_parquet(file.path)]
        photos = [file for file in files if not is_parquet(file.path)]
        if not params.masks:
            return PhotoInputs(photos, tables)
        if bool(photos) == bool(params.masks.column):
            kind = "pictures" if params.masks.column else "Parquet files"
            raise MissingInput(f"'{params.path}' holds {kind}, for which masks: {params.masks.model_dump()} do not fit")
        root = expand_path(params.path)
        if params.masks.coco:  # it often lies beside the photos
            photos = [file for file in photos if file.path != expand_path(params.masks.coco or "")]
            return PhotoInputs(photos, tables, annotations=match_annotations(photos, root, params.masks, passed_over))
        if photos:
            photos, found, ambiguous = match_masks(photos, root, params.masks, passed_over)
            return PhotoInputs(photos, tables, found, ambiguous)
        return PhotoInputs(photos, tables)

    def survey_inputs(self, run: RunContext) -> tuple[str, int]:
        masks = self.params.masks
        return survey_files(self.params.path, *filter(None, (masks.folder, masks.coco) if masks else ()))

    def items(self, run: RunContext) -> list[Record]:
        masks = self.params.masks
        photos, tables, found, ambiguous, annotations = self._find_inputs(run.passed_over)
        items: list[Record] = []
        if photos:
            ids, fingerprints = list_pictures(photos, run)
            if masks and masks.coco:
                items = list_coco_items(photos, ids, annotations)
            elif masks:
                items = list_mask_items(photos, ids, found, ambiguous, run)
            else:
                items = [{"id": ids[file.path], "path": file.path} for file in photos]
            items = [
                item | {"origin": format_origin(item["path"]), "fingerprint": fingerprints[item["path"]]}
                for item in items
            ]
        if tables:
            columns = self._columns()
            items += list_tables(tables, run, columns, columns, self.params.column)
        for item in items:
            item["scene_id"] = extract_scene_id(item["origin"], self.params.scene, item.get("photo") or item["id"])
        return items

    def setup(self) -> None:
        self.parquet = PictureRows(self._columns())

    def _read(self, item: Record) -> tuple[bytes, bytes | None]:
        """Return the bytes of a photo, and of its mask."""
        if "row" in item:
            row, masks = self.parquet.read_row(item), self.params.masks
            mask = row[masks.column] if masks and masks.column else None
            return read_cell(row[self.params.column]), None if is_empty_cell(mask) else read_cell(mask)
        data = read_and_verify(item["path"], item.get("photo") or item["content"])
        return data, read_and_verify(*item["mask"]) if item.get("mask") else None

    def process_one(self, item: Record) -> Outcome:
        params = self.params
        data, encoded = self._read(item)
        picture = decode_image(data, params.max_pixels)
        columns: Record = {}
        if params.masks:
            if params.masks.coco:
                outcome = draw_object(item, picture, params.masks, params.max_side)
            elif item.get("ambiguous"):
                return Rejected("ambiguous masks", item["ambiguous"])
            elif encoded is None:
                return Rejected("no mask", f"there is no mask for {item['origin']}")
            else:
                outcome = load_mask(encoded, picture, None, params.masks.polarity, params.max_pixels, params.max_side)
            if isinstance(outcome, Rejected):
                return outcome
            columns = {"object_mask": outcome[0], "label": None, "mask_area": float(outcome[0].mean())} | outcome[1]
        picture = shrink_to_fit(picture, params.max_side)
        return Kept(
            [
                {
                    "id": item["id"],
                    "origin": item["origin"],
                    "scene_id": item["scene_id"],
                    "licence": params.licence,
                    "parents": [],
                    "source": picture,
                    "width": picture.shape[1],
                    "height": picture.shape[0],
                    **read_camera(data),
                    **columns,
                }
            ]
        )
