"""Rows of somebody else's Parquet files as items: their ids and cells, and what a column holds that is no picture."""

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from rasura.manifests.ids import compute_content_id
from rasura.manifests.images import BadImage, open_image
from rasura.manifests.parquet import RowReader, iterate_rows, open_parquet
from rasura.manifests.spelling import list_nearest
from rasura.manifests.storage import is_remote
from rasura.stages.sources.files import ChangedInput, format_origin, make_unreadable_id
from rasura.stages.sources.listing import MissingInput, SourceFile
from rasura.stages.stage import Record

WELL_FORMED = "pictures are bytes, or a struct of bytes and path, as `datasets` writes them"
SHOWN = 60  # characters of a wrong value that a message quotes


def read_cell(cell: Any) -> bytes:
    """Return the encoded picture in a Parquet cell: bytes, or a struct with `bytes`.

    Examples:
        >>> read_cell({"bytes": b"...", "path": None}), read_cell(None)
        (b'...', b'')
    """
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    return data if isinstance(data, bytes) else b""


def is_empty_cell(cell: Any) -> bool:
    """Return whether a cell is null, or a struct of nulls.

    Examples:
        >>> is_empty_cell({"bytes": None, "path": None}), is_empty_cell({"bytes": None, "path": "mask.png"})
        (True, False)
    """
    return cell is None or (isinstance(cell, dict) and not any(value is not None for value in cell.values()))


def describe_cell(cell: Any) -> str | None:
    """Describe what a cell holds where it is no picture in bytes; None where it could be one, or is empty.

    Examples:
        >>> describe_cell("photos/1.jpg"), describe_cell({"bytes": None, "path": "1.jpg"})
        ("text ('photos/1.jpg')", "a path and no bytes ('1.jpg')")
        >>> describe_cell(b"\\xff\\xd8\\xff\\xe0") is None
        True
    """
    if isinstance(cell, dict):
        data = cell.get("bytes")
        if data is None:
            text = next((value for value in cell.values() if isinstance(value, str) and value), None)
            return None if text is None else f"a path and no bytes ({text[:SHOWN]!r})"
        return describe_cell(data)
    if isinstance(cell, str):
        return f"{'base64 text' if _is_base64(cell.encode()) else 'text'} ({cell[:SHOWN]!r})"
    if isinstance(cell, bytes):
        return _describe_bytes(cell)
    return None if cell is None else f"a {type(cell).__name__} ({str(cell)[:SHOWN]})"


def _describe_bytes(data: bytes) -> str | None:
    """Describe bytes that are text of a picture, or its name, and no picture."""
    try:
        open_image(data)
    except BadImage:
        if not data or not data[:SHOWN].isascii() or not data[:SHOWN].decode().isprintable():
            return None  # a broken picture: its row will say so
        return f"{'base64 text' if _is_base64(data) else 'text'} as bytes ({data[:SHOWN].decode()!r})"
    return None


def _is_base64(text: bytes) -> bool:
    """Return whether text is a picture in base64, also as a data URI."""
    body = text.partition(b";base64,")[2] if text.startswith(b"data:") else text
    try:
        open_image(base64.b64decode(body, validate=True))
    except (binascii.Error, BadImage, ValueError):
        return False
    return True


