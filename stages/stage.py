"""The contract of a stage: a declared schema, resources, `setup`, `process`. It does not know that Ray exists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from rasura.manifests.ids import seed_for
from rasura.manifests.schemas import Schema
from rasura.manifests.tables import Tables

Record = dict[str, Any]
"""One record: column name to value. Pictures are arrays as in `manifests.images`. They may be read-only."""


class Params(BaseModel):
    """What a recipe may set for a stage. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Resources(BaseModel):
    """What one worker of a stage holds while it lives, in Ray's units."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    cpus: float = 1.0
    gpus: float = 0.0
    custom: Mapping[str, float] = {}

    def __hash__(self) -> int:
        return hash((self.cpus, self.gpus, tuple(sorted(self.custom.items()))))


@dataclass(frozen=True)
class Kept:
    """The input stays, as zero or more records."""

    records: Sequence[Record]


@dataclass(frozen=True)
class Rejected:
    """A judgement against the input. `reason` is a short fixed phrase that is counted; `detail` holds the values."""

    reason: str
    detail: str = ""


Outcome = Kept | Rejected  # a fault is an exception; the engine makes it a failed row


@dataclass(frozen=True)
class MissingColumns(ValueError):
    """A stage needs columns that the ones before it do not give."""

    stage: str
    missing: tuple[str, ...]
    given: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"stage '{self.stage}' needs {', '.join(self.missing)}, but the stages before it give "
            f"{', '.join(sorted(self.given))}"
        )


class Stage:
    """Turns records into records and says what became of each.

    Subclasses set the class attributes and write `process_one`, or `process` where a batch pays.
    Whatever is random comes from `rng(record)`, so that order, batch size and worker count change nothing.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    needs: ClassVar[Schema] = {}
    gives: ClassVar[Schema] = {}
    drops: ClassVar[frozenset[str]] = frozenset()
    resources: ClassVar[Resources] = Resources()
    pictures: ClassVar[bool] = True
    """Whether it looks at pictures. A flow of stages that do not reads none and stores none."""
    batch_size: ClassVar[int] = 1
    time_limit_s: ClassVar[float] = 120.0
    """Seconds that one record may take before its worker is ended."""
    Params: ClassVar[type[Params]] = Params

    def __init__(self, params: Any, seed: int = 0) -> None:
        self.params = params
        self.seed = seed

    def schema(self, given: Schema) -> Schema:
        """Columns after this stage, from the columns before it.

        Raises:
            MissingColumns
        """
        if missing := tuple(sorted(set(self.needs) - set(given))):
            raise MissingColumns(self.name, missing, tuple(given))
        return {name: kind for name, kind in given.items() if name not in self.drops} | dict(self.gives)

    def weights(self) -> Mapping[str, Path]:
        """Files that the stage loads: name to path. Checked before the run; their sha256 goes into every row."""
        return {}

    def setup(self) -> None:
        """Loads what is needed, once a worker."""

    def process(self, records: Sequence[Record]) -> list[Outcome]:
        """Outcomes of the records, in their order. An exception fails a record (a batch is retried one by one)."""
        return [self.process_one(record) for record in records]

    def process_one(self, record: Record) -> Outcome:
        raise NotImplementedError(f"{type(self).__name__} defines neither process nor process_one")

    def rng(self, record: Record) -> np.random.Generator:
        """The record's own generator for this stage."""
        return np.random.default_rng(seed_for(self.seed, self.name, record["id"]))


def picture_column(columns: Mapping[str, Any]) -> str:
    """Column that holds the picture with the object: a pair's `input`, else `source`."""
    return "input" if "input" in columns else "source"


class Source(Stage):
    """First stage of a flow: lists items on the driver (`items`), loads them on the workers (`process`).

    An item is a small record: `id` (a content id), `origin` (where it came from), and what loading needs. When it
    is loaded it also has `content`: its id before the planner told two items of equal content apart.
    """

    tables: Tables
    """The run's tables; set by the engine before `setup`."""

    def upstream(self) -> list[str]:
        """Flows whose tables this source reads."""
        return []

    def items(self, run: Any) -> list[Record]:
        """Items in any order; two with one id are one content."""
        raise NotImplementedError

    def schema(self, given: Schema) -> Schema:
        return dict(self.gives)
