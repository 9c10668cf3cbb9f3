"""Photos with an object mask to candidate triplets, one for each remover."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator, model_validator

from rasura.manifests.errors import RunError, StorageError
from rasura.manifests.ids import compute_seed, make_child_id
from rasura.manifests.safety.text import escape_controls
from rasura.manifests.schemas import PICTURES, Kind, Schema
from rasura.networks.batches import is_out_of_memory
from rasura.networks.memory import NetworkMemory
from rasura.removers.base import NoContext, NothingToFill, Remover, make_hole, remove
from rasura.removers.registry import ModelParams, check_entries, check_removers, open_remover
from rasura.stages import stage
from rasura.stages.stage import Kept, MissingColumns, Outcome, Record, Rejected, Stage

LONGEST_ERROR = 200
"""Characters of a remover's error in `failed_removers`."""


class InpaintParams(stage.Params):
    removers: tuple[str, ...] = Field(
        ("telea",),
        min_length=1,
        description="Removers, each makes one candidate: telea, ns, of `models`, or module:Class.",
    )
    models: Mapping[str, ModelParams] = Field({}, description="Networks among them: name to its files and options.")
    dilation: int = Field(8, ge=0, le=256, description="Px by which the mask grows before it is filled.")
    context: float = Field(0.75, ge=0, le=10, description="Picture around the hole that is seen, in hole sizes.")

    @field_validator("removers", mode="before")
    @classmethod
    def _check_entries(cls, value: Any) -> Any:
        return check_entries(value)

    @model_validator(mode="after")
    def _check_removers(self) -> "InpaintParams":
        check_removers(self.removers, self.models)
        return self


class RemoverStage(Stage):
    """A stage that runs removers or inserters: their weights, their memory, and how they are loaded."""

    removers: Sequence[Remover]

    def check_names(self) -> None:
        """Check that no two have one name, and that their files are there: what is missing is reported early.

        Raises:
            ValueError: two have one name.
            BadWeights: a file is missing.
        """
        names = [remover.name for remover in self.removers]
        if len(set(names)) < len(names):
            raise ValueError(
                f"two removers have one name ({', '.join(sorted(names))}): their candidates would have one id"
            )
        self.weights()

    def weights(self) -> Mapping[str, Path]:
        return {f"{remover.name}.{key}": path for remover in self.removers for key, path in remover.weights().items()}

    def network_memory(self, batch_size: int) -> NetworkMemory | None:
        memories = [memory for remover in self.removers if (memory := remover.capability.memory)]
        return sum(memories[1:], start=memories[0]) if memories else None

    def setup(self) -> None:
        for remover in self.removers:
            remover.setup()


