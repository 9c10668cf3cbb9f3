"""A scene of the studio as plain data: seed in, JSON-able dict out. Pure; needs no renderer.

The world is in metres: x right, y away from the camera, z up, the floor is z = 0. The camera looks along +y. A
light's azimuth is where it comes from on the ground, (cos, sin) in x and y: 0 = from the right of the picture,
90 = from behind the scene; shadows fall to azimuth + 180.
"""

import colorsys
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rasura.stages.sources.studio.meshes import make_object_meshes
from rasura.stages.sources.studio.objects import PROPS

Array = npt.NDArray[np.float64]
Random = np.random.Generator
Light = Literal["mixed", "sun", "lamp", "soft"]

VERSION = 1
"""Goes into every description, and so into every id: raise it when the same seed gives another scene."""

FOV_DEG = (36.0, 44.0)  # across the picture's width
PITCH_DEG = (15.0, 30.0)
MARGIN = 0.05  # share of the picture that objects keep from its border
SMALL = 0.45  # metres: up to here a prop is put on a table, above it stands in a room or a street

WOODS = [(0.62, 0.44, 0.28), (0.50, 0.33, 0.20), (0.74, 0.60, 0.44), (0.36, 0.25, 0.18), (0.66, 0.58, 0.50)]
STONES = [(0.78, 0.77, 0.74), (0.62, 0.60, 0.57), (0.80, 0.72, 0.62), (0.45, 0.47, 0.50), (0.70, 0.56, 0.47)]
CLOTHS = [(0.45, 0.22, 0.22), (0.28, 0.36, 0.46), (0.62, 0.58, 0.50), (0.35, 0.42, 0.34), (0.70, 0.66, 0.62)]
PAINTS = [(0.86, 0.84, 0.79), (0.72, 0.78, 0.80), (0.80, 0.74, 0.62), (0.62, 0.70, 0.62), (0.80, 0.66, 0.60)]
FLOORS: dict[str, tuple[Sequence[tuple[float, float, float]], float, tuple[str, ...], bool, bool]] = {
    # surface: colours, metres that one picture of it covers, finishes, may be indoors, may be outdoors
    "planks": (WOODS, 2.2, ("matt", "satin", "glossy"), True, True),
    "tiles": (STONES, 2.6, ("satin", "glossy", "glossy"), True, True),
    "concrete": (STONES, 3.5, ("matt", "satin"), True, True),
    "fabric": (CLOTHS, 1.5, ("matt",), True, False),
    "asphalt": ([(0.40, 0.40, 0.41), (0.48, 0.47, 0.46)], 2.0, ("matt",), False, True),
    "grass": ([(0.38, 0.47, 0.22), (0.45, 0.50, 0.25)], 1.6, ("matt",), False, True),
    "gravel": ([(0.62, 0.58, 0.52), (0.55, 0.55, 0.55)], 1.6, ("matt",), False, True),
}
WALLS = {"plaster": (PAINTS, 3.0), "stripes": (PAINTS, 2.4), "bricks": ([(0.60, 0.34, 0.26), (0.66, 0.52, 0.42)], 1.4)}


def pick(rng: Random, values: Sequence[Any]) -> Any:
    """Draw one of some values."""
    return values[int(rng.integers(len(values)))]


def draw_uniform(rng: Random, low: float, high: float) -> float:
    """Draw a number between two."""
    return float(rng.uniform(low, high))


