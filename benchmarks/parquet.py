"""Writing shards as they are committed (encoded pictures to a Parquet file on disk, fsync, footer reread, sha256)
against writing the same number of raw bytes to the same disk with fsync."""

import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.common import say, scratch
from manifests.schemas import TRIPLET, arrow_schema
from manifests.shards import commit
from manifests.storage import Store

ROWS, SHARDS, PICTURE = 64, 24, 300_000


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
                line = commit(Store(folder / "table"), f"{n:032d}", "part", ROWS, table, [], [])
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
        shard, raw_s = sum(ours) / SHARDS, sum(disk) / SHARDS
        say(
            "parquet",
            shard_mb=round(size / 2**20, 1),
            mb_per_second=round(size / 2**20 / shard),
            raw_mb_per_second=round(size / 2**20 / raw_s),
            times_raw_disk=round(shard / raw_s, 2),
            ms_per_triplet=round(1000 * shard / ROWS, 3),
        )


if __name__ == "__main__":
    main()
