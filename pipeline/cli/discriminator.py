"""`rasura discriminator …` and `rasura ground-truth`. Nothing heavy is imported before a command needs it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rasura.pipeline.cli.options import APP_SETTINGS, FlowsOption, PromptsOption, QuietOption, RunArgument, SeedOption
from rasura.pipeline.cli.output import echo, echo_line
from rasura.pipeline.cli.trainings import (
    BaseOption,
    ChangesOption,
    DiscriminatorTraining,
    OutOption,
    check_base,
    check_out,
    describe_training,
    interruptible,
    read_changes,
)

discriminator = typer.Typer(
    help="Train, calibrate and evaluate the discriminator of candidates on the votes of a review.", **APP_SETTINGS
)

FolderArgument = Annotated[Path, typer.Argument(metavar="DISCRIMINATOR", help="The discriminator's folder.")]
VotesOption = Annotated[
    list[Path], typer.Option("--votes", metavar="FILE", help="votes.parquet or votes.jsonl; may be repeated.")
]
ReviewersOption = Annotated[
    Literal["people", "oracle"] | None,
    typer.Option(
        "--reviewers",
        help="Whose votes count where the files have both: people's, or the ground-truth reviewer's (oracle).",
    ),
]
NAMES: Mapping[str, str] = {"people": "people", "oracle": "the ground-truth reviewer"}
"""The two sorts of reviewers as they are shown."""

UNTRAINED: Mapping[str, float] = {"evaluate": 0.3, "calibrate": 0.7}
"""Shares of the scenes for a discriminator that has not learned from these votes."""


def _load_examples(
    run: str, files: Sequence[Path], reviewers: Literal["people", "oracle"] | None, flows: Sequence[str] | None
) -> tuple[Any, str]:
    """Load the candidates of a run that have votes, and whose the votes are."""
    from rasura.annotator.exchange.vote_rows import BadVotes
    from rasura.manifests.storage import Store
    from rasura.pipeline.training.votes import load_examples, read_votes_files

    rows, sort = read_votes_files(files, reviewers)
    if not rows:
        names = ", ".join(map(str, files))
        raise BadVotes(f"there are no votes of {NAMES[sort]} in {names}: let them review first (rasura review {run})")
    return load_examples(Store(run), rows, flows or []), sort


def _select_side(folder: Path, examples: Any, side: str) -> Any:
    """Select the examples of one side, as the training has divided them."""
    from rasura.pipeline.training.discriminator import SIDES
    from rasura.pipeline.training.votes import divide_examples

    division: dict[str, Any] = {"shares": UNTRAINED, "seed": 0}
    if (folder / SIDES).is_file():
        division = json.loads((folder / SIDES).read_text())
    return divide_examples(examples, division["shares"], division["seed"])[side]


@discriminator.command(cls=DiscriminatorTraining)
def train(
    run: RunArgument,
    votes: VotesOption,
    out: OutOption,
    preset: Annotated[
        Literal["tiny", "sdxl", "rorem"],
        typer.Option(
            help="tiny: from nothing, on a CPU. sdxl, rorem: a LoRA on SDXL-inpainting.",
        ),
    ] = "sdxl",
    base: BaseOption = None,
    prompts: PromptsOption = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", metavar="DISCRIMINATOR", help="Start from the weights of this trained discriminator."),
    ] = None,
    set: ChangesOption = None,
    seed: SeedOption = 0,
    reviewers: ReviewersOption = None,
    flow: FlowsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train a discriminator on half of the votes' scenes; the others calibrate and evaluate it."""
    from rasura.discriminator import model
    from rasura.discriminator.dataset import check_examples
    from rasura.pipeline.run.progress import Progress
    from rasura.pipeline.training import discriminator as training
    from rasura.pipeline.training.settings import build_discriminator_settings
    from rasura.pipeline.training.votes import SHARES, divide_examples

    check_out(out)
    if start is None:
        check_base(preset, base)
    config, settings = build_discriminator_settings(preset, seed, *read_changes(set))
    examples, sort = _load_examples(run, votes, reviewers, flow)
    sides = divide_examples(examples, SHARES, seed)
    check_examples(sides["learn"], "votes to learn from")
    if start:
        learner = model.load(start, base, train=True)
        if learner.config.preset == "tiny":
            learner.network.requires_grad_(True)
    else:
        learner = training.create_discriminator(config, sides["learn"], base, prompts, seed)
    division = {"shares": dict(SHARES), "seed": seed, "run": run, "reviewers": sort}
    with interruptible(), Progress(quiet) as progress:
        progress.print(describe_training(settings, len(sides["learn"]), "candidate"))
        summary = training.train(learner, sides["learn"], settings, out, division, progress.track("training", "steps"))
    echo(
        f"{out}: learned from {summary['votes']} candidates ({NAMES[sort]}), best at step {summary['best_step']} of "
        f"{summary['step']}; {len(sides['calibrate'])} are left to calibrate on, {len(sides['evaluate'])} to "
        "evaluate on"
    )


