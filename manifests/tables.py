"""Reading the tables of a run: columns without pictures of all rows at once, complete rows one by one.

A selection (the table of a flow that chooses without touching pictures) has no pictures of its own: its rows refer to
rows of another table (`ref_table`, `ref_shard`, `ref_row`), and reading them follows that reference.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from rasura.manifests.checks.committed_files import File, read_footer
from rasura.manifests.compacted.manifest import (
    CommitRecords,
    find_commit,
    read_manifest,
    read_manifest_lines,
    read_names,
)
from rasura.manifests.errors import StorageError
from rasura.manifests.parquet import read_parquet
from rasura.manifests.run_layout import TABLES, manifest_path, shard_path, table_path
from rasura.manifests.schemas import PICTURES, Kind, Schema, decode_value, read_schema
from rasura.manifests.shards import (
    REJECTED_SCHEMA,
    CommitRecord,
    DamagedFile,
    explain_damage,
    read_commit,
    read_committed,
)
from rasura.manifests.spelling import suggest
from rasura.manifests.storage import Store

REFERENCE: Schema = {"ref_table": Kind.STRING, "ref_shard": Kind.STRING, "ref_row": Kind.INT}
"""Columns of a row that refers to another one, which has its pictures."""
RUN_REFERENCE: Schema = {**REFERENCE, "ref_run": Kind.STRING}
"""The same, where the other row may be in another run: its folder or URI."""
CACHED_BYTES = 64 * 2**20
"""Size of the row groups, encoded, that a reader keeps beside the one it read last."""
CACHED_FOOTERS = 64
REMOTE_READERS = 16


class NoTable(StorageError):
    """A run has no such table, or not yet."""


def find_pictures(row: Mapping[str, Any], place: tuple[str, str, int]) -> tuple[str, str, int]:
    """Return the place in its run by which the pictures of a row are known: table, shard and row.

    Args:
        row: its columns of `RUN_REFERENCE`, as far as it has them.
        place: of the row itself, which counts where it refers to no other row, or to one of another run.
    """
    if row.get("ref_shard") is None or row.get("ref_run") is not None:
        return place
    return row["ref_table"], row["ref_shard"], row["ref_row"]


class ShardFooter(NamedTuple):
    """The footer of a shard's file, its columns, the index of the first row of each row group, and the file's size."""

    metadata: pq.FileMetaData
    schema: pa.Schema
    starts: list[int]
    bytes: int


class Tables:
    """The tables of one run. Single rows are read by row groups, of which the last few are kept, encoded."""

    def __init__(self, run: Store) -> None:
        self.run = run
        self._footers: OrderedDict[tuple[str, str], ShardFooter] = OrderedDict()
        self._groups: OrderedDict[tuple[Any, ...], pa.Table] = OrderedDict()
        self._bytes = 0
        self._runs: dict[str, Tables] = {}
        self._manifests: dict[str, pa.Table] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.run,)  # without what was read

    def open_run(self, run: str | None) -> "Tables":
        """Return the tables of the run that a row refers to: `ref_run`, or this one where it is None."""
        if run is None:
            return self
        if run not in self._runs:
            self._runs[run] = Tables(Store(run))
        return self._runs[run]

    def names(self) -> list[str]:
        """List the names of the tables that are complete."""
        return [name for name in self.run.folders(TABLES) if self.run.exists(manifest_path(name))]

    def table(self, name: str) -> "Table":
        """Open a complete table.

        Raises:
            NoTable: the run has none by that name, or it is still being made.
            DamagedFile: its manifest cannot be read.
        """
        commits, schema, full_schema = read_manifest(self.run.sub(table_path(name)))
        if not schema:
            hint = suggest(name, self.names())
            raise NoTable(f"{self.run.uri} has no complete table '{name}'; {hint} (to complete one, run its recipe)")
        return Table(self, name, commits, schema, full_schema)

    def _find_file(self, name: str, shard: str) -> File:
        """Return what a shard's commit record says of its rows: the record in the manifest, or else the shard's own."""
        table = self.run.sub(table_path(name))
        if name not in self._manifests:
            self._manifests[name] = read_manifest_lines(table)
        record = find_commit(self._manifests[name], shard) or read_commit(table, shard)
        if record.data is None:
            raise IndexError(f"shard {shard} of table '{name}' in {self.run.uri} has no rows")
        return record.data

    def _forget(self, name: str, shard: str) -> None:
        """Forget what was read of a shard: it may have been made again since."""
        self._footers.pop((name, shard), None)
        self._manifests.pop(name, None)
        for key in [key for key in self._groups if key[:2] == (name, shard)]:
            self._bytes -= self._groups.pop(key).nbytes

    def _footer(self, name: str, shard: str) -> ShardFooter:
        if (name, shard) not in self._footers:
            place = f"{table_path(name)}/{shard_path(shard)}"
            file = self._find_file(name, shard)
            with explain_damage(self.run, place), self.run.open(place, file.bytes) as source:
                metadata = read_footer(source, file)
            sizes = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
            starts = list(accumulate(sizes, initial=0))
            self._footers[name, shard] = ShardFooter(metadata, metadata.schema.to_arrow_schema(), starts, file.bytes)
            while len(self._footers) > CACHED_FOOTERS:
                self._footers.popitem(last=False)
        self._footers.move_to_end((name, shard))
        return self._footers[name, shard]

    def read_raw(self, name: str, shard: str, row: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one row as it is on disk, as a table of one row.

        Args:
            name: of the table.
            shard: that has the row.
            row: its index in the shard.
            columns: only these, as far as they exist; all where None.

        Raises:
            IndexError: the shard has no such row.
            DamagedFile: what was read is not what was committed, also at a second look.
        """
        try:
            return self._read_raw(name, shard, row, columns)
        except DamagedFile:
            self._forget(name, shard)
            return self._read_raw(name, shard, row, columns)

    def _read_raw(self, name: str, shard: str, row: int, columns: Sequence[str] | None) -> pa.Table:
        footer = self._footer(name, shard)
        if not 0 <= row < footer.starts[-1]:
            raise IndexError(f"shard {shard} of table '{name}' in {self.run.uri} has no row {row}: {footer.starts[-1]}")
        group = bisect_right(footer.starts, row) - 1
        names = [column for column in footer.schema.names if columns is None or column in columns]
        key = (name, shard, group, *names)
        if key not in self._groups:
            place = f"{table_path(name)}/{shard_path(shard)}"
            with explain_damage(self.run, place), self.run.open(place, footer.bytes) as source:
                self._groups[key] = read_parquet(source, names, group, footer.metadata)
            self._bytes += self._groups[key].nbytes
            while self._bytes > CACHED_BYTES and len(self._groups) > 1:
                self._bytes -= self._groups.popitem(last=False)[1].nbytes
        self._groups.move_to_end(key)
        return self._groups[key].slice(row - footer.starts[group], 1)

    def locate(self, name: str, shard: str, row: int) -> dict[str, Any]:
        """Return the place in this run from which the pictures of a row are read, as the columns of a reference."""
        raw = self.read_raw(name, shard, row, tuple(RUN_REFERENCE)).to_pylist()  # empty without these columns
        place = find_pictures(raw[0] if raw else {}, (name, shard, row))
        return dict(zip(REFERENCE, place, strict=True))

    def row(self, name: str, shard: str, row: int, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """Read one complete row, pictures decoded, references followed.

        Args:
            name: of the table.
            shard: that has the row.
            row: its index in the shard.
            columns: only these (references are still followed); all where None.

        Raises:
            IndexError: the shard has no such row.
        """
        table = self.read_raw(name, shard, row, None if columns is None else [*columns, *RUN_REFERENCE])
        raw = table.to_pylist()[0]
        record: dict[str, Any] = {}
        if raw.get("ref_shard") is not None:
            tables = self.open_run(raw.get("ref_run"))
            record = tables.row(raw["ref_table"], raw["ref_shard"], raw["ref_row"], columns)
        for column, kind in read_schema(table.schema).items():
            if column not in RUN_REFERENCE:
                record[column] = decode_value(kind, raw[column])
        return record

    def read_light_row(self, name: str, shard: str, row: int) -> dict[str, Any]:
        """Read one row without its pictures, with the reference to where they are stored in this run.

        A row whose pictures are in another run is referred to itself.
        """
        schema = read_schema(self._footer(name, shard).schema)
        light = [column for column, kind in schema.items() if kind not in PICTURES]
        raw = self.read_raw(name, shard, row, light).to_pylist()[0]
        record = {column: decode_value(schema[column], value) for column, value in raw.items()}
        if record.get("ref_shard") is None or record.pop("ref_run", None) is not None:
            record |= {"ref_table": name, "ref_shard": shard, "ref_row": row}
        return record


class Table:
    """One table: the commit records of its shards, and their rows.

    Attributes:
        tables: of the run.
        name: of its flow.
        commits: records of its shards, in order.
        schema: its columns.
        full_schema: the columns of its rows with references followed.
    """

    def __init__(self, tables: Tables, name: str, commits: CommitRecords, schema: Schema, full_schema: Schema) -> None:
        self.tables, self.name, self.commits, self.schema, self.full_schema = tables, name, commits, schema, full_schema

    @property
    def identity(self) -> str:
        """Identity of what its rows are, by their commit records."""
        return self.commits.compute_hash()

    @cached_property
    def rows(self) -> int:
        """Number of rows."""
        return self.commits.rows

    def read_names(self) -> pa.Table:
        """Read `id` and `origin` of all rows, with `shard` and `row`, in the order of their ids; no shard is opened."""
        names = read_names(self.tables.run.sub(table_path(self.name)))
        return self.read_light(["id", "origin"]) if names is None else names.sort_by("id")

    def read_light(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the columns without pictures of all rows, with `shard` and `row`, in the order of their ids.

        Args:
            columns: only these and `id`; all where None.
        """
        names = [
            name
            for name, kind in self.schema.items()
            if kind not in PICTURES and (columns is None or name in columns or name == "id")
        ]
        store = self.tables.run.sub(table_path(self.name))

        def read(record: CommitRecord) -> pa.Table:
            assert record.data is not None
            part = read_committed(store, record.data, names)
            part = part.append_column("shard", pa.array([record.shard] * len(part), pa.string()))
            return part.append_column("row", pa.array(range(len(part)), pa.int64()))

        # an object store answers late, and many at once
        with ThreadPoolExecutor(1 if store.local is not None else REMOTE_READERS) as pool:
            parts = list(pool.map(read, [record for record in self.commits if record.data is not None]))
        if not parts:
            return pa.table({**{name: pa.array([], pa.string()) for name in names}, "shard": [], "row": []})
        return pa.concat_tables(parts).sort_by("id")

    def row(self, shard: str, row: int, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """Read one complete row, as `Tables.row` does."""
        return self.tables.row(self.name, shard, row, columns)

    def iterate_records(self, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield all rows, one at a time, shard by shard."""
        for record in self.commits:
            for row in range(record.rows):
                yield self.row(record.shard, row, columns)

    def read_rejections(self) -> pa.Table:
        """Read the rejected and failed inputs, with the columns of `manifests.shards.RejectedRow`."""
        store = self.tables.run.sub(table_path(self.name))
        parts = [read_committed(store, record.rejected) for record in self.commits if record.rejected]
        return pa.concat_tables(parts) if parts else REJECTED_SCHEMA.empty_table()
