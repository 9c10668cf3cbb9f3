"""One HTML page about a run: its rows with pictures, its measures, its dataset, its funnel, and what was rejected.

The page of a loop is made by `loop_page`. A page depends on the files of the run and on nothing else, so that the same
run gives the same page. What comes from data passes `escape_text` or `isolate`, or is JSON that the page's script shows
as text; a content security policy lets no script run but the page's own.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rasura.manifests.errors import ReviewError, StorageError
from rasura.manifests.run_layout import LOOP, RECIPE, REPORT, REPORT_FILES, read_plan
from rasura.manifests.spelling import format_bytes
from rasura.manifests.storage import Store
from rasura.pipeline.report import html, thumbnails
from rasura.pipeline.report.dataset_section import render_dataset
from rasura.pipeline.report.flows import ReportFlow, choose_dataset_flows, read_flows
from rasura.pipeline.report.galleries import write_galleries, write_json
from rasura.pipeline.report.history import read_history
from rasura.pipeline.report.html import escape_text, format_count, isolate, render_note
from rasura.pipeline.report.pictures import INSIDE_BYTES, PictureFiles, write_pictures
from rasura.pipeline.report.run_tables import (
    PageTable,
    add_pictures,
    build_tables,
    compare_stored_fingerprints,
    find_pairs,
)
from rasura.pipeline.run.accounting import RunAccounting, compute_accounting
from rasura.pipeline.run.events import read_events
from rasura.pipeline.run.progress import OnProgress
from rasura.pipeline.run.review import read_row_verdicts, summarize_review

if TYPE_CHECKING:
    from rasura.annotator.exchange.summary import ReviewSummary
    from rasura.annotator.exchange.verdicts import RowVerdict
    from rasura.pipeline.report.thumbnails import Place

ROWS = 300
"""Rows of each table that get pictures, where nothing else is asked for."""
MOST_ORIGINS = 40
"""Licences and weights that are listed."""
MOST_RECIPE = 200_000
"""Letters of the recipe that are in the page."""
LONGEST, LEAST = 480, 320
"""Long side of a picture in the page, px: of few pictures and of many."""
SECTIONS = {
    "rows": "Rows",
    "review": "Review",
    "measures": "Measures",
    "pairs": "Near-duplicates",
    "dataset": "Dataset",
    "funnel": "Funnel and cost",
    "origins": "Licences and weights",
    "recipe": "Recipe and machine",
}
"""Titles of the page's sections, by id."""


@dataclass
class RunReport:
    """What the page of a run is made from.

    Attributes:
        flows: of the run.
        chosen: those of the dataset.
        tables: of the page.
        review: what people have said of the rows, or why that cannot be read; None where nobody has judged any.
    """

    run: Store
    flows: Sequence[ReportFlow]
    chosen: Sequence[ReportFlow]
    tables: Sequence[PageTable]
    accounting: RunAccounting
    review: "ReviewSummary | str | None" = None

    @property
    def by_name(self) -> dict[str, ReportFlow]:
        """The flows by name."""
        return {flow.name: flow for flow in self.flows}


def write(
    run: Store, out: Path | None = None, rows: int = ROWS, full: bool = False, on_progress: OnProgress | None = None
) -> str:
    """Write the page of a run or of a loop; its pictures go into a folder beside it where they are many.

    Args:
        out: the page; None: `report.html` in the run.
        rows: rows of each table that get pictures; the values of all rows are in the page.
        full: store these pictures at full size, too.
        on_progress: called as pictures are made.

    Returns:
        The path of the page.

    Raises:
        NoRun: there is neither a run nor a loop.
        StoreError: the page cannot be written.
    """
    place, name = (run, REPORT) if out is None else (Store(out.absolute().parent), out.name)
    folder = REPORT_FILES if out is None else f"{out.stem}_files"
    files = PictureFiles(place, folder, -1 if full else INSIDE_BYTES)
    if run.exists(LOOP):
        from rasura.pipeline.report import loop_page

        page = loop_page.render(run, rows, files)
    else:
        page = render(run, rows, files, full, on_progress)
    place.write(name, page.encode())
    files.delete_former()
    return f"{run.uri}/{REPORT}" if out is None else str(out)


def read_report(run: Store, rows: int) -> RunReport:
    """Read what the page of a run is made from, all but the pictures.

    Raises:
        NoRun: there is no run.
    """
    plan, accounting = read_plan(run), compute_accounting(run)
    flows = read_flows(run, plan, accounting)
    chosen = choose_dataset_flows(plan, flows)
    # the dataset's flows come first; the pictures of flows that a selection chose from would only be repeated
    repeated = {name for flow in chosen if "ref_table" in flow.columns for name in flow.upstream}
    order = [*chosen, *sorted((flow for flow in flows if flow not in chosen), key=lambda flow: flow.name in repeated)]
    verdicts, review = _read_review(run)
    tables = build_tables(run, flows, order, rows, verdicts)
    by_anchor = {flow.anchor: flow for flow in flows}
    for table in tables:
        flow = by_anchor.get(table.gallery.id)
        if flow is not None and flow.name in repeated and rows:
            table.first, table.gallery.bare = (), True
            table.gallery.note = f"Pictures are in the tables that chose from these rows. {table.gallery.note}".strip()
    return RunReport(run, flows, chosen, tables, accounting, review)


