"""The dataset of a finished run, or of a loop, written to another place in one of the layouts that trainers read."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import yaml

from rasura.manifests.formats import brushdata, lcg, powerpaint, rorem, smarteraser
from rasura.manifests.formats.dataset_rows import DatasetRow, find_repeats, list_rows
from rasura.manifests.formats.dataset_rows import NothingToExport as NothingToExport
from rasura.manifests.formats.folder_export import FolderLayout, export_folder
from rasura.manifests.formats.lcg import LcgLayout
from rasura.manifests.formats.parquet_export import compute_export_key, export_dataset
from rasura.manifests.formats.powerpaint import PowerPaintLayout
from rasura.manifests.formats.registry import PARQUET_LAYOUTS, check_format
from rasura.manifests.formats.rorem_export import RoremLayout
from rasura.manifests.formats.smarteraser import SmartEraserLayout
from rasura.manifests.formats.target import ForeignFolder
from rasura.manifests.ids import hash_json
from rasura.manifests.run_layout import RECIPE, NoRun, RunPlan, read_plan
from rasura.manifests.shards import explain_damage
from rasura.manifests.storage import Store
from rasura.manifests.tables import NoTable, Table, Tables
from rasura.pipeline.recipe.schema import DatasetSettings
from rasura.pipeline.run.accounting import list_commits

LOOP = "loop.json"
OnProgress = Callable[[float, float, str], None]


def export_run(
    store: Store,
    out: Store,
    layout: str = "huggingface",
    flows: str | Sequence[str] = (),
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
        UnknownNameError: there is no such layout.
        NoRun: there is neither a run nor a loop.
        NoTable: there is no such flow, or it is not complete.
        NothingToExport: there is no row to write.
        NotTriplets: its rows are no triplets.
        ForeignFolder: the target has other files, or is part of a run.
        StoreError: the target cannot be written.
    """
    check_format(layout)
    flows = [flows] if isinstance(flows, str) else list(dict.fromkeys(flows))
    if store.exists(LOOP):
        _check_place(store, out)
        return _export_loop(store, out, layout, flows, on_progress)
    plan = read_plan(store)
    _check_place(store, out)
    for flow in flows:
        if flow not in plan.flows:
            raise NoTable(f"{store.uri} has no flow '{flow}'; it has {', '.join(plan.flows)}")
    # a loop's round is a run without a recipe of its own
    recipe = _read_recipe(store) if store.exists(RECIPE) else {}
    triplets = [name for name in plan.main_flows if "target" in plan.flows[name].columns]
    names = flows or list(plan.dataset or triplets)
    if not names:
        raise NothingToExport(
            f"{store.uri} has nothing to export: it has no dataset, and none of its flows has triplets "
            f"({', '.join(plan.flows)})"
        )
    for name in names:
        if not list_commits(store, name, plan.flows[name].part)[1]:
            raise NoTable(f"flow '{name}' is not complete for the run's present recipe; run it again first")
    tables = Tables(store)
    return _write(
        tables, names, out, layout, plan.name, plan.recipe, recipe, on_progress, _compute_key(tables, names, plan)
    )


def _compute_key(tables: Tables, flows: Sequence[str], plan: RunPlan) -> str:
    """Compute the identity of a run's rows; "" where some may be in another run, which may change."""
    if any("ref_run" in flow.columns for flow in plan.flows.values()):
        return ""
    return compute_export_key(tables.run, flows, tables.names(), plan.recipe, 0)


def _read_recipe(store: Store) -> Mapping[str, Any]:
    with explain_damage(store, RECIPE):
        try:
            return dict(yaml.safe_load(store.read(RECIPE)))
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from error


def _check_place(store: Store, out: Store) -> None:
    """Check that an export would not mix with the run that it is made from, nor with another one.

    Raises:
        ForeignFolder: the target is a run, is in one, or contains the one that is exported.
    """
    target, source = _resolve(out), _resolve(store)
    if target in source.parents:
        raise ForeignFolder(f"{out.uri} contains {store.uri}, which is exported; name a new folder")
    if source in (target, *target.parents):
        relation = "is" if target == source else "is in"
        raise ForeignFolder(f"{out.uri} {relation} {store.uri}, which is exported; name a folder outside it")
    if out.local is None:
        return
    for folder in (target, *target.parents):
        if _has_run(Path(folder)):
            relation = "is" if target == folder else f"is in {folder}, which is"
            raise ForeignFolder(f"{out.uri} {relation} a run or a loop; name a folder outside it")


def _has_run(folder: Path) -> bool:
    if (folder / LOOP).is_file() and (folder / "steps").is_dir():
        return True
    try:
        read_plan(Store(folder))
    except NoRun:
        return False
    return True


def _resolve(store: Store) -> PurePath:
    return PurePosixPath(store.uri) if store.local is None else store.local.resolve()


def _export_loop(
    store: Store, out: Store, layout: str, flows: Sequence[str], on_progress: OnProgress
) -> dict[str, Any]:
    from rasura.pipeline.loop.export import FLOWS, open_flow
    from rasura.pipeline.loop.state import Loop

    if len(flows) > 1:
        raise NoTable(f"a loop's flows ({', '.join(FLOWS)}) are datasets of their own: name one")
    loop = Loop.open(store)
    tables = open_flow(loop, flows[0] if flows else next(iter(FLOWS)))
    name = loop.recipe.name + (", verdicts by the oracle" if loop.recipe.reviewers == "oracle" else "")
    recipe_hash = hash_json(loop.recipe.dump_former())
    return _write(tables, tables.names(), out, layout, name, recipe_hash, {}, on_progress)


def _write(
    tables: Tables,
    flows: Sequence[str],
    out: Store,
    layout: str,
    name: str,
    recipe_hash: str,
    recipe: Mapping[str, Any],
    on_progress: OnProgress,
    key: str = "",
) -> dict[str, Any]:
    done, total = 0, sum(tables.table(flow).rows for flow in flows)
    if not total:
        raise NothingToExport(
            f"{tables.run.uri} has nothing to export: no row in {', '.join(flows)} (`rasura status` shows why)"
        )

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        on_progress(done, total, "")

    default = DatasetSettings.model_fields["shard_bytes"].default
    limit = (recipe.get("dataset") or {}).get("shard_bytes", default)
    if layout in PARQUET_LAYOUTS:
        splits = list(recipe.get("splits") or [])
        parquet_layout = PARQUET_LAYOUTS[layout]
        return export_dataset(tables, flows, out, name, recipe_hash, splits, limit, advance, parquet_layout, key)
    if layout == brushdata.NAME:
        return brushdata.export_brushdata(tables, flows, out, name, recipe_hash, limit, advance)
    parts = [tables.table(flow) for flow in flows]
    rows = list_rows(parts)
    return export_folder(tables, rows, out, name, recipe_hash, _make_layout(layout, tables, parts, rows), advance)


def _make_layout(layout: str, tables: Tables, parts: Sequence[Table], rows: Sequence[DatasetRow]) -> FolderLayout:
    if layout == rorem.NAME:
        return RoremLayout()
    if layout == smarteraser.NAME:
        return SmartEraserLayout()
    repeats = find_repeats(parts)
    if layout == lcg.NAME:
        return LcgLayout(tables, rows, repeats)
    assert layout == powerpaint.NAME
    from rasura.stages.masks import draw_variant

    return PowerPaintLayout(repeats, partial(draw_variant, "box"), partial(draw_variant, "dilated"))