def check_columns(path: str, source: Any, needed: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Return those columns that a file has, whose kind can hold pictures.

    Args:
        path: of the file, for messages.
        source: the open file.
        needed: columns that it must have.
        columns: all with pictures.

    Raises:
        MissingInput: it lacks one, or one holds something else than pictures; the text says what.
    """
    names = source.schema_arrow.names
    if missing := [column for column in needed if column not in names]:
        have = list_nearest(missing[0], names)
        raise MissingInput(f"'{path}' has no column {' or '.join(missing)}; it has {have}")
    present = [column for column in columns if column in names]
    for column in present:
        kind = source.schema_arrow.field(column).type
        if not _may_hold_pictures(kind):
            example = next((row[column] for row in iterate_rows(source, [column]) if row[column] is not None), None)
            text = describe_cell(example) or f"values of type {kind}"
            raise MissingInput(f"'{path}': column '{column}' holds {text}, of type {kind}; {WELL_FORMED}")
    return present


def check_files(files: Sequence[SourceFile], needed: Sequence[str], columns: Sequence[str]) -> Sequence[SourceFile]:
    """Return the files, where each local Parquet file among them passes `check_columns`, and its first row `CellCheck`.

    Raises:
        MissingInput: one does not. A file that cannot be read is a row that fails, and no fault of all.
    """
    for file in files:
        if not is_parquet(file.path) or is_remote(file.path):
            continue
        try:
            with open_parquet(file.path) as source:
                present = check_columns(file.path, source, needed, columns)
                if (first := next(iterate_rows(source, present), None)) is not None:
                    CellCheck(file.path, present).check(first, 0)
        except (OSError, pa.ArrowException):
            continue
    return files


def is_parquet(path: str) -> bool:
    """Return whether a file is Parquet by its name."""
    return path.lower().endswith(".parquet")


class CellCheck:
    """A check of the first cell of each column that is not empty: what holds paths holds no picture in any row.

    Args:
        path: of the file, for messages.
        columns: to check.
    """

    def __init__(self, path: str, columns: list[str]) -> None:
        self.path, self.unseen = path, set(columns)

    def check(self, row: dict[str, Any], number: int) -> None:
        """Check a row.

        Raises:
            MissingInput: a column holds no pictures.
        """
        for column in sorted(self.unseen):
            if (text := describe_cell(row[column])) is not None:
                raise MissingInput(f"'{self.path}': column '{column}' holds {text} in row {number}; {WELL_FORMED}")
            if read_cell(row[column]):
                self.unseen.discard(column)


def _may_hold_pictures(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _may_hold_pictures(field.type) for field in kind)
    if pa.types.is_dictionary(kind):
        return _may_hold_pictures(kind.value_type)
    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    return bool(binary or pa.types.is_binary_view(kind) or pa.types.is_null(kind))


def iterate_picture_rows(
    path: str, needed: Sequence[str], columns: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a Parquet file with their content ids, of the picture columns taken together.

    A row in which nothing is a picture has an id of its own: empty rows are no duplicates of each other.

    Raises:
        MissingInput: as `check_columns`; or the first cell that is not empty holds no picture.
    """
    with open_parquet(path) as source:
        present = check_columns(path, source, needed, columns)
        cell_check = CellCheck(path, present)
        for number, row in enumerate(iterate_rows(source, present)):
            cell_check.check(row, number)
            cells = [read_cell(row[column]) for column in present]
            yield compute_content_id(*cells) if any(cells) else compute_row_id(path, number), row


def compute_row_id(path: str, row: int) -> str:
    """Compute the id of a row that holds no picture, from its place."""
    return compute_content_id(b"no picture", path.encode(errors="surrogateescape"), str(row).encode())


def list_row_items(path: str, ids: str) -> list[Record]:
    """Return the items of a Parquet file's rows; one for a file that cannot be read, which fails where it is loaded.

    Args:
        path: of the file.
        ids: of its rows, as a JSON list.
    """
    if ids == make_unreadable_id(path):
        return [{"id": ids, "origin": format_origin(path), "path": path, "row": 0}]
    return [
        {"id": id, "origin": f"{format_origin(path)}#{row}", "path": path, "row": row}
        for row, id in enumerate(json.loads(ids))
    ]


class PictureRows:
    """Reader of single rows of Parquet files that checks them against their listing.

    Args:
        columns: with pictures.
    """

    def __init__(self, columns: list[str]) -> None:
        self.columns = columns
        self._reader = RowReader(columns)

    def read_row(self, item: Record) -> dict[str, Any]:
        """Return the cells of an item's row, undecoded; None for a column that the file lacks.

        Raises:
            ChangedInput: the row is not what it was when it was listed.
        """
        row = self._reader.read_row(item["path"], item["row"])
        if row is None:
            raise ChangedInput(f"'{item['path']}' has fewer rows than when it was listed; run again")
        names = self._reader.file_columns
        cells = [read_cell(row[column]) for column in self.columns if column in names]
        id = compute_content_id(*cells) if any(cells) else compute_row_id(item["path"], item["row"])
        if id != item["content"]:
            raise ChangedInput(f"'{item['origin']}' is not what it was when it was listed; run again")
        return row
