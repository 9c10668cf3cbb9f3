"""The recipe of a run as pydantic models: flows of stages, the dataset that they make, and how the work is done."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, field_validator, model_validator

from rasura.annotator.store.policy import Policy
from rasura.manifests.ids import find_equal_splits
from rasura.manifests.spelling import suggest
from rasura.pipeline.recipe.positions import KeyPath
from rasura.stages.stage import Params

MOST_LETTERS = 100
NAME = rf"^[A-Za-z0-9][A-Za-z0-9_-]{{0,{MOST_LETTERS - 1}}}$"
"""Pattern of the name of a recipe or a flow, which becomes the name of a folder."""

EXECUTION_KEYS = ("resources", "batch_size", "time_limit_s")
"""Keys of a stage in a recipe that say how it is executed; all others are its parameters."""


class RecipeModel(Params):
    """A part of a recipe. Unknown keys are errors; former names of keys are accepted.

    The recipe reader warns of former names (`pipeline.recipe.former_names`). The model accepts them silently, so that
    recipes that an older version has written into a run or a loop can still be read.
    """

    former_values: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    """Values that were renamed, by key: the present value to the former one."""

    @model_validator(mode="before")
    @classmethod
    def _accept_former_names(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        value = dict(value)
        for name, former in cls.former_names.items():
            if former in value and name not in value:
                value[name] = value.pop(former)
        for name, values in cls.former_values.items():
            present = {former: new for new, former in values.items()}
            if isinstance(value.get(name), str):
                value[name] = present.get(value[name], value[name])
        return value


class RootModel(RecipeModel):
    """A whole recipe."""

    distinctive_key: ClassVar[str]
    """The key that recipes of this kind have and those of the other kind do not."""
    command: ClassVar[str]
    """The command that takes such a recipe."""

    name: str = Field(pattern=NAME, description="Name of the recipe; the default output folder is named after it.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of everything that is random.")
    vars: dict[str, str] = Field(default_factory=dict, description="Texts that `${name}` stands for in all values.")

    def find_faults(self) -> Iterator[tuple[KeyPath, str]]:
        """Yield the faults that concern more than one value, each with its place."""
        yield from ()


class StageResources(RecipeModel):
    """Resources that one worker of a stage holds, in Ray's units."""

    cpus: float = Field(1.0, ge=0)
    gpus: float = Field(0.0, ge=0)
    custom: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)


class StageEntry(RecipeModel):
    """A stage or source in a recipe: its name, its parameters, and how it is executed."""

    name: str
    params: dict[str, Any] = Field(default_factory=dict)
    resources: StageResources | None = None
    batch_size: int | None = Field(None, ge=1)
    time_limit_s: float | None = Field(None, gt=0)


def parse_entry(value: Any) -> dict[str, Any]:
    """Convert `name` or `{name: {parameters}}` into the fields of a StageEntry.

    Raises:
        ValueError: it is neither.

    Examples:
        >>> parse_entry("effects")
        {'name': 'effects'}
        >>> parse_entry({"detect": {"weights": "net.onnx", "batch_size": 4}})
        {'name': 'detect', 'params': {'weights': 'net.onnx'}, 'batch_size': 4}
    """
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping) or not value:
        raise ValueError("expected a name, or a name with its parameters, such as 'effects: {sigmas: 4}'")
    if len(value) > 1:
        raise ValueError(
            f"one entry has the keys {', '.join(map(str, value))}: begin each stage with a dash, and write its "
            "parameters below its name, indented further"
        )
    ((name, body),) = value.items()
    if not isinstance(name, str):
        raise ValueError(f"expected a name, not {name}")
    if body is not None and not isinstance(body, Mapping):
        raise ValueError(
            f"'{name}' is followed by {body!r}; expected its parameters, such as '{name}: {{batch_size: 4}}'"
        )
    body = body or {}
    execution = {key: body[key] for key in EXECUTION_KEYS if key in body}
    params = {key: entry for key, entry in body.items() if key not in EXECUTION_KEYS}
    return {"name": name, "params": params, **execution}


