"""Ray on several nodes of this machine: a head of its own, nodes that join it, jobs that are submitted to it."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
from conftest import environment

RAY = str(Path(sys.executable).parent / "ray")

Head = tuple[str, dict[str, str]]
"""Address of a head's dashboard, and the environment of its drivers, with the head's own address as TEST_RAY_GCS."""


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def run_head(cpus: int = 2) -> Iterator[Head]:
    """A Ray head of our own, with its address and environment."""
    port, dashboard, metrics = _free_port(), _free_port(), _free_port()
    temporary = tempfile.mkdtemp(prefix="rasura-", dir="/tmp")  # a short path: sockets are in it
    env = {key: value for key, value in environment().items() if key != "RAY_ADDRESS"}
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_worker_niceness": "0"}
    env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"  # a Ray that this process has started for itself sets 0
    command = [RAY, "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}"]
    command += [f"--dashboard-agent-listen-port={_free_port()}"]  # the default may be another head's
    command += [f"--num-cpus={cpus}", f"--temp-dir={temporary}", "--object-store-memory=200000000"]
    command += ["--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1", "--include-dashboard=true"]
    command += [f"--metrics-export-port={metrics}"]
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    address = f"http://127.0.0.1:{dashboard}"
    env |= {"TEST_RAY_GCS": f"127.0.0.1:{port}", "TEST_RAY_METRICS": f"http://127.0.0.1:{metrics}/metrics"}
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                probe.settimeout(10)
                if probe.connect_ex(("127.0.0.1", dashboard)) == 0:
                    break
            time.sleep(0.3)
        yield address, env
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def read_metrics(head: Head) -> str:
    """Read what the head's node exports for Prometheus, once a run's figures are there; a process sends them at its
    end.
    """
    deadline = time.monotonic() + 60
    while True:
        with urllib.request.urlopen(head[1]["TEST_RAY_METRICS"], timeout=30) as answer:
            text: str = answer.read().decode()
        if "ray_rasura_rows_total{" in text or time.monotonic() > deadline:
            return text
        time.sleep(0.2)


def submit_job(head: Head, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Submit `rasura …` as a job, and wait for its end."""
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


def start_node(env: dict[str, str], cpus: int = 1, prefix: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Start a node that joins the head, by a command such as `unshare` where there is a prefix."""
    command = [*prefix, RAY, "start", f"--address={env['TEST_RAY_GCS']}", "--block", f"--num-cpus={cpus}"]
    command += ["--object-store-memory=100000000", "--node-ip-address=127.0.0.1"]
    command += [f"--dashboard-agent-listen-port={_free_port()}"]  # two nodes of one machine cannot share the default
    return subprocess.Popen(
        command, env=env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def stop_node(node: subprocess.Popen[bytes]) -> None:
    """Kill a node with all its workers."""
    if node.poll() is None:
        os.killpg(node.pid, signal.SIGKILL)
    node.wait(timeout=120)


def wait_for_cpus(env: dict[str, str], count: int) -> None:
    """Until all nodes have joined."""
    code = f"import ray, time\nray.init({env['TEST_RAY_GCS']!r}, logging_level='ERROR')\n"
    code += f"while ray.cluster_resources().get('CPU', 0) < {count}: time.sleep(0.2)"
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=300)


def find_raylet(pid: int) -> psutil.Process:
    """The raylet that a `ray start` process has started."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for child in psutil.Process(pid).children(recursive=True):
            if child.name() == "raylet":
                return child
        time.sleep(0.1)
    raise AssertionError("the second node did not start")
