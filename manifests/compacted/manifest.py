"""The manifest of a table: the commit records of its shards in their order, with the ids and origins of all rows."""

import contextlib
import hashlib
import io
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rasura.manifests.checks.rows import DoubledIds, IdIndex
from rasura.manifests.parquet import read_parquet
from rasura.manifests.run_layout import MANIFEST
from rasura.manifests.schemas import Kind, Schema
from rasura.manifests.shards import CommitRecord, DamagedFile, RowNames, explain_damage
from rasura.manifests.storage import Store


class CommitRecords(Sequence[CommitRecord]):
    """Commit records as they are on disk; each is parsed when it is asked for, so that many take little memory.

    Args:
        lines: the records as JSON, a column of strings.
        shards: their ids; read from the records where None.
        rows: of all their shards; counted where None.
    """

    def __init__(
        self, lines: pa.ChunkedArray | pa.Array, shards: pa.ChunkedArray | None = None, rows: int | None = None
    ) -> None:
        self.lines, self._shards, self._rows = lines, shards, rows

    @property
    def shards(self) -> list[str]:
        """Ids of the shards."""
        return [record.shard for record in self] if self._shards is None else self._shards.to_pylist()

    @property
    def rows(self) -> int:
        """The number of kept rows."""
        return sum(record.rows for record in self) if self._rows is None else self._rows

    def are_of_part(self, part: str) -> bool:
        """Return whether the part of the recipe with this hash made all of them."""
        return bool(pc.all(pc.match_substring(self.lines, f'"part": {json.dumps(part)}'), min_count=0).as_py())

    def __len__(self) -> int:
        return len(self.lines)

    @overload
    def __getitem__(self, index: int) -> CommitRecord: ...
    @overload
    def __getitem__(self, index: slice) -> "CommitRecords": ...
    def __getitem__(self, index: int | slice) -> "CommitRecord | CommitRecords":
        if isinstance(index, slice):
            return CommitRecords(self.lines[index])
        return CommitRecord.from_json(self.lines[index].as_py())

    def __iter__(self) -> Iterator[CommitRecord]:
        for chunk in self.lines.iterchunks() if isinstance(self.lines, pa.ChunkedArray) else [self.lines]:
            for start in range(0, len(chunk), CHUNK_RECORDS):
                yield from map(CommitRecord.from_json, chunk.slice(start, CHUNK_RECORDS).to_pylist())

    def compute_hash(self) -> str:
        """Compute the identity of what the records say, their rows included."""
        digest = hashlib.sha256()
        for chunk in self.lines.iterchunks() if isinstance(self.lines, pa.ChunkedArray) else [self.lines]:
            for start in range(0, len(chunk), CHUNK_RECORDS):
                digest.update("".join(chunk.slice(start, CHUNK_RECORDS).to_pylist()).encode())
        return digest.hexdigest()


CHUNK_RECORDS = 1024
"""Number of commit records in a row group of the manifest."""
_MANIFEST_SCHEMA = pa.schema(
    {
        "shard": pa.string(),
        "rows": pa.int64(),
        "line": pa.string(),
        "ids": pa.list_(pa.string()),
        "origins": pa.list_(pa.string()),
    }
)


def make_manifest_rows(store: Store, commits: Iterable[CommitRecord]) -> pa.Table:
    """Make the manifest's rows of some commit records; names that a record lacks are read from its shard.

    Args:
        store: the folder of the table.
        commits: the records.
    """
    records = [
        record if record.names is not None else replace(record, names=_read_names(store, record)) for record in commits
    ]
    columns = {
        "shard": [record.shard for record in records],
        "rows": [record.rows for record in records],
        "line": [record.to_json().decode() for record in records],
        "ids": [record.names.ids if record.names else None for record in records],
        "origins": [record.names.origins if record.names else None for record in records],
    }
    return pa.table(columns, schema=_MANIFEST_SCHEMA)


def _read_names(store: Store, record: CommitRecord) -> RowNames | None:
    if record.data is None:
        return RowNames([], [])
    with explain_damage(store, record.data.name), store.open(record.data.name) as source:
        names = pq.read_schema(source).names
        if "origin" not in names:
            return None
        source.seek(0)
        table = read_parquet(source, ["id", "origin"])
    return RowNames(table["id"].to_pylist(), table["origin"].to_pylist())