def round_numbers(value: Any) -> Any:
    """Round the numbers of a description to 5 digits: the last bits of a libm must not change an id.

    Examples:
        >>> round_numbers({"yaw": 1 / 3, "name": "cup"})
        {'yaw': 0.33333, 'name': 'cup'}
    """
    if isinstance(value, dict):
        return {key: round_numbers(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [round_numbers(item) for item in value]
    return round(float(value), 5) + 0.0 if isinstance(value, (float, np.floating)) else value


def draw_colour(rng: Random, vivid: bool = True) -> list[float]:
    """Draw a paint, sRGB 0..1. Never so dark that its shadow side is lost, never so light that it burns out."""
    saturation = draw_uniform(rng, 0.45, 0.85) if vivid and rng.random() < 0.8 else draw_uniform(rng, 0.0, 0.2)
    return list(colorsys.hsv_to_rgb(draw_uniform(rng, 0, 1), saturation, draw_uniform(rng, 0.45, 0.88)))


def make_material(rng: Random, finish: str, colour: Sequence[float]) -> dict[str, Any]:
    rough = {"matt": 1.0, "satin": 0.25, "glossy": 0.1, "metal": draw_uniform(rng, 0.18, 0.35)}[finish]
    return {"finish": finish, "colour": list(colour), "roughness": rough, "pattern": None}


def draw_materials(rng: Random, made_of: str) -> list[dict[str, Any]]:
    """Draw five materials of one object: main, second, dark, pale, green."""
    finish = str(pick(rng, ["matt", "satin", "glossy", "metal"]))
    main = make_material(rng, finish, draw_colour(rng))
    second = make_material(rng, "satin", draw_colour(rng))
    match made_of:
        case "any" if rng.random() < 0.3 and finish != "metal":
            kind = str(pick(rng, ["stripes", "checks", "dots"]))
            main["pattern"] = {"kind": kind, "seed": int(rng.integers(2**31)), "colour": draw_colour(rng)}
        case "any" if finish == "metal":
            main["colour"] = list(pick(rng, [(0.9, 0.89, 0.87), (0.95, 0.8, 0.5), (0.93, 0.7, 0.58)]))
        case "ceramic":
            main = make_material(rng, str(pick(rng, ["satin", "glossy", "matt"])), draw_colour(rng))
        case "glossy":
            main = make_material(rng, "glossy", draw_colour(rng))
        case "matt":
            main = make_material(rng, "matt", draw_colour(rng))
        case "furniture":
            wooden = rng.random() < 0.6
            main = make_material(rng, "satin", pick(rng, WOODS) if wooden else draw_colour(rng))
            second = make_material(rng, "satin", pick(rng, [*WOODS, (0.2, 0.2, 0.21)]))
        case "cone":
            main = make_material(rng, "satin", (0.93, 0.36, 0.1))
    dark = make_material(rng, "satin", (0.13, 0.13, 0.14))
    pale = make_material(rng, "satin", (0.85, 0.83, 0.78))
    green = make_material(rng, "satin", (0.22, draw_uniform(rng, 0.38, 0.5), 0.16))
    return [main, second, dark, pale, green]


def sample_vertices(item: dict[str, Any]) -> Array:
    """Return vertices of an object in the world, thinned, (n, 3)."""
    return np.concatenate([mesh.vertices for mesh in make_object_meshes(item).values()])[::7]


def _draw_objects(rng: Random) -> list[dict[str, Any]]:
    """Draw 1-3 props of similar size that do not touch; the largest is first."""
    small = rng.random() < 0.5
    fitting = [name for name, (_, (low, high), _) in PROPS.items() if (low < SMALL if small else high > SMALL)]
    count = int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.2]))
    items: list[dict[str, Any]] = []
    for name in rng.permutation(fitting)[:count]:
        parts, (low, high), made_of = PROPS[str(name)]
        scale = draw_uniform(rng, low, min(high, SMALL)) if small else draw_uniform(rng, max(low, SMALL), high)
        yaw = draw_uniform(rng, -50, 50) if rng.random() < 0.8 else draw_uniform(rng, -180, 180)
        item = {"name": str(name), "scale": scale, "yaw": yaw, "position": [0.0, 0.0]}
        items.append(item | {"parts": parts(rng), "materials": draw_materials(rng, made_of)})
    radii = []
    for item in items:
        points = sample_vertices(item)
        radii.append((float(np.hypot(points[:, 0], points[:, 1]).max()), float(points[:, 2].max())))
    order = sorted(range(count), key=lambda k: -radii[k][0] * radii[k][1])
    items, radii = [items[k] for k in order], [radii[k] for k in order]
    side = pick(rng, [-1.0, 1.0])
    for k in range(1, count):
        away = radii[0][0] + radii[k][0] + draw_uniform(rng, 0.05, 0.35) * max(r for r, _ in radii)
        angle = math.radians(draw_uniform(rng, -50, 35))
        x, y = away * math.cos(angle), away * math.sin(angle)
        items[k]["position"] = [side * x if k == 1 else -side * x, y]
    return items


