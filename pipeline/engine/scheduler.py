"""The scheduler: shards travel through pools of Ray actors, a bounded number at a time; the last group commits them.

The driver hands out shards, replaces workers that die, and attributes a death to the records that were running: one
that ends its worker `tries` times fails, and costs no other record. A dead node is no record's fault.
"""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from rasura.manifests.errors import RunError
from rasura.manifests.run_layout import read_place
from rasura.manifests.storage import Store
from rasura.pipeline.engine.execution import (
    MOST_SET_ASIDE,
    CrashTracker,
    DelayedTask,
    FlowExecution,
    OnActivity,
    OnCommit,
    RunFailed,
    describe_delays,
    describe_set_aside,
)
from rasura.pipeline.engine.faults import BackOff, SurroundingsFault
from rasura.pipeline.engine.measured import Figures, apply_figures, find_file, read_figures, write_figures
from rasura.pipeline.engine.nodes import Node, NotEnoughResources
from rasura.pipeline.engine.placement import FlowPlacement, place_flow, place_workers
from rasura.pipeline.engine.pools import Pool, Task, WorkerHandle, WorkerPools
from rasura.pipeline.engine.survey import Survey
from rasura.pipeline.recipe.describe import describe_demand
from rasura.pipeline.recipe.schema import EngineSettings
from rasura.pipeline.recipe.specs import FlowPlan, Group, Shard

RESIZE_S = 5.0
START_LIMIT_S = 180.0
MOST_WAITING = 4  # shards that wait after a fault of the surroundings, for each of those that are in work
SILENT_DEATHS = 5  # deaths of a worker that was in no stage, over one shard


