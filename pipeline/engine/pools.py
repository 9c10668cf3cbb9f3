"""Pools of actors: how many of which kind fit the cluster, who is ready, who runs what."""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rasura.stages.stage import Resources


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


def _scarce(resources: Resources) -> dict[str, float]:
    """What a pool asks for beside CPUs, in Ray's names."""
    return {name: amount for name, amount in {"GPU": resources.gpus, **resources.custom}.items() if amount > 0}


def _whole(amount: float) -> int:
    return math.floor(amount + 1e-9)


def sizes(wanted: Sequence[Resources], have: Mapping[str, float], workers: int | None) -> list[int]:
    """How many actors each pool gets.

    Pools that need GPUs or custom resources share those evenly and take their CPUs; the others share what is left.

    Args:
        have: the cluster's resources in Ray's names ("CPU", "GPU", …).
        workers: most CPU workers; None for as many as fit.

    Raises:
        NotEnough
    """
    left = dict(have)
    result = [0] * len(wanted)
    special = [index for index, resources in enumerate(wanted) if _scarce(resources)]
    plain = [index for index, resources in enumerate(wanted) if not _scarce(resources)]
    for position, index in enumerate(special):
        resources = wanted[index]
        counts = []
        for name, amount in _scarce(resources).items():
            sharers = sum(name in _scarce(wanted[other]) for other in special[position:])
            counts.append(max(_whole(left.get(name, 0) / sharers / amount), min(1, _whole(left.get(name, 0) / amount))))
        if resources.cpus > 0:
            spare = left.get("CPU", 0) - (1 if plain else 0)  # leave a core to the pools that have nothing else
            counts.append(_whole(spare / resources.cpus))
        result[index] = _take(left, resources, min(counts), have)
    for position, index in enumerate(plain):
        resources, cpus = wanted[index], left.get("CPU", 0)
        share = cpus / (len(plain) - position)
        if resources.cpus > 0:
            count = max(_whole(share / resources.cpus), min(1, _whole(cpus / resources.cpus)))
        else:
            count = _whole(max(share, 1))
        result[index] = _take(left, resources, min(count, workers or count), have)
    return result


def _take(left: dict[str, float], resources: Resources, count: int, have: Mapping[str, float]) -> int:
    """Takes what `count` actors hold from what is left; returns the count."""
    if count < 1:
        raise NotEnough(f"a stage asks for {describe(resources)}; the cluster has {_describe_cluster(have)}")
    for name, amount in {"CPU": resources.cpus, **_scarce(resources)}.items():
        left[name] = left.get(name, 0) - count * amount
    return count


def describe(resources: Resources) -> str:
    """Resources as a person reads them."""
    parts = {"CPUs": resources.cpus, "GPUs": resources.gpus, **resources.custom}
    return ", ".join(f"{amount:g} {name}" for name, amount in parts.items() if amount) or "nothing"


def _describe_cluster(have: Mapping[str, float]) -> str:
    shown = {name: amount for name, amount in have.items() if not name.startswith(("node:", "memory", "object_store"))}
    return ", ".join(f"{amount:g} {name}" for name, amount in shown.items())
