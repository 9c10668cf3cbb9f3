"""The folder that an export writes into: what is replaced, what is refused, and what stays."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.dataset_runs import make_finished_run, make_row

from rasura import open_run
from rasura.manifests.errors import UnknownNameError
from rasura.manifests.formats.registry import FORMATS
from rasura.manifests.formats.target import ForeignFolder
from rasura.manifests.storage import Store
from rasura.pipeline.export import NothingToExport, export_run
from rasura.pipeline.run.verify import verify


@pytest.fixture
def run(tmp_path: Path) -> Store:
    """A finished run of four triplets, one of them large enough for PowerPaint."""
    rows = [make_row(number, side=512 if number == 3 else 24) for number in range(4)]
    return make_finished_run(tmp_path / "runs" / "cars", rows, shard_bytes=10**7)


def list_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def write_foreign_files(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".parquet"):
            pq.write_table(pa.table({"theirs": [1]}), folder / name)
        else:
            (folder / name).write_text(json.dumps({"name": "their extension", "version": 3, "files": ["x"]}))


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize(
    ("files", "foreign"),
    [
        (["manifest.json", "data/train-00000-of-00001.parquet"], "manifest.json"),
        (["data/train-00000-of-00001.parquet"], "data/train-00000-of-00001.parquet"),
        (["README.md"], "README.md"),
        (["photos/holiday.jpg"], "photos/holiday.jpg"),
    ],
)
def test_a_folder_of_others_is_refused(run: Store, tmp_path: Path, layout: str, files: list[str], foreign: str) -> None:
    """A folder with files that no export wrote keeps every byte of them, whatever their names are."""
    folder = tmp_path / "theirs"
    write_foreign_files(folder, files)
    before = {name: (folder / name).read_bytes() for name in list_files(folder)}
    with pytest.raises(ForeignFolder, match=rf"something else \({foreign}\).*name a new folder"):
        export_run(run, Store(folder), layout)
    assert before == {name: (folder / name).read_bytes() for name in list_files(folder)}


def test_an_export_replaces_the_files_of_the_last_one_only(run: Store, tmp_path: Path) -> None:
    """Each layout leaves nothing of the one before; notes beside a dataset stay; a file among its data is refused."""
    folder = tmp_path / "out"
    for layout in (*FORMATS, "huggingface"):
        export_run(run, Store(folder), layout)
        (folder / "notes.txt").write_text("ours")
        assert verify(Store(folder)).faults == []
    expected = ["README.md", "croissant.json", "data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"]
    assert list_files(folder) == [*expected, "manifest.json", "notes.txt"]
    (folder / "data" / "theirs.csv").write_text("1")
    with pytest.raises(ForeignFolder, match=r"data/theirs\.csv"):
        export_run(run, Store(folder))
    assert (folder / "data" / "theirs.csv").exists()


def test_a_manifest_that_leads_out_deletes_nothing(run: Store, tmp_path: Path) -> None:
    """Names in a manifest that leave its folder make it a foreign one."""
    (tmp_path / "precious.txt").write_text("x")
    export_run(run, Store(tmp_path / "out"))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    manifest["files"][0]["name"] = "../precious.txt"
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ForeignFolder):
        export_run(run, Store(tmp_path / "out"))
    assert (tmp_path / "precious.txt").exists()


@pytest.mark.parametrize("layout", FORMATS)
def test_an_export_that_was_killed_can_be_repeated(
    run: Store, tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export that stops before its card has no manifest; the same export then writes the complete dataset."""
    out, write = Store(tmp_path / "out"), Store.write

    def stop(self: Store, path: str, data: bytes) -> None:
        if path == "README.md":
            raise KeyboardInterrupt
        write(self, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            export_run(run, out, layout)
    assert not out.exists("manifest.json")
    export_run(run, out, layout)
    assert verify(out).faults == []
    assert list(out.local.glob(".rasura-*")) == []  # type: ignore[union-attr]


def test_an_export_is_apart_from_runs(run: Store, tmp_path: Path) -> None:
    """The run itself, a folder in it, a folder around it and a folder in another run are refused."""
    make_finished_run(tmp_path / "runs" / "other", [make_row(0)])
    (tmp_path / "link").symlink_to(tmp_path / "runs" / "cars")
    for out in ("runs/cars", "runs/cars/dataset", "runs", "runs/other/dataset", "link/more"):
        with pytest.raises(ForeignFolder, match="name a"):
            export_run(run, Store(tmp_path / out))


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    """A run without triplets, a dataset without rows, and a format that does not exist; a flow may be a plain text."""
    run = make_finished_run(tmp_path / "run", [make_row(0)])
    opened = open_run(str(run.uri))
    assert opened.export(tmp_path / "out", flows="made") == 1
    with pytest.raises(UnknownNameError, match="unknown format 'rorm'; did you mean 'rorem'"):
        opened.export(tmp_path / "x", format="rorm")
    empty = make_finished_run(tmp_path / "empty", [])
    with pytest.raises(NothingToExport, match="no row in made"):
        export_run(empty, Store(tmp_path / "x"))
    plan = json.loads(run.read("plan.json"))
    plan["flows"]["made"]["columns"].pop("target")
    run.write("plan.json", json.dumps({**plan, "dataset": None}).encode())
    with pytest.raises(NothingToExport, match="has nothing to export: it has no dataset"):
        export_run(run, Store(tmp_path / "x"))
    assert not (tmp_path / "x").exists()
