"""One self-contained HTML page about a run, to look at: its funnel, its dataset, its pictures, what was dropped.
Of a loop it is made by `loop_report`.

Nothing in it depends on time, host or place, so that the same run gives the same page. What comes from data
passes `text` or `data`; a content security policy lets no script but the page's own run, should that be forgotten.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from rasura.manifests.parquet import read_parquet
from rasura.manifests.schemas import Kind
from rasura.manifests.shards import Line
from rasura.manifests.storage import Store
from rasura.pipeline.report import charts
from rasura.pipeline.report import html as markup
from rasura.pipeline.report import thumbnails as gallery
from rasura.pipeline.report.html import counted, data, empty, text
from rasura.pipeline.report.statistics import spread
from rasura.pipeline.report.thumbnails import Roles, Survey
from rasura.pipeline.run.accounting import Account, FlowAccount, about, account, lines_of

PICTURE_BYTES = 4_000_000  # of all thumbnails; a third more as base64
MEASURED_ROWS = 256  # whose masks are opened for the histograms
SHEET_SIDE = 280  # px, long side of a picture on the contact sheet
SHOWN_REASONS = 40
SHOWN_DETAIL = 400
MAIN = Template("""\
<section id="pictures"><h2>Pictures</h2>
$legend
<nav aria-label="Flows"><ul>$nav</ul></nav>
$pictures</section>
$sheet
<section id="dataset"><h2>Dataset</h2>$dataset</section>
<section id="funnel"><h2>Funnel</h2>$funnel</section>
<section id="dropped"><h2>Dropped</h2>$dropped</section>
<section id="origins"><h2>Licences and weights</h2>$origins</section>""")


@dataclass
class _Flow:
    """All that the page says about one flow."""

    name: str
    anchor: str
    account: FlowAccount
    lines: list[Line]
    own: dict[str, Kind]  # columns of the table itself
    whole: dict[str, Kind]  # with those of the table it refers to
    upstream: Sequence[str]
    survey: Survey
    roles: Roles

    @property
    def triplets(self) -> bool:
        """Whether its rows are triplets."""
        return {"source", "target", "mask"} <= set(self.whole)

    @property
    def adds_up(self) -> bool:
        """in = kept + rejected + failed at every stage of every shard, and what one gives the next is given."""
        for line in self.lines:
            given = line.inputs
            for count in line.stages:
                if count.inputs != given or not count.balanced():
                    return False
                given = count.out
            if given != (line.data.rows if line.data else 0):
                return False
        return True


def write(run: Store, out: Path | None = None, rows: int = 12, sheet: int = 40) -> str:
    """Writes the page of a run or of a loop and returns its path.

    Args:
        out: the page; `report.html` in the run where None.
        rows: pictures shown of each flow; of a loop, candidates of each round that were kept, and others.
        sheet: simulated triplets on the contact sheet.

    Raises:
        NoRun
        StoreError: it cannot be written.
    """
    if run.exists("loop.json"):
        from rasura.pipeline.report.loop_page import render as of_loop

        page = of_loop(run, rows).encode()
    else:
        page = render(run, rows, sheet).encode()
    if out is None:
        run.write("report.html", page)
        return f"{run.uri}/report.html"
    Store(out.absolute().parent).write(out.name, page)
    return str(out)


def render(run: Store, rows: int, sheet: int = 40) -> str:
    """The page.

    Raises:
        NoRun
    """
    plan, ledger = about(run), account(run)
    flows = _flows(run, plan, ledger)
    chosen = _dataset_flows(plan, flows)
    # what the run was made for comes first; what a selection chose from would only show its pictures again
    repeated = {upstream for flow in chosen if "ref_table" in flow.own for upstream in flow.upstream}
    others = [flow for flow in flows if flow not in chosen and flow.name not in repeated]
    shown = [flow for flow in [*chosen, *others] if flow.roles.panels]
    pictures = sum(min(rows, flow.survey.rows) * flow.roles.panels for flow in shown)
    side = gallery.side_for(pictures, PICTURE_BYTES)
    funnels = [markup.funnel(flow.account, flow.adds_up, flow.survey.faults) for flow in flows]
    galleries = [_pictures(run, flow, rows, side) for flow in shown]
    contact = _sheet(run, chosen, sheet)
    main = MAIN.substitute(
        nav="".join(f'<li><a href="#{flow.anchor}">{data(flow.name)}</a></li>' for flow in shown),
        funnel="".join(funnels) or empty("The run has no flows."),
        dataset=_dataset(run, plan, chosen),
        sheet=contact,
        legend=markup.legend(),
        pictures="".join(galleries) or empty("No flow has pictures."),
        dropped="".join(_dropped(run, flow) for flow in flows) or empty("Nothing was dropped."),
        origins=_origins(flows),
    )
    sections = {"pictures": "Pictures", "sheet": "Contact sheet", "dataset": "Dataset", "funnel": "Funnel",
                "dropped": "Dropped", "origins": "Licences and weights"}  # fmt: skip
    if not contact:
        del sections["sheet"]
    under = f"recipe <code>{text(ledger.recipe)}</code>"
    return markup.page("report of a run", ledger.name, under, _totals(ledger, flows, chosen), sections, main)


def _flows(run: Store, plan: Mapping[str, Any], ledger: Account) -> list[_Flow]:
    accounts = {flow.flow: flow for flow in ledger.flows}
    flows: dict[str, _Flow] = {}
    for index, (flow, told) in enumerate(plan["flows"].items()):
        lines, _ = lines_of(run, flow, told["part"])
        own = {column: Kind(kind) for column, kind in told["columns"].items()}
        whole = dict(own)
        if "ref_table" in own:  # a selection's pictures stand in the flow that it chose from
            whole = next((flows[up].whole for up in told["upstream"] if up in flows), {}) | own
        flows[flow] = _Flow(
            flow, f"flow-{index}", accounts[flow], lines, own, whole, told["upstream"],
            gallery.survey(run, flow, lines), gallery.roles(whole),
        )  # fmt: skip
    return list(flows.values())


def _dataset_flows(plan: Mapping[str, Any], flows: Sequence[_Flow]) -> list[_Flow]:
    """The dataset's flows; where the recipe writes none, the triplets that no other flow of triplets was made from."""
    if plan["dataset"] is not None:
        return [flow for flow in flows if flow.name in plan["dataset"]]
    triplets = [flow for flow in flows if flow.triplets]
    used = {upstream for flow in triplets for upstream in flow.upstream}
    return [flow for flow in triplets if flow.name not in used]


