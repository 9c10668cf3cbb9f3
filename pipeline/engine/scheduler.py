"""The carrier: shards travel through pools of Ray actors, a bounded number in flight; the last group commits them.

The driver hands out shards, replaces actors that die, and lays a death to the records that were running: one that
ends its worker `tries` times is failed and costs no other. A dead node is no record's fault.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rasura.manifests.shards import Line
from rasura.manifests.storage import Store
from rasura.pipeline.engine.execute import Blame
from rasura.pipeline.engine.pools import Handle, NotEnough, Pool, Task, describe, sizes
from rasura.pipeline.engine.worker import Mark, Worker, read_mark
from rasura.pipeline.recipe.load import Engine as Settings
from rasura.pipeline.recipe.plan import FlowPlan, Shard
from rasura.stages.stage import Resources

RESIZE_S = 5.0
START_LIMIT_S = 180.0
SILENT_DEATHS = 5  # deaths of a worker that was in no stage, over one shard


class RunFailed(RuntimeError):
    """The run cannot go on. What was committed is whole; the same command goes on from there."""


class _Blames:
    """Who ended workers, how often, and what follows."""

    def __init__(self, tries: int) -> None:
        self.tries = tries
        self.counts: dict[tuple[str, str], int] = {}
        self.dead: dict[tuple[str, str], str] = {}
        self.suspects: set[str] = set()
        self.setups: dict[str, int] = {}

    def blame(self, mark: Mark) -> None:
        """One death: of a single record a try; of a batch, its records run alone from now on."""
        if mark.setting_up:
            self.setups[mark.stage] = self.setups.get(mark.stage, 0) + 1
            if self.setups[mark.stage] >= self.tries:
                raise RunFailed(f"stage '{mark.stage}' ended its worker {self.tries} times while it was set up")
        for id in mark.ids:
            key = (mark.stage, id)
            self.counts[key] = self.counts.get(key, 0) + 1
            if len(mark.ids) > 1:
                self.suspects.add(id)
            elif self.counts[key] >= self.tries:
                self.dead[key] = "TimedOut" if mark.timed_out else "WorkerDied"

    def now(self) -> Blame:
        """What workers are told."""
        return Blame(dict(self.dead), frozenset(self.suspects))


OnCommit = Callable[[Line, Mapping[str, Any]], None]


class Engine:
    """Runs flows on a Ray that is already initialised. Actors stay between flows that ask for the same resources."""

    def __init__(self, run: Store, settings: Settings) -> None:
        self.run, self.settings = run, settings
        self.pools: dict[Resources, Pool] = {}
        self._here = ray.get_runtime_context().get_node_id()
        self._resized = 0.0
        self._progressed = time.monotonic()
        self.deaths = 0

    # --- one flow

    def flow(self, flow: FlowPlan, shards: Sequence[Shard], on_commit: OnCommit) -> None:
        """Carries shards through a flow's groups until all are committed.

        Raises:
            RunFailed: a stage cannot be set up, nothing can be written, the cluster is gone or too small.
        """
        self._flow, self._shards, self._on_commit = flow, shards, on_commit
        self._blames = _Blames(self.settings.tries)
        self._silent: dict[int, int] = {}
        self._left = len(shards)
        self._next = 0
        self._open = 0
        self.working_s = 0.0  # from the first shard handed out to the last commit
        self._first: float | None = None
        self._progressed = time.monotonic()
        self._starts = 0
        self._resize([group.resources for group in flow.groups])
        for pool in self.pools.values():
            for handle in pool.handles:
                if handle.starting is None:  # it has served another flow
                    self._prepare(handle)
        while self._left:
            self._hand_out()
            self._collect()
            if time.monotonic() - self._resized > RESIZE_S:
                self._resize([group.resources for group in flow.groups])

    def _pool(self, group: int) -> Pool:
        return self.pools[self._flow.groups[group].resources]

    def _hand_out(self) -> None:
        limit = self.settings.queue * sum(len(pool.handles) for pool in self.pools.values())
        while self._next < len(self._shards) and self._open < limit:
            self._pool(0).push(Task(self._next, 0, self._shards[self._next].items))
            self._next += 1
            self._open += 1
        for pool in self.pools.values():
            while handle := pool.next_for(self.settings.queue):
                self._give(handle, pool.pop())

    def _give(self, handle: Handle, task: Task) -> None:
        flow, group = self._flow, self._flow.groups[task.group]
        self._first = self._first or time.monotonic()
        blame = self._blames.now()
        if task.group == len(flow.groups) - 1:
            shard = self._shards[task.shard].id
            method = handle.actor.run_last.options(num_returns=2)
            refs = method.remote(flow.name, group, task.given, blame, flow.splits, shard, flow.part)
        else:
            method = handle.actor.run_group.options(num_returns=2)
            refs = method.remote(flow.name, group, task.given, blame, flow.splits)
        handle.running.append((task, refs[0], refs[1]))

    def _collect(self) -> None:
        owners: dict[Any, Handle] = {}
        for pool in self.pools.values():
            for handle in pool.handles:
                if handle.starting is not None:
                    owners[handle.starting] = handle
                for _, report, _ in handle.running:
                    owners[report] = handle
        if not owners:  # all have died, and none is replaced yet
            time.sleep(0.2)
            return
        done, _ = ray.wait(list(owners), num_returns=1, timeout=0.5)
        if done:
            more, _ = ray.wait(list(owners), num_returns=len(owners), timeout=0)
            self._progressed = time.monotonic()
            for ref in more:
                self._finished(owners[ref], ref)
        elif time.monotonic() - self._progressed > START_LIMIT_S and not any(h.mark for h in owners.values()):
            asked = "; ".join(describe(pool.resources) for pool in self.pools.values())
            raise RunFailed(f"no worker could be started in {START_LIMIT_S:.0f} s (asked for: {asked})")
        self._check_cluster(bool(done))

    def _finished(self, handle: Handle, ref: Any) -> None:
        if not any(handle in pool.handles for pool in self.pools.values()):
            return  # it died, and what it held is queued again
        try:
            value = ray.get(ref)
        except (RayActorError, OutOfMemoryError):
            self._death(handle)
            return
        except ObjectLostError:
            self._again(handle, ref)
            return
        except RayTaskError as error:
            if isinstance(error.cause, ObjectLostError):
                self._again(handle, ref)
                return
            cause = error.cause if error.cause is not None else error
            text = str(cause) if type(cause).__name__ in ("SetupFailed", "CommitFailed") else f"{cause!r}\n{error}"
            raise RunFailed(f"{text}\nWhat was committed is whole; the same command goes on from there.") from None
        except RayError as error:
            raise RunFailed(f"{type(error).__name__}: {error}\nWhat was committed is whole.") from None
        if ref == handle.starting:
            if not handle.mark:
                handle.node, handle.mark = value
                self._prepare(handle)
            else:
                handle.starting = None
                self._starts = 0
            return
        entry = next(entry for entry in handle.running if entry[1] == ref)
        handle.running.remove(entry)
        task, _, shipment = entry
        if task.group + 1 < len(self._flow.groups):
            self._pool(task.group + 1).push(Task(task.shard, task.group + 1, shipment))
            return
        self._open -= 1
        self._left -= 1
        self.working_s = time.monotonic() - (self._first or 0.0)
        self._on_commit(value.pop("line"), value)

    def _again(self, handle: Handle, ref: Any) -> None:
        """A shipment was lost with its node: the shard starts anew."""
        entry = next(entry for entry in handle.running if entry[1] == ref)
        handle.running.remove(entry)
        self._pool(0).push(Task(entry[0].shard, 0, self._shards[entry[0].shard].items))

    # --- deaths

    def _death(self, handle: Handle) -> None:
        self.deaths += 1
        pool = next(pool for pool in self.pools.values() if handle in pool.handles)
        pool.handles.remove(handle)
        with contextlib.suppress(Exception):
            ray.kill(handle.actor)
        self._check_cluster(False)
        for task, _, _ in handle.running:
            pool.push(task)
        self._resized = 0.0
        if handle.mark and not self._node_is_alive(handle):
            return  # a lost node is nobody's fault
        mark = self._mark(handle)
        if mark:
            self._blames.blame(mark)
        elif not handle.running:
            self._starts += 1
            if self._starts >= SILENT_DEATHS * max(1, len(pool.handles) + 1):
                raise RunFailed("workers end again and again before they have a shard (short of memory?)")
        else:
            shard = handle.running[0][0].shard
            self._silent[shard] = self._silent.get(shard, 0) + 1
            if self._silent[shard] >= SILENT_DEATHS:
                raise RunFailed(
                    f"workers ended {SILENT_DEATHS} times over shard {self._shards[shard].id} of flow "
                    f"'{self._flow.name}' while no stage was running (short of memory?)"
                )

    def _node_is_alive(self, handle: Handle) -> bool:
        return handle.node == self._here or handle.node in {n["NodeID"] for n in ray.nodes() if n["Alive"]}

    def _mark(self, handle: Handle) -> Mark | None:
        """The dead worker's mark, read on its own node; None where that node is gone too."""
        if not handle.mark:
            return None
        if handle.node == self._here:
            return read_mark(handle.mark)[0]
        here = NodeAffinitySchedulingStrategy(node_id=handle.node, soft=False)
        try:
            task = ray.remote(read_mark).options(num_cpus=0, max_retries=0, scheduling_strategy=here)
            return ray.get(task.remote(handle.mark), timeout=30)[0]  # type: ignore[no-any-return]
        except RayError:
            return None

    def _check_cluster(self, fine: bool) -> None:
        if fine:
            return
        try:
            alive = any(node["Alive"] for node in ray.nodes())
        except Exception as error:
            raise RunFailed(f"the Ray cluster does not answer any more: {error}") from None
        if not alive:
            raise RunFailed("all nodes of the Ray cluster are gone; run the same command again to go on")

    # --- pools

    def _resize(self, wanted: Sequence[Resources]) -> None:
        """Gives each pool the actors that the cluster has room for now; pools nobody needs are let go."""
        self._resized = time.monotonic()
        distinct = list(dict.fromkeys(wanted))
        for resources in [other for other in self.pools if other not in distinct]:
            for handle in self.pools.pop(resources).handles:
                self._let_go(handle)
        try:
            counts = sizes(distinct, ray.cluster_resources(), self.settings.workers)
        except NotEnough as error:
            if any(pool.handles for pool in self.pools.values()):
                return  # nodes have left for the moment; those that are here go on
            raise RunFailed(str(error)) from None
        pools = [self.pools.setdefault(resources, Pool(resources)) for resources in distinct]
        for pool, count in zip(pools, counts, strict=True):
            idle = [handle for handle in pool.handles if not handle.running]
            for handle in idle[: max(0, len(pool.handles) - count)]:  # another pool needs what they hold
                pool.handles.remove(handle)
                self._let_go(handle)
        for pool, count in zip(pools, counts, strict=True):
            for _ in range(count - len(pool.handles)):
                pool.handles.append(self._start(pool.resources))

    def _start(self, resources: Resources) -> Handle:
        actor = (
            ray.remote(Worker)
            .options(
                num_cpus=resources.cpus,
                num_gpus=resources.gpus,
                resources=dict(resources.custom) or None,
                max_restarts=0,
                max_task_retries=0,
            )
            .remote(self.run.__getstate__()["uri"])
        )
        return Handle(actor, actor.where.remote())

    def _prepare(self, handle: Handle) -> None:
        """Has a worker set up what its pool runs in this flow; shards come when that is done."""
        pool = next(pool for pool in self.pools.values() if handle in pool.handles)
        groups = [group for group in self._flow.groups if group.resources == pool.resources]
        handle.starting = handle.actor.prepare.remote(self._flow.name, groups)

    def _let_go(self, handle: Handle) -> None:
        if handle.node == self._here and handle.mark:
            read_mark(handle.mark)
        with contextlib.suppress(Exception):
            ray.kill(handle.actor)

    def close(self) -> None:
        """Ends all actors."""
        for pool in self.pools.values():
            for handle in pool.handles:
                self._let_go(handle)
        self.pools.clear()
