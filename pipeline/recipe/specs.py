"""The parts of a plan: what a worker needs to run stages, and what the engine needs to run a flow."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from rasura.manifests.ids import hash_json
from rasura.manifests.schemas import Kind
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

    def make(self) -> Stage:
        """Make the stage; its parameters are validated again."""
        cls = find_stage(self.name)
        return cls(cls.Params.model_validate(self.params), self.seed)


@dataclass(frozen=True)
class Group:
    """Consecutive stages with the same resources: they run in one actor."""

    resources: Resources
    stages: tuple[StageSpec, ...]

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
        has_candidates: its rows are, or were copied from, results of removers that nobody has accepted.
    """

    name: str
    part: str
    groups: tuple[Group, ...]
    upstream: tuple[str, ...]
    columns: Mapping[str, Kind]
    full_columns: Mapping[str, Kind]
    shard_rows: int
    splits: Mapping[str, float]
    has_candidates: bool = False

    @property
    def stages(self) -> list[StageSpec]:
        """All stages, the source first."""
        return [stage for group in self.groups for stage in group.stages]


def group_stages(specs: Sequence[StageSpec]) -> tuple[Group, ...]:
    """Group consecutive stages that have the same resources."""
    groups: list[list[StageSpec]] = []
    for spec in specs:
        if groups and groups[-1][-1].resources == spec.resources:
            groups[-1].append(spec)
        else:
            groups.append([spec])
    return tuple(Group(group[0].resources, tuple(group)) for group in groups)


@lru_cache(maxsize=256)
def _compute_sha256(path: str, size: int, stamp: int) -> str:
    del size, stamp  # they are in the key so that a changed file is read again
    with Path(path).open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def file_sha256(path: Path) -> str:
    """Compute the sha256 of a file; it is read once a process while its size and time stay."""
    stat = path.stat()
    return _compute_sha256(str(path), stat.st_size, stat.st_mtime_ns)
