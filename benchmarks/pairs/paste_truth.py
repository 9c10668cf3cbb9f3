"""Size of a composited object against the studio's rendering of the same object in the same place.

Every object of a rendered scene is cut out alone and placed by `composite` on the empty picture of another scene. Then
the renderer's geometry puts the object there, on the ground below the same pixel and rotated so that it shows the same
side, and the two outlines are compared: height, and square root of the area. The ground planes are fitted to the true
depth, to the true depth with the errors of a good network (`simulate_estimate`) or to the depth of a poor network
(METER, indoor), are the default ones, or are not used, as in Syn4Removal (`gaussian`). Also measured are the share of
feet on the true ground plane, and the number of pixels that differ outside of M_fg in any triplet. Scenes are those of
`studio_truth`; no test uses them. Goal: a median error of the size of at most 15 %, and no pixel that differs.

`furniture`: other scenes, whose largest object is of a class of known size. Their ground planes are the default ones
(`default`) or follow from that object (`objects`); with `within limits`, `composite` has its default limits of the
uncertainty of the camera pose.

    python -m benchmarks paste_truth
"""

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np

from benchmarks.common import ASSETS, print_result
from rasura.manifests.storage import Store
from rasura.stages.composite import Composite, CompositeParams
from rasura.stages.ground import Ground
from rasura.stages.ground_plane.known_objects import HEIGHT_SPREAD
from rasura.stages.ground_plane.params import GroundParams
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.studio import render as studio_render
from rasura.stages.sources.studio.meshes import make_object_meshes
from rasura.stages.sources.studio.studio import Studio, StudioParams
from rasura.stages.stage import Kept, Record

SCENES, SEED = 12, 20_000  # as in `studio_truth`
SIZE = (480, 320)
ROUNDS = 2  # backgrounds for each object
FURNITURE, FURNITURE_LISTED = 12, 120  # scenes whose largest object is furniture, of so many that are described


def render_outline(scene: Any, item: Any) -> Any:
    """Render the outline (h, w) bool of an object that is alone in a scene."""
    mi = studio_render.load_mitsuba()
    grey = mi.load_dict({"type": "diffuse"})
    shapes = {
        f"part{k}": studio_render.make_shape(mi, f"part{k}", mesh, grey) for k, mesh in make_object_meshes(item).items()
    }
    world = mi.load_dict({"type": "scene", **shapes}, parallel=False, optimize=False)
    sub = studio_render.SUB
    _, fine = studio_render.render_geometry(mi, world, scene, sub * SIZE[0], sub * SIZE[1], list(shapes))
    return (fine >= 0).reshape(SIZE[1], sub, SIZE[0], sub).mean(axis=(1, 3)) >= 0.5


def locate_ground_point(scene: Any, x: float, y: float) -> Any:
    """Compute the world coordinates (2,) of the ground at a pixel of a scene's picture."""
    camera = scene["camera"]
    pitch, half = math.radians(camera["pitch"]), math.tan(math.radians(camera["fov"]) / 2)
    across = (2 * x / SIZE[0] - 1) * half
    up = (1 - 2 * y / SIZE[1]) * half * SIZE[1] / SIZE[0]
    origin = np.asarray(camera["origin"])
    ray = np.array([across, math.cos(pitch) + up * math.sin(pitch), -math.sin(pitch) + up * math.cos(pitch)])
    return (origin - ray * origin[2] / ray[2])[:2]


def compute_horizon(scene: Any) -> float:
    """Compute the picture row of a scene's horizon."""
    camera = scene["camera"]
    half = math.tan(math.radians(camera["fov"]) / 2)
    return SIZE[1] / 2 - math.tan(math.radians(camera["pitch"])) / half * SIZE[0] / 2


def compute_bearing(scene: Any, point: Any) -> float:
    """Compute the bearing, degrees counter-clockwise from above, from a scene's camera to a point on the ground."""
    away = point - np.asarray(scene["camera"]["origin"])[:2]
    return math.degrees(math.atan2(away[1], away[0]))


def render_moved_outline(source: Any, item: Any, foot: Any, scene: Any, pixel: Any) -> Any:
    """Render the outline of an object of scene `source` in another scene, its foot on the ground below `pixel`."""
    target = locate_ground_point(scene, *pixel)
    turn = compute_bearing(scene, target) - compute_bearing(source, foot)
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    offset = np.asarray(item["position"]) - foot
    moved = target + np.array([c * offset[0] - s * offset[1], s * offset[0] + c * offset[1]])
    return render_outline(scene, {**item, "position": moved.tolist(), "yaw": item["yaw"] + turn})


