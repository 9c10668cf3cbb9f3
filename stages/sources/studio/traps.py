"""Traps: scenes of the studio that are known to fool programs which compare two pictures. Pure; needs no renderer.

A trap changes an ordinary scene (`scene.describe_scene`). Several can be combined: each draws from a generator of its
own, and they are set in one fixed order, whatever the order in which they are named. A description then has, beside
the keys of an ordinary one:

- `not_in_gt`, `only_in_gt`: objects, by their index, that are in the first shot and not in the second, or the other way
  round, and that nobody wants to be removed. The true empty scene has the former and not the latter.
- `ghost_opacity`: with which the objects of `only_in_gt` are seen.
- `drift`: how the camera's tone changed between the shots (`develop.draw_drift`), or None.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np

from rasura.stages.sources.studio.objects import PROPS, make_rod
from rasura.stages.sources.studio.obstacles import make_leaves, make_panel, make_post, make_shelf, make_tape
from rasura.stages.sources.studio.scene import (
    PAINTS,
    PITCH_DEG,
    Array,
    Light,
    Random,
    compute_light_vector,
    describe_scene,
    draw_light,
    draw_materials,
    draw_prop,
    draw_uniform,
    frame_camera,
    make_material,
    measure_extent,
    pick,
    project,
    project_shadow_points,
    round_numbers,
    sample_vertices,
    unproject_to_floor,
)

Trap = Literal[
    "hard_shadow",
    "sun_at_horizon",
    "soft_penumbra",
    "mirror_floor",
    "still_water",
    "grey_on_white",
    "touching_objects",
    "behind_occluder",
    "shadow_from_outside",
    "moving_things",
    "ghost_in_gt",
    "tone_drift",
]
Scene = dict[str, Any]

VERSION = 1
"""Goes into every description that has traps: raise it when the same seed gives another one."""
EXCLUSIVE: tuple[tuple[Trap, ...], ...] = (
    ("hard_shadow", "soft_penumbra"),
    ("sun_at_horizon", "soft_penumbra"),
    ("mirror_floor", "still_water"),
)
"""Traps that cannot be in one scene: both would decide the same."""
SHADOW_LOSS = (0.12, 0.75)  # share of the floor's light that a hard shadow takes
STRIP = (0.035, 0.3)  # width of what casts it, in its height: 5 to 40 px of a picture of 240 lines
MAX_DRIFT = 12.0  # grey levels


def find_conflict(traps: Sequence[str]) -> tuple[str, ...] | None:
    """Return traps among these that exclude each other; None where they can be combined.

    Examples:
        >>> find_conflict(["tone_drift", "mirror_floor", "still_water"])
        ('mirror_floor', 'still_water')
    """
    return next((names for names in EXCLUSIVE if set(names) <= set(traps)), None)


def _make_item(name: str, parts: list[Any], materials: list[Any], **place: Any) -> Scene:
    return {
        "name": name,
        "scale": 1.0,
        "yaw": 0.0,
        "position": [0.0, 0.0],
        "parts": parts,
        "materials": materials,
    } | place


def _paint(rng: Random, *colours: Sequence[float], finish: str = "satin") -> list[Any]:
    """Return materials of some colours; the last one stands for those that are missing."""
    made = [make_material(rng, finish, colour) for colour in colours]
    return [*made, *[made[-1]] * (5 - len(made))]


def _put_wall(scene: Scene, rng: Random, colour: Sequence[float], distance: float) -> None:
    """Put a plastered wall so many metres behind the objects."""
    points, size = measure_extent(scene, range(len(scene["objects"])))
    texture = {"kind": "plaster", "seed": int(rng.integers(2**31)), "colour": list(colour), "metres": 3.0 * size}
    texture |= {"turn": 0.0, "shift": [draw_uniform(rng, 0, 1), draw_uniform(rng, 0, 1)]}
    scene["wall"] = {"y": float(points[:, 1].max()) + distance, "texture": texture, "skirting": 0.0}


def _cover_floor(scene: Scene, colour: Sequence[float], kind: str = "plaster", finish: str = "matt") -> None:
    scene["floor"]["texture"] |= {
        "kind": kind,
        "colour": list(colour),
        "seed": scene["floor"]["texture"].get("seed", 1),
    }
    rough = {"matt": 1.0, "mirror": 0.01, "water": 0.0}[finish]
    scene["floor"] |= {"finish": finish, "roughness": rough}


def _light_from_the_front(scene: Scene, rng: Random, most: float = -0.3) -> None:
    """Draw the light again where the sine of its azimuth exceeds `most`: behind a wall, or glaring from a mirror."""
    light = scene["light"]
    if light["azimuth"] is not None and math.sin(math.radians(light["azimuth"])) > most:
        scene["light"] = draw_light(rng, light["kind"], True, True)


def set_hard_shadow(scene: Scene, rng: Random) -> None:
    """Put a post or sign in a small sun: its shadow is a strip of 5 to 40 px, faint or dark."""
    width = math.exp(draw_uniform(rng, math.log(STRIP[0]), math.log(STRIP[1])))
    materials = draw_materials(rng, "any")
    post = _make_item("post", make_post(rng, width), materials, scale=draw_uniform(rng, 0.5, 1.0))
    scene["objects"] = [post | {"yaw": draw_uniform(rng, -30, 30)}]
    scene["removed"] = [0]
    light = draw_light(rng, "sun", scene["wall"] is not None, scene["floor"]["finish"] != "matt")
    loss = math.exp(draw_uniform(rng, math.log(SHADOW_LOSS[0]), math.log(SHADOW_LOSS[1])))
    light["elevation"] = draw_uniform(rng, 24, 45)
    light["ratio"] = loss / (1 - loss) / math.sin(math.radians(light["elevation"]))
    scene["light"] = light | {"size_deg": 0.25}


def set_sun_at_horizon(scene: Scene, rng: Random) -> None:
    """Let the sun stand so low, at one side, that shadows leave the picture."""
    hard = scene["light"].get("size_deg") == 0.25
    sun = scene["light"] if hard else draw_light(rng, "sun", False, True)
    side = float(pick(rng, [0.0, 180.0]))
    elevation, ratio = draw_uniform(rng, 3.0, 8.0), draw_uniform(rng, 6.0, 9.0)
    if hard:  # the same loss of light on the floor
        ratio = sun["ratio"] * math.sin(math.radians(sun["elevation"])) / math.sin(math.radians(elevation))
    scene["light"] = sun | {
        "azimuth": (side + draw_uniform(rng, -25, 25)) % 360,
        "elevation": elevation,
        "ratio": min(ratio, 12.0),
    }
    scene["wall"] = None


def set_soft_penumbra(scene: Scene, rng: Random) -> None:
    """Put a large lamp before a smooth wall and a smooth floor."""
    scene["light"] = draw_light(rng, "lamp", True, False) | {
        "size_deg": draw_uniform(rng, 14, 30),
        "ratio": draw_uniform(rng, 1.5, 4.0),
    }
    _, size = measure_extent(scene, scene["removed"])
    _cover_floor(scene, pick(rng, PAINTS))
    _put_wall(scene, rng, pick(rng, PAINTS), size * draw_uniform(rng, 0.15, 0.6))


def set_mirror_floor(scene: Scene, rng: Random) -> None:
    """Let the floor be polished: it shows every object a second time, upside down."""
    scene["floor"] |= {"finish": "mirror", "roughness": 0.01, "mirror": draw_uniform(rng, 0.25, 0.6)}
    _light_from_the_front(scene, rng, 0.6)


def set_still_water(scene: Scene, rng: Random) -> None:
    """Let objects stand in still, dark water."""
    tone = draw_uniform(rng, 0.2, 0.35)
    scene["wall"] = None
    _cover_floor(scene, (0.8 * tone, tone, 0.95 * tone), "concrete", "water")
    _light_from_the_front(scene, rng, 0.6)


def set_grey_on_white(scene: Scene, rng: Random) -> None:
    """Paint everything that is removed light grey, and the room white."""
    scene["exposure"] *= 1.25
    for k in scene["removed"]:
        greys = [np.full(3, draw_uniform(rng, 0.68, 0.84)) * rng.uniform(0.98, 1.02, 3) for _ in range(3)]
        scene["objects"][k]["materials"] = _paint(rng, *[grey.tolist() for grey in greys], finish="matt")
    _, size = measure_extent(scene, scene["removed"])
    if scene["floor"]["finish"] not in ("mirror", "water"):
        _cover_floor(scene, (0.88, 0.88, 0.86))
    if scene["floor"]["finish"] != "water":
        _light_from_the_front(scene, rng)
        _put_wall(scene, rng, (0.93, 0.93, 0.92), size * draw_uniform(rng, 0.2, 0.8))


def set_touching_objects(scene: Scene, rng: Random) -> None:
    """Push two or three more objects against the first one; all of them are removed."""
    scene["objects"] = scene["objects"][:1]
    points, size = measure_extent(scene, [0])
    radius = float(np.hypot(points[:, 0], points[:, 1]).max())
    angles = [float(pick(rng, [0, 180])) + draw_uniform(rng, -25, 25), 270 + draw_uniform(rng, -45, 45), 0.0]
    angles[2] = 180 - angles[0] + draw_uniform(rng, -20, 20)
    for angle in angles[: int(rng.integers(2, 4))]:
        item = draw_prop(rng, 0.5 * size, 0.9 * size)
        own = sample_vertices(item)
        away = 0.85 * radius + 0.7 * float(np.hypot(own[:, 0], own[:, 1]).max())
        item["position"] = [away * math.cos(math.radians(angle)), away * math.sin(math.radians(angle))]
        scene["objects"].append(item)
    scene["removed"] = list(range(len(scene["objects"])))


def set_behind_occluder(scene: Scene, rng: Random) -> None:
    """Put a table or a panel, which stays, before the object: what it hides is between the parts that are seen."""
    if "touching_objects" not in scene["traps"]:
        scene["objects"], scene["removed"] = scene["objects"][:1], [0]
    points, _ = measure_extent(scene, scene["removed"])
    low, high = points.min(0), points.max(0)
    tall, wide = float(high[2]), float(high[0] - low[0])
    middle = float(low[0] + high[0]) / 2
    gap = 0.15 * max(tall, wide)
    colour = [c * draw_uniform(rng, 0.8, 1.1) for c in (0.6, 0.45, 0.3)]
    if tall > 0.8 * wide or rng.random() < 0.3:
        depth, thickness = 0.2 * tall, 0.06 * tall
        y = float(low[1]) - gap - depth / 2
        # The line of sight goes down behind the board: it hides what is lower than itself there.
        height = draw_uniform(rng, 0.45, 0.6) * tall + (gap + depth / 2 + (high[1] - low[1]) / 2) * math.tan(
            math.radians(14)
        )
        parts = make_shelf(1.8 * wide, depth, height, thickness)
    else:
        y = float(low[1]) - gap
        parts = make_panel(draw_uniform(rng, 0.2, 0.35) * wide, tall * draw_uniform(rng, 1.1, 1.3))
    materials = _paint(rng, colour, (0.25, 0.25, 0.26))
    scene["objects"].append(_make_item("occluder", parts, materials, position=[middle, y]))
    scene["pitch_deg"] = (11.0, 17.0)


def _draw_floor_place(scene: Scene, rng: Random, reach: float = 0.9) -> Array:
    """Draw a point of the floor that the camera sees, before the wall."""
    back = np.inf if scene["wall"] is None else scene["wall"]["y"]
    for _ in range(200):
        u, v = draw_uniform(rng, -reach, reach), draw_uniform(rng, -reach, reach)
        place = unproject_to_floor(scene["camera"], u, v, scene["aspect"])
        if place is not None and place[1] < back - 0.02:
            return place
    return np.zeros(3)


def _box_in_picture(scene: Scene, points: Array) -> tuple[Array, Array]:
    where = project(points, scene["camera"], scene["aspect"])
    return where.min(0), where.max(0)


def set_sun_at_one_side(scene: Scene, rng: Random) -> None:
    """Let the sun stand rather low at one side, a little before the objects: light for `put_shadow_from_outside`."""
    if scene["light"]["kind"] != "sun":
        scene["light"] = draw_light(rng, "sun", scene["wall"] is not None, True)
    side, turn = float(pick(rng, [0.0, 180.0])), draw_uniform(rng, 2, 28)
    scene["light"]["azimuth"] = (side + (turn if side else -turn)) % 360
    if scene["light"]["elevation"] > 10:
        scene["light"]["elevation"] = draw_uniform(rng, 18, 28)


def put_shadow_from_outside(scene: Scene, rng: Random) -> None:
    """Put something tall beside the picture, in the first shot alone, whose shadow reaches into it.

    In a third of the scenes nothing else goes away: then there is no object to remove.
    """
    towards = compute_light_vector(scene["light"]["azimuth"], scene["light"]["elevation"])
    across = math.copysign(draw_uniform(rng, 0.3, 0.6), towards[0])
    tip = unproject_to_floor(scene["camera"], across, draw_uniform(rng, 0.2, 0.6), scene["aspect"])
    assert tip is not None  # below the horizon at these heights of the picture
    name = str(pick(rng, ["toy figure", "cylinder", "suitcase", "traffic cone", "bottle"]))
    parts, _, made_of = PROPS[name]
    item = _make_item(name, parts(rng), draw_materials(rng, made_of), yaw=draw_uniform(rng, -180, 180))
    own = sample_vertices(item)
    tall = float(own[:, 2].max())
    for step in range(40):
        height = 0.1 * 1.12**step * math.hypot(*scene["camera"]["origin"])
        foot = tip + towards * (0.9 * height / towards[2])
        item |= {"scale": height / tall, "position": [float(foot[0]), float(foot[1])]}
        first, last = _box_in_picture(scene, sample_vertices(item))
        if first[0] > 1.06 or last[0] < -1.06:
            break
    scene["not_in_gt"].append(len(scene["objects"]))
    scene["objects"].append(item)
    if rng.random() < 1 / 3:
        scene["removed"] = []


def put_moving_things(scene: Scene, rng: Random) -> None:
    """Scatter leaves, or hang barrier tape, that the wind moves between the shots."""
    points, size = measure_extent(scene, scene["removed"] or [0])
    kind = str(pick(rng, ["leaves", "tape", "both"]))
    if kind != "tape":
        count, long = int(rng.integers(8, 20)), draw_uniform(rng, 0.06, 0.12) * size
        places = np.array([_draw_floor_place(scene, rng)[:2] for _ in range(count)])
        colours = [(0.62, 0.36, 0.1), (0.5, 0.45, 0.12), (0.55, 0.22, 0.1)]
        for shot in ("not_in_gt", "only_in_gt"):
            scene[shot].append(len(scene["objects"]))
            leaves = make_leaves(rng, places, long)
            scene["objects"].append(_make_item("leaves", leaves, _paint(rng, *colours, finish="matt")))
            places = places + rng.normal(0, 1.5 * long, places.shape)
    if kind != "leaves":
        high = draw_uniform(rng, 0.35, 0.7) * float(points[:, 2].max())
        y = float(points[:, 1].max()) + 0.15 * size
        half = 0.75 * size + float(np.ptp(points[:, 0])) / 2
        middle, radius = float(points[:, 0].mean()), 0.012 * size
        posts = [make_rod((middle + x, y, 0.0), (middle + x, y, 1.1 * high), 1.5 * radius) for x in (-half, half)]
        scene["objects"].append(_make_item("posts", posts, _paint(rng, (0.3, 0.3, 0.32))))
        ends = np.array([[middle - half, y, high], [middle + half, y, high]])
        for shot in ("not_in_gt", "only_in_gt"):
            scene[shot].append(len(scene["objects"]))
            sag, swing = draw_uniform(rng, 0.05, 0.35) * high, draw_uniform(rng, -0.3, 0.3) * high
            tape = make_tape(ends[0], ends[1], sag, swing, radius)
            scene["objects"].append(_make_item("tape", tape, _paint(rng, (0.8, 0.12, 0.1), (0.85, 0.84, 0.8))))


def put_ghost_in_gt(scene: Scene, rng: Random) -> None:
    """Put something beside the objects that only the second shot has, faint or solid."""
    points, size = measure_extent(scene, scene["removed"] or [0])
    first, last = _box_in_picture(scene, points)
    item = draw_prop(rng, 0.4 * size, 0.8 * size)
    for _ in range(100):
        place = _draw_floor_place(scene, rng)
        item["position"] = [float(place[0]), float(place[1])]
        own = _box_in_picture(scene, sample_vertices(item))
        inside = np.abs(np.stack(own)).max() < 0.97
        if inside and ((own[0] > last + 0.03).any() or (own[1] < first - 0.03).any()):
            break
        item["scale"] *= 0.985
    scene["only_in_gt"].append(len(scene["objects"]))
    scene["objects"].append(item)
    scene["ghost_opacity"] = draw_uniform(rng, 0.35, 1.0)


def put_tone_drift(scene: Scene, rng: Random) -> None:
    """Let the camera's exposure control and white balance drift between the shots, by up to 12 grey levels."""
    scene["drift"] = {"seed": int(rng.integers(2**31)), "levels": draw_uniform(rng, 4.0, MAX_DRIFT)}


