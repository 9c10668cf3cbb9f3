"""The command line. Nothing heavy is imported before a command needs it: `rasura --help` answers at once."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rasura.pipeline.cli import discriminator as judge_cli
from rasura.pipeline.cli import loop as loop_cli
from rasura.pipeline.cli import remover as remover_cli
from rasura.pipeline.cli.review import review as review_commands
from rasura.pipeline.cli.review import votes as votes_commands

app = typer.Typer(
    help="Makes and checks the training data of models that erase objects from photographs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

app.add_typer(review_commands, name="review")
app.add_typer(votes_commands, name="votes")
app.add_typer(judge_cli.discriminator, name="discriminator")
app.add_typer(loop_cli.loop, name="loop")
app.add_typer(remover_cli.remover, name="remover")
app.command("oracle")(judge_cli.oracle)

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Folder or URI that `rasura run` wrote into.")]


def explain(error: BaseException) -> str | None:
    """The text of an error that is the user's to mend; None for one that is ours."""
    known = {
        "RecipeError", "RunLocked", "RunFailed", "StoreError", "MissingInput", "NoRun", "NoTable", "NotTriplets",
        "SetupFailed", "UnknownId", "NotEnough", "UnknownStage", "ForeignFolder", "BotoCoreError", "ClientError",
        "BadName", "BadVotes", "NothingToReview", "NoDatabase", "BadWeights",
        "OneClass", "WrongJudge", "NotCalibrated", "TrainingFailed", "MissingWeights", "UnknownVotes", "MixedVotes",
        "NoTruth", "OtherLoop", "NoLoop", "WrongLora",
    }  # fmt: skip
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & known or isinstance(error, FileNotFoundError | PermissionError | ConnectionError):
        return str(error)
    extras = {
        "s3fs": "s3", "gcsfs": "gcs", "mitsuba": "studio", "torch": "models", "transformers": "models",
        "diffusers": "models", "lpips": "models",
        "fastapi": "review", "uvicorn": "review", "sqlalchemy": "review", "psycopg": "postgres",
    }  # fmt: skip
    if isinstance(error, ModuleNotFoundError) and (extra := extras.get(error.name or "")):
        return f"'{error.name}' is not installed; install rasura[{extra}]"
    return None


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.")],
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a value, e.g. flows.photos.source.photos.path=pics."),
    ] = None,
    into: Annotated[str | None, typer.Option(metavar="URI", help="Folder or bucket; runs/<name> by default.")] = None,
    only: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Run a flow, or a flow up to a stage (STAGE or FLOW.STAGE).")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Run a recipe, or go on where it was left. What is done is not done again."""
    from rasura.pipeline.run.run import run as conduct

    try:
        result = conduct(recipe, into, set or [], only, quiet)
    except KeyboardInterrupt:
        typer.echo("stopped; what was committed is whole, and the same command goes on from there", err=True)
        raise typer.Exit(130) from None
    for flow, rows in result.rows.items():
        typer.echo(f"{flow}: {rows} rows")
    if result.dataset:
        typer.echo(f"dataset: {result.dataset_rows} rows in {result.dataset}")
    typer.echo(f"run: {result.run}")


@app.command()
def status(
    where: RunArgument,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """What became of each input: in, kept, rejected by reason, failed by error, seconds, rate."""
    from rasura.manifests.storage import Store
    from rasura.pipeline.run.accounting import account
    from rasura.pipeline.run.review import review_of

    ledger, review = account(Store(where)), review_of(Store(where))
    if json:
        import json as encoder

        from rasura.pipeline.run.accounting import as_json

        typer.echo(encoder.dumps(as_json(ledger) | {"review": vars(review[0]) if review else None}, indent=1))
        return
    from rich.console import Console

    from rasura.pipeline.run.accounting import table

    console = Console()
    for line in table(ledger):
        console.print(line)
    if review:
        told = review[0]
        console.print(
            f"review: {told.candidates} candidates = {told.voted} voted + {told.leased} open + {told.waiting} waiting; "
            f"{told.votes} votes"
        )


@app.command()
def stages(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One stage or source; all where left out.")
    ] = None,
) -> None:
    """What recipes are made of: sources and stages, and with NAME the columns and parameters of one."""
    from rasura.stages.registry import SOURCES, STAGES, describe

    if name:
        typer.echo(describe(name))
        return
    for noun, known in (("sources", SOURCES), ("stages", STAGES)):
        typer.echo(f"{noun}:")
        for entry in known:
            typer.echo(f"  {entry:<12} {describe(entry).splitlines()[0].partition(': ')[2]}")


@app.command()
def verify(
    where: Annotated[str, typer.Argument(metavar="RUN|DATASET", help="A run, or a dataset that one wrote.")],
) -> None:
    """Check hashes, counts, columns, every picture, and that source = target outside the foreground mask."""
    from rasura.manifests.storage import Store
    from rasura.pipeline.run.review import review_of
    from rasura.pipeline.run.verify import verify as check

    faults, checked = check(Store(where))
    if review := review_of(Store(where)):
        faults, checked = [*faults, *(f"review: {fault}" for fault in review[1])], [*checked, "review"]
    for fault in faults:
        typer.echo(fault)
    if faults:
        typer.echo(f"{len(faults)} faults in {where}")
        raise typer.Exit(1)
    typer.echo(f"{where}: all is well ({', '.join(checked)})")


@app.command()
def report(
    where: RunArgument,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The page; <RUN>/report.html by default.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Pictures shown of each flow.")] = 12,
    sheet: Annotated[int, typer.Option(min=0, help="Simulated triplets on the contact sheet.")] = 40,
) -> None:
    """Write one self-contained HTML page: pictures, a contact sheet, what the dataset is made of, and the funnel."""
    from rasura.manifests.storage import Store
    from rasura.pipeline.report.run_page import write

    typer.echo(f"report: {write(Store(where), out, rows, sheet)}")


@app.command()
def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="A row's id, or its first letters.")],
    where: Annotated[str, typer.Option("--run", metavar="RUN", help="The run it is in.")] = "",
    pictures: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write its pictures there as PNG.")] = None,
) -> None:
    """Where a row came from, back to its photos; where an input that was dropped ended."""
    from rasura.manifests.storage import Store
    from rasura.pipeline.run.lineage import lineage, runs_here

    stores = [Store(where)] if where else runs_here()
    typer.echo(lineage(stores, id, pictures))


@app.command()
def export(
    where: RunArgument,
    out: Annotated[str, typer.Option(metavar="URI", help="Where to write it.")],
    format: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="huggingface: Rasura's own Parquet, card and manifest. ober: ObjectClear's columns and names. "
            "rorem: RORem's folders with meta.json.",
        ),
    ] = "huggingface",
    flow: Annotated[
        list[str] | None,
        typer.Option(metavar="FLOW", help="Flows in place of the dataset's; of a loop, triplets (default) or votes."),
    ] = None,
) -> None:
    """Write a run's dataset, or what a loop gathered, somewhere else, in a layout that trainers read."""
    from rasura.manifests.storage import Store
    from rasura.pipeline.export import LAYOUTS, export_run

    if format not in LAYOUTS:
        known = ", ".join(LAYOUTS)
        raise typer.BadParameter(f"unknown format '{format}'; known are: {known}", param_hint="--format")
    manifest: dict[str, Any] = export_run(Store(where), Store(out), format, flow or ())
    typer.echo(f"{out}: {manifest['rows']} rows in {len(manifest['files'])} files")
