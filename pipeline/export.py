"""The dataset of a finished run, or of a loop, written to another place in one of the layouts that trainers read."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rasura.manifests.formats import rorem_export as exports_rorem
from rasura.manifests.formats.huggingface import Layout, Plain, export
from rasura.manifests.formats.ober_export import OberLayout
from rasura.manifests.ids import stable_hash
from rasura.manifests.storage import Store
from rasura.manifests.tables import NoTable, Table, Tables
from rasura.pipeline.recipe.load import Dataset, Recipe
from rasura.pipeline.run.accounting import about, lines_of

PARQUET: Mapping[str, Callable[[Sequence[Table]], Layout]] = {"huggingface": Plain, "ober": OberLayout}
LAYOUTS: Mapping[str, Callable[..., Any]] = {**PARQUET, exports_rorem.NAME: exports_rorem.export_rorem}
"""All that there are: what makes Parquet files, and what writes folders of its own."""


def export_run(store: Store, out: Store, layout: str = "huggingface", flows: Sequence[str] = ()) -> dict[str, Any]:
    """Writes the dataset of a finished run, or the triplets of a loop as far as it got, to another place.

    Args:
        layout: one of LAYOUTS.
        flows: of the run; where none is named, the dataset's. A loop has `triplets` (those it started from and those
            that joined) and `votes` (the candidates that were judged, with their verdicts).

    Raises:
        NoRun, NoTable, NotTriplets, ForeignFolder, StoreError
    """
    if store.exists("loop.json"):
        return _export_loop(store, out, layout, flows)
    told = about(store)
    for flow in flows:
        if flow not in told["flows"]:
            raise NoTable(f"{store.uri} has no flow '{flow}'; it has {', '.join(told['flows'])}")
    # a loop's round is a run without a recipe of its own
    recipe = Recipe.model_validate(yaml.safe_load(store.read("recipe.yaml"))) if store.exists("recipe.yaml") else None
    chosen = list(flows) or told["dataset"] or [n for n, flow in told["flows"].items() if "target" in flow["columns"]]
    for flow in chosen:
        if not lines_of(store, flow, told["flows"][flow]["part"])[1]:
            raise NoTable(f"flow '{flow}' is not complete for the run's present recipe; run it again first")
    return _write(Tables(store), chosen, out, layout, told["name"], told["recipe"], recipe)


def _export_loop(store: Store, out: Store, layout: str, flows: Sequence[str]) -> dict[str, Any]:
    from rasura.pipeline.loop.export import FLOWS, tables_of
    from rasura.pipeline.loop.state import Loop

    if len(flows) > 1:
        raise NoTable(f"a loop's flows ({', '.join(FLOWS)}) are datasets of their own: name one")
    loop = Loop.open(store.local or Path(store.uri))
    tables = tables_of(loop, flows[0] if flows else next(iter(FLOWS)))
    name = loop.recipe.name + (", verdicts by the oracle" if loop.recipe.reviewers == "oracle" else "")
    recipe_hash = stable_hash(loop.recipe.model_dump(mode="json"))
    return _write(tables, tables.names(), out, layout, name, recipe_hash, None)


def _write(
    tables: Tables, flows: Sequence[str], out: Store, layout: str, name: str, recipe_hash: str, recipe: Recipe | None
) -> dict[str, Any]:
    if layout == exports_rorem.NAME:
        return exports_rorem.export_rorem(tables, flows, out, name, recipe_hash)
    given = recipe.dataset if recipe else None
    limit = given.shard_bytes if given else Dataset.model_fields["shard_bytes"].default
    splits = list(recipe.splits) if recipe else []
    return export(tables, flows, out, name, recipe_hash, splits, limit, layout=PARQUET[layout])
