"""`rasura diff` and `rasura estimate`. Nothing heavy is imported before a command needs it."""

from typing import Annotated

import typer

from rasura.pipeline.cli.options import JsonOption, QuietOption, RecipeArgument, SetOption
from rasura.pipeline.cli.output import echo, echo_line


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="A run, or a dataset with ids: its folder or URI.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    table: Annotated[str | None, typer.Option("--flow", metavar="FLOW", help="Only the table of this flow.")] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Compare the pictures, too, byte by byte; reads all of them.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show which rows of A are gone, changed or added in B, by the reason: what B or A rejected them for, columns."""
    from rasura.pipeline.run.comparison.diff import diff as compare

    found = compare(before, after, table, pictures)
    if json:
        import json as encoder

        echo(encoder.dumps([entry.to_json_values() for entry in found], indent=1))
        return
    for entry in found:
        for line in entry.describe():
            echo_line(line)


def estimate(
    recipe: RecipeArgument,
    count: Annotated[int, typer.Option(min=1, metavar="N", help="Rows that the dataset is to have.")],
    sample: Annotated[int, typer.Option(min=1, metavar="N", help="Inputs of each flow that are run.")] = 32,
    set: SetOption = None,
    into: Annotated[
        str | None, typer.Option(metavar="URI", help="Keep the sample's run there; on a cluster, a place that all see.")
    ] = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Run a sample of a recipe, and say what a dataset of N rows would take: inputs, hours, GPU-hours, bytes.

    All inputs are listed, which reads them once; only the sample goes through the stages.
    """
    import contextlib
    import tempfile

    from rasura.pipeline.run.comparison.estimate import estimate as compute

    with contextlib.ExitStack() as stack:
        folder = into or stack.enter_context(tempfile.TemporaryDirectory(prefix="rasura-estimate-"))
        found = compute(recipe, count, sample, folder, set or (), quiet or json)
    if json:
        import json as encoder

        echo(encoder.dumps(found.to_json_values(), indent=1))
        return
    for line in found.describe():
        echo_line(line)
