"""An export that was killed goes on: the files that it has written are kept, if they are whole and of the same rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.dataset_runs import make_finished_run, make_row, read_files

from rasura.manifests.formats.tables import layout as table_layout
from rasura.manifests.formats.target import JOURNAL
from rasura.manifests.storage import Store
from rasura.pipeline.export import export_run

LAYOUTS = ["huggingface", "ober"]


class Killed(BaseException):
    """What no code handles."""


@pytest.fixture
def run(tmp_path: Path) -> Store:
    """A finished run whose dataset has a file for each row."""
    return make_finished_run(tmp_path / "run", [make_row(number) for number in range(7)], shard_bytes=1000)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each data file that is encoded from here on."""
    rows: list[int] = []
    original = table_layout.encode_parquet

    def encode(table: Any, **options: Any) -> bytes:
        rows.append(table.num_rows)
        return original(table, **options)

    monkeypatch.setattr(table_layout, "encode_parquet", encode)
    return rows


def kill_after(files: int) -> Callable[[float, float, str], None]:
    def on_progress(done: float, total: float, note: str) -> None:
        if done == files:
            raise Killed

    return on_progress


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_missing_files_are_written(run: Store, tmp_path: Path, layout: str, encoded: list[int]) -> None:
    """Killed after three of seven files, and again after two more; in the end it is the undisturbed export."""
    export_run(run, Store(tmp_path / "undisturbed"), layout)
    out = Store(tmp_path / "killed")
    for files in (3, 5):
        with pytest.raises(Killed):
            export_run(run, out, layout, on_progress=kill_after(files))
        assert not out.exists("manifest.json")
    encoded.clear()
    export_run(run, out, layout)
    assert encoded == [1, 1]
    assert read_files(tmp_path / "killed") == read_files(tmp_path / "undisturbed")
    assert JOURNAL not in read_files(tmp_path / "killed")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_that_is_not_what_was_written_is_written_again(
    run: Store, tmp_path: Path, layout: str, encoded: list[int]
) -> None:
    """One has a flipped bit, one is gone: the size alone is not believed."""
    export_run(run, Store(tmp_path / "undisturbed"), layout)
    out = Store(tmp_path / "killed")
    with pytest.raises(Killed):
        export_run(run, out, layout, on_progress=kill_after(4))
    first, second, *_ = out.files("data")
    data = bytearray(out.read(f"data/{first}"))
    data[len(data) // 2] ^= 1
    (tmp_path / "killed" / "data" / first).write_bytes(bytes(data))
    out.delete(f"data/{second}")
    encoded.clear()
    export_run(run, out, layout)
    assert len(encoded) == 3 + 2
    assert read_files(tmp_path / "killed") == read_files(tmp_path / "undisturbed")


def test_files_of_other_rows_are_not_kept(run: Store, tmp_path: Path, encoded: list[int]) -> None:
    """After the run was made again with other rows, in files of the same names, or in another layout."""
    out = Store(tmp_path / "killed")
    with pytest.raises(Killed):
        export_run(run, out, on_progress=kill_after(5))
    encoded.clear()
    with pytest.raises(Killed):
        export_run(run, out, "ober", on_progress=kill_after(5))
    assert len(encoded) == 5
    other = make_finished_run(tmp_path / "other", [make_row(n, label="van") for n in range(7)], shard_bytes=1000)
    encoded.clear()
    export_run(other, out, "ober")
    assert len(encoded) == 7
    export_run(other, Store(tmp_path / "undisturbed"), "ober")
    assert read_files(tmp_path / "killed") == read_files(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    "journal", ["", "[]", '{"key": 3, "written": [{"name": "../x"}], "made_by": "Made by Rasura"}']
)
def test_a_damaged_journal_keeps_nothing(run: Store, tmp_path: Path, journal: str, encoded: list[int]) -> None:
    out = Store(tmp_path / "killed")
    with pytest.raises(Killed):
        export_run(run, out, on_progress=kill_after(5))
    out.write(JOURNAL, journal.encode())
    encoded.clear()
    export_run(run, out)
    assert len(encoded) == 7
