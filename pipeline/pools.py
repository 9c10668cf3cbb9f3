"""Pools of actors: how many of which kind fit the cluster, who is ready, who runs what."""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.stage import Resources


@dataclass
class Task:
    """One group of one shard."""

    shard: int  # position in the plan
    group: int
    given: Any  # items, or the reference of a shipment

    def __lt__(self, other: "Task") -> bool:
        # what is further along goes first, so that little is in flight
        return (-self.group, self.shard) < (-other.group, other.shard)


@dataclass
class Handle:
    """An actor and what it was given, in the order in which it runs it."""

    actor: Any
    starting: Any  # reference of what it does before it is ready, None once it is
    node: str = ""
    mark: str = ""
    running: list[tuple[Task, Any, Any]] = field(default_factory=list)  # task, report's and shipment's references


@dataclass
class Pool:
    """Actors that hold the same resources. Groups that ask for the same share one pool."""

    resources: Resources
    handles: list[Handle] = field(default_factory=list)
    waiting: list[Task] = field(default_factory=list)

    def push(self, task: Task) -> None:
        """Queues a task."""
        heapq.heappush(self.waiting, task)

    def pop(self) -> Task:
        """The task that is furthest along."""
        return heapq.heappop(self.waiting)

    def next_for(self, queue: int) -> Handle | None:
        """The ready actor with the fewest tasks, if one has room for another."""
        ready = [h for h in self.handles if h.starting is None and len(h.running) < queue]
        return min(ready, key=lambda h: len(h.running)) if ready and self.waiting else None


class NotEnough(RuntimeError):
    """A stage asks for more than the cluster has."""


def _fits(have: Mapping[str, float], resources: Resources) -> int:
    """How many actors fit by what is not CPU; 0 CPUs asked for and nothing else is one a core."""
    asked = {"GPU": resources.gpus, **resources.custom}
    counts = [math.floor(have.get(name, 0) / amount + 1e-9) for name, amount in asked.items() if amount > 0]
    return min(counts) if counts else -1


def sizes(wanted: Sequence[Resources], have: Mapping[str, float], workers: int | None) -> list[int]:
    """How many actors each pool gets.

    Pools that need GPUs or custom resources take what those allow, and their CPUs; the others share what is left.

    Args:
        have: the cluster's resources in Ray's names ("CPU", "GPU", …).
        workers: most CPU workers; None for as many as fit.

    Raises:
        NotEnough
    """
    cpus = have.get("CPU", 0)
    result = [0] * len(wanted)
    plain = []
    for index, resources in enumerate(wanted):
        count = _fits(have, resources)
        if count < 0:
            plain.append(index)
            continue
        if resources.cpus > 0:
            spare = cpus - (1 if len(wanted) > 1 else 0)  # leave a core to the pools that have nothing else
            count = min(count, max(math.floor(spare / resources.cpus + 1e-9), 0))
        if count == 0:
            raise NotEnough(f"a stage asks for {describe(resources)}; the cluster has {_describe_cluster(have)}")
        cpus -= count * resources.cpus
        result[index] = count
    for position, index in enumerate(plain):
        resources = wanted[index]
        share = cpus / (len(plain) - position)
        count = math.floor(share / resources.cpus + 1e-9) if resources.cpus > 0 else math.floor(max(share, 1))
        if count == 0 and cpus + 1e-9 >= resources.cpus:
            count = 1
        if count == 0:
            raise NotEnough(f"a stage asks for {describe(resources)}; the cluster has {_describe_cluster(have)}")
        result[index] = min(count, workers or count)
        cpus -= result[index] * resources.cpus
    return result


def describe(resources: Resources) -> str:
    """Resources as a person reads them."""
    parts = {"CPUs": resources.cpus, "GPUs": resources.gpus, **resources.custom}
    return ", ".join(f"{amount:g} {name}" for name, amount in parts.items() if amount) or "nothing"


def _describe_cluster(have: Mapping[str, float]) -> str:
    shown = {name: amount for name, amount in have.items() if not name.startswith(("node:", "memory", "object_store"))}
    return ", ".join(f"{amount:g} {name}" for name, amount in shown.items())