def measure_extent(scene: dict[str, Any], indices: Sequence[int]) -> tuple[Array, float]:
    """Return vertices of some objects, (n, 3), and the largest side of the box around them, metres."""
    points = np.concatenate([sample_vertices(scene["objects"][k]) for k in indices])
    return points, float(np.ptp(points, axis=0).max())


def draw_prop(rng: Random, low: float, high: float) -> dict[str, Any]:
    """Draw one of the props, its largest extent between two lengths in metres."""
    name = str(pick(rng, [name for name in PROPS if name not in ("bench", "table")]))
    parts, _, made_of = PROPS[name]
    item = {"name": name, "scale": 1.0, "yaw": 0.0, "position": [0.0, 0.0]}
    item |= {"parts": parts(rng), "materials": draw_materials(rng, made_of), "yaw": draw_uniform(rng, -50, 50)}
    points = sample_vertices(item)
    return item | {"scale": draw_uniform(rng, low, high) / float(np.ptp(points, axis=0).max())}


def find_extremes(points: Array) -> Array:
    """Find the points of (n, 3) that are farthest out in one of 146 directions: enough to frame them all."""
    steps = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    outer = steps[(np.abs(steps).max(1) == 3) & (steps.sum(1) % 2 == 0)]
    return np.asarray(points[np.unique(np.argmax(points @ outer.T, axis=0))])


def compute_light_vector(azimuth_deg: float, elevation_deg: float) -> Array:
    """Compute the unit vector towards a light.

    Examples:
        >>> compute_light_vector(90.0, 0.0).round(3).tolist()
        [0.0, 1.0, 0.0]
    """
    a, e = math.radians(azimuth_deg), math.radians(elevation_deg)
    return np.array([math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)])


def project_shadow_points(points: Array, towards: Array, wall: float | None) -> Array:
    """Project (n, 3) points along the light: onto the floor, or the wall plane y = `wall` where that is nearer."""
    travel = points[:, 2] / towards[2]
    if wall is not None and towards[1] < 0:
        travel = np.minimum(travel, (wall - points[:, 1]) / -towards[1])
    return np.asarray(points - travel[:, None] * towards)


def project(points: Array, camera: dict[str, Any], aspect: float) -> Array:
    """Project world points to picture coordinates (n, 2) in -1..1, x right, y down. `aspect` is width / height."""
    pitch, half = math.radians(camera["pitch"]), math.tan(math.radians(camera["fov"]) / 2)
    rel = points - np.asarray(camera["origin"])
    depth = rel[:, 1] * math.cos(pitch) - rel[:, 2] * math.sin(pitch)
    up = rel[:, 1] * math.sin(pitch) + rel[:, 2] * math.cos(pitch)
    depth = np.maximum(depth, 1e-3)
    return np.stack([rel[:, 0] / depth / half, -up / depth / half * aspect], 1)


def unproject_to_floor(camera: dict[str, Any], u: float, v: float, aspect: float) -> Array | None:
    """Return the point of the floor, (3,), that is seen at (u, v) in -1..1, y down; None above the horizon."""
    pitch, half = math.radians(camera["pitch"]), math.tan(math.radians(camera["fov"]) / 2)
    down = v * half / aspect
    ray = np.array([u * half, math.cos(pitch) - down * math.sin(pitch), -math.sin(pitch) - down * math.cos(pitch)])
    origin = np.asarray(camera["origin"])
    return None if ray[2] > -0.02 else np.asarray(origin + ray * (origin[2] / -ray[2]))


