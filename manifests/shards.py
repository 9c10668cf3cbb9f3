"""A shard on disk and its commit: data first, then one small commit record by create-if-absent.

`manifests.run_layout` says where the files of a table are. Its manifest lists the commit records of the shards that
make up the table now. Nothing in these files depends on time, host or attempt, so that a shard made again has the same
bytes.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from rasura.manifests.checks.committed_files import File, find_footer, read_footer
from rasura.manifests.checks.rows import check_rejections, check_rows
from rasura.manifests.checks.sealed_json import parse_sealed, seal
from rasura.manifests.errors import StorageError
from rasura.manifests.parquet import encode_parquet, read_parquet
from rasura.manifests.run_layout import commit_path, rejected_path, shard_path
from rasura.manifests.safety.text import make_text
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
    """What became of the inputs of one stage in one shard: in = kept + rejected + failed.

    failed_outputs: errors of outputs of kept inputs, such as a remover's candidate, that could not be made.
    """

    stage: str
    inputs: int = 0
    kept: int = 0
    out: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    failed_outputs: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object; without failed outputs it is that of versions that had none."""
        return {name: value for name, value in asdict(self).items() if value or name != "failed_outputs"}

    def balances(self) -> bool:
        """Return True when every input is accounted for.

        Examples:
            >>> StageCount("effects", inputs=3, kept=1, out=1, rejected={"no effect": 2}).balances()
            True
        """
        return self.inputs == self.kept + sum(self.rejected.values()) + sum(self.failed.values())


class RowNames(NamedTuple):
    """The ids and the origins of a shard's kept rows, in their order."""

    ids: Sequence[str]
    origins: Sequence[str | None]


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
        names: of the kept rows; None where they were not recorded, or not read.
    """

    shard: str
    part: str
    inputs: int
    stages: list[StageCount]
    data: File | None
    rejected: File | None
    names: RowNames | None = field(default=None, compare=False)

    @property
    def rows(self) -> int:
        """Number of kept rows."""
        return self.data.rows if self.data else 0

    def to_json(self, with_names: bool = False) -> bytes:
        """Return the canonical bytes of the record.

        Args:
            with_names: as in `lines/<shard>.json`, with the ids and origins of the rows. The manifest has columns for
                these.
        """
        record: dict[str, Any] = {
            "shard": self.shard,
            "part": self.part,
            "inputs": self.inputs,
            "stages": [count.to_json() for count in self.stages],
            "data": self.data.to_json() if self.data else None,
            "dropped": self.rejected.to_json() if self.rejected else None,
        }
        if with_names and self.names is not None:
            record |= self.names._asdict()
        return (json.dumps(seal(record), sort_keys=True, ensure_ascii=False) + "\n").encode()

    @staticmethod
    def from_json(data: bytes | str) -> "CommitRecord":
        """Parse the inverse of `to_json`.

        Raises:
            ValueError: the text is no commit record, or is not what was written.
        """
        try:
            raw = parse_sealed(data)
            names = RowNames(raw["ids"], raw["origins"]) if "ids" in raw else None
            return CommitRecord(
                raw["shard"],
                raw["part"],
                raw["inputs"],
                [StageCount(**count) for count in raw["stages"]],
                File(**raw["data"]) if raw["data"] else None,
                File(**raw["dropped"]) if raw["dropped"] else None,
                names,
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError("it is no commit record") from error


class DamagedFile(StorageError):
    """A file of a run that is missing, or is not what was committed. The run makes it anew when it is deleted.

    Attributes:
        place: path or URI of the file.
    """

    def __init__(self, text: str, place: str = "") -> None:
        super().__init__(text)
        self.place = place


class MissingFile(DamagedFile):
    """A file of a run that is not there: it was deleted, or the disk that has it is away for the moment."""


@contextlib.contextmanager
def explain_damage(run: Store, name: str) -> Iterator[None]:
    """Raise the errors of reading a file of a run as one sentence with the file and the remedy.

    Raises:
        DamagedFile: the file is missing, or is not what it should be.
        StoreError: it cannot be read now.
    """
    place = f"{run.location}/{name}"
    try:
        yield
    except FileNotFoundError:
        raise MissingFile(f"'{run.uri}/{name}' is missing; run the recipe again, which makes it anew", place) from None
    except (PermissionError, StorageError):
        raise
    except (pa.ArrowException, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk; those of Arrow have no number
            raise StoreError(f"cannot read {place}: {error.strerror or error}") from error
        reason = make_text(error).rstrip(".")[:LONGEST_REASON]
        raise DamagedFile(
            f"'{run.uri}/{name}' is damaged ({reason}); delete it and run the recipe again, which makes it anew", place
        ) from None


LONGEST_REASON = 120


def read_committed(store: Store, file: File, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the rows of a committed file.

    Args:
        store: the folder of its table.
        file: what its commit record says of it.
        columns: only these; all where None.

    Raises:
        DamagedFile: the file is missing, or what was read is not what was committed.
    """
    with explain_damage(store, file.name), store.open(file.name, file.bytes) as source:
        return read_parquet(source, columns, footer=read_footer(source, file))


