"""Running a recipe: it is planned, each flow is carried out to its table, and the dataset is written in the end."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import yaml

from rasura.manifests.formats.dataset_rows import find_superseded
from rasura.manifests.formats.tables.table_export import COPIES, compute_export_key, export_dataset
from rasura.manifests.formats.target import LEFT_OUT, check_target
from rasura.manifests.ids import hash_json
from rasura.manifests.parallel.jobs import MapJobs
from rasura.manifests.run_layout import (
    DATASET,
    EXPORT,
    LISTINGS,
    LOG,
    PLAN,
    RECIPE,
    TABLES,
    FlowDescription,
    RunPlan,
    check_folder,
    read_place,
    read_plan,
    write_plan,
)
from rasura.manifests.spelling import format_count
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.recipe.describe import describe_left_out
from rasura.pipeline.recipe.missing import check_run_folder
from rasura.pipeline.recipe.overrides import Overrides
from rasura.pipeline.recipe.plan import Plan, load_plan
from rasura.pipeline.run.dataset import (
    ExportRecord,
    drop_damaged_manifest,
    find_missing_file,
    read_export_record,
    write_export_record,
)
from rasura.pipeline.run.events import EventLog
from rasura.pipeline.run.flow_tables import make_tables
from rasura.pipeline.run.mending import repeat_after_mending
from rasura.pipeline.run.outcome import FlowOutcome, check_flows, list_warnings
from rasura.pipeline.run.progress import Progress
from rasura.pipeline.run.starter import EngineStarter

SAMPLE_SHARDS = 8  # parts in which a sample is taken


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


def run(
    recipe_file: str | Path,
    into: str | None = None,
    overrides: Overrides = (),
    only: str | None = None,
    quiet: bool = False,
    retry_failed: Collection[str] | None = None,
    sample: int | None = None,
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
        sample: about so many inputs of each flow are taken, evenly spaced, in small shards; all where None.

    Raises:
        RecipeError: something in the recipe is wrong; nothing was started.
        RunLocked: another process owns the run.
        RunFailed, StoreError, MissingInput: the run cannot go on; what was committed is whole.
    """
    resolved = load_plan(recipe_file, overrides, only)
    if sample is not None:
        rows = max(1, sample // SAMPLE_SHARDS)
        resolved = replace(resolved, flows={name: replace(f, shard_rows=rows) for name, f in resolved.flows.items()})
    store = Store(f"runs/{resolved.recipe.name}" if into is None else into)
    check_run_folder(store, resolved.sources.values())
    with store.lock(), Progress(quiet) as progress:
        return _carry_out(resolved, store, progress, only is not None, retry_failed, sample)


def _carry_out(
    resolved: Plan,
    store: Store,
    progress: Progress,
    is_partial: bool,
    retry_failed: Collection[str] | None,
    sample: int | None,
) -> RunResult:
    """Make all tables of a plan, and the dataset."""
    check_folder(store, resolved.recipe.name)
    store.clear_temporary([TABLES, DATASET, LISTINGS, LOG])
    if resolved.recipe.dataset:
        drop_damaged_manifest(store)
        check_target(store.sub(DATASET))
    _write_description(resolved, store, is_partial)
    read_place(store)  # the folder has its id before anything depends on it
    log = EventLog(store)
    with EngineStarter(resolved.recipe.engine) as engine:

        def make() -> tuple[dict[str, FlowOutcome], tuple[str | None, int]]:
            outcomes = make_tables(resolved, store, progress, engine, log, retry_failed, sample)
            return outcomes, _write_dataset(resolved, store, progress, engine)

        outcomes, (dataset, count) = repeat_after_mending(store, progress, make)
    log.add("end", dataset_rows=count)
    log.flush()
    return RunResult(store.uri, outcomes, dataset, count)


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


def _write_dataset(resolved: Plan, store: Store, progress: Progress, engine: EngineStarter) -> tuple[str | None, int]:
    """Write the dataset, unless it is there as it would be written. Returns its place and rows."""
    recipe = resolved.recipe
    if recipe.dataset is None or resolved.dataset is None:
        return None, 0
    out, tables, flows = store.sub(DATASET), Tables(store), resolved.dataset
    if resolved.left_out:
        progress.print(f"warning: {describe_left_out(resolved)}")
    limit = recipe.dataset.shard_bytes
    key = compute_export_key(store, flows, _list_read_flows(resolved, flows), resolved.hash, limit)
    parts = [tables.table(flow) for flow in flows]
    if superseded := find_superseded(parts):  # a dataset that was written while such rows stayed in it is written anew
        key = hash_json([key, sorted(superseded)])
    before = read_export_record(store)
    if before is not None and before.key == key and find_missing_file(store) is None:
        progress.print(f"dataset: all {before.rows} rows are there")
        return out.uri, before.rows
    store.delete(EXPORT)
    rows = sum(part.rows for part in parts)
    progress.start(DATASET, rows)
    export = partial(_export, store, flows, recipe.name, resolved.hash, list(recipe.splits), limit, key, superseded)
    written = engine.run_jobs(export, rows, lambda rows, total, note: progress.advance(rows), COPIES * limit)
    write_export_record(store, ExportRecord(key, written))
    if superseded:
        progress.print(f"dataset: {format_count(len(superseded), 'row')} left out, corrected by others ({LEFT_OUT})")
    return out.uri, written


def _export(
    run: Store,
    flows: Sequence[str],
    name: str,
    recipe_hash: str,
    splits: Sequence[str],
    shard_bytes: int,
    key: str,
    superseded: Mapping[str, str],
    map_jobs: MapJobs,
    on_progress: Callable[[float, float, str], object],
) -> int:
    """Write a run's dataset, and return its number of rows."""

    def advance(rows: int) -> None:
        on_progress(rows, 0, "")

    manifest = export_dataset(
        Tables(run),
        flows,
        run.sub(DATASET),
        name,
        recipe_hash,
        splits,
        shard_bytes,
        advance,
        key=key,
        map_jobs=map_jobs,
        excluded=superseded,
    )
    return int(manifest["rows"])


def _list_read_flows(resolved: Plan, flows: Sequence[str]) -> list[str]:
    """List the flows whose tables are read where rows of some flows are: these, and all that they are made from."""
    listed: dict[str, None] = {}
    waiting = list(flows)
    while waiting:
        flow = waiting.pop()
        if flow not in listed and flow in resolved.flows:
            listed[flow] = None
            waiting += resolved.flows[flow].upstream
    return sorted(listed)
