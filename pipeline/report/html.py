"""Pieces of a report's page, as HTML: the frame, the funnel, bars and histograms, tables of numbers.

Everything that comes from data passes `escape_text` or `isolate` on its way into a page, or is JSON that the page's
script shows as text (`galleries.py`).
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from string import Template

from rasura.pipeline.run.accounting import FlowAccounting, StageAccounting

PAGE = Path(__file__).with_name("page")
SCRIPTS = ("table.js", "viewer.js", "rows.js", "measures.js", "start.js")
"""Files of the page's one script, in their order."""
POLICY = "default-src 'none'; img-src data: {images}; connect-src {requests}; style-src 'unsafe-inline'; "
POLICY += "script-src {scripts}; base-uri 'none'; form-action 'none'"
"""The page's content security policy: no script runs but its own, which is named by its hash."""
AREA_EDGES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Edges of the bins of `render_histogram`, as shares of a picture's area."""
MOST_WORDS = 12
"""Words or reasons that are shown of a longer list."""
OUTLINES = {
    "object": ("object", "M2 6H24"),
    "effects": ("object with effects", "M2 6H24"),
    "box": ("detection", "M3 2H23V10H3Z"),
    "ground": ("ground plane", "M2 2H24V10H2Z"),
}
"""Outlines that are drawn over pictures: name, and SVG path of the sample in the legend."""
TEXT_LENGTH = 400
"""Letters of a text from data that are shown."""


def render_legend(outlines: Sequence[str] = tuple(OUTLINES)) -> str:
    """Render the switches of some outlines, all of them off, and how to use the pictures."""
    keys = "".join(
        f'<li><label><input type="checkbox" id="show-{kind}">'
        f'<svg viewBox="0 0 26 12" aria-hidden="true"><path class="{kind}" d="{OUTLINES[kind][1]}"/></svg>'
        f"{OUTLINES[kind][0]}</label></li>"
        for kind in outlines
    )
    return (
        f'<ul class="legend" aria-label="Outlines">{keys}<li><span class="ramp"></span>difference: none to large</li>'
        "<li>Point at a source for its target; click to enlarge</li></ul>"
    )


def render_rows(legend: str, title: str = "Rows") -> str:
    """Render the place of the tables, which the page's script fills."""
    return (
        f'<section id="rows"><h2>{title}</h2>{legend}<div id="rows-place">'
        '<p class="empty">The rows need the page\'s own script, which this browser does not run.</p></div></section>'
    )


def render_page(
    kicker: str,
    name: str,
    subtitle: str,
    totals: str,
    sections: Mapping[str, str],
    main: str,
    data: str = "",
    served: bool = False,
) -> str:
    """Render a whole page from the files of the folder `page`.

    Args:
        kicker: the line above the name. name: of the run or loop, not escaped.
        subtitle, totals, main: HTML. sections: ids of the parts of `main`, with their titles.
        data: elements that hold JSON. served: the page asks a server for pictures.
    """
    script = "".join((PAGE / file).read_text(encoding="utf-8") for file in SCRIPTS)
    script = f'"use strict";\n{script}'
    # the folder beside the page is `file:` on a disk and `'self'` on a server
    images, requests = ("'self'", "'self'") if served else ("'self' file:", "'none'")
    links = "".join(f'<li><a href="#{id}">{title}</a></li>' for id, title in sections.items())
    return Template((PAGE / "page.html").read_text(encoding="utf-8")).substitute(
        policy=POLICY.format(images=images, requests=requests, scripts=hash_script(f"\n{script}")),
        style=(PAGE / "page.css").read_text(encoding="utf-8"),
        script=script,
        kicker=kicker,
        name=escape_text(name),
        subtitle=subtitle,
        totals=totals,
        nav=links,
        main=main,
        data=data,
    )


def hash_script(script: str) -> str:
    """Return the source of a content security policy that admits one script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


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


def render_funnel(flow: FlowAccounting, adds_up: bool, faults: Sequence[str] = (), rejected: str = "") -> str:
    """Render what became of a flow's inputs, stage by stage: bars, reasons, numbers and times.

    Args:
        adds_up: every input is accounted for.
        faults: files of its table that cannot be read, and why.
        rejected: id of the page's table of its rejected inputs.
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
    body = "".join(_render_stage(stage, most, rejected) for stage in stages)
    words = ("in", "kept", "rejected", "failed", "out", "seconds", "rows/s", "cost")
    columns = "".join(f'<th scope="col">{word}</th>' for word in words)
    row = f'<tr><th scope="col">stage</th><td></td>{columns}</tr>'
    grid = f'<table class="funnel"><thead>{row}</thead><tbody>{body}</tbody></table>'
    return f"<article><h3>{head} · {check}</small></h3>{notes}{grid}</article>"


def _render_stage(stage: StageAccounting, most: int, table: str) -> str:
    rejected, failed = stage.rejected.total(), stage.failed.total()
    parts = (("kept", stage.kept), ("rejected", rejected), ("failed", failed))
    bar = "".join(f'<i class="{kind}" style="width:{100 * part / most:.3f}%"></i>' for kind, part in parts if part)
    causes = [("rejected", *item) for item in stage.rejected.most_common()]
    causes += [("failed", *item) for item in stage.failed.most_common()]
    items = [
        f'<li class="{kind}"><b>{part:,}</b> {_render_reason(reason, table)}</li>'
        for kind, reason, part in causes[:MOST_WORDS]
    ]
    if len(causes) > MOST_WORDS:
        items.append(f"<li>and {format_count(len(causes) - MOST_WORDS, 'reason')} more</li>")
    reasons = f'<ul class="why">{"".join(items)}</ul>' if items else ""
    fault = "" if stage.balances else ' <strong class="bad">✗</strong>'
    numbers = "".join(
        f'<td data-name="{kind}"{"" if number else " class=zero"}>{number:,}</td>'
        for kind, number in (("in", stage.inputs), *parts, ("out", stage.out))
    )
    numbers += f'<td data-name="seconds">{_format_figure(stage.seconds)}</td>'
    numbers += f'<td data-name="rows/s">{_format_figure(stage.rate)}</td>'
    numbers += f'<td data-name="cost" data-seconds="{stage.seconds:.6g}"></td>'
    return (
        f'<tr><th scope="row">{isolate(stage.stage)}{fault}</th><td class="flow">'
        f'<div class="bar" aria-hidden="true">{bar}</div>{reasons}</td>{numbers}</tr>'
    )


def _format_figure(value: float | None) -> str:
    """Format a measured number with about two digits; "" where it was not measured."""
    if not value:
        return ""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _render_reason(reason: str, table: str) -> str:
    """Render a reason; where the page has a table of rejected inputs, as a button that shows those."""
    if not table or len(reason) > TEXT_LENGTH:
        return isolate(reason)
    return (
        f'<button type="button" data-gallery="{table}" data-reason="{escape_text(reason)}">{isolate(reason)}</button>'
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
