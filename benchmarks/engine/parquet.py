"""Writing shards as they are committed (encoded pictures to a Parquet file on disk, fsync, footer reread, sha256)
against writing the same number of raw bytes to the same disk with fsync; and reading rows of them in random order, as
training does, against reading the shards they are in."""

import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.common import say, scratch
from rasura.manifests.parquet import read_parquet
from rasura.manifests.schemas import TRIPLET, arrow_schema
from rasura.manifests.shards import commit
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables

ROWS, SHARDS, PICTURE = 64, 24, 300_000
READ = 200


def _table(rng: np.random.Generator) -> pa.Table:
    """Rows with random bytes in the place of encoded pictures: as incompressible as they are."""
    rows = []
    for n in range(ROWS):
        pictures = {name: {"bytes": rng.bytes(PICTURE), "path": f"{n}.webp"} for name in ("source", "target")}
        rows.append({"id": f"{n:032d}", **pictures, "mask": {"bytes": rng.bytes(1500), "path": f"{n}.png"}})
    return pa.Table.from_pylist(rows, schema=arrow_schema(TRIPLET))


def _raw(path: Path, data: bytes) -> None:
    with path.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def _reading(folder: Path, rng: np.random.Generator) -> tuple[float, float]:
    """Seconds to a row in random order, by its row group and by its shard."""
    tables, spent = Tables(Store(folder)), [0.0, 0.0]
    for n, row in zip(rng.integers(0, SHARDS, READ), rng.integers(0, ROWS, READ), strict=True):
        start = time.perf_counter()
        tables.encoded("made", f"{n:032d}", int(row))
        spent[0] += time.perf_counter() - start
        start = time.perf_counter()
        with (folder / f"tables/made/shards/{n:032d}.parquet").open("rb") as source:
            read_parquet(source)
        spent[1] += time.perf_counter() - start
    return spent[0] / READ, spent[1] / READ


def main() -> None:
    rng = np.random.default_rng(0)
    with scratch() as folder:
        ours, disk, size = [0.0], [0.0], 0
        for n in range(SHARDS):
            table = _table(rng)
            raw = rng.bytes(size or ROWS * 2 * PICTURE)

            def write_shard(n: int = n, table: pa.Table = table) -> None:
                nonlocal size
                start = time.perf_counter()
                line = commit(Store(folder / "tables/made"), f"{n:032d}", "part", ROWS, table, [], [])
                ours.append(time.perf_counter() - start)
                assert line.data is not None
                size = line.data.bytes

            def write_raw(n: int = n, raw: bytes = raw) -> None:
                start = time.perf_counter()
                _raw(folder / f"{n}.raw", raw)
                disk.append(time.perf_counter() - start)

            # a disk lets bursts through and then slows down: take turns, and add up rather than pick
            for write in (write_shard, write_raw) if n % 2 else (write_raw, write_shard):
                write()
        random_s, whole_s = _reading(folder, rng)
        shard, raw_s = sum(ours) / SHARDS, sum(disk) / SHARDS
        say(
            "parquet",
            shard_mb=round(size / 2**20, 1),
            mb_per_second=round(size / 2**20 / shard),
            raw_mb_per_second=round(size / 2**20 / raw_s),
            times_raw_disk=round(shard / raw_s, 2),
            ms_per_triplet=round(1000 * shard / ROWS, 3),
            ms_a_random_row=round(1000 * random_s, 2),
            ms_by_whole_shards=round(1000 * whole_s, 2),
        )


if __name__ == "__main__":
    main()
