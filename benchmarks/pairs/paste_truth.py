"""How large an object is pasted, against how large the studio renders the same object in the same place.

Every object of a rendered scene is cut out alone and placed by `composite` on the empty picture of another scene. Then
the renderer's geometry puts the object there, at the floor's point below the same pixel and turned so that it shows the
same side, and the two outlines are compared: height, and root of the area. With floors fitted to the true depth, to the
true depth with the errors of a good network (`as_estimated`), floors guessed without depth, floors that a poor network
(METER, indoor) finds, and placed as in Syn4Removal, without a floor (`gaussian`). Also: the share of feet on the true
floor, and how many pixels differ outside M_fg in any triplet. Scenes are those of `studio_truth`; no test uses them.

`furniture`: other scenes, whose largest object has a size that its name tells. There the floor is guessed, and told by
that object (`things`): `within` is what `composite` keeps at its default limits of what may be unsure.
"""

import json
import math
from typing import Any

import cv2
import numpy as np

from benchmarks.common import ASSETS, say
from rasura.manifests.storage import Store
from rasura.stages.composite import Composite, CompositeParams
from rasura.stages.ground import Ground, GroundParams
from rasura.stages.ground_plane.known_objects import SPREAD
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.studio import render as studio_render
from rasura.stages.sources.studio.meshes import object_meshes
from rasura.stages.sources.studio.studio import Studio, StudioParams
from rasura.stages.stage import Kept, Record

SCENES, SEED = 12, 20_000  # as in `studio_truth`
SIZE = (480, 320)
ROUNDS = 2  # backgrounds for each object
FURNITURE, LISTED = 12, 120  # scenes with a known largest object, of so many that are described


def outline(scene: Any, item: Any) -> Any:
    """(h, w) bool: where a scene's camera sees an object that stands there alone."""
    mi = studio_render.mitsuba()
    grey = mi.load_dict({"type": "diffuse"})
    shapes = {f"part{k}": studio_render._shape(mi, f"part{k}", mesh, grey) for k, mesh in object_meshes(item).items()}
    world = mi.load_dict({"type": "scene", **shapes}, parallel=False, optimize=False)
    sub = studio_render.SUB
    _, fine = studio_render._survey(mi, world, scene, sub * SIZE[0], sub * SIZE[1], list(shapes))
    return (fine >= 0).reshape(SIZE[1], sub, SIZE[0], sub).mean(axis=(1, 3)) >= 0.5


def floor_point(scene: Any, x: float, y: float) -> Any:
    """World coordinates (2,) of the floor that a scene's camera sees at a pixel."""
    camera = scene["camera"]
    pitch, half = math.radians(camera["pitch"]), math.tan(math.radians(camera["fov"]) / 2)
    across = (2 * x / SIZE[0] - 1) * half
    up = (1 - 2 * y / SIZE[1]) * half * SIZE[1] / SIZE[0]
    origin = np.asarray(camera["origin"])
    ray = np.array([across, math.cos(pitch) + up * math.sin(pitch), -math.sin(pitch) + up * math.cos(pitch)])
    return (origin - ray * origin[2] / ray[2])[:2]


def horizon(scene: Any) -> float:
    """Picture row of a scene's horizon."""
    camera = scene["camera"]
    half = math.tan(math.radians(camera["fov"]) / 2)
    return SIZE[1] / 2 - math.tan(math.radians(camera["pitch"])) / half * SIZE[0] / 2


def bearing(scene: Any, point: Any) -> float:
    """Degrees, counter-clockwise from above, at which a scene's camera sees a point of the floor."""
    away = point - np.asarray(scene["camera"]["origin"])[:2]
    return math.degrees(math.atan2(away[1], away[0]))


def rendered_there(own: Any, item: Any, foot: Any, scene: Any, pixel: Any) -> Any:
    """Outline of an object of scene `own` in another scene, its lowest point at the floor's point below `pixel`."""
    there = floor_point(scene, *pixel)
    turn = bearing(scene, there) - bearing(own, foot)
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    offset = np.asarray(item["position"]) - foot
    moved = there + np.array([c * offset[0] - s * offset[1], s * offset[0] + c * offset[1]])
    return outline(scene, {**item, "position": moved.tolist(), "yaw": item["yaw"] + turn})


