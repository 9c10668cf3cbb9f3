"""Pools of workers: how many of each kind the cluster has room for, which are ready, and what each of them runs."""

import contextlib
import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rasura.manifests.errors import RunError
from rasura.pipeline.engine.crash_marks import CrashMark, read_mark, take_mark
from rasura.pipeline.engine.worker import Worker
from rasura.stages.stage import Resources


@dataclass
class Task:
    """One group of one shard."""

    shard: int  # position in the plan
    group: int
    work: Any  # items, or the reference of a partial shard

    def __lt__(self, other: "Task") -> bool:
        # what is further along goes first, so that little is in flight
        return (-self.group, self.shard) < (-other.group, other.shard)


@dataclass
class RunningTask:
    """A task that a worker has: the references of its report and of the partial shard that it returns."""

    task: Task
    report: Any
    shard: Any


@dataclass
class WorkerHandle:
    """A worker, and its tasks in the order in which it runs them."""

    actor: Any
    starting: Any  # reference of what it does before it is ready, None once it is
    node: str = ""
    mark: str = ""
    running: list[RunningTask] = field(default_factory=list)

    def add(self, task: Task, report: Any, shard: Any) -> None:
        """Add a task that the worker was given."""
        self.running.append(RunningTask(task, report, shard))

    def take(self, report: Any) -> RunningTask:
        """Remove and return the running task with this report."""
        task = next(task for task in self.running if task.report == report)
        self.running.remove(task)
        return task


@dataclass
class Pool:
    """Workers that hold the same resources. Groups that ask for the same resources share one pool."""

    resources: Resources
    handles: list[WorkerHandle] = field(default_factory=list)
    waiting: list[Task] = field(default_factory=list)

    def push(self, task: Task) -> None:
        """Queue a task."""
        heapq.heappush(self.waiting, task)

    def pop(self) -> Task:
        """Remove and return the task that is furthest along."""
        return heapq.heappop(self.waiting)

    def find_free(self, queue: int) -> WorkerHandle | None:
        """Return the ready worker with the fewest tasks, if it has fewer than `queue` and there is a task for it."""
        ready = [h for h in self.handles if h.starting is None and len(h.running) < queue]
        return min(ready, key=lambda h: len(h.running)) if ready and self.waiting else None


class NotEnoughResources(RunError):
    """A stage asks for more than the cluster has.

    Args:
        resources: what a worker of the stage holds.
        cluster: the cluster's resources in Ray's names.
    """

    def __init__(self, resources: Resources, cluster: Mapping[str, float]) -> None:
        super().__init__(
            f"a stage asks for {describe_resources(resources)}; the cluster has {_describe_cluster(cluster)}"
        )
        self.resources = resources


def _list_scarce(resources: Resources) -> dict[str, float]:
    """List what a pool asks for beside CPUs, in Ray's names."""
    return {name: amount for name, amount in {"GPU": resources.gpus, **resources.custom}.items() if amount > 0}


def _round_down(amount: float) -> int:
    return math.floor(amount + 1e-9)


def allocate_workers(demands: Sequence[Resources], cluster: Mapping[str, float], workers: int | None) -> list[int]:
    """Decide how many workers each pool gets.

    Pools that need GPUs or custom resources share those evenly and take their CPUs; the others share what is left.

    Args:
        demands: what one worker of each pool holds.
        cluster: the cluster's resources in Ray's names ("CPU", "GPU", …).
        workers: most CPU workers; None for as many as fit.

    Returns:
        The number of workers of each pool, at least 1.

    Raises:
        NotEnoughResources: the cluster has no room for one worker of each pool.

    Examples:
        >>> allocate_workers([Resources(), Resources(gpus=0.5)], {"CPU": 8, "GPU": 1}, None)
        [6, 2]
    """
    left = dict(cluster)
    result = [0] * len(demands)
    special = [index for index, resources in enumerate(demands) if _list_scarce(resources)]
    plain = [index for index, resources in enumerate(demands) if not _list_scarce(resources)]
    for position, index in enumerate(special):
        resources = demands[index]
        counts = []
        for name, amount in _list_scarce(resources).items():
            sharers = sum(name in _list_scarce(demands[other]) for other in special[position:])
            counts.append(
                max(_round_down(left.get(name, 0) / sharers / amount), min(1, _round_down(left.get(name, 0) / amount)))
            )
        if resources.cpus > 0:
            spare = left.get("CPU", 0) - (1 if plain else 0)  # leave a core to the pools that have nothing else
            counts.append(_round_down(spare / resources.cpus))
        result[index] = _reserve(left, resources, min(counts), cluster)
    for position, index in enumerate(plain):
        resources, cpus = demands[index], left.get("CPU", 0)
        share = cpus / (len(plain) - position)
        if resources.cpus > 0:
            count = max(_round_down(share / resources.cpus), min(1, _round_down(cpus / resources.cpus)))
        else:
            count = _round_down(max(share, 1))
        result[index] = _reserve(left, resources, min(count, workers or count), cluster)
    return result


