"""Pieces of a report's page, as HTML: the funnel, bars and histograms, cards of pictures, tables.

Everything that comes from data passes `escape_text` or `isolate` on its way into a page.
"""

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import Any

from rasura.manifests.schemas import CANDIDATE_KINDS, PROVENANCE
from rasura.pipeline.report.thumbnails import Example, Panel
from rasura.pipeline.run.accounting import FlowAccounting, StageAccounting

AREA_EDGES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Edges of the bins of `render_histogram`, as shares of a picture's area."""
MOST_WORDS = 12
"""Words or reasons that are shown of a longer list."""
UNITS = {"alpha_psnr": "dB", "pair_psnr": "dB", "pair_motion": "px"}
KEY_COLUMNS = (
    "score",
    "alpha_psnr",
    "shadow_alpha",
    "detect_score",
    "segment_score",
    "pair_psnr",
    "pair_noise",
    "pair_motion",
    "ground_residual",
)
"""Measurements that are shown below an example, the first four that it has."""
ALT = {
    "source": "the picture with the object",
    "target": "the picture without it",
    "difference": "heat map of the difference between source and target",
    "cut-out": "the object with its effects, cut out, on a checkerboard",
}
AREAS = {"object": "object", "effects": "effects", "ground": "ground plane"}
"""Names of the areas of an example."""
OUTLINES = {
    "object": ("object", "M2 6H24"),
    "effects": ("object with effects", "M2 6H24"),
    "box": ("detection", "M3 2H23V10H3Z"),
    "ground": ("ground plane", "M2 2H24V10H2Z"),
}
"""Outlines that are drawn over pictures: name, and SVG path of the sample in the legend."""
HIDDEN = {"ground"}
"""Outlines that hide what is below them: not drawn until their box is ticked."""
TEXT_LENGTH = 400
"""Letters of a text from data that are shown."""


def render_legend(outlines: Sequence[str] = tuple(OUTLINES)) -> str:
    """Render the legend of some outlines, with a box that shows or hides each, and how to use the pictures.

    The boxes work without a script.
    """
    keys = "".join(
        f'<li><label><input type="checkbox" id="show-{kind}"{"" if kind in HIDDEN else " checked"}>'
        f'<svg viewBox="0 0 26 12" aria-hidden="true"><path class="{kind}" d="{OUTLINES[kind][1]}"/></svg>'
        f"{OUTLINES[kind][0]}</label></li>"
        for kind in outlines
    )
    return (
        f'<ul class="legend">{keys}<li><span class="ramp"></span>difference: none to large</li>'
        "<li>Point at a source, or hold it, for its target</li></ul>"
    )


def render_page(kicker: str, name: str, subtitle: str, totals: str, sections: Mapping[str, str], main: str) -> str:
    """Render a whole page from the template `page.html`.

    Args:
        kicker: the line above the name. name: of the run or loop, not escaped.
        subtitle, totals, main: HTML. sections: ids of the parts of `main`, with their titles.
    """
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", template, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode() if script else ""
    links = "".join(f'<li><a href="#{id}">{title}</a></li>' for id, title in sections.items())
    return Template(template).substitute(
        script_hash=digest,
        kicker=kicker,
        name=escape_text(name),
        subtitle=subtitle,
        totals=totals,
        nav=links,
        main=main,
    )


def escape_text(value: object) -> str:
    """Escape data as HTML text or as the value of a quoted attribute.

    Examples:
        >>> escape_text("<b>")
        '&lt;b&gt;'
    """
    return escape(str(value), quote=True)


def isolate(value: object) -> str:
    """Escape data within a sentence, isolated so that a name written right to left does not reorder the sentence.

    Of a long text, only the first `TEXT_LENGTH` letters are shown.
    """
    text = str(value)
    return f"<bdi>{escape_text(text if len(text) <= TEXT_LENGTH else f'{text[:TEXT_LENGTH]}…')}</bdi>"


def render_note(sentence: str) -> str:
    """Render a sentence in a place where there is nothing to show."""
    return f'<p class="empty">{sentence}</p>'


