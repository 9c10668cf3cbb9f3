"""A run whose files are missing or damaged: what can be made anew counts as absent, the rest is one sentence."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import environment, rasura
from support.annotator.runs import make_run
from support.dataset_runs import make_finished_run, make_row

from rasura.manifests.compacted.commit_log import read_commit_log
from rasura.manifests.compacted.manifest import NO_RECORDS, read_manifest
from rasura.manifests.errors import ReviewError, StorageError
from rasura.manifests.formats.tables.table_export import export_dataset
from rasura.manifests.run_layout import DATASET, REVIEW_DATABASE, read_plan
from rasura.manifests.shards import DamagedFile
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.manifests.uris import check_uri
from rasura.pipeline.cli.options import explain
from rasura.pipeline.export import export_run
from rasura.pipeline.run.accounting import compute_accounting, list_commits, render_tables
from rasura.pipeline.run.dataset import ExportRecord, find_missing_file, read_export_record, write_export_record
from rasura.pipeline.run.review import read_review_accounting
from rasura.stages.sources.files import RunContext, compute_content_ids
from rasura.stages.sources.listing import find_files

Damage = Callable[[Path], object]


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = [truncate, empty, Path.unlink]


@pytest.fixture
def run(tmp_path: Path) -> Store:
    """A finished run of six triplets in two shards, with its dataset."""
    store = make_finished_run(tmp_path / "run", [make_row(number) for number in range(6)])
    export_dataset(Tables(store), ["made"], store.sub(DATASET), "cars", "0123", ["train", "test"], 10**6)
    write_export_record(store, ExportRecord("key", 6))
    return store


def test_a_dataset_is_believed_only_with_all_of_its_files(run: Store) -> None:
    """Each file of it in turn is missing or cut: `status` names it, and an export is needed."""
    assert find_missing_file(run) is None
    assert compute_accounting(run).dataset_rows == 6
    folder = Path(run.uri) / DATASET
    for file in [path for path in sorted(folder.rglob("*")) if path.is_file()]:
        whole = file.read_bytes()
        for damage in DAMAGES if file.name != "README.md" else [Path.unlink]:
            damage(file)
            accounting = compute_accounting(run)
            name = file.relative_to(run.uri).as_posix()
            assert (accounting.dataset_rows, accounting.dataset_missing) == (None, name)
            assert f"dataset: {name} is missing or damaged" in "".join(map(str, render_tables(accounting, 200)))
            file.write_bytes(whole)
    assert find_missing_file(run) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"key": "a"}', '{"rows": "many", "key": 1}'])
def test_a_damaged_export_record_counts_as_absent(run: Store, text: str) -> None:
    run.write("export.json", text.encode())
    assert read_export_record(run) is None


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["shards", "lines"])
def test_a_shard_without_its_file_or_record_is_made_again(run: Store, kind: str, damage: Damage) -> None:
    """The others are not. Reading the damaged file is one sentence with the file and the remedy."""
    table = run.sub("tables/made")
    records, *_ = read_manifest(table)
    bad, good = records[0].shard, records[1].shard
    damage(next((Path(table.uri) / kind).glob(f"{bad}.*")))
    whole, damaged = read_commit_log(table, [bad, good], records if kind == "shards" else NO_RECORDS)
    assert list(whole) == [good]
    assert damaged == ([] if (kind, damage) == ("lines", Path.unlink) else [bad])
    if kind == "shards":
        with pytest.raises(DamagedFile, match=rf"{bad}\.parquet' is (damaged|missing).*run the recipe again"):
            Tables(run).table("made").read_light()
        with pytest.raises(DamagedFile, match="run the recipe again"):
            Tables(run).table("made").row(bad, 0)
    elif damaged:
        table.delete("manifest.parquet")
        assert [record.shard for record in list_commits(run, "made", "p")[0]] == [good]


@pytest.mark.parametrize("damage", [truncate, empty])
def test_a_damaged_manifest_counts_as_absent(run: Store, damage: Damage) -> None:
    """The accounting says that the table is not complete; who reads it is told why in one sentence."""
    damage(Path(run.uri) / "tables/made/manifest.parquet")
    (flow,) = compute_accounting(run).flows
    assert (flow.complete, flow.shards, flow.rows) == (False, 2, 6)
    with pytest.raises(DamagedFile, match=r"manifest\.parquet' is damaged \(.*\); delete it and run the recipe"):
        Tables(run).table("made")


@pytest.mark.parametrize("text", ["", "[", "[]", "{}", '{"flows": 3}', '{"flows": {}, "name": "a"}'])
def test_a_damaged_plan_is_told_without_the_words_of_python(run: Store, text: str) -> None:
    run.write("plan.json", text.encode())
    with pytest.raises(StorageError, match=r"plan\.json' is damaged \(it is no .*run the recipe again") as caught:
        read_plan(run)
    assert "Error(" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"x": 3}'])
def test_a_damaged_listing_counts_as_absent(tmp_path: Path, text: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"picture")
    run, files = Store(tmp_path / "run"), find_files(str(tmp_path / "in"))
    ids = compute_content_ids(files, RunContext(run, "made", 0))
    whole = run.read("listings/made.json")
    run.write("listings/made.json", text.encode())
    assert compute_content_ids(files, RunContext(run, "made", 0)) == ids
    assert json.loads(run.read("listings/made.json")) == json.loads(whole)


def test_a_damaged_review_is_a_line_of_status(tmp_path: Path) -> None:
    """The rest is shown; the database is neither repaired nor changed, and nothing is written beside it."""
    run = make_run(tmp_path / "run", 2)
    file = tmp_path / "run" / REVIEW_DATABASE
    file.parent.mkdir()
    file.write_bytes(b"no database" * 100)
    done = rasura("status", tmp_path / "run")
    assert "review: the review's database cannot be read: " in done.stdout
    assert "review: the review's database cannot be read" in rasura("verify", tmp_path / "run", check=False).stdout
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE meta (key, value)")
        other.execute("INSERT INTO meta VALUES ('version', '999')")
    other.close()
    file.write_bytes((tmp_path / "other.sqlite").read_bytes())
    with pytest.raises(ReviewError, match="version 999"):
        read_review_accounting(run.store)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_refused_review_leaves_no_database(run: Store) -> None:
    """A flow that the run does not have has nothing to review."""
    done = rasura("review", run.uri, "--flow", "absent", "--port", 0, check=False)
    assert done.returncode == 1
    assert "'absent'" in done.stderr
    assert not (Path(run.uri) / "review").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_sigterm_ends_with_a_sentence(number: int, status: int) -> None:
    """As Ctrl-C does, and its exit status says which of the two it was."""
    command = (
        "import signal, time, rasura.pipeline.cli.interrupts as i\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # under nohup it is ignored, and stays so
        "i.raise_on_signals()\n"
        "with i.explain_interrupt():\n    print('ready', flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, text = process.communicate(timeout=300)
    assert (process.returncode, text) == (status, "stopped; the same command continues from there\n")


@pytest.mark.parametrize(
    ("place", "text"),
    [("a\0b", r"'a\x00b' is no path: it has a NUL"), ("a/" * 2500, "5000 bytes"), ("a/" + "é" * 200, "400 bytes")],
)
def test_what_can_be_no_path_is_told_before_the_start(place: str, text: str) -> None:
    with pytest.raises(StorageError) as caught:
        check_uri(place)
    assert text in str(caught.value)
    assert len(str(caught.value)) < 200


def test_errors_of_the_file_system_have_no_numbers() -> None:
    for error in (PermissionError(13, "Permission denied", "x/y"), OSError(36, "File name too long", "x/y")):
        text = explain(error)
        assert text is not None
        assert text.startswith("cannot read or write 'x/y': ")
        assert "Errno" not in text
    assert explain(OSError("a fault of our own")) is None


def test_an_export_of_a_damaged_table_is_no_dataset(run: Store, tmp_path: Path) -> None:
    """A flipped bit in a picture: the export ends with the file and the remedy, and without a manifest."""
    shard = next((Path(run.uri) / "tables/made/shards").iterdir())
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 1
    shard.write_bytes(data)
    for layout in ("huggingface", "rorem"):
        with pytest.raises(DamagedFile, match=rf"{shard.name}' is damaged .*delete it and run the recipe again"):
            export_run(run, Store(tmp_path / layout), layout)
        assert not list((tmp_path / layout).rglob("manifest.json"))
