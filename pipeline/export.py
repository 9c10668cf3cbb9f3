"""The dataset of a finished run, or of a loop, written to another place in one of the layouts that trainers read."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import yaml

from rasura.manifests.errors import InputError
from rasura.manifests.formats import brushdata, lcg, powerpaint, rorem, smarteraser
from rasura.manifests.formats.dataset_rows import JUDGEMENT, DatasetRow, find_repeats, find_superseded, list_rows
from rasura.manifests.formats.dataset_rows import NothingToExport as NothingToExport
from rasura.manifests.formats.filters import crops, rows
from rasura.manifests.formats.filters.expressions import parse_condition
from rasura.manifests.formats.filters.layouts import ChangedRows
from rasura.manifests.formats.folder_export import export_folder
from rasura.manifests.formats.lcg import LcgLayout
from rasura.manifests.formats.powerpaint import PowerPaintLayout
from rasura.manifests.formats.registry import PAIR_FORMATS, PICTURE_MEMBERS, TABLE_LAYOUTS, check_format
from rasura.manifests.formats.rorem_export import RoremLayout
from rasura.manifests.formats.smarteraser import SmartEraserLayout
from rasura.manifests.formats.tables.huggingface import HuggingFaceLayout
from rasura.manifests.formats.tables.table_export import COPIES, compute_export_key, export_dataset
from rasura.manifests.formats.target import CROISSANT, ForeignFolder
from rasura.manifests.formats.trainers import diffusers, webdataset
from rasura.manifests.formats.trainers.croissant import render_croissant
from rasura.manifests.formats.trainers.instructions import DIRECTIONS, check_language
from rasura.manifests.formats.trainers.pair_folders import PairFolderLayout
from rasura.manifests.formats.trainers.pairs import PairSettings, explain_no_pair
from rasura.manifests.formats.trainers.tars import TAR_BYTES, export_tars
from rasura.manifests.ids import hash_json
from rasura.manifests.parallel.jobs import MapJobs
from rasura.manifests.run_layout import LOOP, RECIPE, NoRun, RunPlan, read_plan
from rasura.manifests.schemas import VERDICTS, Kind, Schema
from rasura.manifests.shards import explain_damage
from rasura.manifests.storage import Store
from rasura.manifests.tables import NoTable, Table, Tables
from rasura.pipeline.recipe.schema import DatasetSettings, EngineSettings
from rasura.pipeline.run.accounting import list_commits
from rasura.pipeline.run.review import read_review_verdicts
from rasura.pipeline.run.starter import EngineStarter

OnProgress = Callable[[float, float, str], None]


class WrongOption(InputError):
    """An option that the format does not have."""


@dataclass(frozen=True)
class ExportOptions:
    """What an export takes of its rows, and how it writes them.

    Attributes:
        verdict: keep rows with this verdict: the column's, or that of the run's review.
        min_score: keep rows with at least this score.
        where: keep rows of which this condition is true (`manifests.formats.filters.expressions`).
        crop: size of the pictures.
        pairs: direction and language, of `PAIR_FORMATS`.
        database: URL or file of the review; where None, the one in the run.
    """

    verdict: str | None = None
    min_score: float | None = None
    where: str = ""
    crop: crops.Crop | None = None
    pairs: PairSettings = field(default_factory=PairSettings)
    database: str | None = None

    def check(self, layout: str) -> None:
        """Check the options that need no run.

        Raises:
            UnknownNameError: there is no such format or language.
            WrongOption: the format has no direction or language, or there is no such verdict.
        """
        check_format(layout)
        if self.verdict is not None and self.verdict not in VERDICTS:
            raise WrongOption(f"verdict '{self.verdict}' is none of {', '.join(VERDICTS)}")
        if self.min_score is not None and not math.isfinite(self.min_score):
            raise WrongOption(f"min_score {self.min_score} is no number that a score can reach")
        check_language(self.pairs.language)
        if self.pairs.direction not in DIRECTIONS:
            raise WrongOption(f"direction '{self.pairs.direction}' is none of {', '.join(DIRECTIONS)}")
        if self.pairs != PairSettings() and layout not in PAIR_FORMATS:
            names = ", ".join(PAIR_FORMATS)
            raise WrongOption(f"format '{layout}' has no direction and no instruction text; these have: {names}")


def read_options(
    verdict: str | None = None,
    min_score: float | None = None,
    where: str = "",
    size: str = "",
    crop: str = "object",
    direction: str = "removal",
    language: str = "en",
    database: str | None = None,
) -> ExportOptions:
    """Read the options of an export from texts.

    Raises:
        WrongOption: a place of the crop is unknown, or there is one without a size.
        BadSize: the size is none.
    """
    if crop not in crops.PLACES:
        raise WrongOption(f"crop '{crop}' is none of {', '.join(crops.PLACES)}")
    if not size and crop != "object":
        raise WrongOption(f"crop '{crop}' needs a size, for example 512")
    cut = crops.parse_size(size, crop) if size else None
    return ExportOptions(verdict, min_score, where, cut, PairSettings(direction, language), database)


Verdicts = Mapping[tuple[str, str], str]


def export_run(
    store: Store,
    out: Store,
    layout: str = "huggingface",
    flows: str | Sequence[str] = (),
    on_progress: OnProgress = lambda done, total, note: None,
    options: ExportOptions | None = None,
) -> dict[str, Any]:
    """Write the dataset of a finished run, or the triplets of a loop as far as it got, to another place.

    Args:
        store: the run or the loop.
        out: the folder or bucket prefix to write into.
        layout: one of `manifests.formats.registry.FORMATS`.
        flows: of the run; where none is named, the dataset's, or, where a verdict is asked for, those that the run's
            review asked about. A loop has `triplets` (those it started from and those that joined) and `votes` (the
            candidates that were judged, with their verdicts).
        on_progress: receives the rows that are written, all rows, and a note.
        options: which rows, and how.

    Returns:
        The manifest of what was written.

    Raises:
        UnknownNameError: there is no such layout.
        WrongOption: the layout does not have an option.
        BadCondition: the condition cannot be read.
        NoRun: there is neither a run nor a loop.
        NoTable: there is no such flow, or it is not complete.
        NothingToExport: there is no row to write.
        NotTriplets: its rows are no triplets.
        ForeignFolder: the target has other files, or is part of a run.
        StoreError: the target cannot be written.
    """
    options = options or ExportOptions()
    options.check(layout)
    flows = [flows] if isinstance(flows, str) else list(dict.fromkeys(flows))
    if store.exists(LOOP):
        _check_place(store, out)
        return _export_loop(store, out, layout, flows, on_progress, options)
    plan = read_plan(store)
    _check_place(store, out)
    is_asked = options.verdict or options.database or "verdict" in options.where
    # else Rasura's own layout is, to the byte, the dataset that a run writes
    verdicts = read_review_verdicts(store, options.database) if is_asked or layout != HuggingFaceLayout.name else {}
    names = choose_flows(store, plan, flows, verdicts if options.verdict else {})
    # a loop's round is a run without a recipe of its own
    recipe = _read_recipe(store) if store.exists(RECIPE) else {}
    tables = Tables(store)
    key = _compute_key(tables, names, plan)
    job = _Job(tables, names, out, layout, plan.name, plan.recipe, recipe, key, options, verdicts)
    return _carry_out(job, on_progress)


def _carry_out(job: "_Job", on_progress: OnProgress) -> dict[str, Any]:
    """Carry out an export: on workers where there are many rows."""
    count = sum(job.tables.table(flow).rows for flow in job.flows)
    if not count:
        raise NothingToExport(
            f"{job.tables.run.uri} has nothing to export: no row in {', '.join(job.flows)} (`rasura status` shows why)"
        )
    with EngineStarter(EngineSettings()) as engine:
        return dict(engine.run_jobs(job.write, count, on_progress, job.memory, job.out.local is not None))


def choose_flows(store: Store, plan: RunPlan, flows: Sequence[str], verdicts: Verdicts) -> list[str]:
    """Choose the flows of a run whose rows are written.

    Args:
        store: the run.
        plan: of it.
        flows: that are asked for; none for the dataset's.
        verdicts: of its review, where rows with one are asked for: their flows are taken before the dataset's.

    Raises:
        NoTable: there is no such flow, or it is not complete.
        NothingToExport: there is neither a dataset nor a flow of triplets.
    """
    for flow in flows:
        if flow not in plan.flows:
            raise NoTable(f"{store.uri} has no flow '{flow}'; it has {', '.join(plan.flows)}")
    reviewed = [name for name in plan.flows if any(flow == name for flow, _ in verdicts)]
    triplets = [name for name in plan.main_flows if "target" in plan.flows[name].columns]
    names = list(flows or reviewed or plan.dataset or triplets)
    if not names:
        raise NothingToExport(
            f"{store.uri} has nothing to export: it has no dataset, and none of its flows has triplets "
            f"({', '.join(plan.flows)})"
        )
    for name in names:
        if not list_commits(store, name, plan.flows[name].part)[1]:
            raise NoTable(f"flow '{name}' is not complete for the run's present recipe; run it again first")
    return names


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
    store: Store, out: Store, layout: str, flows: Sequence[str], on_progress: OnProgress, options: ExportOptions
) -> dict[str, Any]:
    from rasura.pipeline.loop.export import FLOWS, open_flow
    from rasura.pipeline.loop.state import Loop

    if len(flows) > 1:
        raise NoTable(f"a loop's flows ({', '.join(FLOWS)}) are datasets of their own: name one")
    loop = Loop.open(store)
    tables = open_flow(loop, flows[0] if flows else next(iter(FLOWS)))
    name = loop.recipe.name + (", verdicts by the oracle" if loop.recipe.reviewers == "oracle" else "")
    recipe_hash = hash_json(loop.recipe.dump_former())
    return _carry_out(_Job(tables, tables.names(), out, layout, name, recipe_hash, {}, "", options, {}), on_progress)


@dataclass(frozen=True)
class _Job:
    """One export: where its rows are, and what is written of them."""

    tables: Tables
    flows: Sequence[str]
    out: Store
    layout: str
    name: str
    recipe_hash: str
    recipe: Mapping[str, Any]
    key: str
    options: ExportOptions
    verdicts: Verdicts

    @property
    def shard_bytes(self) -> int:
        """Size of a data file."""
        default = DatasetSettings.model_fields["shard_bytes"].default
        return int((self.recipe.get("dataset") or {}).get("shard_bytes", default))

    @property
    def memory(self) -> int:
        """Bytes that a job needs for the file that it writes; those of folders have a few rows."""
        if self.layout in TABLE_LAYOUTS:
            return COPIES * self.shard_bytes
        return COPIES * TAR_BYTES if self.layout in PICTURE_MEMBERS else 0

    def write(self, map_jobs: MapJobs, on_progress: OnProgress) -> dict[str, Any]:
        """Write the export and its Croissant metadata, and return its manifest."""
        parts = [self.tables.table(flow) for flow in self.flows]
        done, total = 0, sum(part.rows for part in parts)

        def advance(count: int) -> None:
            nonlocal done
            done += count
            on_progress(done, total, "")

        listed = list_rows(parts)
        change = rows.replace_verdicts(self.verdicts)
        excluded = rows.find_excluded(self.tables, listed, self._list_checks(parts), change, map_jobs)
        excluded |= find_superseded(parts)
        manifest = self._write_files(parts, listed, excluded, advance, map_jobs)
        licences = sorted({row.licence for row in listed if row.licence and row.id not in excluded})
        description = f"{manifest['rows']} rows for the removal of objects, as '{self.layout}'."
        self.out.write(CROISSANT, render_croissant(self.out, manifest, description, licences))
        return manifest

    def _list_checks(self, parts: Sequence[Table]) -> list[rows.Check]:
        options, checks = self.options, list[rows.Check]()
        if options.verdict:
            checks.append(rows.check_verdict(options.verdict))
        if options.min_score is not None:
            checks.append(rows.check_score(options.min_score))
        if options.where:
            columns: Schema = {"verdict": Kind.STRING, "score": Kind.FLOAT}
            for part in parts:
                columns = {**part.full_schema, **columns}
            checks.append(rows.check_condition(parse_condition(options.where, columns)))
        if self.layout == diffusers.NAME:  # Parquet has every row that is planned
            checks.append(rows.Check(JUDGEMENT, explain_no_pair))
        if options.crop:
            checks.append(crops.check_crop(options.crop))
        return checks

    def _change_rows(self, layout: Any) -> Any:
        """Have a layout see its rows with the review's verdicts, and cut."""
        crop, columns = self.options.crop, ["verdict"] if self.verdicts else []
        change = rows.replace_verdicts(self.verdicts)
        if crop is None:
            return ChangedRows(layout, change, columns) if self.verdicts else layout
        return ChangedRows(layout, lambda row, raw: crops.cut_row(change(row, raw), crop), [*columns, *crops.COLUMNS])

    def _write_files(
        self,
        parts: Sequence[Table],
        listed: Sequence[DatasetRow],
        excluded: Mapping[str, str],
        advance: Callable[[int], None],
        map_jobs: MapJobs,
    ) -> dict[str, Any]:
        limit, to = self.shard_bytes, (self.out, self.name, self.recipe_hash)
        if self.layout in TABLE_LAYOUTS:
            splits, options = list(self.recipe.get("splits") or []), self.options
            settings = [options.pairs, options.crop, sorted(self.verdicts.items()), sorted(excluded.items())]
            is_plain = not self.key or settings == [PairSettings(), None, [], []]
            key = self.key if is_plain else hash_json([self.key, repr(settings)])

            def make(parts: Sequence[Table]) -> Any:
                pairs = [options.pairs] if self.layout in PAIR_FORMATS else []
                return self._change_rows(TABLE_LAYOUTS[self.layout](parts, *pairs))

            return export_dataset(self.tables, self.flows, *to, splits, limit, advance, make, key, map_jobs, excluded)
        layout = self._change_rows(_make_layout(self.layout, self.tables, parts, listed, self.options.pairs))
        if self.layout in PICTURE_MEMBERS:
            return export_tars(self.tables, listed, *to, layout, limit, advance, excluded, map_jobs)
        return export_folder(self.tables, listed, *to, layout, advance, excluded, map_jobs)


def _make_layout(
    layout: str, tables: Tables, parts: Sequence[Table], listed: Sequence[DatasetRow], pairs: PairSettings
) -> Any:
    """Make a layout of tars or folders."""
    repeats = find_repeats(parts)
    match layout:
        case rorem.NAME:
            return RoremLayout()
        case smarteraser.NAME:
            return SmartEraserLayout()
        case brushdata.NAME:
            return brushdata.BrushDataLayout(repeats)
        case lcg.NAME:
            return LcgLayout(tables, listed, repeats)
        case webdataset.NAME:
            return webdataset.WebDatasetLayout(pairs)
        case powerpaint.NAME:
            from rasura.stages.masks import draw_variant

            return PowerPaintLayout(repeats, partial(draw_variant, "box"), partial(draw_variant, "dilated"))
        case _:
            return PairFolderLayout(layout, pairs)
