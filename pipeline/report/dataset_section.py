"""The section of a report about the dataset: splits, kinds, labels, areas, and what its rows were made from."""

from collections import Counter
from collections.abc import Sequence

from rasura.manifests.run_layout import RunPlan
from rasura.manifests.storage import Store
from rasura.pipeline.report import charts, html, thumbnails
from rasura.pipeline.report.flows import ReportFlow
from rasura.pipeline.report.html import format_count, isolate, render_note
from rasura.pipeline.report.statistics import count_spread
from rasura.pipeline.report.survey import choose_places

MEASURED_ROWS = 256
"""Rows whose masks are opened for the histograms."""


def render_dataset(run: Store, plan: RunPlan, chosen: Sequence[ReportFlow]) -> str:
    """Render the composition of the dataset, or of the triplets of a run that exports none.

    Args:
        chosen: the flows whose rows it has.
    """
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
        places = choose_places(flow.name, flow.survey, count)
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


def _draw_composition(run: Store, chosen: Sequence[ReportFlow]) -> list[str]:
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
