"""Reading and writing Parquet: what comes back, and what is left running."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rasura.manifests.parquet import encode_parquet, read_parquet

PROBE = """
import io, os, sys
import pyarrow, pyarrow.parquet
from manifests.parquet import read_parquet
before = set(os.listdir("/proc/self/task"))
with open(sys.argv[1], "rb") as source:
    rows = read_parquet(source, ["b", "a"]).num_rows
names = [open(f"/proc/self/task/{task}/comm").read().strip() for task in set(os.listdir("/proc/self/task")) - before]
print(rows, *[name for name in names if not name.startswith("jemalloc")])
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    path.write_bytes(encode_parquet(pa.table({"a": list(range(1000)), "b": [f"row {n}" for n in range(1000)]})))
    return path


def test_columns_come_in_the_order_asked_for(file: Path) -> None:
    """Columns come in the order in which they were named, all of them where none is."""
    with file.open("rb") as source:
        assert read_parquet(source, ["b", "a"]).column_names == ["b", "a"]
    with file.open("rb") as source:
        assert read_parquet(source).equals(pq.ParquetFile(file).read())


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")  # noqa: PTH112
def test_reading_leaves_no_thread_behind(file: Path) -> None:
    """No thread of Arrow's is alive after a read: one that outlives the interpreter aborts it at exit, after all its
    work was done and printed."""
    run = subprocess.run([sys.executable, "-c", PROBE, str(file)], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["1000"]


def test_a_row_of_a_published_file_costs_one_small_row_group() -> None:
    """No row group with several rows is larger than the limit, whatever the order of the sizes; a row that is larger
    than it is alone. All rows come back in their order."""
    sizes = [10, 90_000, 10, 50_000, 50_000, 300_000, 10, 20_000, 40_000, 40_001] * 3
    cells = [{"bytes": bytes([n]) * size, "path": f"{n}.webp"} for n, size in enumerate(sizes)]
    table = pa.table({"id": [str(n) for n in range(len(sizes))], "source": cells})
    data = encode_parquet(table, row_group_bytes=100_000)
    footer = pq.read_metadata(io.BytesIO(data))
    groups = [footer.row_group(k) for k in range(footer.num_row_groups)]
    assert sum(group.num_rows for group in groups) == len(sizes)
    assert all(group.num_rows == 1 or group.total_byte_size <= 100_000 + 1000 for group in groups)
    assert len(groups) <= 3 * 7  # they are filled: none could take in the row that follows
    assert read_parquet(io.BytesIO(data)).equals(table)


def test_an_empty_table_is_a_file_without_rows() -> None:
    table = pa.table({"id": pa.array([], pa.string())})
    assert read_parquet(io.BytesIO(encode_parquet(table))).equals(table)
