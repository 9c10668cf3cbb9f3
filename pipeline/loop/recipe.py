"""The recipe of a loop: where its triplets come from, what is trained, which rounds follow each other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rasura.pipeline.loop.measures import Measures
from rasura.pipeline.recipe.load import RecipeError
from rasura.removers import rorem
from rasura.stages.inpaint import REMOVERS, ModelParams


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rows(_Model):
    """Rows of a run's flow."""

    run: str = Field(description="Folder or URI that `rasura run` wrote into.")
    flow: str
    split: str | None = Field(None, description="Only rows of this split.")
    limit: int | None = Field(None, ge=1, description="At most so many, drawn by the recipe's seed.")


class Distilling(_Model):
    """The last remover's distillation into a LoRA that needs four steps, after the last round."""

    steps: int | None = Field(None, ge=1, description="RORem's 20,000 where null.")
    prompt: str = Field(rorem.PROMPT, description="What the teacher is guided to.")
    negative: str = Field(rorem.NEGATIVE, description="What the teacher is guided away from.")
    teacher_prompts: Path | None = Field(
        None, description="The embeddings of both, in place of text encoders (`rasura.removers.conditioning.save`)."
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="More of `rasura.removers.training.distill.Distillation`."
    )


class Training(_Model):
    """The remover that the loop trains."""

    preset: Literal["tiny", "sdxl"] = "sdxl"
    base: Path | None = Field(None, description="SDXL-inpainting's folder, for the preset sdxl.")
    prompts: Path | None = Field(None, description="The empty prompt's embeddings, in place of text encoders.")
    steps: int | None = Field(None, ge=1, description="Of the first training; the preset's where null.")
    tune_steps: int | None = Field(None, ge=1, description="After each round; as many as the first where null.")
    tune_rate: float | None = Field(None, gt=0, description="Learning rate then; the first one where null.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="More of `rasura.removers.training.train.Settings`."
    )
    tune: dict[str, Any] = Field(default_factory=dict, description="The same, where it differs after each round.")
    workers: int = Field(
        0, ge=0, description="0 trains in the loop's own process; more in so many of Ray Train, one GPU each."
    )
    distill: Distilling | None = Field(None, description="Distil the last remover into one that needs four steps.")

    @model_validator(mode="after")
    def _fits(self) -> "Training":
        if self.preset == "sdxl" and self.base is None:
            raise ValueError("the preset sdxl stands on SDXL-inpainting: name its folder under `base`")
        if self.distill and (self.preset, self.settings.get("objective", "epsilon")) != ("sdxl", "epsilon"):
            raise ValueError("distill: only a remover of many steps is distilled: preset sdxl, objective epsilon")
        if self.distill and self.prompts and not self.distill.teacher_prompts:
            raise ValueError(
                "distill: with `prompts` in place of text encoders, name the embeddings of the teacher's prompts "
                "under `distill.teacher_prompts`"
            )
        return self


class Judging(_Model):
    """The judge of the automatic rounds, trained after each human one."""

    preset: Literal["tiny", "sdxl"] = "sdxl"
    base: Path | None = None
    prompts: Path | None = None
    promise: float = Field(0.9, gt=0, lt=1, description="Share of what is kept that a person would accept.")
    confidence: float = Field(0.95, gt=0, lt=1)
    thresholds: Literal["remover", "overall"] = Field(
        "remover",
        description="A threshold for each remover, the others' candidates are left to people; or one for all.",
    )
    shares: dict[str, float] = Field(
        default_factory=lambda: {"calibrate": 0.45, "learn": 0.55}, description="What a scene's votes are for."
    )
    start: Path | None = Field(
        None, description="A judge's folder that the first training goes on from: one that has seen other photographs."
    )
    pretrain_scenes: int = Field(
        0, ge=0, description="Initial triplets whose candidates, judged by the oracle, train the judge before any vote."
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="More of `rasura.discriminator.train.Settings`.")
    pretrain: dict[str, Any] = Field(default_factory=dict, description="The same, for the training before any vote.")


class Round(_Model):
    kind: Literal["human", "auto"]
    count: int = Field(ge=1, description="Scenes whose candidates are made.")


class LoopRecipe(_Model):
    """The whole recipe."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    seed: int = Field(0, ge=0)
    initial: list[Rows] = Field(min_length=1, description="Triplets to start from.")
    pool: list[Rows] = Field(min_length=1, description="Photos with an object mask, or triplets, to draw scenes from.")
    test: list[Rows] = Field(min_length=1, description="Triplets with a true target that no round sees.")
    removers: list[str] = Field(
        default_factory=list, description="Removers beside the trained one: telea, ns, of `models`, or module:Class."
    )
    models: dict[str, ModelParams] = Field(default_factory=dict)
    remover: Training
    judge: Judging = Judging()
    rounds: list[Round] = Field(min_length=1)
    keep: Literal["promise", "everything", "humans", "nothing"] = Field(
        "promise",
        description="What joins the training set: what people accept and the judge promises; a candidate of every "
        "scene; what people accept; nothing. The last three are controls: their training steps are the same.",
    )
    reviewers: Literal["people", "oracle"] = "people"
    measures: Measures = Measures()
    votes: int = Field(1, ge=1, description="Votes that a candidate of a human round needs.")
    enough: float = Field(1.0, gt=0, le=1, description="Share of a human round's candidates that must have them.")
    cap: int = Field(500, ge=1, description="Scenes of one label in a round.")
    exclude: list[str] = Field(default_factory=list, description="Labels that are never drawn.")
    dilation: int = Field(8, ge=0, le=256, description="Px by which masks grow before they are filled.")
    context: float = Field(0.75, ge=0, le=10)
    shard_scenes: int = Field(16, ge=1, description="Scenes whose candidates are committed together.")

    @model_validator(mode="after")
    def _fits(self) -> "LoopRecipe":
        for name in self.removers:
            if name not in REMOVERS and name not in self.models and ":" not in name:
                known = ", ".join([*sorted(REMOVERS), *self.models])
                raise ValueError(f"no remover called '{name}'; there are {known or 'none'}, and module:Class")
        if self.judge.preset == "sdxl" and self.judge.base is None:
            raise ValueError("judge: the preset sdxl stands on SDXL-inpainting: name its folder under `base`")
        if self.rounds[0].kind == "auto" and self.keep == "promise" and not self.judge.pretrain_scenes:
            raise ValueError("the first round is automatic, and nobody has voted yet: begin with a human round")
        if set(self.judge.shares) != {"calibrate", "learn"}:
            raise ValueError("judge.shares are two: calibrate and learn")
        return self

    def what(self) -> dict[str, Any]:
        """What makes it this loop and no other: all but on how many workers it trains."""
        return self.model_dump(mode="json", exclude={"remover": {"workers"}})


def load(file: str | Path, overrides: Mapping[str, Any] | None = None) -> LoopRecipe:
    """A loop's recipe from a YAML file.

    Raises:
        RecipeError: it is not there, or something in it is wrong.
    """
    path = Path(file)
    if not path.is_file():
        raise RecipeError(f"there is no recipe '{file}'")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise RecipeError(f"{file}: expected keys such as name, initial, pool, test and rounds")
    try:
        return LoopRecipe.model_validate({**raw, **(overrides or {})})
    except ValidationError as error:
        lines = []
        for fault in error.errors():
            where = ".".join(map(str, fault["loc"])) or "recipe"
            lines.append(f"{file}: {where}: {str(fault['msg']).removeprefix('Value error, ')}")
        raise RecipeError("\n".join(lines)) from None
