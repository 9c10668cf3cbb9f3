"""The contract of a stage: a declared schema, resources, `setup`, `process`. It does not know that Ray exists."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from rasura.manifests.errors import InputError, RecipeError
from rasura.manifests.ids import compute_seed
from rasura.manifests.schemas import Schema
from rasura.manifests.spelling import list_nearest, suggest
from rasura.manifests.tables import Tables
from rasura.networks.memory import NetworkMemory
from rasura.networks.setting_types import accepts_numbers_only, contains_bool

Record = dict[str, Any]
"""One record: column name to value. Pictures are arrays as in `manifests.images`. They may be read-only."""

ProgressCallback = Callable[[float, float, str], None]
"""Receives `done`, `total` and a note, see `Stage.report_progress`."""


class InvalidValues(InputError):
    """Values that a class of the contract cannot have. The text names each of them."""


class CheckedModel(BaseModel):
    """A model whose call raises one sentence that names the class, in place of pydantic's list of errors."""

    if not TYPE_CHECKING:

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise InvalidValues(_describe_values(type(self), error)) from error

        __init__.__pydantic_base_init__ = True  # pydantic's own, except for the error


def _describe_values(cls: type[BaseModel], error: ValidationError) -> str:
    lines = []
    for fault in error.errors():
        name = ".".join(map(str, fault["loc"]))
        message = str(fault["msg"]).removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            message = f"there is no '{name}'; {suggest(name, cls.model_fields)}"
        lines.append(f"{cls.__name__}({name}={fault['input']!r:.60}): {message[:1].lower()}{message[1:]}")
    return "; ".join(lines)


class Params(CheckedModel):
    """Parameters that a recipe may set for a stage: one pydantic field each. Unknown keys are errors.

    Examples:
        >>> from pydantic import Field
        >>> class BlurParams(Params):
        ...     radius: int = Field(3, ge=1, description="px of the picture")
        >>> BlurParams.model_validate({"radius": 5}).radius
        5
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    former_names: ClassVar[Mapping[str, str]] = {}
    """Keys that were renamed: the present name to the former one.

    A recipe may still use the former name and is warned once a key. The hash of a flow uses the former name, so that a
    run that was begun before the renaming goes on without making anything again.

    Examples:
        >>> class CropParams(Params):
        ...     former_names = {"margin": "border"}
        ...     margin: int = 16
    """

    former_values: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    """Values that were renamed: a key to its present values, each with its former one. They are handled alike."""

    @field_validator("*", mode="before")
    @classmethod
    def _check_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false for a number, as which pydantic would read them as 1 and 0."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if contains_bool(value) and accepts_numbers_only(annotation):
            raise ValueError("expected a number")
        return value

    @model_validator(mode="after")
    def _check_limits(self) -> "Params":
        """Refuse a lower limit, `min` or `min_…`, above the upper limit of the same name."""
        for name in type(self).model_fields:
            if name == "min" or name.startswith("min_"):
                low, high = getattr(self, name), getattr(self, f"max{name[3:]}", None)
                if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
                    raise ValueError(f"{name} is {low:g}, which is more than max{name[3:]}, {high:g}")
        return self


class Resources(CheckedModel):
    """Resources that one worker of a stage holds as long as it exists, in Ray's units.

    Attributes:
        cpus: processor cores; a share is allowed.
        gpus: GPUs; with 0.5 two workers share one.
        custom: resources that the cluster's administrator has named, with their amounts.

    Examples:
        >>> Resources(gpus=0.5)
        Resources(cpus=1.0, gpus=0.5, custom={})
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    cpus: float = Field(1.0, ge=0)
    gpus: float = Field(0.0, ge=0)
    custom: Mapping[str, Annotated[float, Field(ge=0)]] = {}

    def __hash__(self) -> int:
        return hash((self.cpus, self.gpus, tuple(sorted(self.custom.items()))))


@dataclass(frozen=True)
class Kept:
    """Outcome of an input that stays, as one or several records. Without any, it is rejected as `no output`.

    Args:
        records: the outputs. A column that a record does not mention is passed on from the input. Several records
            need an id each, `manifests.ids.make_child_id(record["id"], name)`.
        errors: of outputs that could not be made while others were. An input without any output fails with the first.

    Examples:
        >>> Kept([{"id": "1a", "sharpness": 212.5}]).records[0]["sharpness"]
        212.5
    """

    records: Sequence[Record]
    errors: Sequence[Exception] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.records, Sequence) or not all(isinstance(entry, Mapping) for entry in self.records):
            raise InvalidValues(f"Kept({self.records!r:.60}): give a list of records, such as Kept([record])")


