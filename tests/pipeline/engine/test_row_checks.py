"""What every row has (an id of its own, pictures of their kind, a reason) is checked before it is committed."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rasura.manifests.checks.rows import DoubledIds
from rasura.manifests.compacted.manifest import read_manifest, write_manifest
from rasura.manifests.schemas import Kind, Schema, encode_records
from rasura.manifests.shards import RejectedRow, StageCount, commit
from rasura.manifests.storage import Store, StoreError
from rasura.pipeline.engine.execute import ActivityMonitor, PartialShard, Quarantine, encode_shard, run_stage
from rasura.pipeline.recipe.specs import StageSpec
from rasura.stages.stage import Kept, Outcome, Params, Record, Resources, Stage

COLUMNS: Schema = {
    "id": Kind.STRING,
    "origin": Kind.STRING,
    "source": Kind.RGB,
    "target": Kind.RGB,
    "mask": Kind.MASK,
    "label": Kind.STRING,
    "scene_id": Kind.STRING,
    "split": Kind.STRING,
    "cut_out": Kind.RGBA,
    "depth": Kind.DEPTH,
}
GOOD: Record = {
    "source": np.zeros((4, 6, 3), np.uint8),
    "target": np.zeros((4, 6, 3), np.uint8),
    "mask": np.ones((4, 6), bool),
    "cut_out": np.zeros((4, 6, 4), np.uint8),
    "depth": np.zeros((4, 6), np.uint16),
}


class Faulty(Stage):
    """Returns for each record what the test put into it."""

    name = "faulty"

    def process_one(self, record: Record) -> Outcome:
        outcome: Outcome = record["outcome"]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def run(outcomes: dict[str, Any], columns: Schema = COLUMNS) -> tuple[dict[str, str], list[str]]:
    """Run a stage with these outcomes: the details of failed rows by their ids, and the ids of all that came out."""
    spec = StageSpec("faulty", {}, 0, "1", 4, 10.0, Resources(), columns)
    known = {"source": GOOD["source"], "scene_id": "room", "split": "train"}
    records = [{"id": id, **known, "outcome": outcome} for id, outcome in outcomes.items()]
    splits = {"train": 0.9, "test": 0.1}
    kept, dropped, count = run_stage(spec, Faulty(Params()), records, Quarantine(), ActivityMonitor(), splits)
    assert count.balances()
    assert {row.outcome for row in dropped} <= {"failed"}
    return {row.id: row.detail for row in dropped}, [row["id"] for row in kept]


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("source", np.zeros((4, 6, 3), np.float32), "column 'source' is float32 of shape (4, 6, 3), but rgb is uint8"),
        ("source", np.zeros((4, 6), np.uint8), "uint8 of shape (4, 6), but rgb is uint8 of shape (height, width, 3)"),
        ("source", np.zeros((4, 6, 4), np.uint8), "(4, 6, 4)"),
        ("source", np.zeros((0, 6, 3), np.uint8), "(0, 6, 3)"),
        ("cut_out", np.zeros((4, 6, 3), np.uint8), "rgba is uint8 of shape (height, width, 4)"),
        ("mask", np.ones((4, 6), np.uint8), "mask is bool of shape (height, width)"),
        ("depth", np.zeros((4, 6), np.float64), "depth is uint16 of shape (height, width)"),
        ("id", None, "its row has id None"),
        ("id", "", "its row has id ''"),
        ("id", 7, "its row has id 7"),
        ("id", "../../x", "its row has id '../../x'; every row needs a text of its own, without control characters"),
        ("id", "a\x1b[31m", r"its row has id 'a\x1b[31m'"),
        ("id", "a\0b", "its row has id"),
        ("id", "é" * 101, "of at most 200 bytes"),
        ("label", "a\udcff", r"stage 'faulty': column 'label' is 'a\udcff', which no UTF-8 can have"),
        ("split", "tran", "stage 'faulty': column 'split' is 'tran'; the recipe's splits are train, test"),
        ("split", None, "stage 'faulty': column 'split' is None, but the row came with a value"),
        ("scene_id", None, "stage 'faulty': column 'scene_id' is None, but the row came with a value"),
        ("source", None, "stage 'faulty': column 'source' is None, but the row came with a value"),
    ],
)
def test_a_bad_value_costs_its_row_where_it_was_made(column: str, value: Any, text: str) -> None:
    """The stage is named, and its neighbours pass."""
    failed, kept = run({"a": Kept([GOOD]), "b": Kept([{**GOOD, column: value}]), "c": Kept([GOOD])})
    assert list(failed) == ["b"]
    assert text in failed["b"]
    assert kept == ["a", "c"]


def test_an_interruption_that_a_stage_raises_costs_its_row() -> None:
    """As an exit does; an error without a text is told as such."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

        __repr__ = __str__

    outcomes = {"a": KeyboardInterrupt(), "b": SystemExit(0), "c": Mute(), "d": [Mute()], "e": Kept([GOOD])}
    failed, kept = run(outcomes)
    assert failed == {
        "a": "KeyboardInterrupt:",
        "b": "SystemExit: 0",
        "c": "<Mute without text: RuntimeError>",
        "d": "the stage returned <list without text: RuntimeError>, no Kept or Rejected",
    }
    assert kept == ["e"]


