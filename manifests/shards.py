"""A shard on disk and its commit: data first, then one small commit record by create-if-absent.

`manifests.run_layout` says where the files of a table are. Its manifest lists the commit records of the shards that
make up the table now. Nothing in these files depends on time, host or attempt, so that a shard made again has the same
bytes.
"""

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from rasura.manifests.errors import StorageError
from rasura.manifests.parquet import encode_parquet, read_parquet
from rasura.manifests.run_layout import COMMITS, MANIFEST, REJECTED, SHARDS, commit_path, rejected_path, shard_path
from rasura.manifests.schemas import Kind, Schema
from rasura.manifests.storage import Store, StoreError


@dataclass(frozen=True)
class RejectedRow:
    """An input that a stage rejected, or that failed, and why. The fields are columns on disk."""

    id: str
    origin: str | None
    stage: str
    outcome: str  # "rejected" or "failed"
    reason: str  # the rejection's phrase, or the error's class
    detail: str
    input_id: str  # the flow's input that it descends from


@dataclass
class StageCount:
    """What became of the inputs of one stage in one shard: in = kept + rejected + failed."""

    stage: str
    inputs: int = 0
    kept: int = 0
    out: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)

    def balances(self) -> bool:
        """Return True when every input is accounted for.

        Examples:
            >>> StageCount("effects", inputs=3, kept=1, out=1, rejected={"no effect": 2}).balances()
            True
        """
        return self.inputs == self.kept + sum(self.rejected.values()) + sum(self.failed.values())


@dataclass(frozen=True)
class File:
    """A committed file: its name from the folder of its table, its hash, size and rows."""

    name: str
    sha256: str
    bytes: int
    rows: int


