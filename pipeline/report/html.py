"""Pieces of a report's page, as HTML: the funnel, bars and histograms, cards of pictures, tables.

All that comes from data passes `text` or `data` on its way into a page.
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

from rasura.manifests.schemas import PROVENANCE
from rasura.pipeline.report.thumbnails import Example, Panel
from rasura.pipeline.run.accounting import FlowAccount, StageAccount

EDGES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
SHOWN_WORDS = 12
UNITS = {"alpha_psnr": "dB", "pair_psnr": "dB", "pair_motion": "px"}
KEY = (
    "score", "alpha_psnr", "shadow_alpha", "detect_score", "segment_score", "pair_psnr", "pair_noise", "pair_motion",
    "ground_residual",
)  # fmt: skip
ALT = {
    "source": "the picture with the object",
    "target": "the picture without it",
    "difference": "heat map of the difference between source and target",
    "cut-out": "the object with its effects, cut out, on a checkerboard",
}


DRAWN = {"object": ("object", "M2 6H24"), "effects": ("object with effects", "M2 6H24"),
         "box": ("detection", "M3 2H23V10H3Z"), "ground": ("ground", "M2 2H24V10H2Z")}  # fmt: skip


def legend(drawn: Sequence[str] = tuple(DRAWN)) -> str:
    """What is drawn over pictures, and how to look at them."""
    keys = "".join(
        f'<li><svg viewBox="0 0 26 12" aria-hidden="true"><path class="{kind}" d="{DRAWN[kind][1]}"/></svg>'
        f"{DRAWN[kind][0]}</li>"
        for kind in drawn
    )
    return (
        f'<ul class="legend">{keys}<li><span class="ramp"></span>no difference to much</li>'
        "<li>Point at a source, or hold it, to see its target. Click to enlarge.</li></ul>"
    )


def page(kicker: str, name: str, under: str, totals: str, sections: Mapping[str, str], main: str) -> str:
    """A whole page: `report.html` with what is given.

    Args:
        name: data. under, totals, main: HTML. sections: ids of parts of `main` to what they are called.
    """
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", template, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode() if script else ""
    links = "".join(f'<li><a href="#{id}">{title}</a></li>' for id, title in sections.items())
    return Template(template).substitute(
        script_hash=digest, kicker=kicker, name=text(name), under=under, totals=totals, nav=links, main=main
    )


def text(value: object) -> str:
    """Data as HTML text or as a quoted attribute's value."""
    return escape(str(value), quote=True)


def data(value: object) -> str:
    """Data within a sentence of ours: kept apart, so that a name written right to left does not turn it around."""
    return f"<bdi>{text(value)}</bdi>"


def empty(sentence: str) -> str:
    """A sentence that stands where there is nothing to show."""
    return f'<p class="empty">{sentence}</p>'


def counted(value: int, noun: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{value:,} {noun if value == 1 else noun + 's'}"


def size(count: int) -> str:
    """Bytes in the unit that needs the fewest digits."""
    amount, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.3g} {unit}" if amount < 1000 else f"{amount:,.0f} {unit}"


def share(value: float) -> str:
    """A share as percent."""
    return f"{100 * value:.2g} %" if value < 0.1 else f"{100 * value:.0f} %"


