"""Things that only the studio's traps need: posts and signs, furniture that hides, leaves and barrier tape.

Lists of parts as in `objects`; here their sizes are arguments, because they follow from the scene that they are put in.
"""

import math

import numpy as np
import numpy.typing as npt

from rasura.stages.sources.studio.objects import Part, Random, make_ball, make_box, make_rod

Array = npt.NDArray[np.float64]


def make_post(rng: Random, width: float) -> list[Part]:
    """Return a post, a sign or a gate of unit height, whose uprights are `width` wide: its shadow is a strip."""
    match int(rng.integers(3)):
        case 0:
            return [make_box((width, 0.8 * width, 1.0), bevel=0.1 * width)]
        case 1:
            side = float(rng.uniform(0.25, 0.4)) + width
            board = make_box((side, 0.03, 0.8 * side), 1, 0.01, at=[0, 0, round(1 - 0.8 * side, 4)])
            return [make_rod((0, 0.05, 0), (0, 0.05, 1), width / 2), board]
        case _:
            apart = float(rng.uniform(0.25, 0.45)) + width / 2
            sides = [make_box((width, width, 1.0), bevel=0.1 * width, at=[x, 0, 0]) for x in (-apart, apart)]
            return [*sides, make_box((2 * apart + width, width, width), 1, 0.1 * width, at=[0, 0, round(1 - width, 4)])]


def make_shelf(width: float, depth: float, height: float, thickness: float) -> list[Part]:
    """Return a narrow table, metres; what stands behind it is seen above its board and below."""
    leg = 0.35 * thickness
    legs = [
        make_rod((x, y, 0), (x, y, height - thickness), leg, 1)
        for x in (-width / 2 + leg, width / 2 - leg)
        for y in (-depth / 2 + leg, depth / 2 - leg)
    ]
    return [*legs, make_box((width, depth, thickness), at=[0, 0, round(height - thickness, 4)])]


def make_panel(width: float, height: float) -> list[Part]:
    """Return an upright board, metres; what stands behind it is seen on both sides."""
    return [make_box((width, 0.04 * height, height), bevel=0.005)]


def make_leaves(rng: Random, places: Array, size: float) -> list[Part]:
    """Return fallen leaves at (n, 2) places of the floor, each `size` metres long, give or take a third."""
    parts = []
    for k, (x, y) in enumerate(places):
        radius = round(size / 2 * float(rng.uniform(0.7, 1.3)), 5)
        turn = [
            round(float(rng.normal(0, 14)), 2),
            round(float(rng.normal(0, 14)), 2),
            round(float(rng.uniform(0, 360)), 2),
        ]
        at = (float(x), float(y), 0.12 * radius)
        parts.append(make_ball(radius, at, k % 3, turn=turn, scale=[0.55, 1.0, 0.08]))
    return parts


def make_tape(start: Array, end: Array, sag: float, swing: float, radius: float) -> list[Part]:
    """Return barrier tape between two points (3,), metres, striped; it hangs by `sag` and is blown aside by `swing`."""
    steps = np.linspace(0, 1, 13)
    points = start + steps[:, None] * (end - start)
    bow = np.sin(math.pi * steps)
    points = points + bow[:, None] * np.array([0.0, swing, -sag])
    pieces = [tuple(round(float(value), 4) for value in point) for point in points]
    return [make_rod(pieces[k], pieces[k + 1], radius, k % 2) for k in range(12)]
