"""The stages of a flow as they were made for a plan, and the flows of a run as they are on disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rasura.manifests.ids import hash_json
from rasura.manifests.run_layout import read_plan
from rasura.manifests.schemas import CANDIDATE_KINDS, Kind
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.recipe.positions import KeyPath
from rasura.pipeline.recipe.schema import StageEntry
from rasura.pipeline.recipe.specs import FlowPlan, StageSpec, file_sha256
from rasura.stages.stage import Resources, Source, Stage


@dataclass(frozen=True)
class ResolvedStage:
    """A stage of a flow that was made for the plan.

    Attributes:
        entry: the stage in the recipe.
        stage: the stage itself, with its parameters and weights checked.
        path: its place in the recipe.
        inputs: of a source, the number of what it will read; None where that is unknown.
    """

    entry: StageEntry
    stage: Stage
    path: KeyPath
    inputs: int | None = None

    @property
    def params_path(self) -> KeyPath:
        """Place of its parameters."""
        return (*self.path, self.entry.name)


def find_candidate_kinds(chain: Sequence[Stage], upstream: Sequence[FlowPlan]) -> frozenset[str]:
    """Find the kinds of rows after a chain of stages that are candidates, which nobody has accepted."""
    kinds: frozenset[str] = frozenset()
    if chain[0].name == "flow":
        kinds = kinds.union(*(plan.candidate_kinds for plan in upstream))
    if isinstance(chain[0], Source):
        kinds |= chain[0].list_candidate_kinds()
    for stage in chain:
        kinds = stage.list_open_kinds(kinds)
    return kinds


def ask_for_pictures(source: Source, stages: Sequence[Stage]) -> None:
    """Have a source that can leave out pictures give them where one of the stages uses them."""
    if stages and "pictures" in source.params.model_fields_set | set(type(source.params).model_fields):
        pictures = any(stage.pictures for stage in stages)
        source.params = source.params.model_copy(update={"pictures": pictures})


def specify_stage(resolved: ResolvedStage, columns: Mapping[str, Kind], place: str) -> StageSpec:
    entry, stage = resolved.entry, resolved.stage
    resources, batch_size = stage.resources, entry.batch_size or stage.batch_size
    if entry.resources:
        resources = Resources(cpus=entry.resources.cpus, gpus=entry.resources.gpus, custom=entry.resources.custom)
    return StageSpec(
        name=entry.name,
        params=stage.params.model_dump(mode="json"),
        seed=stage.seed,
        version=stage.version,
        batch_size=batch_size,
        time_limit_s=entry.time_limit_s or stage.time_limit_s,
        resources=resources,
        columns=columns,
        weights={name: file_sha256(path) for name, path in stage.weights().items()},
        is_source=isinstance(stage, Source),
        place=place,
        # who says what a worker holds is obeyed
        memory=None if entry.resources or stage.resources != Resources() else stage.network_memory(batch_size),
    )


def replace_weights(params: Any, weights: Mapping[str, str]) -> Any:
    """Replace the paths of weights by their hashes: moving a file changes nothing."""
    if isinstance(params, Mapping):
        return [[key, replace_weights(value, weights)] for key, value in params.items()]  # their order may matter
    if isinstance(params, list | tuple):
        return [replace_weights(value, weights) for value in params]
    return f"sha256:{weights[params]}" if isinstance(params, str) and params in weights else params


def read_flow_plans(run: Store) -> dict[str, FlowPlan]:
    """Read the complete tables of a run as plans of flows that others may read and that are not made again.

    Raises:
        NoRun: there is no run.
        DamagedFile: a manifest cannot be read.
    """
    tables, description, plans = Tables(run), read_plan(run), dict[str, FlowPlan]()
    complete = set(tables.names())
    for name, flow in description.flows.items():
        if name in complete:
            table = tables.table(name)
            plans[name] = FlowPlan(
                name=name,
                part=flow.part or hash_json([record.shard for record in table.commits]),
                groups=(),
                upstream=tuple(flow.upstream),
                columns=table.schema,
                full_columns=table.full_schema,
                shard_rows=1,
                splits={},
                candidate_kinds=CANDIDATE_KINDS if "remover" in table.schema else frozenset(),
            )
    return plans