ROW_GROUP_ROWS = 16
"""Number of rows with pictures in a row group. Reading one of them, as training does, reads its whole group."""

REJECTED_SCHEMA = pa.schema([pa.field(name, pa.string()) for name in RejectedRow.__dataclass_fields__])


def _check_written(store: Store, name: str, expected: int) -> None:
    with store.open(name) as back:
        try:
            rows = pq.read_metadata(back).num_rows
        except (pa.ArrowInvalid, OSError) as error:
            raise StoreError(f"{store.uri}/{name} does not read back after it was written: {error}") from error
    if rows != expected:
        raise StoreError(f"{store.uri}/{name} reads back with {rows} rows, {expected} were written")


def _write_table(store: Store, name: str, table: pa.Table) -> File:
    data = encode_parquet(table, ROW_GROUP_ROWS, page_checksums=True)
    store.write(name, data)
    if store.local is not None:  # an object store has checked what came, and has it whole or not at all
        _check_written(store, name, table.num_rows)
    footer = hashlib.sha256(find_footer(data)).hexdigest()
    return File(name, hashlib.sha256(data).hexdigest(), len(data), table.num_rows, footer)


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
        ValueError: a stage does not account for all of its inputs, or a row is not what every row is.
    """
    check_rows(rows)
    check_rejections(rejected)
    rejected_file = None
    if rejected:
        table = pa.Table.from_pylist([asdict(row) for row in rejected], schema=REJECTED_SCHEMA)
        rejected_file = _write_table(store, rejected_path(shard), table)
    data_file = _write_table(store, shard_path(shard), rows) if rows.num_rows else None
    names = RowNames(rows["id"].to_pylist(), rows["origin"].to_pylist()) if "origin" in rows.column_names else None
    record = CommitRecord(shard, part, inputs, list(stages), data_file, rejected_file, names)
    if fault := find_record_fault(record):
        raise ValueError(f"shard {shard} lost track of its inputs: {fault}")
    if not store.create(commit_path(shard), record.to_json(with_names=True)):
        _check_earlier_commit(store, record)
    return record


def _check_earlier_commit(store: Store, record: CommitRecord) -> None:
    """Check that the commit record that is there already says what this commit does, whose files took their place.

    Raises:
        StoreError: it does not, and is gone now; the shard has to be made again.
    """
    with contextlib.suppress(DamagedFile):
        if read_commit(store, record.shard) == record:
            return
    store.delete(commit_path(record.shard))
    raise StoreError(
        f"{store.uri}: shard {record.shard} was committed with other rows by another worker, or its record is damaged"
    )


def find_record_fault(record: CommitRecord) -> str | None:
    """Find what is wrong with the counts of a shard; None where in = kept + rejected + failed from stage to stage.

    Examples:
        >>> find_record_fault(CommitRecord("s", "p", 3, [StageCount("crop", 3, 2, 2)], None, None))
        "stage 'crop': in 3 is not kept + rejected + failed"
    """
    passed = record.inputs
    for count in record.stages:
        if not count.balances():
            return f"stage '{count.stage}': in {count.inputs} is not kept + rejected + failed"
        if count.inputs != passed:
            return f"stage '{count.stage}': {passed} came out before it, {count.inputs} went in"
        passed = count.out
    if passed != record.rows:
        return f"{passed} rows came out, {record.rows} are on disk"
    lost = sum(sum(count.rejected.values()) + sum(count.failed.values()) for count in record.stages)
    if lost != (listed := record.rejected.rows if record.rejected else 0):
        return f"{lost} were rejected or failed, {listed} have a row"
    return None


def read_commit(store: Store, shard: str) -> CommitRecord:
    """Read the commit record of a shard.

    Raises:
        DamagedFile: there is none, or it is damaged.
    """
    with explain_damage(store, commit_path(shard)):
        return CommitRecord.from_json(store.read(commit_path(shard), is_small=True))
