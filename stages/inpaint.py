"""Photos with an object mask to candidate triplets, one for each remover."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from manifests.ids import child_id, seed_for
from manifests.schemas import PICTURES, Kind, Schema
from removers import opencv
from removers.remover import NoContext, NothingToFill, Remover, remove
from stages import stage
from stages.stage import Kept, MissingColumns, Outcome, Record, Rejected, Stage

REMOVERS: dict[str, Callable[[], Remover]] = {"telea": opencv.telea, "ns": opencv.ns}
"""Removers by the name that a recipe uses."""


class InpaintParams(stage.Params):
    removers: tuple[str, ...] = Field(("telea",), min_length=1, description="Removers, each makes one candidate.")
    dilation: int = Field(8, ge=0, le=256, description="Px by which the mask grows before it is filled.")
    context: float = Field(0.75, ge=0, le=10, description="Picture around the hole that is seen, in hole sizes.")

    @field_validator("removers")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(names) - set(REMOVERS)):
            raise ValueError(f"no remover called {', '.join(unknown)}; there are {', '.join(sorted(REMOVERS))}")
        if len(set(names)) < len(names):
            raise ValueError("a remover is named twice: its candidates would have one id")
        return names


class Inpaint(Stage):
    """Removes the masked object with each remover."""

    name = "inpaint"
    needs: ClassVar[Schema] = {"source": Kind.RGB}
    gives: ClassVar[Schema] = {
        "kind": Kind.STRING,
        "target": Kind.RGB,
        "mask": Kind.MASK,
        "foreground_mask": Kind.MASK,
        "remover": Kind.STRING,
        "hole_dilation": Kind.INT,
    }
    drops: ClassVar[frozenset[str]] = frozenset({"object_mask"})
    Params = InpaintParams

    def __init__(self, params: Any, seed: int = 0) -> None:
        super().__init__(params, seed)
        self.removers = [REMOVERS[name]() for name in params.removers]

    def schema(self, given: Schema) -> Schema:
        # a photo's segmented object, or the mask of a triplet that is to be removed by a model this time
        if not {"object_mask", "mask"} & set(given):
            raise MissingColumns(self.name, ("object_mask or mask",), tuple(given))
        # the pictures of what it was made from stay where they are: `parents` leads to them
        stay = {"source", *self.gives}
        return {name: kind for name, kind in super().schema(given).items() if kind not in PICTURES or name in stay}

    def weights(self) -> Mapping[str, Path]:
        return {f"{one.name}.{key}": path for one in self.removers for key, path in one.weights().items()}

    def setup(self) -> None:
        for one in self.removers:
            one.setup()

    def process_one(self, record: Record) -> Outcome:
        params: InpaintParams = self.params
        picture, mask = record["source"], record["object_mask" if "object_mask" in record else "mask"]
        rest = {name: value for name, value in record.items() if name not in self.drops}
        children = []
        for one in self.removers:
            seed = seed_for(self.seed, f"{self.name}.{one.name}", record["id"])  # not shared between removers
            try:
                (target,) = remove(one, [picture], [mask], [seed], params.dilation, params.context)
            except NothingToFill as error:
                return Rejected("empty mask", str(error))
            except NoContext as error:
                return Rejected("mask covers the picture", str(error))
            children.append(
                rest
                | {"id": child_id(record["id"], one.name), "kind": "edited", "target": target, "mask": mask}
                | {"foreground_mask": None, "remover": one.name, "hole_dilation": params.dilation}
            )
        return Kept(children)