def format_count(value: int, noun: str) -> str:
    """Format a count with its noun.

    Examples:
        >>> format_count(1, "row"), format_count(2000, "row")
        ('1 row', '2,000 rows')
    """
    return f"{value:,} {noun if value == 1 else noun + 's'}"


def format_bytes(count: int) -> str:
    """Format bytes in the unit that needs the fewest digits.

    Examples:
        >>> format_bytes(999), format_bytes(21_600_000)
        ('999 bytes', '21.6 MB')
    """
    amount, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.3g} {unit}" if amount < 1000 else f"{amount:,.0f} {unit}"


def format_share(value: float) -> str:
    """Format a share as percent.

    Examples:
        >>> format_share(0.019), format_share(0.23)
        ('1.9 %', '23 %')
    """
    return f"{100 * value:.2g} %" if value < 0.1 else f"{100 * value:.0f} %"


def format_value(value: Any) -> str:
    """Format a column's value as text, neither escaped nor shortened."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {format_value(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(format_value, value))
    return str(value)


def render_funnel(flow: FlowAccounting, adds_up: bool, faults: Sequence[str] = ()) -> str:
    """Render what became of a flow's inputs, stage by stage: bars, reasons and numbers.

    Args:
        adds_up: every input is accounted for.
        faults: files of its table that cannot be read, and why.
    """
    state = "complete" if flow.complete else f"in progress, {format_count(flow.shards, 'shard')} so far"
    head = f"{isolate(flow.flow)} <small>{format_count(flow.rows, 'row')} · {state}"
    if not flow.shards:
        return f"<article><h3>{isolate(flow.flow)}</h3>{render_note('Nothing is committed yet.')}</article>"
    check = '<span class="good">✓ adds up</span>' if adds_up else '<strong class="bad">✗ does not add up</strong>'
    notes = "".join(render_note(f"Cannot be read: {isolate(fault)}") for fault in faults)
    # `write` is no stage of the recipe: it is shown only where it did not keep all
    stages = [stage for stage in flow.stages if stage.stage != "write" or stage.kept != stage.inputs]
    most = max([1, *(stage.inputs for stage in stages)])
    body = "".join(_render_stage(stage, most) for stage in stages)
    columns = "".join(f'<th scope="col">{word}</th>' for word in ("in", "kept", "rejected", "failed", "out"))
    row = f'<tr><th scope="col">stage</th><td></td>{columns}</tr>'
    grid = f'<table class="funnel"><thead>{row}</thead><tbody>{body}</tbody></table>'
    return f"<article><h3>{head} · {check}</small></h3>{notes}{grid}</article>"


def _render_stage(stage: StageAccounting, most: int) -> str:
    rejected, failed = stage.rejected.total(), stage.failed.total()
    parts = (("kept", stage.kept), ("rejected", rejected), ("failed", failed))
    bar = "".join(f'<i class="{kind}" style="width:{100 * part / most:.3f}%"></i>' for kind, part in parts if part)
    causes = [("rejected", *item) for item in stage.rejected.most_common()]
    causes += [("failed", *item) for item in stage.failed.most_common()]
    items = [f'<li class="{kind}"><b>{part:,}</b> {isolate(reason)}</li>' for kind, reason, part in causes[:MOST_WORDS]]
    if len(causes) > MOST_WORDS:
        items.append(f"<li>and {format_count(len(causes) - MOST_WORDS, 'reason')} more</li>")
    reasons = f'<ul class="why">{"".join(items)}</ul>' if items else ""
    fault = "" if stage.balances else ' <strong class="bad">✗</strong>'
    numbers = "".join(
        f'<td data-name="{kind}"{"" if number else " class=zero"}>{number:,}</td>'
        for kind, number in (("in", stage.inputs), *parts, ("out", stage.out))
    )
    return (
        f'<tr><th scope="row">{isolate(stage.stage)}{fault}</th><td class="flow">'
        f'<div class="bar" aria-hidden="true">{bar}</div>{reasons}</td>{numbers}</tr>'
    )


def render_bars(title: str, counts: Counter[str | None], missing: str) -> str:
    """Render counts of words as horizontal bars.

    Args:
        missing: the word in place of None.
    """
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0] or ""))
    bars = [(missing if word is None else word, count) for word, count in ranked[:MOST_WORDS]]
    if rest := ranked[MOST_WORDS:]:
        bars.append((f"{format_count(len(rest), 'other')}", sum(count for _, count in rest)))
    most = max(count for _, count in bars)
    items = "".join(
        f"<li><span>{isolate(word)}</span><b>{count:,}</b>"
        f'<i aria-hidden="true" style="width:{100 * count / most:.2f}%"></i></li>'
        for word, count in bars
    )
    return f'<figure><figcaption>{title}</figcaption><ul class="words">{items}</ul></figure>'


def render_histogram(title: str, shares: Sequence[float], total: int) -> str:
    """Render a histogram of shares of the picture, with bins that widen.

    Args:
        total: rows, of which some may have no share.
    """
    if not shares:
        return f"<figure><figcaption>{title}</figcaption>{render_note('Not available.')}</figure>"
    edges = [f"{100 * edge:g}" for edge in AREA_EDGES]
    labels = [
        f"&lt; {edges[0]}",
        *(f"{low}–{high}" for low, high in pairwise(edges)),
        f"{edges[-1]} +",
    ]
    bins = [0] * len(labels)
    for share in shares:
        bins[sum(share >= edge for edge in AREA_EDGES)] += 1
    most = max(bins)
    columns = "".join(
        f'<li><b class="{"" if count else "zero"}">{count:,}</b><i aria-hidden="true" style="height:'
        f'{100 * count / most:.2f}%"></i><span>{label}</span></li>'
        for label, count in zip(labels, bins, strict=True)
    )
    basis = format_count(total, "row") if len(shares) == total else f"{len(shares):,} of {format_count(total, 'row')}"
    return (
        f"<figure><figcaption>{title} <small>% of the picture, {basis}</small></figcaption>"
        f'<ul class="columns">{columns}</ul></figure>'
    )


def render_card(example: Example, measures: Sequence[str] | None = None) -> str:
    """Render an example: its pictures side by side, its key measurements, and all other values folded away.

    Args:
        measures: HTML in place of the key measurements.
    """
    row = example.row
    id = str(row.get("id", ""))
    panels = "".join(_render_panel(panel, row) for panel in example.panels)
    if example.fault:
        panels += render_note(f"Its pictures cannot be read: {isolate(example.fault)}")
    aspect = sum(map(_compute_aspect, example.panels)) or 3
    chips = [f'<code title="{escape_text(id)}">{escape_text(shorten_id(id))}</code>']
    if row.get("kind") in CANDIDATE_KINDS and not row.get("verdict"):
        row = {**row, "kind": "candidate, not judged"}
    chips += [
        f"<span>{isolate(row[key])}</span>" for key in ("label", "kind", "remover", "verdict", "split") if row.get(key)
    ]
    areas = sorted(example.areas.items(), reverse=True)
    chips += [f"<span>{AREAS[key]} {format_share(area)}</span>" for key, area in areas]
    if measures is None:
        keys = [key for key in KEY_COLUMNS if isinstance(row.get(key), float)][:4]
        measures = [f"{name_column(key)} {row[key]:.3g} {UNITS.get(key, '')}" for key in keys]
    chips += [f"<span>{measure}</span>" for measure in measures]
    values = [(key, value) for key, value in row.items() if value is not None and value != [] and key != "bytes"]
    values.sort(key=lambda item: (item[0] in PROVENANCE and item[0] != "id", item[0] != "id"))
    entries = "".join(f"<dt>{escape_text(key)}</dt><dd>{isolate(format_value(value))}</dd>" for key, value in values)
    return (
        f'<article class="card" style="--aspect:{aspect:.4f}"><div class="panels">{panels}</div>'
        f'<div class="caption">{"".join(chips)}<details><summary>all values</summary><dl>{entries}</dl></details></div>'
        "</article>"
    )


def render_tile(example: Example, number: int | None, chips: Sequence[str] = ()) -> str:
    """Render an example on a contact sheet: its pictures, its number, its label and some chips.

    Args:
        number: None: it has none.
        chips: HTML.
    """
    id = str(example.row.get("id", ""))
    prefix = f"{number}: " if number else "rejected: "
    panels = "".join(_render_panel(panel, example.row, prefix) for panel in example.panels)
    if example.fault:
        panels += render_note(f"Its pictures cannot be read: {isolate(example.fault)}")
    label = f"<span>{isolate(example.row['label'])}</span>" if example.row.get("label") else ""
    label += "".join(f"<span>{chip}</span>" for chip in chips)
    number_html = f"<b>{number}</b>" if number else ""
    return (
        f'<article class="card tile"><div class="panels">{panels}</div><div class="caption">{number_html}{label}'
        f'<code title="{escape_text(id)}">{escape_text(shorten_id(id))}</code></div></article>'
    )


def name_column(column: str) -> str:
    """Write a column's name as words."""
    return column.replace("_", " ").replace("psnr", "PSNR")


