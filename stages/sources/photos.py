"""Photos from a folder, a glob, or Parquet files: one record a picture, upright 8-bit sRGB."""

import json
from collections.abc import Sequence
from typing import Any, cast

import cv2
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from rasura.manifests.ids import compute_content_id
from rasura.manifests.images import MAX_PIXELS, RGB, decode_image, read_field_of_view
from rasura.manifests.schemas import PROVENANCE, Kind
from rasura.manifests.spelling import list_nearest
from rasura.manifests.storage import is_remote
from rasura.stages import stage
from rasura.stages.sources.files import (
    ChangedInput,
    InputPath,
    MissingInput,
    Pattern,
    RunContext,
    SourceFile,
    compute_content_ids,
    extract_scene_id,
    find_files,
    format_origin,
    make_unreadable_id,
    read_and_verify,
)
from rasura.stages.stage import Kept, Outcome, Record, Source


class PhotosParams(stage.Params):
    path: InputPath = Field(description="folder, glob, file or URI of pictures, or of .parquet files that hold them")
    pattern: str = Field("*", description="only files whose name matches")
    column: str = Field("image", description="column of the picture, where the files are Parquet")
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


def read_cell(cell: Any) -> bytes:
    """Return the encoded picture in a Parquet cell: bytes, or a struct with `bytes`.

    Examples:
        >>> read_cell({"bytes": b"...", "path": None}), read_cell(None)
        (b'...', b'')
    """
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    return data if isinstance(data, bytes) else b""


def list_row_ids(path: str, columns: list[str]) -> str:
    """Return a JSON list of the content ids of a Parquet file's rows, of the picture columns taken together."""
    ids: list[str] = []
    with pq.ParquetFile(path, pre_buffer=False) as source:
        present = [column for column in columns if column in source.schema_arrow.names]
        if not present:
            have = ", ".join(source.schema_arrow.names)
            raise MissingInput(f"'{path}' has no column {' or '.join(columns)}; it has {have}")
        for batch in source.iter_batches(batch_size=64, columns=present, use_threads=False):
            for row in batch.to_pylist():
                ids.append(compute_content_id(*(read_cell(row[column]) for column in present)))
    return json.dumps(ids)


def check_columns(files: Sequence[SourceFile], columns: Sequence[str]) -> Sequence[SourceFile]:
    """Return the files, where each local Parquet file among them has the columns.

    Raises:
        MissingInput: one has not. A file that cannot be read is a row that fails, and no fault of all.
    """
    for file in files:
        if not file.path.endswith(".parquet") or is_remote(file.path):
            continue
        try:
            names = pq.read_schema(file.path).names
        except (OSError, pa.ArrowException):
            continue
        if missing := [column for column in columns if column not in names]:
            have = list_nearest(missing[0], names)
            raise MissingInput(f"'{file.path}' has no column {' or '.join(missing)}; it has {have}")
    return files


def list_row_items(path: str, ids: str) -> list[Record]:
    """Return the items of a Parquet file's rows; one for a file that cannot be read, which fails where it is loaded."""
    if ids == make_unreadable_id(path):
        return [{"id": ids, "origin": format_origin(path), "path": path, "row": 0}]
    return [
        {"id": id, "origin": f"{format_origin(path)}#{row}", "path": path, "row": row}
        for row, id in enumerate(json.loads(ids))
    ]


class ParquetRows:
    """Reader of single rows of Parquet files; it keeps the row group that was read last."""

    def __init__(self) -> None:
        self._group: tuple[str, int] = ("", -1)
        self._rows: list[dict[str, Any]] = []

    def read_row(self, path: str, row: int, columns: list[str]) -> dict[str, Any]:
        """Return one row's cells, undecoded."""
        with pq.ParquetFile(path, pre_buffer=False) as source:
            names = [column for column in columns if column in source.schema_arrow.names]
            for group in range(source.num_row_groups):
                rows = source.metadata.row_group(group).num_rows
                if row < rows:
                    if self._group != (path, group):
                        self._rows = source.read_row_group(group, columns=names, use_threads=False).to_pylist()
                        self._group = (path, group)
                    return self._rows[row]
                row -= rows
        raise ChangedInput(f"'{path}' has fewer rows than when it was listed; run again")


class Photos(Source):
    """Photos of a folder or of Parquet files."""

    name = "photos"
    input_paths = ("path",)
    gives = {
        **PROVENANCE,
        "source": Kind.RGB,
        "width": Kind.INT,
        "height": Kind.INT,
        "camera_fov": Kind.FLOAT,  # degrees, horizontal; null where the file does not have it
    }
    Params = PhotosParams
    params: PhotosParams

    def list_inputs(self) -> Sequence[SourceFile]:
        """List the files of pictures or of rows.

        Raises:
            MissingInput: there are none, or one of rows lacks the column.
        """
        return check_columns(find_files(self.params.path, self.params.pattern), (self.params.column,))

    def items(self, run: RunContext) -> list[Record]:
        files = self.list_inputs()
        pictures = [file for file in files if not file.path.endswith(".parquet")]
        tables = [file for file in files if file.path.endswith(".parquet")]
        ids = compute_content_ids(pictures, run) if pictures else {}
        items: list[Record] = [{"id": ids[f.path], "origin": format_origin(f.path), "path": f.path} for f in pictures]
        if tables:
            ids = compute_content_ids(tables, run, lambda path: list_row_ids(path, [self.params.column]))
            for file in tables:
                items += list_row_items(file.path, ids[file.path])
        return items

    def setup(self) -> None:
        self.parquet = ParquetRows()

    def _bytes(self, item: Record) -> bytes:
        if "row" not in item:
            return read_and_verify(item["path"], item["content"])
        data = read_cell(self.parquet.read_row(item["path"], item["row"], [self.params.column])[self.params.column])
        if compute_content_id(data) != item["content"]:
            raise ChangedInput(f"'{item['origin']}' is not what it was when it was listed; run again")
        return data

    def process_one(self, item: Record) -> Outcome:
        data = self._bytes(item)
        picture = shrink_to_fit(decode_image(data, self.params.max_pixels), self.params.max_side)
        return Kept(
            [
                {
                    "id": item["id"],
                    "origin": item["origin"],
                    "scene_id": extract_scene_id(item["origin"], self.params.scene, item["content"]),
                    "licence": self.params.licence,
                    "parents": [],
                    "source": picture,
                    "width": picture.shape[1],
                    "height": picture.shape[0],
                    "camera_fov": read_field_of_view(data),
                }
            ]
        )
