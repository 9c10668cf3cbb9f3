"""`rasura discriminator …` and `rasura oracle`. Nothing heavy is imported before a command needs it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rasura.pipeline.cli.options import given as given_options

discriminator = typer.Typer(
    help="Train, calibrate and evaluate the judge of candidates on the votes of a review.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

Run = Annotated[str, typer.Argument(metavar="RUN", help="Folder or URI that `rasura run` wrote into.")]
Folder = Annotated[Path, typer.Argument(metavar="JUDGE", help="The judge's folder.")]
Votes = Annotated[
    list[Path], typer.Option("--votes", metavar="FILE", help="votes.parquet or votes.jsonl; may be given again.")
]
Reviewers = Annotated[
    str | None,
    typer.Option(metavar="WHO", help="people or oracle: whose votes count where the files hold both."),
]
Base = Annotated[Path | None, typer.Option(metavar="FOLDER", help="SDXL-inpainting, for a judge that is a LoRA of it.")]
METHODS = ("temperature", "scaling", "isotonic")
FlowNames = Annotated[list[str] | None, typer.Option("--flow", metavar="FLOW", help="Only these flows' candidates.")]

UNTRAINED: Mapping[str, float] = {"evaluate": 0.3, "calibrate": 0.7}
"""For a judge that did not learn from these votes: all of its scenes are held out."""


def _examples(run: str, files: list[Path], reviewers: str | None, flows: list[str] | None) -> tuple[Any, str]:
    from rasura.manifests.storage import Store
    from rasura.pipeline.training import votes as loop_votes

    if reviewers not in (None, "people", "oracle"):
        raise typer.BadParameter(f"'{reviewers}': it is people or oracle", param_hint="--reviewers")
    whose: Literal["people", "oracle"] | None = reviewers  # type: ignore[assignment]
    rows, found = loop_votes.read(files, whose)
    return loop_votes.examples_of(Store(run), rows, flows or []), found


def _side(folder: Path, examples: Any, side: str) -> Any:
    from rasura.pipeline.training import votes as loop_votes
    from rasura.pipeline.training.discriminator import SIDES

    told: dict[str, Any] = {"shares": UNTRAINED, "seed": 0}
    if (folder / SIDES).is_file():
        told = json.loads((folder / SIDES).read_text())
    return loop_votes.sides(examples, told["shares"], told["seed"])[side]


@discriminator.command()
def train(
    run: Run,
    votes: Votes,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the judge is to be; goes on if it was begun.")],
    preset: Annotated[
        str, typer.Option(help="tiny: from nothing, on a CPU. sdxl, rorem: a LoRA on SDXL-inpainting.")
    ] = "sdxl",
    base: Base = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The empty prompt's embeddings, in place of text encoders.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", metavar="JUDGE", help="Go on from this judge, with a new learning rate.")
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Of training or network: steps=3000, size=256."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    reviewers: Reviewers = None,
    flow: FlowNames = None,
) -> None:
    """Train a judge on half of the votes' scenes; the others calibrate and evaluate it."""
    from dataclasses import replace

    from rasura.discriminator import model as judges
    from rasura.discriminator import network
    from rasura.discriminator import train as training
    from rasura.discriminator.dataset import check
    from rasura.pipeline.training import discriminator as loop_judge
    from rasura.pipeline.training import votes as loop_votes

    if preset not in network.PRESETS:
        raise typer.BadParameter(f"'{preset}': it is {', '.join(network.PRESETS)}", param_hint="--preset")
    defaults = training.TINY if preset == "tiny" else training.Settings()
    try:
        config, settings = loop_judge.adjusted(
            network.PRESETS[preset], replace(defaults, seed=seed), given_options(set)
        )
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--set") from None
    given, whose = _examples(run, votes, reviewers, flow)
    sides = loop_votes.sides(given, loop_votes.SIDES, seed)
    learn = sides["learn"]
    check(learn, "votes to learn from")
    if start:
        made = judges.load(start, base, train=True)
        if made.config.preset == "tiny":
            made.network.requires_grad_(True)
    else:
        made = loop_judge.fresh(config, learn, base, prompts, seed)
    told = {"shares": dict(loop_votes.SIDES), "seed": seed, "run": run, "reviewers": whose}
    about = loop_judge.train(made, learn, settings, out, told)
    typer.echo(
        f"{out}: learned from {about['votes']} candidates ({whose}), best at step {about['best_step']} of "
        f"{about['step']}; {len(sides['calibrate'])} are left to calibrate on, {len(sides['evaluate'])} to evaluate on"
    )


