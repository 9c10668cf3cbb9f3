"""The studio's props: each is a list of parts (bodies of revolution, boxes, rods) of about unit height, as plain data.

An object stands on z = 0 and faces -y. A part's `material` numbers the object's own materials: 0 is its main colour.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Part = dict[str, Any]
Random = np.random.Generator


def make_lathe(profile: list[tuple[float, float]], material: int = 0, **place: Any) -> Part:
    points = [[round(r, 4), round(z, 4)] for r, z in profile]
    return {"form": "lathe", "profile": points, "material": material, **place}


def make_box(size: tuple[float, float, float], material: int = 0, bevel: float = 0.02, **place: Any) -> Part:
    return {"form": "box", "size": [round(s, 4) for s in size], "bevel": bevel, "material": material, **place}


def make_rod(start: tuple[float, ...], end: tuple[float, ...], radius: float, material: int = 0, **more: Any) -> Part:
    return {"form": "rod", "start": list(start), "end": list(end), "radius": radius, "material": material, **more}


def make_ball(radius: float, at: tuple[float, float, float], material: int = 0, **place: Any) -> Part:
    turn = [math.pi * (i / 20 - 0.5) for i in range(21)]
    profile = [(max(radius * math.cos(t), 0.0), radius * math.sin(t)) for t in turn]
    return make_lathe(profile, material, at=[round(x, 4) for x in at], **place)


def make_ring(radius: float, thickness: float, material: int = 0, **place: Any) -> Part:
    turn = [2 * math.pi * i / 24 - math.pi for i in range(25)]
    profile = [(radius + thickness * math.cos(t), thickness * math.sin(t)) for t in turn]
    return make_lathe(profile, material, **place)


def make_drum(radius: float, height: float, material: int = 0, rim: float = 0.02, **place: Any) -> Part:
    top = height - rim
    profile = [(0.0, 0.0), (radius - rim, 0.0), (radius, rim), (radius, top), (radius - rim, height), (0.0, height)]
    return make_lathe(profile, material, **place)


def _smooth(knots: list[tuple[float, float]], steps: int = 6) -> list[tuple[float, float]]:
    """Catmull-Rom curve through the knots: soft profiles for vases and bottles."""
    padded = np.array([knots[0], *knots, knots[-1]], float)
    points: list[tuple[float, float]] = []
    for i in range(len(knots) - 1):
        a, b, c, d = padded[i : i + 4]
        for t in np.arange(steps) / steps:
            p = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
            points.append((max(float(p[0]), 0.0), float(p[1])))
    return [*points, knots[-1]]


def cube(rng: Random) -> list[Part]:
    w, d, h = (float(x) for x in rng.uniform(0.6, 1.0, 3))
    return [make_box((w, d, h), bevel=0.04)]


def cylinder(rng: Random) -> list[Part]:
    return [make_drum(float(rng.uniform(0.28, 0.5)), float(rng.uniform(0.6, 1.0)))]


def sphere(rng: Random) -> list[Part]:
    return [make_ball(0.45, (0, 0, 0.45))]


def cone(rng: Random) -> list[Part]:
    r = float(rng.uniform(0.32, 0.5))
    return [make_lathe([(0, 0), (r, 0), (r, 0.02), (0.02, 0.97), (0, 0.98)])]


def torus(rng: Random) -> list[Part]:
    if rng.random() < 0.5:  # lying
        return [make_ring(0.42, 0.16, at=[0, 0, 0.16])]
    return [make_ring(0.36, 0.13, turn=[90, 0, 0], at=[0, 0, 0.49])]


def vase(rng: Random) -> list[Part]:
    foot, belly, neck, lip = (
        float(rng.uniform(*span)) for span in ((0.14, 0.22), (0.28, 0.4), (0.1, 0.18), (0.15, 0.25))
    )
    outside = _smooth([(foot, 0), (belly, float(rng.uniform(0.3, 0.5))), (neck, 0.82), (lip, 1.0)])
    inside = [(max(r - 0.025, 0.01), z) for r, z in reversed(outside) if z > 0.3]
    return [make_lathe([(0, 0), *outside, *inside])]


def bottle(rng: Random) -> list[Part]:
    r = float(rng.uniform(0.13, 0.17))
    shoulder = _smooth([(r, 0.02), (r, 0.3), (r, 0.58), (0.055, 0.78), (0.05, 0.92)])
    label = [(r + 0.003, 0.18), (r + 0.003, 0.42)]
    return [
        make_lathe([(0, 0), *shoulder, (0, 0.92)]),
        make_lathe(label, 1),
        make_drum(0.06, 0.1, 2, 0.01, at=[0, 0, 0.9]),
    ]


def cup(rng: Random) -> list[Part]:
    profile = [(0, 0), (0.3, 0), (0.34, 0.05), (0.36, 0.8), (0.345, 0.82), (0.32, 0.8), (0.3, 0.08), (0, 0.06)]
    return [make_lathe(profile), make_ring(0.2, 0.045, turn=[90, 0, 0], scale=[1, 1, 1], at=[0.4, 0, 0.42])]


def chair(rng: Random) -> list[Part]:
    seat, back = 0.46, float(rng.uniform(0.85, 1.0))
    legs = [make_rod((x, y, 0), (x * 0.92, y * 0.92, seat), 0.022, 1) for x in (-0.21, 0.21) for y in (-0.21, 0.21)]
    posts = [make_rod((x, 0.19, seat), (x, 0.26, back), 0.02, 1) for x in (-0.19, 0.19)]
    parts = [*legs, *posts, make_box((0.47, 0.46, 0.045), at=[0, 0, seat])]
    if rng.random() < 0.5:
        return [*parts, make_box((0.44, 0.03, 0.26), turn=[-8, 0, 0], at=[0, 0.23, back - 0.28])]
    slats = [make_box((0.4, 0.02, 0.06), at=[0, 0.2 + 0.06 * k, seat + 0.14 + 0.13 * k]) for k in range(3)]
    return [*parts, *slats]


def stool(rng: Random) -> list[Part]:
    legs = []
    for k in range(3 + int(rng.integers(0, 2))):
        a = k * 2 * math.pi / (3 + (k > 2)) + 0.4
        legs.append(
            make_rod((0.3 * math.cos(a), 0.3 * math.sin(a), 0), (0.16 * math.cos(a), 0.16 * math.sin(a), 0.85), 0.03, 1)
        )
    return [*legs, make_drum(0.3, 0.08, 0, 0.02, at=[0, 0, 0.84])]


def table(rng: Random) -> list[Part]:
    legs = [make_rod((x, y, 0), (x, y, 0.68), 0.03, 1, end_radius=0.04) for x in (-0.45, 0.45) for y in (-0.28, 0.28)]
    return [*legs, make_box((1.1, 0.72, 0.05), bevel=0.015, at=[0, 0, 0.67])]


def toy_figure(rng: Random) -> list[Part]:
    arm = float(rng.uniform(-0.1, 0.2))
    return [
        *[make_rod((x, 0, 0.04), (x * 0.8, 0, 0.42), 0.065, 1) for x in (-0.11, 0.11)],
        *[make_box((0.13, 0.22, 0.07), 2, 0.03, at=[x, -0.03, 0]) for x in (-0.11, 0.11)],
        make_box((0.34, 0.2, 0.34), 0, 0.06, at=[0, 0, 0.38]),
        make_rod((-0.17, 0, 0.66), (-0.32, -0.05, 0.42 + arm), 0.05),
        make_rod((0.17, 0, 0.66), (0.32, -0.05, 0.42), 0.05),
        make_ball(0.06, (-0.33, -0.05, 0.41 + arm), 3),
        make_ball(0.06, (0.33, -0.05, 0.41), 3),
        make_ball(0.15, (0, 0, 0.85), 3),
        make_drum(0.16, 0.07, 2, 0.02, at=[0, 0, 0.93]),
    ]


def snowman(rng: Random) -> list[Part]:
    return [
        make_ball(0.28, (0, 0, 0.25), 3),
        make_ball(0.2, (0, 0, 0.62), 3),
        make_ball(0.14, (0, 0, 0.88), 3),
        make_rod((0, -0.12, 0.89), (0, -0.28, 0.87), 0.03, 1, end_radius=0.005),
        make_drum(0.15, 0.03, 2, 0.01, at=[0, 0, 0.98]),
        make_drum(0.1, 0.17, 2, 0.01, at=[0, 0, 1.0]),
        make_ring(0.14, 0.04, 0, at=[0, 0, 0.77]),
    ]


def traffic_cone(rng: Random) -> list[Part]:
    radius = [0.25 - 0.21 * z for z in (0.0, 0.3, 0.5, 0.65, 0.82, 1.0)]
    zs = [0.06 + 0.94 * z for z in (0.0, 0.3, 0.5, 0.65, 0.82, 1.0)]
    bands = [make_lathe([(radius[k], zs[k]), (radius[k + 1], zs[k + 1])], 3 if k in (1, 3) else 0) for k in range(5)]
    return [make_box((0.62, 0.62, 0.07), 2, 0.02), *bands, make_drum(0.04, 0.01, 0, 0.004, at=[0, 0, 0.995])]


def potted_plant(rng: Random) -> list[Part]:
    pot = [(0, 0), (0.17, 0), (0.24, 0.36), (0.27, 0.37), (0.27, 0.43), (0.23, 0.43), (0.22, 0.38), (0, 0.37)]
    parts = [make_lathe(pot)]
    for k in range(22):
        a, lean = k * 2.4 + float(rng.uniform(-0.3, 0.3)), float(rng.uniform(15, 75))
        size = float(rng.uniform(0.2, 0.32))
        away = size * 0.85
        x, z = away * math.sin(math.radians(lean)), away * math.cos(math.radians(lean))
        place = (x * math.cos(a), x * math.sin(a), 0.42 + z)
        leaf = {"turn": [0, round(lean, 2), round(math.degrees(a), 2)], "scale": [0.16, 0.42, 1.0]}
        parts.append(make_ball(round(size, 3), place, 4, **leaf))
    return parts


def suitcase(rng: Random) -> list[Part]:
    return [
        make_box((0.62, 0.26, 0.78), 0, 0.06, at=[0, 0, 0.05]),
        *[make_rod((x, -0.05, 0.05), (x, 0.05, 0.05), 0.05, 2) for x in (-0.24, 0.24)],
        *[make_rod((x, 0.05, 0.8), (x, 0.05, 1.0), 0.014, 1) for x in (-0.13, 0.13)],
        make_rod((-0.14, 0.05, 1.0), (0.14, 0.05, 1.0), 0.022, 2),
        *[make_box((0.03, 0.27, 0.72), 1, 0.01, at=[x, 0, 0.08]) for x in (-0.18, 0.18)],
    ]


def books(rng: Random) -> list[Part]:
    parts, z = [], 0.0
    for k in range(int(rng.integers(3, 6))):
        w, d, h = float(rng.uniform(0.62, 0.9)), float(rng.uniform(0.5, 0.65)), float(rng.uniform(0.1, 0.2))
        yaw = round(float(rng.normal(0, 10)), 2)
        parts.append(make_box((w, d, 0.02), k % 3, 0.006, turn=[0, 0, yaw], at=[0, 0, round(z, 4)]))
        parts.append(make_box((w - 0.04, d - 0.03, h), 3, 0.006, turn=[0, 0, yaw], at=[0, 0, round(z + 0.01, 4)]))
        parts.append(make_box((w, d, 0.02), k % 3, 0.006, turn=[0, 0, yaw], at=[0, 0, round(z + h, 4)]))
        z += h + 0.021
    return parts


def lamp(rng: Random) -> list[Part]:
    shade = [(0.3, 0.62), (0.18, 0.98), (0.17, 0.98), (0.29, 0.62)]
    return [make_drum(0.18, 0.05, 1), make_rod((0, 0, 0.04), (0, 0, 0.85), 0.022, 1), make_lathe(shade)]


def toy_car(rng: Random) -> list[Part]:
    wheels = [(x, y) for x in (-0.38, 0.38) for y in (-0.27, 0.27)]
    return [
        make_box((1.25, 0.52, 0.24), 0, 0.08, at=[0, 0, 0.12]),
        make_box((0.66, 0.46, 0.27), 2, 0.1, at=[0.06, 0, 0.3]),
        make_box((0.6, 0.47, 0.08), 0, 0.03, at=[0.06, 0, 0.51]),
        *[make_rod((x, y - 0.06, 0.14), (x, y + 0.06, 0.14), 0.14, 2) for x, y in wheels],
        *[make_rod((x, y - 0.065, 0.14), (x, y + 0.065, 0.14), 0.075, 3) for x, y in wheels],
    ]


def barrel(rng: Random) -> list[Part]:
    belly = _smooth([(0.28, 0), (0.35, 0.3), (0.37, 0.5), (0.35, 0.7), (0.28, 1.0)])
    hoops = [
        make_lathe([(r + 0.008, z), (r + 0.012, z + 0.06)], 1) for r, z in ((0.315, 0.1), (0.35, 0.28), (0.352, 0.66))
    ]
    return [make_lathe([(0, 0), *belly, (0.25, 0.97), (0, 0.97)]), *hoops]


def bowling_pin(rng: Random) -> list[Part]:
    outline = _smooth([(0.09, 0), (0.17, 0.3), (0.12, 0.55), (0.07, 0.7), (0.095, 0.87), (0.06, 0.97), (0.0, 1.0)])
    band = [(0.078, 0.66), (0.0725, 0.7), (0.0745, 0.74)]
    return [make_lathe([(0, 0), *outline], 3), make_lathe(band, 0)]


def bench(rng: Random) -> list[Part]:
    boards = [make_box((1.5, 0.12, 0.05), 0, 0.012, at=[0, y, 0.45]) for y in (-0.16, 0, 0.16)]
    back = [
        make_box((1.5, 0.04, 0.12), 0, 0.012, turn=[-10, 0, 0], at=[0, 0.25 + 0.03 * k, 0.6 + 0.18 * k])
        for k in range(2)
    ]
    feet = [make_box((0.06, 0.46, 0.45), 1, 0.015, at=[x, 0, 0]) for x in (-0.6, 0.6)]
    posts = [make_rod((x, 0.22, 0.4), (x, 0.31, 0.92), 0.025, 1) for x in (-0.6, 0.6)]
    return [*boards, *back, *feet, *posts]


PROPS: dict[str, tuple[Callable[[Random], list[Part]], tuple[float, float], str]] = {
    # name: parts, metres that one unit may be, what it is made of
    "cube": (cube, (0.25, 0.7), "any"),
    "cylinder": (cylinder, (0.25, 0.7), "any"),
    "sphere": (sphere, (0.25, 0.7), "any"),
    "cone": (cone, (0.25, 0.7), "any"),
    "torus": (torus, (0.25, 0.7), "any"),
    "vase": (vase, (0.25, 0.5), "ceramic"),
    "bottle": (bottle, (0.26, 0.36), "glossy"),
    "cup": (cup, (0.11, 0.16), "ceramic"),
    "chair": (chair, (0.85, 1.0), "furniture"),
    "stool": (stool, (0.5, 0.75), "furniture"),
    "table": (table, (0.6, 0.95), "furniture"),
    "toy figure": (toy_figure, (0.25, 0.45), "glossy"),
    "snowman": (snowman, (0.3, 0.8), "matt"),
    "traffic cone": (traffic_cone, (0.5, 0.75), "cone"),
    "potted plant": (potted_plant, (0.4, 0.8), "ceramic"),
    "suitcase": (suitcase, (0.6, 0.75), "glossy"),
    "books": (books, (0.25, 0.35), "matt"),
    "lamp": (lamp, (0.4, 0.7), "matt"),
    "toy car": (toy_car, (0.25, 0.5), "glossy"),
    "barrel": (barrel, (0.6, 0.9), "furniture"),
    "bowling pin": (bowling_pin, (0.35, 0.4), "glossy"),
    "bench": (bench, (0.8, 0.95), "furniture"),
}
"""What can stand in a scene. The names are the records' labels."""
