"""Options and help that the commands which train have in common. Nothing heavy is imported before one needs it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import typer
import yaml
from typer.core import TyperCommand

from rasura.manifests.errors import InputError, RecipeError
from rasura.manifests.run_layout import LOOP, PLAN
from rasura.manifests.spelling import format_count
from rasura.pipeline.cli.interrupts import explain_interrupt
from rasura.pipeline.recipe.overrides import apply_overrides, parse_overrides
from rasura.pipeline.recipe.positions import Positions

Training = Literal["remover", "distillation", "discriminator"]

OutOption = Annotated[
    Path, typer.Option("--out", metavar="FOLDER", help="Folder of the result; a training that it has is continued.")
]
BaseOption = Annotated[
    Path | None,
    typer.Option(
        "--base",
        metavar="FOLDER",
        help="SDXL-inpainting, for every preset but tiny; for catdiffusion Stable Diffusion 1.5 inpainting.",
    ),
]
ChangesOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of those below; may be repeated."),
]


class ForeignTarget(InputError):
    """The folder that a training is to write into belongs to something else."""


class TrainingCommand(TyperCommand):
    """A command whose help ends with the keys of `--set` and their defaults."""

    training: ClassVar[Training]

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the keys of `--set` below the options."""
        with formatter.section("Keys of --set, with their defaults"):
            formatter.write_dl([(name, text) for name, text in _describe_settings(self.training).items()])
        super().format_epilog(ctx, formatter)


class RemoverTraining(TrainingCommand):
    """The training of a remover."""

    training = "remover"


class RemoverDistillation(TrainingCommand):
    """The distillation of a remover."""

    training = "distillation"


class DiscriminatorTraining(TrainingCommand):
    """The training of a discriminator."""

    training = "discriminator"


def _describe_settings(training: Training) -> dict[str, str]:
    """Return the defaults of a training's settings as text, by name, with those of other presets that differ."""
    from rasura.discriminator import network
    from rasura.discriminator import train as discriminator
    from rasura.pipeline.training.settings import REMOVER_PRESETS, list_defaults
    from rasura.removers.training import distill

    presets: Mapping[Training, Mapping[str, list[Any]]] = {
        "remover": {preset: [settings] for preset, settings in REMOVER_PRESETS.items()},
        "distillation": {"sdxl": [distill.Distillation()]},
        "discriminator": {
            "sdxl": [discriminator.Settings(), network.SDXL],
            "tiny": [discriminator.TINY, network.TINY],
        },
    }
    others = {preset: list_defaults(*parts) for preset, parts in presets[training].items()}
    large = others.pop("sdxl")
    large.pop("seed")  # an option of its own
    words = {
        name: get_args(hint)
        for parts in presets[training].values()
        for part in parts
        for name, hint in get_type_hints(type(part)).items()
        if get_origin(hint) is Literal
    }
    texts = {}
    for name, value in large.items():
        texts[name] = yaml.safe_dump(value).split("\n")[0].strip("'")
        for preset, defaults in others.items():
            if (other := defaults.pop(name)) != value:
                texts[name] += f"; {yaml.safe_dump(other).splitlines()[0]} with --preset {preset}"
        if name in words:
            texts[name] += f" (of {', '.join(words[name])})"
    for preset, own in others.items():  # settings that no other preset has
        for name in [name for name in own if name != "seed"]:
            choices = f" (of {', '.join(words[name])})" if name in words else ""
            texts[name] = f"{own[name]}; with --preset {preset} only{choices}"
    return texts


def read_changes(texts: list[str] | None, *place: str) -> tuple[Mapping[str, Any], Positions]:
    """Read the values of `--set`, and where each of them comes from.

    Args:
        texts: `key=value`, one for each option.
        place: path of the settings in the model that they are part of.

    Raises:
        RecipeError: one of them is not `key=value`.
    """
    values: dict[str, Any] = {}
    positions = Positions("--set")
    overrides = [replace(entry, keys=(*place, *entry.keys)) for entry in parse_overrides(texts or (), "steps=3000")]
    apply_overrides(values, overrides, positions)
    for end, key in enumerate(place, 1):
        values = values.get(key, {})
        positions.places.pop(place[:end], None)  # no option has set all of them
    return values, positions


def check_base(preset: str, base: Path | None) -> None:
    """Check that a preset that builds on a published model has it.

    Raises:
        RecipeError: it has not.
    """
    if preset != "tiny" and base is None:
        foundation = "Stable Diffusion 1.5 inpainting" if preset == "catdiffusion" else "SDXL-inpainting"
        raise RecipeError(
            f"the preset {preset} builds on {foundation}: name its folder with --base, or choose --preset tiny"
        )


TRAINING_FILES = (
    "checkpoint*",
    "log.jsonl",
    "codec.*",
    "votes.json",
    "unet",
    "semantic_inpainter",
    "remover",
    "discriminator",
    ".*",
)
"""Names in a folder whose training was stopped before its first checkpoint."""


def check_out(out: Path) -> None:
    """Check that a folder is a training's own: it is new, is empty, or has a training.

    Raises:
        ForeignTarget: it is a file, is or is in a run or a loop, or has files of something else.
    """
    for place in (out.absolute(), *out.absolute().parents):
        if place.exists() and not place.is_dir():
            raise ForeignTarget(f"--out {out}: '{place}' is a file; name a folder for the training")
        if any((place / name).is_file() for name in (PLAN, LOOP)):
            raise ForeignTarget(f"--out {out}: '{place}' is a run or a loop; name a folder outside it")
    if not out.is_dir() or (out / "checkpoint.json").is_file():
        return
    for name in sorted(entry.name for entry in out.iterdir()):
        if not any(fnmatchcase(name, pattern) for pattern in TRAINING_FILES):
            raise ForeignTarget(
                f"--out {out}: it has files of something else ({name}); name a new folder, or one whose training is "
                "to be continued"
            )


def describe_training(settings: Any, rows: int, noun: str) -> str:
    """Describe a training before its first step, and warn of a batch that repeats its rows.

    Args:
        settings: of the training, with `steps` and `batch`.
        rows: number of what it learns from.
        noun: for one of them.
    """
    text = f"training: {settings.steps} steps, {settings.batch} of {format_count(rows, noun)} each"
    if settings.batch > rows:
        text += f"\nwarning: a step has some of them more than once; --set batch={rows} is enough"
    return text


@contextmanager
def interruptible() -> Iterator[None]:
    """Print one line where the user stops a training."""
    with explain_interrupt("stopped; the same command continues from the last checkpoint"):
        yield
