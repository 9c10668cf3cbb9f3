"""An export of many rows is written by workers: the same bytes, kept when it is killed, one sentence when it fails."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import environment
from support.dataset_runs import make_finished_run, make_row, read_files

from rasura.manifests.storage import Store
from rasura.pipeline.export import export_run, read_options
from rasura.pipeline.loop.export import LoopTables
from rasura.pipeline.recipe.schema import EngineSettings
from rasura.pipeline.run.starter import EngineStarter
from rasura.pipeline.training.rows import RowRef

pytestmark = pytest.mark.ray

EXPORTS: dict[str, dict[str, Any]] = {
    "huggingface": {},
    "ober": {},
    "diffusers": {"size": "16", "where": "label is not null"},
    "rorem": {},
    "webdataset": {},
    "lance": {},
}
ROWS = 7

DRIVER = """
import json, os, sys, time
from pathlib import Path
from rasura.manifests.formats.target import JOURNAL
from rasura.manifests.storage import Store
from rasura.pipeline.engine.cluster import cluster
from rasura.pipeline.export import export_run, read_options
from rasura.pipeline.recipe.schema import EngineSettings
from rasura.pipeline.run import starter, workers

starter.MANY_ROWS = 3
folder, exports = Path(sys.argv[1]), json.loads(sys.argv[2])

class Killed(BaseException):
    pass

def stop_after_three(function, jobs, **settings):
    for number, result in enumerate(workers.map_on_workers(function, jobs, **settings)):
        if number == 3:
            time.sleep(600)
        yield result

def kill_at_three(done, total, note):
    if done == 3:
        raise Killed

def end_worker(number):
    if number == 1:
        os._exit(9)

def divide(map_jobs, on_progress):
    return list(map_jobs(end_worker, [(0,), (1,), (2,)]))

def export(layout, on_progress=lambda done, total, note: None, **options):
    out = Store(folder / "workers" / layout)
    export_run(Store(folder / "run"), out, layout, (), on_progress, read_options(**options))

settings = EngineSettings(workers=2, object_store_mb=80)
with cluster(settings):
    starter.map_on_workers = stop_after_three
    try:
        export("huggingface", kill_at_three)
    except Killed:
        out = folder / "workers/huggingface"
        names = [entry["name"] for entry in json.loads((out / JOURNAL).read_bytes())["written"]]
        print(json.dumps(["kept", *([name, (out / name).stat().st_ino] for name in names)]), flush=True)
    starter.map_on_workers = workers.map_on_workers
    for layout, options in exports.items():
        export(layout, **options)
    with starter.EngineStarter(settings) as engine:
        for name, work in {
            "damaged": lambda: export_run(Store(folder / "damaged"), Store(folder / "out"), "ober"),
            "lost": lambda: engine.run_jobs(divide, 4, kill_at_three),
        }.items():
            try:
                work()
            except Exception as error:
                print(json.dumps([name, type(error).__name__, str(error)]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a data file for each row, and one with a flipped byte."""
    folder = tmp_path_factory.mktemp("exports")
    for name in ("run", "damaged"):
        make_finished_run(folder / name, [make_row(number) for number in range(ROWS)], shard_bytes=1000)
    shard = min((folder / "damaged/tables/made/shards").iterdir())
    data = bytearray(shard.read_bytes())
    data[200] ^= 1
    shard.write_bytes(data)
    for layout, options in EXPORTS.items():
        export_run(Store(folder / "run"), Store(folder / "here" / layout), layout, options=read_options(**options))
    return folder


@pytest.fixture(scope="module")
def answers(folder: Path) -> dict[str, list[Any]]:
    """The files that an export had written when it was killed, and what was said of each fault."""
    command = [sys.executable, "-c", DRIVER, str(folder), json.dumps(EXPORTS)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return {name: answer for name, *answer in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("layout", EXPORTS)
def test_workers_write_the_same_bytes(folder: Path, answers: Any, layout: str) -> None:
    """One of the exports was killed before. Lance's version files have the time in them, and others their sha256."""
    files, expected = (read_files(folder / place / layout) for place in ("workers", "here"))
    assert "manifest.json" in files
    assert files.keys() == expected.keys()
    same = [name for name in files if layout != "lance" or name.endswith((".lance", ".md"))]
    assert {name: files[name] for name in same} == {name: expected[name] for name in same}


def test_an_export_that_was_killed_keeps_its_files(folder: Path, answers: dict[str, list[Any]]) -> None:
    assert len(answers["kept"]) == 3 < ROWS
    for name, inode in answers["kept"]:  # a file that is written anew replaces the one that is there
        assert (folder / "workers/huggingface" / name).stat().st_ino == inode


def test_a_job_that_fails_is_one_sentence(folder: Path, answers: dict[str, list[Any]]) -> None:
    """What cannot be read is named, and the folder is no dataset; a job that ends its workers is not tried for ever."""
    name, text = answers["damaged"]
    assert name == "DamagedFile"
    assert "shards/" in text
    assert "\n" not in text
    assert not (folder / "out" / "manifest.json").exists()
    name, text = answers["lost"]
    assert name == "WorkersLost"
    assert "has ended 3 workers" in text
    assert "\n" not in text


def test_the_workers_of_flows_end_before_few_rows_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their models are in memory, and on cards."""

    class Engine:
        is_open = True

        def close(self) -> None:
            self.is_open = False

    starter, engine = EngineStarter(EngineSettings()), Engine()
    monkeypatch.setattr(starter, "_engine", engine)
    assert starter.run_jobs(lambda map_jobs, on_progress: engine.is_open, 1, print) is False
    assert not starter.has_workers


def test_rows_of_a_loop_arrive_at_a_worker_with_their_scores(folder: Path) -> None:
    """They are in many runs, and their scores and verdicts in none of them."""
    records = Store(folder / "run").files("tables/made/shards")
    ref = RowRef("./run", "made", min(records).removesuffix(".parquet"), 0, "", "")
    tables = LoopTables(Store(folder), [ref], {})
    (id,) = tables.read_raw("./run made", ref.shard, 0, ["id"])["id"].to_pylist()
    tables = LoopTables(Store(folder), [ref], {id: {"score": 0.25}})
    sent = pickle.loads(pickle.dumps(tables))
    assert sent.names() == ["./run made"]
    assert sent.read_raw("./run made", ref.shard, 0, ["id", "score"]).to_pylist() == [{"id": id, "score": 0.25}]