def shown_value(value: Any) -> str:
    """A column's value as text, not escaped."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {shown_value(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(shown_value, value))
    return str(value)


def funnel(flow: FlowAccount, adds_up: bool, faults: Sequence[str] = ()) -> str:
    """What became of a flow's inputs, stage by stage: bars, reasons, numbers.

    Args:
        adds_up: whether all of them are accounted for.
        faults: what could not be read of its table.
    """
    state = "complete" if flow.complete else f"in the making, {counted(flow.shards, 'shard')} so far"
    head = f"{data(flow.flow)} <small>{counted(flow.rows, 'row')} · {state}"
    if not flow.shards:
        return f"<article><h3>{data(flow.flow)}</h3>{empty('Nothing is committed yet.')}</article>"
    check = '<span class="good">✓ adds up</span>' if adds_up else '<strong class="bad">✗ does not add up</strong>'
    notes = "".join(empty(f"Cannot be read: {data(fault)}") for fault in faults)
    most = max([1, *(stage.inputs for stage in flow.stages)])
    # `write` is no stage of the recipe's: it is shown where it has something to tell
    shown = [stage for stage in flow.stages if stage.stage != "write" or stage.kept != stage.inputs]
    body = "".join(_stage(stage, most) for stage in shown)
    columns = "".join(f'<th scope="col">{word}</th>' for word in ("in", "kept", "rejected", "failed", "out"))
    row = f'<tr><th scope="col">stage</th><td></td>{columns}</tr>'
    grid = f'<table class="funnel"><thead>{row}</thead><tbody>{body}</tbody></table>'
    return f"<article><h3>{head} · {check}</small></h3>{notes}{grid}</article>"


def _stage(stage: StageAccount, most: int) -> str:
    rejected, failed = stage.rejected.total(), stage.failed.total()
    parts = (("kept", stage.kept), ("rejected", rejected), ("failed", failed))
    bar = "".join(f'<i class="{kind}" style="width:{100 * part / most:.3f}%"></i>' for kind, part in parts if part)
    why = [("rejected", *item) for item in stage.rejected.most_common()]
    why += [("failed", *item) for item in stage.failed.most_common()]
    items = [f'<li class="{kind}"><b>{part:,}</b> {data(reason)}</li>' for kind, reason, part in why[:SHOWN_WORDS]]
    if len(why) > SHOWN_WORDS:
        items.append(f"<li>and {counted(len(why) - SHOWN_WORDS, 'reason')} more</li>")
    reasons = f'<ul class="why">{"".join(items)}</ul>' if items else ""
    fault = "" if stage.balanced else ' <strong class="bad">✗</strong>'
    numbers = "".join(
        f'<td data-name="{kind}"{"" if number else " class=zero"}>{number:,}</td>'
        for kind, number in (("in", stage.inputs), *parts, ("out", stage.out))
    )
    return (
        f'<tr><th scope="row">{data(stage.stage)}{fault}</th><td class="flow"><div class="bar" aria-hidden="true">{bar}'
        f"</div>{reasons}</td>{numbers}</tr>"
    )


def bars(title: str, counts: Counter[str | None], missing: str) -> str:
    """Counts of words as horizontal bars."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0] or ""))
    shown = [(missing if word is None else word, count) for word, count in ranked[:SHOWN_WORDS]]
    if rest := ranked[SHOWN_WORDS:]:
        shown.append((f"{counted(len(rest), 'other')}", sum(count for _, count in rest)))
    most = max(count for _, count in shown)
    items = "".join(
        f"<li><span>{data(word)}</span><b>{count:,}</b>"
        f'<i aria-hidden="true" style="width:{100 * count / most:.2f}%"></i></li>'
        for word, count in shown
    )
    return f'<figure><figcaption>{title}</figcaption><ul class="words">{items}</ul></figure>'


def histogram(title: str, shares: Sequence[float], total: int) -> str:
    """Shares of the picture in bins that widen, as columns."""
    if not shares:
        return f"<figure><figcaption>{title}</figcaption>{empty('Not known.')}</figure>"
    edges = [f"{100 * edge:g}".removeprefix("0") for edge in EDGES]
    labels = [
        f"&lt; {edges[0]}",
        *(f"{low}–{high}" for low, high in pairwise(edges)),
        f"{edges[-1]} +",
    ]
    bins = [0] * len(labels)
    for share in shares:
        bins[sum(share >= edge for edge in EDGES)] += 1
    most = max(bins)
    columns = "".join(
        f'<li><b class="{"" if count else "zero"}">{count:,}</b><i aria-hidden="true" style="height:'
        f'{100 * count / most:.2f}%"></i><span>{label}</span></li>'
        for label, count in zip(labels, bins, strict=True)
    )
    of = counted(total, "row") if len(shares) == total else f"{len(shares):,} of {counted(total, 'row')}"
    return (
        f"<figure><figcaption>{title} <small>% of the picture, {of}</small></figcaption>"
        f'<ul class="columns">{columns}</ul></figure>'
    )


