"""`rasura export`. Nothing heavy is imported before the command needs it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rasura.manifests.spelling import format_count
from rasura.pipeline.cli.options import QuietOption, check_format_option
from rasura.pipeline.cli.output import echo
from rasura.pipeline.cli.review import DatabaseOption

if TYPE_CHECKING:
    from rasura.pipeline.export import ExportOptions

FORMATS_HELP = (
    "huggingface: Rasura's own Parquet, card and manifest. lance: the same as Lance datasets. ober: ObjectClear's "
    "columns and names. rorem: RORem's folders with meta.json. smarteraser: Syn4Removal's folders. brushdata: "
    "BrushNet's tars. lcg: JSON lines for PixelHacker and Moebius. powerpaint: its prompts and masks of three tasks. "
    "With an instruction text: diffusers (input_image, edit_prompt, edited_image), webdataset (tars), ai-toolkit, "
    "onetrainer, kohya, diffsynth (folders)."
)


def export(
    run: Annotated[str, typer.Argument(metavar="RUN|LOOP", help="A run, or a loop's folder.")],
    out: Annotated[
        str,
        typer.Option(
            metavar="URI", help="Where to write it; hf://datasets/OWNER/NAME pushes it to the Hugging Face Hub."
        ),
    ],
    format: Annotated[str, typer.Option(metavar="NAME", help=FORMATS_HELP)] = "huggingface",
    flow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FLOW",
            help="Flows instead of the dataset's (with --verdict, of those that were reviewed); of a loop, triplets "
            "(default) or votes.",
        ),
    ] = None,
    verdict: Annotated[
        str | None, typer.Option(metavar="yes|no|unsure", help="Only rows with this verdict of the run's reviewers.")
    ] = None,
    min_score: Annotated[
        float | None, typer.Option(metavar="SCORE", help="Only rows whose score is at least this.")
    ] = None,
    where: Annotated[
        str,
        typer.Option(
            metavar="CONDITION",
            help="Only rows of which this is true: \"label = 'person' and effects_area < 0.2\"; with or, not, in, "
            "is null and brackets.",
        ),
    ] = "",
    size: Annotated[
        str, typer.Option(metavar="PX", help="Size of the pictures, 512 or 768x512; smaller ones are left out.")
    ] = "",
    crop: Annotated[
        str,
        typer.Option(
            metavar="PLACE",
            help="With --size: object (cut around it), center, or none (whole pictures that fit in the size).",
        ),
    ] = "object",
    direction: Annotated[
        str,
        typer.Option(metavar="NAME", help="removal, or insertion: the picture with the object is the one to learn."),
    ] = "removal",
    language: Annotated[str, typer.Option(metavar="NAME", help="Of the instruction texts: en or zh.")] = "en",
    database: DatabaseOption = None,
    quiet: QuietOption = False,
) -> None:
    """Write a run's dataset, or what a loop collected, to another place, in a layout that trainers read."""
    from rasura.manifests.storage import Store
    from rasura.pipeline.hub import export_anywhere
    from rasura.pipeline.run.progress import Progress

    options = _read_options(format, verdict, min_score, where, size, crop, direction, language, database)
    with Progress(quiet) as progress:
        manifest: dict[str, Any] = export_anywhere(
            Store(run), out, format, flow or (), progress.track("export", "rows"), options
        )
    rows, files = format_count(manifest["rows"], "row"), format_count(len(manifest["files"]), "file")
    left_out = manifest.get("left_out", {})
    lost = sum(left_out.values())
    reasons = "".join(f"; {count}: {reason}" for reason, count in left_out.items())
    echo(f"{out}: {rows} in {files} ({manifest['rows']} kept + {lost} left out = {manifest['rows'] + lost}{reasons})")


def _read_options(format: str, *values: Any) -> "ExportOptions":
    """Read the options of the command.

    Raises:
        BadParameter: one has a wrong value, or the format does not have it.
    """
    from rasura.manifests.errors import UnknownNameError
    from rasura.manifests.formats.filters.crops import BadSize
    from rasura.pipeline.export import WrongOption, read_options

    check_format_option(format)
    try:
        options = read_options(*values)
        options.check(format)
    except (BadSize, UnknownNameError, WrongOption) as error:
        raise typer.BadParameter(str(error)) from None
    return options
