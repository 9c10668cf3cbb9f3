"""One self-contained HTML page about a run: its pictures, its measures, its dataset, its funnel, and what was rejected.

The page of a loop is made by `loop_page`. Nothing in a page depends on time, host or place, so that the same run gives
the same page. What comes from data passes `escape_text` or `isolate`; should that be forgotten somewhere, a content
security policy still lets no script run but the page's own.
"""

from collections.abc import Sequence
from pathlib import Path
from string import Template

from rasura.manifests.run_layout import REPORT, read_plan
from rasura.manifests.storage import Store
from rasura.pipeline.report import html, thumbnails
from rasura.pipeline.report.budget import PageBudget
from rasura.pipeline.report.dataset_section import render_dataset
from rasura.pipeline.report.flows import ReportFlow, choose_dataset_flows, read_flows
from rasura.pipeline.report.html import escape_text, format_count, isolate, render_note
from rasura.pipeline.report.measure_section import render_measures
from rasura.pipeline.report.measures import sample_measures
from rasura.pipeline.report.picture_section import render_pictures, render_rejections, render_sheet
from rasura.pipeline.run.accounting import RunAccounting, compute_accounting

PAGE_BYTES = 10_000_000
"""Size of all pictures and captions together, at most. Everything else is some ten kilobytes a flow."""
PICTURE_BYTES = 3_000_000
"""Size of the thumbnails of rows that is aimed at; a third more as base64."""
MOST_ORIGINS = 40
"""Licences and weights that are listed."""
MAIN = Template("""\
$legend
<section id="pictures"><h2>Pictures</h2>
<nav aria-label="Flows"><ul>$nav</ul></nav>
$pictures</section>
$sheet
<section id="rejected"><h2>Rejected or failed</h2>$rejected</section>
<section id="measures"><h2>Measures</h2>$measures</section>
<section id="dataset"><h2>Dataset</h2>$dataset</section>
<section id="funnel"><h2>Funnel</h2>$funnel</section>
<section id="origins"><h2>Licences and weights</h2>$origins</section>""")
SECTIONS = {
    "pictures": "Pictures",
    "sheet": "Contact sheet",
    "rejected": "Rejected or failed",
    "measures": "Measures",
    "dataset": "Dataset",
    "funnel": "Funnel",
    "origins": "Licences and weights",
}
"""Titles of the page's sections, by id."""


def write(run: Store, out: Path | None = None, rows: int = 12, sheet: int = 40) -> str:
    """Write the page of a run or of a loop.

    Args:
        out: the page; None: `report.html` in the run.
        rows: pictures shown of each flow; of a loop, candidates of each round that were kept, and others.
        sheet: simulated triplets on the contact sheet.

    Returns:
        The path of the page.

    Raises:
        NoRun: there is neither a run nor a loop.
        StoreError: the page cannot be written.
    """
    if run.exists("loop.json"):
        from rasura.pipeline.report import loop_page

        page = loop_page.render(run, rows).encode()
    else:
        page = render(run, rows, sheet).encode()
    if out is None:
        run.write(REPORT, page)
        return f"{run.uri}/{REPORT}"
    Store(out.absolute().parent).write(out.name, page)
    return str(out)


def render(run: Store, rows: int, sheet: int = 40, size: int = PAGE_BYTES) -> str:
    """Render the page of a run.

    Args:
        size: bytes of its pictures and captions, at most; rows that do not fit are counted.

    Raises:
        NoRun: there is no run.
    """
    plan, accounting = read_plan(run), compute_accounting(run)
    flows = read_flows(run, plan, accounting)
    by_name = {flow.name: flow for flow in flows}
    upstream = {flow.name: [by_name[name] for name in flow.upstream if name in by_name] for flow in flows}
    chosen = choose_dataset_flows(plan, flows)
    # the dataset's flows come first; the flows that a selection chose from would only repeat its pictures
    repeated = {name for flow in chosen if "ref_table" in flow.columns for name in flow.upstream}
    others = [flow for flow in flows if flow not in chosen and flow.name not in repeated]
    pictured = [flow for flow in [*chosen, *others] if flow.roles.panels]
    side = thumbnails.choose_side(
        sum(min(rows, flow.survey.rows) * flow.roles.panels for flow in pictured), PICTURE_BYTES
    )
    limited = {flow.name: sample_measures(run, flow, upstream[flow.name], list(flow.limits)) for flow in flows}
    budget = PageBudget(size)
    pictures = [
        render_pictures(run, flow, limited[flow.name], rows, side, budget, bool(chosen) and flow not in chosen)
        for flow in pictured
    ]
    contact_sheet = render_sheet(run, chosen, sheet, budget)
    rejected = [render_rejections(run, flow, upstream[flow.name], rows, budget) for flow in flows]
    funnels = [html.render_funnel(flow.accounting, flow.adds_up, flow.survey.faults) for flow in flows]
    main = MAIN.substitute(
        nav="".join(f'<li><a href="#{flow.anchor}">{isolate(flow.name)}</a></li>' for flow in pictured),
        legend=html.render_legend(),
        pictures="".join(pictures) or render_note("No flow has pictures."),
        sheet=contact_sheet,
        rejected="".join(rejected) or render_note("Nothing."),
        measures=render_measures(run, flows, limited),
        dataset=render_dataset(run, plan, chosen),
        funnel="".join(funnels) or render_note("The run has no flows."),
        origins=_render_origins(flows),
    )
    sections = {id: title for id, title in SECTIONS.items() if id != "sheet" or contact_sheet}
    subtitle = f"recipe <code>{escape_text(accounting.recipe)}</code>"
    totals = _render_totals(accounting, flows, chosen)
    return html.render_page("report of a run", accounting.name, subtitle, totals, sections, main)


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
        "of pictures in the run": html.format_bytes(
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
