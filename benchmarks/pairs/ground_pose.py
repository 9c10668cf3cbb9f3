"""The camera's pose without networks: horizons by straight lines, cameras that are stated, floors that people drew.

- lines: the horizon by straight lines of the empty pictures of rendered scenes that no test uses, by their floor:
  how many are stated, how many of these within 5 degrees of view, and wrong by more than 8.
- camera: the same scenes with a camera that somebody states with errors of 3 degrees and 10 % of its height (standard
  deviations): the error of pixels per metre at the object's foot, and how many cut-outs are exact enough for
  `composite` (its default limits).
- photographs: how many of the shared photographs pass as backgrounds (the limits of recipes/ober-simulated.yaml): by
  objects of known size, with `benchmarks/data/drawn_floors.json` (drawn by one person by eye), and by a camera at eye
  level where the recipe asks for it. Whether their floors are right has to be judged by eye.

    python -m benchmarks ground_pose
"""

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.common import ASSETS, print_result
from rasura.manifests.images import decode_image
from rasura.manifests.storage import Store
from rasura.stages.composite import CompositeParams
from rasura.stages.ground import Ground
from rasura.stages.ground_plane.drawing import SUFFIX
from rasura.stages.ground_plane.horizon import MAX_HORIZON_ERROR, estimate_horizon_from_lines
from rasura.stages.ground_plane.line_segments import find_segments
from rasura.stages.ground_plane.params import GroundParams
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.studio.studio import Studio, StudioParams
from rasura.stages.stage import Kept, Record

SEED, LISTED = 93_000, 80
COUNTS = {"tiles": 14, "planks": 14, "asphalt": 3, "concrete": 3, "grass": 3, "gravel": 3, "fabric": 3}
DRAWINGS = Path(__file__).resolve().parents[1] / "data" / "drawn_floors.json"
LIMITS = {"ground_view_error": 8.0, "ground_size_error": 0.25, "ground_water": 0.5, "ground_conflict": 3.0}
MIN_AREA, MAX_UPRIGHT, MIN_FOOT = 0.03, 0.35, 0.3
EYE_LEVEL, EYE_LEVEL_ERROR, EYE_LEVEL_LIMIT = 1.6, 0.3, 0.4


def render_scenes() -> list[tuple[Any, str, Record]]:
    """Render scenes; return their cameras, the kinds of their floors, and their pairs."""
    source = Studio(StudioParams(count=LISTED, seed=SEED, width=480, height=320, spp=16))
    source.setup()
    left, scenes = dict(COUNTS), []
    for item in source.items(RunContext(Store("/nonexistent"), "scenes", SEED)):
        scene = json.loads(item["scene"])["scene"]
        kind = scene["floor"]["texture"]["kind"]
        if left.get(kind, 0) > 0:
            left[kind] -= 1
            outcome = source.process_one(item)
            assert isinstance(outcome, Kept)
            scenes.append((scene["camera"], kind, dict(outcome.records[0])))
    return scenes


