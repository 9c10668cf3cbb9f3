"""Photos with an object mask to candidate triplets, one for each remover."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from rasura.manifests.ids import child_id, seed_for
from rasura.manifests.schemas import PICTURES, Kind, Schema
from rasura.networks.weights import Reference, Revision, resolve
from rasura.removers import objectclear, opencv, rorem
from rasura.removers.base import NoContext, NothingToFill, Remover, hole_of, remove
from rasura.removers.sdxl import Files, Options, Sdxl
from rasura.stages import stage
from rasura.stages.stage import Kept, MissingColumns, Outcome, Record, Rejected, Stage

REMOVERS: dict[str, Callable[[], Remover]] = {"telea": opencv.telea, "ns": opencv.ns}
"""Removers that need no weights, by the name that a recipe uses."""

MODELS: dict[str, tuple[Callable[[str, Files, Options], Sdxl], Options]] = {
    "sdxl-inpaint": (rorem.sdxl_inpaint, rorem.SDXL_OPTIONS),
    "rorem": (rorem.rorem, rorem.ROREM_OPTIONS),
    "rorem-lcm": (rorem.rorem_lcm, rorem.LCM_OPTIONS),
    "objectclear": (objectclear.objectclear, objectclear.OPTIONS),
}
"""Kinds of removers that need weights, and the options they start from."""

HUB_FILES = ("*.json", "*.txt", "*.fp16.safetensors")


class ModelParams(stage.Params):
    """Where a network lies and how it is run; what is not given is as its authors run it."""

    kind: Literal["sdxl-inpaint", "rorem", "rorem-lcm", "objectclear"] | None = Field(
        None, description="What it is, where its name here is another. objectclear is licensed for non-commercial use."
    )
    base: Reference = Field(description="Folder in diffusers' layout, or with `revision` a model of the hub.")
    revision: Revision | None = Field(None, description="Commit of `base` on the hub.")
    unet: Reference | None = Field(None, description="Folder of a UNet in place of the base's: RORem's, or one's own.")
    unet_revision: Revision | None = Field(None, description="Commit of `unet` on the hub.")
    vae: Reference | None = Field(None, description="Folder of a VAE in place of the base's.")
    lora: Reference | None = Field(None, description="File of a LoRA that is folded into the UNet.")
    prompts: Reference | None = Field(None, description="File of prompt embeddings in place of the text encoders.")
    size: int | None = Field(None, ge=64, le=4096, multiple_of=16, description="Side at which the network works, px.")
    steps: int | None = Field(None, ge=1, le=1000, description="Steps, all of which are run.")
    guidance: float | None = Field(None, ge=0, le=30, description="Classifier-free guidance; 1 is none.")
    prompt: str | None = None
    negative: str | None = None
    start: Literal["noise", "prefill"] | None = Field(None, description="Pure noise, or a hole filled from its rim.")
    source: Literal["masked", "whole"] | None = Field(None, description="Whether the network sees the object.")
    batch: int | None = Field(None, ge=1, le=256, description="Pictures in one run of the network.")
    device: str | None = Field(None, pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    compile: bool | None = Field(None, description="Let torch compile the UNet.")

    def files(self) -> Files:
        """The same on this machine."""
        base = resolve(self.base, self.revision, HUB_FILES)
        unet = resolve(self.unet, self.unet_revision, HUB_FILES) if self.unet else None
        vae, lora, prompts = (resolve(name) if name else None for name in (self.vae, self.lora, self.prompts))
        return Files(base, unet, vae, lora, prompts)

    def options(self, defaults: Options) -> Options:
        """The kind's options with what is given here."""
        given = {name: getattr(self, name) for name in Options.__dataclass_fields__ if name in ModelParams.model_fields}
        return replace(defaults, **{name: value for name, value in given.items() if value is not None})