Entry = Annotated[StageEntry, BeforeValidator(parse_entry)]
"""A stage as a recipe writes it: `name`, or `{name: {parameters}}`."""


class Flow(RecipeModel):
    """A chain: a source and the stages that its records pass through."""

    source: Entry
    stages: list[Entry] = Field(default_factory=list)
    shard_rows: int | None = Field(None, ge=1, description="Inputs a shard; the engine's where null.")
    references: bool = Field(
        False,
        description="Store no pictures, which the stages may read but not change: rows refer to the flow that is read.",
    )

    @field_validator("stages", mode="before")
    @classmethod
    def _accept_none(cls, value: Any) -> Any:
        return [] if value is None else value


class DatasetSettings(RecipeModel):
    """The dataset that the run writes in the end: the triplets of some flows."""

    flows: list[str] | None = Field(
        None, min_length=1, description="Flows whose rows are triplets; by default all that end in triplets."
    )
    candidates: bool = Field(False, description="Take in results of removers that nobody has accepted.")
    shard_bytes: int = Field(500_000_000, ge=1_000_000, description="Size of the largest data file.")


class EngineSettings(RecipeModel):
    """Settings of the engine. They change no byte of the dataset."""

    shard_rows: int = Field(16, ge=1, description="Inputs a shard.")
    workers: int | None = Field(None, ge=1, le=4096, description="CPU workers; one a core where null.")
    queue: int = Field(2, ge=1, le=1024, description="Shards handed to a worker at a time.")
    tries: int = Field(3, ge=1, description="Times that a record may end its worker before it is failed.")
    patience_s: float = Field(
        60,
        ge=0,
        le=86_400,
        description="Seconds for which a shard is tried again after a fault of the surroundings, such as a disk that "
        "is full or a server that is away; then it stays uncommitted and the run ends with exit status 1.",
    )
    max_failed: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of a flow's inputs that may fail, and at least 20, before the run stops.",
    )
    gpu_memory_gb: float | None = Field(
        None, gt=0, le=10_000, description="GB of each GPU that the run may use; what the cards have where null."
    )
    object_store_mb: int = Field(1024, ge=80, le=2**24, description="Ray's shared memory on one machine.")


class Recipe(RootModel):
    """The recipe of a run."""

    distinctive_key: ClassVar[str] = "flows"
    command: ClassVar[str] = "rasura run"

    splits: dict[str, float] = Field(default_factory=lambda: {"test": 0.1, "train": 0.9})
    flows: dict[str, Flow] = Field(min_length=1)
    dataset: DatasetSettings | None = None
    engine: EngineSettings = EngineSettings()
    review: Policy | None = Field(None, description="How people judge the run's candidates.")

    @field_validator("flows")
    @classmethod
    def _check_names(cls, value: dict[str, Flow]) -> dict[str, Flow]:
        if invalid := [name for name in value if not re.fullmatch(NAME, name)]:
            raise ValueError(f"flow '{invalid[0]}': letters, digits, _ and - only, {MOST_LETTERS} at most")
        return value

    @field_validator("splits")
    @classmethod
    def _check_shares(cls, value: dict[str, float]) -> dict[str, float]:
        if invalid := [name for name in value if not re.fullmatch(r"\w+", name)]:
            raise ValueError(f"split '{invalid[0]}': letters, digits and _ only")
        if equal := find_equal_splits(value):
            raise ValueError(f"splits '{equal[0]}' and '{equal[1]}' differ in their letters' case only")
        if negative := [name for name, share in value.items() if share < 0]:
            raise ValueError(f"split '{negative[0]}': a share cannot be negative (it is {value[negative[0]]:g})")
        if not value or abs(sum(value.values()) - 1) > 1e-9:
            raise ValueError(f"the shares must be positive and sum to 1, they sum to {sum(value.values()):g}")
        return value

    def find_faults(self) -> Iterator[tuple[KeyPath, str]]:
        """Yield a fault for every flow of the dataset that the recipe does not have."""
        for index, name in enumerate((self.dataset.flows or []) if self.dataset else []):
            if name not in self.flows:
                yield ("dataset", "flows", index), f"there is no flow '{name}'; {suggest(name, self.flows)}"
