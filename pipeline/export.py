"""The dataset of a finished run, or of a loop, written to another place in one of the layouts that trainers read."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from rasura.manifests.formats.parquet_export import export_dataset
from rasura.manifests.formats.registry import PARQUET_LAYOUTS
from rasura.manifests.formats.rorem_export import export_rorem
from rasura.manifests.ids import hash_json
from rasura.manifests.run_layout import RECIPE, read_plan
from rasura.manifests.storage import Store
from rasura.manifests.tables import NoTable, Tables
from rasura.pipeline.recipe.schema import DatasetSettings, Recipe
from rasura.pipeline.run.accounting import list_commits

OnProgress = Callable[[float, float, str], None]


def export_run(
    store: Store,
    out: Store,
    layout: str = "huggingface",
    flows: Sequence[str] = (),
    on_progress: OnProgress = lambda done, total, note: None,
) -> dict[str, Any]:
    """Write the dataset of a finished run, or the triplets of a loop as far as it got, to another place.

    Args:
        store: the run or the loop.
        out: the folder or bucket prefix to write into.
        layout: one of `manifests.formats.registry.FORMATS`.
        flows: of the run; where none is named, the dataset's. A loop has `triplets` (those it started from and those
            that joined) and `votes` (the candidates that were judged, with their verdicts).
        on_progress: receives the rows that are written, all rows, and a note.

    Returns:
        The manifest of what was written.

    Raises:
        NoRun: there is neither a run nor a loop.
        NoTable: there is no such flow, or it is not complete.
        NotTriplets: its rows are no triplets.
        ForeignFolder: the target has other files.
        StoreError: the target cannot be written.
    """
    if store.exists("loop.json"):
        return _export_loop(store, out, layout, flows, on_progress)
    plan = read_plan(store)
    for flow in flows:
        if flow not in plan.flows:
            raise NoTable(f"{store.uri} has no flow '{flow}'; it has {', '.join(plan.flows)}")
    # a loop's round is a run without a recipe of its own
    recipe = Recipe.model_validate(yaml.safe_load(store.read(RECIPE))) if store.exists(RECIPE) else None
    triplets = [name for name, flow in plan.flows.items() if "target" in flow.columns]
    names = list(flows or plan.dataset or triplets)
    for name in names:
        if not list_commits(store, name, plan.flows[name].part)[1]:
            raise NoTable(f"flow '{name}' is not complete for the run's present recipe; run it again first")
    return _write(Tables(store), names, out, layout, plan.name, plan.recipe, recipe, on_progress)


def _export_loop(
    store: Store, out: Store, layout: str, flows: Sequence[str], on_progress: OnProgress
) -> dict[str, Any]:
    from rasura.pipeline.loop.export import FLOWS, open_flow
    from rasura.pipeline.loop.state import Loop

    if len(flows) > 1:
        raise NoTable(f"a loop's flows ({', '.join(FLOWS)}) are datasets of their own: name one")
    loop = Loop.open(store.local or Path(store.uri))
    tables = open_flow(loop, flows[0] if flows else next(iter(FLOWS)))
    name = loop.recipe.name + (", verdicts by the oracle" if loop.recipe.reviewers == "oracle" else "")
    recipe_hash = hash_json(loop.recipe.dump_former())
    return _write(tables, tables.names(), out, layout, name, recipe_hash, None, on_progress)


def _write(
    tables: Tables,
    flows: Sequence[str],
    out: Store,
    layout: str,
    name: str,
    recipe_hash: str,
    recipe: Recipe | None,
    on_progress: OnProgress,
) -> dict[str, Any]:
    done, total = 0, sum(tables.table(flow).rows for flow in flows)

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        on_progress(done, total, "")

    if layout not in PARQUET_LAYOUTS:
        return export_rorem(tables, flows, out, name, recipe_hash, advance)
    settings = recipe.dataset if recipe else None
    limit = settings.shard_bytes if settings else DatasetSettings.model_fields["shard_bytes"].default
    splits = list(recipe.splits) if recipe else []
    return export_dataset(tables, flows, out, name, recipe_hash, splits, limit, advance, PARQUET_LAYOUTS[layout])
