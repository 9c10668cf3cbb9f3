"""Charts of a discriminator and of a loop as SVG files, without a library and without a script."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDE, HIGH, LEFT, TOP = 300, 220, 46, 46
COLOURS = ("#1f86b5", "#c4432b", "#6d7a1f", "#7b4ea3", "#8a6d3b")

Line = Sequence[tuple[float, float]]


def draw_panel(
    title: str,
    x_title: str,
    y_title: str,
    lines: Mapping[str, Line],
    low: tuple[float, float] = (0.0, 0.0),
    high: tuple[float, float] = (1.0, 1.0),
    diagonal: bool = False,
    names: Sequence[str] = (),
    errors: Mapping[str, Sequence[float]] | None = None,
) -> str:
    """Draw one chart as an SVG group of `WIDE` x `HIGH` and its margins.

    Args:
        lines: points (x, y) by the line's name.
        low, high: x and y at the edges.
        diagonal: draw the line from `low` to `high`.
        names: of the ticks 0, 1, 2, … across, in place of numbers.
        errors: half the length of the bar at each point, by the line's name.
    """

    scale = _Scale(low, high)
    out = [f'<text x="{LEFT}" y="16" class="title">{escape(title)}</text>']
    out += _draw_axes(scale, x_title, y_title, names)
    if diagonal:
        (x0, y0), (x1, y1) = scale.place(*low), scale.place(*high)
        out.append(f'<path class="ideal" d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"/>')
    for index, (name, points) in enumerate(lines.items()):
        colour = COLOURS[index % len(COLOURS)]
        out += _draw_line(scale, name, points, (errors or {}).get(name, []), colour)
        if len(lines) > 1 or name:
            y = TOP + HIGH + 50 + 16 * index
            out.append(f'<circle cx="{LEFT + 6}" cy="{y - 4}" r="4" fill="{colour}"/>')
            out.append(f'<text x="{LEFT + 16}" y="{y}">{escape(name)}</text>')
    return "".join(out)


class _Scale(NamedTuple):
    """The values at the edges of a chart."""

    low: tuple[float, float]
    high: tuple[float, float]

    @property
    def height(self) -> float:
        return (self.high[1] - self.low[1]) or 1

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the position of a point, in units of the SVG."""
        parts = [(v - a) / ((b - a) or 1) for v, a, b in zip((x, y), self.low, self.high, strict=True)]
        return LEFT + WIDE * parts[0], TOP + HIGH * (1 - parts[1])


def _draw_axes(scale: _Scale, x_title: str, y_title: str, names: Sequence[str]) -> list[str]:
    """Draw grid, ticks and titles."""
    low, high, out = scale.low, scale.high, []
    for step in range(6):
        y = low[1] + (high[1] - low[1]) * step / 5
        _, top = scale.place(low[0], y)
        out.append(f'<path class="grid" d="M{LEFT} {top:.1f}h{WIDE}"/>')
        out.append(f'<text x="{LEFT - 6}" y="{top + 4:.1f}" text-anchor="end">{y:.3g}</text>')
    ticks = [(float(index), name) for index, name in enumerate(names)]
    ticks = ticks or [(low[0] + (high[0] - low[0]) * step / 5, "") for step in range(6)]
    for x, name in ticks:
        left, _ = scale.place(x, low[1])
        label = escape(name or f"{x:.3g}")
        out.append(f'<text x="{left:.1f}" y="{TOP + HIGH + 16}" text-anchor="middle">{label}</text>')
    out.append(f'<text x="{LEFT + WIDE}" y="{TOP + HIGH + 32}" text-anchor="end" class="axis">{escape(x_title)}</text>')
    out.append(f'<text x="{LEFT}" y="{TOP - 6}" class="axis">{escape(y_title)}</text>')
    return out


def _draw_line(scale: _Scale, name: str, points: Line, errors: Sequence[float], colour: str) -> list[str]:
    """Draw a line with its points and their error bars."""
    positions = [scale.place(x, y) for x, y in points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in positions)
    out = [f'<path fill="none" stroke="{colour}" stroke-width="2" d="{path}"/>' if positions else ""]
    for index, (x, y) in enumerate(positions):
        if index < len(errors) and errors[index] > 0:
            reach = HIGH * errors[index] / scale.height
            out.append(f'<path stroke="{colour}" d="M{x:.1f} {y - reach:.1f}v{2 * reach:.1f}"/>')
        value = points[index]
        label = f"{escape(name)}: {value[0]:.3g}, {value[1]:.3g}"
        out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{label}</title></circle>')
    return out


def draw_page(panels: Sequence[str], legend: int = 1) -> str:
    """Draw charts side by side as one SVG file.

    Args:
        panels: of `draw_panel`. legend: the largest number of lines of a panel.
    """
    step = LEFT + WIDE + 30
    width, height = step * len(panels), TOP + HIGH + 46 + 16 * legend
    style = (
        "text{font:12px system-ui,sans-serif;fill:#333}.title{font-weight:600;font-size:14px}.axis{fill:#666}"
        ".grid{stroke:#ddd;fill:none}.ideal{stroke:#999;stroke-dasharray:4 4;fill:none}.paper{fill:#fff}"
        "@media (prefers-color-scheme:dark){text{fill:#ddd}.axis{fill:#aaa}.grid{stroke:#3a3833}.paper{fill:#201f1c}}"
    )
    groups = "".join(f'<g transform="translate({step * index} 0)">{panel}</g>' for index, panel in enumerate(panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<style>{style}</style><rect class="paper" width="100%" height="100%"/>{groups}</svg>\n'
    )


def round_axis(value: float) -> float:
    """Return the least edge of an axis, at or above a value, whose five ticks are round numbers.

    Examples:
        >>> round_axis(3.25), round_axis(101.0)
        (5.0, 125.0)
    """
    size = 10.0 ** math.floor(math.log10(value / 5)) if value > 0 else 0.2
    return next(5 * size * step for step in (1, 2, 2.5, 5, 10) if 5 * size * step >= value * (1 - 1e-9))


def draw_discriminator(
    reliability: Line, curve: Line, threshold: tuple[float, float] | None, basis: str = "held-out votes"
) -> str:
    """Draw a reliability diagram, and precision over the share that is kept.

    Args:
        reliability: points (mean score, share of yes). curve: points (share kept, precision).
        threshold: the point of the discriminator's own threshold; None where it has none.
        basis: what was measured.
    """
    kept = {"any threshold": curve} | ({"its threshold": [threshold]} if threshold else {})
    return draw_page(
        [
            draw_panel("Reliability", "mean score", "share of yes", {basis: reliability}, diagonal=True),
            draw_panel("Precision and yield", "share kept", "share of yes in it", kept),
        ],
        legend=len(kept),
    )
