"""The same recipe on a cluster: a local head, `ray job submit`, and what is left when a job is stopped."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import digest, rasura, write_recipe
from support.clusters import Head, find_raylet, read_metrics, run_head, start_node, stop_node, submit_job
from support.engine_recipes import build_recipe_keys

from rasura.manifests.storage import Store
from rasura.pipeline.run.accounting import compute_accounting

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A Ray head of our own, with its address and environment."""
    with run_head() as started:
        yield started


def count_flow_rows(text: str, flow: str) -> dict[str, int]:
    """Count the kept rows of a flow at each stage in what a node exports for Prometheus."""
    counts = {}
    for line in re.findall(r"^ray_rasura_rows_total\{(.*)", text, re.MULTILINE):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
        if (labels["flow"], labels["outcome"]) == (flow, "kept"):
            counts[labels["stage"]] = int(float(line.split()[-1]))
    return counts


def test_the_same_recipe_through_job_submit(head: Head, tmp_path: Path) -> None:
    """`ray job submit … -- rasura run recipe` gives the bytes of a local run, and prints its progress line by line, on
    a cluster with a token, without which it is refused; its nodes export what became of the rows at each stage; a
    faulty recipe ends the job with exit code 1 and its message."""
    recipe = write_recipe(tmp_path, **build_recipe_keys())
    done = submit_job(head, "run", recipe, "--into", tmp_path / "job")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "made: 48/48 rows" in done.stdout
    kept = count_flow_rows(read_metrics(head), "made")
    rasura("run", recipe, "--into", tmp_path / "local")
    stages = compute_accounting(Store(tmp_path / "local")).flows[0].stages
    assert kept == {stage.stage: stage.kept for stage in stages if stage.kept}
    assert digest(tmp_path / "job") == digest(tmp_path / "local")
    address, env = head
    stranger = submit_job((address, {**env, "RAY_AUTH_TOKEN": "0" * 64}), "run", recipe, "--into", tmp_path / "theirs")
    assert stranger.returncode != 0
    assert not (tmp_path / "theirs").exists()
    bad = submit_job(head, "run", tmp_path / "nothing.yaml")
    assert bad.returncode == 1
    assert "there is no recipe" in bad.stdout


def test_a_dead_node_is_no_rows_fault(head: Head, tmp_path: Path) -> None:
    """When a node is killed under a run, what it had not committed is made again elsewhere: no row is failed for it,
    and tables and dataset are those of an undisturbed run."""
    _, env = head
    node = start_node(env, 3)
    recipe = write_recipe(tmp_path, **build_recipe_keys(sleep_s=0.4))
    command = [sys.executable, "-m", "rasura", "run", str(recipe), "--into", str(tmp_path / "run")]
    command += ["--set", "engine.workers=3"]
    driver = None
    try:
        raylet = find_raylet(node.pid)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        driver = subprocess.Popen(command, env={**env, "RAY_ADDRESS": env["TEST_RAY_GCS"]}, **pipes)
        deadline = time.monotonic() + 300
        while driver.poll() is None and time.monotonic() < deadline:
            if any("run_last" in child.name() for child in raylet.children()):
                break  # it has a shard in hand
            time.sleep(0.05)
        assert driver.poll() is None, "the run ended before the node could be killed"
        raylet.kill()
        os.killpg(node.pid, signal.SIGKILL)
        output, _ = driver.communicate(timeout=600)
        assert driver.returncode == 0, output
    finally:
        if driver:
            driver.kill()
        stop_node(node)
    rasura("run", recipe, "--into", tmp_path / "reference")
    assert digest(tmp_path / "run") == digest(tmp_path / "reference")
