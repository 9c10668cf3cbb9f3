"""Reading single rows of a run: what is read of a file for one of them, and what is kept in memory."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rasura.manifests import tables as tables_module
from rasura.manifests.compacted.manifest import write_manifest
from rasura.manifests.schemas import Kind, Schema, encode_records
from rasura.manifests.shards import ROW_GROUP_ROWS, StageCount, commit
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables

ROWS = 3 * ROW_GROUP_ROWS + 2
SCHEMA: Schema = {"id": Kind.STRING, "label": Kind.STRING, "source": Kind.RGB}


@pytest.fixture
def run(tmp_path: Path) -> Store:
    """A run with one table of one shard; every row's picture is noise of its own."""
    store = Store(tmp_path / "run").sub("tables/made")
    records = [
        {"id": f"{n:03d}", "label": f"l{n}", "source": np.random.default_rng(n).integers(0, 256, (24, 24, 3), np.uint8)}
        for n in range(ROWS)
    ]
    table = encode_records(records, SCHEMA)
    line = commit(store, "one", "", ROWS, table, (), [StageCount("made", ROWS, ROWS, ROWS)])
    write_manifest(store, [line], SCHEMA)
    return Store(tmp_path / "run")


def pixels(tables: Tables, row: int) -> np.ndarray:
    found: np.ndarray = tables.row("made", "one", row, ("source",))["source"]
    return found


def test_every_row_comes_back_from_its_own_place(run: Store) -> None:
    """Rows in any order, across row groups, are the rows that were written; their columns are those asked for."""
    tables = Tables(run)
    for row in np.random.default_rng(0).permutation(ROWS):
        assert (pixels(tables, row) == np.random.default_rng(row).integers(0, 256, (24, 24, 3), np.uint8)).all()
        assert tables.read_light_row("made", "one", row)["label"] == f"l{row}"
    assert set(tables.row("made", "one", 5)) >= {"id", "label", "source"}
    assert set(tables.row("made", "one", 5, ("label",))) == {"label"}
    for row in (-1, ROWS):
        with pytest.raises(IndexError, match=f"no row {row}"):
            tables.row("made", "one", row)


def test_one_row_costs_its_row_group_and_no_more(run: Store) -> None:
    """With every byte of the pictures outside one row group overwritten, the rows of that group still read, and no
    others: a trainer that draws rows at random never reads whole shards."""
    assert run.local is not None
    path = run.local / "tables/made/shards/one.parquet"
    footer = pq.read_metadata(path)
    assert [footer.row_group(k).num_rows for k in range(footer.num_row_groups)] == [*[ROW_GROUP_ROWS] * 3, 2]
    data = bytearray(path.read_bytes())
    for group in (0, 2, 3):
        for leaf in range(footer.num_columns):
            chunk = footer.row_group(group).column(leaf)
            start = min(one for one in (chunk.dictionary_page_offset, chunk.data_page_offset) if one)
            data[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    path.write_bytes(data)
    for row in range(ROW_GROUP_ROWS, 2 * ROW_GROUP_ROWS):
        assert (pixels(Tables(run), row) == np.random.default_rng(row).integers(0, 256, (24, 24, 3), np.uint8)).all()
    with pytest.raises(OSError, match=r"(?i)page|thrift|deserial|unexpected"):
        pixels(Tables(run), 0)


def test_what_is_kept_in_memory_has_a_bound(run: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows are read, row groups in memory stay within their limit, or are the one that was read last."""
    group = Tables(run).read_raw("made", "one", 0)
    assert group.num_rows == 1
    for limit in (1, 40_000, 10**9):
        monkeypatch.setattr(tables_module, "CACHED_BYTES", limit)
        tables = Tables(run)
        for row in range(ROWS):
            pixels(tables, row)
        kept = [one.nbytes for one in tables._groups.values()]
        assert sum(kept) == tables._bytes
        assert sum(kept) <= limit or len(kept) == 1
    assert len(kept) == 4
