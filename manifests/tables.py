"""Reading the tables of a run: light columns of all rows at once, whole rows by place.

A selection (the table of a flow that judges without touching pictures) holds no pictures of its own: its rows say
where they stand in another table (`ref_table`, `ref_shard`, `ref_row`), and reading them follows that reference.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from rasura.manifests.parquet import read_parquet
from rasura.manifests.schemas import PICTURES, Kind, Schema, decode_value, schema_of
from rasura.manifests.shards import DROPPED, Line, read_manifest
from rasura.manifests.storage import Store

REFERENCE: Schema = {"ref_table": Kind.STRING, "ref_shard": Kind.STRING, "ref_row": Kind.INT}
CACHED_BYTES = 64 * 2**20
"""Of row groups, encoded, that a reader keeps beside the one it read last."""
CACHED_FOOTERS = 64


class NoTable(FileNotFoundError):
    """A run has no such table, or not yet."""


class Footer(NamedTuple):
    """What a shard's file says of itself, its columns, and the number of the first row of each of its row groups."""

    file: pq.FileMetaData
    schema: pa.Schema
    starts: list[int]


class Tables:
    """The tables of one run. Single rows are read by row groups, of which the last few are kept, encoded."""

    def __init__(self, run: Store) -> None:
        self.run = run
        self._footers: OrderedDict[tuple[str, str], Footer] = OrderedDict()
        self._groups: OrderedDict[tuple[Any, ...], pa.Table] = OrderedDict()
        self._bytes = 0

    def names(self) -> list[str]:
        """Names of the tables that are complete."""
        return [name for name in self.run.folders("tables") if self.run.exists(f"tables/{name}/manifest.parquet")]

    def table(self, name: str) -> "Table":
        """A complete table.

        Raises:
            NoTable
        """
        lines, schema, whole = read_manifest(self.run.sub(f"tables/{name}"))
        if not schema:
            have = ", ".join(self.names()) or "none"
            raise NoTable(f"{self.run.uri} has no complete table '{name}' (it has: {have}); run its recipe first")
        return Table(self, name, lines, schema, whole)

    def _footer(self, name: str, shard: str) -> Footer:
        if (name, shard) not in self._footers:
            with self.run.open(f"tables/{name}/shards/{shard}.parquet") as source:
                file = pq.read_metadata(source)
            rows = (file.row_group(number).num_rows for number in range(file.num_row_groups))
            self._footers[name, shard] = Footer(file, file.schema.to_arrow_schema(), list(accumulate(rows, initial=0)))
            while len(self._footers) > CACHED_FOOTERS:
                self._footers.popitem(last=False)
        self._footers.move_to_end((name, shard))
        return self._footers[name, shard]

    def encoded(self, name: str, shard: str, row: int, columns: Sequence[str] | None = None) -> pa.Table:
        """One row as it is on disk, a table of one.

        Args:
            columns: only these, as far as there are such; all where None.

        Raises:
            IndexError: the shard has no such row.
        """
        footer = self._footer(name, shard)
        if not 0 <= row < footer.starts[-1]:
            raise IndexError(f"shard {shard} of table '{name}' in {self.run.uri} has no row {row}: {footer.starts[-1]}")
        group = bisect_right(footer.starts, row) - 1
        own = [column for column in footer.schema.names if columns is None or column in columns]
        key = (name, shard, group, *own)
        if key not in self._groups:
            with self.run.open(f"tables/{name}/shards/{shard}.parquet") as source:
                self._groups[key] = read_parquet(source, own, group, footer.file)
            self._bytes += self._groups[key].nbytes
            while self._bytes > CACHED_BYTES and len(self._groups) > 1:
                self._bytes -= self._groups.popitem(last=False)[1].nbytes
        self._groups.move_to_end(key)
        return self._groups[key].slice(row - footer.starts[group], 1)

    def row(self, name: str, shard: str, row: int, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """One whole row, pictures decoded, references followed.

        Args:
            columns: only these (references are still followed); all where None.
        """
        table = self.encoded(name, shard, row, None if columns is None else [*columns, *REFERENCE])
        raw = table.to_pylist()[0]
        record: dict[str, Any] = {}
        if raw.get("ref_shard") is not None:
            record = self.row(raw["ref_table"], raw["ref_shard"], raw["ref_row"], columns)
        for column, kind in schema_of(table.schema).items():
            if column not in REFERENCE:
                record[column] = decode_value(kind, raw[column])
        return record

    def light_row(self, name: str, shard: str, row: int) -> dict[str, Any]:
        """One row without its pictures, with the reference to where they stand."""
        schema = schema_of(self._footer(name, shard).schema)
        light = [column for column, kind in schema.items() if kind not in PICTURES]
        raw = self.encoded(name, shard, row, light).to_pylist()[0]
        record = {column: decode_value(schema[column], value) for column, value in raw.items()}
        if record.get("ref_shard") is None:
            record |= {"ref_table": name, "ref_shard": shard, "ref_row": row}
        return record


class Table:
    """One table: the lines of its shards, and their rows.

    `schema` has its own columns, `whole` those of its rows with references followed.
    """

    def __init__(self, tables: Tables, name: str, lines: Sequence[Line], schema: Schema, whole: Schema) -> None:
        self.tables, self.name, self.lines, self.schema, self.whole = tables, name, lines, schema, whole

    @cached_property
    def rows(self) -> int:
        """How many rows it has."""
        return sum(line.data.rows for line in self.lines if line.data)

    def light(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Columns without pictures of all rows, with `shard` and `row`, in the order of their ids."""
        names = [
            name
            for name, kind in self.schema.items()
            if kind not in PICTURES and (columns is None or name in columns or name == "id")
        ]
        parts = []
        for line in self.lines:
            if line.data is None:
                continue
            with self.tables.run.open(f"tables/{self.name}/{line.data.name}") as source:
                part = read_parquet(source, names)
            part = part.append_column("shard", pa.array([line.shard] * len(part), pa.string()))
            parts.append(part.append_column("row", pa.array(range(len(part)), pa.int64())))
        if not parts:
            return pa.table({**{name: pa.array([], pa.string()) for name in names}, "shard": [], "row": []})
        return pa.concat_tables(parts).sort_by("id")

    def row(self, shard: str, row: int, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """One whole row."""
        return self.tables.row(self.name, shard, row, columns)

    def records(self, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """All rows, one at a time, shard by shard."""
        for line in self.lines:
            for row in range(line.data.rows if line.data else 0):
                yield self.row(line.shard, row, columns)

    def dropped(self) -> pa.Table:
        """Rejected and failed inputs, as in `manifests.shards.Dropped`."""
        parts = []
        for line in self.lines:
            if line.dropped:
                with self.tables.run.open(f"tables/{self.name}/{line.dropped.name}") as source:
                    parts.append(read_parquet(source))
        return pa.concat_tables(parts) if parts else DROPPED.empty_table()