def _reserve(left: dict[str, float], resources: Resources, count: int, cluster: Mapping[str, float]) -> int:
    """Take what `count` workers hold from what is left; return the count."""
    if count < 1:
        raise NotEnoughResources(resources, cluster)
    for name, amount in {"CPU": resources.cpus, **_list_scarce(resources)}.items():
        left[name] = left.get(name, 0) - count * amount
    return count


def describe_resources(resources: Resources) -> str:
    """Write resources as a person reads them.

    Examples:
        >>> describe_resources(Resources(gpus=0.5))
        '1 CPUs, 0.5 GPUs'
    """
    parts = {"CPUs": resources.cpus, "GPUs": resources.gpus, **resources.custom}
    return ", ".join(f"{amount:g} {name}" for name, amount in parts.items() if amount) or "nothing"


def _describe_cluster(cluster: Mapping[str, float]) -> str:
    internal = ("node:", "memory", "object_store")
    return ", ".join(f"{amount:g} {name}" for name, amount in cluster.items() if not name.startswith(internal))


class WorkerPools:
    """The pools of an engine: its workers are started, set up and ended here.

    Args:
        run_uri: the run that the workers commit to.
        workers: most CPU workers; None for as many as fit.
    """

    def __init__(self, run_uri: str, workers: int | None) -> None:
        self.run_uri, self.workers = run_uri, workers
        self.pools: dict[Resources, Pool] = {}
        self._driver_node = ray.get_runtime_context().get_node_id()

    def __iter__(self) -> Iterator[Pool]:
        return iter(self.pools.values())

    def __getitem__(self, resources: Resources) -> Pool:
        return self.pools[resources]

    @property
    def handles(self) -> list[WorkerHandle]:
        """All workers of all pools."""
        return [handle for pool in self for handle in pool.handles]

    def resize(self, demands: Sequence[Resources]) -> None:
        """Give each pool the workers that the cluster has room for now; pools that nobody needs are released.

        Raises:
            NotEnoughResources: no worker is left, and the cluster has no room for one of each pool.
        """
        distinct = list(dict.fromkeys(demands))
        for resources in [other for other in self.pools if other not in distinct]:
            for handle in self.pools.pop(resources).handles:
                self.release(handle)
        try:
            counts = allocate_workers(distinct, ray.cluster_resources(), self.workers)
        except NotEnoughResources:
            if self.handles:
                return  # nodes have left for the moment; the workers that remain go on
            raise
        pools = [self.pools.setdefault(resources, Pool(resources)) for resources in distinct]
        for pool, count in zip(pools, counts, strict=True):
            idle = [handle for handle in pool.handles if not handle.running]
            for handle in idle[: max(0, len(pool.handles) - count)]:  # another pool needs what they hold
                pool.handles.remove(handle)
                self.release(handle)
        for pool, count in zip(pools, counts, strict=True):
            for _ in range(count - len(pool.handles)):
                pool.handles.append(self._start(pool.resources))

    def _start(self, resources: Resources) -> WorkerHandle:
        actor = (
            ray.remote(Worker)
            .options(
                num_cpus=resources.cpus,
                num_gpus=resources.gpus,
                resources=dict(resources.custom) or None,
                max_restarts=0,
                max_task_retries=0,
            )
            .remote(self.run_uri)
        )
        return WorkerHandle(actor, actor.locate.remote())

    def find_pool(self, handle: WorkerHandle) -> Pool | None:
        """Return the pool of a worker; None where it has been removed."""
        return next((pool for pool in self if handle in pool.handles), None)

    def release(self, handle: WorkerHandle) -> None:
        """End a worker that has no more to do."""
        if self._is_local(handle) and handle.mark:
            take_mark(handle.mark)
        with contextlib.suppress(Exception):
            ray.kill(handle.actor)

    def close(self) -> None:
        """End all workers."""
        for handle in self.handles:
            self.release(handle)
        self.pools.clear()

    def _is_local(self, handle: WorkerHandle) -> bool:
        return bool(handle.node == self._driver_node)

    def has_living_node(self, handle: WorkerHandle) -> bool:
        """Return True where the worker's node is part of the cluster."""
        return self._is_local(handle) or any(node["NodeID"] == handle.node and node["Alive"] for node in ray.nodes())

    def take_crash_mark(self, handle: WorkerHandle) -> CrashMark | None:
        """Read a dead worker's mark on its own node; None where it left none, or that node is gone too."""
        if not handle.mark:
            return None
        if self._is_local(handle):
            return take_mark(handle.mark)
        on_its_node = NodeAffinitySchedulingStrategy(node_id=handle.node, soft=False)
        try:
            task = ray.remote(take_mark).options(num_cpus=0, max_retries=0, scheduling_strategy=on_its_node)
            return ray.get(task.remote(handle.mark), timeout=30)  # type: ignore[no-any-return]
        except RayError:
            return None

    def describe_activity(self) -> str:
        """Describe how far long records are that workers of this node have; "" where none reports progress."""
        marks = [read_mark(handle.mark) for handle in self.handles if handle.mark and self._is_local(handle)]
        texts = []
        for mark in marks:
            if mark and mark.progress and mark.ids:
                done, total, note = mark.progress
                texts.append(f"{mark.stage} {mark.ids[0][:8]}: {done:.0f} of {total:.0f} {note}".strip())
        return "; ".join(texts)
