"""The flat area and its plane against the truth of rendered scenes that no test uses.

The pictures are the empty scenes (`background`), clean and degraded as by a camera. Depth is the renderer's (`true`),
a stand-in for a fine network (`blurred`: the renderer's, blurred by 3 px, with a smooth relative error of 3 %),
METER's as trained on streets (`kitti`) and rooms (`nyu`), or none (`lower-region`). The field of view is not told: 60
degrees are assumed, the scenes have 36 to 44.

- iou: of the area with the floor that is seen.
- feet: share of the area's pixels that are true floor: where a foot lands that is drawn uniformly, as by `composite`.
- standing: the same for feet under a base a tenth of the picture wide of which 80 % must be on the area.
- ratio_error: of sizes: |s_i / s_j / (t_i / t_j) - 1|, s the area's pixels per length at points i, j of the true floor,
  t the true ones; median over pairs of points, then over scenes.
- iou and feet again for scenes in which things stand (`part: things`, the renderer's depth): they are no floor.
- pitch_error: degrees, and the same when the field of view is told.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.common import ASSETS, say
from benchmarks.studio_truth import DEGRADED, SCENES, SEED, scenes
from rasura.manifests.storage import Store
from rasura.stages.background import Background
from rasura.stages.ground import Ground, GroundParams
from rasura.stages.ground_plane.depth import inverse_depth
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.studio.studio import Degrade, Studio, StudioParams
from rasura.stages.stage import Kept, Record

POINTS = 400  # pairs of points of the true floor
THINGS = 10  # scenes that are described for `with_things`; about half have more than one object


def cameras() -> list[tuple[float, float]]:
    """Pitch and field of view, degrees, of each scene."""
    source = Studio(StudioParams(count=SCENES, seed=SEED, width=480, height=320, spp=64))
    listed = source.items(RunContext(Store("/nonexistent"), "scenes", SEED))
    found = [json.loads(item["scene"])["scene"]["camera"] for item in listed]
    return [(float(camera["pitch"]), float(camera["fov"])) for camera in found]


def with_things() -> list[Record]:
    """Empty pictures in which all objects but one are left; their floor is what the objects leave of it."""
    source = Studio(StudioParams(count=THINGS, seed=SEED + 1, width=360, height=240, spp=4, remove="one"))
    source.setup()
    made = []
    for item in source.items(RunContext(Store("/nonexistent"), "things", SEED)):
        if len(json.loads(item["scene"])["scene"]["objects"]) > 1:
            outcome = source.process_one(item)
            assert isinstance(outcome, Kept)
            made.append(dict(outcome.records[0]))
    return made


def blurred(depth: Any, number: int) -> Any:
    """A depth map (h, w) in mm as a fine network might see it; nothing is known of real networks' errors here."""
    rng = np.random.default_rng(number)
    height, width = depth.shape
    slow = cv2.resize(rng.normal(1, 0.03, (8, 12)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    inverse = cv2.GaussianBlur(inverse_depth(depth, 0.001), (0, 0), 3) * slow
    return np.where(inverse > 0, np.clip(1000 / np.maximum(inverse, 1e-6), 1, 65535), 0).astype(np.uint16)


def standing_feet(mask: Any) -> Any:
    """(h, w) bool: feet of a base a tenth of the width wide and a fifth of that deep, 80 % on the mask."""
    wide = max(3, round(mask.shape[1] / 10))
    deep = max(1, wide // 5)
    share = cv2.boxFilter(mask.astype(np.float32), -1, (wide, deep), anchor=(wide // 2, deep - 1), normalize=True)
    return mask & (share >= 0.8)


def sizes_off(made: Record, depth: Any, floor: Any) -> float:
    """Median relative error of the ratio of sizes between points of the true floor. `depth` is in mm."""
    ys, xs = np.nonzero(floor & (depth > 0))
    rng = np.random.default_rng(0)
    i, j = rng.integers(0, len(ys), (2, POINTS))
    a, b, c = made["ground_scale"]
    scale = np.maximum(a * (xs + 0.5) + b * (ys + 0.5) + c, 1e-9)
    true = 1 / depth[ys, xs].astype(np.float64)
    return float(np.median(np.abs(scale[i] / scale[j] / (true[i] / true[j]) - 1)))


def pitch_of(made: Record, width: int, fov: float | None = None) -> float:
    """Degrees by which the camera looks down; with `fov` as if that had been known: b f and c scale alike."""
    nx, ny, nz, _ = made["ground_plane"]
    if fov is not None:
        told = width / 2 / np.tan(np.deg2rad(fov) / 2) / made["ground_focal"]
        nx, ny = nx * told, ny * told
    return float(np.rad2deg(np.arctan2(nz, np.hypot(nx, ny))))


def measure(stage: Ground, records: list[Record], views: list[tuple[float, float]]) -> dict[str, Any]:
    """Means and worst over the scenes that are kept."""
    rows: list[dict[str, float]] = []
    for record, (pitch, fov) in zip(records, views, strict=True):
        outcome = stage.process_one(record)
        if not isinstance(outcome, Kept):
            continue
        made, floor = outcome.records[0], record["true_floor"]
        mask, feet = made["ground_mask"], standing_feet(made["ground_mask"])
        width = mask.shape[1]
        rows.append(
            {
                "iou": float((mask & floor).sum() / (mask | floor).sum()),
                "feet": float((mask & floor).sum() / mask.sum()),
                "standing": float((feet & floor).sum() / feet.sum()) if feet.any() else 1.0,
                "ratio_error": sizes_off(made, record["exact_depth"], floor),
                "pitch_error": abs(pitch_of(made, width) - pitch),
                "pitch_error_fov_told": abs(pitch_of(made, width, fov) - pitch),
            }
        )
    if not rows:
        return {"scenes": len(records), "kept": 0}
    shares = {key: round(float(np.mean([row[key] for row in rows])), 3) for key in ("iou", "feet", "standing")}
    worst = {f"{key}_worst": round(min(row[key] for row in rows), 3) for key in shares}
    errors = [key for key in rows[0] if key.endswith(("error", "told"))]
    medians = {key: round(float(np.median([row[key] for row in rows])), 3) for key in errors}
    return {"scenes": len(records), "kept": len(rows), **shares, **worst, **medians}


def measure_things() -> dict[str, Any]:
    """Of `with_things`: IoU and share of the area that is floor, mean and worst."""
    stage = Ground(GroundParams(backend="depth-column"))
    stage.setup()
    found = []
    for record in with_things():
        outcome = stage.process_one(record)
        if isinstance(outcome, Kept) and outcome.records[0]["ground_mask"] is not None:
            mask, floor = outcome.records[0]["ground_mask"], record["true_floor"]
            found.append(((mask & floor).sum() / (mask | floor).sum(), (mask & floor).sum() / mask.sum()))
    means, worst = np.mean(found, axis=0), np.min(found, axis=0)
    return {
        "kept": len(found),
        "iou": round(float(means[0]), 3),
        "feet": round(float(means[1]), 3),
        "iou_worst": round(float(worst[0]), 3),
        "feet_worst": round(float(worst[1]), 3),
    }


def main() -> None:
    cv2.setNumThreads(1)
    say("ground_truth", depth="true", set="clean", part="things", **measure_things())
    weights: Path = ASSETS / "weights"
    views = cameras()
    networks = {"kitti": "meter_xxs_kitti_192x636.onnx", "nyu": "meter_xxs_nyu_192x256.onnx"}
    for name, degrade in (("clean", Degrade()), ("degraded", DEGRADED)):
        records = []
        for number, pair in enumerate(scenes(degrade)):
            outcome = Background(Background.Params()).process_one(pair)
            assert isinstance(outcome, Kept)
            record = {**pair, **outcome.records[0], "exact_depth": pair["true_depth"]}
            del record["gt"]
            records.append(record | {"blurred": blurred(pair["true_depth"], number)})
        walls = [number for number, record in enumerate(records) if not record["true_floor"].all()]
        stages: dict[str, GroundParams] = {
            "true": GroundParams(backend="depth-column"),
            "blurred": GroundParams(backend="depth-column", depth_column="blurred"),
            "lower-region": GroundParams(),
        }
        for key, file in networks.items():
            if (weights / file).is_file():
                stages[key] = GroundParams(backend="depth-onnx", weights=str(weights / file))
        for key, params in stages.items():
            stage = Ground(params)
            stage.setup()
            say("ground_truth", depth=key, set=name, part="all", **measure(stage, records, views))
            chosen = [records[k] for k in walls]
            part = measure(stage, chosen, [views[k] for k in walls])
            say("ground_truth", depth=key, set=name, part="with a wall", **part)


if __name__ == "__main__":
    main()
