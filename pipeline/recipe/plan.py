"""From a recipe to what will run: flows in order, each a chain of groups, cut into shards with content ids."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rasura.manifests.ids import shard_id, stable_hash
from rasura.manifests.schemas import PROVENANCE, Kind, Schema
from rasura.manifests.storage import Store
from rasura.manifests.tables import REFERENCE
from rasura.pipeline.recipe.load import Entry, Places, Recipe, RecipeError, params_faults
from rasura.stages.registry import UnknownStage, nearest, source_class, stage_class
from rasura.stages.sources.files import RunContext
from rasura.stages.stage import MissingColumns, Record, Resources, Source, Stage

FORMAT = 1  # of what is on disk; part of every hash
ALWAYS: Schema = PROVENANCE


@dataclass(frozen=True)
class StageSpec:
    """Everything a worker needs to make a stage."""

    name: str
    params: Mapping[str, Any]
    seed: int
    version: str
    batch_size: int
    time_limit_s: float
    resources: Resources
    columns: Mapping[str, Kind]  # after the stage
    weights: Mapping[str, str] = field(default_factory=dict)  # name -> sha256
    is_source: bool = False

    def make(self) -> Stage:
        """The stage itself, with its parameters validated again."""
        cls = stage_class(self.name)
        return cls(cls.Params.model_validate(self.params), self.seed)


@dataclass(frozen=True)
class Group:
    """Consecutive stages with the same resources: they run in one actor."""

    resources: Resources
    stages: tuple[StageSpec, ...]

    @property
    def key(self) -> str:
        """Identity of what a worker has to set up."""
        return stable_hash([[s.name, dict(s.params), s.seed, s.version, dict(s.weights)] for s in self.stages])


@dataclass(frozen=True)
class Shard:
    """A unit of work: some of a source's items."""

    id: str
    items: Sequence[Record]


@dataclass(frozen=True)
class FlowPlan:
    """One flow, resolved."""

    name: str
    part: str  # hash of the part of the recipe that produces it, upstream flows included
    groups: tuple[Group, ...]
    upstream: tuple[str, ...]
    columns: Mapping[str, Kind]  # of the table
    whole: Mapping[str, Kind]  # of its rows with references followed
    shard_rows: int
    splits: Mapping[str, float]

    @property
    def stages(self) -> list[StageSpec]:
        """All stages, the source first."""
        return [stage for group in self.groups for stage in group.stages]


