"""Faults of a second node, for `chaos`: it is lost, or does not share the run's folder."""

import os
import subprocess
import sys
from collections.abc import Mapping

from benchmarks.common import ROOT
from benchmarks.engine.chaos_job import MARKER
from benchmarks.engine.chaos_kinds import Case, Kind, run_tool


def join_cluster(case: Case) -> None:
    """Have the run be carried out by a head and a second node on this machine, in a mount namespace of its own."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.clusters import run_head, start_node, stop_node

    run_tool("unshare", "-m", "true")
    token = f"{case.job.token}-nodes"
    case.job.cluster_token = token
    os.environ[MARKER] = token
    case.stack.callback(os.environ.pop, MARKER, None)
    _, env = case.stack.enter_context(run_head(cpus=1))
    node = start_node(env, 2, prefix=["unshare", "-m"])
    case.stack.callback(stop_node, node)
    case.tools |= {"node": node, "stop": stop_node}
    names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_worker_niceness")
    case.job.env |= {"RAY_ADDRESS": env["TEST_RAY_GCS"], **{name: env[name] for name in names}}


def lose_node(case: Case) -> None:
    """Kill the second node with all its workers."""
    case.tools["stop"](case.tools["node"])


def hide_target(case: Case) -> None:
    """Have the second node see an empty folder in the place of the run's."""
    enter = ["nsenter", "-t", case.tools["node"].pid, "-m"]
    run_tool(*enter, "mount", "-t", "tmpfs", "tmpfs", case.job.target)
    case.tools["hidden"] = True


def show_target(case: Case) -> None:
    """Have the second node see the run's folder again; nothing may have been written in its place."""
    enter = ["nsenter", "-t", str(case.tools["node"].pid), "-m"]
    listed = subprocess.run([*enter, "find", case.job.target, "-type", "f"], capture_output=True, text=True)
    if listed.stdout.strip():
        case.faults.append(f"files were written beside the run: {listed.stdout.split()[0]}")
    subprocess.run([*enter, "umount", case.job.target], capture_output=True)


NODES: Mapping[str, Kind] = {
    "node lost": Kind(lose_node, prepare=join_cluster, must_finish=True),
    "target not shared": Kind(hide_target, show_target, join_cluster),
}
