"""The audit of a dataset: a recipe is made from its layout and carried out; table, page and copy are written."""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rasura.manifests.errors import InputError, RecipeError
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.audit.layouts import Layout, find_layout, find_splits
from rasura.pipeline.audit.page import render_page
from rasura.pipeline.audit.table import AuditTable, encode_csv, read_table
from rasura.pipeline.recipe.overrides import Overrides
from rasura.stages.curation.faults import change_limits

PAGE, TABLE = "audit.html", "audit.csv"
INSPECTED, REPAIRED = "inspected", "repaired"


@dataclass(frozen=True)
class AuditSettings:
    """What an audit does beside measuring.

    Attributes:
        source: the source that reads the dataset; None: by its layout.
        params: of the source, beside its path.
        limits: by column, in place of the default ones.
        rows: shown on the page.
        repair: where the repaired copy is written; None: there is none.
        layout: of that copy.
        overrides: of the recipe, such as `engine.workers=4`.
    """

    source: str | None = None
    params: Mapping[str, Any] | None = None
    limits: Mapping[str, float] | None = None
    rows: int = 200
    repair: str | None = None
    layout: str = "huggingface"
    overrides: Overrides = ()


@dataclass(frozen=True)
class AuditResult:
    """What an audit found.

    Attributes:
        table: all rows, the worst first.
        page, csv: where they were written.
        copy: where the repaired copy is; None where none was asked for, or no row is left.
    """

    table: AuditTable
    page: str
    csv: str
    copy: str | None


def build_recipe(splits: Mapping[str, str], settings: AuditSettings) -> dict[str, Any]:
    """Build the recipe of an audit: a flow a split, and one that repairs where that is asked for.

    Raises:
        UnknownLayout: a place has no layout that is known.
    """
    flows: dict[str, Any] = {}
    for split, place in splits.items():
        layout = Layout(settings.source, {"path": place}) if settings.source else find_layout(place)
        inspect: dict[str, Any] = {"pictures": True} if settings.repair else {}
        if split:
            inspect["split"] = split
        name = f"{INSPECTED}_{split}" if split else INSPECTED
        params = {**layout.params, **(settings.params or {})}
        flows[name] = {"source": {layout.source: params}, "stages": [{"inspect": inspect}]}
    if settings.repair:
        repair = {"limits": dict(settings.limits)} if settings.limits else {}
        source = {"of": list(flows), "by": "inspect_fingerprint", "across": "split"}
        flows[REPAIRED] = {"source": {"distinct": source}, "stages": [{"repair": repair}]}
    return {"name": "audit", "flows": flows, "splits": {"train": 1.0}}


def audit(places: list[str], into: str, settings: AuditSettings, quiet: bool = False) -> AuditResult:
    """Audit a dataset.

    Args:
        places: of the dataset; of several, each with its split, `train=folder`.
        into: folder or URI of the run that measures it; page and table are written there, too.
        settings: what else is done.
        quiet: show no progress.

    Raises:
        InputError: a place has no known layout, a parameter of its source is wrong, or a column has no limit.
        RunError: the run cannot go on; what was committed is whole.
    """
    from rasura.pipeline.export import export_run
    from rasura.pipeline.run.run import run

    limits = change_limits(settings.limits or {})
    splits = find_splits(places)
    recipe = build_recipe(splits, settings)
    with tempfile.TemporaryDirectory(prefix="rasura-audit-") as folder:
        file = Path(folder) / "audit.yaml"
        file.write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), encoding="utf-8")
        try:
            result = run(file, into, settings.overrides, None, quiet)
        except RecipeError as error:  # of a recipe that nobody has written: without its places
            raise InputError(re.sub(r"(?m)^.*?:\d+:\d+: (flows\.\w+\.)?", "", str(error))) from error
    store = Store(result.run)
    inspected = [name for name in recipe["flows"] if name != REPAIRED]
    table = read_table(store, inspected, REPAIRED if settings.repair else None, limits)
    title = ", ".join(places)
    store.write(TABLE, encode_csv(table))
    store.write(PAGE, render_page(title, table, Tables(store), settings.rows, limits).encode())
    copy = None
    if settings.repair and Tables(store).table(REPAIRED).rows:
        export_run(store, Store(settings.repair), settings.layout, [REPAIRED])
        copy = settings.repair
    return AuditResult(table, f"{store.uri}/{PAGE}", f"{store.uri}/{TABLE}", copy)
