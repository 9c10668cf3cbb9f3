"""Steps along the rim of M_fg in the targets of captured triplets, what is left of objects, and the distance to truth.

Rendered scenes that no test uses, as they are and with a camera that drifts between the two shots: its tone curve by
4.5 to 7 levels, or a smooth field over the picture of up to 6; the real pairs; and the pairs of the clip. Each with gt
alone inside M_fg (`plain`) and as `capture` makes it. `psnr` compares the target with the true empty scene inside M_fg
without the object. `above_4` counts pictures that the recipes reject, `left_above_25` those with parts of the object.

    python -m benchmarks seams
"""

from typing import Any

import cv2
import numpy as np

from benchmarks.common import ASSETS, print_result
from benchmarks.pairs.compose_truth import run_stages
from benchmarks.pairs.pairs_real import load_pairs, make_stages
from benchmarks.pairs.studio_truth import render_scenes
from rasura.manifests.images import RGB
from rasura.manifests.storage import Store
from rasura.networks.metrics.psnr import compute_psnr
from rasura.stages.capture import Capture, CaptureParams
from rasura.stages.imaging.morphology import dilate
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.studio.studio import Degrade
from rasura.stages.stage import Kept, Record

SCENES, SEED = 24, 63_000
PLAIN = CaptureParams(reach=0.0, match_rim=False)


def drift_tone(clean: RGB, rng: np.random.Generator) -> RGB:
    """Change a picture's tone curve by 4.5 to 7 levels at most, differently in each channel."""
    level = np.arange(256) / 255
    shape = (np.sin(np.pi * level), np.sin(2 * np.pi * level), 1 - (2 * level - 1) ** 2 - 0.5)[rng.integers(3)]
    curve = shape / np.abs(shape).max() * rng.uniform(4.5, 7) * rng.choice((-1, 1))
    change = np.stack([curve[clean[..., channel]] * rng.uniform(0.7, 1) for channel in range(3)], -1)
    return np.asarray(np.clip(np.rint(clean + change), 0, 255), np.uint8)


def drift_field(clean: RGB, rng: np.random.Generator) -> RGB:
    """Add a smooth field of up to 6 levels to a picture."""
    coarse = rng.normal(size=(4, 5)).astype(np.float32)
    field = np.asarray(cv2.resize(coarse, clean.shape[1::-1], interpolation=cv2.INTER_CUBIC))
    change = (6 * field / np.abs(field).max())[..., None] * rng.uniform(0.7, 1, 3)
    return np.asarray(np.clip(np.rint(clean + change), 0, 255), np.uint8)


def cut_clip() -> list[Record]:
    """Cut the clip into its pairs."""
    from rasura.stages.sources.clip.clip import Clip, ClipParams

    source = Clip(ClipParams(path=str(ASSETS / "clips" / "car-detection.mp4")))
    source.setup()
    outcomes = [source.process_one(item) for item in source.items(RunContext(Store("/nonexistent"), "clip", 1))]
    return [dict(record) for outcome in outcomes if isinstance(outcome, Kept) for record in outcome.records]


def measure(records: list[Record]) -> dict[str, Any]:
    """Return the figures of pairs that have their masks; `true_gt` is the empty scene where it is known."""
    report: dict[str, Any] = {"pairs": len(records)}
    if not records:
        return report
    for name, params in (("plain", PLAIN), ("capture", CaptureParams())):
        stage, seams, psnr = Capture(params), [], []
        for record in records:
            outcome = stage.process_one(record)
            assert isinstance(outcome, Kept)
            triplet = outcome.records[0]
            seams.append(triplet["capture_seam"])
            if "true_gt" in record:
                objects = dilate(record["object_mask"] | record["true_object_mask"], 2)
                region = record["foreground_mask"] & ~objects
                if region.sum() >= 50:
                    psnr.append(compute_psnr(triplet["target"][region], record["true_gt"][region]))
        report |= {
            f"{name}_seam_median": round(float(np.median(seams)), 2),
            f"{name}_seam_worst": round(max(seams), 1),
            f"{name}_above_4": int((np.array(seams) > 4).sum()),
        }
        if psnr:
            report |= {
                f"{name}_psnr_median": round(float(np.median(psnr)), 1),
                f"{name}_psnr_worst": round(min(psnr), 1),
            }
    lefts = [record["effects_left"] for record in records]
    return report | {"left_worst": round(max(lefts), 1), "left_above_25": int((np.array(lefts) > 25).sum())}


def main() -> None:
    cv2.setNumThreads(1)
    weights = ASSETS / "weights"
    backend = "sam-onnx" if weights.is_dir() else "grabcut"
    stages = [stage for stage in make_stages(backend, weights) if stage.name in ("pair", "effects", "segment")]
    scenes = [scene | {"true_gt": scene["gt"]} for scene in render_scenes(Degrade(), SCENES, SEED)]
    for drift in (None, drift_tone, drift_field):
        pairs = []
        for number, scene in enumerate(scenes):
            clean = scene["gt"] if drift is None else drift(scene["gt"], np.random.default_rng(number))
            pairs.append(run_stages(stages, scene | {"gt": clean}))
        for light in ("lit", "soft"):
            chosen = [p for p in pairs if p is not None and (p["light_azimuth"] is not None) == (light == "lit")]
            name = "none" if drift is None else drift.__name__
            print_result("seams", set="rendered", light=light, drift=name, backend=backend, **measure(chosen))
    real = {kind: load_pairs(ASSETS / "pairs" / kind) for kind in ("cars", "person")}
    real |= {"clip": cut_clip()} if (ASSETS / "clips" / "car-detection.mp4").is_file() else {}
    for name, records in real.items():
        pairs = [run_stages(stages, record) for record in records]
        print_result("seams", set=name, backend=backend, **measure([pair for pair in pairs if pair is not None]))


if __name__ == "__main__":
    main()
