"""What commands print. Nothing else of the command line writes to a terminal, so that no text from data commands it."""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import typer

from rasura.manifests.safety.text import LINES, escape_controls

if TYPE_CHECKING:
    from rasura.pipeline.run.accounting import RunAccounting


def find_stdout_fault() -> str | None:
    """Return why standard output takes no more, such as a full disk; None where it does. What is left is dropped."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read it has enough
        return None
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at the end
        return f"cannot write the output: {(error.strerror or str(error)).lower()}; make room, or write it elsewhere"
    return None


def echo(text: object = "") -> None:
    """Print a text, which may have several lines."""
    typer.echo(escape_controls(text, LINES))


def echo_line(text: object) -> None:
    """Print one line: a line feed in it, as a file name may have, is shown and begins no other line."""
    typer.echo(escape_controls(text))


def warn(text: object) -> None:
    """Print a warning on standard error."""
    typer.secho(f"warning: {escape_controls(text, LINES)}", err=True, fg="yellow", bold=True)


def report_mending(place: str, faults: Sequence[str], dropped: Iterable[str] | None) -> None:
    """Print what `verify --mend` drops, or, where it was not asked for, what it would do.

    Args:
        place: the run or the loop.
        faults: that `verify` has found.
        dropped: what is dropped; None where nothing is to be.
    """
    from rasura.pipeline.run.verify import StageFault

    if made := sum(isinstance(fault, StageFault) for fault in faults):
        which = "these are" if made == len(faults) else f"{made} of them are"
        echo(
            f"{which} in files that are as they were committed: no disk has damaged them, a stage made them so. Change "
            "that stage (its parameters, or its code and its `version`): the next run makes its rows again"
        )
    if dropped is None and made < len(faults):
        echo(f"`rasura verify --mend {place}` drops what a disk has damaged, and the next run makes it again")
    if dropped is None:
        return
    count = 0
    for line in dropped:
        echo_line(line)
        count += 1
    echo(
        "the next run of the recipe makes them again"
        if count
        else "nothing is dropped: all files have the bytes that were committed"
    )


def print_tables(accounting: "RunAccounting") -> None:
    """Print the accounting of a run as tables: the terminal may wrap a line, but no figure is cut."""
    from rich.console import Console

    from rasura.pipeline.run.accounting import render_tables

    console = Console()
    for line in render_tables(accounting, console.width):
        console.print(line, crop=False)
