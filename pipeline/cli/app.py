"""The command line. Nothing heavy is imported before a command needs it, so that `rasura --help` answers at once."""

from pathlib import Path
from typing import Annotated

import typer

from rasura.manifests.safety.text import SafeFormatter
from rasura.manifests.spelling import format_count
from rasura.pipeline.cli import comparisons, curation, discriminator, loop, remover, review
from rasura.pipeline.cli.export import export
from rasura.pipeline.cli.interrupts import explain_interrupt
from rasura.pipeline.cli.options import (
    APP_SETTINGS,
    ErrorsArgument,
    InterruptibleGroup,
    JsonOption,
    QuietOption,
    RecipeArgument,
    RetryFailedOption,
    SetOption,
    explain,
    get_errors_to_retry,
)
from rasura.pipeline.cli.output import echo, echo_line, print_tables, report_mending, warn

__all__ = ["app", "explain"]

app = typer.Typer(
    help="Make and check the training data of models that erase objects from photographs.",
    cls=InterruptibleGroup,
    **APP_SETTINGS,
)

app.add_typer(review.review, name="review")
app.add_typer(review.votes, name="votes")
app.add_typer(discriminator.discriminator, name="discriminator")
app.add_typer(loop.loop, name="loop")
app.add_typer(remover.remover, name="remover")
app.command()(curation.audit)
app.command()(curation.masks)
app.command()(comparisons.diff)
app.command()(comparisons.estimate)
app.command("ground-truth")(discriminator.ground_truth)
app.command("oracle", hidden=True)(discriminator.ground_truth)  # its former name

INIT_KINDS = ("pairs", "clip", "photos", "loop")


def _print_version(value: bool) -> None:
    if value:
        from rasura import __version__

        echo(f"rasura {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Make and check the training data of models that erase objects from photographs."""
    import logging

    if logging.lastResort is not None:  # what prints warnings where nothing else is set up
        logging.lastResort.setFormatter(SafeFormatter("warning: %(message)s"))


@app.command()
def init(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Name of the recipe and of its file; the kind by default.")
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="pairs: a fixed camera's pictures with and without an object. clip: a video of a fixed camera. "
            "photos: photographs and a remover. loop: RORem's loop on the candidates of a run.",
        ),
    ] = "pairs",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file where it is there.")] = False,
) -> None:
    """Write a commented starter recipe into this folder."""
    from rasura.pipeline.recipe.starters import write_starter

    if kind not in INIT_KINDS:
        raise typer.BadParameter(f"'{kind}': it is {', '.join(INIT_KINDS)}", param_hint="--kind")
    file, needs = write_starter(Path(), name or kind, kind, force)
    command = "rasura loop" if kind == "loop" else "rasura run"
    echo(f"{file} reads {needs}; when that is there, check it with `rasura check {file}`")
    echo(f"and start it with `{command} {file}`")


@app.command()
def check(recipe: RecipeArgument, set: SetOption = None) -> None:
    """Check the recipe of a run or a loop, and print what would be done; nothing is started.

    Weights of the Hugging Face hub are fetched into its cache, as for a run.
    """
    from rasura.pipeline.cli.check import check_recipe

    echo(check_recipe(recipe, set or ()))


@app.command()
def run(
    recipe: RecipeArgument,
    set: SetOption = None,
    into: Annotated[str | None, typer.Option(metavar="URI", help="Folder or bucket; runs/<name> by default.")] = None,
    only: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Run a flow, or a flow up to a stage (STAGE or FLOW.STAGE).")
    ] = None,
    retry_failed: RetryFailedOption = False,
    errors: ErrorsArgument = None,
    quiet: QuietOption = False,
) -> None:
    """Run a recipe, or continue where it was left. What is done is not done again."""
    retried = get_errors_to_retry(retry_failed, errors)
    with explain_interrupt("stopped; what was committed is whole, and the same command continues from there"):
        from rasura.pipeline.run.run import run as run_recipe

        result = run_recipe(recipe, into, set or (), only, quiet, retried)
    for line in result.describe():
        echo_line(line)
    for warning in result.list_warnings():
        warn(warning)
    result.check()


@app.command()
def status(
    run: Annotated[str, typer.Argument(metavar="RUN|LOOP", help="A run or a loop: its folder or URI.")],
    json: JsonOption = False,
) -> None:
    """Show what became of each input: in, kept, rejected by reason, failed by error, seconds, rate."""
    from rasura.manifests.errors import ReviewError
    from rasura.manifests.run_layout import LOOP
    from rasura.manifests.storage import Store

    if Store(run).exists(LOOP):
        from rasura.pipeline.cli.loop import show_accounting

        show_accounting(run, json)
        return
    from rasura.pipeline.run.accounting import compute_accounting, to_json_values
    from rasura.pipeline.run.review import read_review_accounting, read_row_verdicts, summarize_review

    accounting, review, fault = compute_accounting(Store(run)), None, None
    verdicts = None
    try:
        review = read_review_accounting(Store(run))
        verdicts = summarize_review(Store(run), read_row_verdicts(Store(run)))
    except ReviewError as error:
        fault = str(error)
    if json:
        import json as encoder

        values = to_json_values(accounting) | {"review": vars(review[0]) if review else None, "review_fault": fault}
        values["verdicts"] = vars(verdicts) if verdicts else None
        echo(encoder.dumps(values, indent=1))
        return
    print_tables(accounting)
    if review or fault:
        echo(f"review: {review[0] if review else fault}")
    if verdicts:
        echo(f"verdicts: {verdicts}")


