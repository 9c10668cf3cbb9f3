"""Rendering of a scene description: mitsuba's scalar path tracer, twice over the same random numbers.

The pair is exact, because the low-discrepancy sampler has no state, so that sample k of a pixel takes the same numbers
in both renders whatever the samples before it met. A path that meets no removed object is the same path, and its pixel
the same bytes. One render runs on one thread: the engine's workers are one a core.
"""

import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.ids import compute_seed
from rasura.manifests.images import decode_image
from rasura.stages.sources.studio.develop import clamp_fireflies, compute_effect_mask, compute_exposure, develop
from rasura.stages.sources.studio.meshes import Mesh, make_object_meshes
from rasura.stages.sources.studio.scene import compute_light_vector
from rasura.stages.sources.studio.textures import make_pattern, make_surface

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]

VERSION = 1
"""Part of the cache key: raise it when the same description gives other pixels."""
MAX_DEPTH = 3  # path length: light that comes by one other surface, the sky fills the rest
SUB = 3  # geometry is sampled SUB x SUB times a pixel
NEAR = 0.01  # metres; rays start on this plane, and the renderer counts distances from there
EXTENT = 60.0  # half the side of floor and wall, metres
NO_MITSUBA = "the studio renders with mitsuba, which is not installed: pip install 'rasura[studio]'"


def load_mitsuba() -> Any:
    """Import the renderer and set it to one thread.

    Raises:
        ImportError: mitsuba is not installed.
    """
    if find_spec("mitsuba") is None:
        raise ModuleNotFoundError(NO_MITSUBA, name="mitsuba")
    import drjit
    import mitsuba as mi

    if mi.variant() != "scalar_rgb":
        mi.set_variant("scalar_rgb")
    mi.set_log_level(mi.LogLevel.Error)
    drjit.set_thread_count(1)
    return mi


def to_linear(srgb: Any) -> Array:
    """Convert sRGB 0..1 to linear.

    Examples:
        >>> to_linear([0.0, 0.5, 1.0]).round(3).tolist()
        [0.0, 0.214, 1.0]
    """
    values = np.asarray(srgb, np.float64)
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def make_sky(sky: Mapping[str, Any]) -> Floats:
    """Make the light from all around, (64, 128, 3) linear, latitude-longitude: gradient, clouds, ground below."""
    rng = np.random.default_rng(sky["seed"])
    up = np.cos((np.arange(64) + 0.5) / 64 * np.pi)[:, None, None]
    zenith, horizon, ground = (np.asarray(sky[name]) for name in ("zenith", "horizon", "ground"))
    upper = horizon + (zenith - horizon) * np.clip(up, 0, 1) ** 0.6
    grid = np.asarray(rng.standard_normal((8, 16)), np.float64)
    cloud = cv2.resize(np.concatenate([grid, grid[:, :1]], 1), (128, 64), interpolation=cv2.INTER_CUBIC)[..., None]
    cloud = sky["clouds"] * np.clip(cloud * 0.5, -0.6, 1.2) * np.clip(up * 3, 0, 1)
    picture = np.where(up > 0, upper * (1 + cloud), ground)
    return np.asarray(np.broadcast_to(picture, (64, 128, 3)), np.float32)


def compute_sky_irradiance(picture: Floats) -> float:
    """Compute the irradiance on a level floor under a sky picture (its green channel)."""
    polar = (np.arange(64) + 0.5) / 64 * np.pi
    weight = np.clip(np.cos(polar), 0, None) * np.sin(polar) * (np.pi / 64) * (2 * np.pi / 128)
    return float((picture[..., 1] * weight[:, None]).sum())


def _make_bitmap(mi: Any, picture: Picture, to_uv: Any = None, wrap: str = "repeat") -> dict[str, Any]:
    texture = {"type": "bitmap", "bitmap": mi.Bitmap(np.ascontiguousarray(picture)), "wrap_mode": wrap}
    return texture | ({} if to_uv is None else {"to_uv": to_uv})