def scenes(params: StudioParams, known: bool = False) -> list[tuple[Any, Record]]:
    """Descriptions and rendered pairs; where `known`, those whose largest object tells the floor."""
    source = Studio(params)
    source.setup()
    made: list[tuple[Any, Record]] = []
    for item in source.items(RunContext(Store("/nonexistent"), "scenes", SEED)):
        described = json.loads(item["scene"])["scene"]
        if known and (len(made) == FURNITURE or described["objects"][0]["name"] not in SPREAD):
            continue
        outcome = source.process_one(item)
        assert isinstance(outcome, Kept)
        pair = dict(outcome.records[0])
        pair["network_depth"] = as_estimated(pair["true_depth"], np.random.default_rng(len(made)))
        pair["object_mask"] = outline(described, described["objects"][0])
        made.append((described, pair))
    return made


def as_estimated(depth: Any, rng: np.random.Generator) -> Any:
    """True depth (h, w) uint16 mm with the errors of a good metric network: 15 % in scale, 5 % from place to place."""
    small = rng.standard_normal((5, 7)).astype(np.float32)
    wavy = cv2.resize(small, depth.shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(depth * np.exp(rng.normal(0, 0.15) + 0.05 * wavy), 0, 65535).astype(np.uint16)


def foregrounds(scene: Any, pair: Record, ground: Record) -> list[tuple[Any, Record]]:
    """Each object of a scene that is wholly inside its frame, cut out by its true outline."""
    made = []
    for k, item in enumerate(scene["objects"]):
        mask = outline(scene, item)
        ys, xs = np.nonzero(mask)
        if not len(ys) or min(xs.min(), ys.min()) == 0 or xs.max() == SIZE[0] - 1 or ys.max() == SIZE[1] - 1:
            continue
        x0, y0, x1, y1 = int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1
        part = mask[y0:y1, x0:x1]
        rgba = np.dstack([pair["input"][y0:y1, x0:x1], part * np.uint8(255)])
        cut = {"id": f"{pair['id'][:8]}.{k}", "label": item["name"], "foreground": rgba, "foreground_object": part}
        cut |= {"foreground_box": [float(v) for v in (x0, y0, x1, y1)], "source_size": list(SIZE)}
        columns = ("ground_plane", "ground_focal", "ground_metric", "ground_view_error", "ground_size_error")
        made.append((item, cut | {column: ground[column] for column in columns}))
    return made


def measure(ground: Ground, params: CompositeParams, all_scenes: list[tuple[Any, Record]]) -> dict[str, Any]:
    """Errors of all objects on all backgrounds they fit on, with one way to find floors."""
    ground.setup()
    grounds: dict[int, Record] = {}
    for index, (_, pair) in enumerate(all_scenes):
        outcome = ground.process_one(pair)
        if isinstance(outcome, Kept) and outcome.records[0]["ground_mask"] is not None:
            grounds[index] = dict(outcome.records[0])
    stage = Composite(params, seed=1)
    heights: list[float] = []
    roots: list[float] = []
    on_floor: list[bool] = []
    rejected = differing = 0
    rules: dict[str, int] = {}
    for index, own in grounds.items():
        scene, pair = all_scenes[index]
        for k, (item, cut) in enumerate(foregrounds(scene, pair, own)):
            others = [other for other in grounds if other != index]
            rng = np.random.default_rng([index, k])
            fits = 0
            for other in rng.permutation(others):
                behind, there = all_scenes[other][0], grounds[other]
                record = {name: value for name, value in there.items() if name.startswith("ground_")}
                record |= {"id": f"{index}/{k}/{other}", "background": there["gt"], "foregrounds": [cut]}
                outcome = stage.process_one(record)
                if not isinstance(outcome, Kept):
                    rejected += 1
                    continue
                (out,) = outcome.records
                outside = ~out["foreground_mask"]
                differing += int((out["source"] != out["target"]).any(axis=2)[outside].sum())
                (placed,) = json.loads(out["placement"])["objects"]
                rules[placed["rule"]] = rules.get(placed["rule"], 0) + 1
                mask = cut["foreground_object"]
                base = np.nonzero(mask[-max(1, len(mask) // 20) :])[1]
                own_foot = (cut["foreground_box"][0] + np.median(base) + 0.5, cut["foreground_box"][3])
                pixel = (placed["foot"][0] + 0.5, placed["foot"][1] + 1.0)
                column, row = placed["foot"]
                inside = 0 <= column < SIZE[0] and 0 <= row < SIZE[1]
                on_floor.append(inside and bool(there["true_floor"][row, column]))
                if horizon(behind) > pixel[1] - 8:
                    fits += 1
                    continue  # no floor is seen there, at least none that an object would not be a speck on
                true = rendered_there(scene, item, floor_point(scene, *own_foot), behind, pixel)
                rows = np.flatnonzero(true.any(axis=1))
                if not len(rows) or rows[0] == 0 or rows[-1] == SIZE[1] - 1:
                    continue  # its true outline leaves the frame: nothing to compare with
                heights.append((placed["box"][3] - placed["box"][1]) / len(rows))
                roots.append(math.sqrt(out["mask"].sum() / true.sum()))
                fits += 1
                if fits >= ROUNDS:
                    break

    def error(ratios: list[float]) -> dict[str, float]:
        off = np.abs(np.array(ratios) - 1)
        return {
            "median": round(float(np.median(off)), 3),
            "p90": round(float(np.quantile(off, 0.9)), 3),
            "bias": round(float(np.median(ratios)) - 1, 3),
        }

    found = {"height_error": error(heights), "size_error": error(roots)} if heights else {}
    missing = len(all_scenes) - len(grounds)
    return {
        "no_ground": missing,
        "placed": len(heights),
        "rejected": rejected,
        "differing_outside": differing,
        "feet_on_floor": round(float(np.mean(on_floor)), 3) if on_floor else None,
        "rules": rules,
        **found,
    }


def main() -> None:
    cv2.setNumThreads(1)
    # tables with cups and streets with benches: sizes are asked for, not whether they make good pictures
    free = CompositeParams(
        min_height=0.03, max_height=0.95, max_upscale=4, max_pitch=15, scale_jitter=0, max_view_error=None,
        max_size_error=None, places=False,
    )  # fmt: skip
    grounds = {
        "true depth": GroundParams(backend="depth-column", depth_column="true_depth"),
        "true depth with a network's errors": GroundParams(backend="depth-column", depth_column="network_depth"),
        "no depth (lower-region)": GroundParams(backend="lower-region"),
    }
    network = ASSETS / "weights" / "meter_xxs_nyu_192x256.onnx"
    if network.is_file():
        # its depth of rendered rooms is too coarse for the calm-region test: all that is flat counts
        grounds["estimated depth (METER)"] = GroundParams(backend="depth-onnx", weights=str(network), evidence="none")
    rendered = scenes(StudioParams(count=SCENES, seed=SEED, width=SIZE[0], height=SIZE[1], spp=64))
    for name, how in grounds.items():
        say("paste_truth", ground=name, **measure(Ground(how), free, rendered))
    baseline = free.model_copy(update={"placement": "gaussian"})
    say("paste_truth", ground="none (gaussian)", **measure(Ground(grounds["true depth"]), baseline, rendered))
    furniture = scenes(StudioParams(count=LISTED, seed=SEED + 2, width=SIZE[0], height=SIZE[1], spp=4), known=True)
    nameless = [(scene, pair | {"label": None}) for scene, pair in furniture]
    guess = Ground(GroundParams())
    say("paste_truth", set="furniture", ground="guessed", **measure(guess, free, nameless))
    say("paste_truth", set="furniture", ground="things", **measure(guess, free, furniture))
    limits = {name: CompositeParams.model_fields[name].default for name in ("max_view_error", "max_size_error")}
    sure = free.model_copy(update=limits)
    say("paste_truth", set="furniture", ground="things, within", **measure(guess, sure, furniture))


if __name__ == "__main__":
    main()