def write_manifest(
    store: Store, commits: Iterable[CommitRecord], schema: Schema, full_schema: Schema | None = None
) -> None:
    """Compact the commit records of the shards that make up a table, in their order, into its manifest.

    Args:
        store: the folder of the table.
        commits: the records; a few are in memory at a time.
        schema: the table's columns.
        full_schema: those of its rows with references followed; the same where None.

    Raises:
        DoubledIds: rows of two shards have one id.
    """
    columns = {
        b"columns": json.dumps(dict(schema)).encode(),
        b"whole": json.dumps(dict(full_schema or schema)).encode(),
    }
    out, count, ids = io.BytesIO(), 0, IdIndex()
    schema_on_disk = _MANIFEST_SCHEMA.with_metadata(columns)
    with pq.ParquetWriter(out, schema_on_disk, compression="zstd", write_page_checksum=True) as writer:
        iterator = iter(commits)
        while records := list(islice(iterator, CHUNK_RECORDS)):
            count += len(records)
            rows = make_manifest_rows(store, records)
            for shard, names in zip(rows["shard"].to_pylist(), rows["ids"], strict=True):
                ids.add(shard, names.as_py() or ())
            writer.write_table(rows.replace_schema_metadata(columns))
        if shards := ids.find_doubled():
            raise DoubledIds(
                f"{store.uri}: rows of shards {' and '.join(shards)} have one id; the stage that makes them has to "
                "derive their ids from the record's (rasura.manifests.ids.make_child_id)"
            )
        writer.add_key_value_metadata({CHECKSUM: _compute_checksum(columns, count)})
    store.write(MANIFEST, out.getbuffer())


CHECKSUM = b"checksum"
"""Key of the checksum of what the pages' own checksums do not cover. Earlier versions wrote none."""


def _compute_checksum(metadata: Mapping[bytes, bytes], records: int) -> bytes:
    text = b"\n".join([metadata[b"columns"], metadata[b"whole"], str(records).encode()])
    return hashlib.sha256(text).hexdigest().encode()


def _read_manifest_table(store: Store, columns: Sequence[str]) -> pa.Table:
    """Read columns of a manifest, which has the table's columns in its metadata.

    Raises:
        DamagedFile: there is none, it cannot be read, or it is not what was written.
    """
    with explain_damage(store, MANIFEST), store.open(MANIFEST) as source:
        footer = pq.read_metadata(source)
        source.seek(0)
        table = read_parquet(source, columns, footer=footer)
        checksum = (footer.metadata or {}).get(CHECKSUM)
        if checksum is not None and checksum != _compute_checksum(table.schema.metadata, len(table)):
            raise ValueError("its checksum is not that of its contents")
        if checksum is None and "line" in columns:  # its pages have none either
            for line in table["line"].to_pylist():
                CommitRecord.from_json(line)
        return table


def read_manifest(store: Store) -> tuple[CommitRecords, dict[str, Kind], dict[str, Kind]]:
    """Read the manifest of a table.

    Returns:
        Commit records (without the names of their rows), columns, and columns with references followed; all empty where
        there is no manifest yet.

    Raises:
        DamagedFile: the manifest cannot be read.
    """
    if not store.exists(MANIFEST):
        return NO_RECORDS, {}, {}
    table = _read_manifest_table(store, ["shard", "rows", "line"])
    with explain_damage(store, MANIFEST):
        schema, full_schema = (
            {name: Kind(kind) for name, kind in json.loads((table.schema.metadata or {})[key]).items()}
            for key in (b"columns", b"whole")
        )
        records = CommitRecords(table["line"], table["shard"], pc.sum(table["rows"]).as_py() or 0)
        return records, schema, full_schema


def read_manifest_lines(store: Store) -> pa.Table:
    """Read the shards of a manifest and their commit records, unparsed; no rows where it is missing or damaged."""
    try:
        return _read_manifest_table(store, ["shard", "line"])
    except DamagedFile:
        return _MANIFEST_SCHEMA.empty_table().select(["shard", "line"])


