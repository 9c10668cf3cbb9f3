"""Commit records are compacted while a table is made: parts save reads, and are never believed against the records."""

from pathlib import Path

import pytest

from rasura.manifests.compacted import commit_log
from rasura.manifests.compacted.commit_log import CommitLog, read_commit_log
from rasura.manifests.compacted.manifest import NO_RECORDS, read_manifest, read_names, write_manifest
from rasura.manifests.run_layout import COMPACTED, commit_path
from rasura.manifests.schemas import PROVENANCE, Kind, encode_records
from rasura.manifests.shards import CommitRecord, StageCount, commit
from rasura.manifests.storage import Store

COLUMNS = {**PROVENANCE, "number": Kind.INT}
SHARDS = [f"{n:032x}" for n in range(10)]


def commit_shard(table: Store, shard: str, rows: int = 2) -> CommitRecord:
    records = [{"id": f"{shard[-2:]}.{k}", "origin": f"photos/{shard[-2:]}.jpg", "number": k} for k in range(rows)]
    counts = [StageCount("numbers", rows, rows, rows), StageCount("write", rows, rows, rows)]
    return commit(table, shard, "part", rows, encode_records(records, COLUMNS), [], counts)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A table of which nine of ten shards were committed, eight of them in two parts."""
    monkeypatch.setattr(commit_log, "CHUNK_RECORDS", 4)
    store = Store(tmp_path / "run").sub("tables/made")
    log = CommitLog(store)
    for shard in SHARDS[:9]:
        log.add(commit_shard(store, shard))
    assert len(store.files(COMPACTED)) == 2
    return store


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have the names of the commit records that are read one by one added to the list that is returned."""
    reads: list[str] = []
    original = commit_log.read_commit

    def read(store: Store, shard: str) -> CommitRecord:
        reads.append(shard)
        return original(store, shard)

    monkeypatch.setattr(commit_log, "read_commit", read)
    return reads


def test_a_run_that_goes_on_reads_parts(table: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the record that is in no part is read by itself; all are what was committed, and so is the manifest."""
    reads = count_reads(monkeypatch)
    log, damaged = read_commit_log(table, SHARDS, NO_RECORDS)
    assert (reads, damaged, sorted(log)) == ([SHARDS[8]], [], SHARDS[:9])
    log.add(commit_shard(table, SHARDS[9]))
    order = SHARDS[::-1]
    write_manifest(table, log.iterate(order), COLUMNS)
    log.delete_parts()
    assert table.files(COMPACTED) == []
    records, *_ = read_manifest(table)
    assert records.shards == order
    assert [record.names for record in log.iterate(order)] != [None] * 10
    names = read_names(table)
    assert names is not None
    assert names["id"].to_pylist() == [f"{shard[-2:]}.{k}" for shard in order for k in range(2)]
    assert set(names["origin"].to_pylist()) == {f"photos/{shard[-2:]}.jpg" for shard in SHARDS}
    assert names["row"].to_pylist() == [0, 1] * 10


def test_a_damaged_part_costs_reads_and_nothing_else(table: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = count_reads(monkeypatch)
    part = f"{COMPACTED}/{table.files(COMPACTED)[0]}"
    table.write(part, table.read(part)[:-30])
    log, damaged = read_commit_log(table, SHARDS, NO_RECORDS)
    assert (len(reads), damaged, sorted(log)) == (5, [], SHARDS[:9])


def test_a_shard_that_is_made_again_has_no_record_in_a_part(table: Store) -> None:
    """Its new record counts, whatever was compacted before; a kill in between leaves it to be made."""
    log, _ = read_commit_log(table, SHARDS, NO_RECORDS)
    log.remove([SHARDS[1]])
    table.delete(commit_path(SHARDS[1]))
    log, damaged = read_commit_log(table, SHARDS, NO_RECORDS)
    assert (SHARDS[1] in log, damaged) == (False, [])
    commit_shard(table, SHARDS[1], rows=3)
    log, _ = read_commit_log(table, SHARDS, NO_RECORDS)
    assert log[SHARDS[1]].rows == 3
    assert {record.shard: len(record.names.ids) for record in log.iterate(SHARDS[:9]) if record.names} == {
        shard: 3 if shard == SHARDS[1] else 2 for shard in SHARDS[:9]
    }


def test_a_record_whose_file_is_gone_is_made_again_though_a_part_has_it(table: Store) -> None:
    table.delete(f"shards/{SHARDS[2]}.parquet")
    log, damaged = read_commit_log(table, SHARDS, NO_RECORDS)
    assert (SHARDS[2] in log, damaged) == (False, [SHARDS[2]])
    assert log.find_missing(SHARDS[3:9]) == []
    table.delete(commit_path(SHARDS[4]))
    assert log.find_missing(SHARDS[3:9]) == [SHARDS[4]]


def test_a_record_of_an_earlier_version_has_its_names_read_from_its_shard(table: Store) -> None:
    """Commit records that were written without names give the same manifest."""
    log, _ = read_commit_log(table, SHARDS, NO_RECORDS)
    write_manifest(table, log.iterate(SHARDS[:9]), COLUMNS)
    whole = table.read("manifest.parquet")
    for shard in SHARDS[:9]:
        table.write(commit_path(shard), log[shard].to_json())
    log.delete_parts()
    log, damaged = read_commit_log(table, SHARDS, NO_RECORDS)
    assert damaged == []
    write_manifest(table, log.iterate(SHARDS[:9]), COLUMNS)
    assert table.read("manifest.parquet") == whole
