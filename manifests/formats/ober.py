"""OBER's Parquet layout (ObjectClear's release): columns and names of its rows, and reading its files.

Columns `input`, `gt`, `object_mask`, `object_effect_mask` (pictures), `subset`, `split`. A picture's `path` is
`<scene>_<crop>.<ext>`: rows of one scene are crops of it, of which a loader draws one an epoch. A test subset without
ground truth (OBER-Wild) has no `gt`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

import fsspec
import pyarrow.parquet as pq

from rasura.manifests.errors import InputError
from rasura.manifests.schemas import Kind, Schema

NAME = "ober"
ABOUT = "rows.jsonl"
"""The file, of Rasura's own, with what OBER's columns cannot hold."""
NEEDED_COLUMNS = ("input", "object_mask")
COLUMNS: Schema = {
    "input": Kind.RGB,
    "gt": Kind.RGB,
    "object_mask": Kind.MASK,
    "object_effect_mask": Kind.MASK,
    "subset": Kind.STRING,
    "split": Kind.STRING,
}
PICTURES = ("input", "gt", "object_mask", "object_effect_mask")
TRIPLET = {"input": "source", "gt": "target", "object_mask": "mask", "object_effect_mask": "foreground_mask"}
"""OBER's pictures -> those of a triplet."""

BATCH_ROWS = 4
_SUFFIXES = {b"RIFF": "webp", b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"BM": "bmp", b"II*\0": "tif", b"MM\0*": "tif"}


def make_picture_name(scene: str, crop: int, data: bytes) -> str:
    """Make a picture's name, `<scene>_<crop>.<ext>`: the scene percent-encoded, the suffix by its first bytes.

    Examples:
        >>> make_picture_name("park/3", 0, b"RIFF....WEBP")
        'park%2F3_0.webp'
    """
    suffix = next((suffix for head, suffix in _SUFFIXES.items() if data.startswith(head)), "bin")
    return f"{quote(scene, safe='')}_{crop}.{suffix}"


def parse_scene(path: str) -> str:
    """Parse the scene of a picture's name; the complete name, without its suffix, where it has no crop.

    Examples:
        >>> parse_scene("park%2F3_0.webp"), parse_scene("0001.png")
        ('park/3', '0001')
    """
    stem = PurePosixPath(path).stem
    scene, _, crop = stem.rpartition("_")
    return unquote(scene if scene and crop.isdigit() else stem)


def convert_row(row: Mapping[str, Any], scene: str, crop: int) -> dict[str, Any]:
    """Convert a triplet, pictures encoded, to a row of OBER's: the same bytes under other names."""
    out: dict[str, Any] = {"subset": row["kind"], "split": row["split"]}
    for theirs, ours in TRIPLET.items():
        data = row[ours]["bytes"] if row[ours] is not None else None
        out[theirs] = None if data is None else {"bytes": data, "path": make_picture_name(scene, crop, data)}
    return {name: out[name] for name in COLUMNS}


@dataclass(frozen=True)
class ListedRow:
    """A row of OBER's, undecoded.

    Attributes:
        scene: of its input's name; empty where that has none.
        subset: how the pair was made, where the file says so.
        split: where the file says so.
        pictures: encoded, in the order of PICTURES.
    """

    scene: str
    subset: str | None
    split: str | None
    pictures: tuple[bytes | None, ...]


class NotOber(InputError):
    """A Parquet file that lacks OBER's columns."""


def check_columns(names: Sequence[str], path: str) -> None:
    """Check that a file has the columns that OBER's pairs need.

    Raises:
        NotOber: `input` or `object_mask` is missing.
    """
    if missing := [name for name in NEEDED_COLUMNS if name not in names]:
        raise NotOber(f"'{path}' has no column {', '.join(missing)}; it has {', '.join(names)}")


def _iterate_rows(source: Any, columns: Sequence[str], groups: Sequence[int] | None = None) -> Iterator[dict[str, Any]]:
    """Yield rows one after another, a few in memory at a time, whatever the size of a row group."""
    names = [name for name in columns if name in source.schema_arrow.names]
    row_groups = list(range(source.num_row_groups)) if groups is None else list(groups)
    for batch in source.iter_batches(BATCH_ROWS, row_groups=row_groups, columns=names, use_threads=False):
        for index in range(batch.num_rows):
            row: dict[str, Any] = batch.slice(index, 1).to_pylist()[0]
            yield dict.fromkeys(columns) | row


def _get_bytes(cell: Any) -> bytes | None:
    data = cell.get("bytes") if isinstance(cell, Mapping) else cell
    return data if isinstance(data, bytes) and data else None


def open_parquet(path: str) -> Any:
    """Open a local or remote Parquet file, to be read in small pieces."""
    return pq.ParquetFile(fsspec.open(path, "rb").open(), pre_buffer=False, buffer_size=2**20)


def list_rows(path: str) -> Iterator[ListedRow]:
    """Yield all rows of a file.

    Raises:
        NotOber: the file lacks OBER's columns.
    """
    with open_parquet(path) as source:
        check_columns(source.schema_arrow.names, path)
        for row in _iterate_rows(source, list(COLUMNS)):
            name = (row["input"] or {}).get("path") if isinstance(row["input"], Mapping) else None
            pictures = tuple(_get_bytes(row[column]) for column in PICTURES)
            yield ListedRow(parse_scene(name) if name else "", row["subset"], row["split"], pictures)


class OberReader:
    """A reader of single rows of files, undecoded. Consecutive rows are read as a stream."""

    def __init__(self) -> None:
        self._rows: Iterator[dict[str, Any]] = iter(())
        self._source: Any = None
        self._position: tuple[str, int, int] = ("", 0, 0)  # path, next row, end of its row group

    def row(self, path: str, row: int) -> dict[str, bytes | None] | None:
        """Read the pictures of a row by their names; None where the file has no such row."""
        open_path, start, end = self._position
        if open_path != path or not start <= row < end:
            group = self._open(path, row)
            if group is None:
                return None
            start, end = group
        for _ in range(row - start):
            next(self._rows)
        pictures = next(self._rows)
        self._position = (path, row + 1, end)
        return {name: _get_bytes(pictures[name]) for name in PICTURES}

    def _open(self, path: str, row: int) -> tuple[int, int] | None:
        """Start to read the row group that has a row.

        Returns:
            The first row of the group and the one after its last; None where the file has no such row.
        """
        if self._position[0] != path or self._source is None:
            self.close()
            self._source = open_parquet(path)
        start = 0
        for group in range(self._source.num_row_groups):
            end = start + self._source.metadata.row_group(group).num_rows
            if row < end:
                self._rows = _iterate_rows(self._source, PICTURES, [group])
                return start, end
            start = end
        return None

    def close(self) -> None:
        """Close the file that is open."""
        if self._source is not None:
            self._source.close(force=True)
        self._source, self._position = None, ("", 0, 0)