def find_commit(lines: pa.Table, shard: str) -> CommitRecord | None:
    """Return the commit record of a shard; None where there is none that can be read.

    Args:
        lines: as `read_manifest_lines` returns them.
        shard: its id.
    """
    index = pc.index(lines["shard"], shard).as_py()
    if index < 0:
        return None
    try:
        return CommitRecord.from_json(lines["line"][index].as_py())
    except ValueError:
        return None


NO_RECORDS = CommitRecords(pa.nulls(0, pa.string()))


def read_lines(store: Store, name: str) -> CommitRecords:
    """Read the commit records of a manifest, or of a part of one.

    Raises:
        DamagedFile: the file is missing or cannot be read.
    """
    with explain_damage(store, name), store.open(name) as source:
        return CommitRecords(read_parquet(source, ["line"])["line"])


def read_names(store: Store) -> pa.Table | None:
    """Read the columns `id`, `origin`, `shard` and `row` of all rows of a table from its manifest.

    Returns:
        None where the manifest, of an earlier version, does not have them.

    Raises:
        DamagedFile: the manifest cannot be read.
    """
    with explain_damage(store, MANIFEST):
        with store.open(MANIFEST) as source:
            if "ids" not in pq.read_schema(source).names:
                return None
        table = _read_manifest_table(store, ["shard", "rows", "ids", "origins"]).combine_chunks()
    ids, origins = table["ids"].combine_chunks(), table["origins"].combine_chunks()
    counts = pc.fill_null(pc.list_value_length(ids), -1)
    if not pc.all(pc.equal(counts, table["rows"].combine_chunks()), min_count=0).as_py():
        return None
    shards = pc.list_parent_indices(ids)
    starts = np.cumsum(counts.to_numpy()) - counts.to_numpy()
    rows = np.arange(len(shards)) - starts[shards.to_numpy()]
    return pa.table(
        {
            "id": ids.flatten(),
            "origin": origins.flatten(),
            "shard": table["shard"].combine_chunks().take(shards),
            "row": pa.array(rows, pa.int64()),
        }
    )


class RowNameReader:
    """Reader of the names of rows, shard by shard, a few row groups in memory at a time.

    Args:
        store: the folder of the table.
        files: its manifest, or parts of one; those that are not there, cannot be read or have no names are left out.
        known: names that need not be read.
    """

    def __init__(self, store: Store, files: Sequence[str], known: Mapping[str, RowNames] | None = None) -> None:
        self._store, self._known = store, known or {}
        self._places: dict[str, tuple[str, int]] = {}
        self._groups: OrderedDict[tuple[str, int], dict[str, RowNames]] = OrderedDict()
        for name in files:
            with contextlib.suppress(DamagedFile), self._open(name) as file:
                if "ids" not in file.schema_arrow.names:
                    continue
                for group in range(file.num_row_groups):
                    shards = file.read_row_group(group, columns=["shard"], use_threads=False)["shard"].to_pylist()
                    self._places.update(dict.fromkeys(shards, (name, group)))

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[pq.ParquetFile]:
        with (
            explain_damage(self._store, name),
            self._store.open(name) as source,
            pq.ParquetFile(source, pre_buffer=False) as file,
        ):
            yield file

    def find(self, shard: str) -> RowNames | None:
        """Return the names of a shard's rows; None where they are not known.

        Raises:
            DamagedFile: the file that has them cannot be read.
        """
        if shard in self._known:
            return self._known[shard]
        if (place := self._places.get(shard)) is None:
            return None
        if place not in self._groups:
            name, group = place
            with self._open(name) as file:
                table = file.read_row_group(group, columns=["shard", "ids", "origins"], use_threads=False)
            self._groups[place] = {
                row["shard"]: RowNames(row["ids"], row["origins"])
                for row in table.to_pylist()
                if row["ids"] is not None and row["origins"] is not None
            }
            if len(self._groups) > MOST_GROUPS:
                self._groups.popitem(last=False)
        return self._groups[place].get(shard)


MOST_GROUPS = 4