def frame_camera(
    rng: Random, objects: Array, shadows: Array, aspect: float, pitch_deg: tuple[float, float] = PITCH_DEG
) -> dict[str, Any]:
    """Choose the nearest camera that has objects and all but the tip of shadows inside the margins; then some air."""
    camera: dict[str, Any] = {"pitch": draw_uniform(rng, *pitch_deg), "fov": draw_uniform(rng, *FOV_DEG)}
    pitch, half = math.radians(camera["pitch"]), math.tan(math.radians(camera["fov"]) / 2)
    points = np.concatenate([objects, objects + 0.9 * (shadows - objects)]) if len(shadows) else objects
    points = find_extremes(points)
    room = 1 - 2 * MARGIN
    backwards = np.array([0.0, -math.cos(pitch), math.sin(pitch)])
    upwards = np.array([0.0, math.sin(pitch), math.cos(pitch)])

    def place_camera(target: Array, distance: float, x: float = 0.0, y: float = 0.0) -> dict[str, Any]:
        """Return the camera at a distance from a target that is then moved by (x, y) in the picture, -1..1, y down."""
        moved = target - distance * half * np.array([x, 0.0, 0.0]) + distance * half / aspect * y * upwards
        return camera | {"origin": moved + distance * backwards}

    def centre_camera(distance: float) -> tuple[Array, Array]:
        target = (points.min(0) + points.max(0)) / 2
        for _ in range(5):
            where = project(points, place_camera(target, distance), aspect)
            x, y = (where.min(0) + where.max(0)) / 2
            target = target + distance * half * (np.array([x, 0.0, 0.0]) - y / aspect * upwards)
        return target, project(points, place_camera(target, distance), aspect)

    distance = 12 * float(np.ptp(points, axis=0).max())
    while np.abs(centre_camera(distance * 0.95)[1]).max() < room:
        distance *= 0.95
    distance *= draw_uniform(rng, 1.1, 1.5)
    target, where = centre_camera(distance)
    spare = room - np.abs(where).max(0)
    x, y = spare[0] * draw_uniform(rng, -0.8, 0.8), spare[1] * draw_uniform(rng, -0.5, 0.8)
    while np.abs(project(points, place_camera(target, distance, x, y), aspect)).max() > room:
        x, y = 0.7 * x, 0.7 * y
    return place_camera(target, distance, x, y)


def draw_light(rng: Random, kind: str, wall: bool, shiny: bool) -> dict[str, Any]:
    """Draw the direct light and the sky.

    With a wall behind the scene, light comes from the camera's side; with a shiny floor not from straight behind the
    scene, where its glare would drown everything.
    """
    sideways = float(pick(rng, [draw_uniform(rng, 200, 245), draw_uniform(rng, 295, 340)]))
    azimuth = sideways if wall or rng.random() < 0.3 else draw_uniform(rng, -35, 215) % 360
    if shiny and 50 < azimuth < 130:
        azimuth += 75 if azimuth > 90 else 285
    azimuth %= 360
    sky: dict[str, Any] = {"seed": int(rng.integers(2**31)), "clouds": draw_uniform(rng, 0.0, 0.5)}
    match kind:
        case "sun":
            warm = draw_uniform(rng, 0.0, 0.3)
            sky |= {"zenith": [0.55, 0.72, 1.0], "horizon": [0.95, 0.98, 1.0], "ground": [0.4, 0.38, 0.34]}
            return {
                "kind": kind,
                "azimuth": azimuth,
                "elevation": draw_uniform(rng, 27, 54),
                "size_deg": float(pick(rng, [0.6, 1.2, 2.5])),
                "ratio": draw_uniform(rng, 3.0, 6.0),  # sunlight over skylight, on a surface that faces the sun
                "colour": [1.0, 0.93 - 0.2 * warm, 0.84 - 0.5 * warm],
                "sky": sky,
            }
        case "lamp":
            sky |= {"zenith": [0.8, 0.78, 0.75], "horizon": [0.6, 0.57, 0.53], "ground": [0.35, 0.32, 0.3]}
            return {
                "kind": kind,
                "azimuth": azimuth,
                "elevation": draw_uniform(rng, 33, 60),
                "size_deg": draw_uniform(rng, 4.0, 9.0),
                "ratio": draw_uniform(rng, 2.5, 5.0),
                "colour": [1.0, 0.88, 0.72],
                "sky": sky,
            }
        case _:
            grey = draw_uniform(rng, 0.96, 1.04)
            sky |= {"zenith": [1.0, 1.0, 1.03], "horizon": [0.5, 0.51, 0.53], "ground": [0.22, 0.21, 0.2 * grey]}
            return {"kind": "soft", "azimuth": None, "elevation": None, "ratio": 0.0, "sky": sky}


