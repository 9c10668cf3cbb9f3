"""What the engine promises when things break. Each test states the guarantee, then breaks something."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import digest, environment, rasura, write_recipe
from support.engine_recipes import COUNT, build_recipe_keys

from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.run.accounting import compute_accounting

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    rasura("run", write_recipe(folder, **build_recipe_keys()), "--into", folder / "run")
    return folder / "run"


def test_every_input_is_accounted_for(undisturbed: Path) -> None:
    """In = kept + rejected + failed at every stage; what was dropped has a row with its input's id and the reason."""
    flow = compute_accounting(Store(undisturbed)).flows[0]
    stage = flow.stages[1]
    numbers = range(COUNT)
    raised = [n for n in numbers if n % 11 == 5]
    rejected = [n for n in numbers if n % 7 == 3 and n not in raised]
    assert stage.inputs == COUNT
    assert stage.failed == {"ValueError": len(raised)}
    assert stage.rejected == {"number ends the week": len(rejected)}
    kept = [n for n in numbers if n not in raised and n not in rejected]
    assert stage.kept == len(kept)
    assert stage.out == len(kept) + sum(n % 5 == 0 for n in kept)
    assert all(entry.balances for flow in compute_accounting(Store(undisturbed)).flows for entry in flow.stages)
    dropped = Tables(Store(undisturbed)).table("made").read_rejections().to_pylist()
    assert {row["detail"] for row in dropped if row["outcome"] == "rejected"} == {str(n) for n in rejected}
    assert {row["origin"] for row in dropped if row["outcome"] == "failed"} == {f"number {n}" for n in raised}


