"""The sections of a report with pictures: rows of each flow, nearest to a limit first; a contact sheet of simulated
triplets; rejected inputs by reason.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rasura.manifests.storage import Store
from rasura.pipeline.report import html, thumbnails
from rasura.pipeline.report.budget import PageBudget
from rasura.pipeline.report.flows import ReportFlow, iterate_rejections
from rasura.pipeline.report.html import escape_text, format_count, isolate, render_note
from rasura.pipeline.report.measures import Measure, find_nearest, find_rows, rank_margins
from rasura.pipeline.report.survey import choose_places
from rasura.pipeline.report.thumbnails import Place

SHEET_SIDE = 280
"""Long side of a picture on the contact sheet and of a rejected input, px."""
MOST_REASONS = 40
REJECTED_EXAMPLES = 3
"""Inputs that are shown of each reason, at most."""

Reason = tuple[str, str, str]
"""Stage, outcome and reason of an input that is not among the rows."""


def render_pictures(
    run: Store,
    flow: ReportFlow,
    measures: Mapping[str, Measure],
    rows: int,
    side: int,
    budget: PageBudget,
    folded: bool,
) -> str:
    """Render rows of a flow: those nearest to one of its limits, the nearest first, and a sample of the others.

    Args:
        measures: of the columns with a limit. rows: that are shown in all. side: of their pictures, px.
        folded: they are shown on a click.
    """
    if not flow.survey.rows:
        note = render_note("No rows were kept." if flow.accounting.complete else "No rows yet.")
        return f'<section id="{flow.anchor}"><h3>{isolate(flow.name)}</h3>{note}</section>'
    nearest = find_nearest(run, flow, flow.limits, measures, -(-rows // 2)) if flow.limits else []
    sample = [place for place in choose_places(flow.name, flow.survey, rows) if place not in nearest]
    sample = sample[: rows - len(nearest)]
    shown = len(nearest) + len(sample)
    part = f"{shown:,} of " if shown < flow.survey.rows else ""
    head = f"<h3>{isolate(flow.name)} <small>{part}{format_count(flow.survey.rows, 'row')}</small></h3>"
    body = ""
    if nearest:
        body = "<h4>Nearest to a limit <small>the nearest first</small></h4>"
        body += _render_cards(run, flow, nearest, measures, side, budget)
        body += "<h4>Sample <small>evenly spaced over the other rows</small></h4>" if sample else ""
    body += _render_cards(run, flow, sample, measures, side, budget) if sample else ""
    if folded:
        body = f'<details class="flow"><summary>{head}</summary>{body}</details>'
        head = ""
    return f'<section id="{flow.anchor}">{head}{body}</section>'


def _render_cards(
    run: Store,
    flow: ReportFlow,
    places: Sequence[Place],
    measures: Mapping[str, Measure],
    side: int,
    budget: PageBudget,
) -> str:
    cards, refused = "", budget.refused
    for raw in thumbnails.read_examples(run, places, flow.columns, flow.roles.columns):
        chips = _describe_margins(flow, measures, raw) if flow.limits else None
        card = html.render_card(thumbnails.build_example(raw, flow.roles, side), chips)
        cards += card if budget.spend(card) else ""
    single = " single" if flow.roles.panels == 1 else ""
    return f'<div class="cards{single}">{cards}</div>{_describe_refused(budget, refused)}'


def _describe_refused(budget: PageBudget, before: int) -> str:
    """Say how many rows are left out for the size of the page; "" where there are none."""
    count = budget.refused - before
    limit = f"with {'it' if count == 1 else 'them'} the page would exceed {html.format_bytes(budget.size)}"
    return (
        render_note(f"{format_count(count, 'more row')} {'is' if count == 1 else 'are'} not shown: {limit}.")
        if count
        else ""
    )


def _describe_margins(flow: ReportFlow, measures: Mapping[str, Measure], row: Mapping[str, Any]) -> list[str]:
    """Describe the two measures of a row that are nearest to their limits, as HTML."""
    names = [name for _, name in rank_margins(row, flow.limits, measures)[:2]]
    words = [f"{escape_text(html.name_column(name))} {row[name]:.3g}, {flow.limits[name].describe()}" for name in names]
    return [f"<b>{word}</b>" if index == 0 else word for index, word in enumerate(words)]


def render_sheet(run: Store, chosen: Sequence[ReportFlow], count: int, budget: PageBudget) -> str:
    """Render simulated triplets as a contact sheet: small, many at once, and numbered for a visual inspection.

    Args:
        chosen: the dataset's flows. count: triplets on the sheet.
    """
    flows = [flow for flow in chosen if flow.survey.counts["kind"]["simulated"] and flow.has_triplets]
    total = sum(flow.survey.counts["kind"]["simulated"] for flow in flows)
    tiles: list[str] = []
    refused = budget.refused
    for flow in flows:
        share = -(-count * flow.survey.rows // total) if total else 0  # each flow by its share of the rows
        places = choose_places(flow.name, flow.survey, min(share, count - len(tiles)))
        roles = dataclasses.replace(flow.roles, cut_out=None)
        for raw in thumbnails.read_examples(run, places, flow.columns, flow.roles.columns):
            if raw.get("kind", "simulated") != "simulated":  # a row that cannot be read has no kind
                continue
            tile = html.render_tile(thumbnails.build_example(raw, roles, SHEET_SIDE), len(tiles) + 1)
            if budget.spend(tile):
                tiles.append(tile)
    if not tiles and budget.refused == refused:
        return ""
    intro = (
        f"<p>{len(tiles):,} of {format_count(total, 'simulated triplet')}. Check for each: does the object rest on the "
        "ground plane, is its size plausible, does its shadow point where the other shadows point, is there a halo?</p>"
    )
    sheet = f'<div class="sheet">{"".join(tiles)}</div>{_describe_refused(budget, refused)}'
    return f'<section id="sheet"><h2>Contact sheet</h2>{intro}{sheet}</section>'


def render_rejections(
    run: Store, flow: ReportFlow, upstream: Sequence[ReportFlow], rows: int, budget: PageBudget
) -> str:
    """Render the reasons of a flow's rejected and failed inputs: a table with an example of each, and pictures.

    An input has pictures where it is a row of a flow that this one reads.

    Args:
        upstream: the flows that this one reads. rows: inputs with pictures, at most.
    """
    counts: Counter[Reason] = Counter()
    for stage in flow.accounting.stages:
        counts.update({(stage.stage, "rejected", reason): count for reason, count in stage.rejected.items()})
        counts.update({(stage.stage, "failed", reason): count for reason, count in stage.failed.items()})
    if not counts:
        return ""
    ranked = counts.most_common(MOST_REASONS)
    examples = _choose_examples(iterate_rejections(run, flow), [reason for reason, _ in ranked])
    lines = []
    for (stage_name, outcome, reason), count in ranked:
        row = (examples[stage_name, outcome, reason] or [{}])[0]
        id, origin, detail = (row.get(name) or "" for name in ("id", "origin", "detail"))
        code = f'<code title="{escape_text(id)}">{escape_text(html.shorten_id(id))}</code>'
        lines.append(
            [
                f"{count:,}",
                f'<span class="{outcome}">{outcome}</span> by {isolate(stage_name)}',
                isolate(reason),
                f"{code} {isolate(origin)}",
                isolate(detail),
            ]
        )
    rest = len(counts) - MOST_REASONS
    more = render_note(f"and {format_count(rest, 'reason')} more") if rest > 0 else ""
    heads = {"count": 7, "stage": 16, "reason": 20, "for example": 33, "detail": 24}
    tiles = _render_rejected_tiles(run, upstream, examples, rows, budget)
    return f"<article><h3>{isolate(flow.name)}</h3>{html.render_listing(heads, lines)}{more}{tiles}</article>"


def _choose_examples(
    rejections: Iterable[Mapping[str, Any]], reasons: Sequence[Reason]
) -> dict[Reason, list[Mapping[str, Any]]]:
    """Choose the first inputs of each reason."""
    examples: dict[Reason, list[Mapping[str, Any]]] = {reason: [] for reason in reasons}
    for row in rejections:
        group = examples.get((str(row["stage"]), str(row["outcome"]), str(row["reason"])))
        if group is not None and len(group) < REJECTED_EXAMPLES:
            group.append(row)
            if all(len(other) == REJECTED_EXAMPLES for other in examples.values()):
                break
    return examples


def _render_rejected_tiles(
    run: Store,
    upstream: Sequence[ReportFlow],
    examples: Mapping[Reason, Sequence[Mapping[str, Any]]],
    rows: int,
    budget: PageBudget,
) -> str:
    """Render pictures of rejected inputs, the first of each reason before the second of any."""
    pictured = {flow.name: flow for flow in upstream if flow.roles.panels}
    stored = find_rows(
        run, list(pictured.values()), {str(row["input_id"]) for rows in examples.values() for row in rows}
    )
    turns = [
        (turn, number, row)
        for number, group in enumerate(examples.values())
        for turn, row in enumerate(group)
        if str(row["input_id"]) in stored
    ]
    tiles, refused = "", budget.refused
    for _, _, row in sorted(sorted(turns, key=lambda entry: entry[:2])[:rows], key=lambda entry: (entry[1], entry[0])):
        place = stored[str(row["input_id"])].place
        flow = pictured[place[0]]
        (raw,) = thumbnails.read_examples(run, [place], flow.columns, flow.roles.columns)
        reason = f'<b class="bad">{isolate(row["reason"])}</b>'
        chips = [reason] + ([isolate(row["detail"])] if row["detail"] else [])
        roles = dataclasses.replace(flow.roles, cut_out=None if flow.roles.source else flow.roles.cut_out)
        tile = html.render_tile(thumbnails.build_example(raw, roles, SHEET_SIDE), None, chips)
        tiles += tile if budget.spend(tile) else ""
    if not tiles and budget.refused == refused:
        return ""
    return f'<div class="sheet">{tiles}</div>{_describe_refused(budget, refused)}'
