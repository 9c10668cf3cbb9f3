"""Speed of committing shards and of reading rows in random order.

Committing (encoded pictures to a Parquet file, fsync, footer reread, sha256) is compared with writing the same number
of raw bytes to the same disk with fsync; reading rows by row group, as training does, with reading whole shards. Last,
random rows of a published file of 500 MB are read, with its footer read anew for each and once. Goal: 10 ms.

    python -m benchmarks parquet
"""

import os
import time
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.common import make_scratch_folder, print_result
from rasura.manifests.parquet import PUBLISHED_GROUP_BYTES, encode_parquet, read_parquet
from rasura.manifests.run_layout import shard_path, table_path
from rasura.manifests.schemas import TRIPLET, build_arrow_schema
from rasura.manifests.shards import commit
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables

ROWS, SHARDS, PICTURE = 64, 24, 300_000
READ = 200
PUBLISHED_TABLES = 13  # of ROWS rows
FLOW = "triplets"
TABLE = table_path(FLOW)


def _make_table(rng: np.random.Generator) -> pa.Table:
    """Return rows with random bytes in place of encoded pictures, which are as incompressible."""
    rows = []
    for n in range(ROWS):
        pictures = {name: {"bytes": rng.bytes(PICTURE), "path": f"{n}.webp"} for name in ("source", "target")}
        rows.append({"id": f"{n:032d}", **pictures, "mask": {"bytes": rng.bytes(1500), "path": f"{n}.png"}})
    return pa.Table.from_pylist(rows, schema=build_arrow_schema(TRIPLET))


def _write_raw(path: Path, data: bytes) -> None:
    with path.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def _time_random_rows(folder: Path, rng: np.random.Generator) -> tuple[float, float]:
    """Return the mean seconds to read a row in random order, by row group and by whole shard."""
    tables, spent = Tables(Store(folder)), [0.0, 0.0]
    for shard, row in zip(rng.integers(0, SHARDS, READ), rng.integers(0, ROWS, READ), strict=True):
        start = time.perf_counter()
        tables.read_raw(FLOW, f"{shard:032d}", int(row))
        spent[0] += time.perf_counter() - start
        start = time.perf_counter()
        with (folder / TABLE / shard_path(f"{shard:032d}")).open("rb") as source:
            read_parquet(source)
        spent[1] += time.perf_counter() - start
    return spent[0] / READ, spent[1] / READ


def _time_published_rows(folder: Path, rng: np.random.Generator) -> dict[str, float]:
    """Measure a random row of a published file whose size is that of the default, `dataset.shard_bytes`."""
    table = pa.concat_tables([_make_table(rng) for _ in range(PUBLISHED_TABLES)])
    path = folder / "train-00000-of-00001.parquet"
    path.write_bytes(encode_parquet(table, row_group_bytes=PUBLISHED_GROUP_BYTES))
    footer = pq.read_metadata(path)
    groups = [footer.row_group(k) for k in range(footer.num_row_groups)]
    starts = list(accumulate((group.num_rows for group in groups), initial=0))
    spent = [0.0, 0.0]
    for row in rng.integers(0, len(table), READ).tolist():
        group = bisect_right(starts, row) - 1
        for index, known in enumerate((None, footer)):
            start = time.perf_counter()
            with path.open("rb") as source:
                read_parquet(source, None, group, known).slice(row - starts[group], 1).to_pylist()
            spent[index] += time.perf_counter() - start
    return {
        "published_mb": round(path.stat().st_size / 2**20),
        "largest_group_mb": round(max(group.total_byte_size for group in groups) / 2**20, 2),
        "ms_a_published_row": round(1000 * spent[0] / READ, 2),
        "ms_a_published_row_with_footer": round(1000 * spent[1] / READ, 2),
    }


def main() -> None:
    rng = np.random.default_rng(0)
    with make_scratch_folder() as folder:
        shard_seconds, raw_seconds, size = [0.0], [0.0], 0
        for shard in range(SHARDS):
            table = _make_table(rng)
            raw = rng.bytes(size or ROWS * 2 * PICTURE)

            def write_shard(shard: int = shard, table: pa.Table = table) -> None:
                nonlocal size
                start = time.perf_counter()
                commit_record = commit(Store(folder / TABLE), f"{shard:032d}", "part", ROWS, table, [], [])
                shard_seconds.append(time.perf_counter() - start)
                assert commit_record.data is not None
                size = commit_record.data.bytes

            def write_raw(shard: int = shard, raw: bytes = raw) -> None:
                start = time.perf_counter()
                _write_raw(folder / f"{shard}.raw", raw)
                raw_seconds.append(time.perf_counter() - start)

            # a disk absorbs bursts and then slows down: alternate, and sum instead of taking the best
            for write in (write_shard, write_raw) if shard % 2 else (write_raw, write_shard):
                write()
        seconds_per_row, seconds_per_shard = _time_random_rows(folder, rng)
        mean_shard, mean_raw = sum(shard_seconds) / SHARDS, sum(raw_seconds) / SHARDS
        print_result(
            "parquet",
            shard_mb=round(size / 2**20, 1),
            mb_per_second=round(size / 2**20 / mean_shard),
            raw_mb_per_second=round(size / 2**20 / mean_raw),
            times_raw_disk=round(mean_shard / mean_raw, 2),
            ms_per_triplet=round(1000 * mean_shard / ROWS, 3),
            ms_a_random_row=round(1000 * seconds_per_row, 2),
            ms_by_whole_shards=round(1000 * seconds_per_shard, 2),
            **_time_published_rows(folder, rng),
        )


if __name__ == "__main__":
    main()
