"""The tables of a plan's flows: each is listed, what is missing is made, and its manifest is written."""

import json
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from rasura.manifests.compacted.commit_log import CommitLog, read_commit_log
from rasura.manifests.compacted.manifest import read_manifest, write_manifest
from rasura.manifests.run_layout import MANIFEST, WORK, NoRun, commit_path, read_plan, table_path
from rasura.manifests.shards import CommitRecord
from rasura.manifests.storage import Store
from rasura.pipeline.engine.metrics import export_commit
from rasura.pipeline.recipe.plan import Plan
from rasura.pipeline.recipe.shards import StoredShards
from rasura.pipeline.recipe.specs import FlowPlan
from rasura.pipeline.run.accounting import count_flow
from rasura.pipeline.run.commits import check_commits, compact_records, list_failed_shards, read_table_manifest
from rasura.pipeline.run.events import EventLog
from rasura.pipeline.run.listing import list_stored_shards
from rasura.pipeline.run.outcome import FlowOutcome, check_failures, count_failures, summarize_flow
from rasura.pipeline.run.progress import Progress
from rasura.pipeline.run.starter import EngineStarter
from rasura.pipeline.run.workers import MANY_ITEMS
from rasura.stages.sources.listing import MissingInput


@dataclass(frozen=True)
class _Attempt:
    """One attempt at a run: what is to be made, where, and who is told of it."""

    plan: Plan
    store: Store
    progress: Progress
    log: EventLog
    engine: "EngineStarter"
    retry_failed: Collection[str] | None = None
    sample: int | None = None


def make_tables(
    resolved: Plan,
    store: Store,
    progress: Progress,
    engine: EngineStarter,
    log: EventLog,
    retry_failed: Collection[str] | None = None,
    sample: int | None = None,
) -> dict[str, FlowOutcome]:
    """Bring the tables of a plan's flows to what the recipe and their inputs say.

    Args:
        retry_failed, sample: as of `run`.

    Returns:
        What became of the inputs of each flow.

    Raises:
        RunFailed, StoreError, MissingInput: the run cannot go on; what was committed is whole.
    """
    attempt = _Attempt(resolved, store, progress, log, engine, retry_failed, sample)
    try:
        return {flow.name: _make_table(attempt, flow) for flow in resolved.flows.values()}
    finally:
        log.flush()


def _make_table(attempt: _Attempt, flow: FlowPlan) -> FlowOutcome:
    """Bring a flow's table to what its recipe and inputs say. Returns what became of its inputs."""
    shards = _list_inputs(attempt, flow)
    if attempt.sample is not None:
        shards = shards.draw_sample(attempt.sample)
    table = attempt.store.sub(table_path(flow.name))
    before, columns, full_columns = read_table_manifest(table)
    ids = shards.ids
    commits, damaged = read_commit_log(table, ids, before)
    again: list[str] = []
    if attempt.retry_failed is not None:
        again = list_failed_shards(attempt.progress, flow.name, commits, attempt.retry_failed)
    if again:  # the manifest has their records, too, which must not come back
        commits.remove(again)
        table.delete(MANIFEST)
    for id in [*damaged, *again]:  # its record would stay, since the first writer of one wins
        table.delete(commit_path(id))
    todo = shards.leave_out(commits)
    if todo:  # while the flow is being made, this says which records are of the present inputs
        table.write(WORK, json.dumps(ids).encode())
        _make_shards(attempt, flow, todo, commits)
        check_commits(table, commits, ids)
    else:
        attempt.progress.print(f"{flow.name}: all {shards.inputs} inputs are done")
    is_current = not todo and before.shards == ids
    if not is_current or columns != flow.columns or full_columns != flow.full_columns:
        if shards.inputs > MANY_ITEMS:
            commits.write_part()
            attempt.engine.run_task(compact_records, table, ids, flow.columns, flow.full_columns)
        else:
            write_manifest(table, commits.iterate(ids), flow.columns, flow.full_columns)
        before, *_ = read_manifest(table)
    commits.delete_parts()
    accounting = count_flow(flow.name, [spec.name for spec in flow.stages], before)
    return summarize_flow(attempt.store, accounting, before, flow.upstream)


def _list_inputs(attempt: _Attempt, flow: FlowPlan) -> StoredShards:
    """List the shards of a flow.

    Raises:
        MissingInput: its source has nothing; the text begins with the source's place in the recipe.
    """
    place = attempt.plan.positions.locate(("flows", flow.name, "source"))
    try:
        source, earlier = attempt.plan.sources[flow.name], _list_earlier(attempt, flow)
        shards = list_stored_shards(flow, source, attempt.store, attempt.engine.run_task, earlier)
    except MissingInput as error:
        raise MissingInput(f"{place}: flow '{flow.name}': {error}") from error
    if not shards and not flow.upstream:
        raise MissingInput(f"{place}: flow '{flow.name}': its source '{flow.stages[0].name}' has no inputs")
    return shards


def _list_earlier(attempt: _Attempt, flow: FlowPlan) -> list[str]:
    """List the flows before a flow whose sources read pictures, as its own does; all, where only some flows run."""
    if flow.upstream:
        return []
    try:
        flows = read_plan(attempt.store).flows
    except NoRun:
        return []
    return [name for name, other in takewhile(lambda entry: entry[0] != flow.name, flows.items()) if not other.upstream]


def _make_shards(attempt: _Attempt, flow: FlowPlan, todo: StoredShards, commits: CommitLog) -> None:
    """Have the engine make shards; their commit records are added to `commits`."""
    flows = list(attempt.plan.flows.values())
    engine = attempt.engine.get(attempt.store, attempt.log, flows[flows.index(flow) :])
    placement = engine.place(flow)
    for line in placement.lines:
        attempt.progress.print(line)
    inputs = all_inputs = todo.inputs
    causes = Counter[tuple[str, str]]()
    for earlier in commits.values():
        all_inputs += earlier.inputs
        causes.update(count_failures(earlier))
    attempt.progress.start(flow.name, inputs)
    start = time.perf_counter()
    kept = rejected = failed = done = 0

    def on_commit(record: CommitRecord, report: Mapping[str, Any]) -> None:
        nonlocal kept, rejected, failed, done
        commits.add(record)
        kept += record.rows
        rejected += sum(sum(count.rejected.values()) for count in record.stages)
        failed += sum(sum(count.failed.values()) for count in record.stages)
        done += record.inputs
        attempt.log.add("commit", flow=flow.name, shard=record.shard, rows=record.inputs, seconds=report["seconds"])
        export_commit(flow.name, record, report["seconds"], inputs - done)
        attempt.progress.advance(record.inputs, f"{kept} kept, {rejected} rejected, {failed} failed")
        causes.update(count_failures(record))
        check_failures(flow.name, causes, all_inputs, attempt.plan.recipe.engine.max_failed)

    deaths = engine.deaths
    working_s = engine.run_flow(flow, todo, on_commit, attempt.progress.show_activity)
    attempt.log.add(
        "flow",
        flow=flow.name,
        inputs=inputs,
        seconds=round(time.perf_counter() - start, 3),
        working_seconds=round(working_s, 3),
        deaths=engine.deaths - deaths,
        workers=placement.list_workers(),
    )
