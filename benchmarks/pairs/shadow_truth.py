"""Light direction from shadows against the renderer's own, on scenes that no test uses.

16 scenes of mixed light that the method was tuned on and 8 that it was not, clean and degraded as in `studio_truth`,
with the true masks and with those of the real chain. The shadow falls away from the light: its true azimuth is the
light's plus 180°. A scene under soft light has no cast shadow and has to be called unknown. `lit_unknown` are lit
scenes for which no direction was given: they count as missed in `within_22`, and are left out of `within_22_given`.
"""

import time
from typing import Any

import cv2
import numpy as np

from benchmarks.common import ASSETS, say
from benchmarks.compose_truth import masked
from benchmarks.pairs_real import chain
from benchmarks.studio_truth import DEGRADED, scenes
from rasura.stages.shadow import Shadow, ShadowParams, cluster
from rasura.stages.sources.studio.studio import Degrade
from rasura.stages.stage import Kept, Record

SETS = {21_000: 16, 41_000: 8}  # seed: number of scenes


def measure(records: list[Record]) -> dict[str, Any]:
    """Errors of the records' directions, and what was called unknown."""
    stage = Shadow(ShadowParams())
    errors, heights, same, unknown, seconds = [], [], [], [], []
    lit = 0
    for record in records:
        start = time.process_time()
        outcome = stage.process_one(record)
        seconds.append(time.process_time() - start)
        assert isinstance(outcome, Kept)
        found = outcome.records[0]
        if record["light_azimuth"] is None:
            unknown.append(found["shadow_azimuth"] is None)
            continue
        lit += 1
        if found["shadow_azimuth"] is not None:
            true = (record["light_azimuth"] + 180) % 360
            errors.append(abs((found["shadow_azimuth"] - true + 180) % 360 - 180))
            heights.append(abs(found["shadow_elevation"] - record["light_elevation"]))
            same.append(found["shadow_cluster"] == cluster(true))
    return {
        "lit": lit,
        "error_median": round(float(np.median(errors)), 2),
        "error_worst": round(max(errors), 1),
        "within_22": round(float(np.sum(np.array(errors) <= 22.5)) / lit, 3),
        "within_22_given": round(float(np.mean(np.array(errors) <= 22.5)), 3),
        "same_cluster": round(float(np.sum(same)) / lit, 3),
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
    finders = [stage for stage in chain(backend, weights) if stage.name in ("pair", "effects", "segment")]
    for seed, count in SETS.items():
        for name, degrade in (("clean", Degrade()), ("degraded", DEGRADED)):
            records = scenes(degrade, count, seed)
            true = []
            for record in records:
                found = masked(finders[:1], record)
                if found is not None:
                    masks = {"object_mask": record["true_object_mask"]}
                    true.append(found | masks | {"foreground_mask": record["true_foreground_mask"]})
            say("shadow_truth", seed=seed, set=name, masks="true", **measure(true))
            own = [found for record in records if (found := masked(finders, record)) is not None]
            told = {
                "seed": seed,
                "set": name,
                "masks": "chain",
                "backend": backend,
                "rejected": len(records) - len(own),
            }
            say("shadow_truth", **told, **measure(own))


if __name__ == "__main__":
    main()
