"""The settings of trainings: their parts of a recipe, and presets with the values that these change by name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from rasura.discriminator import network
from rasura.discriminator import train as discriminator_trainer
from rasura.discriminator.judges.vlm import MAX_TOKENS
from rasura.discriminator.network import Config
from rasura.manifests.spelling import suggest
from rasura.networks.checkpoint import TrainingFailed
from rasura.pipeline.recipe.load import Fault, describe_faults, raise_faults
from rasura.pipeline.recipe.positions import Positions
from rasura.pipeline.recipe.schema import RecipeModel
from rasura.removers import tiny
from rasura.removers.diffusion import rorem
from rasura.removers.training import catdiffusion_settings, objectclear
from rasura.removers.training.distill import Distillation
from rasura.removers.training.train import Settings

SHARED_SETTINGS = (
    *("source", "size", "crop", "context", "flip", "dilate", "widen", "vary_mask", "vary_colours", "precision"),
    *("save_memory", "tracker"),
)
"""Settings of a training that its distillation takes over."""
FIXED_SETTINGS = ("preset", "unet")
"""Fields of a discriminator's network that the preset alone sets."""


RemoverPreset = Literal["tiny", "sdxl", "objectclear", "catdiffusion"]
REMOVER_PRESETS: Mapping[RemoverPreset, Settings] = {
    "tiny": tiny.TINY,
    "sdxl": Settings(),
    "objectclear": objectclear.PUBLISHED,
    "catdiffusion": catdiffusion_settings.CatSettings(),
}
"""Settings of a remover's training that a recipe does not change."""
FOUNDATIONS: Mapping[RemoverPreset, str] = {
    "sdxl": "SDXL-inpainting",
    "objectclear": "SDXL-inpainting",
    "catdiffusion": "Stable Diffusion 1.5 inpainting",
}
"""What the presets build on that need a `base`."""
WITH_IMAGE_ENCODER: Sequence[RemoverPreset] = ("objectclear", "catdiffusion")


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
        None,
        description="The embeddings of both, in place of text encoders (`removers.diffusion.conditioning.save`).",
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="More of `rasura.removers.training.distill.Distillation`."
    )


class RemoverSettings(RecipeModel):
    """The remover that the loop trains."""

    preset: RemoverPreset = "sdxl"
    base: Path | None = Field(
        None,
        description="SDXL-inpainting's folder, for every preset but tiny; for objectclear also an ObjectClear's; for "
        "catdiffusion Stable Diffusion 1.5 inpainting's.",
    )
    image_encoder: Path | None = Field(
        None,
        description="CLIP ViT-L/14's folder, for the preset catdiffusion, and for objectclear on a base that is no "
        "ObjectClear.",
    )
    prompts: Path | None = Field(
        None,
        description="Embeddings in place of text encoders: the empty prompt's; for objectclear those of 'remove the "
        "instance of object'.",
    )
    steps: int | None = Field(None, ge=1, description="Of the first training; the preset's where null.")
    tune_steps: int | None = Field(None, ge=1, description="After each round; as many as the first where null.")
    tune_rate: float | None = Field(None, gt=0, description="Learning rate then; the first one where null.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="More of `rasura.removers.training.train.Settings`."
    )
    tune: dict[str, Any] = Field(default_factory=dict, description="The same, where it differs after each round.")
    workers: int = Field(
        0, ge=0, le=4096, description="0 trains in the loop's own process; more in so many of Ray Train, one GPU each."
    )
    distill: DistillSettings | None = Field(None, description="Distil the last remover into one that needs four steps.")

    @model_validator(mode="after")
    def _check_together(self) -> "RemoverSettings":
        if self.preset != "tiny" and self.base is None:
            foundation = FOUNDATIONS[self.preset]
            raise ValueError(f"the preset {self.preset} builds on {foundation}: name its folder under `base`")
        if self.preset not in WITH_IMAGE_ENCODER and self.image_encoder is not None:
            presets = " and ".join(WITH_IMAGE_ENCODER)
            raise ValueError(f"image_encoder: the preset {self.preset} has none; it is of the presets {presets}")
        if self.preset == "catdiffusion" and self.image_encoder is None:
            raise ValueError("the preset catdiffusion needs CLIP ViT-L/14: name its folder under `image_encoder`")
        if self.preset == "catdiffusion" and self.prompts is not None:
            raise ValueError("prompts: the preset catdiffusion encodes the labels of its rows, leave it out")
        if self.distill and (self.preset, self.settings.get("objective", "epsilon")) != ("sdxl", "epsilon"):
            raise ValueError("distill: only a remover of many steps is distilled: preset sdxl, objective epsilon")
        if self.distill and self.prompts and not self.distill.teacher_prompts:
            raise ValueError(
                "distill: with `prompts` in place of text encoders, name the embeddings of the teacher's prompts "
                "under `distill.teacher_prompts`"
            )
        return self


