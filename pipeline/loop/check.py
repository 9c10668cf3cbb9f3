"""The check of a loop before its start: all that its steps will open is opened, and its rows are counted."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rasura.discriminator import model as discriminators
from rasura.discriminator.calibration import read_rule
from rasura.manifests.errors import RasuraError
from rasura.manifests.extras import can_import, describe_missing
from rasura.manifests.spelling import format_count
from rasura.manifests.storage import Store
from rasura.networks.pretrained import list_diffusers_files
from rasura.pipeline.loop.recipe import LoopRecipe
from rasura.pipeline.loop.selection import Selection, find_row_faults, select_rows
from rasura.pipeline.loop.state import list_steps
from rasura.pipeline.recipe.load import Fault, raise_faults
from rasura.pipeline.recipe.positions import KeyPath, Positions
from rasura.pipeline.training.remover import CURRENT, find_files
from rasura.pipeline.training.rows import RowReader
from rasura.pipeline.training.settings import DiscriminatorSettings
from rasura.removers.diffusion import rorem
from rasura.removers.registry import ModelParams, open_remover
from rasura.removers.training.objectclear import find_image_encoder
from rasura.stages.judging.measure import Measure, MeasureParams

NEEDED_MODULES = ("torch", "diffusers", "accelerate", "sqlalchemy")
"""Modules that every loop imports: those of a training, and those that list candidates and votes."""


@dataclass(frozen=True)
class CheckedLoop:
    """A recipe that can be run, and the rows that it names."""

    recipe: LoopRecipe
    rows: Selection


def check_loop(recipe: LoopRecipe, positions: Positions) -> CheckedLoop:
    """Check all that can be known before the start of a loop.

    Raises:
        RecipeError: all faults, a line each with its place.
    """
    reader = RowReader(Store("."))
    check_inputs(recipe, positions, reader)
    return CheckedLoop(recipe, select_rows(recipe, positions, reader))


def check_inputs(recipe: LoopRecipe, positions: Positions, reader: RowReader | None = None) -> None:
    """Check that the rows, weights and folders that a recipe names are there, and the modules that it needs.

    Raises:
        RecipeError: all that are missing, a line each with its place.
    """
    faults = [*find_row_faults(recipe, reader or RowReader(Store("."))), *_find_missing_files(recipe, ())]
    faults += [(("remover",), describe_missing(module)) for module in NEEDED_MODULES if not can_import(module)]
    raise_faults(faults or list(_find_wrong_networks(recipe)), positions)


def _find_missing_files(value: Any, path: KeyPath) -> Iterator[Fault]:
    """Yield a fault for every file or folder in a part of the recipe that is not there."""
    if isinstance(value, Path):
        if not value.exists():
            yield path, f"there is no file or folder '{value}'"
    elif isinstance(value, ModelParams):
        try:
            value.resolve_files()
        except RasuraError as error:
            names = [name for name in type(value).model_fields if f"'{getattr(value, name)}'" in str(error)]
            yield (*path, *names[:1]), str(error)
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _find_missing_files(getattr(value, name), (*path, name))
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _find_missing_files(entry, (*path, key))


def _find_wrong_networks(recipe: LoopRecipe) -> Iterator[Fault]:
    """Yield a fault for every network that a step would open and that is none, and for removers without a class."""
    remover, discriminator = recipe.remover, recipe.discriminator
    attempts: list[tuple[KeyPath, Callable[[], object]]] = [
        (("removers", index), lambda name=name: open_remover(name, recipe.models).weights())  # type: ignore[misc]
        for index, name in enumerate(recipe.removers)
    ]
    if remover.preset != "tiny":
        files = find_files(remover, None)
        attempts.append(
            (("remover", "base"), lambda: rorem.sdxl_inpaint(CURRENT, files, rorem.ROREM_OPTIONS).weights())
        )
    if remover.preset == "objectclear":
        attempts.append((("remover",), lambda: find_image_encoder(files.base, remover.image_encoder)))
    if base := discriminator.base:
        attempts += [(("discriminator", "base"), lambda: list_diffusers_files(base / "unet"))]
        attempts += [(("discriminator", "base"), lambda: list_diffusers_files(base / "vae"))]
    if start := discriminator.start:
        attempts.append((("discriminator", "start"), lambda: discriminators.list_files(start, base)))
        if _orders_by_start(recipe):
            attempts.append((("discriminator", "start"), lambda: read_rule(start)))
    measures = MeasureParams.model_validate(recipe.measures.list_files())
    attempts.append((("measures",), lambda: Measure(measures).setup()))
    for path, attempt in attempts:
        try:
            attempt()
        except ModuleNotFoundError as error:
            yield path, describe_missing(error.name or str(error))
        except (RasuraError, OSError, ValueError) as error:
            yield path, str(error)


def _orders_by_start(recipe: LoopRecipe) -> bool:
    """Return True where the discriminator that the loop starts from gives a human round its order."""
    first = next((entry for entry in recipe.rounds if entry.kind == "human"), None)
    return first is not None and first.ask == "best_first" and not recipe.discriminator.pretrain_scenes


def describe_loop(checked: CheckedLoop) -> str:
    """Describe a loop: where its rows come from and how many there are, what is trained, its rounds."""
    recipe, rows = checked.recipe, checked.rows
    steps = list_steps(recipe)
    lines = [f"loop '{recipe.name}' can be run: {len(recipe.rounds)} rounds in {len(steps)} steps"]
    for part, noun in (("initial", "triplet"), ("pool", "scene"), ("test", "row")):
        flows = (
            f"{entry.flow} of {entry.run}" + (f" ({entry.split})" if entry.split else "")
            for entry in getattr(recipe, part)
        )
        refs = getattr(rows, part)
        count = len({ref.scene for ref in refs}) if part == "pool" else len(refs)
        lines.append(f"{part}: {format_count(count, noun)}, {', '.join(flows)}")
    lines.append(f"removers: {', '.join(['the one in training', *recipe.removers])}")
    workers = f", {recipe.remover.workers} workers of Ray Train" if recipe.remover.workers else ""
    lines.append(f"remover: preset {recipe.remover.preset}{_describe_base(recipe.remover.base)}{workers}")
    discriminator = recipe.discriminator
    lines.append(
        f"discriminator: {_describe_discriminator(discriminator)}, precision target "
        f"{discriminator.precision_target:g} at {discriminator.confidence:.0%} confidence"
    )
    reviewers = "people" if recipe.reviewers == "people" else "the ground-truth reviewer"
    for number, (settings, drawn) in enumerate(zip(recipe.rounds, rows.drawn, strict=True), 1):
        kind = f"votes by {reviewers}" if settings.kind == "human" else "automatic"
        kind += ", best first" if settings.ask == "best_first" else ""
        names = ", ".join(step.title for step in steps if step.round == number)
        scenes = f"{drawn:,} scenes" if drawn == settings.count else f"{drawn:,} of {settings.count:,} scenes"
        lines.append(f"round {number}: {scenes}, {kind} ({names})")
    return "\n".join(lines)


def _describe_discriminator(config: DiscriminatorSettings) -> str:
    match config.backend:
        case "network":
            return f"preset {config.preset}{_describe_base(config.base)}"
        case "vlm":
            return f"the VLM {config.model} at {config.url}, prompt {config.prompt}"
    return f"{config.backend} with {config.weights}"


def _describe_base(base: Path | None) -> str:
    return f" on {base}" if base else ""