def _make_bsdf(finish: str, roughness: float, colour: Any, mirror: float = 0.0) -> dict[str, Any]:
    """Return the BSDF of a finish over a colour (a mitsuba spectrum or texture); `mirror` is the share of polish."""
    match finish:
        case "matt":
            bsdf = {"type": "diffuse", "reflectance": colour}
        case "metal":
            bsdf = {"type": "roughconductor", "material": "none", "alpha": roughness, "specular_reflectance": colour}
        case "water":
            bsdf = {"type": "plastic", "diffuse_reflectance": colour, "int_ior": 1.33}
        case "mirror":
            polish = {"type": "roughconductor", "material": "none", "alpha": roughness}
            bsdf = {
                "type": "blendbsdf",
                "weight": mirror,
                "matt": {"type": "diffuse", "reflectance": colour},
                "polish": polish,
            }
        case _:
            bsdf = {"type": "roughplastic", "diffuse_reflectance": colour, "alpha": roughness}
    return bsdf


def _make_material(mi: Any, material: Mapping[str, Any]) -> Any:
    colour: dict[str, Any] = {"type": "rgb", "value": to_linear(material["colour"]).tolist()}
    if spec := material["pattern"]:
        colour = _make_bitmap(mi, make_pattern(spec["kind"], spec["seed"], material["colour"], spec["colour"]))
    return mi.load_dict({"type": "twosided", "bsdf": _make_bsdf(material["finish"], material["roughness"], colour)})


def _make_plane_texture(mi: Any, texture: Mapping[str, Any], photos: Mapping[str, str]) -> dict[str, Any]:
    """Make the texture of floor or wall, repeated over its extent; photographs are mirrored at their borders."""
    tall = 1.0
    if texture["kind"] == "photo":
        picture = decode_image(Path(photos[texture["sha256"]]).read_bytes())
        shrink = min(1.0, 1536 / max(picture.shape[:2]))
        picture = np.asarray(cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA), np.uint8)
        tall = picture.shape[1] / picture.shape[0]
    else:
        picture = make_surface(texture["kind"], texture["seed"], texture["colour"])
    repeats = 2 * EXTENT / texture["metres"]
    turn = mi.ScalarTransform3f().translate(texture["shift"]).scale([repeats, repeats * tall])
    to_uv = turn.rotate(texture["turn"]).translate([-0.5, -0.5])
    return _make_bitmap(mi, picture, to_uv, "mirror" if texture["kind"] == "photo" else "repeat")


def make_shape(mi: Any, name: str, mesh: Mesh, bsdf: Any) -> Any:
    properties = mi.Properties()
    properties["mesh_bsdf"] = bsdf
    shape = mi.Mesh(
        name, len(mesh.vertices), len(mesh.faces), props=properties, has_vertex_normals=True, has_vertex_texcoords=True
    )
    values = mi.traverse(shape)
    values["vertex_positions"] = mesh.vertices.astype(np.float32).reshape(-1)
    values["vertex_normals"] = mesh.normals.astype(np.float32).reshape(-1)
    values["vertex_texcoords"] = mesh.uv.astype(np.float32).reshape(-1)
    values["faces"] = mesh.faces.reshape(-1)
    values.update()
    return shape


