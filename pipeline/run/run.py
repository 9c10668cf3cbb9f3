"""Running a recipe: it is planned, each flow is carried out to its table, and the dataset is written in the end."""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rasura.manifests.formats.parquet_export import compute_export_key, export_dataset
from rasura.manifests.formats.target import check_target
from rasura.manifests.run_layout import (
    DATASET,
    EXPORT,
    LISTINGS,
    LOG,
    MANIFEST,
    PLAN,
    RECIPE,
    TABLES,
    WORK,
    FlowDescription,
    RunPlan,
    check_folder,
    commit_path,
    read_plan,
    table_path,
    write_plan,
)
from rasura.manifests.shards import CommitRecord, DamagedFile, list_whole_commits, read_manifest, write_manifest
from rasura.manifests.spelling import format_count
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.recipe.describe import describe_left_out
from rasura.pipeline.recipe.missing import check_run_folder
from rasura.pipeline.recipe.overrides import Overrides
from rasura.pipeline.recipe.plan import Plan, load_plan
from rasura.pipeline.recipe.schema import EngineSettings
from rasura.pipeline.recipe.shards import list_shards
from rasura.pipeline.recipe.specs import FlowPlan, Shard
from rasura.pipeline.run.accounting import count_flow
from rasura.pipeline.run.commits import check_commits, list_failed_shards
from rasura.pipeline.run.dataset import ExportRecord, find_missing_file, read_export_record, write_export_record
from rasura.pipeline.run.events import EventLog
from rasura.pipeline.run.outcome import (
    FlowOutcome,
    check_failures,
    check_flows,
    count_failures,
    list_warnings,
    summarize_flow,
)
from rasura.pipeline.run.progress import Progress
from rasura.stages.sources.listing import MissingInput

if TYPE_CHECKING:
    from rasura.pipeline.engine.scheduler import Engine


@dataclass(frozen=True)
class RunResult:
    """The outcome of a run.

    Attributes:
        run: its folder or URI.
        flows: what became of the inputs of each flow.
        dataset: folder or URI of the dataset; None where the recipe has none.
        dataset_rows: rows of the dataset.
    """

    run: str
    flows: Mapping[str, FlowOutcome]
    dataset: str | None
    dataset_rows: int

    def describe(self) -> Iterator[str]:
        """Yield the closing lines of the run."""
        for flow in self.flows.values():
            yield from flow.describe()
        if self.dataset is not None:
            yield f"dataset: {format_count(self.dataset_rows, 'row')} in {self.dataset}"
        yield f"run: {self.run}"

    def list_warnings(self) -> list[str]:
        """List what is to be warned of: flows without rows, and an empty dataset."""
        return list_warnings(self.run, self.flows, self.dataset, self.dataset_rows)

    def check(self) -> None:
        """Check that no flow has nothing but failed inputs.

        Raises:
            AllInputsFailed: one has.
        """
        check_flows(self.run, self.flows)


@dataclass(frozen=True)
class _Attempt:
    """One attempt at a run: what is to be made, where, and who is told of it."""

    plan: Plan
    store: Store
    progress: Progress
    log: EventLog
    engine: "EngineStarter"
    retry_failed: Collection[str] | None = None


class EngineStarter:
    """Starts Ray and the engine when they are needed for the first time, and not at all when they are not.

    Several runs, one after another, may share the engine and its workers.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self._stack = contextlib.ExitStack()
        self._engine: Engine | None = None

    def __enter__(self) -> "EngineStarter":
        return self

    def __exit__(self, *error: object) -> None:
        self.release()
        self._stack.close()

    def start_ray(self) -> None:
        """Start Ray, or join the cluster that there is."""
        from rasura.pipeline.engine.cluster import cluster, is_started

        if not is_started():
            self._stack.enter_context(cluster(self.settings))

    def get(self, store: Store, log: EventLog, flows: Sequence[FlowPlan] = ()) -> "Engine":
        """Return the engine, for flows of a run.

        Args:
            flows: that are still to be made; where the engine starts, it checks that all of them can be placed.

        Raises:
            CannotPlace: a stage of one asks for more than there is.
        """
        if self._engine is None:
            from rasura.pipeline.engine.cluster import check_machine

            check_machine(flows, self.settings)
            start = time.perf_counter()
            self.start_ray()
            from rasura.pipeline.engine.scheduler import Engine

            self._engine = Engine(store, self.settings)
            for flow in flows:
                self._engine.place(flow)
            log.add("start", seconds=round(time.perf_counter() - start, 3))
        self._engine.set_run(store)
        return self._engine

    @property
    def has_workers(self) -> bool:
        """Whether the engine has workers at the moment."""
        return self._engine is not None

    def release(self) -> None:
        """End the engine's workers, so that others may use what they hold; Ray stays."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None