@discriminator.command()
def calibrate(
    judge: Folder,
    run: Run,
    votes: Votes,
    promise: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="Share of what is kept that a person would accept.")
    ] = 0.9,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.9999)] = 0.95,
    method: Annotated[str, typer.Option(help="temperature, scaling or isotonic.")] = "scaling",
    each: Annotated[bool, typer.Option("--each/--best", help="Every candidate counts, or each scene's best.")] = False,
    base: Base = None,
    reviewers: Reviewers = None,
    flow: FlowNames = None,
) -> None:
    """Turn scores into probabilities, and choose for each remover the threshold that keeps the promise."""
    from rasura.discriminator import model as judges
    from rasura.pipeline.training import discriminator as loop_judge

    if method not in METHODS:
        raise typer.BadParameter(f"'{method}': it is {', '.join(METHODS)}", param_hint="--method")
    how: Any = method
    judges.files(judge, base)
    given, whose = _examples(run, votes, reviewers, flow)
    held = _side(judge, given, "calibrate")
    opened = loop_judge.opened(judge, base)
    rule = loop_judge.calibrate(opened, judge, held, how, promise, confidence, best=not each)
    typer.echo(f"{judge}: calibrated on {len(held)} candidates ({whose}); promise {promise:.2f} at {confidence:.0%}")
    for name, keep in {**rule.removers, "overall": rule.overall}.items():
        if keep.threshold is None:
            typer.echo(f"  {name}: nothing is kept: {keep.why}")
        else:
            typer.echo(
                f"  {name}: above {keep.threshold:.3f}, where {keep.yes} of {keep.count} are yes "
                f"({keep.precision:.3f}, at least {keep.low:.3f})"
            )


@discriminator.command()
def evaluate(
    judge: Folder,
    run: Run,
    votes: Votes,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The judge's own folder by default.")] = None,
    base: Base = None,
    reviewers: Reviewers = None,
    flow: FlowNames = None,
) -> None:
    """Measure a calibrated judge on votes that nothing was learned from: evaluation.json and evaluation.svg."""
    from rasura.discriminator import model as judges
    from rasura.discriminator.calibration import read_rule
    from rasura.pipeline.training import discriminator as loop_judge

    judges.files(judge, base)
    rule = read_rule(judge)
    given, whose = _examples(run, votes, reviewers, flow)
    held = _side(judge, given, "evaluate")
    found = loop_judge.evaluate(loop_judge.opened(judge, base), rule, held, out or judge)
    kept = found["promise"]
    typer.echo(f"{len(held)} candidates ({whose}): AUC {found['auc']:.3f}, calibration error {found['ece']:.3f}")
    if kept["kept"]:
        typer.echo(
            f"kept {kept['kept']} of {kept['of']}, {kept['precision']:.3f} of them yes "
            f"(95 %: {kept['low']:.3f} to {kept['high']:.3f}; promised {kept['promise']:.2f})"
        )
    else:
        typer.echo(f"kept none of {kept['of']}; {kept['people']} go to people")
    for name, rates in found["removers"].items():
        typer.echo(
            f"  {name}: {rates['people']:.1f} % by {whose}, {rates['judge']:.1f} % by the judge, {rates['size']}"
        )


def oracle(
    run: Run,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where votes.parquet and votes.jsonl go.")],
    flow: FlowNames = None,
) -> None:
    """Vote by measured closeness to the truth on candidates that have one, as reviewer `oracle`."""
    from rasura.manifests.storage import Store
    from rasura.pipeline.training import oracle as rule

    rows = list(rule.votes_on(Store(run), flow or []))
    rule.write(rows, Store(str(out)))
    yes = sum(row["verdict"] == "yes" for row in rows)
    typer.echo(f"{out}: {len(rows)} votes of the oracle, {yes} of them yes")
