"""Rows of tables that others wrote: Parquet, Arrow as `datasets` saves it, JSON lines, CSV; a few at a time."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from rasura.manifests.errors import InputError
from rasura.manifests.json_lines import explain_json_error, parse_json
from rasura.manifests.parquet import RowReader, iterate_rows, open_parquet
from rasura.manifests.remote_files import open_to_read
from rasura.manifests.storage import is_remote

BINARY = (".parquet", ".arrow")
TEXT = (".jsonl", ".ndjson", ".csv", ".tsv")
LONGEST_LINE = 16 * 2**20
DELIMITERS = (",", "\t", ";", "|")
"""Of CSV files, the usual ones first."""


class NotATable(InputError):
    """A file that cannot be read as the table that its name says."""


class BadRow:
    """A row that cannot be read.

    Args:
        reason: why.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason


def is_table(path: str) -> bool:
    """Return whether a file is a table by its name; files that `datasets` keeps for itself are none.

    Examples:
        >>> is_table("data/train-00000-of-00002.parquet"), is_table("cache-1f.arrow"), is_table("dataset_info.json")
        (True, False, False)
    """
    name = path.rpartition("/")[2].lower()
    return name.endswith((*BINARY, *TEXT)) and not name.startswith("cache-")


def iterate_table(path: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any] | BadRow]:
    """Yield the rows of a table.

    Args:
        path: of the file, local or a URI.
        columns: of Parquet and Arrow, only these; the rows of texts have all.

    Raises:
        NotATable: the file is no such table.
        OSError: it cannot be read.
    """
    suffix = Path(path).suffix.lower()
    try:
        if suffix == ".parquet":
            with open_parquet(path) as source:
                yield from iterate_rows(source, list(columns or source.schema_arrow.names))
        elif suffix == ".arrow":
            for batch in _open_batches(path):
                yield from _iterate_batch(batch, columns)
        elif suffix in (".csv", ".tsv"):
            yield from _iterate_csv(path, "\t" if suffix == ".tsv" else None)
        else:
            yield from _iterate_lines(path)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the surroundings; Arrow's own have no number
        raise NotATable(f"'{path}' cannot be read: {explain_error(error)}") from None


def explain_error(error: Exception) -> str:
    """Return the first line of an error's text.

    Examples:
        >>> explain_error(ValueError("no table\\nmore")), explain_error(ValueError())
        ('no table', 'ValueError')
    """
    return (str(error).splitlines() or [type(error).__name__])[0]


def list_columns(path: str) -> list[str]:
    """List the columns of a table; of JSON lines those of the first row.

    Raises:
        NotATable: as `iterate_table`.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".parquet":
        try:
            with open_parquet(path) as source:
                return list(source.schema_arrow.names)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise NotATable(f"'{path}' cannot be read: {explain_error(error)}") from None
    first = next(iterate_table(path), None)
    return list(first) if isinstance(first, dict) else []


def _open_batches(path: str) -> Iterator[pa.RecordBatch]:
    """Yield the batches of an Arrow file: a stream, as `save_to_disk` writes it, or one with an index."""
    if is_remote(path):
        raise NotATable(f"'{path}': Arrow files are read from a local disk; copy it, or write Parquet")
    try:
        batches: Iterable[pa.RecordBatch] = pa.ipc.open_stream(pa.memory_map(path))
    except pa.ArrowInvalid:
        file = pa.ipc.open_file(pa.memory_map(path))
        batches = (file.get_batch(index) for index in range(file.num_record_batches))
    for batch in batches:
        batch.validate(full=True)  # offsets in a damaged file could lead anywhere
        yield batch


def _iterate_batch(batch: pa.RecordBatch, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    names = [name for name in columns or batch.schema.names if name in batch.schema.names]
    for index in range(batch.num_rows):
        row: dict[str, Any] = batch.select(names).slice(index, 1).to_pylist()[0]
        yield dict.fromkeys(columns or ()) | row


def find_delimiter(titles: str) -> str:
    """Find the character that separates the titles of a CSV file: the first of `DELIMITERS` that is between them.

    Examples:
        >>> [find_delimiter(titles) for titles in ("source,target", "source;target", "source\\ttarget", "source")]
        [',', ';', '\\t', ',']
    """
    rows = {delimiter: next(csv.reader([titles], delimiter=delimiter), []) for delimiter in DELIMITERS}
    return next((delimiter for delimiter, row in rows.items() if len(row) > 1), DELIMITERS[0])


def _iterate_csv(path: str, delimiter: str | None) -> Iterator[dict[str, Any] | BadRow]:
    with open_to_read(path) as source:
        try:
            titles = source.readline(LONGEST_LINE).decode("utf-8-sig", "replace")
            delimiter = delimiter or find_delimiter(titles)
            source.seek(0)
            lines = (line.decode("utf-8-sig" if number == 0 else "utf-8") for number, line in enumerate(source))
            for row in csv.DictReader(lines, delimiter=delimiter, strict=True):
                whole = None not in row and None not in row.values()
                yield row if whole else BadRow(f"it has {'more' if None in row else 'fewer'} values than columns")
        except (csv.Error, UnicodeDecodeError) as error:
            raise NotATable(f"'{path}' is no CSV in UTF-8: {error}") from None


def _iterate_lines(path: str) -> Iterator[dict[str, Any] | BadRow]:
    with open_to_read(path) as source:
        while line := source.readline(LONGEST_LINE):
            if len(line) == LONGEST_LINE:
                raise NotATable(f"'{path}' has a line of more than {LONGEST_LINE} bytes: no JSON lines")
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except (ValueError, InputError) as error:
                yield BadRow(f"no JSON: {explain_json_error(error) if isinstance(error, ValueError) else error}")
                continue
            yield row if isinstance(row, dict) else BadRow("no JSON object")


class TableReader:
    """A reader of single rows of Parquet and Arrow files. Consecutive rows are read as a stream.

    Args:
        columns: of the rows; None where a file lacks one.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = columns
        self._parquet = RowReader(columns)
        self._path, self._batches = "", list[pa.RecordBatch]()

    def read_row(self, path: str, row: int) -> dict[str, Any] | None:
        """Read the cells of a row; None where the file has no such row."""
        if path.lower().endswith(".parquet"):
            return self._parquet.read_row(path, row)
        if path != self._path:  # mapped into memory: the batches hold no copies
            self._path, self._batches = path, list(_open_batches(path))
        for batch in self._batches:
            if row < batch.num_rows:
                return next(_iterate_batch(batch.slice(row, 1), self.columns))
            row -= batch.num_rows
        return None
