"""One self-contained HTML page about a run: its pictures, its dataset, its funnel, and what was rejected or failed.

The page of a loop is made by `loop_page`. Nothing in a page depends on time, host or place, so that the same run gives
the same page. What comes from data passes `escape_text` or `isolate`; should that be forgotten somewhere, a content
security policy still lets no script run but the page's own.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from rasura.manifests.parquet import read_parquet
from rasura.manifests.run_layout import REPORT, RunPlan, read_plan, table_path
from rasura.manifests.schemas import Kind
from rasura.manifests.shards import CommitRecord
from rasura.manifests.storage import Store
from rasura.pipeline.report import charts, html, thumbnails
from rasura.pipeline.report.html import escape_text, format_count, isolate, render_note
from rasura.pipeline.report.statistics import count_spread
from rasura.pipeline.report.thumbnails import Roles, Survey
from rasura.pipeline.run.accounting import FlowAccounting, RunAccounting, compute_accounting, list_commits

PICTURE_BYTES = 4_000_000  # of all thumbnails; a third more as base64
MEASURED_ROWS = 256  # whose masks are opened for the histograms
SHEET_SIDE = 280  # px, long side of a picture on the contact sheet
MOST_REASONS = 40
DETAIL_LENGTH = 400
MAIN = Template("""\
<section id="pictures"><h2>Pictures</h2>
$legend
<nav aria-label="Flows"><ul>$nav</ul></nav>
$pictures</section>
$sheet
<section id="dataset"><h2>Dataset</h2>$dataset</section>
<section id="funnel"><h2>Funnel</h2>$funnel</section>
<section id="rejected"><h2>Rejected or failed</h2>$rejected</section>
<section id="origins"><h2>Licences and weights</h2>$origins</section>""")
SECTIONS = {
    "pictures": "Pictures",
    "sheet": "Contact sheet",
    "dataset": "Dataset",
    "funnel": "Funnel",
    "rejected": "Rejected or failed",
    "origins": "Licences and weights",
}
"""Titles of the page's sections, by id."""


@dataclass
class _Flow:
    """Everything that the page shows of one flow.

    columns: of the table itself. full_columns: with those of the table that it refers to.
    """

    name: str
    anchor: str
    accounting: FlowAccounting
    commits: list[CommitRecord]
    columns: dict[str, Kind]
    full_columns: dict[str, Kind]
    upstream: Sequence[str]
    survey: Survey
    roles: Roles

    @property
    def has_triplets(self) -> bool:
        """True where its rows are triplets."""
        return {"source", "target", "mask"} <= set(self.full_columns)

    @property
    def adds_up(self) -> bool:
        """True where each stage of each shard accounts for its inputs, and the next has what the one before gave."""
        for record in self.commits:
            inputs = record.inputs
            for count in record.stages:
                if count.inputs != inputs or not count.balances():
                    return False
                inputs = count.out
            if inputs != (record.data.rows if record.data else 0):
                return False
        return True


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


def render(run: Store, rows: int, sheet: int = 40) -> str:
    """Render the page of a run.

    Raises:
        NoRun: there is no run.
    """
    plan, accounting = read_plan(run), compute_accounting(run)
    flows = _read_flows(run, plan, accounting)
    chosen = _choose_dataset_flows(plan, flows)
    # the dataset's flows come first; the flows that a selection chose from would only repeat its pictures
    repeated = {upstream for flow in chosen if "ref_table" in flow.columns for upstream in flow.upstream}
    others = [flow for flow in flows if flow not in chosen and flow.name not in repeated]
    pictured = [flow for flow in [*chosen, *others] if flow.roles.panels]
    count = sum(min(rows, flow.survey.rows) * flow.roles.panels for flow in pictured)
    side = thumbnails.choose_side(count, PICTURE_BYTES)
    funnels = [html.render_funnel(flow.accounting, flow.adds_up, flow.survey.faults) for flow in flows]
    pictures = [_render_pictures(run, flow, rows, side) for flow in pictured]
    contact_sheet = _render_sheet(run, chosen, sheet)
    main = MAIN.substitute(
        nav="".join(f'<li><a href="#{flow.anchor}">{isolate(flow.name)}</a></li>' for flow in pictured),
        funnel="".join(funnels) or render_note("The run has no flows."),
        dataset=_render_dataset(run, plan, chosen),
        sheet=contact_sheet,
        legend=html.render_legend(),
        pictures="".join(pictures) or render_note("No flow has pictures."),
        rejected="".join(_render_rejections(run, flow) for flow in flows) or render_note("Nothing."),
        origins=_render_origins(flows),
    )
    sections = {id: title for id, title in SECTIONS.items() if id != "sheet" or contact_sheet}
    subtitle = f"recipe <code>{escape_text(accounting.recipe)}</code>"
    totals = _render_totals(accounting, flows, chosen)
    return html.render_page("report of a run", accounting.name, subtitle, totals, sections, main)