@dataclass(frozen=True)
class Rejected:
    """Outcome of an input that a stage judged to be unfit. It is counted by reason.

    Args:
        reason: a short fixed phrase, so that the number of different reasons stays small.
        detail: the values that led to it.

    Examples:
        >>> Rejected("mask too small", f"{0.00012:.2g} of the picture")
        Rejected(reason='mask too small', detail='0.00012 of the picture')
    """

    reason: str
    detail: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.reason, str) or not self.reason.strip():
            raise InvalidValues(f"Rejected({self.reason!r:.60}): give a reason, a short phrase such as 'too dark'")


Outcome = Kept | Rejected  # a fault is an exception; the engine makes it a failed row


@dataclass(frozen=True)
class MissingColumns(RecipeError):
    """A stage needs columns that none of the stages before it gives.

    Args:
        stage: name of the stage.
        missing: the columns that it needs and does not get.
        available: the columns that it gets.
    """

    stage: str
    missing: tuple[str, ...]
    available: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"stage '{self.stage}' needs {', '.join(self.missing)}, but the stages before it give "
            f"{list_nearest(self.missing[0], self.available)}"
        )


@dataclass(frozen=True)
class UnfitParameter(RecipeError):
    """A parameter does not fit the columns that its stage gets.

    Args:
        path: the keys that lead to the parameter.
        message: why it does not fit.
    """

    path: tuple[str | int, ...]
    message: str

    def __str__(self) -> str:
        return self.message


class Stage:
    """A step that turns each record into none, one or several records and gives an outcome for each input.

    A subclass sets the class attributes and defines `process_one`, or `process` where working on a batch is faster.
    Random numbers come from `rng(record)`, so that order, batch size and number of workers change nothing.

    Args:
        params: an instance of the class's `Params`.
        seed: the recipe's seed.

    Examples:
        >>> from rasura.manifests.schemas import Kind
        >>> class Brightness(Stage):
        ...     name = "brightness"
        ...     needs = {"source": Kind.RGB}
        ...     gives = {"brightness": Kind.FLOAT}
        ...     def process_one(self, record: Record) -> Outcome:
        ...         return Kept([{**record, "brightness": float(record["source"].mean())}])
        >>> Brightness(Params()).process([{"id": "1a", "source": np.full((2, 2, 3), 128, np.uint8)}])[0].records[0][
        ...     "brightness"
        ... ]
        128.0
    """

    name: ClassVar[str]
    """The name that a recipe uses."""
    version: ClassVar[str] = "1"
    """To be raised when the same input gives another output: rows of older versions are made again."""
    needs: ClassVar[Schema] = {}
    """Columns that the input must have."""
    gives: ClassVar[Schema] = {}
    """Columns that the stage adds or replaces."""
    drops: ClassVar[frozenset[str]] = frozenset()
    """Columns of the input that are not passed on."""
    resources: ClassVar[Resources] = Resources()
    pictures: ClassVar[bool] = True
    """Whether the stage reads pictures. A flow whose stages do not reads none and stores none."""
    candidate_kind: ClassVar[str | None] = None
    """Kind of its rows where it makes candidates: one of `manifests.schemas.CANDIDATE_KINDS`."""
    batch_size: ClassVar[int] = 1
    time_limit_s: ClassVar[float] = 120.0
    """Seconds that one record may take before its worker is ended."""
    Params: ClassVar[type[Params]] = Params
    on_progress: ProgressCallback | None = None
    """Set by the worker that runs the stage; called by `report_progress`."""

    def __init__(self, params: Any, seed: int = 0) -> None:
        self.params = params
        self.seed = seed

    def schema(self, columns: Schema) -> Schema:
        """Return the columns after this stage, from the columns before it.

        Raises:
            MissingColumns: `columns` lacks one that the stage needs.
        """
        if missing := tuple(sorted(set(self.needs) - set(columns))):
            raise MissingColumns(self.name, missing, tuple(columns))
        return {name: kind for name, kind in columns.items() if name not in self.drops} | dict(self.gives)

    def list_open_kinds(self, kinds: frozenset[str]) -> frozenset[str]:
        """Return which of its input's kinds of candidates it keeps unaccepted, neither by a person nor by a score."""
        return kinds if self.candidate_kind is None else frozenset({self.candidate_kind})

    def weights(self) -> Mapping[str, Path]:
        """Return the files that the stage loads: name to path.

        They are checked before the run starts; their sha256 is written into every row.
        """
        return {}

    def network_memory(self, batch_size: int) -> NetworkMemory | None:
        """Return the memory that its networks need, by which the engine places its workers; None where it has none."""
        return None

    def required_modules(self) -> Sequence[str]:
        """Return the modules that the stage imports beyond what Rasura itself requires.

        They are checked before the run starts. Files of torch's tensors among `weights` need not be mentioned.
        """
        return ()

    def setup(self) -> None:
        """Load what the stage needs, once a worker."""

    def process(self, records: Sequence[Record]) -> list[Outcome]:
        """Return the outcomes of the records, in their order.

        An exception fails a record: a batch that raises is repeated record by record.
        """
        return [self.process_one(record) for record in records]

    def process_one(self, record: Record) -> Outcome:
        """Return the outcome of one record. An exception makes it a failed row with the error's text."""
        raise NotImplementedError(f"{type(self).__name__} defines neither process nor process_one")

    def rng(self, record: Record) -> np.random.Generator:
        """Return the record's own random generator for this stage."""
        return np.random.default_rng(compute_seed(self.seed, self.name, record["id"]))

    def report_progress(self, done: float, total: float, note: str = "") -> None:
        """Report how far the stage is inside a record that takes long, such as the training of a network.

        The engine shows the latest report on the run's progress line. Outside of the engine nothing happens. It costs
        little, so that a stage may call it at every step.

        Args:
            done: work that is done, in any unit.
            total: the whole work of this record, in the same unit.
            note: a few words to show beside it, for example the loss.

        Examples:
            >>> stage = Stage(Params())
            >>> stage.on_progress = print
            >>> stage.report_progress(10, 200, "loss 0.31")
            10 200 loss 0.31
        """
        if self.on_progress is not None:
            self.on_progress(done, total, note)


