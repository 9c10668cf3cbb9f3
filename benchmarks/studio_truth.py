"""The chain from a pair to its masks against the truth of rendered scenes that no test uses.

Clean scenes, and the same ones degraded as by a camera: JPEG q85, noise of 2 levels, up to 1 px of shift, 5 % flicker.
M_e is scored where the object is not: truth is what changed by more than 2 % of white; the band score counts as false
only what changed by less than 1 %, and as missed only what changed by more than 4 %.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.common import ASSETS, say
from benchmarks.pairs_real import chain
from manifests.storage import Store
from stages.sources.files import RunContext
from stages.sources.studio import Degrade, Studio, StudioParams
from stages.stage import Kept, Record

SCENES, SEED = 12, 20_000
DEGRADED = Degrade(noise=2.0, jpeg=85, shift=1.0, flicker=0.05)


def scenes(degrade: Degrade) -> list[Record]:
    """Rendered pairs with their truth."""
    source = Studio(StudioParams(count=SCENES, seed=SEED, width=480, height=320, spp=64, degrade=degrade))
    source.setup()
    made = []
    for item in source.items(RunContext(Store("/nonexistent"), "scenes", SEED)):
        outcome = source.process_one(item)
        assert isinstance(outcome, Kept)
        made.append(dict(outcome.records[0]))
    return made


def ratio(part: Any, whole: Any) -> float:
    """Share of True pixels of `whole` that are True in `part`; 1 where there are none."""
    return float((part & whole).sum() / whole.sum()) if whole.any() else 1.0


def measure(stages: list[Any], records: list[Record], clean: dict[str, Record]) -> dict[str, Any]:
    """Means (and worst) over the scenes."""
    rows: list[dict[str, float]] = []
    lost = 0
    for start in records:
        record = start
        for stage in stages:
            outcome = stage.process_one(record)
            if not isinstance(outcome, Kept):
                lost += 1
                break
            record = record | dict(outcome.records[0])
        else:
            truth_o, truth_fg = start["true_object_mask"], start["true_foreground_mask"]
            pair = clean[start["scene_id"]]
            change = np.abs(_mean5(pair["input"]) - _mean5(pair["gt"])).max(axis=2)
            away = cv2.dilate((truth_o | record["mask"]).astype(np.uint8), np.ones((7, 7), np.uint8)) == 0
            found, true = record["foreground_mask"] & away, truth_fg & away
            rows.append(
                {
                    "object_iou": float((record["mask"] & truth_o).sum() / (record["mask"] | truth_o).sum()),
                    "effect_precision": ratio(true, found),
                    "effect_recall": ratio(found, true),
                    "band_precision": ratio(change > 0.01 * 255, found),
                    "band_recall": ratio(found, (change > 0.04 * 255) & true),
                    "motion": record["pair_motion"],
                    "alpha_psnr": record["alpha_psnr"],
                }
            )
    means = {key: round(float(np.mean([row[key] for row in rows])), 3) for key in rows[0]}
    worst = {f"{key}_worst": round(min(row[key] for row in rows), 3) for key in rows[0] if key != "motion"}
    return {"scenes": len(rows), "rejected": lost, **means, **worst}


def _mean5(picture: Any) -> Any:
    return cv2.blur(picture.astype(np.float32), (5, 5))


def main() -> None:
    cv2.setNumThreads(1)
    sets = {"clean": scenes(Degrade()), "degraded": scenes(DEGRADED)}
    # a scene's description, and so the place in the list, is the same in both sets
    by_scene = {
        record["scene_id"]: sets["clean"][index] for records in sets.values() for index, record in enumerate(records)
    }
    weights: Path = ASSETS / "weights"
    for backend in ("grabcut", "sam-onnx") if weights.is_dir() else ("grabcut",):
        stages = chain(backend, weights)
        for name, records in sets.items():
            say("studio_truth", backend=backend, set=name, **measure(stages, records, by_scene))


if __name__ == "__main__":
    main()
