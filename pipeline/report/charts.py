"""Small charts as inline SVG, without a script: a rose of directions, and a bar chart of uses."""

import math
from collections import Counter
from collections.abc import Collection
from itertools import pairwise

from rasura.pipeline.report.html import format_count

POINTS = ("right", "right, away", "away", "left, away", "left", "left, near", "near", "right, near")
MOST_BARS = 60
"""Bars of a chart of uses, at most."""


def draw_rose(counts: Counter[int | None]) -> str:
    """Draw directions in bins of 45 degrees, as petals whose area is their count; up is away from the camera.

    Args:
        counts: rows by bin, of rows without a direction under None.
    """
    bins = {index: counts[index] for index in range(len(POINTS))}
    total, most = sum(bins.values()), max(bins.values())
    petals = []
    for index, count in bins.items():
        radius = 82 * math.sqrt(count / most) if most else 0
        first, last = (math.radians(45 * index + side) for side in (-21.5, 21.5))
        x0, y0, x1, y1 = (
            radius * value for value in (math.cos(first), -math.sin(first), math.cos(last), -math.sin(last))
        )
        shape = f"M0 0L{x0:.1f} {y0:.1f}A{radius:.1f} {radius:.1f} 0 0 0 {x1:.1f} {y1:.1f}Z"
        petals.append(f'<path d="{shape}"><title>{POINTS[index]}: {count:,}</title></path>')
        x, y = (96 * math.cos(math.radians(45 * index)), -96 * math.sin(math.radians(45 * index)))
        faint = "" if count else ' class="zero"'
        petals.append(f'<text x="{x:.0f}" y="{y:.0f}"{faint}>{count:,}</text>')
    summary = ", ".join(f"{point} {bins[index]:,}" for index, point in enumerate(POINTS))
    unknown = f", {counts[None]:,} more without a direction" if counts[None] else ""
    basis = f"on the ground plane, {format_count(total, 'row')}{unknown}; up is away from the camera"
    svg = (
        '<svg class="rose" viewBox="-112 -108 224 216" role="img" aria-label="'
        f'Shadow directions: {summary}"><circle r="41"/><circle r="82"/>{"".join(petals)}</svg>'
    )
    return f"<figure><figcaption>Shadow directions <small>{basis}</small></figcaption>{svg}</figure>"


def draw_uses(title: str, noun: str, counts: Collection[int]) -> str:
    """Draw how often each of some objects was used, most used first, as bars; where they are many, a bar is a mean.

    Args:
        noun: of what was used. counts: uses of each.
    """
    ranked = sorted(counts, reverse=True)
    width = min(MOST_BARS, len(ranked))
    edges = [index * len(ranked) // width for index in range(width + 1)]
    means = [sum(ranked[low:high]) / (high - low) for low, high in pairwise(edges)]
    step = 300 / width
    gap = min(2.0, step / 4)
    bars = "".join(
        f'<rect x="{index * step:.2f}" y="{100 - 100 * mean / ranked[0]:.2f}" width="{step - gap:.2f}" '
        f'height="{100 * mean / ranked[0]:.2f}"/>'
        for index, mean in enumerate(means)
    )
    usage = f"{ranked[-1]:,} to {ranked[0]:,} times each" if ranked[0] != ranked[-1] else f"{ranked[0]:,} times each"
    summary = f"{format_count(len(ranked), noun)}, {usage}"
    return (
        f'<figure><figcaption>{title} <small>{summary}</small></figcaption><svg class="uses" viewBox="0 0 300 100" '
        f'preserveAspectRatio="none" role="img" aria-label="{title}: {summary}">{bars}</svg></figure>'
    )
