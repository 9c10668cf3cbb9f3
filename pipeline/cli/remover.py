"""`rasura remover …`. Nothing heavy is imported before a command needs it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from rasura.pipeline.cli.options import (
    APP_SETTINGS,
    PromptsOption,
    QuietOption,
    RunsArgument,
    SeedOption,
    SetOption,
    read_settings,
)

remover = typer.Typer(
    help="Train a remover on the triplets of runs, and distill it into one that needs four steps.", **APP_SETTINGS
)

FlowsOption = Annotated[
    list[str], typer.Option("--flow", metavar="FLOW", help="Flows to learn from, in every run; may be repeated.")
]
SplitOption = Annotated[str | None, typer.Option("--split", metavar="NAME", help="Only triplets of this split.")]
OutOption = Annotated[
    Path, typer.Option("--out", metavar="FOLDER", help="Folder of the result; a training that it has is continued.")
]
WorkersOption = Annotated[
    int, typer.Option("--workers", min=0, help="0 trains in this process; more in so many of Ray Train, one GPU each.")
]


def _list_rows(runs: list[str], flows: list[str], split: str | None, seed: int) -> tuple[Any, list[Any]]:
    """Return a reader, and the rows of each flow in each run.

    Raises:
        NotTriplets: a flow's rows are something else.
        TrainingFailed: there are no rows.
    """
    from rasura.manifests.formats.dataset_rows import NotTriplets
    from rasura.manifests.storage import Store
    from rasura.networks.checkpoint import TrainingFailed
    from rasura.pipeline.training.rows import RowReader
    from rasura.pipeline.training.settings import FlowRows

    reader = RowReader(Store("."))
    selections = [FlowRows(run=run, flow=flow, split=split, limit=None) for run in runs for flow in flows]
    for selection in selections:
        table = reader.open_tables(selection.run).table(selection.flow)
        if missing := {"source", "target", "mask"} - set(table.full_schema):
            names = ", ".join(sorted(missing))
            raise NotTriplets(f"rows of '{selection.flow}' in {selection.run} are no triplets: they have no {names}")
    refs = reader.list_rows(selections, seed)
    if not refs:
        place = f"{', '.join(flows)} of {', '.join(runs)}" + (f" in the split '{split}'" if split else "")
        raise TrainingFailed(f"there are no triplets to learn from: {place}")
    return reader, refs


def _build_config(**values: Any) -> Any:
    from pydantic import ValidationError

    from rasura.pipeline.training.settings import RemoverSettings

    try:
        return RemoverSettings.model_validate(values)
    except ValidationError as error:
        message = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise typer.BadParameter(message) from None


@contextmanager
def _interruptible() -> Iterator[None]:
    """Print one line where the user stops a training."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped; the same command continues from the last checkpoint", err=True)
        raise typer.Exit(130) from None


def _run(work: Callable[..., object], workers: int, out: Path, gpus: bool, quiet: bool) -> None:
    """Run a training and show its progress."""
    from functools import partial

    from rasura.pipeline.run.progress import Progress
    from rasura.pipeline.training.workers import run_training

    with _interruptible(), Progress(quiet) as progress:
        if not workers:  # a bar cannot be sent to other processes
            work = partial(work, on_progress=progress.track("training", "steps"))
        run_training(work, workers, out, gpus)


@remover.command()
def train(
    runs: RunsArgument,
    flow: FlowsOption,
    out: OutOption,
    preset: Annotated[
        str, typer.Option(help="tiny: from nothing, on a CPU. sdxl: SDXL-inpainting, trained further.")
    ] = "sdxl",
    base: Annotated[Path | None, typer.Option(metavar="FOLDER", help="SDXL-inpainting, for the preset sdxl.")] = None,
    prompts: PromptsOption = None,
    start: Annotated[
        Path | None, typer.Option("--from", metavar="REMOVER", help="Continue from this one: a folder of `train`.")
    ] = None,
    split: SplitOption = None,
    set: SetOption = None,
    seed: SeedOption = 0,
    workers: WorkersOption = 0,
    quiet: QuietOption = False,
) -> None:
    """Train a remover: all of the nine-channel UNet, or with `--set learn=lora` a LoRA of it."""
    from functools import partial

    from rasura.pipeline.training import remover as training
    from rasura.pipeline.training.settings import build_training_settings

    config = _build_config(preset=preset, base=base, prompts=prompts, settings=read_settings(set), workers=workers)
    settings = build_training_settings(config, seed, tune=False)
    reader, refs = _list_rows(runs, flow, split, seed)
    codec = out / training.CODEC
    if preset == "tiny" and start is None and not codec.is_file():
        out.mkdir(parents=True, exist_ok=True)
        pictures = [reader.read_row(ref)["source"] for ref in refs[: training.CODEC_PICTURES]]
        training.fit_codec(pictures, codec, settings.size)
    items = training.list_items(reader.home, refs)
    work = partial(training.train_remover, config, settings, items, codec, start, out)
    _run(work, workers, out, preset != "tiny", quiet)
    typer.echo(f"{out}: learned from {len(refs)} triplets in {settings.steps} steps")


@remover.command()
def distill(
    runs: RunsArgument,
    flow: FlowsOption,
    base: Annotated[Path, typer.Option(metavar="FOLDER", help="SDXL-inpainting, which the remover builds on.")],
    start: Annotated[
        Path, typer.Option("--from", metavar="REMOVER", help="The teacher: a folder of `train`, or a UNet's.")
    ],
    out: OutOption,
    prompts: PromptsOption = None,
    teacher_prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Embeddings of the teacher's two prompts, likewise.")
    ] = None,
    split: SplitOption = None,
    set: SetOption = None,
    seed: SeedOption = 0,
    workers: WorkersOption = 0,
    quiet: QuietOption = False,
) -> None:
    """Distill a trained remover into a LoRA that needs four steps, as RORem does; it runs as `rorem-lcm`."""
    from functools import partial

    from rasura.pipeline.training import remover as training
    from rasura.pipeline.training.settings import build_distillation_settings

    values = {"teacher_prompts": teacher_prompts, "settings": read_settings(set)}
    config = _build_config(preset="sdxl", base=base, prompts=prompts, workers=workers, distill=values)
    settings = build_distillation_settings(config, seed)
    settings.check()
    reader, refs = _list_rows(runs, flow, split, seed)
    teacher = training.prepare_teacher(config, start, out)
    items = training.list_items(reader.home, refs)
    work = partial(training.distill_remover, config, settings, items, teacher, out)
    _run(work, workers, out, True, quiet)
    typer.echo(f"{out}: learned from {len(refs)} triplets in {settings.steps} steps; to run it:")
    typer.echo(f"  {{kind: rorem-lcm, base: {base}, unet: {teacher.unet}, lora: {out / training.LORA}}}")
