"""A loop anywhere: its driver opens no network, its state is in a bucket, its nodes come and go."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from conftest import environment, rasura
from support.clusters import find_raylet, run_head, start_node, stop_node, submit_job
from support.loops import build_recipe, read_contents, write_scenes
from support.s3_server import serve_bucket

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("accelerate")

from rasura.manifests.storage import Store
from rasura.pipeline.loop.results import ScoreResult, VotesResult
from rasura.pipeline.loop.state import Loop
from rasura.pipeline.training import oracle

pytestmark = [pytest.mark.ray, pytest.mark.torch]

DRIVER_WITHOUT_TORCH = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "diffusers", "accelerate", "transformers"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

sys.meta_path.insert(0, Missing())
from rasura.pipeline.cli.app import app
try:
    app(sys.argv[1:])
finally:
    assert not {"torch", "diffusers", "accelerate"} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes") / "run").store.uri


def write_recipe(folder, scenes, **changes):
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(build_recipe(scenes, **changes)))
    return file


def test_the_driver_needs_no_torch(scenes, tmp_path):
    """A driver in which torch cannot be imported runs a loop to its end: a human round and an automatic one, with
    trainings, calibration, candidates, scores and measures; and shows its rounds and accounting."""
    command = [sys.executable, "-c", DRIVER_WITHOUT_TORCH]
    loop = tmp_path / "loop"
    for arguments in (
        ["loop", str(write_recipe(tmp_path, scenes)), "--into", str(loop)],
        ["status", str(loop)],
        ["verify", str(loop)],
    ):
        done = subprocess.run(
            [*command, *arguments], env=environment(), capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "all is well (test 0, round 1, test 1, round 2, test 2)" in done.stdout
    assert Loop.open(str(loop)).read_result(ScoreResult, 2).scored == 9


def test_a_loop_in_a_bucket_by_submitted_jobs(scenes, tmp_path, monkeypatch):
    """`ray job submit … -- rasura loop RECIPE --into s3://…` ends where people have to vote; when their votes are in
    the bucket, the same job goes on to the end. Status, verification and export work on the URI."""
    uri = "s3://rasura-test/loop"
    rounds = [{"kind": "human", "count": 8}, {"kind": "auto", "count": 2}]
    recipe = write_recipe(tmp_path, scenes, reviewers="people", rounds=rounds)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with serve_bucket(), run_head() as head:
        waiting = submit_job(head, "loop", recipe, "--into", uri)
        assert "waits for people: 0 of 24 candidates have 1 vote(s)" in waiting.stdout, waiting.stdout[-3000:]
        assert "exit code 3" in waiting.stdout
        run = Store(f"{uri}/rounds/01")
        votes = [{**vote, "reviewer": "Ann", "nonce": f"ann {k}"} for k, vote in enumerate(oracle.review_run(run))]
        run.write("votes/ann.jsonl", "".join(json.dumps(vote) + "\n" for vote in votes).encode())
        done = submit_job(head, "loop", recipe, "--into", uri)
        assert done.returncode == 0, done.stdout[-3000:]
        assert "finished" in done.stdout
        loop = Loop.open(uri)
        assert loop.read_result(VotesResult, 1).voted == 24
        assert loop.store.exists("removers/02/remover.json")
        assert "all is well" in rasura("verify", uri).stdout
        assert "rejected by votes" in rasura("status", uri).stdout
        rasura("report", uri, "--out", tmp_path / "page.html")
        rasura("export", uri, "--out", tmp_path / "out")
        assert (tmp_path / "out" / "manifest.json").is_file()


def test_nodes_and_drivers_may_die(scenes, tmp_path):
    """On three nodes, of which one is killed and another joins in a round, with the driver killed twice by SIGKILL, a
    loop ends in the bytes of one to which nothing happened."""
    recipe = write_recipe(tmp_path, scenes, engine={"workers": 3})
    rasura("loop", recipe, "--into", tmp_path / "reference")
    killed = tmp_path / "killed"
    with run_head(cpus=1) as (_, env):
        nodes = [start_node(env, 2)]
        try:
            raylet = find_raylet(nodes[0].pid)
            nodes.append(start_node(env, 3))
            begin_and_kill(recipe, killed, env, killed / "steps" / "00-test.json")
            driver = start_driver(recipe, killed, env)
            wait_for(killed / "rounds" / "01" / "tables" / "candidates" / "lines", driver)
            raylet.kill()
            stop_node(nodes[0])
            nodes.append(start_node(env, 3))
            wait_for(killed / "steps" / "01-judge.json", driver)
            os.kill(driver.pid, signal.SIGKILL)
            driver.communicate()
            driver = start_driver(recipe, killed, env)
            output, _ = driver.communicate(timeout=900)
            assert driver.returncode == 0, output[-3000:]
        finally:
            for node in nodes:
                stop_node(node)
    ours, theirs = read_contents(killed), read_contents(tmp_path / "reference")
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if ours[name] != theirs[name]] == []


def start_driver(recipe, into, env):
    command = [sys.executable, "-m", "rasura", "loop", str(recipe), "--into", str(into)]
    env = {**env, "RAY_ADDRESS": env["TEST_RAY_GCS"]}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(path, driver):
    """Until a file is there, or a folder has one."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            return
        if driver.poll() is not None:
            raise AssertionError(f"the loop ended before {path} was there: {driver.communicate()[0][-3000:]}")
        time.sleep(0.05)
    raise AssertionError(f"{path} did not come")


def begin_and_kill(recipe, into, env, when):
    driver = start_driver(recipe, into, env)
    wait_for(when, driver)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