def shorten_id(id: str) -> str:
    """Shorten an id to its first letters, with what distinguishes it from its parent's other children.

    Examples:
        >>> shorten_id("00112233445566.telea")
        '0011223344.telea'
    """
    stem, dot, child = id.partition(".")
    return f"{stem[:10]}{dot}{child[:16]}"


def _compute_aspect(panel: Panel) -> float:
    """Return width by height of a panel's box: cut-outs get a square, so that all rows line up."""
    return 1.0 if panel.name == "cut-out" else panel.width / panel.height


def _render_panel(panel: Panel, row: Mapping[str, Any], prefix: str = "") -> str:
    description = ALT.get(panel.name, panel.name.replace("_", " "))
    label = f" ({str(row['label'])[:80]})" if row.get("label") else ""
    alt = f"{prefix}{panel.name} of {shorten_id(str(row.get('id', '')))}{label}: {description}"
    paths = "".join(f'<path class="{kind}" d="{path}"/>' for kind, path in panel.paths.items() if path)
    over = f'<svg viewBox="0 0 {panel.width} {panel.height}" aria-hidden="true">{paths}</svg>' if paths else ""
    return (
        f'<button class="panel {escape_text(panel.name)}" data-name="{escape_text(panel.name)}" style="--a:'
        f'{_compute_aspect(panel):.4f}"><img src="{panel.uri}" width="{panel.width}" height="{panel.height}" '
        f'alt="{escape_text(alt)}">{over}<span class="tag">{escape_text(panel.name.replace("_", " "))}</span></button>'
    )