class InpaintParams(stage.Params):
    removers: tuple[str, ...] = Field(("telea",), min_length=1, description="Removers, each makes one candidate.")
    models: Mapping[str, ModelParams] = Field(
        {}, description="Networks among them: name to `base`, `kind` (sdxl-inpaint, rorem, rorem-lcm, objectclear), …"
    )
    dilation: int = Field(8, ge=0, le=256, description="Px by which the mask grows before it is filled.")
    context: float = Field(0.75, ge=0, le=10, description="Picture around the hole that is seen, in hole sizes.")

    @model_validator(mode="after")
    def _known(self) -> "InpaintParams":
        names = self.removers
        if unknown := sorted(set(names) - set(REMOVERS) - set(self.models)):
            weightless, networks = ", ".join(sorted(REMOVERS)), ", ".join(sorted(MODELS))
            if needs := sorted(set(unknown) & set(MODELS)):
                raise ValueError(f"'{needs[0]}' needs weights: say under `models: {needs[0]}:` where its `base` lies")
            raise ValueError(
                f"no remover called {', '.join(unknown)}; there are {weightless}, and under `models` {networks}"
            )
        if len(set(names)) < len(names):
            raise ValueError("a remover is named twice: its candidates would have one id")
        for name, model in self.models.items():
            if name not in names:
                raise ValueError(f"`models` has '{name}', which is not among `removers`")
            if (model.kind or name) not in MODELS or name in REMOVERS:
                raise ValueError(f"`models: {name}` needs a `kind`: {', '.join(sorted(MODELS))}")
        return self


class Inpaint(Stage):
    """Removes the masked object with each remover."""

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
    batch_size = 8
    time_limit_s = 300.0
    Params = InpaintParams

    def __init__(self, params: Any, seed: int = 0) -> None:
        super().__init__(params, seed)
        self.removers: list[Remover] = [self._remover(name) for name in params.removers]
        self.weights()  # what is missing is said when the recipe is read

    def _remover(self, name: str) -> Remover:
        if name in REMOVERS:
            return REMOVERS[name]()
        model: ModelParams = self.params.models[name]
        make, defaults = MODELS[model.kind or name]
        return make(name, model.files(), model.options(defaults))

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

    def process(self, records: Sequence[Record]) -> list[Outcome]:
        """Each remover on all records at once: a network runs on batches."""
        params: InpaintParams = self.params
        outcomes: list[Outcome | None] = [judged(_mask(record), params.dilation) for record in records]
        going = [record for record, outcome in zip(records, outcomes, strict=True) if outcome is None]
        children: dict[str, list[Record]] = {record["id"]: [] for record in going}
        pictures, masks = [record["source"] for record in going], [_mask(record) for record in going]
        for one in self.removers if going else []:
            # a seed of its own for each remover
            seeds = [seed_for(self.seed, f"{self.name}.{one.name}", record["id"]) for record in going]
            targets = remove(one, pictures, masks, seeds, params.dilation, params.context)
            for record, target in zip(going, targets, strict=True):
                children[record["id"]].append(self._child(one, record, target))
        return [outcome or Kept(children[record["id"]]) for record, outcome in zip(records, outcomes, strict=True)]

    def _child(self, one: Remover, record: Record, target: Any) -> Record:
        rest = {name: value for name, value in record.items() if name not in self.drops}
        mask, licence, foreground = _mask(record), record.get("licence"), None
        if one.capability.effects:  # where it changed something is its guess at the object and its effects
            foreground = mask | np.any(target != record["source"], axis=2)
        if one.capability.non_commercial:  # what such weights made may not be used otherwise, whatever the photo's is
            licence = f"{licence or 'unknown'}; made with {one.name}: {one.capability.licence}"
        return (
            rest
            | {"id": child_id(record["id"], one.name), "kind": "edited", "target": target, "mask": mask}
            | {"foreground_mask": foreground, "remover": one.name, "hole_dilation": self.params.dilation}
            | {"licence": licence}
        )


def judged(mask: Any, dilation: int) -> Rejected | None:
    """Why a mask cannot be filled; None if it can."""
    try:
        hole_of(mask, dilation)
    except NothingToFill as error:
        return Rejected("empty mask", str(error))
    except NoContext as error:
        return Rejected("mask covers the picture", str(error))
    return None


def _mask(record: Record) -> Any:
    return record["object_mask" if "object_mask" in record else "mask"]