def draw_texture(
    rng: Random, kind: str, colour: Sequence[float], metres: float, photos: Sequence[str]
) -> dict[str, Any]:
    """Draw the texture of a plane: one of the photographs (sha256) if there are any, else a procedural surface."""
    common = {
        "metres": metres,
        "turn": draw_uniform(rng, -12, 12),
        "shift": [draw_uniform(rng, 0, 1), draw_uniform(rng, 0, 1)],
    }
    if photos:
        return {"kind": "photo", "sha256": str(pick(rng, sorted(photos))), **common}
    tone = np.clip(np.asarray(colour) * draw_uniform(rng, 0.9, 1.1), 0.05, 0.9)
    return {"kind": kind, "seed": int(rng.integers(2**31)), "colour": tone.tolist(), **common}


def describe_scene(
    seed: int, index: int, aspect: float = 1.5, light: Light = "mixed", remove: str = "all", photos: Sequence[str] = ()
) -> dict[str, Any]:
    """Describe scene number `index` of a seed.

    Args:
        aspect: width / height of the picture that has to hold the scene.
        light: `mixed` draws sun (55 %), a lamp (22 %) or soft light (23 %).
        remove: `all` objects, or `one`: the largest.
        photos: sha256 of photographs that cover floor and walls instead of procedural surfaces.
    """
    rng = np.random.default_rng([VERSION, seed, index])
    drawn = str(rng.choice(["sun", "lamp", "soft"], p=[0.55, 0.22, 0.23]))
    kind = drawn if light == "mixed" else light
    indoors = kind == "lamp" or (kind == "soft" and rng.random() < 0.5)
    surfaces = [name for name, row in FLOORS.items() if (row[3] if indoors else row[4])]
    surface = str(pick(rng, surfaces))
    colours, metres, finishes, _, _ = FLOORS[surface]
    finish = str(pick(rng, finishes))
    rough = {"matt": 1.0, "satin": draw_uniform(rng, 0.22, 0.32), "glossy": draw_uniform(rng, 0.04, 0.12)}[finish]
    objects = _draw_objects(rng)
    points = np.concatenate([sample_vertices(item) for item in objects])
    size = float(np.ptp(points, axis=0).max())
    has_wall = bool(rng.random() < (0.6 if indoors else 0.35))
    lit = draw_light(rng, kind, has_wall, finish != "matt")
    wall = float(points[:, 1].max()) + size * draw_uniform(rng, 0.5, 1.6) if has_wall else None
    towards = None if lit["azimuth"] is None else compute_light_vector(lit["azimuth"], lit["elevation"])
    shadows = np.empty((0, 3)) if towards is None else project_shadow_points(points, towards, wall)
    camera = frame_camera(rng, points, shadows, aspect)
    # The picture of a surface shrinks with the props: about one texel a pixel, and boards as wide as a cup is not.
    metres *= float(np.clip(size / 0.8, 0.35, 1.3))
    floor: dict[str, Any] = {
        "finish": finish,
        "roughness": rough,
        "texture": draw_texture(rng, surface, pick(rng, colours), metres, photos),
    }
    if rng.random() < 0.3:
        floor["texture"]["turn"] = draw_uniform(rng, 30, 90)
    scene: dict[str, Any] = {"version": VERSION, "seed": seed, "index": index, "aspect": aspect, "camera": camera}
    scene |= {"light": lit, "floor": floor, "wall": None, "objects": objects, "exposure": draw_uniform(rng, 0.9, 1.25)}
    scene["removed"] = list(range(len(objects))) if remove == "all" else [0]
    if wall is not None:
        cover = str(pick(rng, ["plaster", "stripes"] if indoors else ["bricks", "plaster"]))
        paints, wide = WALLS[cover]
        texture = draw_texture(rng, cover, pick(rng, paints), wide * float(np.clip(size / 0.8, 0.35, 1.3)), photos)
        texture["turn"] = 0.0
        scene["wall"] = {"y": wall, "texture": texture, "skirting": 0.1 * size if indoors else 0.0}
    return dict(round_numbers(scene))