def test_no_input_leaves_the_accounts() -> None:
    """One of which a stage keeps no record is rejected; a shard of which all rows have failed is counted, too."""
    spec = StageSpec("faulty", {}, 0, "1", 4, 10.0, Resources(), COLUMNS)
    records = [{"id": "a", "outcome": Kept([])}, {"id": "b", "outcome": Kept([GOOD])}]
    kept, dropped, count = run_stage(spec, Faulty(Params()), records, Quarantine(), ActivityMonitor(), {})
    assert [row["id"] for row in kept] == ["b"]
    assert [(row.id, row.outcome, row.reason) for row in dropped] == [("a", "rejected", "no output")]
    assert (count.inputs, count.kept, count.rejected) == (2, 1, {"no output": 1})
    lost = Quarantine({("faulty", "a"): "WorkerDied", ("faulty", "b"): "WorkerDied"})
    kept, dropped, count = run_stage(spec, Faulty(Params()), records, lost, ActivityMonitor(), {})
    assert (kept, count.failed) == ([], {"WorkerDied": 2})


def test_a_triplet_of_several_sizes_fails_with_the_stage_that_made_it() -> None:
    """What a stage may change for a later one to follow is checked where the row is written."""
    spec = StageSpec("faulty", {}, 0, "1", 4, 10.0, Resources(), COLUMNS)
    small = Kept([{**GOOD, "source": GOOD["source"][:2]}])
    records = [{"id": "a", **GOOD, "outcome": small}, {"id": "b", **GOOD, "outcome": Kept([{**GOOD, "depth": None}])}]
    records = [{**record, "label": None} for record in records]
    kept, _, _ = run_stage(spec, Faulty(Params()), records, Quarantine(), ActivityMonitor(), {})
    table, failed, count = encode_shard(PartialShard(kept, 2), COLUMNS)
    assert table["id"].to_pylist() == ["b"]
    text = "stage 'faulty': its pictures differ in size: source 6 × 2, target 6 × 4, mask 6 × 4"
    assert [(row.id, row.detail) for row in failed] == [("a", text)]
    assert count.balances()


def test_doubled_ids_cost_the_later_row() -> None:
    """The stage makes the id of another record's row, or one id twice."""
    outcomes = {
        "a": Kept([{**GOOD, "id": "x"}]),
        "b": Kept([{**GOOD, "id": "y"}, {**GOOD, "id": "x"}]),
        "c": Kept([{**GOOD, "id": "z"}, {**GOOD, "id": "z"}]),
        "d": Kept([{**GOOD, "id": "y"}]),
    }
    failed, kept = run(outcomes)
    assert {id: text.split(";")[0] for id, text in failed.items()} == {
        "b": "stage 'faulty': another row has id x",
        "c": "stage 'faulty': another row has id z",
    }
    assert kept == ["x", "y"]


