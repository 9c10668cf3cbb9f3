"""`rasura loop …`. Nothing heavy is imported before a command needs it."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rasura.pipeline.cli.options import given

WAITS = 3
"""Exit code where a human round waits for votes."""


class _RunsByDefault(TyperGroup):
    """`rasura loop RECIPE` is `rasura loop run RECIPE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return list(super().parse_args(ctx, args))


loop = typer.Typer(
    help="Run RORem's loop: rasura loop RECIPE; where it stands: rasura loop status LOOP.",
    cls=_RunsByDefault,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)


@loop.command(hidden=True)
def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="The loop's recipe, a YAML file.")],
    into: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The loop's folder; loops/<name>.")] = None,
    set: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value, e.g. keep=everything.")
    ] = None,
) -> None:
    """Run a loop, or go on where it was left; stops where a human round waits for votes (exit code 3)."""
    from rasura.pipeline.loop import state as conductor
    from rasura.pipeline.loop.recipe import load
    from rasura.pipeline.loop.table import text

    read = load(recipe, given(set))
    folder = into or Path("loops") / read.name
    try:
        made = conductor.run(read, folder, typer.echo)
    except conductor.Waiting as waiting:
        typer.echo(str(waiting))
        raise typer.Exit(WAITS) from None
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from there", err=True)
        raise typer.Exit(130) from None
    typer.echo(text(made))


@loop.command()
def status(
    folder: Annotated[Path, typer.Argument(metavar="LOOP", help="A loop's folder.")],
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    chart: Annotated[Path | None, typer.Option(metavar="FILE", help="An SVG beside RORem's own rounds.")] = None,
    all: Annotated[bool, typer.Option("--all", help="Further measures too: LPIPS, ReMOVE, the judge's view.")] = False,
) -> None:
    """Show a loop's rounds in the form of RORem's Table 1, and what comes next."""
    from rasura.pipeline.loop import table as loop_table
    from rasura.pipeline.loop.state import Loop

    opened = Loop.open(folder)
    if chart:
        chart.write_text(loop_table.chart(opened))
    if json:
        import json as encoder

        typer.echo(encoder.dumps(loop_table.rows(opened), indent=1))
    else:
        typer.echo(loop_table.text(opened, all))