@lru_cache(maxsize=256)
def _sha256(path: str, size: int, stamp: int) -> str:
    del size, stamp  # they are in the key so that a changed file is read again
    with Path(path).open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file; read once a process while its size and time stay."""
    stat = path.stat()
    return _sha256(str(path), stat.st_size, stat.st_mtime_ns)


def _spec(entry: Entry, cls: type[Stage], stage: Stage, columns: Mapping[str, Kind]) -> StageSpec:
    given = entry.resources
    resources = Resources(cpus=given.cpus, gpus=given.gpus, custom=given.custom) if given else cls.resources
    return StageSpec(
        name=entry.name,
        params=stage.params.model_dump(mode="json"),
        seed=stage.seed,
        version=cls.version,
        batch_size=entry.batch_size or cls.batch_size,
        time_limit_s=entry.time_limit_s or cls.time_limit_s,
        resources=resources,
        columns=columns,
        weights={name: file_sha256(path) for name, path in stage.weights().items()},
        is_source=issubclass(cls, Source),
    )


def _group(specs: Sequence[StageSpec]) -> tuple[Group, ...]:
    groups: list[list[StageSpec]] = []
    for spec in specs:
        if groups and groups[-1][-1].resources == spec.resources:
            groups[-1].append(spec)
        else:
            groups.append([spec])
    return tuple(Group(group[0].resources, tuple(group)) for group in groups)


def _hashable(params: Any, weights: Mapping[str, str]) -> Any:
    """Parameters with the paths of weights replaced by their hashes: moving a file changes nothing."""
    if isinstance(params, Mapping):
        return [[key, _hashable(value, weights)] for key, value in params.items()]  # their order may matter
    if isinstance(params, list | tuple):
        return [_hashable(value, weights) for value in params]
    return f"sha256:{weights[params]}" if isinstance(params, str) and params in weights else params


class _Planner:
    """Resolves the flows of a recipe and collects all faults, so that they are told at once."""

    def __init__(self, recipe: Recipe, places: Places) -> None:
        self.recipe, self.places = recipe, places
        self.faults: list[str] = []
        self.done: dict[str, FlowPlan] = {}
        self.sources: dict[str, Source] = {}

    def fault(self, path: Sequence[str | int], message: str) -> None:
        text = f"{self.places.of(path)}: {'.'.join(map(str, path))}: {message}"
        if text not in self.faults:  # a flow that others take from is looked at more than once
            self.faults.append(text)

    def make(self, entry: Entry, path: Sequence[str | int], source: bool) -> Stage | None:
        """A stage with its parameters and weights checked."""
        try:
            cls: type[Stage] = source_class(entry.name) if source else stage_class(entry.name)
            stage = cls(cls.Params.model_validate(entry.params), self.recipe.seed)
        except UnknownStage as error:
            self.fault(path, str(error))
            return None
        except ValidationError as error:
            for loc, message in params_faults(error, cls.Params):
                self.fault((*path, entry.name, *loc), message)
            return None
        except ValueError as error:
            self.fault(path, str(error))
            return None
        try:
            missing = [(name, file) for name, file in stage.weights().items() if not Path(file).is_file()]
        except ValueError as error:  # weights that are not what the stage needs, or a hub that does not answer
            self.fault((*path, entry.name), str(error))
            return None
        for name, file in missing:
            self.fault((*path, entry.name, name), f"there is no file '{file}'")
        return None if missing else stage

    def flow(self, name: str, trail: tuple[str, ...] = ()) -> FlowPlan | None:
        """The plan of one flow, upstream ones first; None where a fault was found."""
        if name in self.done:
            return self.done[name]
        flow, at = self.recipe.flows[name], ("flows", name)
        source = self.make(flow.source, (*at, "source"), True)
        stages = [self.make(entry, (*at, "stages", i), False) for i, entry in enumerate(flow.stages)]
        if not isinstance(source, Source) or any(stage is None for stage in stages):
            return None
        upstream: list[FlowPlan] = []
        for other in source.upstream():
            if other not in self.recipe.flows:
                self.fault(
                    (*at, "source", flow.source.name), f"no flow '{other}'; {nearest(other, [*self.recipe.flows])}"
                )
                return None
            if other in (*trail, name):
                self.fault((*at, "source"), f"flows run in a circle: {' -> '.join((*trail, name, other))}")
                return None
            plan = self.flow(other, (*trail, name))
            if plan is None:
                return None
            upstream.append(plan)
        if stages and "pictures" in source.params.model_fields_set | set(type(source.params).model_fields):
            looks = any(stage.pictures for stage in stages if stage)
            source.params = source.params.model_copy(update={"pictures": looks})
        specs: list[StageSpec] = []
        columns: dict[str, Kind] = dict(upstream[0].whole) if upstream else {}
        chain = [(flow.source, source, (*at, "source"))]
        chain += [(e, s, (*at, "stages", i)) for i, (e, s) in enumerate(zip(flow.stages, stages, strict=True)) if s]  # type: ignore[misc]
        for entry, stage, path in chain:
            try:
                columns = {**ALWAYS, **stage.schema(columns)}
            except MissingColumns as error:
                self.fault(path, str(error))
                return None
            specs.append(_spec(entry, type(stage), stage, columns))
        if Kind.RECORDS in columns.values():
            self.fault(
                at, f"the flow ends with columns that cannot be written; add the stage that uses {flow.source.name}"
            )
            return None
        whole = columns
        if "ref_table" in columns:
            whole = {**upstream[0].whole, **{name: kind for name, kind in columns.items() if name not in REFERENCE}}
        self.sources[name] = source
        self.done[name] = FlowPlan(
            name=name,
            part=self._part(specs, [stage for _, stage, _ in chain], upstream),
            groups=_group(specs),
            upstream=tuple(plan.name for plan in upstream),
            columns=columns,
            whole=whole,
            shard_rows=flow.shard_rows or self.recipe.engine.shard_rows,
            splits=self.recipe.splits,
        )
        return self.done[name]

    def _part(self, specs: Sequence[StageSpec], stages: Sequence[Stage], upstream: Sequence[FlowPlan]) -> str:
        steps = []
        for spec, stage in zip(specs, stages, strict=True):
            files = {Path(path): spec.weights[name] for name, path in stage.weights().items()}
            by_path = {str(path): sha256 for path, sha256 in files.items()}
            for folder in {path.parent for path in files}:  # a model's folder is named as a whole
                held = [[path.name, sha256] for path, sha256 in files.items() if path.parent == folder]
                by_path.setdefault(str(folder), stable_hash(sorted(held)))
            steps.append([spec.name, spec.version, _hashable(spec.params, by_path), dict(spec.weights)])
        return stable_hash(
            [FORMAT, self.recipe.seed, list(self.recipe.splits.items()), steps, [plan.part for plan in upstream]]
        )


@dataclass(frozen=True)
class Plan:
    """All flows of a recipe, upstream first."""

    recipe: Recipe
    flows: Mapping[str, FlowPlan]
    sources: Mapping[str, Source]

    @property
    def hash(self) -> str:
        """Hash of everything in the resolved recipe that can change a result: all of it but how it is carried."""
        dataset = self.recipe.dataset.model_dump(mode="json") if self.recipe.dataset else None
        return stable_hash([self.recipe.name, {flow.name: flow.part for flow in self.flows.values()}, dataset])

    def resolved(self) -> dict[str, Any]:
        """The recipe with every default filled in, as it would be written."""
        written = self.recipe.model_dump(mode="json", exclude_none=True)
        written["flows"] = {}
        for flow in self.flows.values():
            source, *stages = [{spec.name: dict(spec.params)} for spec in flow.stages]
            written["flows"][flow.name] = {"source": source, "stages": stages, "shard_rows": flow.shard_rows}
        return written


def plan(recipe: Recipe, places: Places, only: str | None = None) -> Plan:
    """Resolves a recipe: stages found, parameters valid, weights there, columns fit.

    Args:
        only: a flow, or a stage (`stage` or `flow.stage`): that flow runs only up to it, with what it needs.

    Raises:
        RecipeError: all faults, a line each with its place.
    """
    recipe, wanted = _cut(recipe, only)
    planner = _Planner(recipe, places)
    for name in wanted:
        planner.flow(name)
    if planner.faults:
        raise RecipeError("\n".join(planner.faults))
    return Plan(recipe, planner.done, planner.sources)


def _cut(recipe: Recipe, only: str | None) -> tuple[Recipe, list[str]]:
    if only is None:
        return recipe, list(recipe.flows)
    if only in recipe.flows:
        return recipe.model_copy(update={"dataset": None}), [only]
    flow_name, _, stage_name = only.rpartition(".")
    for name, flow in recipe.flows.items():
        names = [flow.source.name, *(entry.name for entry in flow.stages)]
        if stage_name in names and flow_name in ("", name):
            short = flow.model_copy(update={"stages": flow.stages[: names.index(stage_name)]})
            cut = f"{name}.{stage_name}"
            return recipe.model_copy(update={"flows": {**recipe.flows, cut: short}, "dataset": None}), [cut]
    known = [*recipe.flows, *(entry.name for flow in recipe.flows.values() for entry in flow.stages)]
    raise RecipeError(f"--only {only}: the recipe has no such flow or stage; {nearest(only, known)}")


def _place(item: Record) -> tuple[str, int, str, str]:
    in_file = "path" in item and "row" in item
    return item["path"] if in_file else "", item["row"] if in_file else 0, item["id"], item["origin"]


def shards(flow: FlowPlan, source: Source, run: Store) -> list[Shard]:
    """Lists a flow's source and cuts its items, sorted by id, into shards.

    Items of equal content get ids of their own here (`<id>~1`), and are rejected as duplicates where they are loaded.
    """
    items = source.items(RunContext(run, flow.name, source.seed))
    # by id; rows of a Parquet file in their order, so that a shard's rows stand together there
    items.sort(key=_place)
    seen: dict[str, int] = {}
    first: dict[str, str] = {}
    for item in items:
        content = item["id"]
        item["content"] = content
        count = seen[content] = seen.get(content, -1) + 1
        if count:
            item["id"] = f"{content}~{count}"
            item["duplicate_of"] = first[content]
        else:
            first[content] = item["origin"]
    rows = flow.shard_rows
    cut = [items[start : start + rows] for start in range(0, len(items), rows)]
    # the origin is in the id too: a renamed file is a changed input; and whether a cap leaves the item out
    marks = [[f"{item['id']} {item['origin']}{' over' if 'over' in item else ''}" for item in part] for part in cut]
    return [Shard(shard_id(flow.part, mark), part) for mark, part in zip(marks, cut, strict=True)]
