"""Procedural surfaces of the studio: seeded numpy pictures that tile, (n, n, 3) uint8 sRGB."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float64]  # (n, n), one number a texel
Texture = npt.NDArray[np.uint8]

SIDE = 1024


def _upsample_grid(grid: Field, n: int) -> Field:
    """Upsample a coarse random grid to a smooth field of n x n that tiles."""
    rows, columns = grid.shape
    wrapped = np.pad(grid, 2, mode="wrap")
    large = cv2.resize(wrapped, (n * (columns + 4) // columns, n * (rows + 4) // rows), interpolation=cv2.INTER_CUBIC)
    top, left = 2 * n // rows, 2 * n // columns
    return np.asarray(large[top : top + n, left : left + n], np.float64)


def make_noise(rng: np.random.Generator, base: int, octaves: int, stretch: int = 1, n: int = SIDE) -> Field:
    """Make tiling fractal noise of mean 0 and standard deviation 1; `stretch` draws it out along x."""
    total = np.zeros((n, n))
    for octave in range(octaves):
        rows = min(base * 2**octave, n)
        columns = max(min(rows // stretch, n), 1)
        total += _upsample_grid(rng.standard_normal((rows, columns)), n) * 0.6**octave
    total -= total.mean()
    return np.asarray(total / max(float(total.std()), 1e-9))


def _apply_tone(colour: Sequence[float] | Field, tone: Field, tint: Field | None = None) -> Texture:
    """Multiply a colour (sRGB, 0..1) by a tone; `tint` moves it between warm and cold."""
    out = np.asarray(colour)[None, None] * tone[..., None]
    if tint is not None:
        out = out * (1 + tint[..., None] * np.array([0.05, 0.0, -0.06]))
    return np.asarray(np.clip(out, 0.02, 0.97) * 255 + 0.5, np.uint8)


def _divide_into_cells(
    rng: np.random.Generator, rows: int, columns: int, shifted: bool, n: int = SIDE
) -> tuple[Field, ...]:
    """Bricks, boards or tiles: number of the cell, and the distance (texels) to its long and its short edges."""
    y, x = np.mgrid[0:n, 0:n].astype(np.float64)
    row = np.floor(y * rows / n)
    offset = (rng.random(rows) if shifted else np.zeros(rows))[row.astype(int)]
    across = x * columns / n + offset
    column = np.floor(across) % columns
    dy = (0.5 - np.abs(y * rows / n % 1 - 0.5)) * n / rows
    dx = (0.5 - np.abs(across % 1 - 0.5)) * n / columns
    return row * columns + column, dy, dx


def planks(rng: np.random.Generator, colour: Sequence[float]) -> Texture:
    """Boards along x with grain, knots' waves and dark joints."""
    rows = int(rng.integers(9, 16))
    cell, dy, dx = _divide_into_cells(rng, rows, 2, shifted=True)
    board = cell.astype(int)
    tones, tints = rng.normal(1, 0.09, board.max() + 1), rng.normal(0, 0.8, board.max() + 1)
    moved = np.asarray(rng.integers(0, SIDE, board.max() + 1))[board]
    wave = np.sin(make_noise(rng, 12, 3, stretch=6) * 5)
    wood = 1 + 0.07 * make_noise(rng, 128, 3, stretch=24) + 0.045 * wave
    columns = (np.arange(SIDE)[None] + moved) % SIDE  # no two boards show the same piece of wood
    tone = tones[board] * np.take_along_axis(wood, columns, axis=1)
    joint = np.clip(np.minimum(dy, dx * 1.2) / 2.2, 0, 1)
    return _apply_tone(colour, tone * (0.35 + 0.65 * joint), tints[board])


