"""Light direction from shadows against the renderer's, on scenes that no test uses.

16 scenes of mixed light that the method was tuned on and 32 that it was not, clean and degraded as in `studio_truth`,
with the true masks and with those of the stages. The shadow falls away from the light: its true azimuth is the light's
plus 180°. A scene under soft light has no cast shadow, and its direction must be reported as unknown. `lit_unknown`
counts lit scenes with an unknown direction: they are misses in `within_22` and are excluded from `within_22_reported`.

`wrong_but_confident` counts errors above 22.5 degrees at a confidence of 0.5 or more.

    python -m benchmarks shadow_truth
"""

import time
from typing import Any

import cv2
import numpy as np

from benchmarks.common import ASSETS, print_result
from benchmarks.pairs.compose_truth import run_stages
from benchmarks.pairs.pairs_real import make_stages
from benchmarks.pairs.studio_truth import DEGRADED, render_scenes
from rasura.stages.shadow import Shadow, ShadowParams
from rasura.stages.shadow_fit.light import cluster_azimuth
from rasura.stages.sources.studio.studio import Degrade
from rasura.stages.stage import Kept, Record

SETS = {21_000: 16, 41_000: 8, 63_000: 24}  # seed: number of scenes


def measure(records: list[Record]) -> dict[str, Any]:
    """Return the errors of the records' directions, and the shares that are unknown."""
    stage = Shadow(ShadowParams())
    errors, heights, same_cluster, unknown, seconds = [], [], [], [], []
    lit = wrong = 0
    for record in records:
        start = time.process_time()
        outcome = stage.process_one(record)
        seconds.append(time.process_time() - start)
        assert isinstance(outcome, Kept)
        direction = outcome.records[0]
        if record["light_azimuth"] is None:
            unknown.append(direction["shadow_azimuth"] is None)
            continue
        lit += 1
        if direction["shadow_azimuth"] is not None:
            true_azimuth = (record["light_azimuth"] + 180) % 360
            errors.append(abs((direction["shadow_azimuth"] - true_azimuth + 180) % 360 - 180))
            heights.append(abs(direction["shadow_elevation"] - record["light_elevation"]))
            wrong += errors[-1] > 22.5 and direction["shadow_confidence"] >= 0.5
            same_cluster.append(direction["shadow_cluster"] == cluster_azimuth(true_azimuth))
    return {
        "lit": lit,
        "error_median": round(float(np.median(errors)), 2),
        "error_worst": round(max(errors), 1),
        "within_22": round(float(np.sum(np.array(errors) <= 22.5)) / lit, 3),
        "within_22_reported": round(float(np.mean(np.array(errors) <= 22.5)), 3),
        "same_cluster": round(float(np.sum(same_cluster)) / lit, 3),
        "wrong_but_confident": wrong,
        "lit_unknown": lit - len(errors),
        "elevation_error_median": round(float(np.median(heights)), 2),
        "soft": len(unknown),
        "soft_unknown": round(float(np.mean(unknown)), 3) if unknown else None,
        "cpu_seconds": round(float(np.mean(seconds)), 3),
    }


def main() -> None:
    cv2.setNumThreads(1)
    weights = ASSETS / "weights"
    backend = "sam-onnx" if weights.is_dir() else "grabcut"
    mask_stages = [stage for stage in make_stages(backend, weights) if stage.name in ("pair", "effects", "segment")]
    for seed, count in SETS.items():
        for name, degrade in (("clean", Degrade()), ("degraded", DEGRADED)):
            records = render_scenes(degrade, count, seed)
            true_records = []
            for record in records:
                masked = run_stages(mask_stages[:1], record)
                if masked is not None:
                    masks = {"object_mask": record["true_object_mask"]}
                    true_records.append(masked | masks | {"foreground_mask": record["true_foreground_mask"]})
            print_result("shadow_truth", seed=seed, set=name, masks="true", **measure(true_records))
            chain_records = [masked for record in records if (masked := run_stages(mask_stages, record)) is not None]
            labels = {
                "seed": seed,
                "set": name,
                "masks": "chain",
                "backend": backend,
                "rejected": len(records) - len(chain_records),
            }
            print_result("shadow_truth", **labels, **measure(chain_records))


if __name__ == "__main__":
    main()