def card(shown: Example) -> str:
    """An example: its pictures side by side, the measurements one looks for first, all others folded away."""
    row = shown.row
    id = str(row.get("id", ""))
    panels = "".join(_panel(panel, row) for panel in shown.panels)
    if shown.fault:
        panels += empty(f"Its pictures cannot be read: {data(shown.fault)}")
    aspect = sum(map(_aspect, shown.panels)) or 3
    chips = [f'<code title="{text(id)}">{text(short(id))}</code>']
    chips += [
        f"<span>{data(row[key])}</span>" for key in ("label", "kind", "remover", "verdict", "split") if row.get(key)
    ]
    chips += [f"<span>{key} {share(area)}</span>" for key, area in sorted(shown.areas.items(), reverse=True)]
    keys = [key for key in KEY if isinstance(row.get(key), float)][:4]
    chips += [f"<span>{key.replace('_', ' ')} {row[key]:.3g} {UNITS.get(key, '')}</span>" for key in keys]
    values = [(key, value) for key, value in row.items() if value is not None and value != [] and key != "bytes"]
    values.sort(key=lambda item: (item[0] in PROVENANCE and item[0] != "id", item[0] != "id"))
    listed = "".join(f"<dt>{text(key)}</dt><dd>{data(shown_value(value))}</dd>" for key, value in values)
    return (
        f'<article class="card" style="--aspect:{aspect:.4f}"><div class="panels">{panels}</div>'
        f'<div class="caption">{"".join(chips)}<details><summary>all values</summary><dl>{listed}</dl></details></div>'
        "</article>"
    )


def tile(shown: Example, number: int, chips: Sequence[str] = ()) -> str:
    """An example on a contact sheet: its number, its label, its pictures and little else.

    Args:
        chips: more to say of it, HTML.
    """
    id = str(shown.row.get("id", ""))
    panels = "".join(_panel(panel, shown.row, f"{number}: ") for panel in shown.panels)
    if shown.fault:
        panels += empty(f"Its pictures cannot be read: {data(shown.fault)}")
    label = f"<span>{data(shown.row['label'])}</span>" if shown.row.get("label") else ""
    label += "".join(f"<span>{chip}</span>" for chip in chips)
    return (
        f'<article class="card tile"><div class="panels">{panels}</div><div class="caption"><b>{number}</b>{label}'
        f'<code title="{text(id)}">{text(short(id))}</code></div></article>'
    )


def short(id: str) -> str:
    """The first letters of an id, with what tells it from its parent's other children."""
    stem, dot, child = id.partition(".")
    return f"{stem[:10]}{dot}{child[:16]}"


def _aspect(panel: Panel) -> float:
    """Width by height of the box that a panel stands in: cut-outs get a square, so that all rows line up."""
    return 1.0 if panel.name == "cut-out" else panel.width / panel.height


def _panel(panel: Panel, row: Mapping[str, Any], before: str = "") -> str:
    what = ALT.get(panel.name, panel.name.replace("_", " "))
    label = f" ({row['label']})" if row.get("label") else ""
    alt = f"{before}{panel.name} of {short(str(row.get('id', '')))}{label}: {what}"
    paths = "".join(f'<path class="{kind}" d="{path}"/>' for kind, path in panel.paths.items() if path)
    over = f'<svg viewBox="0 0 {panel.width} {panel.height}" aria-hidden="true">{paths}</svg>' if paths else ""
    return (
        f'<button class="panel {text(panel.name)}" data-name="{text(panel.name)}" style="--a:'
        f'{_aspect(panel):.4f}"><img src="{panel.uri}" width="{panel.width}" height="{panel.height}" '
        f'alt="{text(alt)}">{over}<span class="tag">{text(panel.name.replace("_", " "))}</span></button>'
    )


def numbers(lines: Sequence[Sequence[str]]) -> str:
    """A table of numbers, text that is not escaped yet; the first line has the headings. A last column without one has
    words."""
    kind = "numbers" if lines[0][-1] else "numbers worded"
    lines = [["–" if cell == "-" else cell for cell in line] for line in lines]
    head = "".join(f'<th scope="col">{text(cell)}</th>' for cell in lines[0])
    body = "".join(f"<tr>{''.join(f'<td>{text(cell)}</td>' for cell in line)}</tr>" for line in lines[1:])
    return f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def plot(svg: str, alt: str) -> str:
    """A chart that is an SVG file, within a page: as a picture, so that its style stays its own."""
    encoded = base64.b64encode(svg.encode()).decode()
    return f'<div class="wide"><img class="plot" src="data:image/svg+xml;base64,{encoded}" alt="{text(alt)}"></div>'


def listing(heads: Mapping[str, int], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already.

    Args:
        heads: names of the columns to their widths in percent.
    """
    columns = "".join(f'<col style="width:{width}%">' for width in heads.values())
    head = "".join(f'<th scope="col">{word}</th>' for word in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<table class="list"><colgroup>{columns}</colgroup><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    )
