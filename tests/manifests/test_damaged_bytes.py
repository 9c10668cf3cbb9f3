"""A byte that flipped on the disk is noticed when it is read, wherever it is; what is cut is noticed too."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rasura.manifests.checks.committed_files import is_intact
from rasura.manifests.checks.sealed_json import parse_sealed, seal
from rasura.manifests.compacted.manifest import read_manifest, read_names, write_manifest
from rasura.manifests.run_layout import RunPlan
from rasura.manifests.schemas import Kind, Schema, encode_records
from rasura.manifests.shards import (
    CommitRecord,
    DamagedFile,
    MissingFile,
    RejectedRow,
    StageCount,
    commit,
    read_committed,
)
from rasura.manifests.storage import Store, StoreError
from rasura.manifests.tables import Tables

SCHEMA: Schema = {"id": Kind.STRING, "origin": Kind.STRING, "score": Kind.FLOAT, "source": Kind.RGB}
ROWS = 20  # two row groups


@pytest.fixture
def run(tmp_path: Path) -> Store:
    """A run with one table of one shard."""
    run = Store(tmp_path / "run")
    table = run.sub("tables/made")
    noise = np.random.default_rng(81)
    rows = [
        {"id": f"{n:02d}", "origin": f"o{n}", "score": n / 7, "source": noise.integers(0, 256, (3, 3, 3), np.uint8)}
        for n in range(ROWS)
    ]
    dropped = [RejectedRow("x", "ox", "made", "rejected", "too small", "", "x")]
    counts = [StageCount("made", ROWS + 1, ROWS, ROWS, {"too small": 1})]
    record = commit(table, "one", "part", ROWS + 1, encode_records(rows, SCHEMA), dropped, counts)
    write_manifest(table, [record], SCHEMA)
    return run


def flip_bytes(path: Path, step: int) -> Iterator[int]:
    """Flip a bit of every `step`th byte of a file in turn, and put it right again."""
    whole = path.read_bytes()
    for place in range(0, len(whole), step):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        yield place
    path.write_bytes(whole)


def find_silent_damage(path: Path, read: Callable[[], object], step: int = 3) -> list[int]:
    """Flip bytes of a file: where is something else read, and no error raised?"""
    whole, silent, noticed = repr(read()), [], 0
    for place in flip_bytes(path, step):
        try:
            if repr(read()) != whole:
                silent.append(place)
        except (DamagedFile, ValueError):
            noticed += 1
    assert noticed > 20
    return silent


def read_rows(run: Store) -> object:
    tables = Tables(run)
    return [sorted((name, repr(cell)) for name, cell in tables.row("made", "one", n).items()) for n in range(ROWS)]


@pytest.mark.parametrize("version", ["now", "0.1"])
def test_rows_are_what_was_committed(run: Store, version: str) -> None:
    """Every row, read one by one as exports and stages do, is the one that was committed, or an error; so it is for
    shards of earlier versions, whose pages have no checksums."""
    table = run.sub("tables/made")
    step = 5
    if version == "0.1":
        records, *_ = read_manifest(table)
        assert records[0].data is not None
        record = replace(records[0], data=replace(records[0].data, footer=None))
        table.write("lines/one.json", record.to_json())
        write_manifest(table, [record], SCHEMA)
        step = 31
    assert run.local is not None
    assert find_silent_damage(run.local / "tables/made/shards/one.parquet", lambda: read_rows(run), step) == []


def test_columns_and_rejections_are_what_was_committed(run: Store) -> None:
    records, *_ = read_manifest(run.sub("tables/made"))
    for name, file in (("shards", records[0].data), ("dropped", records[0].rejected)):
        assert run.local is not None
        assert file is not None
        place = run.local / "tables/made" / name / "one.parquet"
        columns = ["id", "score"] if name == "shards" else None

        def read(file=file, columns=columns) -> object:
            return read_committed(run.sub("tables/made"), file, columns).to_pydict()

        assert find_silent_damage(place, read) == []


def test_metadata_is_what_was_written(run: Store) -> None:
    """Manifests, commit records and plans: a flipped byte never becomes another count, name or hash."""
    assert run.local is not None
    table = run.sub("tables/made")

    def read_whole_manifest() -> object:
        records, *schemas = read_manifest(table)
        names = read_names(table)
        if names is None:
            raise ValueError("the names are read from the shards")
        return [list(records), schemas, names.to_pylist()]

    assert find_silent_damage(run.local / "tables/made/manifest.parquet", read_whole_manifest) == []
    line = run.local / "tables/made/lines/one.json"

    def read_line() -> object:
        record = CommitRecord.from_json(line.read_bytes())
        return record, record.names

    assert find_silent_damage(line, read_line, 1) == []
    plan = run.local / "plan.json"
    plan.write_bytes(RunPlan("cars", "0123", {}, ["made"]).to_json())
    assert find_silent_damage(plan, lambda: RunPlan.from_json(plan.read_bytes()), 1) == []


def test_a_file_that_was_cut_is_noticed(run: Store) -> None:
    assert run.local is not None
    place = run.local / "tables/made/shards/one.parquet"
    whole = place.read_bytes()
    for size in (0, 3, 11, len(whole) // 2, len(whole) - 1):
        os.truncate(place, size)
        with pytest.raises(DamagedFile, match=r"one\.parquet' is damaged \(it has \d+ bytes, and \d+ were committed"):
            Tables(run).row("made", "one", 0)
        place.write_bytes(whole)


def test_a_disk_that_cannot_be_read_is_no_damaged_file(run: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard is dropped only where other bytes are read, and not while its disk answers with errors."""
    table = run.sub("tables/made")
    records, *_ = read_manifest(table)
    file = records[0].data
    assert file is not None
    assert is_intact(table, file)

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as context:
        context.setattr(Store, "open", refuse)
        for read in (is_intact, read_committed):
            with pytest.raises(StoreError, match=r"cannot read .*one\.parquet: Input/output error"):
                read(table, file)
    table.delete(file.name)
    assert not is_intact(table, file)
    with pytest.raises(MissingFile, match="is missing; run the recipe again"):
        read_committed(table, file)


def test_a_shard_that_was_made_again_is_read_anew(run: Store) -> None:
    """A reader that has the earlier shard in memory reads the present one, and no error."""
    table, tables = run.sub("tables/made"), Tables(run)
    assert tables.row("made", "one", 3, ["score"])["score"] == 3 / 7
    rows = [{"id": f"{n:02d}", "origin": f"o{n}", "score": 0.5, "source": None} for n in range(ROWS)]
    for name in ("lines/one.json", "manifest.parquet"):
        table.delete(name)
    counts = [StageCount("made", ROWS, ROWS, ROWS)]
    record = commit(table, "one", "part", ROWS, encode_records(rows, SCHEMA), [], counts)
    write_manifest(table, [record], SCHEMA)
    assert tables.row("made", "one", 19, ["score"])["score"] == 0.5


def test_values_without_a_checksum_are_those_of_earlier_versions() -> None:
    assert parse_sealed('{"rows": 3}') == {"rows": 3}
    sealed = seal({"rows": 3, "name": "a\u2028é"})
    assert parse_sealed(json.dumps(sealed, ensure_ascii=False)) == {"rows": 3, "name": "a\u2028é"}
    for text in ("", "[", "[]", "3", '{"rows": 4, "checksum": "0"}', "[" * 10**5):
        with pytest.raises(ValueError, match=r".+"):
            parse_sealed(text)
