"""The two networks of a loop, opened by preset: what is trained, what runs, what judges."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from rasura.manifests.storage import Store
from rasura.networks.diffusers_files import MissingWeights
from rasura.networks.pca_codec import Pca
from rasura.pipeline.loop.candidates import Reader, Ref
from rasura.pipeline.loop.recipe import Distilling, LoopRecipe, Training
from rasura.pipeline.recipe.load import RecipeError
from rasura.removers import rorem, tiny
from rasura.removers.base import Remover
from rasura.removers.sdxl import Files
from rasura.removers.training import distill
from rasura.removers.training import sdxl as train_sdxl
from rasura.removers.training import train as remover_training
from rasura.removers.training.distill import Distillation
from rasura.removers.training.train import Item, Learner, Settings, Triplet
from rasura.stages.inpaint import MODELS, REMOVERS

CURRENT = "current"
"""The trained remover's name among a round's removers."""
CODEC = "codec.safetensors"
LORA = train_sdxl.LORA_FILE
FITTED = 400
"""Pictures that the linear codec is fitted on, at most."""
SHOWN = ("source", "size", "crop", "context", "flip", "dilate", "precision", "save_memory")
"""Settings of a training that its distillation takes over."""


def settings_of(recipe: LoopRecipe, tune: bool) -> Settings:
    """The first training's settings, or a later one's.

    Raises:
        RecipeError: `remover.settings` has an unknown name.
    """
    return training_settings(recipe.remover, recipe.seed, tune)


def training_settings(given: Training, seed: int, tune: bool) -> Settings:
    """The same of a training outside of a loop."""
    made = tiny.TINY if given.preset == "tiny" else Settings()
    made = _changed(made, {"seed": seed, **given.settings}, "remover.settings")
    if given.steps:
        made = replace(made, steps=given.steps)
    if tune:
        made = replace(made, steps=given.tune_steps or made.steps, rate=given.tune_rate or made.rate)
        made = _changed(made, given.tune, "remover.tune")
    return made


def distillation_settings(given: Training, seed: int) -> Distillation:
    """The distillation's settings: what pictures are shown is the training's, the rest RORem's.

    Raises:
        RecipeError: `remover.distill.settings` has an unknown name.
    """
    asked = given.distill or Distilling()
    shared = {name: given.settings[name] for name in SHOWN if name in given.settings}
    made = _changed(Distillation(), {"seed": seed, **shared, **asked.settings}, "remover.distill.settings")
    return replace(made, steps=asked.steps) if asked.steps else made


S = TypeVar("S", bound=Settings)


def _changed(settings: S, given: Mapping[str, Any], where: str) -> S:
    """Settings with what is given.

    Raises:
        RecipeError: a name or a sort of value that there is not.
    """
    known = asdict(settings)
    if odd := sorted(set(given) - set(known)):
        raise RecipeError(f"{where}: there is no '{odd[0]}'; there are {', '.join(sorted(known))}")
    try:
        return TypeAdapter(type(settings)).validate_python({**known, **given})
    except ValidationError as error:
        fault = error.errors()[0]
        raise RecipeError(
            f"{where}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}, not {fault['input']!r}"
        ) from None


def items(home: Store, refs: Sequence[Ref]) -> list[Item]:
    """Rows to learn from, each read where it lies when its turn comes; `home` is that of a `Reader`."""
    reader = Reader(home)
    return [Item(ref.id, partial(_triplet, reader, ref)) for ref in refs]


def _triplet(reader: Reader, ref: Ref) -> Triplet:
    row = reader.row(ref)
    return Triplet(row["source"], row["target"], row["mask"], row.get("foreground_mask"))


def train(
    given: Training, settings: Settings, items: Sequence[Item], codec: Path, start: Path | None, out: Path
) -> None:
    """A remover's training as any process does it; `codec` is read for the preset `tiny`, which starts from it."""
    remover_training.train(learner(given, settings, codec, start), items, settings, out)


def distil(given: Training, settings: Distillation, items: Sequence[Item], teacher: Files, out: Path) -> None:
    """A remover's distillation as any process does it."""
    asked = given.distill or Distilling()
    made = train_sdxl.learner(teacher)
    made.about = {**made.about, "prompt": asked.prompt, "negative": asked.negative}
    guides = train_sdxl.guides(teacher, asked.prompt, asked.negative, asked.teacher_prompts, made)
    distill.distill(made, guides, items, settings, out)


def teacher(given: Training, start: Path, out: Path) -> Files:
    """The trained remover as a UNet: its own, or one with its LoRA folded in, which then lies in `out`."""
    return train_sdxl.folded(files_of(given, start), out / "unet")


def learner(given: Training, settings: Settings, codec: Path, start: Path | None) -> Learner:
    """What is trained: fresh (None), or from where an earlier training ended."""
    if given.preset == "tiny":
        if start is not None:
            return tiny.load(start, Pca.load)
        return tiny.fresh(Pca.load(codec), settings.size, settings.seed)
    return train_sdxl.learner(files_of(given, start))


def files_of(given: Training, start: Path | None) -> Files:
    """SDXL-inpainting, with what a training left in `start`: a UNet or a LoRA. A UNet's own folder does too.

    Raises:
        MissingWeights: none of them is there.
    """
    assert given.base is not None  # the recipe was checked
    files = Files(given.base, prompts=given.prompts)
    if start is None:
        return files
    if (start / "unet").is_dir():
        return replace(files, unet=start / "unet")
    if (start / train_sdxl.LORA_FILE).is_file():
        return replace(files, lora=start / train_sdxl.LORA_FILE)
    if (start / "config.json").is_file():
        return replace(files, unet=start)
    raise MissingWeights(f"no remover in {start}: neither a UNet nor {train_sdxl.LORA_FILE}")


def current(recipe: LoopRecipe, start: Path) -> Remover:
    """The trained remover, set up."""
    made: Any
    if recipe.remover.preset == "tiny":
        made = tiny.Tiny(CURRENT, start, Pca.load)
    else:
        settings = settings_of(recipe, False)
        options = replace(rorem.ROREM_OPTIONS, size=settings.size)
        options = replace(options, source="whole") if settings.source == "whole" else options
        made = rorem.sdxl_inpaint(CURRENT, files_of(recipe.remover, start), options)
    made.weights()
    made.setup()
    opened: Remover = made
    return opened


def others(recipe: LoopRecipe) -> Sequence[Remover]:
    """The recipe's other removers, set up.

    Raises:
        RecipeError: `module:Class` cannot be imported.
    """
    found: list[Remover] = []
    for name in recipe.removers:
        if name in REMOVERS:
            one = REMOVERS[name]()
        elif name in recipe.models:
            model = recipe.models[name]
            make, defaults = MODELS[model.kind or name]
            one = make(name, model.files(), model.options(defaults))
        else:
            module, _, cls = name.partition(":")
            try:
                one = getattr(importlib.import_module(module), cls)()
            except (ImportError, AttributeError) as error:
                raise RecipeError(f"removers: '{name}' cannot be imported: {error}") from None
        one.weights()
        one.setup()
        found.append(one)
    return found


def fit_codec(pictures: Sequence[Any], path: Path, size: int) -> None:
    """The linear codec of a remover of preset `tiny`, fitted on pictures squeezed to its size."""
    from rasura.removers.base import resized

    made = Pca.fit([resized(one, (size, size)) for one in pictures])
    part = path.with_suffix(".part")
    made.save(part)
    part.replace(path)


def overrides_of(settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A judge's settings with the loop's seed, unless they have one."""
    return {"seed": seed, **settings}
