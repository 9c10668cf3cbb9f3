"""The ground mask and its plane against the ground truth of rendered scenes that no test uses.

The pictures are the empty scenes (`background`), clean and degraded as by a camera. Depth is the renderer's (`true`),
a stand-in for a good network (`blurred`: the renderer's, blurred by 3 px, with a smooth relative error of 3 %), METER's
as trained on streets (`kitti`) and rooms (`nyu`), or none (`lower-region`). The field of view is not available to the
stage: it assumes 60 degrees, the scenes have 36 to 44.

- iou: of the mask with the visible ground plane.
- feet: share of the mask's pixels that are on the true ground plane, that is of feet drawn uniformly as by `composite`.
- supported: the same for feet under a base a tenth of the picture wide of which 80 % must be on the mask.
- ratio_error: of sizes: |s_i / s_j / (t_i / t_j) - 1|, with s the estimated and t the true pixels per length at points
  i, j of the true ground plane; median over pairs of points, then over scenes.
- iou and feet again for scenes with objects (`part: objects`, the renderer's depth), which are no ground plane.
- pitch_error: degrees, and the same with the true field of view.

    python -m benchmarks ground_truth
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.common import ASSETS, print_result
from benchmarks.pairs.studio_truth import DEGRADED, SCENES, SEED, render_scenes
from rasura.manifests.storage import Store
from rasura.stages.background import Background
from rasura.stages.ground import Ground
from rasura.stages.ground_plane.depth import inverse_depth
from rasura.stages.ground_plane.params import GroundParams
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.studio.studio import Degrade, Studio, StudioParams
from rasura.stages.stage import Kept, Record

POINTS = 400  # pairs of points of the true ground plane
OCCUPIED_SCENES = 10  # described for `render_occupied_scenes`; about half have more than one object


def read_cameras() -> list[tuple[float, float]]:
    """Return pitch and field of view, degrees, of each scene."""
    source = Studio(StudioParams(count=SCENES, seed=SEED, width=480, height=320, spp=64))
    items = source.items(RunContext(Store("/nonexistent"), "scenes", SEED))
    descriptions = [json.loads(item["scene"])["scene"]["camera"] for item in items]
    return [(float(camera["pitch"]), float(camera["fov"])) for camera in descriptions]


def render_occupied_scenes() -> list[Record]:
    """Render pictures from which one object is removed; the others cover parts of the ground plane."""
    source = Studio(StudioParams(count=OCCUPIED_SCENES, seed=SEED + 1, width=360, height=240, spp=4, remove="one"))
    source.setup()
    records = []
    for item in source.items(RunContext(Store("/nonexistent"), "scenes", SEED)):
        if len(json.loads(item["scene"])["scene"]["objects"]) > 1:
            outcome = source.process_one(item)
            assert isinstance(outcome, Kept)
            records.append(dict(outcome.records[0]))
    return records


def blur_depth(depth: Any, number: int) -> Any:
    """Return a depth map (h, w) in mm with the assumed errors of a good network."""
    rng = np.random.default_rng(number)
    height, width = depth.shape
    slow = cv2.resize(rng.normal(1, 0.03, (8, 12)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    inverse = cv2.GaussianBlur(inverse_depth(depth, 0.001), (0, 0), 3) * slow
    return np.where(inverse > 0, np.clip(1000 / np.maximum(inverse, 1e-6), 1, 65535), 0).astype(np.uint16)


def find_supported_feet(mask: Any) -> Any:
    """Return (h, w) bool: feet of bases a tenth of the width wide and a fifth of that deep, 80 % on the mask."""
    wide = max(3, round(mask.shape[1] / 10))
    deep = max(1, wide // 5)
    share = cv2.boxFilter(mask.astype(np.float32), -1, (wide, deep), anchor=(wide // 2, deep - 1), normalize=True)
    return mask & (share >= 0.8)


def compute_size_error(ground: Record, depth: Any, true_ground: Any) -> float:
    """Compute the median relative error of the size ratio between points of the true ground plane.

    Args:
        ground: output of `ground`.
        depth: (h, w) true depth, mm.
        true_ground: (h, w) bool.
    """
    ys, xs = np.nonzero(true_ground & (depth > 0))
    rng = np.random.default_rng(0)
    i, j = rng.integers(0, len(ys), (2, POINTS))
    a, b, c = ground["ground_scale"]
    scale = np.maximum(a * (xs + 0.5) + b * (ys + 0.5) + c, 1e-9)
    true = 1 / depth[ys, xs].astype(np.float64)
    return float(np.median(np.abs(scale[i] / scale[j] / (true[i] / true[j]) - 1)))


def compute_pitch(ground: Record, width: int, fov: float | None = None) -> float:
    """Compute the degrees by which the camera looks down; with `fov` as if that had been the field of view."""
    nx, ny, nz, _ = ground["ground_plane"]
    if fov is not None:
        ratio = width / 2 / np.tan(np.deg2rad(fov) / 2) / ground["ground_focal"]
        nx, ny = nx * ratio, ny * ratio
    return float(np.rad2deg(np.arctan2(nz, np.hypot(nx, ny))))


def measure(stage: Ground, records: list[Record], cameras: list[tuple[float, float]]) -> dict[str, Any]:
    """Return means and worst over the scenes that are kept."""
    rows: list[dict[str, float]] = []
    for record, (pitch, fov) in zip(records, cameras, strict=True):
        outcome = stage.process_one(record)
        if not isinstance(outcome, Kept):
            continue
        ground, true_ground = outcome.records[0], record["true_floor"]
        mask, feet = ground["ground_mask"], find_supported_feet(ground["ground_mask"])
        width = mask.shape[1]
        rows.append(
            {
                "iou": float((mask & true_ground).sum() / (mask | true_ground).sum()),
                "feet": float((mask & true_ground).sum() / mask.sum()),
                "supported": float((feet & true_ground).sum() / feet.sum()) if feet.any() else 1.0,
                "ratio_error": compute_size_error(ground, record["exact_depth"], true_ground),
                "pitch_error": abs(compute_pitch(ground, width) - pitch),
                "pitch_error_true_fov": abs(compute_pitch(ground, width, fov) - pitch),
            }
        )
    if not rows:
        return {"scenes": len(records), "kept": 0}
    shares = {key: round(float(np.mean([row[key] for row in rows])), 3) for key in ("iou", "feet", "supported")}
    worst = {f"{key}_worst": round(min(row[key] for row in rows), 3) for key in shares}
    errors = [key for key in rows[0] if key.endswith(("error", "true_fov"))]
    medians = {key: round(float(np.median([row[key] for row in rows])), 3) for key in errors}
    return {"scenes": len(records), "kept": len(rows), **shares, **worst, **medians}


def measure_occupied_scenes() -> dict[str, Any]:
    """Return IoU and share of the mask on the ground plane, mean and worst, for `render_occupied_scenes`."""
    stage = Ground(GroundParams(backend="depth-column"))
    stage.setup()
    shares = []
    for record in render_occupied_scenes():
        outcome = stage.process_one(record)
        if isinstance(outcome, Kept) and outcome.records[0]["ground_mask"] is not None:
            mask, true_ground = outcome.records[0]["ground_mask"], record["true_floor"]
            shares.append(
                ((mask & true_ground).sum() / (mask | true_ground).sum(), (mask & true_ground).sum() / mask.sum())
            )
    means, worst = np.mean(shares, axis=0), np.min(shares, axis=0)
    return {
        "kept": len(shares),
        "iou": round(float(means[0]), 3),
        "feet": round(float(means[1]), 3),
        "iou_worst": round(float(worst[0]), 3),
        "feet_worst": round(float(worst[1]), 3),
    }


def main() -> None:
    cv2.setNumThreads(1)
    print_result("ground_truth", depth="true", set="clean", part="objects", **measure_occupied_scenes())
    weights: Path = ASSETS / "weights"
    cameras = read_cameras()
    networks = {"kitti": "meter_xxs_kitti_192x636.onnx", "nyu": "meter_xxs_nyu_192x256.onnx"}
    for name, degrade in (("clean", Degrade()), ("degraded", DEGRADED)):
        records = []
        for number, pair in enumerate(render_scenes(degrade)):
            outcome = Background(Background.Params()).process_one(pair)
            assert isinstance(outcome, Kept)
            record = {**pair, **outcome.records[0], "exact_depth": pair["true_depth"]}
            del record["gt"]
            records.append(record | {"blurred": blur_depth(pair["true_depth"], number)})
        with_wall = [number for number, record in enumerate(records) if not record["true_floor"].all()]
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
            print_result("ground_truth", depth=key, set=name, part="all", **measure(stage, records, cameras))
            wall_records = [records[k] for k in with_wall]
            wall_figures = measure(stage, wall_records, [cameras[k] for k in with_wall])
            print_result("ground_truth", depth=key, set=name, part="with a wall", **wall_figures)


if __name__ == "__main__":
    main()
