"""The two networks of a loop, opened by preset: what is trained, what runs, what judges."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from discriminator.codec import Pca
from pipeline.loop_recipe import LoopRecipe
from pipeline.recipe import RecipeError
from removers import rorem, tiny, train_sdxl
from removers.remover import Remover
from removers.sdxl import Files
from removers.train import Learner, Settings
from stages.inpaint import MODELS, REMOVERS

CURRENT = "current"
"""The trained remover's name among a round's removers."""
CODEC = "codec.safetensors"


def settings_of(recipe: LoopRecipe, tune: bool) -> Settings:
    """The first training's settings, or a later one's.

    Raises:
        RecipeError: `remover.settings` has an unknown name.
    """
    given = recipe.remover
    made = tiny.TINY if given.preset == "tiny" else Settings()
    known = {field.name for field in fields(Settings)}
    if odd := sorted(set(given.settings) - known):
        raise RecipeError(f"remover.settings: there is no '{odd[0]}'; there are {', '.join(sorted(known))}")
    made = replace(made, seed=recipe.seed, **given.settings)
    if given.steps:
        made = replace(made, steps=given.steps)
    if tune:
        made = replace(made, steps=given.tune_steps or made.steps, rate=given.tune_rate or made.rate)
    return made


def learner(recipe: LoopRecipe, folder: Path, start: Path | None) -> Learner:
    """What is trained: fresh (None), or from where an earlier training of this loop ended.

    Args:
        folder: the loop's, with the codec of the preset `tiny`.
    """
    given = recipe.remover
    if given.preset == "tiny":
        if start is not None:
            return tiny.load(start, Pca.load)
        return tiny.fresh(Pca.load(folder / CODEC), settings_of(recipe, False).size, recipe.seed)
    return train_sdxl.learner(_files(recipe, start))


def _files(recipe: LoopRecipe, start: Path | None) -> Files:
    given = recipe.remover
    assert given.base is not None  # the recipe was checked
    unet = start / "unet" if start is not None and (start / "unet").is_dir() else None
    lora = start / train_sdxl.LORA_FILE if start is not None and unet is None else None
    return Files(given.base, unet=unet, lora=lora, prompts=given.prompts)


def current(recipe: LoopRecipe, start: Path) -> Remover:
    """The trained remover, set up."""
    made: Any
    if recipe.remover.preset == "tiny":
        made = tiny.Tiny(CURRENT, start, Pca.load)
    else:
        settings = settings_of(recipe, False)
        options = replace(rorem.ROREM_OPTIONS, size=settings.size)
        options = replace(options, source="whole") if settings.source == "whole" else options
        made = rorem.sdxl_inpaint(CURRENT, _files(recipe, start), options)
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
    """The linear codec of remover and judge of preset `tiny`, fitted on pictures squeezed to their size."""
    from removers.remover import resized

    made = Pca.fit([resized(one, (size, size)) for one in pictures])
    part = path.with_suffix(".part")
    made.save(part)
    part.replace(path)


def overrides_of(settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A judge's settings with the loop's seed, unless they have one."""
    return {"seed": seed, **settings}
