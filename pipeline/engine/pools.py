"""Pools of workers: how many of each kind the cluster has room for, which are ready, and what each of them runs."""

import contextlib
import heapq
import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rasura.manifests.run_layout import RunPlace
from rasura.pipeline.engine.crash_marks import CrashMark, get_marked_pid, read_mark, take_mark
from rasura.pipeline.engine.nodes import Slot
from rasura.pipeline.engine.worker import Worker
from rasura.pipeline.recipe.specs import Demand

NODE_DEATH_S = 20.0
"""Seconds within which a cluster notices that a node is lost."""


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
    slot: Slot  # what it holds, with a count of one
    starting: Any  # reference of what it does before it is ready, None once it is
    node: str = ""
    mark: str = ""
    running: list[RunningTask] = field(default_factory=list)
    overdue_since: float | None = None  # monotonic time

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
    """Workers that run the same groups: groups that ask for the same share one pool."""

    demand: Demand
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


def describe_failed_start(error: RayError) -> str:
    """Describe what a worker raised when it was started: the last line of Ray's text; "" where it died of other things.

    Where a module cannot be imported, the folders that workers import from are named: one may hide it.
    """
    if not isinstance(error, RayActorError) or not error.actor_init_failed:
        return ""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    imports = [line for line in lines if line.startswith(("ImportError:", "ModuleNotFoundError:"))]
    if not imports:
        return lines[-1]
    places = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return f"{imports[-1]} Workers import from {', '.join(places[:4])}; does a folder of your own hide a package there?"


class WorkerPools:
    """The pools of an engine: its workers are started, set up and ended here.

    Args:
        place: the run that the workers commit to.
    """

    def __init__(self, place: RunPlace) -> None:
        self.place = place
        self.pools: dict[Demand, Pool] = {}
        self._driver_node = ray.get_runtime_context().get_node_id()

    def __iter__(self) -> Iterator[Pool]:
        return iter(self.pools.values())

    def __getitem__(self, demand: Demand) -> Pool:
        return self.pools[demand]

    @property
    def handles(self) -> list[WorkerHandle]:
        """All workers of all pools."""
        return [handle for pool in self for handle in pool.handles]

    def resize(self, placement: Mapping[Demand, Sequence[Slot]]) -> None:
        """Give each pool its workers: those that are missing are started, idle ones that are too many are released.

        Args:
            placement: the slots of each pool; pools that are not in it are released.
        """
        for demand in [other for other in self.pools if other not in placement]:
            for handle in self.pools.pop(demand).handles:
                self.release(handle)
        missing: list[list[tuple[Pool, Slot]]] = []
        for demand, slots in placement.items():
            pool = self.pools.setdefault(demand, Pool(demand))
            wanted = Counter({replace(slot, count=1): slot.count for slot in slots})
            for handle in sorted(pool.handles, key=lambda handle: not handle.running):  # those at work stay
                if wanted[handle.slot] > 0:
                    wanted[handle.slot] -= 1
                elif not handle.running:  # another pool needs what it holds
                    pool.handles.remove(handle)
                    self.release(handle)
                else:  # it ends the shards that it has; until then one of the new ones waits for its place
                    wanted[next(iter(+wanted), handle.slot)] -= 1
            missing.append([(pool, slot) for slot in (+wanted).elements()])
        # in turn: Ray fills a card before it opens the next one, so that each card gets a worker of each pool
        for turn in itertools.zip_longest(*missing):
            for pool, slot in filter(None, turn):
                pool.handles.append(self._start(slot))

    def _start(self, slot: Slot) -> WorkerHandle:
        where = NodeAffinitySchedulingStrategy(node_id=slot.node, soft=False) if slot.node is not None else "DEFAULT"
        actor = (
            ray.remote(Worker)
            .options(
                num_cpus=slot.cpus,
                num_gpus=slot.gpus,
                memory=slot.memory or None,
                resources=dict(slot.custom) or None,
                scheduling_strategy=where,
                max_restarts=0,
                max_task_retries=0,
            )
            .remote(self.place)
        )
        return WorkerHandle(actor, slot, actor.locate.remote())

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

    def get_host(self, handle: WorkerHandle) -> str:
        """Return the name of the machine that a worker is, or was, on."""
        names = [node.get("NodeManagerHostname") for node in ray.nodes() if node["NodeID"] == handle.node]
        return str(names[0]) if names and names[0] else f"node {handle.node[:8]}"

    def take_crash_mark(self, handle: WorkerHandle) -> CrashMark | None:
        """Read a dead worker's mark on its own node; None where it left none, or that node is gone too."""
        if self._is_local(handle) and handle.mark:
            return take_mark(handle.mark)
        if not handle.mark or not self.has_living_node(handle):
            return None
        on_its_node = NodeAffinitySchedulingStrategy(node_id=handle.node, soft=False)
        try:
            task = ray.remote(take_mark).options(num_cpus=0, max_retries=0, scheduling_strategy=on_its_node)
            return ray.get(task.remote(handle.mark), timeout=30)  # type: ignore[no-any-return]
        except RayError:  # the node has gone with its worker; the cluster notices that some seconds later
            deadline = time.monotonic() + NODE_DEATH_S
            while self.has_living_node(handle) and time.monotonic() < deadline:
                time.sleep(0.5)
            return None

    def kill_overdue(self, grace_s: float) -> None:
        """Kill workers of this node that should have ended themselves some time ago: one that is stopped cannot.

        Time in which the driver was stopped, too, does not count.
        """
        now = time.monotonic()
        for handle in self.handles:
            mark = read_mark(handle.mark) if handle.mark and self._is_local(handle) else None
            if mark is None or mark.deadline is None or time.time() < mark.deadline:
                handle.overdue_since = None
                continue
            handle.overdue_since = handle.overdue_since or now
            if now - handle.overdue_since > grace_s:
                with contextlib.suppress(OSError):
                    os.kill(get_marked_pid(handle.mark), signal.SIGKILL)

    def describe_activity(self) -> str:
        """Describe how far long records are that workers of this node have; "" where none reports progress."""
        marks = [read_mark(handle.mark) for handle in self.handles if handle.mark and self._is_local(handle)]
        texts = []
        for mark in marks:
            if mark and mark.progress and mark.ids:
                done, total, note = mark.progress
                texts.append(f"{mark.stage} {mark.ids[0][:8]}: {done:.0f} of {total:.0f} {note}".strip())
        return "; ".join(texts)
