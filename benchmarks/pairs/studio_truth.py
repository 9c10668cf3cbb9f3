"""The chain from a pair to its masks against the truth of rendered scenes that no test uses.

Clean scenes, and the same ones degraded as by a camera: JPEG q85, noise of 2 levels, up to 1 px of shift, 5 % flicker.
M_e is scored where the object is not: truth is what changed by more than 2 % of white; the band score counts as false
only what changed by less than 1 %, and as missed only what changed by more than 4 %. `given` has the true M_o beside
what `effects` found; `chain` is what the whole chain makes with its own M_o.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.common import ASSETS, say
from benchmarks.pairs_real import chain
from rasura.manifests.images import Mask
from rasura.manifests.storage import Store
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.studio.studio import Degrade, Studio, StudioParams
from rasura.stages.stage import Kept, Record

SCENES, SEED = 12, 20_000
DEGRADED = Degrade(noise=2.0, jpeg=85, shift=1.0, flicker=0.05)


def scenes(degrade: Degrade, count: int = SCENES, seed: int = SEED) -> list[Record]:
    """Rendered pairs with their truth."""
    source = Studio(StudioParams(count=count, seed=seed, width=480, height=320, spp=64, degrade=degrade))
    source.setup()
    made = []
    for item in source.items(RunContext(Store("/nonexistent"), "scenes", seed)):
        outcome = source.process_one(item)
        assert isinstance(outcome, Kept)
        made.append(dict(outcome.records[0]))
    return made


def ratio(part: Mask, whole: Mask) -> float:
    """Share of True pixels of `whole` that are True in `part`; 1 where there are none."""
    return float((part & whole).sum() / whole.sum()) if whole.any() else 1.0


def effect_scores(name: str, found: Mask, objects: Mask, truth: Record, change: Any) -> dict[str, float]:
    """Precision and recall of M_e, 3 px away from the true and from the given objects.

    Args:
        found, objects: (h, w) bool, M_fg and M_o. change: (h, w) largest 5 × 5 mean difference of the clean pair.
    """
    taken = (truth["true_object_mask"] | objects).astype(np.uint8)
    away = cv2.dilate(taken, np.ones((7, 7), np.uint8)) == 0
    effect, true = found & away, truth["true_foreground_mask"] & away
    return {
        f"{name}_precision": ratio(true, effect),
        f"{name}_recall": ratio(effect, true),
        f"{name}_band_precision": ratio(change > 0.01 * 255, effect),
        f"{name}_band_recall": ratio(effect, (change > 0.04 * 255) & true),
    }


def measure(stages: list[Any], records: list[Record], clean: list[Record]) -> dict[str, Any]:
    """Means (and worst) over the scenes. `clean` are the same scenes without degradation, in the same order."""
    rows: list[dict[str, float]] = []
    lost = []
    for start, pair in zip(records, clean, strict=True):
        record, truth_o = start, start["true_object_mask"]
        change = np.abs(_mean5(pair["input"]) - _mean5(pair["gt"])).max(axis=2)
        row: dict[str, float] = {}
        for stage in stages:
            outcome = stage.process_one(record)
            if not isinstance(outcome, Kept):
                lost.append(outcome.reason)
                break
            record = record | dict(outcome.records[0])
            if stage.name == "effects":
                row |= effect_scores("given", record["foreground_mask"], truth_o, start, change)
        else:
            found = record["mask"]
            row["object_iou"] = float((found & truth_o).sum() / (found | truth_o).sum())
            row |= effect_scores("chain", record["foreground_mask"], found, start, change)
            row |= {"motion": record["pair_motion"], "alpha_psnr": record["alpha_psnr"]}
            rows.append(row)
    means = {key: round(float(np.mean([row[key] for row in rows])), 3) for key in rows[0]}
    worst = {f"{key}_worst": round(min(row[key] for row in rows), 3) for key in rows[0] if key != "motion"}
    return {"scenes": len(rows), "rejected": lost, **means, **worst}


def _mean5(picture: Any) -> Any:
    return cv2.blur(picture.astype(np.float32), (5, 5))


def main() -> None:
    cv2.setNumThreads(1)
    sets = {"clean": scenes(Degrade()), "degraded": scenes(DEGRADED)}
    weights: Path = ASSETS / "weights"
    for backend in ("grabcut", "sam-onnx") if weights.is_dir() else ("grabcut",):
        stages = chain(backend, weights)
        for name, records in sets.items():
            say("studio_truth", backend=backend, set=name, **measure(stages, records, sets["clean"]))


if __name__ == "__main__":
    main()