def _read_flows(run: Store, plan: RunPlan, accounting: RunAccounting) -> list[_Flow]:
    accountings = {flow.flow: flow for flow in accounting.flows}
    flows: dict[str, _Flow] = {}
    for index, name in enumerate(plan.main_flows):
        description = plan.flows[name]
        commits, _ = list_commits(run, name, description.part)
        columns = {column: Kind(kind) for column, kind in description.columns.items()}
        full_columns = dict(columns)
        if "ref_table" in columns:  # the pictures of a selection are in the flow that it chose from
            full_columns = next((flows[up].full_columns for up in description.upstream if up in flows), {}) | columns
        flows[name] = _Flow(
            name=name,
            anchor=f"flow-{index}",
            accounting=accountings[name],
            commits=commits,
            columns=columns,
            full_columns=full_columns,
            upstream=description.upstream,
            survey=thumbnails.survey_table(run, name, commits),
            roles=thumbnails.assign_roles(full_columns),
        )
    return list(flows.values())


def _choose_dataset_flows(plan: RunPlan, flows: Sequence[_Flow]) -> list[_Flow]:
    """Return the dataset's flows; where there is no dataset, the triplets that no other triplets were made from."""
    if plan.dataset is not None:
        return [flow for flow in flows if flow.name in plan.dataset]
    triplets = [flow for flow in flows if flow.has_triplets]
    used = {upstream for flow in triplets for upstream in flow.upstream}
    return [flow for flow in triplets if flow.name not in used]


def _render_totals(accounting: RunAccounting, flows: Sequence[_Flow], chosen: Sequence[_Flow]) -> str:
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


