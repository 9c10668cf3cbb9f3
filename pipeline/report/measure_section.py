"""The section of a report about measures: their distributions, with the limits of the recipe."""

from collections.abc import Mapping, Sequence

from rasura.manifests.storage import Store
from rasura.pipeline.report import charts
from rasura.pipeline.report.flows import ReportFlow
from rasura.pipeline.report.html import escape_text, format_count, isolate, render_note
from rasura.pipeline.report.measures import Measure, list_measures, sample_measures

MOST_MEASURES = 80
"""Distributions of a flow that are drawn without a limit."""


def render_measures(run: Store, flows: Sequence[ReportFlow], limited: Mapping[str, Mapping[str, Measure]]) -> str:
    """Render the distributions of measures, flow by flow: those with a limit, and on a click those without.

    Args:
        limited: flow -> column -> values, of columns with a limit.
    """
    with_limit = {column for flow in flows for column in flow.limits}
    parts = []
    for flow in sorted(flows, key=lambda flow: not flow.limits):  # those with limits first
        names = [name for name in list_measures(flow, flows) if name not in with_limit]
        others = sample_measures(run, flow, [], names) if names else {}
        figures = [
            charts.draw_distribution(name, measure, flow.limits[name])
            for name, measure in limited.get(flow.name, {}).items()
            if measure.values.size
        ]
        body = f'<div class="measures">{"".join(figures)}</div>' if figures else ""
        body += _render_others(others)
        if body:
            total = format_count(flow.survey.rows, "row")
            rejected = max((measure.rejected.size for measure in limited.get(flow.name, {}).values()), default=0)
            total += f", {rejected:,} rejected" if rejected else ""
            parts.append(f"<article><h3>{isolate(flow.name)} <small>{total}</small></h3>{body}</article>")
    key = (
        '<p class="note"><i class="swatch kept"></i>kept <i class="swatch rejected"></i>rejected, for whatever reason '
        '<i class="swatch limit"></i>limit in the recipe. Outermost bars have all that is beyond them.</p>'
    )
    return key + "".join(parts) if parts else render_note("No flow has measures.")


def _render_others(others: Mapping[str, Measure]) -> str:
    """Render the distributions without a limit, folded; measures that are the same in all rows as text."""
    constant: list[str] = []
    figures: list[str] = []
    for name, measure in others.items():
        values = measure.values
        if not values.size:
            continue
        if values.min() == values.max():
            constant.append(f"{escape_text(name)} {values[0]:.4g}")
        elif len(figures) < MOST_MEASURES:
            figures.append(charts.draw_distribution(name, measure))
    note = f'<p class="note">The same in all rows: {", ".join(constant[:MOST_MEASURES])}</p>' if constant else ""
    if not figures and not note:
        return ""
    title = f"{format_count(len(figures), 'measure')} without a limit" if figures else "Measures without a limit"
    body = f'<div class="measures">{"".join(figures)}</div>{note}'
    return f'<details class="flow"><summary>{title}</summary>{body}</details>'
