"""Photos with an object mask to candidate triplets, one for each remover."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from rasura.manifests.ids import compute_seed, make_child_id
from rasura.manifests.schemas import PICTURES, Kind, Schema
from rasura.networks.memory import NetworkMemory
from rasura.removers.base import NoContext, NothingToFill, Remover, make_hole, remove
from rasura.removers.registry import ModelParams, check_removers, open_remover
from rasura.stages import stage
from rasura.stages.stage import Kept, MissingColumns, Outcome, Record, Rejected, Stage


class InpaintParams(stage.Params):
    removers: tuple[str, ...] = Field(
        ("telea",),
        min_length=1,
        description="Removers, each makes one candidate: telea, ns, of `models`, or module:Class.",
    )
    models: Mapping[str, ModelParams] = Field({}, description="Networks among them: name to its files and options.")
    dilation: int = Field(8, ge=0, le=256, description="Px by which the mask grows before it is filled.")
    context: float = Field(0.75, ge=0, le=10, description="Picture around the hole that is seen, in hole sizes.")

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
    """Removes the masked object with each remover.

    Examples:
        - inpaint:
            removers: [telea, rorem]
            models:
              rorem: {base: models/sdxl-inpainting, unet: models/rorem-unet}
    """

    name = "inpaint"
    version = "2"
    needs: ClassVar[Schema] = {"source": Kind.RGB}
    gives: ClassVar[Schema] = {
        "kind": Kind.STRING,
        "target": Kind.RGB,
        "mask": Kind.MASK,
        "foreground_mask": Kind.MASK,
        "remover": Kind.STRING,
        "hole_dilation": Kind.INT,
        "licence": Kind.STRING,
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
        children: dict[str, list[Record]] = {record["id"]: [] for record in fillable}
        pictures, masks = [record["source"] for record in fillable], [_get_mask(record) for record in fillable]
        for remover in self.removers if fillable else []:
            # a seed of its own for each remover
            seeds = [compute_seed(self.seed, f"{self.name}.{remover.name}", record["id"]) for record in fillable]
            targets = remove(remover, pictures, masks, seeds, params.dilation, params.context)
            for record, target in zip(fillable, targets, strict=True):
                children[record["id"]].append(self._make_child(remover, record, target))
        return [outcome or Kept(children[record["id"]]) for record, outcome in zip(records, outcomes, strict=True)]

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