class FinalSettings(RecipeModel):
    """A last training after all rounds, for example on triplets of high resolution."""

    rows: list[FlowRows] = Field(min_length=1, description="Triplets that it learns from.")
    rounds: bool = Field(False, description="Learn from the triplets of the rounds, too.")
    steps: int | None = Field(None, ge=1, description="As many as after a round where null.")
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="More of `rasura.removers.training.train.Settings`, where it differs from those after rounds.",
    )


class DiscriminatorSettings(RecipeModel):
    """The discriminator of the automatic rounds, trained after each human one."""

    former_names: ClassVar[Mapping[str, str]] = {"precision_target": "promise"}

    backend: Literal["network", "vlm", "remove", "rc_s"] = Field(
        "network",
        description="A network that is trained on the votes; a VLM behind a server; ReMOVE or RC-S. The last three "
        "learn nothing: all votes calibrate them. None keeps anything if it fails the judge battery on the initial "
        "triplets.",
    )
    url: str | None = Field(None, description="vlm: an OpenAI-compatible API, as http://localhost:8000/v1.")
    model: str | None = Field(None, description="vlm: the model's name on that server.")
    prompt: str = Field("removal-1", description="vlm: the question, one of Rasura's or a text file.")
    max_tokens: int = Field(
        MAX_TOKENS, ge=16, le=1_000_000, description="vlm: tokens of an answer at most, with the model's thoughts."
    )
    weights: Path | None = Field(None, description="remove: SAM's image encoder, rc_s: DINOv2's, as ONNX.")
    unchecked: bool = Field(
        False, description="Keep by a discriminator that has failed its judge battery, or was not checked."
    )
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
    remover_share: float = Field(
        1.0, gt=0, le=1, description="Of what an automatic round keeps, at most so much is of one remover."
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
        description="Initial triplets whose candidates train the discriminator before any vote, with verdicts of the "
        "ground-truth reviewer.",
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="More of `rasura.discriminator.train.Settings`.")
    pretrain: dict[str, Any] = Field(default_factory=dict, description="The same, for the training before any vote.")


def build_training_settings(config: RemoverSettings, seed: int, tune: bool) -> Settings:
    """Build the settings of a remover's training.

    Args:
        tune: of a training after a round, where `tune`, `tune_steps` and `tune_rate` count too.

    Raises:
        RecipeError: a setting with an unknown name, or a value that it cannot have.

    Examples:
        >>> config = RemoverSettings(preset="tiny", steps=200, tune_steps=50)
        >>> build_training_settings(config, 1, tune=False).steps, build_training_settings(config, 1, tune=True).steps
        (200, 50)
    """
    settings, faults = _change_training(config, seed, tune)
    raise_faults(faults, Positions("remover"))
    return settings


def build_final_settings(config: RemoverSettings, final: FinalSettings, seed: int) -> Settings:
    """Build the settings of the last training of a remover: those after a round, with the changes of `final`.

    Raises:
        RecipeError: a setting with an unknown name, or a value that it cannot have.
    """
    settings, faults = _change_final(config, final, seed)
    raise_faults(faults, Positions("final"))
    return settings


def find_final_faults(config: RemoverSettings, final: FinalSettings, seed: int) -> Iterator[Fault]:
    """Yield the faults in the settings of the last training, with their places in its part of the recipe."""
    settings, faults = _change_final(config, final, seed)
    yield from faults
    if config.workers and settings.batch % config.workers:
        message = f"a batch of {settings.batch} cannot be divided evenly among {config.workers} workers"
        yield ("settings", "batch"), message


def build_distillation_settings(config: RemoverSettings, seed: int) -> Distillation:
    """Build the settings of a remover's distillation: RORem's, with the pictures of the remover's own training.

    Raises:
        RecipeError: a setting with an unknown name, or a value that it cannot have.
    """
    settings, faults = _change_distillation(config, seed)
    raise_faults(faults, Positions("remover"))
    return settings


def build_discriminator_settings(
    preset: str, seed: int, changes: Mapping[str, Any], positions: Positions | None = None
) -> tuple[Config, discriminator_trainer.Settings]:
    """Build the configuration of a discriminator's network and the settings of its training.

    Args:
        changes: values of either, by name.
        positions: of the changes, for messages.

    Raises:
        RecipeError: a setting with an unknown name, or a value that it cannot have.

    Examples:
        >>> config, settings = build_discriminator_settings("tiny", 0, {"steps": 7})
        >>> config.preset, settings.steps
        ('tiny', 7)
    """
    config, settings, faults = _change_discriminator(preset, seed, changes)
    raise_faults(faults, positions or Positions("discriminator"))
    return config, settings


def find_remover_faults(config: RemoverSettings, seed: int) -> Iterator[Fault]:
    """Yield the faults in the settings of all trainings of a remover, with their places in its part of the recipe."""
    trainings: list[tuple[str, Any]] = [("settings", _change_training(config, seed, tune=False))]
    if config.tune:
        trainings.append(("tune", _change_training(config, seed, tune=True)))
    if config.distill:
        trainings.append(("distill", _change_distillation(config, seed)))
    for part, (settings, faults) in trainings:
        yield from faults
        if config.workers and settings.batch % config.workers:
            yield (
                (part, "batch"),
                f"a batch of {settings.batch} cannot be divided evenly among {config.workers} workers",
            )


