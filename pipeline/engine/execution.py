"""The state of a flow while its shards are carried out: what is queued, delayed or set aside, and what died of what."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rasura.manifests.errors import RunError
from rasura.manifests.shards import CommitRecord
from rasura.manifests.spelling import format_count
from rasura.pipeline.engine.crash_marks import CrashMark
from rasura.pipeline.engine.execute import WRITE, Quarantine
from rasura.pipeline.engine.faults import BackOff, DamagedTables, SurroundingsFault
from rasura.pipeline.engine.pools import Task, WorkerHandle
from rasura.pipeline.recipe.specs import FlowPlan, Group, Shard

SILENT_DEATHS = 5  # deaths of a worker that was in no stage, over one shard, after which it is set aside
DEATHS_UNTIL_ALONE = 2  # of those, after which its records run one at a time
LOST_NODES = 2  # nodes that a shard may take with it
MOST_SET_ASIDE = 8  # shards in a row that the surroundings keep from being made, after which no more are tried

OnCommit = Callable[[CommitRecord, Mapping[str, Any]], None]
"""Called with the record of each commit, and the report of the worker that made it."""
OnActivity = Callable[[str], None]
"""Called now and then with a text that says how far long records are."""


class RunFailed(RunError):
    """The run cannot go on. What was committed is whole; the same command goes on from there."""


class CrashTracker:
    """Counts the deaths of workers, and the lack of memory, by record, and decides what follows from them.

    Args:
        tries: deaths after which a record fails.
    """

    def __init__(self, tries: int) -> None:
        self.tries = tries
        self.deaths: dict[tuple[str, str], int] = {}
        self.failed: dict[tuple[str, str], str] = {}
        self.isolated: set[str] = set()
        self.setups: dict[str, int] = {}
        self.silent: dict[int, int] = {}
        self.lost_nodes: dict[int, int] = {}

    def attribute(self, mark: CrashMark, shard: int | None = None) -> None:
        """Count one death: against a record that ran alone; all that were running run alone from now on.

        Args:
            mark: of the worker.
            shard: that it was making.

        Raises:
            RunFailed: a stage ended its worker `tries` times while it was set up.
        """
        if mark.setting_up:
            self.setups[mark.stage] = self.setups.get(mark.stage, 0) + 1
            if self.setups[mark.stage] >= self.tries:
                raise RunFailed(f"stage '{mark.stage}' ended its worker {self.tries} times while it was set up")
        if mark.stage == WRITE and shard is not None:  # it may have come from a stage before
            self.silent[shard] = self.silent.get(shard, 0) + 1
        for id in mark.ids:
            key = (mark.stage, id)
            self.deaths[key] = self.deaths.get(key, 0) + 1
            self.isolated.add(id)
            if len(mark.ids) == 1 and self.deaths[key] >= self.tries:
                self.failed[key] = "TimedOut" if mark.timed_out else "WorkerDied"

    def count_silent_death(self, shard: int, mark: CrashMark | None) -> SurroundingsFault | None:
        """Count a death while no stage was running: from the second on, the shard's records run one at a time.

        Returns:
            Why the shard is set aside, where it has had as many such deaths as are allowed.
        """
        self.silent[shard] = self.silent.get(shard, 0) + 1
        if self.silent[shard] < SILENT_DEATHS:
            return None
        activity = "it was committed" if mark else "no stage was running"
        return SurroundingsFault("", (), f"the worker ended {SILENT_DEATHS} times while {activity} (short of memory?)")

    def count_lost_node(self, shard: int, host: str) -> SurroundingsFault | None:
        """Count a node that was lost while it made a shard. Returns why the shard is set aside, where it is."""
        self.lost_nodes[shard] = self.lost_nodes.get(shard, 0) + 1
        if self.lost_nodes[shard] < LOST_NODES:
            return None
        text = f"{LOST_NODES} nodes were lost while they made the shard ({host} was the last)"
        return SurroundingsFault("", (), text)

    def count_lack_of_memory(self, fault: SurroundingsFault) -> None:
        """Count a record that alone had too little memory: it fails at the last try, if others passed before it."""
        for id in fault.ids:
            key = (fault.stage, id)
            self.deaths[key] = self.deaths.get(key, 0) + 1
            self.isolated.add(id)
            if self.deaths[key] >= self.tries and fault.passed:
                self.failed[key] = "OutOfMemory"

    def quarantine(self, shard: int) -> Quarantine:
        """Return the records that workers have to leave out or to run alone in a shard."""
        is_suspect = self.silent.get(shard, 0) >= DEATHS_UNTIL_ALONE
        return Quarantine(dict(self.failed), frozenset(self.isolated), is_suspect)


@dataclass(frozen=True)
class DelayedTask:
    """A task that waits after a fault of the surroundings, and the worker that it had."""

    task: Task
    due: float  # monotonic time
    before: WorkerHandle
    fault: SurroundingsFault


@dataclass
class FlowExecution:
    """The state of one flow while its shards are carried out."""

    flow: FlowPlan
    groups: Sequence[Group]  # the flow's, as they were placed
    shards: Sequence[Shard]
    on_commit: OnCommit
    crashes: CrashTracker
    back_off: BackOff
    remaining: int
    next_shard: int = 0
    in_flight: int = 0
    first_task: float | None = None  # when the first shard was handed out
    working_s: float = 0.0  # from then to the last commit
    last_progress: float = field(default_factory=time.monotonic)
    failed_starts: int = 0
    start_error: str = ""  # that a worker raised when it was started
    delayed: list[DelayedTask] = field(default_factory=list)
    set_aside: dict[int, SurroundingsFault] = field(default_factory=dict)  # by shard
    set_aside_in_a_row: int = 0


def describe_delays(state: FlowExecution) -> str:
    """Describe the shards that wait after a fault of the surroundings; "" where there are none."""
    if not state.delayed:
        return ""
    wait = max(0.0, min(delayed.due for delayed in state.delayed) - time.monotonic())
    waiting = format_count(len(state.delayed), "shard")
    return f"{state.delayed[-1].fault}; waiting with {waiting}, tried again in {wait:.0f} s"


def make_failure(state: FlowExecution) -> RunError:
    """Make the error that says which shards could not be made, and why."""
    damaged = {fault.damaged for fault in state.set_aside.values() if fault.damaged}
    text = describe_set_aside(state)
    return DamagedTables(text, damaged) if damaged else RunFailed(text)


def describe_set_aside(state: FlowExecution) -> str:
    """Describe the shards that the surroundings kept from being made: how many, why, and what to do."""
    causes = Counter(f"{fault}" for fault in state.set_aside.values())
    inputs = sum(len(state.shards[shard].items) for shard in state.set_aside)
    cause = causes.most_common(1)[0][0]
    others = f" (and {len(causes) - 1} other causes)" if len(causes) > 1 else ""
    stopped = state.set_aside_in_a_row >= MOST_SET_ASIDE
    return (
        f"flow '{state.flow.name}': {format_count(len(state.set_aside), 'shard')} of {len(state.shards)} "
        f"({format_count(inputs, 'input')}) could not be made in {state.back_off.patience_s:g} s of trying, through no "
        f"fault of their rows: {cause}{others}. "
        + (f"After {MOST_SET_ASIDE} in a row no more were tried. " if stopped else "")
        + "What was committed is whole, no row was lost; when the cause is gone, the same command makes the rest."
    )