def run(
    recipe_file: str | Path,
    into: str | None = None,
    overrides: Overrides = (),
    only: str | None = None,
    quiet: bool = False,
    retry_failed: Collection[str] | None = None,
) -> RunResult:
    """Run a recipe, or continue where it was left. Nothing that is done is done again.

    Args:
        recipe_file: the YAML file.
        into: folder or bucket prefix; `runs/<name>` by default.
        overrides: values that replace those of the recipe, `key=value`.
        only: a flow, or a flow up to a stage (`stage` or `flow.stage`).
        quiet: show no progress.
        retry_failed: errors whose rows are made again, such as `ValueError`; of all failed rows where it is empty, of
            none where it is None.

    Raises:
        RecipeError: something in the recipe is wrong; nothing was started.
        RunLocked: another process owns the run.
        RunFailed, StoreError, MissingInput: the run cannot go on; what was committed is whole.
    """
    resolved = load_plan(recipe_file, overrides, only)
    store = Store(f"runs/{resolved.recipe.name}" if into is None else into)
    check_run_folder(store, resolved.sources.values())
    with store.lock(), Progress(quiet) as progress:
        return _carry_out(resolved, store, progress, only is not None, retry_failed)


def _carry_out(
    resolved: Plan, store: Store, progress: Progress, is_partial: bool, retry_failed: Collection[str] | None
) -> RunResult:
    """Make all tables of a plan, and the dataset."""
    check_folder(store, resolved.recipe.name)
    store.clear_temporary([TABLES, DATASET, LISTINGS, LOG])
    if resolved.recipe.dataset:
        check_target(store.sub(DATASET))
    _write_description(resolved, store, is_partial)
    log = EventLog(store)
    with EngineStarter(resolved.recipe.engine) as engine:
        outcomes = make_tables(resolved, store, progress, engine, log, retry_failed)
    dataset, count = _write_dataset(resolved, store, progress)
    log.add("end", dataset_rows=count)
    log.flush()
    return RunResult(store.uri, outcomes, dataset, count)


def make_tables(
    resolved: Plan,
    store: Store,
    progress: Progress,
    engine: EngineStarter,
    log: EventLog,
    retry_failed: Collection[str] | None = None,
) -> dict[str, FlowOutcome]:
    """Bring the tables of a plan's flows to what the recipe and their inputs say.

    Args:
        retry_failed: as of `run`.

    Returns:
        What became of the inputs of each flow.

    Raises:
        RunFailed, StoreError, MissingInput: the run cannot go on; what was committed is whole.
    """
    attempt = _Attempt(resolved, store, progress, log, engine, retry_failed)
    try:
        return {flow.name: _make_table(attempt, flow) for flow in resolved.flows.values()}
    finally:
        log.flush()


def describe_flows(resolved: Plan) -> dict[str, FlowDescription]:
    """Describe the flows of a plan as `plan.json` has them."""
    return {
        flow.name: FlowDescription(
            part=flow.part,
            upstream=flow.upstream,
            stages=[spec.name for spec in flow.stages],
            columns={name: str(kind) for name, kind in flow.columns.items()},
        )
        for flow in resolved.flows.values()
    }


def _write_description(resolved: Plan, store: Store, is_partial: bool) -> None:
    """Write the resolved recipe and the description of its flows; a part of a recipe leaves the rest as it was."""
    recipe, flows = resolved.recipe, describe_flows(resolved)
    if is_partial and store.exists(PLAN):
        before = read_plan(store)
        write_plan(store, RunPlan(before.name, before.recipe, {**before.flows, **flows}, before.dataset))
        return
    if not _matches_description(resolved, store):
        text = yaml.safe_dump(resolved.to_recipe(), sort_keys=False, allow_unicode=True)
        store.write(RECIPE, f"# hash: {resolved.hash}\n{text}".encode())
    write_plan(store, RunPlan(recipe.name, resolved.hash, flows, resolved.dataset))


def _matches_description(resolved: Plan, store: Store) -> bool:
    """Return whether the run's recipe is this one, though perhaps with names that keys had formerly."""
    if not store.exists(RECIPE):
        return False
    text, now = store.read(RECIPE).decode(errors="replace"), resolved.to_recipe()
    if not text.startswith(f"# hash: {resolved.hash}\n"):
        return False
    try:
        before = yaml.safe_load(text)
        for recipe in (before, now):  # parameters are in the hash, under their first names
            recipe["flows"] = {name: flow["shard_rows"] for name, flow in recipe["flows"].items()}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):  # it is damaged
        return False
    return bool(before == now)


