"""OBER's Parquet layout (ObjectClear's release): what is in a row, how a row is named, how files are read.

Columns `input`, `gt`, `object_mask`, `object_effect_mask` (pictures), `subset`, `split`. A picture's `path` is
`<scene>_<crop>.<ext>`: rows of one scene are crops of it, of which a loader draws one an epoch. A test subset without
truth (OBER-Wild) has no `gt`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

import fsspec
import pyarrow.parquet as pq

from rasura.manifests.schemas import Kind, Schema

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
"""Their pictures by our names."""

BATCH_ROWS = 4
_SUFFIXES = {b"RIFF": "webp", b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"BM": "bmp", b"II*\0": "tif", b"MM\0*": "tif"}


def path_of(scene: str, crop: int, data: bytes) -> str:
    """A picture's name: `<scene>_<crop>.<ext>`, the suffix by its first bytes. A scene's name is made fit for files."""
    suffix = next((suffix for head, suffix in _SUFFIXES.items() if data.startswith(head)), "bin")
    return f"{quote(scene, safe='')}_{crop}.{suffix}"


def scene_of(path: str) -> str:
    """The scene of a picture's name; the whole name, without its suffix, where no crop is in it."""
    stem = PurePosixPath(path).stem
    scene, _, crop = stem.rpartition("_")
    return unquote(scene if scene and crop.isdigit() else stem)


def raw_row(row: Mapping[str, Any], scene: str, crop: int) -> dict[str, Any]:
    """A row of ours, pictures encoded, as one of theirs: the same bytes under their names."""
    out: dict[str, Any] = {"subset": row["kind"], "split": row["split"]}
    for theirs, ours in TRIPLET.items():
        data = row[ours]["bytes"] if row[ours] is not None else None
        out[theirs] = None if data is None else {"bytes": data, "path": path_of(scene, crop, data)}
    return {name: out[name] for name in COLUMNS}


@dataclass(frozen=True)
class Listed:
    """What a listing says of a row without decoding it."""

    scene: str
    subset: str | None
    split: str | None
    pictures: tuple[bytes | None, ...]  # encoded, in the order of PICTURES


class NotOber(ValueError):
    """A Parquet file that has not OBER's columns."""


def check_columns(names: Sequence[str], path: str) -> None:
    """Raises:
    NotOber: `input` or `object_mask` is not among a file's columns.
    """
    if missing := [name for name in ("input", "object_mask") if name not in names]:
        raise NotOber(f"'{path}' has no column {', '.join(missing)}; it has {', '.join(names)}")


def _batches(source: Any, columns: Sequence[str], groups: Sequence[int] | None = None) -> Iterator[dict[str, Any]]:
    """Rows one after another, a few in memory at a time, whatever the size of a row group."""
    names = [name for name in columns if name in source.schema_arrow.names]
    wanted = list(range(source.num_row_groups)) if groups is None else list(groups)
    for batch in source.iter_batches(BATCH_ROWS, row_groups=wanted, columns=names, use_threads=False):
        for index in range(batch.num_rows):
            row: dict[str, Any] = batch.slice(index, 1).to_pylist()[0]
            yield dict.fromkeys(columns) | row


def _bytes(cell: Any) -> bytes | None:
    data = cell.get("bytes") if isinstance(cell, Mapping) else cell
    return data if isinstance(data, bytes) and data else None


def opened(path: str) -> Any:
    """A local or remote Parquet file, read in small pieces."""
    return pq.ParquetFile(fsspec.open(path, "rb").open(), pre_buffer=False, buffer_size=2**20)


def listing(path: str) -> Iterator[Listed]:
    """All rows of a file.

    Raises:
        NotOber
    """
    with opened(path) as source:
        check_columns(source.schema_arrow.names, path)
        for row in _batches(source, list(COLUMNS)):
            name = (row["input"] or {}).get("path") if isinstance(row["input"], Mapping) else None
            pictures = tuple(_bytes(row[column]) for column in PICTURES)
            yield Listed(scene_of(name) if name else "", row["subset"], row["split"], pictures)


class Reader:
    """Single rows of files, undecoded. Rows that are asked for in order are read in one go."""

    def __init__(self) -> None:
        self._rows: Iterator[dict[str, Any]] = iter(())
        self._source: Any = None
        self._at: tuple[str, int, int] = ("", 0, 0)  # path, next row, end of its row group

    def row(self, path: str, row: int) -> dict[str, bytes | None] | None:
        """The pictures of a row by their names; None where the file has no such row."""
        at, start, end = self._at
        if at != path or not start <= row < end:
            group = self._open(path, row)
            if group is None:
                return None
            start, end = group
        for _ in range(row - start):
            next(self._rows)
        found = next(self._rows)
        self._at = (path, row + 1, end)
        return {name: _bytes(found[name]) for name in PICTURES}

    def _open(self, path: str, row: int) -> tuple[int, int] | None:
        """Starts to read the row group that holds a row; its first row and the one after its last."""
        if self._at[0] != path or self._source is None:
            self.close()
            self._source = opened(path)
        start = 0
        for group in range(self._source.num_row_groups):
            end = start + self._source.metadata.row_group(group).num_rows
            if row < end:
                self._rows = _batches(self._source, PICTURES, [group])
                return start, end
            start = end
        return None

    def close(self) -> None:
        """Closes the file that is open."""
        if self._source is not None:
            self._source.close(force=True)
        self._source, self._at = None, ("", 0, 0)