def render_scenes(params: StudioParams, furniture: bool = False) -> list[tuple[Any, Record]]:
    """Render pairs; return them with their descriptions.

    Args:
        params: of the studio.
        furniture: render only scenes whose largest object is of a class of known size.
    """
    source = Studio(params)
    source.setup()
    scenes: list[tuple[Any, Record]] = []
    for item in source.items(RunContext(Store("/nonexistent"), "scenes", SEED)):
        described = json.loads(item["scene"])["scene"]
        if furniture and (len(scenes) == FURNITURE or described["objects"][0]["name"] not in HEIGHT_SPREAD):
            continue
        outcome = source.process_one(item)
        assert isinstance(outcome, Kept)
        pair = dict(outcome.records[0])
        pair["network_depth"] = simulate_estimate(pair["true_depth"], np.random.default_rng(len(scenes)))
        pair["object_mask"] = render_outline(described, described["objects"][0])
        scenes.append((described, pair))
    return scenes


def simulate_estimate(depth: Any, rng: np.random.Generator) -> Any:
    """Add a good metric network's errors to depth (h, w), uint16 mm: 15 % in scale and 5 % locally."""
    small = rng.standard_normal((5, 7)).astype(np.float32)
    wavy = cv2.resize(small, depth.shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(depth * np.exp(rng.normal(0, 0.15) + 0.05 * wavy), 0, 65535).astype(np.uint16)


def cut_foregrounds(scene: Any, pair: Record, ground: Record) -> list[tuple[Any, Record]]:
    """Cut out each object of a scene that is completely inside its frame, by its true outline."""
    foregrounds = []
    for k, item in enumerate(scene["objects"]):
        mask = render_outline(scene, item)
        ys, xs = np.nonzero(mask)
        if not len(ys) or min(xs.min(), ys.min()) == 0 or xs.max() == SIZE[0] - 1 or ys.max() == SIZE[1] - 1:
            continue
        x0, y0, x1, y1 = int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1
        part = mask[y0:y1, x0:x1]
        rgba = np.dstack([pair["input"][y0:y1, x0:x1], part * np.uint8(255)])
        cut = {"id": f"{pair['id'][:8]}.{k}", "label": item["name"], "foreground": rgba, "foreground_object": part}
        cut |= {"foreground_box": [float(v) for v in (x0, y0, x1, y1)], "source_size": list(SIZE)}
        columns = ("ground_plane", "ground_focal", "ground_metric", "ground_view_error", "ground_size_error")
        foregrounds.append((item, cut | {column: ground[column] for column in columns}))
    return foregrounds


@dataclass
class Tally:
    """Figures of all placements of a benchmark.

    Attributes:
        heights: ratios of the composited to the rendered height.
        roots: ratios of the square roots of the areas.
        on_ground: whether each foot is on the true ground plane.
        rejected: number of placements that `composite` rejected.
        differing: number of pixels that differ outside of M_fg.
        rules: number of placements by the rule that scaled them.
    """

    heights: list[float] = field(default_factory=list)
    roots: list[float] = field(default_factory=list)
    on_ground: list[bool] = field(default_factory=list)
    rejected: int = 0
    differing: int = 0
    rules: Counter[str] = field(default_factory=Counter)


Result = Literal["rejected", "above horizon", "outside frame", "compared"]


def compare_placement(
    stage: Composite, source: Any, item: Any, cut: Record, name: str, target: Any, ground: Record, tally: Tally
) -> Result:
    """Place a foreground in another scene, and compare its size with the renderer's.

    Args:
        stage: places it.
        source: scene of the foreground.
        item: description of its object.
        cut: the foreground.
        name: id of the record.
        target: the other scene.
        ground: ground plane and empty picture of the other scene.
        tally: receives the figures.
    """
    record = {key: value for key, value in ground.items() if key.startswith("ground_")}
    outcome = stage.process_one(record | {"id": name, "background": ground["gt"], "foregrounds": [cut]})
    if not isinstance(outcome, Kept):
        tally.rejected += 1
        return "rejected"
    (out,) = outcome.records
    outside = ~out["foreground_mask"]
    tally.differing += int((out["source"] != out["target"]).any(axis=2)[outside].sum())
    (placement,) = json.loads(out["placement"])["objects"]
    tally.rules[placement["rule"]] += 1
    mask = cut["foreground_object"]
    base = np.nonzero(mask[-max(1, len(mask) // 20) :])[1]
    source_foot = (cut["foreground_box"][0] + np.median(base) + 0.5, cut["foreground_box"][3])
    column, row = placement["foot"]
    pixel = (column + 0.5, row + 1.0)
    inside = 0 <= column < SIZE[0] and 0 <= row < SIZE[1]
    tally.on_ground.append(inside and bool(ground["true_floor"][row, column]))
    if compute_horizon(target) > pixel[1] - 8:
        return "above horizon"  # no ground is visible there, or an object on it would be a few pixels high
    true = render_moved_outline(source, item, locate_ground_point(source, *source_foot), target, pixel)
    rows = np.flatnonzero(true.any(axis=1))
    if not len(rows) or rows[0] == 0 or rows[-1] == SIZE[1] - 1:
        return "outside frame"  # the frame cuts the true outline: nothing to compare with
    tally.heights.append((placement["box"][3] - placement["box"][1]) / len(rows))
    tally.roots.append(math.sqrt(out["mask"].sum() / true.sum()))
    return "compared"


def summarize_errors(ratios: list[float]) -> dict[str, float]:
    """Return median, p90 and bias of the relative errors of ratios."""
    errors = np.abs(np.array(ratios) - 1)
    return {
        "median": round(float(np.median(errors)), 3),
        "p90": round(float(np.quantile(errors, 0.9)), 3),
        "bias": round(float(np.median(ratios)) - 1, 3),
    }


def measure(ground: Ground, params: CompositeParams, scenes: list[tuple[Any, Record]]) -> dict[str, Any]:
    """Return the errors of all objects on all backgrounds that they fit on, with one estimator of ground planes."""
    ground.setup()
    grounds: dict[int, Record] = {}
    for index, (_, pair) in enumerate(scenes):
        outcome = ground.process_one(pair)
        if isinstance(outcome, Kept) and outcome.records[0]["ground_mask"] is not None:
            grounds[index] = dict(outcome.records[0])
    stage, tally = Composite(params, seed=1), Tally()
    for index, source_ground in grounds.items():
        scene, pair = scenes[index]
        for k, (item, cut) in enumerate(cut_foregrounds(scene, pair, source_ground)):
            others = [other for other in grounds if other != index]
            placements = 0
            for other in np.random.default_rng([index, k]).permutation(others):
                name, target = f"{index}/{k}/{other}", scenes[other][0]
                result = compare_placement(stage, scene, item, cut, name, target, grounds[other], tally)
                placements += result in ("above horizon", "compared")
                if result == "compared" and placements >= ROUNDS:
                    break
    errors = {"height_error": tally.heights, "size_error": tally.roots} if tally.heights else {}
    return {
        "no_ground": len(scenes) - len(grounds),
        "placed": len(tally.heights),
        "rejected": tally.rejected,
        "differing_outside": tally.differing,
        "feet_on_ground": round(float(np.mean(tally.on_ground)), 3) if tally.on_ground else None,
        "rules": dict(tally.rules),
        **{name: summarize_errors(ratios) for name, ratios in errors.items()},
    }


def main() -> None:
    cv2.setNumThreads(1)
    # the sizes are measured, whether or not the placements are plausible
    loose = CompositeParams(
        min_height=0.03,
        max_height=0.95,
        max_upscale=4,
        max_pitch=15,
        scale_jitter=0,
        max_view_error=None,
        max_size_error=None,
        check_scene_type=False,
    )
    grounds = {
        "true depth": GroundParams(backend="depth-column", depth_column="true_depth"),
        "true depth with a network's errors": GroundParams(backend="depth-column", depth_column="network_depth"),
        "no depth (lower-region)": GroundParams(backend="lower-region"),
    }
    network = ASSETS / "weights" / "meter_xxs_nyu_192x256.onnx"
    if network.is_file():
        # its depth of rendered rooms is too coarse for the test of texture: all flat regions count
        grounds["estimated depth (METER)"] = GroundParams(backend="depth-onnx", weights=str(network), evidence="none")
    rendered = render_scenes(StudioParams(count=SCENES, seed=SEED, width=SIZE[0], height=SIZE[1], spp=64))
    for name, params in grounds.items():
        print_result("paste_truth", ground=name, **measure(Ground(params), loose, rendered))
    baseline = loose.model_copy(update={"placement": "gaussian"})
    print_result("paste_truth", ground="none (gaussian)", **measure(Ground(grounds["true depth"]), baseline, rendered))
    furniture = render_scenes(
        StudioParams(count=FURNITURE_LISTED, seed=SEED + 2, width=SIZE[0], height=SIZE[1], spp=4), furniture=True
    )
    unlabelled = [(scene, pair | {"label": None}) for scene, pair in furniture]
    ground = Ground(GroundParams())
    print_result("paste_truth", set="furniture", ground="default", **measure(ground, loose, unlabelled))
    print_result("paste_truth", set="furniture", ground="objects", **measure(ground, loose, furniture))
    limits = {name: CompositeParams.model_fields[name].default for name in ("max_view_error", "max_size_error")}
    limited = loose.model_copy(update=limits)
    print_result("paste_truth", set="furniture", ground="objects, within limits", **measure(ground, limited, furniture))


if __name__ == "__main__":
    main()
