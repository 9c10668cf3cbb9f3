"""The stages from a pair to its masks against the ground truth of rendered scenes that no test uses.

Clean scenes, and the same ones degraded as by a camera: JPEG q85, noise of 2 levels, up to 1 px of shift, 5 % flicker.
M_e is scored outside of the object: true effects are pixels that changed by more than 2 % of white; the band score
counts as false only pixels that changed by less than 1 %, and as missed only pixels that changed by more than 4 %.
`true_objects` combines the output of `effects` with the true M_o; `chain` is the output of all stages with their own
M_o. Goals: docs/methods.md.

    python -m benchmarks studio_truth
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.common import ASSETS, print_result
from benchmarks.pairs.pairs_real import make_stages
from rasura.manifests.images import Mask
from rasura.manifests.storage import Store
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.studio.studio import Degrade, Studio, StudioParams
from rasura.stages.stage import Kept, Record

SCENES, SEED = 12, 20_000
DEGRADED = Degrade(noise=2.0, jpeg=85, shift=1.0, flicker=0.05)


def render_scenes(degrade: Degrade, count: int = SCENES, seed: int = SEED) -> list[Record]:
    """Render pairs with their ground truth."""
    source = Studio(StudioParams(count=count, seed=seed, width=480, height=320, spp=64, degrade=degrade))
    source.setup()
    records = []
    for item in source.items(RunContext(Store("/nonexistent"), "scenes", seed)):
        outcome = source.process_one(item)
        assert isinstance(outcome, Kept)
        records.append(dict(outcome.records[0]))
    return records


def compute_share(part: Mask, region: Mask) -> float:
    """Compute the share of the pixels of `region` that are in `part`; 1 where the region is empty."""
    return float((part & region).sum() / region.sum()) if region.any() else 1.0


def score_effects(name: str, foreground: Mask, objects: Mask, truth: Record, change: Any) -> dict[str, float]:
    """Compute precision and recall of M_e, over 3 px away from the true and from the estimated objects.

    Args:
        name: prefix of the figures' names.
        foreground: (h, w) bool, M_fg.
        objects: (h, w) bool, M_o.
        truth: the clean record.
        change: (h, w) largest 5 × 5 mean difference of the clean pair.
    """
    object_pixels = (truth["true_object_mask"] | objects).astype(np.uint8)
    away = cv2.dilate(object_pixels, np.ones((7, 7), np.uint8)) == 0
    effect, true = foreground & away, truth["true_foreground_mask"] & away
    return {
        f"{name}_precision": compute_share(true, effect),
        f"{name}_recall": compute_share(effect, true),
        f"{name}_band_precision": compute_share(change > 0.01 * 255, effect),
        f"{name}_band_recall": compute_share(effect, (change > 0.04 * 255) & true),
    }


def measure(stages: list[Any], records: list[Record], clean: list[Record]) -> dict[str, Any]:
    """Return means and worst over the scenes; `clean` has the same scenes in the same order without degradation."""
    rows: list[dict[str, float]] = []
    rejected = []
    for start, pair in zip(records, clean, strict=True):
        record, true_objects = start, start["true_object_mask"]
        change = np.abs(_blur(pair["input"]) - _blur(pair["gt"])).max(axis=2)
        row: dict[str, float] = {}
        for stage in stages:
            outcome = stage.process_one(record)
            if not isinstance(outcome, Kept):
                rejected.append(outcome.reason)
                break
            record = record | dict(outcome.records[0])
            if stage.name == "effects":
                row |= score_effects("true_objects", record["foreground_mask"], true_objects, start, change)
        else:
            objects = record["mask"]
            row["object_iou"] = float((objects & true_objects).sum() / (objects | true_objects).sum())
            row |= score_effects("chain", record["foreground_visible"], objects, start, change)
            row |= {"motion": record["pair_motion"], "alpha_psnr": record["alpha_psnr"]}
            rows.append(row)
    means = {key: round(float(np.mean([row[key] for row in rows])), 3) for key in rows[0]}
    worst = {f"{key}_worst": round(min(row[key] for row in rows), 3) for key in rows[0] if key != "motion"}
    return {"scenes": len(rows), "rejected": rejected, **means, **worst}


def _blur(picture: Any) -> Any:
    return cv2.blur(picture.astype(np.float32), (5, 5))


def main() -> None:
    cv2.setNumThreads(1)
    sets = {"clean": render_scenes(Degrade()), "degraded": render_scenes(DEGRADED)}
    weights: Path = ASSETS / "weights"
    for backend in ("grabcut", "sam-onnx") if weights.is_dir() else ("grabcut",):
        stages = make_stages(backend, weights)
        for name, records in sets.items():
            print_result("studio_truth", backend=backend, set=name, **measure(stages, records, sets["clean"]))


if __name__ == "__main__":
    main()