def tiles(rng: np.random.Generator, colour: Sequence[float]) -> Texture:
    """Square tiles with pale or dark grout; some in two colours, some with veins of marble."""
    count = int(rng.choice([6, 8, 10]))
    cell, dy, dx = _divide_into_cells(rng, count, count, shifted=False)
    index = cell.astype(int)
    tone = rng.normal(1, 0.035, index.max() + 1)[index] * (1 + 0.02 * make_noise(rng, 24, 5))
    if rng.random() < 0.5:
        vein = np.abs(make_noise(rng, 6, 6))
        tone *= 1 - 0.16 * np.exp(-((vein / 0.09) ** 2))
    if rng.random() < 0.4:
        dark = ((index // count + index % count) % 2).astype(bool)
        tone = np.where(dark, tone * rng.uniform(0.35, 0.7), tone)
    edge = np.minimum(dy, dx)
    grout = rng.uniform(0.4, 0.8)
    joint = np.clip((edge - 2.0) / 1.5, 0, 1)
    return _apply_tone(colour, tone * joint + grout * (1 - joint))


def concrete(rng: np.random.Generator, colour: Sequence[float]) -> Texture:
    """Cast floor: clouds, fine grain, stains, a crack or two."""
    tone = (
        1
        + 0.035 * make_noise(rng, 4, 5)
        + 0.035 * make_noise(rng, 256, 2)
        - 0.07 * np.clip(make_noise(rng, 8, 4) - 1.2, 0, 1)
    )
    for _ in range(int(rng.integers(0, 3))):
        line = np.cumsum(rng.normal(0, 5, (160, 2)) + rng.normal(0, 6, 2), axis=0) + rng.uniform(0, SIDE, 2)
        canvas = np.ones((SIDE, SIDE))
        cv2.polylines(canvas, [line.astype(np.int32)], False, 0.75, 1, cv2.LINE_AA)
        tone *= canvas
    return _apply_tone(colour, tone, 0.3 * make_noise(rng, 3, 3))


def asphalt(rng: np.random.Generator, colour: Sequence[float]) -> Texture:
    """Grit of light and dark stones in a dark binder."""
    grit = rng.standard_normal((SIDE, SIDE))
    grit = np.asarray(cv2.GaussianBlur(grit, (0, 0), 1.1, borderType=cv2.BORDER_REFLECT))
    return _apply_tone(
        colour, 1 + 0.17 * grit / grit.std() + 0.06 * make_noise(rng, 5, 4), rng.standard_normal(grit.shape) * 0.3
    )


def grass(rng: np.random.Generator, colour: Sequence[float]) -> Texture:
    """Lawn: thousands of short blades, patches of drier and darker green."""
    base = np.asarray(colour)
    patch = make_noise(rng, 5, 4)
    canvas = np.asarray(_apply_tone(base * 0.55, 1 + 0.15 * patch), np.uint8).copy()
    count = 26_000
    foot = rng.uniform(0, SIDE, (count, 2))
    lean = rng.normal(0, 1, (count, 2)) * 7 + np.array([0, -6])
    shade = rng.normal(1.0, 0.22, (count, 1)) + 0.10 * patch[foot[:, 1].astype(int), foot[:, 0].astype(int)][:, None]
    dry = np.clip(rng.normal(0.12, 0.2, (count, 1)), 0, 0.8)
    blades = np.clip((base * (1 - dry) + np.array([0.66, 0.6, 0.36]) * dry) * shade, 0.03, 0.95) * 255
    for start, end, tone in zip(foot, foot + lean, blades, strict=True):
        cv2.line(canvas, (int(start[0]), int(start[1])), (int(end[0]), int(end[1])), tone.tolist(), 1, cv2.LINE_AA)
    return canvas


def gravel(rng: np.random.Generator, colour: Sequence[float]) -> Texture:
    """Pebbles over pebbles, each lit a little from above."""
    base = np.asarray(colour)
    canvas = np.asarray(_apply_tone(base * 0.35, np.ones((SIDE, SIDE)))).copy()
    for _ in range(6500):
        at, size = rng.uniform(0, SIDE, 2), rng.uniform(5, 13, 2)
        tone = np.clip(base * rng.normal(0.95, 0.2) * rng.normal(1, 0.025, 3), 0.05, 0.95) * 255
        turn = float(rng.uniform(0, 180))
        cv2.ellipse(canvas, (at.tolist(), (size * 2 + 3).tolist(), turn), (tone * 0.5).tolist(), -1, cv2.LINE_AA)
        cv2.ellipse(canvas, (at.tolist(), (size * 2).tolist(), turn), tone.tolist(), -1, cv2.LINE_AA)
    return canvas


def fabric(rng: np.random.Generator, colour: Sequence[float]) -> Texture:
    """Carpet or cloth: a fine weave with uneven pile."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    weave = 0.05 * np.sin(2 * np.pi * x / 8) * np.sin(2 * np.pi * y / 8)
    pile = rng.standard_normal((SIDE, SIDE))
    return _apply_tone(colour, 1 + weave + 0.10 * pile + 0.05 * make_noise(rng, 6, 4))


def bricks(rng: np.random.Generator, colour: Sequence[float]) -> Texture:
    """Brick wall, 16 courses, with pale mortar."""
    rows, columns = 16, 6
    y = np.arange(SIDE)[:, None] * rows // SIDE
    cell, dy, dx = _divide_into_cells(rng, rows, columns, shifted=False)
    half = SIDE // columns // 2 * (y % 2)
    shifted = (np.arange(SIDE)[None] + half) % SIDE
    lines = np.arange(SIDE)[:, None] + np.zeros_like(shifted)
    index, short = cell[lines, shifted].astype(int), dx[lines, shifted]
    tone = rng.normal(1, 0.12, index.max() + 1)[index] * (1 + 0.06 * make_noise(rng, 96, 3))
    joint = np.clip((np.minimum(dy, short) - 3) / 2, 0, 1)[..., None]
    mortar = _apply_tone((0.72, 0.70, 0.66), 1 + 0.05 * make_noise(rng, 64, 3))
    brick = _apply_tone(colour, tone, rng.normal(0, 1, index.max() + 1)[index])
    return np.asarray(brick * joint + mortar * (1 - joint), np.uint8)


def plaster(rng: np.random.Generator, colour: Sequence[float]) -> Texture:
    """Painted wall: nearly even, faint roller marks and clouds."""
    return _apply_tone(colour, 1 + 0.018 * make_noise(rng, 128, 3) + 0.02 * make_noise(rng, 3, 3))


def stripes(rng: np.random.Generator, colour: Sequence[float]) -> Texture:
    """Striped wallpaper."""
    x = np.arange(SIDE)[None] + np.zeros((SIDE, 1))
    band = (np.sin(2 * np.pi * x / SIDE * int(rng.integers(10, 22))) > rng.uniform(-0.5, 0.5)).astype(float)
    return _apply_tone(colour, 1 - rng.uniform(0.06, 0.25) * band + 0.012 * make_noise(rng, 128, 2))


SURFACES: dict[str, Callable[[np.random.Generator, Sequence[float]], Texture]] = {
    "planks": planks,
    "tiles": tiles,
    "concrete": concrete,
    "asphalt": asphalt,
    "grass": grass,
    "gravel": gravel,
    "fabric": fabric,
    "bricks": bricks,
    "plaster": plaster,
    "stripes": stripes,
}


def make_surface(kind: str, seed: int, colour: Sequence[float]) -> Texture:
    """Make the procedural picture of a surface.

    Raises:
        ValueError: no such kind.
    """
    if kind not in SURFACES:
        raise ValueError(f"no surface '{kind}'; there are {', '.join(SURFACES)}")
    return SURFACES[kind](np.random.default_rng(seed), colour)


def make_pattern(kind: str, seed: int, first: Sequence[float], second: Sequence[float], n: int = 256) -> Texture:
    """Make the decoration of an object: `stripes`, `checks` or `dots` of two colours, over its uv square."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:n, 0:n] / n
    count = int(rng.integers(4, 9))
    match kind:
        case "stripes":
            on = (y * count) % 1 < 0.45
        case "checks":
            on = (np.floor(y * count) + np.floor(x * count * 2)) % 2 == 0
        case _:
            on = np.hypot((x * count * 2) % 1 - 0.5, (y * count) % 1 - 0.5) < 0.3
    mixed = np.where(on[..., None], np.asarray(second), np.asarray(first))
    return np.asarray(mixed * 255 + 0.5, np.uint8)
