"""Charts of a judge and of a loop as SVG files, without a library and without a script."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDE, HIGH, LEFT, TOP = 300, 220, 46, 46
COLOURS = ("#1f86b5", "#c4432b", "#6d7a1f", "#7b4ea3", "#8a6d3b")

Line = Sequence[tuple[float, float]]


def panel(
    title: str,
    across: str,
    up: str,
    lines: Mapping[str, Line],
    low: tuple[float, float] = (0.0, 0.0),
    high: tuple[float, float] = (1.0, 1.0),
    diagonal: bool = False,
    names: Sequence[str] = (),
    errors: Mapping[str, Sequence[float]] | None = None,
) -> str:
    """One chart as an SVG group of `WIDE` x `HIGH` and its margins.

    Args:
        lines: by name, points (x, y). errors: by name, half a bar's length at each point.
        low, high: x and y at the edges. names: of the whole numbers across, instead of numbers.
    """

    def place(x: float, y: float) -> tuple[float, float]:
        parts = [(v - a) / ((b - a) or 1) for v, a, b in zip((x, y), low, high, strict=True)]
        return LEFT + WIDE * parts[0], TOP + HIGH * (1 - parts[1])

    out = [f'<text x="{LEFT}" y="16" class="title">{escape(title)}</text>']
    for step in range(6):
        y = low[1] + (high[1] - low[1]) * step / 5
        _, at = place(low[0], y)
        out.append(f'<path class="grid" d="M{LEFT} {at:.1f}h{WIDE}"/>')
        out.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{y:.3g}</text>')
    marks = (
        [(float(index), name) for index, name in enumerate(names)]
        if names
        else [(low[0] + (high[0] - low[0]) * step / 5, "") for step in range(6)]
    )
    for x, name in marks:
        at, _ = place(x, low[1])
        out.append(f'<text x="{at:.1f}" y="{TOP + HIGH + 16}" text-anchor="middle">{escape(name or f"{x:.3g}")}</text>')
    out.append(f'<text x="{LEFT + WIDE}" y="{TOP + HIGH + 32}" text-anchor="end" class="axis">{escape(across)}</text>')
    out.append(f'<text x="{LEFT}" y="{TOP - 6}" class="axis">{escape(up)}</text>')
    if diagonal:
        (x0, y0), (x1, y1) = place(*low), place(*high)
        out.append(f'<path class="ideal" d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"/>')
    for index, (name, points) in enumerate(lines.items()):
        colour = COLOURS[index % len(COLOURS)]
        spots = [place(x, y) for x, y in points]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
        out.append(f'<path fill="none" stroke="{colour}" stroke-width="2" d="{path}"/>' if spots else "")
        for at, (x, y) in enumerate(spots):
            half = (errors or {}).get(name, [])
            if at < len(half) and half[at] > 0:
                reach = HIGH * half[at] / ((high[1] - low[1]) or 1)
                out.append(f'<path stroke="{colour}" d="M{x:.1f} {y - reach:.1f}v{2 * reach:.1f}"/>')
            value = points[at]
            told = f"{escape(name)}: {value[0]:.3g}, {value[1]:.3g}"
            out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{told}</title></circle>')
        if len(lines) > 1 or name:
            y = TOP + HIGH + 50 + 16 * index
            out.append(f'<circle cx="{LEFT + 6}" cy="{y - 4}" r="4" fill="{colour}"/>')
            out.append(f'<text x="{LEFT + 16}" y="{y}">{escape(name)}</text>')
    return "".join(out)


def page(panels: Sequence[str], legend: int = 1) -> str:
    """Charts side by side as one SVG file.

    Args:
        legend: lines of names below the largest of them.
    """
    step = LEFT + WIDE + 30
    width, height = step * len(panels), TOP + HIGH + 46 + 16 * legend
    style = (
        "text{font:12px system-ui,sans-serif;fill:#333}.title{font-weight:600;font-size:14px}.axis{fill:#666}"
        ".grid{stroke:#ddd;fill:none}.ideal{stroke:#999;stroke-dasharray:4 4;fill:none}.paper{fill:#fff}"
        "@media (prefers-color-scheme:dark){text{fill:#ddd}.axis{fill:#aaa}.grid{stroke:#3a3833}.paper{fill:#201f1c}}"
    )
    groups = "".join(f'<g transform="translate({step * index} 0)">{one}</g>' for index, one in enumerate(panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<style>{style}</style><rect class="paper" width="100%" height="100%"/>{groups}</svg>\n'
    )


def round_top(value: float) -> float:
    """The least edge of an axis at or above a value whose five ticks are round numbers."""
    size = 10.0 ** math.floor(math.log10(value / 5)) if value > 0 else 0.2
    return next(5 * size * step for step in (1, 2, 2.5, 5, 10) if 5 * size * step >= value * (1 - 1e-9))


def of_judge(reliability: Line, curve: Line, threshold: tuple[float, float] | None, of: str = "held-out votes") -> str:
    """A reliability diagram, and precision over the share that is kept; `threshold` is where the judge's own lies.

    Args:
        of: whose verdicts they are.
    """
    kept = {"any threshold": curve} | ({"the promise's": [threshold]} if threshold else {})
    return page(
        [
            panel("Reliability", "mean score", "share of yes", {of: reliability}, diagonal=True),
            panel("Precision and yield", "share kept", "share of yes in it", kept),
        ],
        legend=len(kept),
    )
