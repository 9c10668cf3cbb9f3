"""The page of an audit: one self-contained HTML file, the worst rows first, with a strip of pictures each.

What comes from data passes `escape_text` or `isolate`; should that be forgotten somewhere, a content security policy
still lets no script run but the page's own. The page's size is bounded whatever the data.
"""

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from string import Template

import cv2
import numpy as np

from rasura.manifests.images import RGB
from rasura.manifests.tables import Tables
from rasura.pipeline.audit.table import ORDER, AuditRow, AuditTable
from rasura.pipeline.report.html import escape_text, format_count, isolate
from rasura.stages.curation.faults import Limit

QUALITY = 80  # of the strips, WebP
PAGE_BYTES = 12_000_000
"""Size of all strips and captions together, at most."""
MOST_REASONS = 5
"""Reasons that are listed below a strip."""
MEANINGS = {
    "unreadable": "could not be loaded",
    "faulty": "a model would learn something wrong from it",
    "doubtful": "unusual: have a look",
    "good": "nothing was found",
}


def encode_strip(strip: RGB) -> str:
    """Encode a strip as a data URI, WebP."""
    _, data = cv2.imencode(".webp", np.ascontiguousarray(strip[..., ::-1]), [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    return f"data:image/webp;base64,{base64.b64encode(data.tobytes()).decode()}"


def find_shared_folder(origins: Sequence[str]) -> str:
    """Find the folder that all origins begin with, with its slash; "" where there is none.

    Examples:
        >>> find_shared_folder(["/data/set/a.png", "/data/set/b.png"]), find_shared_folder(["a.png", "b.png"])
        ('/data/set/', '')
    """
    first, last = min(origins, default=""), max(origins, default="")
    count = next((index for index, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[: first.rfind("/", 0, count) + 1]


def render_row(row: AuditRow, tables: Tables, folder: str = "") -> str:
    """Render one row with its strip, its reasons and what mends it; its name is that below the folder."""
    strip = None
    if row.place is not None:
        strip = tables.row(*row.place, columns=["inspect_strip"]).get("inspect_strip")
    if strip is None:
        picture = '<p class="none">no pictures: the row was refused when it was read</p>' if row.place is None else ""
    else:
        height, width = strip.shape[:2]
        alt = "source with outlines, target, difference"
        picture = f'<img loading="lazy" width="{width}" height="{height}" alt="{alt}" src="{encode_strip(strip)}">'
    reasons = [f"<li>{isolate(reason)}</li>" for reason in row.reasons[:MOST_REASONS]]
    if len(row.reasons) > MOST_REASONS:
        reasons.append(f"<li>and {len(row.reasons) - MOST_REASONS} more</li>")
    split = f" · {isolate(row.split)}" if row.split else ""
    return (
        f'<article data-reason="{escape_text(row.reason)}"><h3><span class="{row.outcome}">{row.outcome}</span> '
        f"{isolate(row.origin.removeprefix(folder))}</h3>{picture}<ul>{''.join(reasons)}</ul>"
        f"<small>{escape_text(describe_repair(row))}{split} · {isolate(row.id[:12])}</small></article>"
    )


def describe_repair(row: AuditRow) -> str:
    """Describe what becomes of a row in a repaired copy.

    Examples:
        >>> describe_repair(AuditRow("a", "a.png", "", "faulty", ["shifted: 0.4 px"], ["registration"], True, 2.0))
        'can be repaired: registration'
    """
    mended = f": {', '.join(row.repairs)}" if row.repairs and row.is_repairable else ""
    if row.done:
        return row.done + (mended if row.done == "repaired" else "")
    if not row.is_repairable:
        return "cannot be repaired"
    return f"can be repaired{mended}" if row.repairs else "stays"


def render_page(title: str, table: AuditTable, tables: Tables, most: int, limits: Sequence[Limit]) -> str:
    """Render the page.

    Args:
        title: the dataset's name.
        table: all rows.
        tables: of the run that measured them.
        most: rows shown.
        limits: by which they were judged.
    """
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", template, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode() if script else ""
    parts, left = [], PAGE_BYTES
    folder = find_shared_folder([row.origin for row in table.rows])
    for row in table.rows[:most]:
        part = render_row(row, tables, folder)
        left -= len(part)
        if left < 0:
            break
        parts.append(part)
    shown = table.rows[: len(parts)]
    reasons = list(dict.fromkeys(row.reason for row in shown if row.reason))
    filters = "".join(
        f'<button type="button" value="{escape_text(reason)}" aria-pressed="false">{escape_text(reason)}</button>'
        for reason in reasons
    )
    hidden = len(table.rows) - len(shown)
    done = table.count("done")
    accounting = "".join(
        f"<li><b>{done[name]:,}</b> {name}</li>" for name in ("repaired", "untouched", "left out") if done[name]
    )
    outcomes = table.count()
    totals = "".join(
        f'<li><b class="{name}">{outcomes[name]:,}</b> {name} <small>{MEANINGS[name]}</small></li>' for name in ORDER
    )
    return Template(template).substitute(
        script_hash=digest,
        title=escape_text(title),
        sentence=_render_sentence(table),
        totals=totals + accounting,
        reasons=_render_reasons(table),
        shown=f"{len(shown):,} rows are shown{f'; {hidden:,} better ones are in the table only' if hidden else ''}.",
        filters=f'<button type="button" value="" aria-pressed="true">all</button>{filters}',
        rows="".join(parts) or "<p>There are no rows.</p>",
        limits=_render_limits(limits),
    )


def _render_sentence(table: AuditTable) -> str:
    rows = f"{format_count(len(table.rows), 'row')}; <code>audit.csv</code> beside this page has all of them."
    return f"{rows} {escape_text(table.describe_passed_over())}".strip()


def _render_reasons(table: AuditTable) -> str:
    counts = Counter((row.outcome, row.reason, _name_fate(row)) for row in table.rows if row.reason)
    ranked = sorted(counts.items(), key=lambda item: (ORDER[item[0][0]], -item[1], item[0]))
    lines = "".join(
        f'<tr><td class="n">{count:,}</td><td class="{outcome}">{outcome}</td><td>{isolate(reason)}</td>'
        f"<td>{fate}</td></tr>"
        for (outcome, reason, fate), count in ranked
    )
    if not lines:
        return ""
    head = "<tr><th>rows</th><th>outcome</th><th>first reason</th><th>in a repaired copy</th></tr>"
    return f"<table><caption>Reasons</caption><thead>{head}</thead><tbody>{lines}</tbody></table>"


def _name_fate(row: AuditRow) -> str:
    return row.done or ("left out" if not row.is_repairable else "repaired" if row.repairs else "stays")


def _render_limits(limits: Sequence[Limit]) -> str:
    lines = ""
    for limit in limits:
        bounds = [("at least", limit.least), ("at most", limit.most)]
        within = ", ".join(f"{word} {value:g}" for word, value in bounds if value is not None)
        fate = "stays" if limit.level == "doubt" else limit.repair or "left out"
        cells = "".join(f"<td>{cell}</td>" for cell in (limit.reason, limit.level, within, fate))
        lines += f"<tr><td><code>{limit.column}</code></td>{cells}</tr>"
    head = "<tr><th>measure</th><th>reason beyond it</th><th>level</th><th>within</th><th>repair</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{lines}</tbody></table>"
