"""The settings of trainings: their parts of a recipe, and presets with the values that these change by name."""

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from rasura.discriminator import train as discriminator_trainer
from rasura.discriminator.network import Config
from rasura.manifests.errors import RecipeError
from rasura.manifests.spelling import suggest
from rasura.pipeline.recipe.schema import RecipeModel
from rasura.removers import rorem, tiny
from rasura.removers.training.distill import Distillation
from rasura.removers.training.train import Settings

SHARED_SETTINGS = ("source", "size", "crop", "context", "flip", "dilate", "precision", "save_memory")
"""Settings of a training that its distillation takes over."""
FIXED_SETTINGS = ("preset", "unet")
"""Fields of a discriminator's network that the preset alone sets."""

AnySettings = TypeVar("AnySettings", bound=Settings)


class FlowRows(RecipeModel):
    """Rows of a run's flow."""

    run: str = Field(description="Folder or URI that `rasura run` wrote into.")
    flow: str
    split: str | None = Field(None, description="Only rows of this split.")
    limit: int | None = Field(None, ge=1, description="At most so many, drawn by the recipe's seed.")


class DistillSettings(RecipeModel):
    """The distillation of the last remover into a LoRA that needs four steps, after the last round."""

    steps: int | None = Field(None, ge=1, description="RORem's 20,000 where null.")
    prompt: str = Field(rorem.PROMPT, description="Prompt that the teacher is guided to.")
    negative: str = Field(rorem.NEGATIVE, description="Prompt that the teacher is guided away from.")
    teacher_prompts: Path | None = Field(
        None, description="The embeddings of both, in place of text encoders (`rasura.removers.conditioning.save`)."
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="More of `rasura.removers.training.distill.Distillation`."
    )


class RemoverSettings(RecipeModel):
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
    distill: DistillSettings | None = Field(None, description="Distil the last remover into one that needs four steps.")

    @model_validator(mode="after")
    def _check_together(self) -> "RemoverSettings":
        if self.preset == "sdxl" and self.base is None:
            raise ValueError("the preset sdxl builds on SDXL-inpainting: name its folder under `base`")
        if self.distill and (self.preset, self.settings.get("objective", "epsilon")) != ("sdxl", "epsilon"):
            raise ValueError("distill: only a remover of many steps is distilled: preset sdxl, objective epsilon")
        if self.distill and self.prompts and not self.distill.teacher_prompts:
            raise ValueError(
                "distill: with `prompts` in place of text encoders, name the embeddings of the teacher's prompts "
                "under `distill.teacher_prompts`"
            )
        return self


class DiscriminatorSettings(RecipeModel):
    """The discriminator of the automatic rounds, trained after each human one."""

    former_names: ClassVar[Mapping[str, str]] = {"precision_target": "promise"}

    preset: Literal["tiny", "sdxl"] = "sdxl"
    base: Path | None = None
    prompts: Path | None = None
    precision_target: float = Field(
        0.9, gt=0, lt=1, description="Share of the accepted candidates that a person would accept."
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="Confidence at which the precision target holds.")
    thresholds: Literal["remover", "overall"] = Field(
        "remover",
        description="A threshold for each remover, the others' candidates are left to people; or one for all.",
    )
    shares: dict[str, float] = Field(
        default_factory=lambda: {"calibrate": 0.45, "learn": 0.55}, description="What a scene's votes are for."
    )
    start: Path | None = Field(
        None,
        description="Folder of a discriminator, trained on other photographs, that the first training goes on from.",
    )
    pretrain_scenes: int = Field(
        0,
        ge=0,
        description="Initial triplets whose candidates, judged by the oracle, train the discriminator before any vote.",
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="More of `rasura.discriminator.train.Settings`.")
    pretrain: dict[str, Any] = Field(default_factory=dict, description="The same, for the training before any vote.")


def build_training_settings(config: RemoverSettings, seed: int, tune: bool) -> Settings:
    """Build the settings of a remover's training.

    Args:
        tune: of a training after a round, where `tune`, `tune_steps` and `tune_rate` count too.

    Raises:
        RecipeError: a setting with an unknown name, or a value of another type.

    Examples:
        >>> config = RemoverSettings(preset="tiny", steps=200, tune_steps=50)
        >>> build_training_settings(config, 1, tune=False).steps, build_training_settings(config, 1, tune=True).steps
        (200, 50)
    """
    settings = tiny.TINY if config.preset == "tiny" else Settings()
    settings = _replace_settings(settings, {"seed": seed, **config.settings}, "remover.settings")
    if config.steps:
        settings = replace(settings, steps=config.steps)
    if tune:
        steps, rate = config.tune_steps or settings.steps, config.tune_rate or settings.rate
        settings = _replace_settings(replace(settings, steps=steps, rate=rate), config.tune, "remover.tune")
    return settings


def build_distillation_settings(config: RemoverSettings, seed: int) -> Distillation:
    """Build the settings of a remover's distillation: RORem's, with the pictures of the remover's own training.

    Raises:
        RecipeError: a setting with an unknown name, or a value of another type.
    """
    distill = config.distill or DistillSettings()
    shared = {name: config.settings[name] for name in SHARED_SETTINGS if name in config.settings}
    changes = {"seed": seed, **shared, **distill.settings}
    settings = _replace_settings(Distillation(), changes, "remover.distill.settings")
    return replace(settings, steps=distill.steps) if distill.steps else settings


def _replace_settings(settings: AnySettings, changes: Mapping[str, Any], place: str) -> AnySettings:
    values = asdict(settings)
    if unknown := sorted(set(changes) - set(values)):
        raise RecipeError(f"{place}: there is no '{unknown[0]}'; {suggest(unknown[0], values)}")
    try:
        return TypeAdapter(type(settings)).validate_python({**values, **changes})
    except ValidationError as error:
        fault = error.errors()[0]
        name = ".".join(map(str, fault["loc"]))
        raise RecipeError(f"{place}: {name}: {fault['msg']}, not {fault['input']!r}") from None


def adjust_discriminator(
    config: Config, settings: discriminator_trainer.Settings, changes: Mapping[str, Any]
) -> tuple[Config, discriminator_trainer.Settings]:
    """Change a discriminator's network and training by name.

    Raises:
        RecipeError: an unknown name, or a value of another type.

    Examples:
        >>> from rasura.discriminator.network import TINY
        >>> config, settings = adjust_discriminator(TINY, discriminator_trainer.TINY, {"steps": 7})
        >>> config == TINY, settings.steps
        (True, 7)
    """
    parts: list[Any] = [config, settings]
    owners = {
        field.name: index
        for index, part in enumerate(parts)
        for field in fields(part)
        if field.name not in FIXED_SETTINGS
    }
    for name, value in changes.items():
        if name not in owners:
            raise RecipeError(f"there is no '{name}'; {suggest(name, owners)}")
        before = getattr(parts[owners[name]], name)
        if isinstance(before, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not type(before):
            raise RecipeError(f"{name} is {value!r}; expected something like {before!r}")
        parts[owners[name]] = replace(parts[owners[name]], **{name: value})
    return parts[0], parts[1]
