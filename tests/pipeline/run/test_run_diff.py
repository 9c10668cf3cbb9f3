"""What differs between two runs or datasets is found row by row, with the reason; what is equal is not reported."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DATA

from rasura.manifests.shards import REJECTED_SCHEMA
from rasura.pipeline.run.comparison.diff import UNRECORDED, NotComparable, Side, compare_sides, diff

RUN = DATA / "written_by_0_1_0" / "demo_run"


def rewrite_dataset(folder: Path, change: Any) -> str:
    """Copy the demo's dataset with its rows changed."""
    shutil.copytree(RUN / "dataset", folder)
    for path in folder.rglob("*.parquet"):
        table = pq.read_table(path, partitioning=None)
        rows = table.to_pylist()
        pq.write_table(pa.Table.from_pylist(change(rows), schema=table.schema), path)
    return str(folder)


def test_a_run_equals_itself_and_its_dataset() -> None:
    for place in (RUN, RUN / "dataset"):
        for entry in diff(str(RUN), str(place), pictures=True):
            assert entry.before == entry.after > 0
            assert entry.added.total() + entry.gone.total() + entry.changed == 0


def test_each_difference_of_two_datasets_is_found(tmp_path: Path) -> None:
    """A row that is gone, one that is new, a value and a picture that are others: each once, and nothing else."""
    touched: list[str] = []

    def change(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if len(rows) < 3 or touched:
            return rows
        first, second, third, *rest = rows
        touched.extend([first["id"], second["id"], third["id"]])
        second["label"] = "a cup"
        third["mask"]["bytes"] = third["mask"]["bytes"] + b"\0"
        return [first | {"id": "new"}, second, third, *rest]

    place = rewrite_dataset(tmp_path / "changed", change)
    (entry,) = diff(str(RUN), place)
    assert entry.before == entry.after
    assert (entry.added.total(), entry.gone.total(), entry.changed) == (1, 1, 1)
    assert entry.columns == {"label": 1}
    assert entry.examples == {"added": ["new"], "gone": touched[:1], "changed": touched[1:2]}
    (entry,) = diff(str(RUN), place, pictures=True)
    assert entry.changed == 2
    assert entry.columns == {"label": 1, "mask": 1}
    (back,) = diff(place, str(RUN / "dataset"))
    assert (back.added.total(), back.gone.total(), back.changed) == (1, 1, 1)


def test_what_an_export_left_out_has_the_exports_reason(tmp_path: Path) -> None:
    """The list beside the dataset says why; a row that no list has is not called one without an input."""
    place = rewrite_dataset(tmp_path / "filtered", lambda rows: rows[:-2])
    gone = sorted(diff(str(RUN), place)[0].examples["gone"])
    assert set(diff(str(RUN), place)[0].gone) == {UNRECORDED}
    lines = [json.dumps({"id": id, "reason": "not true of it: label = 'cup'"}) for id in gone[:-1]]
    (Path(place) / "left_out.jsonl").write_text("\n".join(lines))
    (entry,) = diff(str(RUN), place)
    assert entry.gone == {"left out by export: not true of it: label = 'cup'": len(gone) - 1, UNRECORDED: 1}
    (back,) = diff(place, str(RUN))
    assert back.added == entry.gone
    (Path(place) / "left_out.jsonl").write_text("[1]")
    with pytest.raises(NotComparable, match=r"left_out\.jsonl' is no list"):
        diff(str(RUN), place)


def test_reasons_come_before_the_names_of_many_columns() -> None:
    row = {"id": "a", "origin": "1.png"}
    entry = compare_sides(
        "t", make_side([row | {f"c{number}": 1 for number in range(40)}]), make_side([{"id": "b", "origin": "2.png"}])
    )
    *_, reason, columns = entry.describe()
    assert "1 its input is not there" in reason
    assert columns.startswith("  40 columns only before: c0,")
    assert columns.endswith("c5 and 34 more")


def make_side(rows: list[dict[str, Any]], rejections: list[dict[str, str]] | None = None) -> Side:
    """A side with these rows."""
    places = [{"shard": "s", "row": number} for number in range(len(rows))]
    table = pa.Table.from_pylist([row | place for row, place in zip(rows, places, strict=True)])
    rejected = pa.Table.from_pylist(rejections or [], schema=REJECTED_SCHEMA)
    return Side(table, ["source"], lambda row, column: None, rejected)


def test_rows_that_are_gone_have_the_reason_of_their_rejection() -> None:
    """By their own id, that of a parent, or their origin; a row of another making is told from a missing input."""
    rows = [
        {"id": "a", "origin": "1.png", "parents": []},
        {"id": "b~0", "origin": "2.png", "parents": ["b"]},
        {"id": "c~9", "origin": "3.png", "parents": ["x"]},
        {"id": "d", "origin": "4.png", "parents": []},
        {"id": "e", "origin": "5.png", "parents": []},
        {"id": "f", "origin": "6.png", "parents": []},
    ]
    reject = {"stage": "audit", "outcome": "rejected", "detail": ""}
    rejections = [
        reject | {"id": "a", "origin": "1.png", "reason": "residue", "input_id": "a"},
        reject | {"id": "b", "origin": "2.png", "reason": "cut", "input_id": "b"},
        reject | {"id": "c", "origin": "3.png", "reason": "cut", "input_id": "c"},
    ]
    after = make_side([{"id": "d2", "origin": "4.png", "parents": []}, rows[5]], rejections)
    entry = compare_sides("captured", make_side(rows), after)
    assert entry.gone == {
        "rejected by audit: residue": 1,
        "rejected by audit: cut": 2,
        "made of other inputs or by other steps": 1,
        "its input is not there": 1,
    }
    assert entry.added == {"made of other inputs or by other steps": 1}
    assert entry.changed == 0


def test_values_are_compared_as_values() -> None:
    """No number equals no number, nothing equals nothing; lists, versions of stages and new columns count."""
    stages = [{"name": "pair", "value": "3"}, {"name": "audit", "value": "5"}]
    row = {"id": "a", "score": float("nan"), "label": None, "gain": [1.0, 2.0], "stages": stages}
    assert compare_sides("t", make_side([row]), make_side([row])).changed == 0
    newer = [{"name": "pair", "value": "4"}, stages[1]]
    entry = compare_sides("t", make_side([row]), make_side([row | {"gain": [1.0], "stages": newer, "new": 1}]))
    assert entry.changed == 1
    assert entry.columns == {"gain": 1, "stage pair: version 3 → 4": 1}
    assert entry.columns_added == ["new"]


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotComparable, match="no run, and no dataset"):
        diff(str(RUN), str(tmp_path / "nothing"))
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(NotComparable, match="no column id"):
        diff(str(RUN), str(tmp_path))
    with pytest.raises(NotComparable, match="did you mean"):
        diff(str(RUN), str(RUN), table="capturd")