@discriminator.command()
def calibrate(
    folder: FolderArgument,
    run: RunArgument,
    votes: VotesOption,
    precision_target: Annotated[
        float,
        typer.Option(
            "--precision-target",
            "--promise",
            min=0.5,
            max=0.999,
            help="Share of the accepted candidates that a person would accept (--promise is its former name).",
        ),
    ] = 0.9,
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.9999, help="Confidence at which the precision target holds.")
    ] = 0.95,
    method: Annotated[
        Literal["temperature", "scaling", "isotonic"], typer.Option(help="How scores become probabilities.")
    ] = "scaling",
    each: Annotated[bool, typer.Option("--each/--best", help="Count every candidate, or a scene's best.")] = False,
    base: BaseOption = None,
    reviewers: ReviewersOption = None,
    flow: FlowsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Turn scores into probabilities, and choose for each remover the threshold that meets the precision target."""
    from rasura.discriminator.judges import folder as judges
    from rasura.pipeline.run.progress import Progress
    from rasura.pipeline.training import discriminator as training

    judges.list_files(folder, base)
    examples, sort = _load_examples(run, votes, reviewers, flow)
    side = _select_side(folder, examples, "calibrate")
    trained = training.open_discriminator(folder, base)
    with Progress(quiet) as progress:
        on_progress = progress.track("calibration", "candidates")
        rule = training.calibrate(trained, folder, side, method, precision_target, confidence, not each, on_progress)
    echo(
        f"{folder}: calibrated on {len(side)} candidates ({NAMES[sort]}); precision target {precision_target:.2f} at "
        f"{confidence:.0%}"
    )
    for name, threshold in {**rule.removers, "overall": rule.overall}.items():
        if threshold.threshold is None:
            echo(f"  {name}: nothing is accepted: {threshold.why}")
        else:
            echo(
                f"  {name}: above {threshold.threshold:.3f}, where {threshold.yes} of {threshold.count} are yes "
                f"({threshold.precision:.3f}, at least {threshold.low:.3f})"
            )


@discriminator.command()
def evaluate(
    folder: FolderArgument,
    run: RunArgument,
    votes: VotesOption,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The discriminator's own folder by default.")
    ] = None,
    base: BaseOption = None,
    reviewers: ReviewersOption = None,
    flow: FlowsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Measure a calibrated discriminator on votes that it has not learned from: evaluation.json and evaluation.svg."""
    from rasura.discriminator.calibration import read_rule
    from rasura.discriminator.judges import folder as judges
    from rasura.pipeline.run.progress import Progress
    from rasura.pipeline.training import discriminator as training

    judges.list_files(folder, base)
    rule = read_rule(folder)
    examples, sort = _load_examples(run, votes, reviewers, flow)
    side = _select_side(folder, examples, "evaluate")
    trained = training.open_discriminator(folder, base)
    with Progress(quiet) as progress:
        on_progress = progress.track("evaluation", "candidates")
        figures = training.evaluate(trained, rule, side, out or folder, on_progress=on_progress)
    accepted = figures["promise"]
    echo(f"{len(side)} candidates ({NAMES[sort]}): AUC {figures['auc']:.3f}, calibration error {figures['ece']:.3f}")
    if accepted["kept"]:
        echo(
            f"accepted {accepted['kept']} of {accepted['of']}, {accepted['precision']:.3f} of them yes (95 %: "
            f"{accepted['low']:.3f} to {accepted['high']:.3f}; precision target {accepted['promise']:.2f})"
        )
    else:
        echo(f"accepted none of {accepted['of']}; {accepted['people']} are left to people")
    for name, rates in figures["removers"].items():
        echo(
            f"  {name}: {rates['people']:.1f} % by {NAMES[sort]}, {rates['judge']:.1f} % by the discriminator, "
            f"{rates['size']}"
        )


@discriminator.command()
def create(
    out: OutOption,
    backend: Annotated[Literal["vlm", "remove", "rc_s"], typer.Option(help="The kind of judge.")],
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="vlm: an OpenAI-compatible API, as http://localhost:8000/v1.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="vlm: the model's name on that server.")] = None,
    prompt: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="vlm: the question, one of Rasura's or a text file.")
    ] = "removal-1",
    samples: Annotated[int, typer.Option(min=1, max=16, help="vlm: answers per candidate; their mean counts.")] = 1,
    max_tokens: Annotated[
        int | None, typer.Option(min=16, help="vlm: tokens of an answer at most, with the model's thoughts.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="remove: SAM's image encoder, rc_s: DINOv2's, as ONNX."),
    ] = None,
) -> None:
    """Create a discriminator that is not trained: a VLM behind a server, or a metric with given weights."""
    from rasura.discriminator.judges import folder as judges

    check_out(out)
    if backend == "vlm":
        if not url or not model:
            raise typer.BadParameter("a VLM needs --url and --model")
        limit = {} if max_tokens is None else {"max_tokens": max_tokens}
        judges.create_vlm(out, url, model, prompt, samples=samples, **limit)
    elif weights is None:
        raise typer.BadParameter(f"the backend {backend} needs --weights")
    else:
        judges.create_metric(out, backend, weights)
    echo(f"{out}: created; check it (rasura discriminator check), then calibrate it on votes")