def test_verify_passes_then_finds_what_was_changed(undisturbed: Path, tmp_path: Path) -> None:
    """`verify` passes on a sound run; one changed byte, a missing file or an extra one is found and named, exit 1."""
    import shutil

    assert rasura("verify", undisturbed).returncode == 0
    copy = tmp_path / "copy"
    shutil.copytree(undisturbed, copy)
    data = next((copy / "dataset" / "data").glob("*.parquet"))
    damaged = bytearray(data.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    data.write_bytes(damaged)
    shard = next((copy / "tables" / "made" / "shards").glob("*.parquet"))
    shard.unlink()
    (copy / "dataset" / "data" / "train-00009-of-00001.parquet").write_bytes(b"")
    done = rasura("verify", copy, check=False)
    assert done.returncode == 1
    for part in (data.name, shard.name, "train-00009-of-00001.parquet"):
        assert part in done.stdout


@pytest.mark.parametrize(
    "change",
    [
        {"engine": {"shard_rows": 7, "workers": 1}},
        {"engine": {"shard_rows": 64, "workers": 2, "queue": 1}},
    ],
)
def test_sizes_change_no_byte(undisturbed: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    """Shard size, worker count and batch size change no byte of the dataset."""
    recipe = build_recipe_keys(**change)
    recipe["flows"]["made"]["stages"] = [{"synthetic:Triplet": {"batch_size": 1}}]
    rasura("run", write_recipe(tmp_path, **recipe), "--into", tmp_path / "run")
    assert digest(tmp_path / "run", ["dataset"]) == digest(undisturbed, ["dataset"])


def _victims(driver: psutil.Process, which: str) -> list[psutil.Process]:
    if which == "driver":
        return [driver]
    children = driver.children(recursive=True)
    if which == "raylet":
        return [child for child in children if child.name() == "raylet"]
    return [child for child in children if child.name().startswith("ray::Worker")]


def _run_and_kill(recipe: Path, into: Path, which: str, after_s: float) -> None:
    """Starts the run, and kills one of its processes `after_s` seconds after the first shard was committed."""
    command = [sys.executable, "-m", "rasura", "run", str(recipe), "--into", str(into), "--quiet"]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    driver = psutil.Process(process.pid)
    before = len(list(into.glob("tables/*/lines/*.json")))
    deadline = time.monotonic() + 6000
    while process.poll() is None and time.monotonic() < deadline:
        if len(list(into.glob("tables/*/lines/*.json"))) > before:
            time.sleep(after_s)
            break
        time.sleep(0.02)
    try:
        for victim in _victims(driver, which)[:1]:
            victim.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        pass  # it was finished already
    process.communicate(timeout=600)


@pytest.mark.parametrize("which", ["driver", "worker", "raylet"])
def test_killed_anywhere_it_goes_on(undisturbed: Path, tmp_path: Path, which: str) -> None:
    """`kill -9` of the driver, a worker or the raylet at a random moment, twice, then the same command again: the
    tables, their manifests and the dataset are those of an undisturbed run, byte for byte."""
    recipe = write_recipe(tmp_path, **build_recipe_keys(sleep_s=0.05))
    # the sleeping time is a parameter of the stage, so the reference is made with the same recipe
    reference = tmp_path / "reference"
    rasura("run", recipe, "--into", reference)
    rng = random.Random(which)
    for _ in range(2):
        _run_and_kill(recipe, tmp_path / "run", which, rng.uniform(0, 1.0))
    rasura("run", recipe, "--into", tmp_path / "run")
    assert digest(tmp_path / "run") == digest(reference)
    ids = Tables(Store(tmp_path / "run")).table("made").read_light(["id"])["id"].to_pylist()
    assert len(ids) == len(set(ids))
    assert rasura("verify", tmp_path / "run").returncode == 0
    assert not list((tmp_path / "run").rglob(".tmp-*"))


def test_a_row_that_ends_its_worker_costs_one_row(tmp_path: Path) -> None:
    """A row that segfaults, one that kills its process and one that hangs in native code, holding the interpreter's
    lock, end as failed rows, named; every other row is kept, once."""
    poison = {"synthetic:Poison": {"segfault": [5], "kill": [9], "hang": [17]}}
    flows = {"made": {"source": {"synthetic:Numbers": {"count": 24}}, "stages": [poison]}}
    engine = {"shard_rows": 8, "workers": 2}
    done = rasura("run", write_recipe(tmp_path, flows=flows, engine=engine), "--into", tmp_path / "run")
    assert "raylet" not in done.stdout  # what can be read by a program stays so
    table = Tables(Store(tmp_path / "run")).table("made")
    numbers = sorted(table.read_light(["number"])["number"].to_pylist())
    assert numbers == [n for n in range(24) if n not in (5, 9, 17)]
    dropped = {
        row["origin"]: (row["outcome"], row["stage"], row["reason"]) for row in table.read_rejections().to_pylist()
    }
    assert dropped == {
        "number 5": ("failed", "synthetic:Poison", "WorkerDied"),
        "number 9": ("failed", "synthetic:Poison", "WorkerDied"),
        "number 17": ("failed", "synthetic:Poison", "TimedOut"),
    }
    assert rasura("verify", tmp_path / "run").returncode == 0


def test_changed_recipe_or_input_is_never_served_from_old_shards(tmp_path: Path) -> None:
    """A changed parameter makes new rows of the flows that depend on it and leaves the others; a changed file makes
    new rows, even where size and name stay; what did not change is not made again."""
    import numpy as np
    from PIL import Image

    photos = tmp_path / "photos"
    photos.mkdir()
    for n in range(6):
        Image.fromarray(np.full((16, 16, 3), n * 20, np.uint8)).save(photos / f"{n}.png")
    flows = {
        "photos": {"source": {"photos": {"path": str(photos)}}},
        "wide": {"source": {"flow": {"of": "photos"}}, "stages": [{"select": {"keep": {"width": {"min": 10}}}}]},
    }
    recipe = write_recipe(tmp_path, flows=flows, engine={"shard_rows": 2, "workers": 1})
    run = tmp_path / "run"
    rasura("run", recipe, "--into", run)
    first = {line.name for line in (run / "tables" / "photos" / "lines").iterdir()}
    rasura("run", recipe, "--into", run, "--set", "flows.wide.stages.select.keep.width.min=17")
    assert Tables(Store(run)).table("wide").rows == 0
    assert {line.name for line in (run / "tables" / "photos" / "lines").iterdir()} == first
    before = (photos / "3.png").read_bytes()
    Image.fromarray(np.full((16, 16, 3), 61, np.uint8)).save(photos / "3.png")
    assert len((photos / "3.png").read_bytes()) == len(before)
    rasura("run", recipe, "--into", run)
    values = {int(record["source"][0, 0, 0]) for record in Tables(Store(run)).table("photos").iterate_records()}
    assert values == {0, 20, 40, 61, 80, 100}
    after = {line.name for line in (run / "tables" / "photos" / "lines").iterdir()}
    assert after & first
    assert rasura("verify", run).returncode == 0


def test_gpu_out_of_memory_halves_the_batch(tmp_path: Path) -> None:
    """A batch too large for the GPU is halved until it fits; no row is lost for it."""
    source = {"synthetic:Numbers": {"count": 13}}
    flows = {"made": {"source": source, "stages": [{"synthetic:SmallGpu": {}}]}}
    rasura("run", write_recipe(tmp_path, flows=flows, engine={"workers": 1}), "--into", tmp_path / "run")
    assert Tables(Store(tmp_path / "run")).table("made").rows == 13


def test_a_stage_that_cannot_be_set_up_stops_the_run(tmp_path: Path) -> None:
    """What is not a row's fault is not laid to rows: the run ends with one clear error and exit code 1."""
    flows = {"made": {"source": {"synthetic:Numbers": {"count": 3}}, "stages": ["synthetic:BadSetup"]}}
    done = rasura("run", write_recipe(tmp_path, flows=flows), "--into", tmp_path / "run", check=False)
    assert done.returncode == 1
    assert "stage 'synthetic:BadSetup' cannot be set up: OSError: the weights are of another model" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stage_that_lies_about_its_columns_fails_rows_not_the_run(tmp_path: Path) -> None:
    """An undeclared column is an error that names it; nothing is written that the schema does not say. As all inputs
    failed, the exit status is 1, also when the same command finds all of them done."""
    flows = {"made": {"source": {"synthetic:Numbers": {"count": 3}}, "stages": ["synthetic:Undeclared"]}}
    recipe = write_recipe(tmp_path, flows=flows)
    for _ in range(2):
        done = rasura("run", recipe, "--into", tmp_path / "run", check=False)
        assert done.returncode == 1
        assert "failed 3: 3 × ValueError (synthetic:Undeclared); for example " in done.stdout
        assert "error: all inputs of flow 'made' failed: in stage 'synthetic:Undeclared', 3 of 3 " in done.stderr
    rows = Tables(Store(tmp_path / "run")).table("made").read_rejections().to_pylist()
    assert len(rows) == 3
    assert all("surprise" in row["detail"] for row in rows)


def test_two_drivers_do_not_share_a_run(undisturbed: Path) -> None:
    """One driver owns a run; a second one is told who does."""
    with Store(undisturbed).lock():
        recipe = undisturbed.parent / "recipe.yaml"
        done = rasura("run", recipe, "--into", undisturbed, check=False)
    assert done.returncode == 1
    assert f"is owned by another driver (pid {os.getpid()}" in done.stderr


def test_asking_for_what_the_cluster_lacks_is_told_at_once(tmp_path: Path) -> None:
    """A stage that wants a GPU where there is none ends the run with what was asked for and what there is; on one
    machine before Ray is started, and before the flows ahead of it are made."""
    stage = {"synthetic:SmallGpu": {"resources": {"gpus": 64}}}
    first = {"source": {"synthetic:Numbers": {"count": 3}}}
    flows = {"first": first, "made": {"source": {"flow": {"of": "first"}}, "stages": [stage]}}
    recipe = write_recipe(tmp_path, flows=flows)
    done = rasura("run", recipe, "--into", tmp_path / "run", check=False)
    assert done.returncode == 1
    assert "flow 'made', synthetic:SmallGpu: a stage asks for 1 CPU, 64 GPU; the cluster has" in done.stderr
    assert "recipe.yaml:" in done.stderr
    assert not list((tmp_path / "run").glob("tables/*/lines/*"))
    assert not list((tmp_path / "run").glob("log/*"))


def test_interrupted_it_says_how_to_go_on(undisturbed: Path, tmp_path: Path) -> None:
    """Ctrl-C ends the run at once with exit code 130 and one sentence; the same command ends as if undisturbed."""
    recipe = write_recipe(tmp_path, **build_recipe_keys(sleep_s=0.3))
    command = [sys.executable, "-m", "rasura", "run", str(recipe), "--into", str(tmp_path / "run"), "--quiet"]
    process = subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    deadline = time.monotonic() + 600
    while not list((tmp_path / "run").glob("tables/made/lines/*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "stopped; what was committed is whole" in errors
    assert "Traceback" not in errors
    making = compute_accounting(Store(tmp_path / "run")).flows[0]
    assert not making.complete
    assert 0 < making.stages[0].inputs < COUNT
    early = rasura("export", tmp_path / "run", "--out", tmp_path / "early", check=False)
    assert early.returncode == 1
    assert "is not complete" in early.stderr
    rasura("run", recipe, "--into", tmp_path / "run", "--set", "flows.made.stages.0.synthetic:Triplet.sleep_s=0.0")
    assert digest(tmp_path / "run", ["dataset/data"]) == digest(undisturbed, ["dataset/data"])
