"""Deaths that no stage is at fault for at first sight: after a stage, at the start, of a node, of Ray's own servers."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import environment, rasura, write_recipe
from support.clusters import run_head, start_node, stop_node

from rasura.manifests.storage import Store
from rasura.pipeline.engine.crash_marks import CrashMark, read_mark
from rasura.pipeline.engine.execution import DEATHS_UNTIL_ALONE, LOST_NODES, SILENT_DEATHS, CrashTracker
from rasura.pipeline.run.accounting import compute_accounting

COUNT = 16
BLOCKED = "rasura.pipeline.engine.crash_marks"


def recipe_keys(**poison: list[int]) -> dict[str, object]:
    stages = [{"synthetic:Triplet": {"raise_every": 100, "reject_every": 100}}, {"synthetic:LateDeath": poison}]
    flows = {"made": {"source": {"synthetic:Numbers": {"count": COUNT}}, "stages": stages}}
    return {"flows": flows, "engine": {"shard_rows": 8, "workers": 2, "patience_s": 1}}


def test_a_death_in_no_stage_has_the_rows_run_alone_and_then_costs_the_shard() -> None:
    """Only of that shard, and only for this run: it stays uncommitted, with the reason."""
    tracker = CrashTracker(tries=3)
    for _ in range(DEATHS_UNTIL_ALONE):
        assert not tracker.quarantine(7).one_by_one
        assert tracker.count_silent_death(7, None) is None
    assert tracker.quarantine(7).one_by_one
    assert not tracker.quarantine(8).one_by_one
    faults = [tracker.count_silent_death(7, CrashMark("commit", ())) for _ in range(SILENT_DEATHS - DEATHS_UNTIL_ALONE)]
    assert [fault is None for fault in faults] == [True] * (len(faults) - 1) + [False]
    assert "while it was committed" in str(faults[-1])


def test_a_shard_may_take_few_nodes_with_it() -> None:
    """A lost node is no row's fault, but a shard over which nodes are lost again and again is set aside."""
    tracker = CrashTracker(tries=3)
    faults = [tracker.count_lost_node(7, "worker-4") for _ in range(LOST_NODES)]
    assert [fault is None for fault in faults] == [True] * (LOST_NODES - 1) + [False]
    assert "worker-4 was the last" in str(faults[-1])
    assert tracker.count_lost_node(8, "worker-5") is None


@pytest.mark.ray
def test_a_row_that_ends_its_worker_a_moment_later_costs_one_row(tmp_path: Path) -> None:
    """Nothing runs when the process dies: the shard's rows run one at a time then, and the one at fault is failed."""
    rasura("run", write_recipe(tmp_path, **recipe_keys(kill=[13])), "--into", tmp_path / "run")
    flow = compute_accounting(Store(tmp_path / "run")).flows[0]
    stage = next(stage for stage in flow.stages if stage.stage == "synthetic:LateDeath")
    assert (stage.failed, stage.kept) == ({"WorkerDied": 1}, stage.inputs - 1)


@pytest.mark.ray
def test_a_row_that_takes_its_nodes_down_costs_its_shard(tmp_path: Path) -> None:
    """After two nodes its shard is set aside: the third node makes the others, and the run ends with the reason."""
    keys = recipe_keys()
    keys["flows"]["made"]["stages"] = [{"synthetic:NodeKiller": {"kill": [13]}}]  # type: ignore[index]
    recipe = write_recipe(tmp_path, **keys)
    with run_head(cpus=0) as (_, env):
        nodes = []
        try:
            for count in (1, 2, 3):  # one after another: they cannot share a socket
                nodes.append(start_node(env, count))
            env |= {"RAY_ADDRESS": env["TEST_RAY_GCS"], "COLUMNS": "200"}
            done = rasura("run", recipe, "--into", tmp_path / "run", check=False, env=env)
        finally:
            for node in nodes:
                stop_node(node)
    assert done.returncode == 1
    assert "1 shard of 2 (8 inputs) could not be made" in done.stderr
    assert "2 nodes were lost while they made the shard" in done.stderr
    assert len(list((tmp_path / "run").glob("tables/made/lines/*.json"))) == 1


