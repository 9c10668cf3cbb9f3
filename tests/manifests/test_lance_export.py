"""Exports as Lance datasets: what Lance reads is what the run has, killed ones go on, and what was changed is found."""

import re
import tempfile
from pathlib import Path

import lance
import pyarrow as pa
import pytest
from support.dataset_runs import make_finished_run, make_row

from rasura.manifests.formats.target import ForeignFolder
from rasura.manifests.parquet import read_parquet
from rasura.manifests.remote_files import StoreError
from rasura.manifests.schemas import read_schema
from rasura.manifests.storage import Store
from rasura.pipeline.export import ExportOptions, export_run
from rasura.pipeline.run.comparison.diff import NotComparable, diff
from rasura.pipeline.run.verify import verify


class Killed(BaseException):
    """What no code handles."""


@pytest.fixture
def run(tmp_path: Path) -> Store:
    """A finished run whose dataset has a file for each row: five of `train`, two of `test`."""
    return make_finished_run(tmp_path / "run", [make_row(number) for number in range(7)], shard_bytes=1000)


def read_columns(folder: Path, split: str) -> pa.Table:
    """The rows of a split in `huggingface`, which has the run's."""
    return pa.concat_tables(read_parquet(path) for path in sorted((folder / "data").glob(f"{split}-*.parquet")))


def test_lance_reads_what_the_run_has(run: Store, tmp_path: Path) -> None:
    """Every value, null, kind and byte of a picture; single rows; a condition. `verify` finds nothing."""
    export_run(run, Store(tmp_path / "parquet"))
    manifest = export_run(run, Store(tmp_path / "out"), "lance")
    assert manifest["rows"] == sum(file["rows"] for file in manifest["files"]) == 7
    for split in ("train", "test"):
        dataset = lance.dataset(tmp_path / "out" / f"{split}.lance")
        dataset.validate()
        expected = read_columns(tmp_path / "parquet", split)
        assert read_schema(dataset.schema) == read_schema(expected.schema)
        assert dataset.schema.metadata == expected.schema.metadata
        assert dataset.to_table().to_pylist() == expected.to_pylist()
        last = dataset.take([len(expected) - 1]).to_pylist()
        assert last == expected.slice(len(expected) - 1).to_pylist()
        assert dataset.count_rows("label is null") == expected["label"].null_count
    assert verify(Store(tmp_path / "out")).faults == []
    card = (tmp_path / "out" / "README.md").read_text()
    assert re.search(r'lance.dataset\("path/to/this/folder/(train|test).lance"\)', card)


def test_a_killed_export_goes_on(run: Store, tmp_path: Path) -> None:
    """Killed after four of seven files, it writes the other three; data files are those of an undisturbed export."""
    export_run(run, Store(tmp_path / "undisturbed"), "lance")
    out = Store(tmp_path / "out")

    def kill(done: float, total: float, note: str) -> None:
        if done == 4:
            raise Killed

    with pytest.raises(Killed):
        export_run(run, out, "lance", on_progress=kill)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.lance") if path.is_file()}
    assert len(written) == 4
    assert list((tmp_path / "out").rglob("_versions")) == []  # Lance finds no dataset yet
    export_run(run, out, "lance")
    assert {path: path.stat().st_mtime_ns for path in written} == written
    for path in filter(Path.is_file, (tmp_path / "undisturbed").rglob("*.lance")):
        assert (tmp_path / "out" / path.relative_to(tmp_path / "undisturbed")).read_bytes() == path.read_bytes()
    expected = lance.dataset(tmp_path / "undisturbed" / "train.lance").to_table()
    assert lance.dataset(tmp_path / "out" / "train.lance").to_table().equals(expected)


def test_what_was_changed_is_found(run: Store, tmp_path: Path) -> None:
    """A byte of a data file or of a version, and rows that somebody added, which a second export does not replace."""
    out = Store(tmp_path / "out")
    export_run(run, out, "lance")
    export_run(run, out, "lance")  # its own files it replaces
    for pattern in ("test.lance/data/00000*", "train.lance/_versions/*"):
        (path,) = (tmp_path / "out").glob(pattern)
        data = path.read_bytes()
        path.write_bytes(data[:9] + bytes([data[9] ^ 1]) + data[10:])
        (fault,) = verify(out).faults
        assert str(path.relative_to(tmp_path / "out")) in fault
        assert "was changed or cut" in fault
        path.write_bytes(data)
    assert verify(out).faults == []
    rows = lance.dataset(tmp_path / "out" / "train.lance").to_table()
    lance.write_dataset(rows.slice(0, 1), tmp_path / "out" / "train.lance", mode="append")
    assert any("train.lance/_versions/: files that are not in the manifest" in fault for fault in verify(out).faults)
    with pytest.raises(ForeignFolder, match=r"train\.lance/"):
        export_run(run, out, "lance")


def test_a_replaced_export_is_no_dataset_until_it_is_whole(run: Store, tmp_path: Path) -> None:
    """No version of the old one lists a new one's data files: killed after the first of them, Lance opens neither."""
    out = Store(tmp_path / "out")
    export_run(run, out, "lance")

    def kill(done: float, total: float, note: str) -> None:
        if done == 1:
            raise Killed

    with pytest.raises(Killed):
        export_run(run, out, "lance", on_progress=kill, options=ExportOptions(where="split = 'train'"))
    for split in ("train", "test"):
        with pytest.raises(ValueError, match="not found"):
            lance.dataset(tmp_path / "out" / f"{split}.lance")


def test_a_temporary_folder_that_cannot_be_written_is_named(
    run: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lance writes there first; the folder is no dataset, and once there is room, the same export goes on."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(StoreError, match=rf"{tmp_path}/gone \(TMPDIR\).*: No such file or directory"):
        export_run(run, Store(tmp_path / "out"), "lance")
    with pytest.raises(NotComparable, match="no run, and no dataset"):
        diff(str(tmp_path / "out"), run.uri)
    (tmp_path / "gone").mkdir()
    export_run(run, Store(tmp_path / "out"), "lance")
    assert verify(Store(tmp_path / "out")).faults == []
    with pytest.raises(NotComparable, match="an export that cannot be compared; export as 'huggingface'"):
        diff(str(tmp_path / "out"), run.uri)