def render_numbers(lines: Sequence[Sequence[str]]) -> str:
    """Render a table of numbers.

    Args:
        lines: cells, not escaped; the first line has the headings. A last column without a heading has words.
    """
    kind = "numbers" if lines[0][-1] else "numbers worded"
    lines = [["–" if cell == "-" else cell for cell in line] for line in lines]
    head = "".join(f'<th scope="col">{escape_text(cell)}</th>' for cell in lines[0])
    body = "".join(f"<tr>{''.join(f'<td>{escape_text(cell)}</td>' for cell in line)}</tr>" for line in lines[1:])
    return f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def render_chart(svg: str, alt: str) -> str:
    """Render a chart that is an SVG file as a picture, so that its style does not mix with the page's."""
    encoded = base64.b64encode(svg.encode()).decode()
    source = f"data:image/svg+xml;base64,{encoded}"
    return f'<div class="wide"><img class="plot" src="{source}" alt="{escape_text(alt)}"></div>'


def render_listing(heads: Mapping[str, int], rows: Sequence[Sequence[str]]) -> str:
    """Render a table of cells that are HTML already.

    Args:
        heads: names of the columns, with their widths in percent.
    """
    columns = "".join(f'<col style="width:{width}%">' for width in heads.values())
    head = "".join(f'<th scope="col">{word}</th>' for word in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<table class="list"><colgroup>{columns}</colgroup><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    )
