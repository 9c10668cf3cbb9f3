"""The dataset of a finished run, written to another place in one of the layouts that trainers read."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from manifests.exports import Layout, Plain, export
from manifests.exports_ober import OberLayout
from manifests.storage import Store
from manifests.tables import NoTable, Table, Tables
from pipeline.ledger import about, lines_of
from pipeline.recipe import Dataset, Recipe

LAYOUTS: Mapping[str, Callable[[Sequence[Table]], Layout]] = {"huggingface": Plain, "ober": OberLayout}


def export_run(store: Store, out: Store, layout: str = "huggingface") -> dict[str, Any]:
    """Writes the dataset of a finished run to another place.

    Args:
        layout: one of LAYOUTS.

    Raises:
        NoRun, NoTable, NotTriplets, ForeignFolder, StoreError
    """
    told = about(store)
    recipe = Recipe.model_validate(yaml.safe_load(store.read("recipe.yaml")))
    flows = told["dataset"] or [name for name, flow in told["flows"].items() if "target" in flow["columns"]]
    for flow in flows:
        if not lines_of(store, flow, told["flows"][flow]["part"])[1]:
            raise NoTable(f"flow '{flow}' is not complete for the run's present recipe; run it again first")
    limit = recipe.dataset.shard_bytes if recipe.dataset else Dataset.model_fields["shard_bytes"].default
    splits = list(recipe.splits)
    return export(
        Tables(store), flows, out, recipe.name, told["recipe"], splits, limit, layout=LAYOUTS[layout]
    )  # fmt: skip
