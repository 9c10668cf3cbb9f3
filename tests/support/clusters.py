"""Ray on several nodes of this machine: a head of its own, nodes that join it, jobs that are submitted to it."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
from conftest import environment
from support.ports import find_free_ports

RAY = str(Path(sys.executable).parent / "ray")

Head = tuple[str, dict[str, str]]
"""Address of a head's dashboard, and the environment of its drivers, with the head's own address as TEST_RAY_GCS."""


@contextlib.contextmanager
def run_head(cpus: int = 2, variables: Mapping[str, str] | None = None) -> Iterator[Head]:
    """A Ray head of our own, with its address and environment; one that does not start is tried again.

    Its ports were free a moment ago, and another process may have taken one since.
    """
    env = {key: value for key, value in (variables or environment()).items() if key != "RAY_ADDRESS"}
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_worker_niceness": "0"}
    env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"  # a Ray that this process has started for itself sets 0
    env["RAY_idle_worker_killing_time_threshold_ms"] = "30000"  # as it does: an import of torch takes seconds
    for _ in range(3):
        temporary = Path(tempfile.mkdtemp(prefix="rasura-", dir="/tmp"))  # a short path: sockets are in it
        server, dashboard, agent, metrics = find_free_ports(4)
        command = [RAY, "start", "--head", "--block", f"--port={server}", f"--dashboard-port={dashboard}"]
        command += [f"--dashboard-agent-listen-port={agent}"]  # the default may be another head's
        command += [f"--num-cpus={cpus}", f"--temp-dir={temporary}", "--object-store-memory=200000000"]
        command += ["--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1", "--include-dashboard=true"]
        command += [f"--metrics-export-port={metrics}"]
        with (temporary / "head.log").open("wb") as log:
            process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            env |= {"TEST_RAY_GCS": f"127.0.0.1:{server}", "TEST_RAY_METRICS": f"http://127.0.0.1:{metrics}/metrics"}
            if not (_wait_for_ports(process, server, dashboard) and _wait_for_cpus(env, cpus, process)):
                said = (temporary / "head.log").read_text(errors="replace")
                continue
            yield f"http://127.0.0.1:{dashboard}", env
            return
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=120)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            shutil.rmtree(temporary, ignore_errors=True)
    raise AssertionError(f"three Ray heads did not start; the last said: {said}")


def _wait_for_ports(process: subprocess.Popen[bytes], *ports: int) -> bool:
    """Wait until a process listens to all ports; False where it ends before, or takes more than two minutes."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        probes = [socket.socket() for _ in ports]
        with contextlib.ExitStack() as stack:
            for probe in probes:
                stack.enter_context(probe).settimeout(10)
            if not any(probe.connect_ex(("127.0.0.1", port)) for probe, port in zip(probes, ports, strict=True)):
                return True
        time.sleep(0.3)
    return False


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


def start_node(env: dict[str, str], total: int, prefix: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Start a node of one CPU that joins the head, by a command such as `unshare` where there is a prefix, and wait
    until the cluster has `total` CPUs. A node that ends, or does not join, is started again on other ports.
    """
    command = [*prefix, RAY, "start", f"--address={env['TEST_RAY_GCS']}", "--block", "--num-cpus=1"]
    command += ["--object-store-memory=100000000", "--node-ip-address=127.0.0.1"]
    for _ in range(3):
        agent = f"--dashboard-agent-listen-port={find_free_ports(1)[0]}"  # two nodes of one machine cannot share one
        with tempfile.TemporaryFile() as log:
            node = subprocess.Popen([*command, agent], env=env, start_new_session=True, stdout=log, stderr=log)
            if _wait_for_cpus(env, total, node):
                return node
            stop_node(node)
            log.seek(0)
            said = log.read().decode(errors="replace")
    raise AssertionError(f"a node did not join in three tries; the last said: {said}")


def _wait_for_cpus(env: dict[str, str], total: int, node: subprocess.Popen[bytes]) -> bool:
    """Wait until a driver can join the cluster and it has so many CPUs; False where the node ends before, or it takes
    more than two minutes."""
    code = f"import ray, time\nray.init({env['TEST_RAY_GCS']!r}, logging_level='ERROR')\n"
    code += f"while ray.cluster_resources().get('CPU', 0) < {total}: time.sleep(0.2)"
    deadline = time.monotonic() + 120
    with subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.DEVNULL) as watcher:
        while watcher.poll() is None and node.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        watcher.kill()
    return watcher.returncode == 0


def stop_node(node: subprocess.Popen[bytes]) -> None:
    """Kill a node with all its workers."""
    if node.poll() is None:
        os.killpg(node.pid, signal.SIGKILL)
    node.wait(timeout=120)


def find_raylet(pid: int) -> psutil.Process:
    """The raylet that a `ray start` process has started."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for child in psutil.Process(pid).children(recursive=True):
            if child.name() == "raylet":
                return child
        time.sleep(0.1)
    raise AssertionError("the second node did not start")
