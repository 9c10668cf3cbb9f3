"""A shard costs few requests of an object store, and what is not what was committed is noticed all the same."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.s3_server import serve_bucket

from rasura.manifests.compacted.manifest import write_manifest
from rasura.manifests.remote_files import fetch
from rasura.manifests.run_layout import check_place, read_place
from rasura.manifests.schemas import PROVENANCE, Kind, encode_records
from rasura.manifests.shards import CommitRecord, DamagedFile, RejectedRow, StageCount, commit, read_committed
from rasura.manifests.storage import Store, StoreError
from rasura.manifests.tables import Tables

COLUMNS = {**PROVENANCE, "source": Kind.RGB}
ROWS = 16


@pytest.fixture(scope="module")
def bucket() -> Iterator[None]:
    with serve_bucket():
        yield


@pytest.fixture
def requests(bucket: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the requests that are made from here on."""
    import s3fs

    names: list[str] = []
    original = s3fs.S3FileSystem._call_s3

    async def call(self: Any, method: str, *arguments: Any, **options: Any) -> Any:
        names.append(method)
        return await original(self, method, *arguments, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", call)
    return names


def commit_shard(run: Store, shard: str) -> CommitRecord:
    rng = np.random.default_rng(len(shard))
    rows = [
        {"id": f"{shard}{k:02d}", "origin": "o", "source": rng.integers(0, 256, (64, 64, 3), np.uint8)}
        for k in range(ROWS)
    ]
    rejected = [RejectedRow("x", "o", "crop", "rejected", "too dark", "0.1", "x")]
    counts = [
        StageCount("crop", ROWS + 1, ROWS, ROWS, {"too dark": 1}),
        StageCount("write", ROWS, ROWS, ROWS),
    ]
    return commit(run.sub("tables/made"), shard, "p", ROWS + 1, encode_records(rows, COLUMNS), rejected, counts)


def test_committing_a_shard_and_reading_all_of_its_rows_takes_six_requests(requests: list[str]) -> None:
    """With rejected rows, and the check that the run is where it was; the rows that come back are those committed."""
    run = Store("s3://rasura-test/requests")
    place = read_place(run)
    first = commit_shard(run, "a")
    requests.clear()
    check_place(run, place)
    second = commit_shard(run, "b")
    spent = len(requests)
    write_manifest(run.sub("tables/made"), [first, second], COLUMNS)
    tables = Tables(run)
    tables.row("made", "a", 0)  # the manifest is read once for all shards
    requests.clear()
    rows = [tables.row("made", "b", k) for k in range(ROWS)]
    assert spent + len(requests) <= 6, (spent, requests)
    assert [row["id"] for row in rows] == [f"b{k:02d}" for k in range(ROWS)]
    assert all(row["source"].shape == (64, 64, 3) for row in rows)


@pytest.mark.parametrize("damage", ["cut", "other", "gone"])
def test_an_object_that_is_not_what_was_committed_is_damaged(bucket: None, damage: str) -> None:
    """Nothing is asked of it before it is read: it shows when it is."""
    run = Store("s3://rasura-test/damaged")
    table = run.sub("tables/made")
    record = commit_shard(run, damage)
    assert record.data is not None
    assert read_committed(table, record.data, ["id"]).num_rows == ROWS
    data = table.read(record.data.name)
    if damage == "gone":
        table.delete(record.data.name)
    else:
        table.write(record.data.name, data[: len(data) // 2] if damage == "cut" else data[::-1])
    with pytest.raises(DamagedFile, match=rf"{damage}\.parquet' is (missing|damaged)"):
        read_committed(table, record.data)


def test_a_store_that_is_away_is_noticed_after_few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """It closes every connection. Reads and writes have two layers of tries below them, which multiply."""
    import s3fs

    sleep = asyncio.sleep

    async def hurry(seconds: float, *more: Any) -> None:
        await sleep(0, *more)

    connections = 0
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:

        def close_all() -> None:
            nonlocal connections
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    connection.close()
                    connections += 1

        threading.Thread(target=close_all, daemon=True).start()
        monkeypatch.setattr(asyncio, "sleep", hurry)
        monkeypatch.setattr(s3fs.S3FileSystem, "cachable", False)
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in {**keys, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.getsockname()[1]}"}.items():
            monkeypatch.setenv(name, value)
        run = Store("s3://away/run")
        for use, most in (
            (lambda: run.write("x", b"x"), 30),
            (lambda: run.read("x", is_small=True), 150),
            (lambda: fetch("s3://away/run/x"), 30),
        ):
            connections = 0
            with pytest.raises(StoreError, match="s3://away/run/x"):
                use()
            assert 2 <= connections <= most
