"""`rasura loop …`. Nothing heavy is imported before a command needs it."""

from pathlib import Path
from typing import Annotated, ClassVar

import typer

from rasura.pipeline.cli.options import (
    APP_SETTINGS,
    DefaultCommandGroup,
    JsonOption,
    QuietOption,
    RecipeArgument,
    SetOption,
)

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
    into: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The loop's folder; loops/<name>.")] = None,
    set: SetOption = None,
    quiet: QuietOption = False,
) -> None:
    """Run a loop, or continue where it was left; stop where a human round waits for votes (exit status 3)."""
    from rasura.pipeline.loop.check import check_loop
    from rasura.pipeline.loop.recipe import LoopRecipe
    from rasura.pipeline.loop.runner import check_folder, run_loop
    from rasura.pipeline.loop.state import Loop, Waiting
    from rasura.pipeline.loop.table import format_text
    from rasura.pipeline.recipe.load import load
    from rasura.pipeline.run.progress import Progress

    loaded, positions = load(recipe, set or (), LoopRecipe)
    begun = Loop(loaded, into or Path("loops") / loaded.name)
    if check_folder(begun):  # what a loop that was begun has used up may be gone
        check_loop(loaded, positions)
    try:
        with Progress(quiet) as progress:
            show = progress.track(loaded.name, "")

            def start_step(step: str) -> None:
                nonlocal show
                typer.echo(step)
                show = progress.track(step, "")

            finished = run_loop(loaded, begun.folder, start_step, lambda done, total, note: show(done, total, note))
    except Waiting as waiting:
        typer.echo(str(waiting))
        raise typer.Exit(WAITING) from None
    typer.echo(format_text(finished))


@loop.command()
def status(
    folder: Annotated[Path, typer.Argument(metavar="LOOP", help="A loop's folder.")],
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

        typer.echo(encoder.dumps([row.to_json() for row in table.build_rows(loaded)], indent=1))
    else:
        typer.echo(table.format_text(loaded, all))
