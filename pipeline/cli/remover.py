"""`rasura remover …`. Nothing heavy is imported before a command needs it."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from rasura.pipeline.cli.options import given as given_options

remover = typer.Typer(
    help="Train a remover on the triplets of runs, and distil it into one that needs four steps.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

Runs = Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders or URIs that `rasura run` wrote into.")]
Flows = Annotated[
    list[str], typer.Option("--flow", metavar="FLOW", help="Flows whose triplets are learned from; in every run.")
]
Split = Annotated[str | None, typer.Option(metavar="NAME", help="Only triplets of this split.")]
Out = Annotated[Path, typer.Option(metavar="FOLDER", help="Where it is to be; goes on if it was begun.")]
Prompts = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The empty prompt's embeddings, in place of text encoders.")
]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting: steps=3000, size=256.")]
Workers = Annotated[
    int, typer.Option(min=0, help="0 trains in this process; more in so many of Ray Train, one GPU each.")
]
Seed = Annotated[int, typer.Option(min=0)]


def _rows(runs: list[str], flows: list[str], split: str | None, seed: int) -> tuple[Any, list[Any]]:
    """A reader, and the rows of each flow in each run.

    Raises:
        TrainingFailed, NotTriplets: there are none, or they are something else.
    """
    from rasura.manifests.formats.huggingface import NotTriplets
    from rasura.manifests.storage import Store
    from rasura.networks.checkpoint import TrainingFailed
    from rasura.pipeline.loop.candidates import Reader
    from rasura.pipeline.loop.recipe import Rows

    reader = Reader(Store("."))
    wanted = [Rows(run=run, flow=flow, split=split, limit=None) for run in runs for flow in flows]
    for rows in wanted:
        if lacks := {"source", "target", "mask"} - set(reader.tables(rows.run).table(rows.flow).whole):
            raise NotTriplets(f"rows of '{rows.flow}' in {rows.run} are no triplets: no {', '.join(sorted(lacks))}")
    refs = reader.refs(wanted, seed)
    if not refs:
        where = f"{', '.join(flows)} of {', '.join(runs)}" + (f" in the split '{split}'" if split else "")
        raise TrainingFailed(f"there are no triplets to learn from: {where}")
    return reader, refs


def _training(**told: Any) -> Any:
    from pydantic import ValidationError

    from rasura.pipeline.loop.recipe import Training

    try:
        return Training.model_validate(told)
    except ValidationError as error:
        said = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise typer.BadParameter(said) from None


def _carry_out(work: Callable[[], object], workers: int, out: Path, gpus: bool) -> None:
    from rasura.pipeline.training.workers import carry_out

    try:
        carry_out(work, workers, out, gpus)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from the last checkpoint", err=True)
        raise typer.Exit(130) from None


@remover.command()
def train(
    runs: Runs,
    flow: Flows,
    out: Out,
    preset: Annotated[str, typer.Option(help="tiny: from nothing, on a CPU. sdxl: SDXL-inpainting, further.")] = "sdxl",
    base: Annotated[Path | None, typer.Option(metavar="FOLDER", help="SDXL-inpainting, for the preset sdxl.")] = None,
    prompts: Prompts = None,
    start: Annotated[
        Path | None, typer.Option("--from", metavar="REMOVER", help="Go on from this one: a folder of `train`.")
    ] = None,
    split: Split = None,
    set: Set = None,
    seed: Seed = 0,
    workers: Workers = 0,
) -> None:
    """Train a remover: all of the nine-channel UNet, or with `--set learn=lora` a LoRA of it."""
    from functools import partial

    from rasura.pipeline.training import remover as loop_models

    given = _training(preset=preset, base=base, prompts=prompts, settings=given_options(set), workers=workers)
    settings = loop_models.training_settings(given, seed, tune=False)
    reader, refs = _rows(runs, flow, split, seed)
    codec = out / loop_models.CODEC
    if preset == "tiny" and start is None and not codec.is_file():
        out.mkdir(parents=True, exist_ok=True)
        loop_models.fit_codec([reader.row(ref)["source"] for ref in refs[: loop_models.FITTED]], codec, settings.size)
    work = partial(loop_models.train, given, settings, loop_models.items(reader.home, refs), codec, start, out)
    _carry_out(work, workers, out, gpus=preset != "tiny")
    typer.echo(f"{out}: learned from {len(refs)} triplets in {settings.steps} steps")


@remover.command()
def distill(
    runs: Runs,
    flow: Flows,
    base: Annotated[Path, typer.Option(metavar="FOLDER", help="SDXL-inpainting, which the remover stands on.")],
    start: Annotated[
        Path, typer.Option("--from", metavar="REMOVER", help="What is distilled: a folder of `train`, or a UNet's.")
    ],
    out: Out,
    prompts: Prompts = None,
    teacher_prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Embeddings of the teacher's two prompts, likewise.")
    ] = None,
    split: Split = None,
    set: Set = None,
    seed: Seed = 0,
    workers: Workers = 0,
) -> None:
    """Distil a trained remover into a LoRA that needs four steps, as RORem does; it runs as `rorem-lcm`."""
    from functools import partial

    from rasura.pipeline.training import remover as loop_models

    asked = {"teacher_prompts": teacher_prompts, "settings": given_options(set)}
    given = _training(preset="sdxl", base=base, prompts=prompts, workers=workers, distill=asked)
    settings = loop_models.distillation_settings(given, seed)
    settings.check()
    reader, refs = _rows(runs, flow, split, seed)
    teacher = loop_models.teacher(given, start, out)
    _carry_out(
        partial(loop_models.distil, given, settings, loop_models.items(reader.home, refs), teacher, out),
        workers,
        out,
        gpus=True,
    )
    typer.echo(f"{out}: learned from {len(refs)} triplets in {settings.steps} steps; to run it:")
    typer.echo(f"  {{kind: rorem-lcm, base: {base}, unet: {teacher.unet}, lora: {out / loop_models.LORA}}}")
