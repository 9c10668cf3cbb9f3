"""A shard on disk and its commit: data first, then one small manifest line by create-if-absent.

A table is `tables/<flow>/`: `shards/<shard>.parquet` (kept rows), `dropped/<shard>.parquet` (rejected and failed
rows), `lines/<shard>.json` (the commit), and `manifest.parquet`, the lines of the shards that make up the table now.
Nothing in them depends on time, host or attempt, so that a shard made again has the same bytes.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from rasura.manifests.parquet import parquet_bytes, read_parquet
from rasura.manifests.schemas import Kind, Schema
from rasura.manifests.storage import Store, StoreError


@dataclass(frozen=True)
class Dropped:
    """An input that was rejected or failed, and why."""

    id: str
    origin: str | None
    stage: str
    outcome: str  # "rejected" or "failed"
    reason: str  # the rejection's phrase, or the error's class
    detail: str
    input_id: str  # the flow's input that it descends from


@dataclass
class StageCount:
    """The account of one stage in one shard: in = kept + rejected + failed."""

    stage: str
    inputs: int = 0
    kept: int = 0
    out: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)

    def balanced(self) -> bool:
        """True when every input is accounted for."""
        return self.inputs == self.kept + sum(self.rejected.values()) + sum(self.failed.values())


@dataclass(frozen=True)
class File:
    """A committed file: its name below the table, hash, size and rows."""

    name: str
    sha256: str
    bytes: int
    rows: int


@dataclass(frozen=True)
class Line:
    """The commit of a shard."""

    shard: str
    part: str  # hash of the part of the recipe that made it
    inputs: int
    stages: list[StageCount]
    data: File | None
    dropped: File | None

    def to_json(self) -> bytes:
        """Canonical bytes."""
        return (json.dumps(asdict(self), sort_keys=True, ensure_ascii=False) + "\n").encode()

    @staticmethod
    def from_json(data: bytes | str) -> "Line":
        """The inverse of `to_json`.

        Raises:
            ValueError: not a manifest line.
        """
        try:
            raw = json.loads(data)
            return Line(
                raw["shard"],
                raw["part"],
                raw["inputs"],
                [StageCount(**count) for count in raw["stages"]],
                File(**raw["data"]) if raw["data"] else None,
                File(**raw["dropped"]) if raw["dropped"] else None,
            )
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"not a manifest line: {error!r}") from error


ROWS_AT_ONCE = 16
"""Rows with pictures in a row group: who reads one of them, as training does, reads all of its group."""

DROPPED = pa.schema([pa.field(name, pa.string()) for name in Dropped.__dataclass_fields__])


def _put(store: Store, name: str, table: pa.Table) -> File:
    data = parquet_bytes(table, ROWS_AT_ONCE)
    store.write(name, data)
    with store.open(name) as back:
        try:
            rows = pq.read_metadata(back).num_rows
        except (pa.ArrowInvalid, OSError) as error:
            raise StoreError(f"{store.uri}/{name} does not read back after it was written: {error}") from error
    if rows != table.num_rows:
        raise StoreError(f"{store.uri}/{name} reads back with {rows} rows, {table.num_rows} were written")
    return File(name, hashlib.sha256(data).hexdigest(), len(data), rows)


def commit(
    store: Store,
    shard: str,
    part: str,
    inputs: int,
    rows: pa.Table,
    dropped: Sequence[Dropped],
    stages: Sequence[StageCount],
) -> Line:
    """Writes a shard's files, then its line. Killed between the two, the shard is simply made again.

    Raises:
        StoreError: the target cannot be written.
        ValueError: a stage does not account for all of its inputs.
    """
    for count in stages:
        if not count.balanced():
            raise ValueError(f"stage '{count.stage}' lost track of its inputs in shard {shard}: {count}")
    dropped_file = None
    if dropped:
        table = pa.Table.from_pylist([asdict(row) for row in dropped], schema=DROPPED)
        dropped_file = _put(store, f"dropped/{shard}.parquet", table)
    data_file = _put(store, f"shards/{shard}.parquet", rows) if rows.num_rows else None
    line = Line(shard, part, inputs, list(stages), data_file, dropped_file)
    store.create(f"lines/{shard}.json", line.to_json())
    return line


def write_manifest(store: Store, lines: Sequence[Line], schema: Schema, whole: Schema | None = None) -> None:
    """Compacts the lines of the shards that make up the table, in order, into `manifest.parquet`.

    Args:
        schema: the table's columns.
        whole: those of its rows with references followed; the same where None.
    """
    columns = {b"columns": json.dumps(dict(schema)).encode(), b"whole": json.dumps(dict(whole or schema)).encode()}
    table = pa.table(
        {
            "shard": pa.array([line.shard for line in lines], pa.string()),
            "rows": pa.array([line.data.rows if line.data else 0 for line in lines], pa.int64()),
            "line": pa.array([line.to_json().decode() for line in lines], pa.string()),
        }
    ).replace_schema_metadata(columns)
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    store.write("manifest.parquet", out.getvalue())


def read_manifest(store: Store) -> tuple[list[Line], dict[str, Kind], dict[str, Kind]]:
    """Lines, columns, and columns with references followed, of a table; all empty where there is no manifest yet."""
    if not store.exists("manifest.parquet"):
        return [], {}, {}
    with store.open("manifest.parquet") as source:
        table = read_parquet(source)
    columns, whole = (
        {name: Kind(kind) for name, kind in json.loads(table.schema.metadata[key]).items()}
        for key in (b"columns", b"whole")
    )
    return [Line.from_json(line) for line in table["line"].to_pylist()], columns, whole