def _make_table(attempt: _Attempt, flow: FlowPlan) -> FlowOutcome:
    """Bring a flow's table to what its recipe and inputs say. Returns what became of its inputs."""
    shards = _list_inputs(attempt, flow)
    table = attempt.store.sub(table_path(flow.name))
    before, columns, full_columns = _read_manifest(table)
    ids = [shard.id for shard in shards]
    records, damaged = list_whole_commits(table, ids, before)
    if attempt.retry_failed is not None:
        again = list_failed_shards(attempt.progress, flow.name, records, attempt.retry_failed)
        damaged += again
        if again:  # the manifest has their records, too, which must not come back
            table.delete(MANIFEST)
        records = {id: record for id, record in records.items() if id not in again}
    todo = [shard for shard in shards if shard.id not in records]
    for id in damaged:  # its record would stay, since the first writer of one wins
        table.delete(commit_path(id))
    if todo:  # while the flow is being made, this says which records are of the present inputs
        table.write(WORK, json.dumps(ids).encode())
        _make_shards(attempt, flow, todo, records)
        check_commits(table, ids, list(records.values()))
    else:
        inputs = sum(len(shard.items) for shard in shards)
        attempt.progress.print(f"{flow.name}: all {inputs} inputs are done")
    now = [records[shard.id] for shard in shards]
    if now != before or columns != flow.columns or full_columns != flow.full_columns:
        write_manifest(table, now, flow.columns, flow.full_columns)
    accounting = count_flow(flow.name, [spec.name for spec in flow.stages], now)
    return summarize_flow(attempt.store, accounting, now, flow.upstream)


def _read_manifest(table: Store) -> tuple[list[CommitRecord], Mapping[str, str], Mapping[str, str]]:
    """Read the manifest of a table; a damaged one is as good as none, since the commit records say the same."""
    try:
        return read_manifest(table)
    except DamagedFile:
        return [], {}, {}


def _list_inputs(attempt: _Attempt, flow: FlowPlan) -> list[Shard]:
    """List the shards of a flow.

    Raises:
        MissingInput: its source has nothing; the text begins with the source's place in the recipe.
    """
    place = attempt.plan.positions.locate(("flows", flow.name, "source"))
    try:
        shards = list_shards(flow, attempt.plan.sources[flow.name], attempt.store)
    except MissingInput as error:
        raise MissingInput(f"{place}: flow '{flow.name}': {error}") from error
    if not shards and not flow.upstream:
        raise MissingInput(f"{place}: flow '{flow.name}': its source '{flow.stages[0].name}' has no inputs")
    return shards


def _make_shards(attempt: _Attempt, flow: FlowPlan, todo: Sequence[Shard], records: dict[str, CommitRecord]) -> None:
    """Have the engine make shards; their commit records are added to `records`."""
    flows = list(attempt.plan.flows.values())
    engine = attempt.engine.get(attempt.store, attempt.log, flows[flows.index(flow) :])
    for line in engine.place(flow).lines:
        attempt.progress.print(line)
    inputs = sum(len(shard.items) for shard in todo)
    all_inputs = inputs + sum(record.inputs for record in records.values())
    causes = sum((count_failures(record) for record in records.values()), Counter[tuple[str, str]]())
    attempt.progress.start(flow.name, inputs)
    start = time.perf_counter()
    kept = rejected = failed = 0

    def on_commit(record: CommitRecord, report: Mapping[str, Any]) -> None:
        nonlocal kept, rejected, failed
        records[record.shard] = record
        kept += record.rows
        rejected += sum(sum(count.rejected.values()) for count in record.stages)
        failed += sum(sum(count.failed.values()) for count in record.stages)
        attempt.log.add("commit", flow=flow.name, shard=record.shard, rows=record.inputs, seconds=report["seconds"])
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
    )


def _write_dataset(resolved: Plan, store: Store, progress: Progress) -> tuple[str | None, int]:
    """Write the dataset, unless it is there as it would be written. Returns its place and rows."""
    recipe = resolved.recipe
    if recipe.dataset is None or resolved.dataset is None:
        return None, 0
    out, tables, flows = store.sub(DATASET), Tables(store), resolved.dataset
    if resolved.left_out:
        progress.print(f"warning: {describe_left_out(resolved)}")
    limit = recipe.dataset.shard_bytes
    key = compute_export_key(tables, flows, resolved.hash, limit)
    before = read_export_record(store)
    if before is not None and before.key == key and find_missing_file(store) is None:
        progress.print(f"dataset: all {before.rows} rows are there")
        return out.uri, before.rows
    store.delete(EXPORT)
    progress.start(DATASET, sum(tables.table(flow).rows for flow in flows))
    splits = list(recipe.splits)
    manifest = export_dataset(tables, flows, out, recipe.name, resolved.hash, splits, limit, progress.advance)
    write_export_record(store, ExportRecord(key, manifest["rows"]))
    return out.uri, manifest["rows"]
