"""OBER's Parquet layout (ObjectClear's release): columns and names of its rows, and reading its files.

Columns `input`, `gt`, `object_mask`, `object_effect_mask` (pictures), `subset`, `split`. A picture's `path` is
`<scene>_<crop>.<ext>`: rows of one scene are crops of it, of which a loader draws one an epoch. A test subset without
ground truth (OBER-Wild) has no `gt`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa

from rasura.manifests.parquet import RowReader, iterate_rows, open_parquet
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

_SUFFIXES = {b"RIFF": "webp", b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"BM": "bmp", b"II*\0": "tif", b"MM\0*": "tif"}


def make_picture_name(scene: str, crop: int, data: bytes) -> str:
    """Make a picture's name, `<scene>_<crop>.<ext>`: the scene percent-encoded, the suffix by its first bytes.

    Examples:
        >>> make_picture_name("park/3", 0, b"RIFF....WEBP")
        'park%2F3_0.webp'
    """
    return f"{quote(scene, safe='')}_{crop}.{get_picture_suffix(data)}"


def get_picture_suffix(data: bytes) -> str:
    """Return the suffix of an encoded picture by its first bytes; `bin` of something else.

    Examples:
        >>> get_picture_suffix(b"\\x89PNG\\r"), get_picture_suffix(b"GIF8")
        ('png', 'bin')
    """
    return next((suffix for head, suffix in _SUFFIXES.items() if data.startswith(head)), "bin")


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


def _get_bytes(cell: Any) -> bytes | None:
    data = cell.get("bytes") if isinstance(cell, Mapping) else cell
    return data if isinstance(data, bytes) and data else None


def list_rows(path: str) -> Iterator[ListedRow]:
    """Yield all rows of a file that has at least `NEEDED_COLUMNS`."""
    with open_parquet(path) as source:
        for row in iterate_rows(source, list(COLUMNS)):
            name = (row["input"] or {}).get("path") if isinstance(row["input"], Mapping) else None
            pictures = tuple(_get_bytes(row[column]) for column in PICTURES)
            yield ListedRow(parse_scene(name) if name else "", row["subset"], row["split"], pictures)


def list_subsets(path: str) -> set[str]:
    """List the subsets that rows of a file are in, without reading pictures; none of a file that cannot be read."""
    try:
        with open_parquet(path) as source:
            rows = iterate_rows(source, ["subset"]) if "subset" in source.schema_arrow.names else ()
            return {row["subset"] for row in rows if isinstance(row["subset"], str)}
    except (OSError, pa.ArrowException):
        return set()


class OberReader:
    """A reader of single rows of files, undecoded. Consecutive rows are read as a stream."""

    def __init__(self) -> None:
        self._reader = RowReader(PICTURES)

    def row(self, path: str, row: int) -> dict[str, bytes | None] | None:
        """Read the pictures of a row by their names; None where the file has no such row."""
        cells = self._reader.read_row(path, row)
        return None if cells is None else {name: _get_bytes(cells[name]) for name in PICTURES}

    def close(self) -> None:
        """Close the file that is open."""
        self._reader.close()