@dataclass(frozen=True)
class CommitRecord:
    """What the commit of a shard says.

    Attributes:
        shard: its id.
        part: hash of the part of the recipe that made it.
        inputs: the number of its inputs.
        stages: what became of them, stage by stage.
        data: the kept rows; None where there are none.
        rejected: the rejected and failed inputs; None where there are none.
    """

    shard: str
    part: str
    inputs: int
    stages: list[StageCount]
    data: File | None
    rejected: File | None

    @property
    def rows(self) -> int:
        """Number of kept rows."""
        return self.data.rows if self.data else 0

    def to_json(self) -> bytes:
        """Return the canonical bytes of `lines/<shard>.json`."""
        record = asdict(self)
        record["dropped"] = record.pop("rejected")
        return (json.dumps(record, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @staticmethod
    def from_json(data: bytes | str) -> "CommitRecord":
        """Parse the inverse of `to_json`.

        Raises:
            ValueError: the text is no commit record.
        """
        try:
            raw = json.loads(data)
            return CommitRecord(
                raw["shard"],
                raw["part"],
                raw["inputs"],
                [StageCount(**count) for count in raw["stages"]],
                File(**raw["data"]) if raw["data"] else None,
                File(**raw["dropped"]) if raw["dropped"] else None,
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError("it is no commit record") from error


class DamagedFile(StorageError):
    """A file of a run that is missing or cannot be read. The run makes it anew when it is deleted."""


@contextlib.contextmanager
def explain_damage(run: Store, name: str) -> Iterator[None]:
    """Raise the errors of reading a file of a run as one sentence with the file and the remedy.

    Raises:
        DamagedFile: the file is missing, or is not what it should be.
    """
    try:
        yield
    except FileNotFoundError:
        raise DamagedFile(f"'{run.uri}/{name}' is missing; run the recipe again, which makes it anew") from None
    except (PermissionError, StorageError):
        raise
    except (pa.ArrowException, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")[:LONGEST_REASON]
        raise DamagedFile(
            f"'{run.uri}/{name}' is damaged ({reason}); delete it and run the recipe again, which makes it anew"
        ) from None


LONGEST_REASON = 120


ROW_GROUP_ROWS = 16
"""Number of rows with pictures in a row group. Reading one of them, as training does, reads its whole group."""

REJECTED_SCHEMA = pa.schema([pa.field(name, pa.string()) for name in RejectedRow.__dataclass_fields__])


def _write_table(store: Store, name: str, table: pa.Table) -> File:
    data = encode_parquet(table, ROW_GROUP_ROWS)
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
    rejected: Sequence[RejectedRow],
    stages: Sequence[StageCount],
) -> CommitRecord:
    """Write a shard's files, then its commit record. A process killed between the two leaves a shard to be made again.

    Args:
        store: the folder of the table.
        shard: its id.
        part: hash of the part of the recipe that makes it.
        inputs: the number of its inputs.
        rows: the kept rows, encoded.
        rejected: the inputs that were rejected or failed.
        stages: what became of the inputs, stage by stage.

    Raises:
        StoreError: the target cannot be written.
        ValueError: a stage does not account for all of its inputs.
    """
    for count in stages:
        if not count.balances():
            raise ValueError(f"stage '{count.stage}' lost track of its inputs in shard {shard}: {count}")
    rejected_file = None
    if rejected:
        table = pa.Table.from_pylist([asdict(row) for row in rejected], schema=REJECTED_SCHEMA)
        rejected_file = _write_table(store, rejected_path(shard), table)
    data_file = _write_table(store, shard_path(shard), rows) if rows.num_rows else None
    record = CommitRecord(shard, part, inputs, list(stages), data_file, rejected_file)
    store.create(commit_path(shard), record.to_json())
    return record


def write_manifest(
    store: Store, commits: Sequence[CommitRecord], schema: Schema, full_schema: Schema | None = None
) -> None:
    """Compact the commit records of the shards that make up a table, in their order, into its manifest.

    Args:
        store: the folder of the table.
        commits: the records.
        schema: the table's columns.
        full_schema: those of its rows with references followed; the same where None.
    """
    columns = {
        b"columns": json.dumps(dict(schema)).encode(),
        b"whole": json.dumps(dict(full_schema or schema)).encode(),
    }
    table = pa.table(
        {
            "shard": pa.array([record.shard for record in commits], pa.string()),
            "rows": pa.array([record.rows for record in commits], pa.int64()),
            "line": pa.array([record.to_json().decode() for record in commits], pa.string()),
        }
    ).replace_schema_metadata(columns)
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    store.write(MANIFEST, out.getvalue())


def read_manifest(store: Store) -> tuple[list[CommitRecord], dict[str, Kind], dict[str, Kind]]:
    """Read the manifest of a table.

    Returns:
        Commit records, columns, and columns with references followed; all empty where there is no manifest yet.

    Raises:
        DamagedFile: the manifest cannot be read.
    """
    if not store.exists(MANIFEST):
        return [], {}, {}
    with explain_damage(store, MANIFEST):
        with store.open(MANIFEST) as source:
            table = read_parquet(source)
        schema, full_schema = (
            {name: Kind(kind) for name, kind in json.loads((table.schema.metadata or {})[key]).items()}
            for key in (b"columns", b"whole")
        )
        return [CommitRecord.from_json(record) for record in table["line"].to_pylist()], schema, full_schema


def read_commit(store: Store, shard: str) -> CommitRecord:
    """Read the commit record of a shard.

    Raises:
        DamagedFile: there is none, or it is damaged.
    """
    with explain_damage(store, commit_path(shard)):
        return CommitRecord.from_json(store.read(commit_path(shard)))


def list_whole_commits(
    store: Store, shards: Sequence[str], compacted: Sequence[CommitRecord]
) -> tuple[dict[str, CommitRecord], list[str]]:
    """List the commit records of those shards whose record can be read and whose files are there in their sizes.

    Args:
        store: the folder of the table.
        shards: that are wanted.
        compacted: the records in the manifest, which are not read again.

    Returns:
        The records by their shards, and the shards that have a record but have to be made again.
    """
    committed = {name.removesuffix(".json") for name in store.files(COMMITS)}
    sizes = store.sizes(SHARDS) | store.sizes(REJECTED)
    records = {record.shard: record for record in compacted}
    whole: dict[str, CommitRecord] = {}
    damaged: list[str] = []
    for shard in shards:
        if shard not in committed:
            continue
        with contextlib.suppress(DamagedFile):
            record = records[shard] if shard in records else read_commit(store, shard)
            if all(sizes.get(file.name) == file.bytes for file in (record.data, record.rejected) if file):
                whole[shard] = record
        if shard not in whole:
            damaged.append(shard)
    return whole, damaged