def measure_lines(scenes: list[tuple[Any, str, Record]]) -> None:
    """Print how many horizons are stated, by floor, and how many are right."""
    off: dict[str, list[float]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    for camera, kind, record in scenes:
        height, width = record["gt"].shape[:2]
        counts[kind] += 1
        horizon = estimate_horizon_from_lines(find_segments(record["gt"]), (height, width))
        if horizon is not None and horizon.error <= MAX_HORIZON_ERROR:
            focal = width / 2 / np.tan(np.deg2rad(camera["fov"]) / 2)
            off[kind].append(
                abs(float(np.rad2deg(np.arctan((height / 2 - horizon.row) / focal))) - float(camera["pitch"]))
            )
    for kind, count in counts.items():
        errors = np.array(off[kind])
        print_result(
            "ground_pose",
            part="lines",
            floor=kind,
            scenes=count,
            stated=len(errors),
            within_5=int((errors <= 5).sum()),
            wrong_by_8=int((errors > 8).sum()),
            median=round(float(np.median(errors)), 2) if len(errors) else None,
        )


def measure_stated_cameras(scenes: list[tuple[Any, str, Record]]) -> None:
    """Print the error of sizes where somebody states the camera, and how many objects are exact enough to be pasted."""
    rng, stage, limits = np.random.default_rng(5), Ground(GroundParams()), CompositeParams()
    errors, usable = [], 0
    for camera, _, record in scenes:
        tall = float(camera["origin"][2])
        stated = {
            "camera_pitch": float(camera["pitch"]) + rng.normal(0, 3),
            "camera_height": tall * float(np.exp(rng.normal(0, 0.1))),
        }
        mask = record["true_object_mask"]
        outcome = stage.process_one({**record, **stated, "object_mask": mask, "label": None})
        assert isinstance(outcome, Kept)
        ground = outcome.records[0]
        if ground["ground_scale"] is None:
            continue
        ys, xs = np.nonzero(mask)
        x, y = float(np.median(xs[ys >= ys.max() - 2])) + 0.5, float(ys.max()) + 1
        height, width = mask.shape
        focal, pitch = width / 2 / np.tan(np.deg2rad(camera["fov"]) / 2), np.deg2rad(camera["pitch"])
        true = (np.cos(pitch) * (y - height / 2) + focal * np.sin(pitch)) / tall
        a, b, c = ground["ground_scale"]
        errors.append(abs((a * x + b * y + c) / true - 1))
        view_limit, size_limit = limits.max_view_error or np.inf, limits.max_size_error or np.inf
        usable += ground["ground_view_error"] <= view_limit and ground["ground_size_error"] <= size_limit
    print_result(
        "ground_pose",
        part="camera",
        scenes=len(scenes),
        size_error=round(float(np.median(errors)), 3),
        size_error_p90=round(float(np.quantile(errors, 0.9)), 3),
        usable=int(usable),
    )


def passes(row: Record, size_limit: float, strict: bool) -> bool:
    """Return whether a photograph passes as a background; `strict` where no object shows its ground."""
    for name, limit in (LIMITS | {"ground_size_error": size_limit}).items():
        if row[name] is not None and row[name] > limit:
            return False
    good = row["ground_area"] >= MIN_AREA and (row["ground_upright"] or 0) <= MAX_UPRIGHT
    return bool(good and (not strict or row["ground_seen"] or row["ground_foot"] >= MIN_FOOT))


def measure_photographs() -> None:
    """Print how many photographs pass as backgrounds."""
    files = sorted((ASSETS / "photos").glob("*/*.png")) + sorted((ASSETS / "photos").glob("*/*.jpg"))
    detector = ASSETS / "weights" / "yolox_nano_416.onnx"
    if not files or not detector.is_file():
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, drawing in json.loads(DRAWINGS.read_text()).items():
            path = Path(folder) / f"{name}{SUFFIX}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(drawing))
        settings = {
            "objects": (GroundParams(object_detector=str(detector)), LIMITS["ground_size_error"], False),
            "drawn": (GroundParams(object_detector=str(detector), drawings=folder), LIMITS["ground_size_error"], False),
            "eye level": (
                GroundParams(
                    object_detector=str(detector), camera_height=EYE_LEVEL, camera_height_error=EYE_LEVEL_ERROR
                ),
                EYE_LEVEL_LIMIT,
                True,
            ),
        }
        for name, (params, limit, strict) in settings.items():
            stage, kept = Ground(params), []
            stage.setup()
            for file in files:
                picture = decode_image(file.read_bytes())
                outcome = stage.process_one({"id": file.stem, "origin": str(file), "source": picture})
                if isinstance(outcome, Kept) and passes(outcome.records[0], limit, strict):
                    kept.append(file.stem.lstrip("0"))
            print_result("ground_pose", part="photographs", by=name, photos=len(files), kept=len(kept), names=kept)


def main() -> None:
    cv2.setNumThreads(1)
    measure_photographs()
    scenes = render_scenes()
    measure_lines(scenes)
    measure_stated_cameras(scenes)


if __name__ == "__main__":
    main()
