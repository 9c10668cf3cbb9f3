"""The parts of a plan: what a worker needs to run stages, and what the engine needs to run a flow."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from rasura.manifests.ids import hash_json
from rasura.manifests.schemas import Kind
from rasura.networks.memory import NetworkMemory
from rasura.stages.registry import find_stage
from rasura.stages.stage import Record, Resources, Stage


@dataclass(frozen=True)
class StageSpec:
    """Everything that a worker needs to make a stage.

    Attributes:
        name: of the stage, as in the recipe.
        params: all its parameters, as JSON values.
        seed: of the recipe.
        version: of the stage.
        batch_size, time_limit_s, resources: how it is executed.
        columns: the columns after the stage.
        weights: name to sha256 of the files that it loads.
        is_source: it is the first of its flow.
        place: where the recipe names it, for messages.
        memory: what its networks need; None where it holds none, or the recipe says what a worker holds.
    """

    name: str
    params: Mapping[str, Any]
    seed: int
    version: str
    batch_size: int
    time_limit_s: float
    resources: Resources
    columns: Mapping[str, Kind]
    weights: Mapping[str, str] = field(default_factory=dict)
    is_source: bool = False
    place: str = ""
    memory: NetworkMemory | None = None

    def make(self) -> Stage:
        """Make the stage; its parameters are validated again."""
        cls = find_stage(self.name)
        return cls(cls.Params.model_validate(self.params), self.seed)


@dataclass(frozen=True)
class Demand:
    """What one worker of a pool asks for.

    Attributes:
        resources: as the recipe or the stage has them.
        memory: of networks whose workers the engine places; None where `resources` is all that counts.
        key: identity of the stages of such a network, by which a card's own figure is remembered.
    """

    resources: Resources = field(default_factory=Resources)
    memory: NetworkMemory | None = None
    key: str = ""


@dataclass(frozen=True)
class Group:
    """Consecutive stages that run in one actor: all ask for the same resources, or one holds networks."""

    demand: Demand
    stages: tuple[StageSpec, ...]

    @property
    def name(self) -> str:
        """The stages' names, for messages; the group that only writes has none."""
        return ", ".join(spec.name for spec in self.stages) or "write"

    @property
    def key(self) -> str:
        """Identity of what a worker has to set up."""
        return hash_json([[s.name, dict(s.params), s.seed, s.version, dict(s.weights)] for s in self.stages])


@dataclass(frozen=True)
class Shard:
    """A unit of work: some of a source's items."""

    id: str
    items: Sequence[Record]


@dataclass(frozen=True)
class FlowPlan:
    """One flow, resolved.

    Attributes:
        name: of the flow.
        part: hash of the part of the recipe that makes it, upstream flows included.
        groups: its stages, the source first.
        upstream: the flows that it reads.
        columns: of its table.
        full_columns: of its rows with references followed.
        shard_rows: inputs a shard.
        splits: name to share.
        candidate_kinds: kinds of its rows that are results of models, or copies of them, which nobody has accepted.
    """

    name: str
    part: str
    groups: tuple[Group, ...]
    upstream: tuple[str, ...]
    columns: Mapping[str, Kind]
    full_columns: Mapping[str, Kind]
    shard_rows: int
    splits: Mapping[str, float]
    candidate_kinds: frozenset[str] = frozenset()

    @property
    def has_candidates(self) -> bool:
        """Whether some of its rows are candidates."""
        return bool(self.candidate_kinds)

    @property
    def stages(self) -> list[StageSpec]:
        """All stages, the source first."""
        return [stage for group in self.groups for stage in group.stages]


def group_stages(specs: Sequence[StageSpec]) -> tuple[Group, ...]:
    """Group consecutive stages that ask for the same resources; one that holds networks is a group of its own."""
    groups: list[Group] = []
    for spec in specs:
        key = hash_json([spec.name, dict(spec.params), spec.batch_size, dict(spec.weights)]) if spec.memory else ""
        groups.append(Group(Demand(spec.resources, spec.memory, key), (spec,)))
    return merge_groups(groups)


def merge_groups(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Merge consecutive groups that ask for the same, without networks that the engine places: one actor runs them."""
    merged: list[Group] = []
    for group in groups:
        if merged and merged[-1].demand == group.demand and group.demand.memory is None:
            merged[-1] = Group(group.demand, merged[-1].stages + group.stages)
        else:
            merged.append(group)
    return tuple(merged)


@lru_cache(maxsize=256)
def _compute_sha256(path: str, size: int, stamp: int) -> str:
    del size, stamp  # they are in the key so that a changed file is read again
    with Path(path).open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def file_sha256(path: Path) -> str:
    """Compute the sha256 of a file; it is read once a process while its size and time stay."""
    stat = path.stat()
    return _compute_sha256(str(path), stat.st_size, stat.st_mtime_ns)