@pytest.mark.ray
def test_a_worker_that_lacks_a_module_says_so(tmp_path: Path) -> None:
    """A module that only the workers cannot import ends the run at once, with its name."""
    blocker = f"import sys\nif 'default_worker' in ' '.join(sys.orig_argv): sys.modules[{BLOCKED!r}] = None\n"
    (tmp_path / "sitecustomize.py").write_text(blocker)
    env = environment()
    env["PYTHONPATH"] = f"{tmp_path}:{env['PYTHONPATH']}"
    recipe = write_recipe(tmp_path, **recipe_keys())
    done = rasura("run", recipe, "--into", tmp_path / "run", check=False, env=env)
    assert done.returncode == 1
    assert "workers cannot be started: " in done.stderr
    assert f"No module named '{BLOCKED}'" in done.stderr or f"import of {BLOCKED} halted" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.ray
@pytest.mark.parametrize("server", ["gcs_server", "raylet"])
def test_without_ray_s_servers_the_run_ends_in_a_sentence(tmp_path: Path, server: str) -> None:
    """Nothing is left alive, and nothing waits for a minute."""
    keys = recipe_keys()
    keys["flows"]["made"]["stages"][0]["synthetic:Triplet"]["sleep_s"] = 600.0  # type: ignore[index]
    command = [sys.executable, "-m", "rasura", "run", str(write_recipe(tmp_path, **keys)), "--into"]
    process = subprocess.Popen(
        [*command, str(tmp_path / "run")], env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    driver = psutil.Process(process.pid)
    while not (workers := [p for p in driver.children(recursive=True) if p.name().startswith("ray::Worker")]):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    family = [*workers, *driver.children(recursive=True)]
    next(child for child in family if child.name() == server).kill()
    start = time.monotonic()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert f"Ray's {server} on this machine has ended" in errors
    assert "Traceback" not in errors
    assert time.monotonic() - start < 50
    _, alive = psutil.wait_procs(family, timeout=10)
    assert [process.name() for process in alive] == []


MARKS = """
import resource
from rasura.pipeline.engine.crash_marks import MarkFile, read_mark
marks = MarkFile()
marks.start("effects", ["a", "b"], 10.0)
assert read_mark(marks.path).ids == ("a", "b")
marks.stop()
assert read_mark(marks.path) is None
marks.start("effects", ["c"], 10.0)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
marks.start("effects", ["d"], 10.0)
marks.stop()
assert read_mark(marks.path) is None
"""


LIMITS = """
import time
from rasura.pipeline.engine.crash_marks import MarkFile
marks = MarkFile()
print(marks.path, flush=True)
marks.start("effects", ["a"], 0.4)
marks.stop()
marks.rest()
time.sleep(0.8)  # a worker that waits for a shard has no limit
print("rested", flush=True)
for id in "bcd":
    marks.start("effects", [id], 0.4)
    time.sleep(0.1)
    marks.stop()
marks.start("effects", ["e"], 0.4)
time.sleep(600)
"""


def test_a_limit_holds_for_each_record_and_for_no_idle_worker(tmp_path: Path) -> None:
    env = environment(TMPDIR=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", LIMITS], env=env, capture_output=True, text=True, timeout=300)
    path, *lines = done.stdout.splitlines()
    mark = read_mark(path)
    assert lines == ["rested"]
    assert done.returncode == 1
    assert mark is not None
    assert mark.timed_out
    assert mark.ids == ("e",)


def test_a_mark_outlives_a_full_disk(tmp_path: Path) -> None:
    """A worker that can write no mark goes on, and its mark never names records that have left the stage."""
    env = environment(TMPDIR=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", MARKS], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
