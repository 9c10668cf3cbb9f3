"""The audit's table and page: judged rows in order, accounts that add up, and nothing of the data that is obeyed."""

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.run_tables import write_table

from rasura.manifests.errors import InputError
from rasura.manifests.run_layout import passed_over_path
from rasura.manifests.schemas import Kind
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.audit.arguments import name_run, parse_limits, parse_params
from rasura.pipeline.audit.layouts import UnknownLayout, find_layout, find_splits
from rasura.pipeline.audit.page import render_page
from rasura.pipeline.audit.table import HEAD, LEAK, AuditTable, encode_csv, protect_cell, read_table
from rasura.stages.curation.faults import LIMITS
from rasura.stages.curation.inspection import Inspect

HOSTILE = "=cmd|' /C calc'!A0<script>alert(1)</script>\x1b[2J\u202egpj.exe"
COLUMNS: dict[str, Kind] = {
    **dict.fromkeys(("id", "origin", "split"), Kind.STRING),
    **{name: kind for name, kind in Inspect.gives.items() if kind is not Kind.RGB},
    "inspect_strip": Kind.RGB,
}


def make_table(folder: Path) -> tuple[Store, AuditTable]:
    """A table of five rows in two splits, of which two have one fingerprint."""
    store = Store(folder)
    strip = np.full((20, 60, 3), 77, np.uint8)
    rows: list[dict[str, Any]] = [
        {"id": "a", "origin": HOSTILE, "split": "train", "inspect_shift": 0.4, "inspect_strip": strip},
        {"id": "b", "origin": "b.png", "split": "train", "inspect_shift": 0.01, "inspect_exact": True},
        {"id": "c", "origin": "c.png", "split": "train", "mask_changed": 0.1, "inspect_shift": 0.3},
        {"id": "d", "origin": "d.png", "split": "train", "inspect_verdict": f"no difference: {HOSTILE}"},
        {"id": "e", "origin": "e.png", "split": "train", "audit_cut": 2.0},
    ]
    prints = ["ab" * 72, "00" * 72, "5a" * 72, None, "0f" * 72]
    write_table(
        store,
        "inspected_train",
        [r | {"inspect_fingerprint": p} for r, p in zip(rows, prints, strict=True)],
        COLUMNS,
        2,
    )
    copy = {"id": "f", "origin": "f.png", "split": "test", "inspect_fingerprint": prints[1]}
    write_table(store, "inspected_test", [copy], COLUMNS, 2)
    return store, read_table(store, ["inspected_train", "inspected_test"], None, LIMITS)


def test_rows_are_judged_and_ordered(tmp_path: Path) -> None:
    """What cannot be mended first; the fault that leaves a row out is its reason; the larger split's copy goes."""
    _, table = make_table(tmp_path)
    assert [row.id for row in table.rows][-2:] == ["e", "f"]
    by_id = {row.id: row for row in table.rows}
    assert {id: row.outcome for id, row in by_id.items()} == {
        **dict.fromkeys("abcd", "faulty"),
        "e": "doubtful",
        "f": "good",
    }
    assert by_id["a"].repairs == ["registration"]
    assert by_id["a"].is_repairable
    assert [by_id[id].is_repairable for id in "bcd"] == [False] * 3
    assert by_id["b"].reason == LEAK
    assert by_id["c"].reason == "mask covers what stays"
    assert [row.id for row in table.rows[:4]][-1] == "a"
    lines = list(table.describe())
    assert lines[0] == "6 rows: 4 faulty, 1 doubtful, 1 good"