def find_discriminator_faults(config: DiscriminatorSettings, seed: int) -> Iterator[Fault]:
    """Yield the faults in the settings of both trainings of a discriminator, with their places in its part."""
    for part in ("settings", "pretrain"):
        for path, message in _change_discriminator(config.preset, seed, getattr(config, part))[2]:
            yield (part, *path), message


def list_defaults(*parts: Any) -> dict[str, Any]:
    """Return the names and values that `--set` and a recipe's `settings` can change, of one training.

    Args:
        parts: the settings of the training, and where it has one the configuration of its network.
    """
    values = {field.name: getattr(part, field.name) for part in parts for field in fields(part)}
    return {name: value for name, value in values.items() if name not in FIXED_SETTINGS}


def _change_training(config: RemoverSettings, seed: int, tune: bool) -> tuple[Settings, list[Fault]]:
    settings = REMOVER_PRESETS[config.preset]
    (settings,), faults = _change([settings], {"seed": seed, **config.settings}, "settings")
    if config.steps:
        settings = replace(settings, steps=config.steps)
    if tune:
        steps, rate = config.tune_steps or settings.steps, config.tune_rate or settings.rate
        (settings,), more = _change([replace(settings, steps=steps, rate=rate)], config.tune, "tune")
        faults = [*faults, *more]
    return settings, [*faults, *_find_misfits(config, settings, "tune" if tune else "settings")]


def _change_final(config: RemoverSettings, final: FinalSettings, seed: int) -> tuple[Settings, list[Fault]]:
    settings, _ = _change_training(config, seed, tune=True)
    settings = replace(settings, steps=final.steps or settings.steps)
    (changed,), faults = _change([settings], final.settings, "settings")
    return changed, [*faults, *_find_misfits(config, changed, "settings")]


def _find_misfits(config: RemoverSettings, settings: Settings, place: str) -> Iterator[Fault]:
    """Yield the settings that a preset cannot be trained with, with their places in the recipe."""
    find = {"objectclear": objectclear.find_misfits, "catdiffusion": catdiffusion_settings.find_misfits}.get(
        config.preset
    )
    for name, message in find(settings) if find else ():
        yield (place, name), message


def _change_distillation(config: RemoverSettings, seed: int) -> tuple[Distillation, list[Fault]]:
    distill = config.distill or DistillSettings()
    settings, _ = _change_training(config, seed, tune=False)
    shared = {name: getattr(settings, name) for name in SHARED_SETTINGS if name in config.settings}
    (changed,), faults = _change([Distillation(**shared)], {"seed": seed, **distill.settings}, "distill", "settings")
    changed = replace(changed, steps=distill.steps) if distill.steps else changed
    try:
        changed.check()
    except TrainingFailed as error:
        faults.append((("distill", "settings"), str(error)))
    return changed, faults


def _change_discriminator(
    preset: str, seed: int, changes: Mapping[str, Any]
) -> tuple[Config, discriminator_trainer.Settings, list[Fault]]:
    defaults = discriminator_trainer.TINY if preset == "tiny" else discriminator_trainer.Settings()
    (config, settings), faults = _change([network.PRESETS[preset], defaults], {"seed": seed, **changes})
    if config.head == "rorem" and config.size != network.ROREM.size:
        faults.append((("size",), f"RORem's head takes pictures of {network.ROREM.size} px (it is {config.size})"))
    return config, settings, faults


def _change(parts: Sequence[Any], changes: Mapping[str, Any], *place: str) -> tuple[list[Any], list[Fault]]:
    """Change values of dataclasses by name, and check them by the types of their fields.

    Args:
        parts: dataclasses without a field in common.
        changes: name to value.
        place: of the changes in the recipe.

    Returns:
        The parts, with the changes where there is no fault; and all faults.
    """
    names = list_defaults(*parts)
    unknown = [name for name in changes if name not in names]
    faults: list[Fault] = [((*place, name), f"there is no '{name}'; {suggest(name, names)}") for name in unknown]
    changed = []
    for part in parts:
        own = {field.name: changes[field.name] for field in fields(part) if field.name in changes}
        own = {name: value for name, value in own.items() if name in names}
        for name, value in own.items():  # to pydantic, true is the number 1
            if value is True and not isinstance(names[name], bool):
                faults.append(((*place, name), f"expected a value like {names[name]!r} (it is true)"))
        try:
            checked = TypeAdapter(type(part)).validate_python({**asdict(part), **own})
            changed.append(replace(part, **{name: getattr(checked, name) for name in own}))
        except ValidationError as error:
            faults += [((*place, *path), message) for path, message in describe_faults(error, RecipeModel)]
            changed.append(part)
    return changed, faults
