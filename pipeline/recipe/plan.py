"""From a recipe to what will be run: flows in order, each a chain of groups, cut into shards with content ids.

Everything that can be known before the start is checked here: names, parameters, weights, input files, extras, columns.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from rasura.manifests.errors import RasuraError, RecipeError
from rasura.manifests.extras import describe_missing
from rasura.manifests.ids import hash_json
from rasura.manifests.schemas import PICTURES, PROVENANCE, Kind
from rasura.manifests.spelling import suggest
from rasura.manifests.tables import REFERENCE, RUN_REFERENCE
from rasura.pipeline.recipe.former_names import dump_former_names, rename_keys
from rasura.pipeline.recipe.load import Fault, FaultyRecipe, describe_faults, load
from rasura.pipeline.recipe.missing import count_inputs, find_givers, find_missing, find_value
from rasura.pipeline.recipe.overrides import Overrides
from rasura.pipeline.recipe.positions import KeyPath, Positions
from rasura.pipeline.recipe.repeats import find_repeat
from rasura.pipeline.recipe.resolve import (
    ResolvedStage,
    ask_for_pictures,
    find_candidate_kinds,
    replace_weights,
    specify_stage,
)
from rasura.pipeline.recipe.schema import Flow, Recipe, StageEntry
from rasura.pipeline.recipe.specs import FlowPlan, StageSpec, group_stages
from rasura.stages.registry import UnknownStage, describe_schema_fault, find_source, find_stage
from rasura.stages.stage import MissingColumns, Source, Stage, UnfitParameter

FORMAT = 1  # of what is on disk; part of every hash
TRIPLET_COLUMNS = ("source", "mask", "target")
"""Columns that the rows of a dataset must have."""


class _Planner:
    """Resolves the flows of a recipe and collects all faults, so that they are reported at once."""

    def __init__(self, recipe: Recipe, positions: Positions, tables: Mapping[str, FlowPlan]) -> None:
        self.recipe, self.positions = recipe, positions
        self.faults: list[str] = []
        self.stages: dict[KeyPath, ResolvedStage | None] = {}  # by place: each is made, and warned of, once
        self.plans: dict[str, FlowPlan] = dict(tables)
        self.sources: dict[str, Source] = {}
        self.inputs: dict[str, int | None] = {}
        self.circles: set[frozenset[str]] = set()

    def add_fault(self, path: Sequence[str | int], message: str) -> None:
        text = self.positions.describe_fault(path, message)
        if text not in self.faults:  # a flow that others take from is planned more than once
            self.faults.append(text)

    def make_stage(self, entry: StageEntry, path: KeyPath, is_source: bool) -> ResolvedStage | None:
        """Make a stage and check its parameters, weights, input files and modules; None where there is a fault."""
        if path not in self.stages:
            self.stages[path] = self._make_stage(entry, path, is_source)
        return self.stages[path]

    def _make_stage(self, entry: StageEntry, path: KeyPath, is_source: bool) -> ResolvedStage | None:
        below = (*path, entry.name)
        faults: list[Fault] = []
        try:
            cls: type[Stage] = find_source(entry.name) if is_source else find_stage(entry.name)
            if issubclass(cls, Source) and not is_source:
                message = f"'{entry.name}' is a source: it belongs under `source` of a flow, before its stages"
                self.add_fault(path, message)
                return None
            params = rename_keys(entry.params, cls.Params, below, self.positions, lambda *fault: faults.append(fault))
            stage = cls(cls.Params.model_validate(params), self.recipe.seed)
            faults += find_missing(stage, params, below)
            inputs = count_inputs(stage, params, below, faults) if isinstance(stage, Source) and not faults else None
            if not faults:
                return ResolvedStage(entry, stage, path, inputs)
        except UnknownStage as error:
            faults.append((path, str(error)))
        except ValidationError as error:
            faults += [((*below, *keys), message) for keys, message in describe_faults(error, cls.Params)]
        except ModuleNotFoundError as error:
            faults.append((path, describe_missing(error.name or str(error))))
        except (RasuraError, ValueError) as error:  # weights of another network, or a hub that does not answer
            faults.append((find_value(entry.params, below, str(error)), str(error)))
        for fault in faults:
            self.add_fault(*fault)
        return None

    def plan_flow(self, name: str, trail: tuple[str, ...] = ()) -> FlowPlan | None:
        """Plan one flow, upstream ones first; None where there is a fault."""
        if name in self.plans:
            return self.plans[name]
        flow, path = self.recipe.flows[name], ("flows", name)
        source = self.make_stage(flow.source, (*path, "source"), True)
        stages = [self.make_stage(entry, (*path, "stages", i), False) for i, entry in enumerate(flow.stages)]
        if source is None or not isinstance(source.stage, Source):
            return None
        upstream = self._plan_upstream(name, source, trail)
        chain = [source, *(stage for stage in stages if stage is not None)]
        if upstream is None or len(chain) <= len(stages):
            return None
        ask_for_pictures(source.stage, [resolved.stage for resolved in chain[1:]])
        specs = self._specify(chain, dict(upstream[0].full_columns) if upstream else {}, flow)
        if specs is None:
            return None
        columns = specs[-1].columns
        if Kind.RECORDS in columns.values():
            message = f"the flow ends with columns that cannot be written; add the stage that uses {flow.source.name}"
            self.add_fault(path, message)
            return None
        full_columns = columns
        if "ref_table" in columns:
            added = {column: kind for column, kind in columns.items() if column not in RUN_REFERENCE}
            referenced = upstream[0].full_columns if upstream else source.stage.referenced_columns()
            full_columns = {**referenced, **added}
        self.sources[name] = source.stage
        self.inputs[name] = source.inputs
        self.plans[name] = FlowPlan(
            name=name,
            part=self._hash_part(flow, specs, [resolved.stage for resolved in chain], upstream),
            groups=group_stages(specs),
            upstream=tuple(plan.name for plan in upstream),
            columns=columns,
            full_columns=full_columns,
            shard_rows=flow.shard_rows or self.recipe.engine.shard_rows,
            splits=self.recipe.splits,
            candidate_kinds=find_candidate_kinds([resolved.stage for resolved in chain], upstream),
        )
        return self.plans[name]

    def _plan_upstream(self, name: str, source: ResolvedStage, trail: tuple[str, ...]) -> list[FlowPlan] | None:
        """Plan the flows that a flow reads; None where there is a fault."""
        assert isinstance(source.stage, Source)
        plans: list[FlowPlan] = []
        for other in source.stage.upstream():
            if other not in self.recipe.flows and other not in self.plans:
                path = find_value(source.entry.params, source.params_path, f"'{other}'")
                self.add_fault(path, f"no flow '{other}'; {suggest(other, self.recipe.flows)}")
                return None
            if other in (*trail, name):
                circle = (*trail, name)[(*trail, name).index(other) :]
                if frozenset(circle) not in self.circles:  # each of its flows leads into it
                    self.circles.add(frozenset(circle))
                    self.add_fault(source.path, f"flows run in a circle: {' -> '.join((*circle, other))}")
                return None
            plan = self.plan_flow(other, (*trail, name))
            if plan is None:
                return None
            plans.append(plan)
            required = source.stage.required_columns().get(other, ())
            if missing := tuple(column for column in required if column not in plan.full_columns):
                message = str(MissingColumns(f"{source.entry.name} of flow {other}", missing, tuple(plan.full_columns)))
                self.add_fault(find_value(source.entry.params, source.params_path, f"'{other}'"), message)
                return None
        return plans

    def _specify(self, chain: Sequence[ResolvedStage], columns: dict[str, Kind], flow: Flow) -> list[StageSpec] | None:
        """Specify the stages of a flow, whose columns must fit; None where they do not."""
        specs: list[StageSpec] = []
        for resolved in chain:
            try:
                added = resolved.stage.schema(columns)
            except UnfitParameter as error:
                self.add_fault((*resolved.params_path, *error.path), f"{error.message}")
                return None
            except MissingColumns as error:
                stages = [other.stage for other in chain]
                self.add_fault(resolved.path, f"{error}{find_givers(resolved.entry.name, error.missing, stages)}")
                return None
            if fault := describe_schema_fault(added):
                self.add_fault(resolved.path, f"stage '{resolved.entry.name}': what its method schema returns {fault}")
                return None
            columns = {**PROVENANCE, **added}
            if flow.references and not self._keep_references(resolved, columns, resolved is chain[-1]):
                return None
            specs.append(specify_stage(resolved, columns, self.positions.locate(resolved.path)))
        return specs

    def _keep_references(self, resolved: ResolvedStage, columns: dict[str, Kind], is_last: bool) -> bool:
        """Have the columns after a stage refer to the pictures of the flow that is read; False where it cannot be."""
        stage = resolved.stage
        if isinstance(stage, Source):
            if not stage.gives_references:
                message = f"`references` is for rows of another flow, and '{stage.name}' reads none"
                self.add_fault(resolved.path, message)
                return False
            columns |= REFERENCE
        elif changed := [name for name, kind in stage.gives.items() if kind in PICTURES]:
            message = f"'{stage.name}' makes {', '.join(changed)}, which a flow with `references` does not store"
            self.add_fault(resolved.path, message)
            return False
        if is_last:
            for name in [name for name, kind in columns.items() if kind in PICTURES]:
                del columns[name]
        return True

    def _hash_part(
        self, flow: Flow, specs: Sequence[StageSpec], stages: Sequence[Stage], upstream: Sequence[FlowPlan]
    ) -> str:
        """Hash what makes a flow, with the names that parameters had first."""
        steps = []
        for spec, stage in zip(specs, stages, strict=True):
            files = {Path(path): spec.weights[name] for name, path in stage.weights().items()}
            by_path = {str(path): sha256 for path, sha256 in files.items()}
            for folder in {path.parent for path in files}:  # a model's folder is named as a whole
                entries = [[path.name, sha256] for path, sha256 in files.items() if path.parent == folder]
                by_path.setdefault(str(folder), hash_json(sorted(entries)))
            params = replace_weights(dump_former_names(stage.params), by_path)
            steps.append([spec.name, spec.version, params, dict(spec.weights)])
        splits = list(self.recipe.splits.items())
        kept = ["references"] if flow.references else []
        return hash_json([FORMAT, self.recipe.seed, splits, steps, [plan.part for plan in upstream], *kept])

    def _list_origins(self, name: str) -> Iterator[str]:
        """Yield the flows of which a flow only selects rows, the nearest first."""
        if "ref_table" in self.plans[name].columns and self.plans[name].upstream:
            yield self.plans[name].upstream[0]
            yield from self._list_origins(self.plans[name].upstream[0])

    def check_dataset(self) -> None:
        """Add a fault for every flow of the dataset whose rows are no triplets, or would be there twice."""
        names = (self.recipe.dataset.flows or []) if self.recipe.dataset else []
        for index, name in enumerate(names):
            if name in names[:index]:
                self.add_fault(("dataset", "flows", index), f"flow '{name}' is there twice")
            elif name in self.plans:
                if origins := [other for other in self._list_origins(name) if other in names]:
                    message = f"the rows of flow '{name}' are rows of '{origins[0]}', and would be there twice"
                    self.add_fault(("dataset", "flows", index), f"{message}; keep one of the two flows")
                elif other := find_repeat(self.plans, name, names[:index]):
                    message = f"the rows of flow '{name}' have the ids of those of '{other}': they are made of the same"
                    self.add_fault(("dataset", "flows", index), f"{message}; keep one of the two flows")
                columns = self.plans[name].full_columns
                if missing := [column for column in TRIPLET_COLUMNS if column not in columns]:
                    message = f"flow '{name}' makes no triplets: its rows have no {', '.join(missing)}"
                    remedy = "end it with capture, composite or inpaint, or take it out of the dataset"
                    self.add_fault(("dataset", "flows", index), f"{message}; {remedy}")

    def choose_dataset_flows(self) -> list[str] | None:
        """Choose the flows whose rows go into the dataset; None where there is no dataset.

        Those that the recipe names, by default all that end in triplets and of which no other one is a selection.
        Candidates are left out unless the recipe takes them in.
        """
        settings = self.recipe.dataset
        if settings is None:
            return None
        names = settings.flows
        if names is None:
            triplets = [name for name, plan in self.plans.items() if set(TRIPLET_COLUMNS) <= set(plan.full_columns)]
            if not settings.candidates:
                triplets = [name for name in triplets if not self.plans[name].has_candidates]
            selected = {other for name in triplets for other in self._list_origins(name)}
            names = [name for name in triplets if name not in selected]
        if settings.candidates:
            return names
        return [name for name in names if name in self.plans and not self.plans[name].has_candidates]


@dataclass(frozen=True)
class Plan:
    """All flows of a recipe, upstream first.

    Attributes:
        recipe: the recipe, without its dataset where only a part of it is planned.
        flows: name to plan.
        sources: name of the flow to its source.
        inputs: name of the flow to the number of what its source will read; None where that is unknown.
        positions: places of the recipe's values, for messages.
        dataset: the flows whose rows go into the dataset; None where there is none.
    """

    recipe: Recipe
    flows: Mapping[str, FlowPlan]
    sources: Mapping[str, Source]
    inputs: Mapping[str, int | None]
    positions: Positions
    dataset: Sequence[str] | None = None

    @property
    def left_out(self) -> list[str]:
        """Flows of triplets that are not in the dataset because they hold candidates that nobody has accepted."""
        chosen = self.recipe.dataset.flows if self.recipe.dataset else None
        return [name for name in chosen or [] if name not in (self.dataset or [])]

    @property
    def hash(self) -> str:
        """Hash of everything in the resolved recipe that can change a result, so not of how the work is done."""
        settings = self.recipe.dataset
        dataset = {"flows": list(self.dataset or []), "shard_bytes": settings.shard_bytes} if settings else None
        return hash_json([self.recipe.name, {flow.name: flow.part for flow in self.flows.values()}, dataset])

    def to_recipe(self) -> dict[str, Any]:
        """Return the recipe with every default filled in, as it would be written."""
        recipe = self.recipe.model_dump(mode="json", exclude_none=True)
        recipe["flows"] = {}
        for flow in self.flows.values():
            source, *stages = [{spec.name: dict(spec.params)} for spec in flow.stages]
            recipe["flows"][flow.name] = {"source": source, "stages": stages, "shard_rows": flow.shard_rows}
        if self.dataset is not None:
            recipe["dataset"]["flows"] = list(self.dataset)
            if not self.recipe.dataset or not self.recipe.dataset.candidates:
                del recipe["dataset"]["candidates"]  # as it was written before there was a choice
        return recipe


def plan(
    recipe: Recipe, positions: Positions, only: str | None = None, tables: Mapping[str, FlowPlan] = MappingProxyType({})
) -> Plan:
    """Resolve a recipe: stages found, parameters valid, weights and inputs there, columns fit.

    Args:
        recipe: the recipe.
        positions: places of its values.
        only: a flow, or a stage (`stage` or `flow.stage`): that flow runs only up to it, with what it needs.
        tables: flows of which the run has the tables; flows of the recipe may read them, and they stay as they are.

    Raises:
        RecipeError: all faults, a line each with its place.
    """
    recipe, names = _cut(recipe, only)
    planner = _Planner(recipe, positions, tables)
    for name in names:
        planner.plan_flow(name)
    planner.check_dataset()
    dataset = planner.choose_dataset_flows()
    if dataset == [] and not planner.faults:
        message = "no flow has triplets that somebody has accepted: results of removers are candidates"
        remedy = "select them by score, verdict or kind, or set `candidates: true`"
        planner.add_fault(("dataset",), f"{message}; {remedy}")
    if planner.faults:
        raise RecipeError("\n".join(planner.faults))
    flows = {name: flow for name, flow in planner.plans.items() if name not in tables}
    return Plan(recipe, flows, planner.sources, planner.inputs, positions, dataset)


def load_plan(file: str | Path, overrides: Overrides = (), only: str | None = None) -> Plan:
    """Load a recipe and resolve it; faults of both are reported together.

    Raises:
        RecipeError: all faults, a line each with its place.
    """
    try:
        recipe, positions = load(file, overrides)
    except FaultyRecipe as error:
        try:
            plan(error.recipe, error.positions, only)
        except RecipeError as more:
            raise RecipeError("\n".join(dict.fromkeys(f"{error}\n{more}".splitlines()))) from None
        raise
    return plan(recipe, positions, only)


def _cut(recipe: Recipe, only: str | None) -> tuple[Recipe, list[str]]:
    """Return a recipe cut after a flow or stage, and the flows that are to be made."""
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
    choices = [*recipe.flows, *(entry.name for flow in recipe.flows.values() for entry in flow.stages)]
    raise RecipeError(f"--only {only}: the recipe has no such flow or stage; {suggest(only, choices)}")