def _render_dataset(run: Store, plan: RunPlan, chosen: Sequence[_Flow]) -> str:
    if not chosen:
        return render_note("No flow makes triplets.")
    names = ", ".join(isolate(flow.name) for flow in chosen)
    flows = f"the flow {names}" if len(chosen) == 1 else f"the flows {names}"
    intro = f"It consists of the triplets of {flows}."
    if not plan.dataset:
        intro = f"The recipe writes no dataset. These are the triplets of {flows}."
    total = sum(flow.survey.rows for flow in chosen)
    if not total:
        return f"<p>{intro}</p>" + render_note("There are none.")
    shares: dict[str, list[float]] = {"mask": [], "foreground_mask": []}
    for flow in chosen:
        count = -(-MEASURED_ROWS * flow.survey.rows // total)  # each flow by its share of the rows
        places = thumbnails.choose_places(flow.name, flow.survey, count)
        for column, values in thumbnails.measure_areas(run, places, flow.columns, flow.full_columns).items():
            shares[column] += values
    missing = {"split": "no split", "kind": "no kind", "label": "no label"}
    counts = {column: sum((flow.survey.counts[column] for flow in chosen), Counter[str | None]()) for column in missing}
    bars = [html.render_bars(column.title(), counts[column], word) for column, word in missing.items()]
    histograms = [
        html.render_histogram("Object area", shares["mask"], total),
        html.render_histogram("Area of object and effects", shares["foreground_mask"], total),
    ]
    rows = [bars, histograms, _draw_composition(run, chosen)]
    return f"<p>{intro}</p>" + "".join(f'<div class="charts">{"".join(row)}</div>' for row in rows if row)


def _draw_composition(run: Store, chosen: Sequence[_Flow]) -> list[str]:
    """Draw charts of what the rows were made from; charts without values are left out."""
    spread = count_spread(run, [(flow.name, flow.commits) for flow in chosen])
    figures = [charts.draw_rose(spread.directions)] if spread.directions.total() > spread.directions[None] else []
    if spread.objects:
        objects = Counter[str | None]({format_count(count, "object"): rows for count, rows in spread.objects.items()})
        figures.append(html.render_bars("Objects in a simulated picture", objects, ""))
        figures.append(charts.draw_uses("Use of backgrounds", "background", spread.backgrounds.values()))
    if spread.cut_outs:
        figures.append(charts.draw_uses("Use of cut-outs", "cut-out", spread.cut_outs.values()))
    if spread.removers:
        figures.append(html.render_bars("Remover", Counter[str | None](spread.removers), ""))
    return figures


def _render_sheet(run: Store, chosen: Sequence[_Flow], count: int) -> str:
    """Render simulated triplets as a contact sheet: small, many at once, and numbered for a visual inspection."""
    flows = [flow for flow in chosen if flow.survey.counts["kind"]["simulated"] and flow.has_triplets]
    total = sum(flow.survey.counts["kind"]["simulated"] for flow in flows)
    tiles: list[str] = []
    for flow in flows:
        share = -(-count * flow.survey.rows // total) if total else 0  # each flow by its share of the rows
        places = thumbnails.choose_places(flow.name, flow.survey, min(share, count - len(tiles)))
        roles = dataclasses.replace(flow.roles, cut_out=None)
        for raw in thumbnails.read_examples(run, places, flow.columns, flow.roles.columns):
            if raw.get("kind", "simulated") == "simulated":  # a row that cannot be read has no kind
                tiles.append(html.render_tile(thumbnails.build_example(raw, roles, SHEET_SIDE), len(tiles) + 1))
    if not tiles:
        return ""
    intro = (
        f"<p>{len(tiles):,} of {format_count(total, 'simulated triplet')}. Check for each: does the object rest on the "
        "ground plane, is its size plausible, does its shadow point where the other shadows point, is there a halo?</p>"
    )
    return f'<section id="sheet"><h2>Contact sheet</h2>{intro}<div class="sheet">{"".join(tiles)}</div></section>'


def _render_pictures(run: Store, flow: _Flow, rows: int, side: int) -> str:
    if not flow.survey.rows:
        note = render_note("No rows were kept." if flow.accounting.complete else "No rows yet.")
        return f'<section id="{flow.anchor}"><h3>{isolate(flow.name)}</h3>{note}</section>'
    places = thumbnails.choose_places(flow.name, flow.survey, rows)
    raws = thumbnails.read_examples(run, places, flow.columns, flow.roles.columns)
    cards = "".join(html.render_card(thumbnails.build_example(raw, flow.roles, side)) for raw in raws)
    part = f"{len(places):,} of " if len(places) < flow.survey.rows else ""
    single = " single" if flow.roles.panels == 1 else ""
    head = f"<h3>{isolate(flow.name)} <small>{part}{format_count(flow.survey.rows, 'row')}</small></h3>"
    return f'<section id="{flow.anchor}">{head}<div class="cards{single}">{cards}</div></section>'


def _render_rejections(run: Store, flow: _Flow) -> str:
    """Render the reasons of a flow's rejected and failed inputs, each with an example."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for stage in flow.accounting.stages:
        counts.update({(stage.stage, "rejected", reason): count for reason, count in stage.rejected.items()})
        counts.update({(stage.stage, "failed", reason): count for reason, count in stage.failed.items()})
    if not counts:
        return ""
    examples: dict[tuple[str, str, str], Mapping[str, str | None]] = {}
    for row in _iterate_rejections(run, flow):
        examples.setdefault((str(row["stage"]), str(row["outcome"]), str(row["reason"])), row)
        if len(examples) == len(counts):
            break
    lines = []
    for (stage_name, outcome, reason), count in counts.most_common(MOST_REASONS):
        row = examples.get((stage_name, outcome, reason), {})
        id, detail = row.get("id") or "", row.get("detail") or ""
        code = f'<code title="{escape_text(id)}">{escape_text(html.shorten_id(id))}</code>'
        lines.append(
            [
                f"{count:,}",
                f'<span class="{outcome}">{outcome}</span> by {isolate(stage_name)}',
                isolate(reason),
                f"{code} {isolate(row.get('origin') or '')}",
                isolate(detail if len(detail) <= DETAIL_LENGTH else f"{detail[:DETAIL_LENGTH]}…"),
            ]
        )
    rest = len(counts) - MOST_REASONS
    more = render_note(f"and {format_count(rest, 'reason')} more") if rest > 0 else ""
    heads = {"count": 7, "stage": 16, "reason": 20, "for example": 33, "detail": 24}
    return f"<article><h3>{isolate(flow.name)}</h3>{html.render_listing(heads, lines)}{more}</article>"


def _iterate_rejections(run: Store, flow: _Flow) -> Iterator[Mapping[str, str | None]]:
    for record in flow.commits:
        if record.rejected is None:
            continue
        try:
            with run.open(f"{table_path(flow.name)}/{record.rejected.name}") as source:
                rows = read_parquet(source).to_pylist()
        except thumbnails.UNREADABLE:
            continue  # the counts are in the manifest; only the example is missing
        yield from rows


def _render_origins(flows: Sequence[_Flow]) -> str:
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
    first, second = render_note("No rows, no licences."), render_note("No network's weights were used.")
    if licence_lines:
        first = html.render_listing({"licence": 30, "rows": 70}, licence_lines)
    if weight_lines:
        second = html.render_listing({"weights": 30, "sha256": 45, "rows": 25}, weight_lines)
    return first + second