def _totals(ledger: Account, flows: Sequence[_Flow], chosen: Sequence[_Flow]) -> str:
    stages = [stage for flow in flows for stage in flow.account.stages]
    exported = ledger.dataset_rows is not None
    numbers = {
        "inputs": f"{sum(line.inputs for flow in flows if not flow.upstream for line in flow.lines):,}",
        "rejected": f"{sum(stage.rejected.total() for stage in stages):,}",
        "failed": f"{sum(stage.failed.total() for stage in stages):,}",
        "triplets in the dataset" if exported else "triplets": (
            f"{ledger.dataset_rows if exported else sum(flow.survey.rows for flow in chosen):,}"
        ),
        "of pictures": markup.size(sum(flow.survey.bytes for flow in flows if "ref_table" not in flow.own)),
    }
    making = sum(not flow.account.complete for flow in flows)
    lost = sum(not flow.adds_up for flow in flows)
    state = f"{counted(len(flows), 'flow')}, {f'{making:,} still in the making' if making else 'all complete'}"
    check = '<span class="good">✓ every input is accounted for</span>'
    if lost:
        check = f'<strong class="bad">✗ inputs were lost in {counted(lost, "flow")}</strong>'
    cells = "".join(f"<div><dt>{label}</dt><dd>{number}</dd></div>" for label, number in numbers.items())
    return f'<dl class="totals">{cells}</dl><p class="state">{state} · {check}</p>'


