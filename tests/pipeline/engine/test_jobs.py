"""The same recipe on a cluster: a local head, `ray job submit`, and what is left when a job is stopped."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import digest, environment, rasura, write_recipe
from support.engine_recipes import build_recipe_keys

pytestmark = pytest.mark.ray

RAY = str(Path(sys.executable).parent / "ray")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def head() -> Iterator[tuple[str, dict[str, str]]]:
    """A Ray head of our own, with its address and environment."""
    port, dashboard = _free_port(), _free_port()
    temporary = tempfile.mkdtemp(prefix="rasura-", dir="/tmp")  # a short path: sockets are in it
    env = {key: value for key, value in environment().items() if key != "RAY_ADDRESS"}
    env |= {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
    command = [RAY, "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}"]
    command += [f"--dashboard-agent-listen-port={_free_port()}"]  # the default may be another head's
    command += ["--num-cpus=2", f"--temp-dir={temporary}", "--object-store-memory=200000000"]
    command += ["--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1", "--include-dashboard=true"]
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    address = f"http://127.0.0.1:{dashboard}"
    env["TEST_RAY_GCS"] = f"127.0.0.1:{port}"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            probe.settimeout(10)
            if probe.connect_ex(("127.0.0.1", dashboard)) == 0:
                break
        time.sleep(0.3)
    yield address, env
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def _submit(head: tuple[str, dict[str, str]], *arguments: object) -> subprocess.CompletedProcess[str]:
    address, env = head
    runtime = json.dumps({"env_vars": {"PYTHONPATH": env["PYTHONPATH"]}})
    command = [RAY, "job", "submit", "--address", address, "--runtime-env-json", runtime, "--"]
    command += [sys.executable, "-m", "rasura", *map(str, arguments)]
    deadline = time.monotonic() + 300
    while True:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
        starting = "No available agent to submit job" in done.stdout + done.stderr  # the head answers before its agent
        if not starting or time.monotonic() > deadline:
            return done
        time.sleep(1)


def test_the_same_recipe_through_job_submit(head: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    """`ray job submit … -- rasura run recipe` gives the bytes of a local run, and prints its progress line by line; a
    faulty recipe ends the job with exit code 1 and its message."""
    recipe = write_recipe(tmp_path, **build_recipe_keys())
    done = _submit(head, "run", recipe, "--into", tmp_path / "job")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "made: 48/48 rows" in done.stdout
    rasura("run", recipe, "--into", tmp_path / "local")
    assert digest(tmp_path / "job") == digest(tmp_path / "local")
    bad = _submit(head, "run", tmp_path / "nothing.yaml")
    assert bad.returncode == 1
    assert "there is no recipe" in bad.stdout


def test_a_dead_node_is_no_rows_fault(head: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    """When a node is killed under a run, what it had not committed is made again elsewhere: no row is failed for it,
    and tables and dataset are those of an undisturbed run."""
    _, env = head
    command = [RAY, "start", f"--address={env['TEST_RAY_GCS']}", "--block", "--num-cpus=1"]
    command += ["--object-store-memory=100000000", "--node-ip-address=127.0.0.1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    node = subprocess.Popen(command, env=env, start_new_session=True, **quiet)
    recipe = write_recipe(tmp_path, **build_recipe_keys(sleep_s=0.4))
    command = [sys.executable, "-m", "rasura", "run", str(recipe), "--into", str(tmp_path / "run")]
    command += ["--set", "engine.workers=3"]
    driver = None
    try:
        raylet = _raylet_of(node.pid)
        _wait_for_cpus(env, 3)
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
        if node.poll() is None:
            os.killpg(node.pid, signal.SIGKILL)
        node.wait(timeout=120)
    rasura("run", recipe, "--into", tmp_path / "reference")
    assert digest(tmp_path / "run") == digest(tmp_path / "reference")


def _wait_for_cpus(env: dict[str, str], count: int) -> None:
    """Until all nodes have joined."""
    code = f"import ray, time\nray.init({env['TEST_RAY_GCS']!r}, logging_level='ERROR')\n"
    code += f"while ray.cluster_resources().get('CPU', 0) < {count}: time.sleep(0.2)"
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=300)


def _raylet_of(pid: int) -> psutil.Process:
    """The raylet that a `ray start` process has started."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for child in psutil.Process(pid).children(recursive=True):
            if child.name() == "raylet":
                return child
        time.sleep(0.1)
    raise AssertionError("the second node did not start")
