"""Options, arguments and messages that several commands share. Nothing heavy is imported before a command needs it."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperGroup

from rasura.manifests.errors import RasuraError
from rasura.manifests.safety.text import LINES, escape_controls
from rasura.pipeline.cli.interrupts import explain_interrupt

APP_SETTINGS: Mapping[str, Any] = {
    "no_args_is_help": True,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
    "add_completion": False,
}
"""Settings of every group of commands."""

RecipeArgument = Annotated[  # that it can be read is checked with the rest of it, for one form of the message
    Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.", readable=False)
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Folder or URI that `rasura run` wrote into.")]
RunsArgument = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="Folders or URIs that `rasura run` wrote into.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a value: a key with dots between its parts, and YAML; may be repeated.",
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RetryFailedOption = Annotated[
    bool, typer.Option("--retry-failed", help="Make rows again that failed, those of earlier runs too.")
]
ErrorsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="ERROR", help="With --retry-failed: only these errors, such as ValueError."),
]
FlowsOption = Annotated[
    list[str] | None, typer.Option("--flow", metavar="FLOW", help="Only these flows' candidates; may be repeated.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of everything that is random.")]
PromptsOption = Annotated[
    Path | None,
    typer.Option("--prompts", metavar="FILE", help="The empty prompt's embeddings, in place of text encoders."),
]


def get_errors_to_retry(retry_failed: bool, errors: Sequence[str] | None) -> Sequence[str] | None:
    """Return the errors whose rows are made again: none where it is None, all where it is empty.

    Raises:
        BadParameter: errors are named without `--retry-failed`.
    """
    if errors and not retry_failed:
        raise typer.BadParameter(f"unexpected '{errors[0]}'; errors are named after --retry-failed only")
    return tuple(errors or ()) if retry_failed else None


class InterruptibleGroup(TyperGroup):
    """The group of all commands: Ctrl-C and SIGTERM end each of them with a sentence, wherever it is."""

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        """Read the arguments."""
        with explain_interrupt(), _escape_usage_errors():
            return super().make_context(*arguments, **settings)

    def invoke(self, ctx: Any) -> Any:
        """Invoke a command."""
        with explain_interrupt(), _escape_usage_errors():
            return super().invoke(ctx)


@contextlib.contextmanager
def _escape_usage_errors() -> Iterator[None]:
    """Have errors of the command line quote an argument, as the name of a file may be one, in safe text."""
    try:
        yield
    except Exception as error:  # typer exports no class above its usage errors, which have their text in `message`
        if isinstance(message := getattr(error, "message", None), str):
            error.message = escape_controls(message, LINES)  # type: ignore[attr-defined]
        raise


class DefaultCommandGroup(TyperGroup):
    """A group one of whose commands may be left out, and whose help shows that command's options."""

    default: ClassVar[str]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the default command where the first argument is no command."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [self.default, *args]
        return list(super().parse_args(ctx, args))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options of the default command above the list of commands."""
        command = self.commands[self.default]
        with type(ctx)(command, info_name=ctx.info_name, parent=ctx.parent) as context:
            records = [record for param in command.get_params(context) if (record := param.get_help_record(context))]
            arguments = " ".join(name.partition(" ")[0] for name, _ in records if not name.startswith("-"))
        with formatter.section(f"{ctx.command_path} {arguments}"):
            formatter.write_text(command.help or "")
            formatter.write_dl([record for record in records if not record[0].startswith("--help")])
        super().format_options(ctx, formatter)


REMEDIES = {
    errno.ENOENT: "there is no such file or folder",
    errno.EACCES: "permission denied; change its permissions, or name another place",
    errno.EPERM: "permission denied; change its permissions, or name another place",
    errno.EROFS: "it is on a read-only file system; name another place",
    errno.ENOSPC: "the disk is full; make room, or name another place",
    errno.EDQUOT: "the disk quota is used up; make room, or name another place",
    errno.ENOTDIR: "a part of the path is a file and no folder; name another place",
    errno.EISDIR: "it is a folder; name a file",
    errno.ENAMETOOLONG: "the name is too long; shorten it",
    errno.EMFILE: "this process may open no more files; raise its limit (`ulimit -n`)",
    errno.ENFILE: "the machine may open no more files; end some programs",
    errno.EFBIG: "the file is larger than this process may write (`ulimit -f`), or than the disk allows",
    errno.EIO: "the disk or the network answers with an error; check them",
    errno.ELOOP: "its links lead in a circle; remove one of them",
}
"""Reason and remedy of an error of the file system, by its number."""


OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of disks and their limits: explained also where they name no file."""


def explain(error: BaseException) -> str | None:
    """Return the sentence for an error that the user can mend; None for one that is a fault of Rasura's own."""
    if isinstance(error, RasuraError):
        return str(error)
    if isinstance(error, OSError) and error.errno in REMEDIES and error.filename is not None:
        return f"cannot read or write '{os.fsdecode(error.filename)}': {REMEDIES[error.errno]}"
    if isinstance(error, OSError) and error.errno in OF_DISKS:  # what was printed, or a file that is open already
        return f"cannot write the output: {REMEDIES[error.errno]}"
    if isinstance(error, FileNotFoundError | PermissionError | ConnectionError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        from rasura.manifests.extras import describe_missing, find_extra

        return describe_missing(error.name or "") if find_extra(error.name) else None
    botocore = sys.modules.get("botocore.exceptions")  # the answers of a bucket
    if botocore and isinstance(error, botocore.BotoCoreError | botocore.ClientError):
        return str(error)
    return None


def check_format_option(format: str) -> None:
    """Check the value of `--format`.

    Raises:
        BadParameter: there is no such format.
    """
    from rasura.manifests.errors import UnknownNameError
    from rasura.manifests.formats.registry import check_format

    try:
        check_format(format)
    except UnknownNameError as error:
        raise typer.BadParameter(str(error), param_hint="--format") from None