def test_nothing_in_table_or_page_is_obeyed(tmp_path: Path) -> None:
    """No formula, no line feed in a cell, no tag, no handler; the strip is there; one script, the page's own."""
    store, table = make_table(tmp_path)
    lines = list(csv.reader(io.StringIO(encode_csv(table).decode())))
    assert lines[0][: len(HEAD)] == list(HEAD)
    assert len(lines) == 7
    assert all(len(line) == len(lines[0]) for line in lines)
    assert not any(cell.startswith(("=", "+", "@", "\t")) or "\x1b" in cell for line in lines for cell in line)
    assert protect_cell("-1+1") == "'-1+1"
    page = render_page(HOSTILE, table, Tables(store), 100, LIMITS)

    class Reader(HTMLParser):
        tags: list[tuple[str, dict[str, str | None]]] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.tags.append((tag, dict(attrs)))

    reader = Reader()
    reader.feed(page)
    assert [tag for tag, _ in reader.tags].count("script") == 1
    assert not any(name.startswith("on") for _, attrs in reader.tags for name in attrs)
    assert sum(tag == "img" and attrs["src"].startswith("data:image/webp") for tag, attrs in reader.tags) == 1
    policy = next(attrs["content"] for tag, attrs in reader.tags if "http-equiv" in attrs)
    assert "default-src 'none'" in policy
    assert len(re.findall(r"<article ", page)) == 6
    short = render_page("x", table, Tables(store), 2, LIMITS)
    assert "4 better ones are in the table only" in short


def test_what_is_in_no_row_is_counted_in_summary_and_page(tmp_path: Path) -> None:
    """A folder whose files have endings of two kinds: those of one are read, and the others are not forgotten."""
    store, table = make_table(tmp_path)
    assert not any("passed over" in line for line in table.describe())
    store.write(passed_over_path("inspected_train"), b'{"name has none of the endings _start, _end": 9, "hidden": 1}')
    table = read_table(store, ["inspected_train", "inspected_test"], None, LIMITS)
    (line,) = [line for line in table.describe() if "passed over" in line]
    assert line.startswith("10 files passed over, in no row: 9 name has none of the endings _start, _end, 1 hidden")
    assert line in render_page("x", table, Tables(store), 10, LIMITS)


def test_layouts_are_found_by_what_is_there(tmp_path: Path) -> None:
    """Folders, endings, lists; an empty or a foreign folder is refused with what was looked for."""
    for name in ("both/input/a.png", "both/gt/a.png", "ends/a_before.png", "ends/a_after.png", "ends/a_mask.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for name in ("list/meta.json", "rord/img/a.png", "rord/gt/a.png", "tars/0.tar", "other/a.png", "bad/x.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"[]")
    found = {name: find_layout(str(tmp_path / name)).source for name in ("both", "ends", "list", "rord", "tars")}
    assert found == {"both": "pairs", "ends": "pairs", "list": "rorem", "rord": "rord", "tars": "webdataset"}
    assert find_layout(str(tmp_path / "ends")).params["endings"] == {
        "input": "_before",
        "gt": "_after",
        "mask": "_mask",
    }
    for name in ("y_input.png", "y_target.png", *(f"{n}_{part}.png" for n in "uvw" for part in ("start", "end"))):
        (tmp_path / "mixed" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "mixed" / name).write_bytes(b"x")
    assert find_layout(str(tmp_path / "mixed")).params["endings"] == {"input": "_start", "gt": "_end"}, "three of four"
    with pytest.raises(UnknownLayout, match="has no layout that is known"):
        find_layout(str(tmp_path / "other"))
    with pytest.raises(UnknownLayout, match=r"x\.parquet' cannot be read"):
        find_layout(str(tmp_path / "bad"))
    for name in ("split/train/input", "split/test/input"):
        (tmp_path / name).mkdir(parents=True)
    assert set(find_splits([str(tmp_path / "split")])) == {"train", "test"}
    for places in (["a", "b"], ["train=a", "train=b"], ["../x=a", "test=b"], ["train=", "test=b"]):
        with pytest.raises(InputError):
            find_splits(places)


def test_arguments_are_checked() -> None:
    """Limits by column and number, parameters as YAML, and a folder's name that is one word."""
    assert name_run(["../../etc/pass wd"]) == "runs/audit-pass-wd"
    assert name_run(["/"]) == "runs/audit-dataset"
    for text in ("inspect_shift", "inspect_shift=", "inspect_shift=nan", "inspect_shift=x", "nothing=1", "=1"):
        with pytest.raises(InputError):
            parse_limits([text])
    for text in ("max_side", "a={", "=1"):
        with pytest.raises(InputError):
            parse_params([text])