def _dataset(run: Store, plan: Mapping[str, Any], chosen: Sequence[_Flow]) -> str:
    if not chosen:
        return empty("No flow makes triplets.")
    noun = "flow" if len(chosen) == 1 else "flows"
    flows = f"{noun} {', '.join(data(flow.name) for flow in chosen)}"
    intro = (
        f"The triplets of {flows}."
        if plan["dataset"]
        else f"The recipe writes none. These are the triplets of {flows}."
    )
    total = sum(flow.survey.rows for flow in chosen)
    if not total:
        return f"<p>{intro}</p>" + empty("There are none.")
    shares: dict[str, list[float]] = {"mask": [], "foreground_mask": []}
    for flow in chosen:
        count = -(-MEASURED_ROWS * flow.survey.rows // total)  # each flow by its share of the rows
        places = gallery.places(flow.name, flow.survey, count)
        for column, values in gallery.areas(run, places, flow.own, flow.whole).items():
            shares[column] += values
    columns = {"split": "no split", "kind": "no kind", "label": "no label"}
    counts = {column: sum((flow.survey.counts[column] for flow in chosen), Counter[str | None]()) for column in columns}
    words = [markup.bars(column.title(), counts[column], missing) for column, missing in columns.items()]
    histograms = [
        markup.histogram("Object area", shares["mask"], total),
        markup.histogram("Object with effects", shares["foreground_mask"], total),
    ]
    rows = [words, histograms, _made_of(run, chosen)]
    return f"<p>{intro}</p>" + "".join(f'<div class="charts">{"".join(row)}</div>' for row in rows if row)


def _made_of(run: Store, chosen: Sequence[_Flow]) -> list[str]:
    """Charts of what the rows were made from; those that have nothing to show are left out."""
    found = spread(run, [(flow.name, flow.lines) for flow in chosen])
    shown = [charts.rose(found.directions)] if found.directions.total() > found.directions[None] else []
    if found.objects:
        objects = Counter[str | None]({counted(count, "object"): rows for count, rows in found.objects.items()})
        shown.append(markup.bars("In a simulated picture", objects, ""))
        shown.append(charts.uses("Use of backgrounds", "background", found.backgrounds.values()))
    if found.cut_outs:
        shown.append(charts.uses("Use of cut-outs", "cut-out", found.cut_outs.values()))
    if found.removers:
        shown.append(markup.bars("Remover", Counter[str | None](found.removers), ""))
    return shown


def _sheet(run: Store, chosen: Sequence[_Flow], count: int) -> str:
    """Simulated triplets, small, many at once and numbered, so that one can judge them one by one."""
    flows = [flow for flow in chosen if flow.survey.counts["kind"]["simulated"] and flow.triplets]
    total = sum(flow.survey.counts["kind"]["simulated"] for flow in flows)
    tiles: list[str] = []
    for flow in flows:
        share = -(-count * flow.survey.rows // total) if total else 0  # each flow by its share of the rows
        places = gallery.places(flow.name, flow.survey, min(share, count - len(tiles)))
        plain = dataclasses.replace(flow.roles, cut_out=None)
        for raw in gallery.look(run, places, flow.own, flow.roles.columns):
            if raw.get("kind", "simulated") == "simulated":  # one that cannot be read does not say
                tiles.append(markup.tile(gallery.example(raw, plain, SHEET_SIDE), len(tiles) + 1))
    if not tiles:
        return ""
    head = (
        f"<p>{len(tiles):,} of {counted(total, 'simulated triplet')}: does each stand, is it as large as it would be "
    )
    head += "there, does its shadow fall with the others, is there a halo?</p>"
    return f'<section id="sheet"><h2>Contact sheet</h2>{head}<div class="sheet">{"".join(tiles)}</div></section>'


def _pictures(run: Store, flow: _Flow, rows: int, side: int) -> str:
    if not flow.survey.rows:
        why = empty("No rows were kept." if flow.account.complete else "No rows yet.")
        return f'<section id="{flow.anchor}"><h3>{data(flow.name)}</h3>{why}</section>'
    places = gallery.places(flow.name, flow.survey, rows)
    raws = gallery.look(run, places, flow.own, flow.roles.columns)
    cards = "".join(markup.card(gallery.example(raw, flow.roles, side)) for raw in raws)
    of = f"{len(places):,} of " if len(places) < flow.survey.rows else ""
    single = " single" if flow.roles.panels == 1 else ""
    head = f"<h3>{data(flow.name)} <small>{of}{counted(flow.survey.rows, 'row')}</small></h3>"
    return f'<section id="{flow.anchor}">{head}<div class="cards{single}">{cards}</div></section>'


def _dropped(run: Store, flow: _Flow) -> str:
    counts: Counter[tuple[str, str, str]] = Counter()
    for stage in flow.account.stages:
        counts.update({(stage.stage, "rejected", reason): count for reason, count in stage.rejected.items()})
        counts.update({(stage.stage, "failed", reason): count for reason, count in stage.failed.items()})
    if not counts:
        return ""
    found: dict[tuple[str, str, str], Mapping[str, str | None]] = {}
    for row in _dropped_rows(run, flow):
        found.setdefault((str(row["stage"]), str(row["outcome"]), str(row["reason"])), row)
        if len(found) == len(counts):
            break
    cells = []
    for (name, outcome, reason), count in counts.most_common(SHOWN_REASONS):
        row = found.get((name, outcome, reason), {})
        id, detail = row.get("id") or "", row.get("detail") or ""
        cells.append(
            [
                f"{count:,}",
                f'<span class="{outcome}">{outcome}</span> by {data(name)}',
                data(reason),
                f'<code title="{text(id)}">{text(markup.short(id))}</code> {data(row.get("origin") or "")}',
                data(detail if len(detail) <= SHOWN_DETAIL else f"{detail[:SHOWN_DETAIL]}…"),
            ]
        )
    rest = len(counts) - SHOWN_REASONS
    more = empty(f"and {counted(rest, 'reason')} more") if rest > 0 else ""
    heads = {"count": 7, "stage": 16, "reason": 20, "for example": 33, "detail": 24}
    return f"<article><h3>{data(flow.name)}</h3>{markup.listing(heads, cells)}{more}</article>"


def _dropped_rows(run: Store, flow: _Flow) -> Iterator[Mapping[str, str | None]]:
    for line in flow.lines:
        if line.dropped is None:
            continue
        try:
            with run.open(f"tables/{flow.name}/{line.dropped.name}") as source:
                rows = read_parquet(source).to_pylist()
        except gallery.UNREADABLE:
            continue  # the counts stand in the manifest; only the example is missing
        yield from rows


def _origins(flows: Sequence[_Flow]) -> str:
    licences: dict[str, list[str]] = {}
    weights: dict[tuple[str, str], list[str]] = {}
    for flow in flows:
        for licence, count in flow.survey.counts["licence"].items():
            licences.setdefault("not given" if licence is None else licence, []).append(f"{data(flow.name)} {count:,}")
        for key, count in flow.survey.weights.items():
            weights.setdefault(key, []).append(f"{data(flow.name)} {count:,}")
    first = [[data(licence), ", ".join(rows)] for licence, rows in sorted(licences.items())]
    second = [
        [data(file), f"<code>{text(sha)}</code>", ", ".join(rows)] for (file, sha), rows in sorted(weights.items())
    ]
    return (markup.listing({"licence": 30, "rows": 70}, first) if first else empty("No rows, no licences.")) + (
        markup.listing({"weights": 30, "sha256": 45, "rows": 25}, second)
        if second
        else empty("No network's weights were used.")
    )