def get_picture_column(columns: Mapping[str, Any]) -> str:
    """Return the column that holds the picture with the object: a pair's `input`, else `source`.

    Examples:
        >>> get_picture_column({"input": "rgb", "gt": "rgb"}), get_picture_column({"source": "rgb"})
        ('input', 'source')
    """
    return "input" if "input" in columns else "source"


class Source(Stage):
    """First stage of a flow: lists items (`items`) and loads them on the workers (`process`).

    An item is a small record: `id` (a content id), `origin` (where it came from), and what loading needs. When it
    is loaded it also has `content`: its id before the planner gave two items of equal content different ids.

    Examples:
        >>> class Greys(Source):
        ...     name = "greys"
        ...     def items(self, run: Any) -> list[Record]:
        ...         return [{"id": f"{level:02x}", "origin": "greys", "level": level} for level in (0, 128)]
        ...     def process_one(self, record: Record) -> Outcome:
        ...         return Kept([{**record, "source": np.full((8, 8, 3), record["level"], np.uint8)}])
    """

    input_paths: ClassVar[Sequence[str]] = ()
    """Parameters that name a file, a folder or a glob to be read. They are checked before the run starts."""
    input_noun: str = "file"
    """Noun for one of what `list_inputs` lists."""
    gives_references: ClassVar[bool] = False
    """Whether its rows come from another flow and say where (`manifests.tables.REFERENCE`)."""
    tables: Tables
    """The run's tables; set by the engine before `setup`."""
    columns: Sequence[str] | None = None
    """The columns that its rows may have; all where None. Set by the engine before `setup`."""

    @property
    def references(self) -> bool:
        """Whether its rows are to have the columns of a reference (`manifests.tables.REFERENCE`)."""
        return "ref_table" in (self.columns or ())

    def referenced_columns(self) -> Schema:
        """Return the columns of rows in other runs that this source's rows refer to."""
        return {}

    def upstream(self) -> list[str]:
        """Return the names of the flows whose tables this source reads."""
        return []

    def required_columns(self) -> Mapping[str, Sequence[str]]:
        """Return the columns that the flows of `upstream` must have. They are checked before the run starts."""
        return {}

    def list_inputs(self) -> Sequence[Any] | None:
        """List the files, or the like, that `items` will read, before the run starts; None where that is unknown."""
        return None

    def survey_inputs(self, run: Any) -> tuple[str, int]:
        """Return the identity of what `items` depends on (a run lists anew where it is another, or ""), and a count."""
        return "", 0

    def list_candidate_kinds(self) -> frozenset[str]:
        """Return the kinds of candidates among its rows, which a dataset leaves out; asked before the run starts."""
        return self.list_open_kinds(frozenset())

    def items(self, run: Any) -> list[Record]:
        """Return the items in any order; two with one id have the same content. Their values are those of JSON."""
        raise NotImplementedError(f"{type(self).__name__} does not define items")

    def schema(self, columns: Schema) -> Schema:
        """Return the columns that the source gives; there are none before it."""
        return dict(self.gives)
