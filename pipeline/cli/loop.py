"""`rasura loop …`. Nothing heavy is imported before a command needs it."""

from pathlib import Path
from typing import Annotated, ClassVar

import typer

from rasura.manifests.spelling import format_count
from rasura.pipeline.cli.options import (
    APP_SETTINGS,
    DefaultCommandGroup,
    ErrorsArgument,
    JsonOption,
    QuietOption,
    RecipeArgument,
    RetryFailedOption,
    SetOption,
    get_errors_to_retry,
)
from rasura.pipeline.cli.output import echo, echo_line, print_tables, report_mending

WAITING = 3
"""Exit status where a human round waits for votes."""


class _LoopGroup(DefaultCommandGroup):
    """`rasura loop RECIPE` is `rasura loop run RECIPE`."""

    default: ClassVar[str] = "run"


loop = typer.Typer(
    help="Run RORem's loop: rasura loop RECIPE; show its rounds: rasura loop status LOOP.",
    cls=_LoopGroup,
    **APP_SETTINGS,
)


@loop.command(hidden=True)
def run(
    recipe: RecipeArgument,
    into: Annotated[str | None, typer.Option(metavar="URI", help="Folder or bucket; loops/<name> by default.")] = None,
    set: SetOption = None,
    retry_failed: RetryFailedOption = False,
    errors: ErrorsArgument = None,
    quiet: QuietOption = False,
) -> None:
    """Run a loop, or continue where it was left; stop where a human round waits for votes (exit status 3)."""
    from rasura.pipeline.loop.recipe import LoopRecipe
    from rasura.pipeline.loop.runner import run_loop
    from rasura.pipeline.loop.state import Waiting
    from rasura.pipeline.loop.table import format_text
    from rasura.pipeline.recipe.load import load
    from rasura.pipeline.run.progress import Progress

    loaded, positions = load(recipe, set or (), LoopRecipe)
    place = into or f"loops/{loaded.name}"
    try:
        with Progress(quiet) as progress:
            show = progress.track(loaded.name, "")

            def begin(step: str) -> None:
                nonlocal show
                show = progress.track(step, "")

            finished = run_loop(
                loaded,
                place,
                echo_line,
                lambda done, total, note: show(done, total, note),
                begin,
                positions,
                get_errors_to_retry(retry_failed, errors),
            )
    except Waiting as waiting:
        echo(str(waiting))
        raise typer.Exit(WAITING) from None
    echo(format_text(finished))


@loop.command()
def status(
    folder: Annotated[str, typer.Argument(metavar="LOOP", help="A loop's folder or URI.")],
    json: JsonOption = False,
    chart: Annotated[Path | None, typer.Option(metavar="FILE", help="Write an SVG beside RORem's own rounds.")] = None,
    all: Annotated[
        bool, typer.Option("--all", help="Further measures too: LPIPS, ReMOVE, the discriminator's scores.")
    ] = False,
) -> None:
    """Show a loop's rounds in the form of RORem's Table 1, and what comes next."""
    from rasura.pipeline.loop import table
    from rasura.pipeline.loop.state import Loop

    loaded = Loop.open(folder)
    if chart:
        chart.write_text(table.draw_chart(loaded))
    if json:
        import json as encoder

        echo(encoder.dumps([row.to_json() for row in table.build_rows(loaded)], indent=1))
    else:
        echo(table.format_text(loaded, all))


def show_accounting(place: str, json: bool) -> None:
    """Print a loop's rounds and the accounting of each of its runs: `rasura status LOOP`."""
    from rasura.pipeline.loop import runs, table
    from rasura.pipeline.loop.state import Loop

    loaded = Loop.open(place)
    if json:
        import json as encoder

        echo(encoder.dumps(runs.to_json(loaded), indent=1))
        return
    from rasura.pipeline.run.accounting import compute_accounting

    echo(table.format_text(loaded))
    for _, run in runs.list_runs(loaded):
        echo()
        print_tables(compute_accounting(run))


def verify_loop(place: str, mend: bool) -> None:
    """Check every run of a loop as `rasura verify` does, and print what is wrong; drop what is damaged if asked."""
    from rasura.pipeline.loop import runs
    from rasura.pipeline.loop.state import Loop
    from rasura.pipeline.run.verify import verify

    wrong, names, loop = list[str](), list[str](), Loop.open(place)
    for name, run in runs.list_runs(loop):
        faults, _ = verify(run, lambda rows: None)
        names.append(name)
        for fault in faults:
            echo_line(f"{name}: {fault}")
        wrong += faults
    if wrong:
        echo(f"{format_count(len(wrong), 'fault')} in {place}")
        report_mending(place, wrong, runs.mend_loop(loop) if mend else None)
        raise typer.Exit(1)
    echo(f"{place}: all is well ({', '.join(names)})")
