"""The commit records of a table while it is being made: small in memory, and compacted on disk as the run goes."""

import contextlib
import hashlib
import io
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow.parquet as pq

from rasura.manifests.compacted.manifest import (
    CHUNK_RECORDS,
    NO_RECORDS,
    CommitRecords,
    RowNameReader,
    make_manifest_rows,
    read_lines,
)
from rasura.manifests.run_layout import COMMITS, COMPACTED, MANIFEST, REJECTED, SHARDS
from rasura.manifests.shards import CommitRecord, DamagedFile, find_record_fault, read_commit
from rasura.manifests.storage import Store, StoreError


class CommitLog(Mapping[str, CommitRecord]):
    """The commit records of a table by their shards, compressed; each is parsed when it is asked for.

    Every `CHUNK_RECORDS` of those that the manifest does not have are written as a Parquet part, so that a run that
    goes on later reads few files. Parts only save reads: a shard counts as committed by its file in `lines/`.

    Args:
        store: the folder of the table.
        compacted: records that its manifest has.
    """

    def __init__(self, store: Store, compacted: CommitRecords = NO_RECORDS) -> None:
        self._store, self._compacted = store, compacted
        self._entries: dict[str, int | bytes] = {}  # place in `compacted`, or the record itself
        self._pending: dict[str, CommitRecord] = {}  # of no part yet, with the names of their rows

    def __getitem__(self, shard: str) -> CommitRecord:
        entry = self._entries[shard]
        if isinstance(entry, int):
            return self._compacted[entry]
        return CommitRecord.from_json(zlib.decompress(entry))

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, shard: object) -> bool:
        return shard in self._entries

    def add(self, record: CommitRecord) -> None:
        """Add a record, in place of an earlier one of its shard."""
        self._entries[record.shard] = zlib.compress(record.to_json(), 1)
        self._pending[record.shard] = record
        if len(self._pending) >= CHUNK_RECORDS:
            self.write_part()

    def write_part(self) -> None:
        """Write the records that are in no part yet."""
        if not self._pending:
            return
        out = io.BytesIO()
        with contextlib.suppress(StoreError, DamagedFile):  # their files say the same; it is tried again
            pq.write_table(make_manifest_rows(self._store, self._pending.values()), out, compression="zstd")
            name = hashlib.sha256(out.getbuffer()).hexdigest()[:32]
            self._store.write(f"{COMPACTED}/{name}.parquet", out.getbuffer())
            self._pending = {}

    def remove(self, shards: Collection[str]) -> None:
        """Remove the records of shards that are made again, from the parts too, which get those of the manifest."""
        names, earlier = self._open_names(), _list_parts(self._store)
        for shard in shards:
            self._entries.pop(shard, None)
            self._pending.pop(shard, None)
        for shard in self._entries:
            self.add(replace(self[shard], names=names.find(shard)))
        self.write_part()
        for part in earlier:
            self._store.delete(part)

    def _open_names(self) -> RowNameReader:
        known = {shard: record.names for shard, record in self._pending.items() if record.names is not None}
        return RowNameReader(self._store, [*_list_parts(self._store), MANIFEST], known)

    def iterate(self, shards: Iterable[str]) -> Iterator[CommitRecord]:
        """Yield the records of shards, in their order, with the names of their rows where they were recorded."""
        names = self._open_names()
        for shard in shards:
            yield replace(self[shard], names=names.find(shard))

    def find_missing(self, shards: Iterable[str]) -> list[str]:
        """Find the shards whose record, or a file of it, is not there in its size any more."""
        files = _CommittedFiles(self._store)
        return [shard for shard in shards if shard not in files.committed or not files.has_whole(self[shard])]

    def delete_parts(self) -> None:
        """Delete the parts: the manifest has the records now."""
        for name in _list_parts(self._store):
            self._store.delete(name)


class _CommittedFiles:
    """The files of a table: the shards that have a commit record, and the sizes of the others."""

    def __init__(self, store: Store) -> None:
        self.committed = {name.removesuffix(".json") for name in store.files(COMMITS)}
        self._sizes = store.sizes(SHARDS) | store.sizes(REJECTED)

    def has_whole(self, record: CommitRecord) -> bool:
        files = (file for file in (record.data, record.rejected) if file)
        return find_record_fault(record) is None and all(self._sizes.get(file.name) == file.bytes for file in files)


def _list_parts(store: Store) -> list[str]:
    return [f"{COMPACTED}/{name}" for name in store.files(COMPACTED)]


def read_commit_log(store: Store, shards: Sequence[str], compacted: CommitRecords) -> tuple[CommitLog, list[str]]:
    """Read the commit records of those shards whose record can be read and whose files are there in their sizes.

    Args:
        store: the folder of the table.
        shards: that are wanted.
        compacted: the records in the manifest, which are not read again.

    Returns:
        The records, and the shards that have one but have to be made again.
    """
    log, files = CommitLog(store, compacted), _CommittedFiles(store)
    wanted = files.committed.intersection(shards)
    for place, record in enumerate(compacted):
        if record.shard in wanted and files.has_whole(record):
            log._entries[record.shard] = place
    for part in _list_parts(store):
        with contextlib.suppress(DamagedFile):
            for record in read_lines(store, part):
                if record.shard in wanted and record.shard not in log and files.has_whole(record):
                    log._entries[record.shard] = zlib.compress(record.to_json(), 1)
    damaged = []
    for shard in shards:
        if shard in wanted and shard not in log:
            with contextlib.suppress(DamagedFile):
                record = read_commit(store, shard)
                if files.has_whole(record):
                    log.add(record)
            if shard not in log:
                damaged.append(shard)
    return log, damaged
