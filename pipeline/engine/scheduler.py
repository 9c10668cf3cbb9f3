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
from rasura.manifests.run_layout import RunPlace, read_place
from rasura.manifests.safety.text import describe_error
from rasura.manifests.storage import Store
from rasura.pipeline.engine.cluster import check_servers
from rasura.pipeline.engine.execution import (
    MOST_SET_ASIDE,
    SILENT_DEATHS,
    CrashTracker,
    DelayedTask,
    FlowExecution,
    OnActivity,
    OnCommit,
    RunFailed,
    describe_delays,
    make_failure,
)
from rasura.pipeline.engine.faults import BackOff, SurroundingsFault, is_fault_of_surroundings
from rasura.pipeline.engine.measured import Figures, apply_figures, find_file, read_figures, write_figures
from rasura.pipeline.engine.nodes import Node, NotEnoughResources
from rasura.pipeline.engine.placement import FlowPlacement, place_flow, place_workers
from rasura.pipeline.engine.pools import Pool, Task, WorkerHandle, WorkerPools, describe_failed_start
from rasura.pipeline.engine.survey import Survey
from rasura.pipeline.recipe.describe import describe_demand
from rasura.pipeline.recipe.schema import EngineSettings
from rasura.pipeline.recipe.specs import FlowPlan, Group, Shard

RESIZE_S = 5.0
START_LIMIT_S = 180.0
MOST_WAITING = 4  # shards that wait after a fault of the surroundings, for each of those that are in work
OVERDUE_S = 30.0  # after which a worker that should have ended itself is killed


class Engine:
    """Carries out flows on a Ray that is initialised. Workers stay between flows that ask for the same resources."""

    def __init__(self, run: Store, settings: EngineSettings) -> None:
        self.settings = settings
        self._places: dict[str, RunPlace] = {}
        self.set_run(run)
        self.pools = WorkerPools(self.run_place)
        self.survey = Survey(settings.gpu_memory_gb)
        self.figures: Figures = read_figures(find_file())
        self._measured: Figures = {}
        self.deaths = 0
        self._resized = 0.0

    def set_run(self, run: Store) -> None:
        """Have the flows that follow read from and commit to this run, whose folder stays what it was at first."""
        if run.location not in self._places:
            self._places[run.location] = read_place(run)
        self.run_place = self._places[run.location]

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
                self.pools.kill_overdue(OVERDUE_S)
            if on_activity is not None and (activity := describe_delays(state) or self.pools.describe_activity()):
                on_activity(activity)
        if state.set_aside:
            raise make_failure(state)
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
        check_servers()  # without them, Ray would be asked in vain for a long time
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
        quarantine = state.crashes.quarantine(task.shard)
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
        check_servers()
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
        except (RayActorError, OutOfMemoryError) as error:
            state.start_error = describe_failed_start(error) or state.start_error
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
        state.back_off.forget(shard)
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
        wait = None if fault.damaged else state.back_off.lengthen(task.shard, time.monotonic())
        if wait is not None:
            state.delayed.append(DelayedTask(task, time.monotonic() + wait, handle, fault))
            return
        _set_aside(state, task.shard, fault)

    # --- deaths

    def _handle_death(self, state: FlowExecution, pool: Pool, handle: WorkerHandle) -> None:
        self.deaths += 1
        pool.handles.remove(handle)
        with contextlib.suppress(Exception):
            ray.kill(handle.actor)
        _check_cluster()
        self._resized = 0.0
        fault = self._attribute_death(state, pool, handle)
        for index, running in enumerate(handle.running):
            if fault is not None and index == 0:
                _set_aside(state, running.task.shard, fault)
            else:
                pool.push(running.task)

    def _attribute_death(self, state: FlowExecution, pool: Pool, handle: WorkerHandle) -> SurroundingsFault | None:
        """Find what a worker died of, and count it. Returns why the shard that it was making is set aside, if it is."""
        shard = handle.running[0].task.shard if handle.running else None
        mark = self.pools.take_crash_mark(handle)
        if mark is None and handle.mark and not self.pools.has_living_node(handle):  # no record's fault
            return None if shard is None else state.crashes.count_lost_node(shard, self.pools.get_host(handle))
        if mark and (mark.ids or mark.setting_up):
            state.crashes.attribute(mark, shard)
        elif shard is not None:
            return state.crashes.count_silent_death(shard, mark)
        else:
            state.failed_starts += 1
            is_certain = "ImportError" in state.start_error or "ModuleNotFoundError" in state.start_error
            if is_certain or state.failed_starts >= SILENT_DEATHS * max(1, len(pool.handles) + 1):
                reason = state.start_error or "they end before they have a shard (short of memory?)"
                raise RunFailed(f"workers cannot be started: {reason}")
        return None

    def close(self) -> None:
        """End all workers, and remember the memory that their networks took on cards."""
        self.pools.close()
        if self._measured:
            write_figures(find_file(), self._measured)


def _set_aside(state: FlowExecution, shard: int, fault: SurroundingsFault) -> None:
    """Give a shard up for this run: it stays uncommitted, and the others go on."""
    state.set_aside[shard] = fault
    state.set_aside_in_a_row += 1
    state.in_flight -= 1
    state.remaining -= 1
    if state.set_aside_in_a_row >= MOST_SET_ASIDE:
        raise make_failure(state)


def _describe_task_error(error: RayTaskError) -> str:
    cause = error.cause if error.cause is not None else error
    is_plain = isinstance(cause, RunError) or type(cause).__name__ == "SetupFailed"
    if is_fault_of_surroundings(cause, reads_inputs=False) and not is_plain:
        return f"a worker cannot go on: {describe_error(cause)}"
    return str(cause) if is_plain else f"{describe_error(cause)}\n{error}"


def _check_cluster() -> None:
    """Raise RunFailed where the cluster is gone."""
    check_servers()
    try:
        alive = any(node["Alive"] for node in ray.nodes())
    except Exception as error:
        raise RunFailed(f"the Ray cluster does not answer any more: {error}") from None
    if not alive:
        raise RunFailed("all nodes of the Ray cluster are gone; run the same command again to go on")
