"""`rasura audit` and `rasura masks`: what somebody's pairs are worth, and what is in one of them."""

from pathlib import Path
from typing import Annotated

import typer

from rasura.pipeline.cli.interrupts import explain_interrupt
from rasura.pipeline.cli.options import QuietOption, SetOption, check_format_option
from rasura.pipeline.cli.output import echo, echo_line


def audit(
    dataset: Annotated[
        list[str],
        typer.Argument(
            metavar="DATASET",
            help="A folder of pairs, a dataset in OBER's, RORem's or Rasura's layout, or a run; several as SPLIT=PATH.",
        ),
    ],
    into: Annotated[
        str | None, typer.Option(metavar="URI", help="Folder of table and page; runs/audit-<name> by default.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="NAME", help="The source that reads it (`rasura stages`); else by its layout.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="KEY=VALUE", help="A parameter of the source; may be repeated."),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", metavar="COLUMN=NUMBER", help="Another limit, such as inspect_shift=0.5."),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows on the page.")] = 200,
    repair: Annotated[
        str | None, typer.Option(metavar="URI", help="Write a copy with what can be repaired, without the rest.")
    ] = None,
    format: Annotated[
        str, typer.Option(metavar="NAME", help="Layout of that copy, as of `rasura export`.")
    ] = "huggingface",
    set: SetOption = None,
    quiet: QuietOption = False,
) -> None:
    """Audit pairs or triplets: shift, exposure, changes outside, masks, what is left, splits; one page, worst first."""
    from rasura.pipeline.audit.arguments import name_run, parse_limits, parse_params
    from rasura.pipeline.audit.audit import AuditSettings
    from rasura.pipeline.audit.audit import audit as audit_dataset

    check_format_option(format)
    settings = AuditSettings(
        source, parse_params(param or ()), parse_limits(limit or ()), rows, repair, format, set or ()
    )
    with explain_interrupt("stopped; what was measured is kept, and the same command continues from there"):
        result = audit_dataset(dataset, into or name_run(dataset), settings, quiet)
    for line in result.table.describe():
        echo_line(line)
    if repair:
        echo_line(f"copy: {result.copy or 'none, no row is left'}")
    echo_line(f"table: {result.csv}")
    echo_line(f"page: {result.page}")


def masks(
    input: Annotated[Path, typer.Argument(metavar="INPUT", help="The picture with the object.")],
    gt: Annotated[Path, typer.Argument(metavar="GT", help="The same scene without it.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to write; <INPUT>-masks by default.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A mask of the object; drawn from the pair where left out.")
    ] = None,
    set: SetOption = None,
) -> None:
    """Take one pair apart: object and effect masks, both layers, the cut-out, the target, and a sheet of them all."""
    from rasura.pipeline.audit.pair_masks import write_masks

    folder, lines = write_masks(input, gt, out, mask, set or ())
    for line in lines:
        echo_line(line)
    echo(f"masks: {folder}")