def _build_surroundings(mi: Any, scene: Mapping[str, Any], photos: Mapping[str, str]) -> dict[str, Any]:
    """Build what both renders share: light, floor, wall."""
    move = mi.ScalarTransform4f
    light, wall = scene["light"], scene["wall"]
    sky = make_sky(light["sky"])
    # mitsuba's sky has its pole at y; ours is at z
    world: dict[str, Any] = {
        "sky": {"type": "envmap", "bitmap": mi.Bitmap(sky), "to_world": move().rotate([1, 0, 0], 90)}
    }
    if light["azimuth"] is not None:
        distance = 200.0 if light["kind"] == "sun" else 10.0 * max(item["scale"] for item in scene["objects"])
        angle = math.radians(light["size_deg"] / 2)
        direction = compute_light_vector(light["azimuth"], light["elevation"])
        strength = light["ratio"] * compute_sky_irradiance(sky) / (math.pi * math.sin(angle) ** 2)
        world["light"] = {
            "type": "sphere",
            "center": (distance * direction + find_lamp_centre(scene)).tolist(),
            "radius": distance * math.sin(angle),
            "emitter": {"type": "area", "radiance": {"type": "rgb", "value": [strength * c for c in light["colour"]]}},
        }
    floor = scene["floor"]
    world["floor"] = {
        "type": "rectangle",
        "to_world": move().scale([EXTENT, EXTENT, 1]),
        "bsdf": _make_bsdf(
            floor["finish"],
            floor["roughness"],
            _make_plane_texture(mi, floor["texture"], photos),
            floor.get("mirror", 0.0),
        ),
    }
    if wall is not None:
        upright = move().translate([0, wall["y"], 0]).rotate([1, 0, 0], 90).scale([EXTENT, EXTENT, 1])
        covered = _make_bsdf("matt", 1.0, _make_plane_texture(mi, wall["texture"], photos))
        world["wall"] = {"type": "rectangle", "to_world": upright, "bsdf": covered}
        if wall["skirting"] > 0:
            height = wall["skirting"]
            board = move().translate([0, wall["y"], height / 2]).scale([EXTENT, 0.15 * height, height / 2])
            paint = _make_bsdf("satin", 0.2, {"type": "rgb", "value": [0.7, 0.69, 0.66]})
            world["skirting"] = {"type": "cube", "to_world": board, "bsdf": paint}
    return world


def compute_grey_radiance(scene: Mapping[str, Any]) -> float:
    """Compute the radiance of a level floor of albedo 0.3 under a scene's light, as a light meter would measure it."""
    light = scene["light"]
    direct = 0.0 if light["azimuth"] is None else light["ratio"] * math.sin(math.radians(light["elevation"]))
    return 0.3 / math.pi * compute_sky_irradiance(make_sky(light["sky"])) * (1 + direct)


def find_lamp_centre(scene: Mapping[str, Any]) -> Array:
    """Return the point that the light's direction is measured from: the foot of the main object."""
    return np.array([*scene["objects"][0]["position"], 0.0])


def _make_sensor(
    mi: Any, scene: Mapping[str, Any], film: Mapping[str, Any], sampler: Mapping[str, Any]
) -> dict[str, Any]:
    camera = scene["camera"]
    pitch = math.radians(camera["pitch"])
    origin = np.asarray(camera["origin"])
    ahead = origin + np.array([0, math.cos(pitch), -math.sin(pitch)])
    common = {"type": "hdrfilm", "pixel_format": "rgb", "component_format": "float32"}
    return {
        "type": "perspective",
        "fov": camera["fov"],
        "fov_axis": "x",
        "to_world": mi.ScalarTransform4f().look_at(origin=origin.tolist(), target=ahead.tolist(), up=[0, 0, 1]),
        "near_clip": NEAR,
        # Box filter: a pixel is the mean of its own samples and of no other's
        "film": common | {"rfilter": {"type": "box"}} | dict(film),
        "sampler": dict(sampler),
    }


def render_geometry(
    mi: Any, world: Any, scene: Mapping[str, Any], width: int, height: int, names: list[str]
) -> tuple[Array, npt.NDArray[np.int64]]:
    """Render depth and shapes at the middle of each pixel of a (height, width) grid.

    Returns:
        1 / depth along the viewing axis (1 / m, 0 where there is nothing), and the shape's index in `names` (-1: none
        of them).
    """
    middle = {"type": "stratified", "sample_count": 1, "jitter": False}
    sensor = mi.load_dict(_make_sensor(mi, scene, {"width": width, "height": height}, middle))
    integrator = mi.load_dict({"type": "aov", "aovs": "distance:depth,shape:shape_index"})
    values = np.array(mi.render(world, sensor=sensor, integrator=integrator, spp=1), np.float64)
    shapes = [shape.id() for shape in world.shapes()]
    table = np.array([-1] + [names.index(shape) if shape in names else -1 for shape in shapes])
    indices = np.rint(values[..., 1]).astype(int)  # 0: nothing, else 1 + index of the shape
    half = math.tan(math.radians(scene["camera"]["fov"]) / 2)
    x = ((np.arange(width) + 0.5) / width * 2 - 1)[None] * half
    y = ((np.arange(height) + 0.5) / height * 2 - 1)[:, None] * half * height / width
    nearness = np.where(indices > 0, 1 / (values[..., 0] / np.sqrt(1 + x**2 + y**2) + NEAR), 0.0)
    return nearness, table[indices]


