"""The nodes of a cluster as Ray reports them, and what their GPUs are: each node is asked once."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rasura.networks.cards import VISIBLE
from rasura.pipeline.engine.nodes import GPU, Node

ASK_LIMIT_S = 90.0
USABLE = 0.95
"""Share of a card's memory that workers get; the driver and other programs have the rest."""
INTERNAL = ("CPU", GPU, "memory", "object_store_memory")
"""Ray's own names of resources, beside `node:…`."""


def report_node(libraries: Sequence[str]) -> dict[str, Any]:
    """Report the GPUs of this machine, in a process of its own: this one must not open them."""
    env = {key: value for key, value in os.environ.items() if key != VISIBLE}
    command = [sys.executable, "-m", "rasura.networks.cards", *libraries]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=ASK_LIMIT_S)
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {}


class Survey:
    """What is known of the cluster's nodes.

    Args:
        gpu_memory_gb: GB of each GPU that may be used; None for what the cards have.
    """

    def __init__(self, gpu_memory_gb: float | None) -> None:
        self.gpu_memory_gb = gpu_memory_gb
        self._reports: dict[tuple[str, frozenset[str]], Mapping[str, Any]] = {}

    def list_nodes(self, libraries: frozenset[str] | None) -> list[Node]:
        """List the living nodes.

        Args:
            libraries: those that have to use GPUs; None where no network has to be placed, so that nobody is asked.
        """
        alive = [node for node in ray.nodes() if node["Alive"]]
        if libraries is not None:
            self._ask([node["NodeID"] for node in alive if node["Resources"].get(GPU, 0) >= 1], libraries)
        return [self._make_node(node["NodeID"], node["Resources"], libraries) for node in alive]

    def _ask(self, ids: Sequence[str], libraries: frozenset[str]) -> None:
        """Ask the nodes that were not asked for these libraries yet."""
        tasks = {}
        for id in ids:
            if (id, libraries) not in self._reports:
                where = NodeAffinitySchedulingStrategy(node_id=id, soft=False)
                task = ray.remote(report_node).options(num_cpus=0, max_retries=0, scheduling_strategy=where)
                tasks[id] = task.remote(sorted(libraries))
        for id, task in tasks.items():
            self._reports[id, libraries] = {}
            with contextlib.suppress(Exception):  # its cards are then unknown, as those of a node that has none
                self._reports[id, libraries] = ray.get(task, timeout=ASK_LIMIT_S)

    def _make_node(self, id: str, resources: Mapping[str, float], libraries: frozenset[str] | None) -> Node:
        report = self._reports.get((id, libraries), {}) if libraries is not None else {}
        size = report.get("bytes")
        card_bytes = int(size * USABLE) if size else None
        if self.gpu_memory_gb is not None:
            card_bytes = min(int(self.gpu_memory_gb * 1e9), card_bytes or int(self.gpu_memory_gb * 1e9))
        return Node(
            id=id,
            cpus=resources.get("CPU", 0.0),
            gpus=resources.get(GPU, 0.0),
            custom={
                name: amount
                for name, amount in resources.items()
                if name not in INTERNAL and not name.startswith("node:")
            },
            memory=resources.get("memory", float("inf")),
            card_bytes=card_bytes,
            libraries=frozenset(report["libraries"]) if "libraries" in report else None,
            card=report.get("card", ""),
        )