def _read_review(run: Store) -> "tuple[dict[Place, RowVerdict], ReviewSummary | str | None]":
    """Read people's verdicts by the place of the pictures that they judged, and their summary or why there is none."""
    try:
        verdicts = read_row_verdicts(run)
        return {row.place: row for row in verdicts.values() if row.place}, summarize_review(run, verdicts)
    except (ReviewError, StorageError) as error:  # its database may be a link, which is not followed
        return {}, str(error)


def render(
    run: Store,
    rows: int,
    files: PictureFiles,
    full: bool = False,
    on_progress: OnProgress | None = None,
) -> str:
    """Render the page of a run.

    Args:
        rows: rows of each table that get pictures.
        files: takes the pictures.
        full: store the pictures at full size, too.

    Raises:
        NoRun: there is no run.
    """
    report = read_report(run, rows)
    if rows:
        compare_stored_fingerprints(report.tables)
    total, done = sum(len(table.first) for table in report.tables), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(done, total, "with pictures")

    by_anchor = {flow.anchor: flow for flow in report.flows}
    panels = sum(
        len(table.first) * by_anchor[table.gallery.of or table.gallery.id].roles.panels for table in report.tables
    )
    side = thumbnails.choose_side(panels, INSIDE_BYTES, LONGEST, LEAST)
    add_pictures(run, report.tables, report.by_name, side, files, full, advance)
    return render_report(report, write_pictures(files))


def render_report(report: RunReport, settings: str, served: bool = False) -> str:
    """Render a page whose pictures are made, or asked for one by one.

    Args:
        settings: elements that say where the pictures are.
        served: the page asks a server for its pictures.
    """
    run, flows, accounting = report.run, report.flows, report.accounting
    plan = read_plan(run)
    facts = read_history(read_events(run)).list_facts()
    galleries = [table.gallery for table in report.tables]
    pairs, count = find_pairs(report.tables)
    ids = {gallery.id for gallery in galleries}
    rejected = {flow.name: name if (name := f"{flow.anchor}-rejected") in ids else "" for flow in flows}
    funnels = [html.render_funnel(f.accounting, f.adds_up, f.survey.faults, rejected[f.name]) for f in flows]
    bodies = {
        "review": _render_review(report.review),
        "measures": '<div id="measures-place"><p class="empty">Drawn when it comes into view.</p></div>' + MEASURES_KEY,
        "pairs": _render_pairs(len(pairs), count, served),
        "dataset": render_dataset(run, plan, report.chosen),
        "funnel": f'<div id="costs" data-rows="{sum(flow.survey.rows for flow in report.chosen)}">{PRICE}</div>'
        + ("".join(funnels) or render_note("The run has no flows.")),
        "origins": _render_origins(flows),
        "recipe": _render_recipe(run, accounting.recipe, facts),
    }
    parts = [f'<section id="{id}"><h2>{SECTIONS[id]}</h2>{body}</section>' for id, body in bodies.items() if body]
    rows = html.render_rows(html.render_legend()) if galleries else ""
    sections = {id: title for id, title in SECTIONS.items() if (galleries if id == "rows" else bodies[id])}
    data = "\n".join([settings, write_galleries(galleries), write_json("near-duplicates", pairs)])
    subtitle = f"recipe <code>{escape_text(accounting.recipe)}</code>"
    if facts:
        subtitle += f" · {escape_text(facts[0][1])}"
    totals = _render_totals(accounting, flows, report.chosen)
    return html.render_page(
        "report of a run", accounting.name, subtitle, totals, sections, rows + "".join(parts), data, served
    )


MEASURES_KEY = (
    '<p class="note"><i class="swatch kept"></i>kept <i class="swatch rejected"></i>rejected by <code>select</code> '
    '<i class="swatch limit"></i>limit. Outermost bars have all that is beyond them.</p>'
)
PRICE = (
    '<p class="price"><label for="price">price of an hour of one worker</label>'
    '<input id="price" type="number" min="0" step="any" placeholder="e.g. 2.50">'
    '<output for="price" id="total">fills the column “cost”: seconds of workers × price</output></p>'
)


def _render_review(review: "ReviewSummary | str | None") -> str:
    """Render people's verdicts and the reasons of their rejections; nothing where there are none."""
    if review is None or isinstance(review, str):
        return render_note(escape_text(f"The verdicts cannot be read: {review}.")) if review else ""
    facts = [
        f"{format_count(review.verdicts.total(), 'row')} {'has' if review.verdicts.total() == 1 else 'have'} a verdict"
    ]
    if review.overruled:
        facts.append(f"{review.overruled:,} by an expert")
    if review.corrected:
        facts.append(f"{format_count(review.corrected, 'row')} with a corrected mask")
    bars = [
        html.render_bars(title, Counter[str | None](counts), "")
        for title, counts in (("Verdicts", review.verdicts), ("Reasons of a no", review.reason_texts))
        if counts
    ]
    note = "The columns verdict, verdict_reason and verdict_votes have them for each row."
    return f'<p>{"; ".join(facts)}. {note}</p><div class="charts">{"".join(bars)}</div>'