def _sort_objects(mi: Any, scene: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Return the shapes that stay, those that are removed, and those that only the first or the second shot shows."""
    kept: dict[str, Any] = {}
    passing: dict[str, dict[str, Any]] = {"removed": {}, "not_in_gt": {}, "only_in_gt": {}}
    for k, item in enumerate(scene["objects"]):
        materials = {
            number: _make_material(mi, item["materials"][number]) for number in {p["material"] for p in item["parts"]}
        }
        for number, mesh in make_object_meshes(item).items():
            name = f"object{k}_{number}"
            group = next((group for key, group in passing.items() if k in scene.get(key, ())), kept)
            group[name] = make_shape(mi, name, mesh, materials[number])
    return kept, *passing.values()


def render(
    scene: Mapping[str, Any], width: int, height: int, spp: int, photos: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Render a description with its objects and without the removed ones, on one thread.

    Args:
        spp: samples a pixel, a power of four.
        photos: sha256 to path of the photographs that the description names.

    Returns:
        input, gt (h, w, 3) uint8 sRGB under one exposure; empty, where gt is not that: the scene as in input, but
        without the removed objects and their effects; object_mask (h, w) bool: at least half of the pixel shows
        a removed object; foreground_mask: that, and where input and the empty scene differ (`compute_effect_mask`);
        floor (h, w) bool: floor that is visible in the empty scene; depth (h, w) uint16: of it, millimetres along the
        viewing axis, 0 = nothing there, 65535 = that far or farther.

    Raises:
        ImportError: mitsuba is not installed.
    """
    mi = load_mitsuba()
    world = {"type": "scene"} | _build_surroundings(mi, scene, photos or {})
    film, sampler = {"width": width, "height": height}, {"type": "ldsampler", "sample_count": spp}
    world["camera"] = _make_sensor(mi, scene, film, sampler)
    kept, removed, gone, come = _sort_objects(mi, scene)
    # No merging of meshes: a shape must keep its own number
    full = mi.load_dict(world | kept | gone | removed, parallel=False, optimize=False)
    empty = mi.load_dict(world | kept | gone, parallel=False, optimize=False)
    path = mi.load_dict({"type": "path", "max_depth": MAX_DEPTH, "rr_depth": MAX_DEPTH})
    seed = compute_seed(scene["seed"], "studio", str(scene["index"])) % 2**31  # other noise in every scene

    def trace(part: Any) -> Floats:
        return clamp_fireflies(np.array(mi.render(part, integrator=path, spp=spp, seed=seed)))

    light = [trace(full), trace(empty)]
    exposure = compute_exposure(light[1], compute_grey_radiance(scene), scene["exposure"])
    source, true_empty = (develop(values, exposure) for values in light)
    clean = true_empty
    if gone or come or scene.get("drift"):
        later = light[1]
        if gone or come:
            opacity = scene["ghost_opacity"]
            later = opacity * trace(mi.load_dict(world | kept | come, parallel=False, optimize=False))
            if opacity < 1:
                later += (1 - opacity) * trace(mi.load_dict(world | kept, parallel=False, optimize=False))
        clean = develop(later, exposure, scene["drift"])

    _, fine = render_geometry(mi, full, scene, SUB * width, SUB * height, list(removed))
    objects = (fine >= 0).reshape(height, SUB, width, SUB).mean(axis=(1, 3)) >= 0.5
    nearness, shapes = render_geometry(mi, empty, scene, width, height, ["floor"])
    depth = np.where(nearness > 0, np.clip(np.rint(1000 / np.maximum(nearness, 1e-6)), 1, 65535), 0)
    return {
        "input": source,
        "gt": clean,
        "object_mask": objects,
        "foreground_mask": objects | compute_effect_mask(source, true_empty),
        "floor": shapes == 0,
        "depth": depth.astype(np.uint16),
        **({} if clean is true_empty else {"empty": true_empty}),
    }