def test_a_triplet_has_its_pictures() -> None:
    """A row without one of them fails where it is written; other pictures may be null."""
    rows = [{"id": "a", **GOOD}, {"id": "b", **GOOD, "mask": None}, {"id": "c", **GOOD, "depth": None}]
    table, failed, count = encode_shard(PartialShard(rows, 3), COLUMNS)
    assert table["id"].to_pylist() == ["a", "c"]
    assert [(row.id, row.detail) for row in failed] == [("b", "record b is a triplet without mask")]
    assert count.balances()


def encode(ids: list[str]) -> Any:
    return encode_records([{"id": id, **GOOD} for id in ids], COLUMNS)


def count(rows: int, rejected: int = 0) -> list[StageCount]:
    return [StageCount("s", rows + rejected, rows, rows, {"small": rejected} if rejected else {})]


def test_a_commit_is_refused_that_is_not_what_it_says(tmp_path: Path) -> None:
    """Nothing is committed: no record, and no shard that a manifest could name."""
    store = Store(tmp_path / "table")
    row = RejectedRow("x", None, "s", "rejected", "small", "", "x")
    table = encode(["a", "b"])
    null = table.set_column(4, table.schema.field("mask"), pa.nulls(2, table.schema.field("mask").type))
    bad: list[tuple[Any, list[RejectedRow], list[StageCount], str]] = [
        (encode(["a", "a"]), [], count(2), "id a is there twice"),
        (encode(["a", "b"]).set_column(0, "id", [["a", None]]), [], count(2), "a row has no id"),
        (null, [], count(2), "row a has no mask"),
        (encode(["a"]), [RejectedRow("x", None, "s", "rejected", None, "", "x")], count(1, 1), "reason None"),
        (encode(["a"]), [RejectedRow("x", None, "s", "lost", "small", "", "x")], count(1, 1), "outcome 'lost'"),
        (encode(["a"]), [row], count(1), "0 were rejected or failed, 1 have a row"),
        (encode(["a"]), [], count(2), "2 rows came out, 1 are on disk"),
        (encode(["a"]), [row, row], count(1, 1), "1 were rejected or failed, 2 have a row"),
    ]
    for table, rejected, counts, text in bad:
        with pytest.raises(ValueError, match=text):
            commit(store, "s1", "part", counts[0].inputs, table, rejected, counts)
        assert store.files("lines") == []
    commit(store, "s1", "part", 3, encode(["a", "b"]), [row], count(2, 1))
    assert store.files("lines") == ["s1.json"]


def test_ids_that_two_shards_have_are_no_table(tmp_path: Path) -> None:
    store = Store(tmp_path / "table")
    records = [
        commit(store, name, "part", len(ids), encode(ids), [], count(len(ids)))
        for name, ids in {"s1": ["a", "b"], "s2": ["c"], "s3": ["d", "b"]}.items()
    ]
    with pytest.raises(DoubledIds, match=r"rows of shards s1 and s3 have one id; .*make_child_id"):
        write_manifest(store, records, COLUMNS)
    assert not store.exists("manifest.parquet")
    write_manifest(store, records[:2], COLUMNS)
    assert [record.shard for record in read_manifest(store)[0]] == ["s1", "s2"]


def test_a_commit_after_another_one_with_other_rows_is_made_again(tmp_path: Path) -> None:
    """The first record stays only while the files are what it says: a late worker has written over them."""
    store = Store(tmp_path / "table")
    commit(store, "s1", "part", 1, encode(["a"]), [], count(1))
    commit(store, "s1", "part", 1, encode(["a"]), [], count(1))  # equal bytes: a worker of a killed driver
    with pytest.raises(StoreError, match="committed with other rows by another worker"):
        commit(store, "s1", "part", 1, encode(["b"]), [], count(1))
    assert store.files("lines") == []
    record = commit(store, "s1", "part", 1, encode(["b"]), [], count(1))
    write_manifest(store, [record], COLUMNS)
    assert read_manifest(store)[0][0] == record