@discriminator.command()
def combine(
    run: RunArgument,
    members: Annotated[
        list[Path],
        typer.Option("--member", metavar="DISCRIMINATOR", help="A discriminator's folder; at least two times."),
    ],
    votes: VotesOption,
    out: OutOption,
    base: BaseOption = None,
    reviewers: ReviewersOption = None,
    flow: FlowsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Combine discriminators into an ensemble, weighted by votes of half of the scenes; the others calibrate it."""
    from rasura.pipeline.run.progress import Progress
    from rasura.pipeline.training import discriminator as training
    from rasura.pipeline.training.votes import SHARES, divide_examples

    check_out(out)
    if len(members) < 2:
        raise typer.BadParameter("an ensemble has at least two members: give --member two times or more")
    examples, sort = _load_examples(run, votes, reviewers, flow)
    divisions = [_read_division(member) for member in members]
    if any(division not in (divisions[0], None) for division in divisions):
        raise typer.BadParameter("the members have learned from differently divided votes: train them with one --seed")
    default: dict[str, Any] = {"shares": dict(SHARES), "seed": 0}
    division = next((entry for entry in divisions if entry), default)
    learn = divide_examples(examples, division["shares"], division["seed"])["learn"]
    with Progress(quiet) as progress:
        weights = training.combine(members, base, learn, out, progress.track("weights", "candidates"))
    (out / training.SIDES).write_text(json.dumps({**division, "run": run, "reviewers": sort}, indent=2) + "\n")
    for member, weight in zip(members, weights, strict=True):
        echo(f"  {member}: {weight:+.3f}")
    echo(f"{out}: weighted on {len(learn)} candidates ({NAMES[sort]}); calibrate it on the others")


def _read_division(folder: Path) -> dict[str, Any] | None:
    """Read how the votes of a discriminator were divided; None where it has learned from none."""
    from rasura.pipeline.training.discriminator import SIDES

    if not (folder / SIDES).is_file():
        return None
    division = json.loads((folder / SIDES).read_text())
    return {"shares": division["shares"], "seed": division["seed"]}


@discriminator.command()
def check(
    folder: FolderArgument,
    run: RunArgument,
    flow: FlowsOption = None,
    limit: Annotated[int, typer.Option(min=20, help="Triplets with a true target, at most.")] = 200,
    base: BaseOption = None,
    quiet: QuietOption = False,
) -> None:
    """Check a discriminator without people: does it fall with blur, and tell true, blurred and swapped holes apart?

    It needs a run with triplets whose true target is known. A discriminator that fails may keep nothing.
    """
    from rasura.manifests.storage import Store
    from rasura.pipeline.run.progress import Progress
    from rasura.pipeline.training import discriminator as training
    from rasura.pipeline.training.triplets import read_true_triplets

    triplets = read_true_triplets(Store(run), flow or [], limit)
    with Progress(quiet) as progress:
        battery = training.check(folder, base, triplets, progress.track("battery", "triplets"))
    levels = ", ".join(f"{value:.2f}" for value in battery.curve)
    echo(f"{folder}: {battery.rows} triplets; mean score of the true target and four blurs: {levels}")
    echo(f"  falls with blur: {battery.monotone:.0%} of the steps ({battery.monotone_rows:.0%} of all triplets')")
    echo(f"  original > blurred > swapped: {battery.ordered:.1%}; true target above source: {battery.untouched:.1%}")
    echo(f"  mirrored pictures: rank correlation {battery.mirrored:.3f}")
    for fault in battery.faults:
        echo_line(f"  ✗ {fault}")
    echo("passed" if battery.passed else "failed: it may not decide what is kept")
    if not battery.passed:
        raise typer.Exit(1)


def ground_truth(
    run: RunArgument,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for votes.parquet and votes.jsonl.")],
    flow: FlowsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Vote as the ground-truth reviewer: by measured closeness to the true picture, where a candidate has one."""
    from rasura.manifests.storage import Store
    from rasura.pipeline.run.progress import Progress
    from rasura.pipeline.training.oracle import review_run, write_votes

    with Progress(quiet) as progress:
        rows = list(review_run(Store(run), flow or [], on_progress=progress.track("votes", "candidates")))
    write_votes(rows, Store(str(out)))
    yes = sum(row["verdict"] == "yes" for row in rows)
    echo(f"{out}: {len(rows)} votes of the ground-truth reviewer, {yes} of them yes")