def _render_pairs(listed: int, count: int, served: bool) -> str:
    if served:
        return render_note("The served page does not look for them: write the page with <code>rasura report</code>.")
    basis = (
        "Among all rows of flows with stored fingerprints (stage fingerprint), otherwise among those with pictures; "
        "rows of one scene and one split are left out."
    )
    if not count:
        return render_note(f"None. {basis}")
    part = f"the first {listed:,} of {format_count(count, 'pair')}" if listed < count else format_count(count, "pair")
    return f'<p class="note">{part}. {basis}</p><div id="pairs-place"></div>'


def _render_recipe(run: Store, recipe: str, facts: Sequence[tuple[str, str]]) -> str:
    """Render the recipe, and when and on what it was run."""
    entries = "".join(f"<dt>{name}</dt><dd>{isolate(text)}</dd>" for name, text in [("recipe", recipe), *facts])
    body = f'<dl class="facts">{entries}</dl>'
    try:
        text = run.read(RECIPE).decode("utf-8", "replace")
    except OSError:
        return body + render_note("The run has no recipe.yaml.")
    more = render_note("The rest is in recipe.yaml.") if len(text) > MOST_RECIPE else ""
    text = escape_text(text[:MOST_RECIPE])
    body += f'<details><summary>recipe.yaml</summary><pre class="recipe-text" tabindex="0">{text}</pre>'
    return f"{body}{more}</details>"


def _render_totals(accounting: RunAccounting, flows: Sequence[ReportFlow], chosen: Sequence[ReportFlow]) -> str:
    stages = [stage for flow in flows for stage in flow.accounting.stages]
    inputs = sum(record.inputs for flow in flows if not flow.upstream for record in flow.commits)
    exported = accounting.dataset_rows is not None
    triplets = accounting.dataset_rows if exported else sum(flow.survey.rows for flow in chosen)
    totals = {
        "inputs from sources": f"{inputs:,}",
        "rejected in all flows": f"{sum(stage.rejected.total() for stage in stages):,}",
        "failed in all flows": f"{sum(stage.failed.total() for stage in stages):,}",
        "triplets in the dataset" if exported else "triplets": f"{triplets:,}",
        "of pictures in the run": format_bytes(
            sum(flow.survey.bytes for flow in flows if "ref_table" not in flow.columns)
        ),
    }
    incomplete = sum(not flow.accounting.complete for flow in flows)
    lost = sum(not flow.adds_up for flow in flows)
    state = (
        f"{format_count(len(flows), 'flow')}, {f'{incomplete:,} still in progress' if incomplete else 'all complete'}"
    )
    check = '<span class="good">✓ every input is accounted for</span>'
    if lost:
        check = f'<strong class="bad">✗ inputs were lost in {format_count(lost, "flow")}</strong>'
    cells = "".join(f"<div><dt>{label}</dt><dd>{number}</dd></div>" for label, number in totals.items())
    return f'<dl class="totals">{cells}</dl><p class="state">{state} · {check}</p>'


def _render_origins(flows: Sequence[ReportFlow]) -> str:
    licences: dict[str, list[str]] = {}
    weights: dict[tuple[str, str], list[str]] = {}
    for flow in flows:
        name = isolate(flow.name)
        for licence, count in flow.survey.counts["licence"].items():
            licences.setdefault("no licence" if licence is None else licence, []).append(f"{name} {count:,}")
        for key, count in flow.survey.weights.items():
            weights.setdefault(key, []).append(f"{name} {count:,}")
    licence_lines = [[isolate(licence), ", ".join(rows)] for licence, rows in sorted(licences.items())]
    weight_lines = [
        [isolate(file), f"<code>{escape_text(sha256)}</code>", ", ".join(rows)]
        for (file, sha256), rows in sorted(weights.items())
    ]
    licence_lines, weight_lines = _shorten(licence_lines), _shorten(weight_lines)
    first, second = render_note("No rows, no licences."), render_note("No network's weights were used.")
    if licence_lines:
        first = html.render_listing({"licence": 30, "rows": 70}, licence_lines)
    if weight_lines:
        second = html.render_listing({"weights": 30, "sha256": 45, "rows": 25}, weight_lines)
    return first + second


def _shorten(lines: list[list[str]]) -> list[list[str]]:
    """Leave out lines beyond the first, and say how many."""
    rest = len(lines) - MOST_ORIGINS
    return [*lines[:MOST_ORIGINS], [f"and {rest:,} more", *[""] * (len(lines[0]) - 1)]] if rest > 0 else lines