BEFORE: dict[str, Callable[[Scene, Random], None]] = {  # before the camera is placed, in this order
    "hard_shadow": set_hard_shadow,
    "sun_at_horizon": set_sun_at_horizon,
    "mirror_floor": set_mirror_floor,
    "still_water": set_still_water,
    "touching_objects": set_touching_objects,
    "soft_penumbra": set_soft_penumbra,
    "grey_on_white": set_grey_on_white,
    "behind_occluder": set_behind_occluder,
    "shadow_from_outside": set_sun_at_one_side,
}
AFTER: dict[str, Callable[[Scene, Random], None]] = {  # into the picture that the camera sees
    "shadow_from_outside": put_shadow_from_outside,
    "moving_things": put_moving_things,
    "ghost_in_gt": put_ghost_in_gt,
    "tone_drift": put_tone_drift,
}


def describe_trap_scene(
    seed: int,
    index: int,
    traps: Sequence[Trap],
    aspect: float = 1.5,
    light: Light = "mixed",
    remove: str = "all",
    photos: Sequence[str] = (),
) -> Scene:
    """Describe scene number `index` of a seed with these traps; without any it is `describe_scene`'s.

    Arguments as there. A trap that is about light, floor or wall replaces what was drawn.

    Raises:
        ValueError: two of the traps exclude each other.
    """
    scene = describe_scene(seed, index, aspect, light, remove, photos)
    if not traps:
        return scene
    if names := find_conflict(traps):
        raise ValueError(f"the traps {' and '.join(names)} cannot be in one scene")
    names = get_args(Trap)
    scene |= {"traps": [VERSION, *sorted(set(traps))], "not_in_gt": [], "only_in_gt": [], "drift": None}
    scene |= {"ghost_opacity": 1.0, "pitch_deg": (8.0, 16.0) if "still_water" in traps else PITCH_DEG}
    draws: dict[str, Random] = {
        name: np.random.default_rng([VERSION, seed, index, 1 + names.index(name)]) for name in traps
    }
    for name, change in BEFORE.items():
        if name in traps:
            change(scene, draws[name])
    lit, wall = scene["light"], scene["wall"]
    points, _ = measure_extent(scene, range(len(scene["objects"])))
    shadows = np.empty((0, 3))
    if lit["azimuth"] is not None and lit["elevation"] > 10:
        towards = compute_light_vector(lit["azimuth"], lit["elevation"])
        shadows = project_shadow_points(points, towards, None if wall is None else wall["y"])
    rng = np.random.default_rng([VERSION, seed, index, 0])
    scene["camera"] = frame_camera(rng, points, shadows, aspect, scene.pop("pitch_deg"))
    for name, change in AFTER.items():
        if name in traps:
            change(scene, draws[name])
    return dict(round_numbers(scene))