class Inpaint(RemoverStage):
    """Removes the masked object with each remover. A picture on which some fail keeps the candidates of the others.

    Examples:
        - inpaint:
            removers: [telea, rorem]
            models:
              rorem: {base: models/sdxl-inpainting, unet: models/rorem-unet}
    """

    name = "inpaint"
    version = "3"
    needs: ClassVar[Schema] = {"source": Kind.RGB}
    gives: ClassVar[Schema] = {
        "kind": Kind.STRING,
        "target": Kind.RGB,
        "mask": Kind.MASK,
        "foreground_mask": Kind.MASK,
        "remover": Kind.STRING,
        "hole_dilation": Kind.INT,
        "licence": Kind.STRING,
        "failed_removers": Kind.VERSIONS,
    }
    drops: ClassVar[frozenset[str]] = frozenset({"object_mask"})
    candidate_kind = "edited"
    batch_size = 8
    time_limit_s = 300.0
    Params = InpaintParams

    def __init__(self, params: Any, seed: int = 0) -> None:
        super().__init__(params, seed)
        self.removers = [open_remover(name, params.models) for name in params.removers]
        self.check_names()

    def schema(self, columns: Schema) -> Schema:
        # a photo's segmented object, or the mask of a triplet that is to be removed by a model this time
        if not {"object_mask", "mask"} & set(columns):
            raise MissingColumns(self.name, ("object_mask or mask",), tuple(columns))
        # the pictures of what it was made from stay where they are: `parents` leads to them
        stay = {"source", *self.gives}
        return {name: kind for name, kind in super().schema(columns).items() if kind not in PICTURES or name in stay}

    def process(self, records: Sequence[Record]) -> list[Outcome]:
        """Run each remover on all records at once: a network runs on batches."""
        params: InpaintParams = self.params
        outcomes: list[Outcome | None] = [check_mask(_get_mask(record), params.dilation) for record in records]
        fillable = [record for record, outcome in zip(records, outcomes, strict=True) if outcome is None]
        targets = {remover.name: self._fill(remover, fillable) for remover in self.removers if fillable}
        kept = iter([self._collect(record, index, targets) for index, record in enumerate(fillable)])
        return [outcome or next(kept) for outcome in outcomes]

    def _fill(self, remover: Remover, records: Sequence[Record]) -> list[Any]:
        """Fill the holes of records, together or, where that fails, each alone; an error in place of a failed one."""
        params: InpaintParams = self.params
        pictures, masks = [record["source"] for record in records], [_get_mask(record) for record in records]
        # a seed of its own for each remover
        seeds = [compute_seed(self.seed, f"{self.name}.{remover.name}", record["id"]) for record in records]
        try:
            return remove(remover, pictures, masks, seeds, params.dilation, params.context)
        except Exception as error:
            if len(records) == 1:
                return [error]
            if isinstance(error, (OSError, RunError, StorageError, ImportError)) or is_out_of_memory(error):
                raise  # most likely no picture is to blame
            return [result for record in records for result in self._fill(remover, [record])]

    def _collect(self, record: Record, index: int, targets: Mapping[str, Sequence[Any]]) -> Kept:
        """Collect a record's candidates, each with the errors of the removers that made none."""
        results = {remover: targets[remover.name][index] for remover in self.removers}
        errors = {remover.name: result for remover, result in results.items() if isinstance(result, Exception)}
        texts = {
            name: f"{type(error).__name__}: {escape_controls(error)}"[:LONGEST_ERROR] for name, error in errors.items()
        }
        children = [
            self._make_child(remover, record, target) | {"failed_removers": texts or None}
            for remover, target in results.items()
            if remover.name not in errors
        ]
        return Kept(children, list(errors.values()))

    def _make_child(self, remover: Remover, record: Record, target: Any) -> Record:
        rest = {name: value for name, value in record.items() if name not in self.drops}
        mask, foreground = _get_mask(record), None
        if remover.capability.effects:  # the pixels that it changed are its estimate of the object and its effects
            foreground = mask | np.any(target != record["source"], axis=2)
        return (
            rest
            | {"id": make_child_id(record["id"], remover.name), "kind": "edited", "target": target, "mask": mask}
            | {"foreground_mask": foreground, "remover": remover.name, "hole_dilation": self.params.dilation}
            | {"licence": describe_licence(record.get("licence"), remover)}
        )


def check_mask(mask: Any, dilation: int) -> Rejected | None:
    """Return a rejection where a mask, grown by `dilation` px, cannot be filled, else None."""
    try:
        make_hole(mask, dilation)
    except NothingToFill as error:
        return Rejected("empty mask", str(error))
    except NoContext as error:
        return Rejected("mask covers the picture", str(error))
    return None


def describe_licence(licence: str | None, remover: Remover) -> str | None:
    """Return the licence of what a remover made of a photo: non-commercial weights hold for their output."""
    if not remover.capability.non_commercial:
        return licence
    return f"{licence or 'unknown'}; made with {remover.name}: {remover.capability.licence}"


def _get_mask(record: Record) -> Any:
    mask = record.get("object_mask")  # rows of several runs may have the one or the other
    return record["mask"] if mask is None else mask