@app.command()
def stages(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One stage or source; all where left out.")
    ] = None,
) -> None:
    """Describe what recipes consist of: sources and stages, and with NAME the columns and parameters of one."""
    from rasura.stages.registry import SOURCES, STAGES, describe

    if name:
        echo(describe(name))
        return
    for noun, names in (("sources", SOURCES), ("stages", STAGES)):
        echo(f"{noun}:")
        for entry in names:
            echo(f"  {entry:<12} {describe(entry).splitlines()[0].partition(': ')[2]}")


@app.command()
def removers(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One remover; all where left out.")] = None,
) -> None:
    """List the removers that a recipe can name: role, size, steps, memory, licence; and with NAME the keys of one."""
    from rasura.pipeline.cli.removers import describe_remover, describe_removers

    for line in describe_remover(name) if name else describe_removers():
        echo(line)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A pickle of tensors: .bin, .pt, .pth or .ckpt.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The safetensors file to write.")],
) -> None:
    """Write a pickle's tensors as safetensors. Nothing in it is run; one that holds more than tensors is refused."""
    from rasura.networks.weights import convert_pickle

    count = convert_pickle(source, out)
    echo(f"{out}: {format_count(count, 'tensor')}")


@app.command()
def verify(
    where: Annotated[
        str, typer.Argument(metavar="RUN|LOOP|DATASET", help="A run, a loop, or a dataset that a run wrote.")
    ],
    mend: Annotated[
        bool,
        typer.Option("--mend", help="Drop what is damaged in a run, with its dataset: the next run makes it again."),
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Check hashes, counts, columns, every picture, and that source = target outside the foreground mask."""
    from rasura.manifests.errors import ReviewError
    from rasura.manifests.run_layout import LOOP, PLAN
    from rasura.manifests.storage import Store
    from rasura.pipeline.run.mending import mend as mend_run
    from rasura.pipeline.run.progress import Progress
    from rasura.pipeline.run.review import read_review_accounting
    from rasura.pipeline.run.verify import count_rows
    from rasura.pipeline.run.verify import verify as verify_store

    store = Store(where)
    if store.exists(LOOP):
        from rasura.pipeline.cli.loop import verify_loop

        verify_loop(where, mend)
        return
    if mend and not store.exists(PLAN):
        hint = "an export is written again with `rasura export`"
        raise typer.BadParameter(f"'{where}' is no run and no loop: {hint}", param_hint="--mend")
    with Progress(quiet) as progress:
        progress.start("verify", count_rows(store))
        faults, checked = verify_store(store, progress.advance)
    try:
        if review := read_review_accounting(store):
            faults, checked = [*faults, *(f"review: {fault}" for fault in review[1])], [*checked, "review"]
    except ReviewError as error:
        faults = [*faults, f"review: {error}"]
    for fault in faults:
        echo_line(fault)
    if faults:
        echo(f"{format_count(len(faults), 'fault')} in {where}")
        if store.exists(PLAN):
            report_mending(where, faults, mend_run(store) if mend else None)
        raise typer.Exit(1)
    echo(f"{where}: all is well ({', '.join(checked)})")


@app.command()
def report(
    run: Annotated[str, typer.Argument(metavar="RUN|LOOP", help="A run, or a loop's folder.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The page; <RUN>/report.html by default.")] = None,
    rows: Annotated[
        int, typer.Option(min=0, help="Rows of each table with pictures, those nearest to a limit among them.")
    ] = 300,
    full: Annotated[bool, typer.Option("--full", help="Store these pictures at full size, too.")] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page instead, with the pictures of all rows at full size.")
    ] = False,
    host: Annotated[str, typer.Option(help="With --serve: address to bind; 0.0.0.0 for other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="With --serve: port; 0: a free one.")] = 8766,
    public_url: Annotated[
        str | None, typer.Option(metavar="URL", help="With --serve: address that a browser takes, behind a proxy.")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Write one HTML page: all rows with search and filters, pictures, measures with limits to move, rejected, cost.

    It needs no network. Many pictures go into a folder beside it, which has to be copied with it.
    """
    if serve:
        from rasura.pipeline.cli.report import serve_report

        serve_report(run, host, port, public_url)
        return
    from rasura.manifests.storage import Store
    from rasura.pipeline.report.run_page import write
    from rasura.pipeline.run.progress import Progress

    with Progress(quiet) as progress:
        place = write(Store(run), out, rows, full, progress.track("report", "rows"))
    echo(f"report: {place}")


@app.command()
def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="A row's id, or its first letters.")],
    run: Annotated[str, typer.Option("--run", metavar="RUN", help="The run; those in runs/ by default.")] = "",
    pictures: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write its pictures there as PNG.")] = None,
) -> None:
    """Show where a row came from, back to its photos; or where an input was rejected or failed."""
    from rasura.manifests.storage import Store
    from rasura.pipeline.run.lineage import describe_row, list_runs

    echo(describe_row([Store(run)] if run else list_runs(), id, pictures))


app.command()(export)
