"""`rasura remover …`. Nothing heavy is imported before a command needs it."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rasura.manifests.errors import RecipeError
from rasura.pipeline.cli.options import APP_SETTINGS, PromptsOption, QuietOption, RunsArgument, SeedOption
from rasura.pipeline.cli.output import echo
from rasura.pipeline.cli.trainings import (
    BaseOption,
    ChangesOption,
    OutOption,
    RemoverDistillation,
    RemoverTraining,
    check_base,
    check_out,
    describe_training,
    interruptible,
    read_changes,
)

remover = typer.Typer(
    help="Train a remover on the triplets of runs, and distill it into one that needs four steps.", **APP_SETTINGS
)

FlowsOption = Annotated[
    list[str], typer.Option("--flow", metavar="FLOW", help="Flows to learn from, in every run; may be repeated.")
]
SplitOption = Annotated[str | None, typer.Option("--split", metavar="NAME", help="Only triplets of this split.")]
WorkersOption = Annotated[
    int,
    typer.Option("--workers", min=0, max=4096, help="Workers of Ray Train, one GPU each; 0: train in this process."),
]

PresetOption = Annotated[
    Literal["tiny", "sdxl", "objectclear", "catdiffusion"],
    typer.Option(
        help="tiny: from nothing, on a CPU. sdxl: SDXL-inpainting, trained further. objectclear: the same with "
        "ObjectClear's fusion module and mask loss, which removes effects as well. catdiffusion: an inserter, learned "
        "in four trainings, --set stage=1-inpainter, 1-adapter, 2-inpainter, 2-all, each --from the last."
    ),
]
ImageEncoderOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="CLIP ViT-L/14, for catdiffusion, and for objectclear on a base that is no ObjectClear."
    ),
]


def _list_rows(
    runs: list[str], flows: list[str], split: str | None, seed: int, needs_effects: bool = False
) -> tuple[Any, list[Any]]:
    """Return a reader, and the rows of each flow in each run.

    Args:
        needs_effects: M_fg is learned from too, so that the rows must have it.

    Raises:
        NoRun, NoTable: a run or a flow is not there.
        WrongRows: a flow's rows are no triplets.
        TrainingFailed: there are no rows.
    """
    from rasura.manifests.storage import Store
    from rasura.networks.checkpoint import TrainingFailed
    from rasura.pipeline.training.rows import FOREGROUND, TRIPLET, RowReader
    from rasura.pipeline.training.settings import FlowRows

    reader = RowReader(Store("."))
    selections = [FlowRows(run=run, flow=flow, split=split, limit=None) for run in runs for flow in flows]
    for selection in selections:
        reader.open_flow(selection.run, selection.flow, (*TRIPLET, FOREGROUND) if needs_effects else TRIPLET)
    refs = reader.list_rows(selections, seed)
    if not refs:
        place = f"{', '.join(flows)} of {', '.join(runs)}" + (f" in the split '{split}'" if split else "")
        raise TrainingFailed(f"there are no triplets to learn from: {place}")
    return reader, refs


def _build_config(seed: int, positions: Any, **values: Any) -> Any:
    """Build the settings of a remover as a recipe has them, and check those of its trainings.

    Raises:
        RecipeError: all that is wrong, a line each.
    """
    from rasura.pipeline.recipe.load import raise_faults, validate
    from rasura.pipeline.training.settings import RemoverSettings, find_remover_faults

    config = validate(values, positions, RemoverSettings)
    raise_faults(list(find_remover_faults(config, seed)), positions)
    return config


def _run(work: Callable[..., object], config: Any, settings: Any, out: Path, quiet: bool, about: str) -> None:
    """Run a training and show its progress, after what it is about."""
    from rasura.pipeline.run.progress import Progress
    from rasura.pipeline.training.placement import estimate_remover_training
    from rasura.pipeline.training.workers import run_training

    with interruptible(), Progress(quiet) as progress:
        progress.print(about)
        memory = estimate_remover_training(config, settings)
        run_training(work, config.workers, out, memory, progress.track("training", "steps"))


@remover.command(cls=RemoverTraining)
def train(
    runs: RunsArgument,
    flow: FlowsOption,
    out: OutOption,
    preset: PresetOption = "sdxl",
    base: BaseOption = None,
    image_encoder: ImageEncoderOption = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The prompt's embeddings in place of text encoders: the empty prompt's, for objectclear those of "
            "'remove the instance of object'.",
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="REMOVER", help="Start from the weights of this remover, a folder that `train` wrote."
        ),
    ] = None,
    split: SplitOption = None,
    set: ChangesOption = None,
    seed: SeedOption = 0,
    workers: WorkersOption = 0,
    quiet: QuietOption = False,
) -> None:
    """Train a remover: all of the nine-channel UNet, or with `--set learn=lora` a LoRA of it."""
    from functools import partial

    from rasura.pipeline.training import remover as training
    from rasura.pipeline.training.settings import build_training_settings

    check_base(preset, base)
    check_out(out)
    changes, positions = read_changes(set, "settings")
    parts = {"base": base, "image_encoder": image_encoder, "prompts": prompts}
    config = _build_config(seed, positions, preset=preset, settings=changes, workers=workers, **parts)
    settings = build_training_settings(config, seed, tune=False)
    needs_effects = preset == "objectclear" and settings.mask_loss > 0
    reader, refs = _list_rows(runs, flow, split, seed, needs_effects)
    codec = out / training.CODEC
    if preset == "tiny" and start is None and not codec.is_file():
        out.mkdir(parents=True, exist_ok=True)
        pictures = [reader.read_row(ref)["source"] for ref in refs[: training.CODEC_PICTURES]]
        training.fit_codec(pictures, codec, settings.size)
    items = training.list_items(reader.home, refs)
    work = partial(training.train_remover, config, settings, items, codec, start, out)
    _run(work, config, settings, out, quiet, describe_training(settings, len(refs), "triplet"))
    echo(f"{out}: learned from {len(refs)} triplets in {settings.steps} steps")
    if preset == "objectclear":
        lora = f", unet: {base}/unet, lora: {out / training.LORA}" if settings.learn == "lora" else ""
        echo(f"to run it:\n  {{kind: objectclear, base: {out}{lora}}}")
    if preset == "catdiffusion":
        from rasura.removers.training.catdiffusion import describe_next

        echo(describe_next(out, training.find_files(config, None)))


@remover.command(cls=RemoverDistillation)
def distill(
    runs: RunsArgument,
    flow: FlowsOption,
    base: Annotated[Path, typer.Option(metavar="FOLDER", help="SDXL-inpainting, which the remover builds on.")],
    start: Annotated[
        Path,
        typer.Option(
            "--from", metavar="REMOVER", help="Remover to imitate: a folder that `train` wrote, or that of a UNet."
        ),
    ],
    out: OutOption,
    prompts: PromptsOption = None,
    teacher_prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Embeddings of the teacher's two prompts, likewise.")
    ] = None,
    split: SplitOption = None,
    set: ChangesOption = None,
    seed: SeedOption = 0,
    workers: WorkersOption = 0,
    quiet: QuietOption = False,
) -> None:
    """Distill a trained remover into a LoRA that needs four steps, as RORem does; it runs as `rorem-lcm`."""
    from functools import partial

    from rasura.pipeline.training import remover as training
    from rasura.pipeline.training.settings import build_distillation_settings

    check_out(out)
    if prompts and not teacher_prompts:
        raise RecipeError(
            "--prompts takes the place of the text encoders: name the embeddings of the teacher's two prompts with "
            "--teacher-prompts"
        )
    changes, positions = read_changes(set, "distill", "settings")
    values = {"teacher_prompts": teacher_prompts, "settings": changes}
    config = _build_config(seed, positions, preset="sdxl", base=base, prompts=prompts, workers=workers, distill=values)
    settings = build_distillation_settings(config, seed)
    reader, refs = _list_rows(runs, flow, split, seed)
    teacher = training.prepare_teacher(config, start, out)
    items = training.list_items(reader.home, refs)
    work = partial(training.distill_remover, config, settings, items, teacher, out)
    _run(work, config, settings, out, quiet, describe_training(settings, len(refs), "triplet"))
    echo(f"{out}: learned from {len(refs)} triplets in {settings.steps} steps; to run it:")
    echo(f"  {{kind: rorem-lcm, base: {base}, unet: {teacher.unet}, lora: {out / training.LORA}}}")