class Engine:
    """Carries out flows on a Ray that is initialised. Workers stay between flows that ask for the same resources."""

    def __init__(self, run: Store, settings: EngineSettings) -> None:
        self.settings = settings
        self.set_run(run)
        self.pools = WorkerPools(self.run_place)
        self.survey = Survey(settings.gpu_memory_gb)
        self.figures: Figures = read_figures(find_file())
        self._measured: Figures = {}
        self.deaths = 0
        self._resized = 0.0

    def set_run(self, run: Store) -> None:
        """Have the flows that follow read from and commit to this run."""
        self.run_place = read_place(run)

    def run_flow(
        self, flow: FlowPlan, shards: Sequence[Shard], on_commit: OnCommit, on_activity: OnActivity | None = None
    ) -> float:
        """Carry shards through a flow's groups until all are committed.

        Returns:
            Seconds from the first shard handed out to the last commit.

        Raises:
            CannotPlace: the cluster is too small; nothing was started.
            RunFailed: a stage cannot be set up, the surroundings kept shards from being made, the cluster is gone.
        """
        placement = self.place(flow)
        tracker = CrashTracker(self.settings.tries)
        back_off = BackOff(self.settings.patience_s)
        state = FlowExecution(flow, placement.groups, shards, on_commit, tracker, back_off, len(shards))
        self._resized = time.monotonic()
        self.pools.resize(placement.pools)
        for pool in self.pools:
            for handle in pool.handles:
                if handle.starting is None:  # it has served another flow
                    self._prepare(state, pool, handle)
        while state.remaining:
            self._hand_out(state)
            self._collect(state)
            if time.monotonic() - self._resized > RESIZE_S:
                self._resize(state)
            if on_activity is not None and (activity := describe_delays(state) or self.pools.describe_activity()):
                on_activity(activity)
        if state.set_aside:
            raise RunFailed(describe_set_aside(state))
        return state.working_s

    def place(self, flow: FlowPlan) -> FlowPlacement:
        """Decide where the stages of a flow run on the cluster as it is now.

        Raises:
            CannotPlace: a stage asks for more than the cluster has.
        """
        nodes = self._list_nodes(flow.groups)
        cards = {node.card: node.card_bytes for node in nodes if node.gpus >= 1}
        groups = tuple(apply_figures(group, self.figures, cards) for group in flow.groups)
        return place_flow(replace(flow, groups=groups), nodes, self.settings.workers)

    def _list_nodes(self, groups: Sequence[Group]) -> list[Node]:
        memories = [group.demand.memory for group in groups if group.demand.memory is not None]
        on_cards = [memory.libraries for memory in memories if memory.device != "cpu"]
        return self.survey.list_nodes(frozenset().union(*on_cards) if on_cards else None)

    def _resize(self, state: FlowExecution) -> None:
        """Give the pools the workers that the cluster has room for now."""
        self._resized = time.monotonic()
        demands = list(dict.fromkeys(group.demand for group in state.groups))
        try:
            slots = place_workers(demands, self._list_nodes(state.groups), self.settings.workers)
        except NotEnoughResources as error:
            if not self.pools.handles:
                raise RunFailed(f"flow '{state.flow.name}': {error}; run the same command again to go on") from None
            return  # nodes have left for the moment; the workers that remain go on
        self.pools.resize(dict(zip(demands, slots, strict=True)))

    def _prepare(self, state: FlowExecution, pool: Pool, handle: WorkerHandle) -> None:
        """Have a worker set up the stages that its pool runs in this flow; it gets shards when that is done."""
        groups = [group for group in state.groups if group.demand == pool.demand]
        handle.starting = handle.actor.prepare.remote(self.run_place, state.flow.name, groups)

    def _find_pool(self, state: FlowExecution, group: int) -> Pool:
        return self.pools[state.groups[group].demand]

    # --- shards out and in

    def _hand_out(self, state: FlowExecution) -> None:
        limit = self.settings.queue * len(self.pools.handles)
        waiting = min(len(state.delayed), MOST_WAITING * limit)  # the others go on beside them
        while state.next_shard < len(state.shards) and state.in_flight - waiting < limit:
            self._push_anew(state, state.next_shard)
            state.next_shard += 1
            state.in_flight += 1
        for delayed in [delayed for delayed in state.delayed if delayed.due <= time.monotonic()]:
            pool = self._find_pool(state, delayed.task.group)
            ready = [handle for handle in pool.handles if handle.starting is None]
            if ready:  # another worker, if there is one, on another node if there is one
                before = delayed.before
                state.delayed.remove(delayed)
                worker = min(ready, key=lambda h: (h is before, h.node == before.node, len(h.running)))
                self._assign(state, worker, delayed.task)
        for pool in self.pools:
            while handle := pool.find_free(self.settings.queue):
                self._assign(state, handle, pool.pop())

    def _push_anew(self, state: FlowExecution, shard: int) -> None:
        self._find_pool(state, 0).push(Task(shard, 0, state.shards[shard].items))

    def _assign(self, state: FlowExecution, handle: WorkerHandle, task: Task) -> None:
        flow, group = state.flow, state.groups[task.group]
        state.first_task = state.first_task or time.monotonic()
        quarantine = state.crashes.quarantine()
        if task.group == len(state.groups) - 1:
            shard = state.shards[task.shard].id
            method = handle.actor.run_last.options(num_returns=2)
            references = method.remote(self.run_place, flow, group, task.work, quarantine, shard)
        else:
            method = handle.actor.run_group.options(num_returns=2)
            references = method.remote(self.run_place, flow.name, group, task.work, quarantine, flow.splits)
        handle.add(task, *references)

    def _collect(self, state: FlowExecution) -> None:
        """Wait for the next reports and act on them."""
        owners: dict[Any, WorkerHandle] = {}
        for handle in self.pools.handles:
            if handle.starting is not None:
                owners[handle.starting] = handle
            for running in handle.running:
                owners[running.report] = handle
        if not owners:  # all have died, and none is replaced yet
            time.sleep(0.2)
            return
        ready, _ = ray.wait(list(owners), num_returns=1, timeout=0.5)
        if ready:
            ready, _ = ray.wait(list(owners), num_returns=len(owners), timeout=0)
            state.last_progress = time.monotonic()
            for reference in ready:
                self._handle_result(state, owners[reference], reference)
        elif time.monotonic() - state.last_progress > START_LIMIT_S and not any(h.mark for h in owners.values()):
            demands = "; ".join(describe_demand(pool.demand) for pool in self.pools)
            raise RunFailed(f"no worker could be started in {START_LIMIT_S:.0f} s (asked for: {demands})")
        if not ready:
            _check_cluster()

    def _handle_result(self, state: FlowExecution, handle: WorkerHandle, reference: Any) -> None:
        pool = self.pools.find_pool(handle)
        if pool is None:
            return  # it died, and its tasks are queued again
        try:
            value = ray.get(reference)
        except (RayActorError, OutOfMemoryError):
            self._handle_death(state, pool, handle)
            return
        except ObjectLostError:
            self._restart_shard(state, handle, reference)
            return
        except RayTaskError as error:
            if isinstance(error.cause, ObjectLostError):
                self._restart_shard(state, handle, reference)
                return
            if isinstance(error.cause, SurroundingsFault):
                self._postpone(state, handle, reference, error.cause)
                return
            raise RunFailed(
                f"{_describe_task_error(error)}\nWhat was committed is whole; the same command goes on from there."
            ) from None
        except RayError as error:
            raise RunFailed(f"{type(error).__name__}: {error}\nWhat was committed is whole.") from None
        if reference == handle.starting:
            self._finish_start(state, pool, handle, value)
        else:
            self._finish_task(state, handle, reference, value)

    def _finish_start(self, state: FlowExecution, pool: Pool, handle: WorkerHandle, value: Any) -> None:
        if not handle.mark:
            handle.node, handle.mark = value
            self._prepare(state, pool, handle)
        else:
            handle.starting = None
            state.failed_starts = 0

    def _finish_task(self, state: FlowExecution, handle: WorkerHandle, report: Any, value: dict[str, Any]) -> None:
        running = handle.take(report)
        shard, group = running.task.shard, running.task.group
        if size := value.pop("card_bytes", 0):
            cards = self._measured.setdefault(state.groups[group].demand.key, {})
            cards[value["card"]] = max(size, cards.get(value["card"], 0))
        if group + 1 < len(state.groups):
            self._find_pool(state, group + 1).push(Task(shard, group + 1, running.shard))
            return
        state.in_flight -= 1
        state.remaining -= 1
        state.set_aside_in_a_row = 0
        state.working_s = time.monotonic() - (state.first_task or 0.0)
        state.on_commit(value.pop("line"), value)

    def _restart_shard(self, state: FlowExecution, handle: WorkerHandle, report: Any) -> None:
        """Start a shard anew: what an earlier group made of it was lost with its node."""
        self._push_anew(state, handle.take(report).task.shard)

    def _postpone(self, state: FlowExecution, handle: WorkerHandle, report: Any, fault: SurroundingsFault) -> None:
        """Have a shard tried again later, elsewhere, or set it aside: it stays uncommitted, and the others go on."""
        task = handle.take(report).task
        if fault.memory:
            state.crashes.count_lack_of_memory(fault)
        wait = state.back_off.lengthen(task.shard)
        if wait is not None:
            state.delayed.append(DelayedTask(task, time.monotonic() + wait, handle, fault))
            return
        state.set_aside[task.shard] = fault
        state.set_aside_in_a_row += 1
        state.in_flight -= 1
        state.remaining -= 1
        if state.set_aside_in_a_row >= MOST_SET_ASIDE:
            raise RunFailed(describe_set_aside(state))

    # --- deaths

    def _handle_death(self, state: FlowExecution, pool: Pool, handle: WorkerHandle) -> None:
        self.deaths += 1
        pool.handles.remove(handle)
        with contextlib.suppress(Exception):
            ray.kill(handle.actor)
        _check_cluster()
        for running in handle.running:
            pool.push(running.task)
        self._resized = 0.0
        if handle.mark and not self.pools.has_living_node(handle):
            return  # a lost node is nobody's fault
        if mark := self.pools.take_crash_mark(handle):
            state.crashes.attribute(mark)
        elif not handle.running:
            state.failed_starts += 1
            if state.failed_starts >= SILENT_DEATHS * max(1, len(pool.handles) + 1):
                raise RunFailed("workers end again and again before they have a shard (short of memory?)")
        else:
            shard = handle.running[0].task.shard
            state.silent_deaths[shard] = state.silent_deaths.get(shard, 0) + 1
            if state.silent_deaths[shard] >= SILENT_DEATHS:
                raise RunFailed(
                    f"workers ended {SILENT_DEATHS} times over shard {state.shards[shard].id} of flow "
                    f"'{state.flow.name}' while no stage was running (short of memory?)"
                )

    def close(self) -> None:
        """End all workers, and remember the memory that their networks took on cards."""
        self.pools.close()
        if self._measured:
            write_figures(find_file(), self._measured)


def _describe_task_error(error: RayTaskError) -> str:
    cause = error.cause if error.cause is not None else error
    is_plain = isinstance(cause, RunError) or type(cause).__name__ == "SetupFailed"
    return str(cause) if is_plain else f"{cause!r}\n{error}"


def _check_cluster() -> None:
    """Raise RunFailed where the cluster is gone."""
    try:
        alive = any(node["Alive"] for node in ray.nodes())
    except Exception as error:
        raise RunFailed(f"the Ray cluster does not answer any more: {error}") from None
    if not alive:
        raise RunFailed("all nodes of the Ray cluster are gone; run the same command again to go on")
