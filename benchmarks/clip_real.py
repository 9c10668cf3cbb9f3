"""Pairs out of the real fixed-camera clip: how many, and how well `gt` matches `input` outside the objects.

Prints one JSON line. The clip is looked for in RASURA_ASSETS, else in ../shared/assets.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from stages.sources.clips import Clip, ClipParams
from stages.stage import Kept

ROOT = Path(__file__).parents[1]


def main() -> int:
    cv2.setNumThreads(1)
    assets = Path(os.environ.get("RASURA_ASSETS", ROOT.parent / "shared" / "assets"))
    path = assets / "clips" / "car-detection.mp4"
    if not path.exists():
        print(json.dumps({"benchmark": "clip_real", "skipped": f"no clip at {path}"}))
        return 0
    source = Clip(ClipParams(path=str(path)))
    (item,) = source.items(None)
    start = time.process_time()
    outcome = source.process_one(item)
    seconds = time.process_time() - start
    records = outcome.records if isinstance(outcome, Kept) else []
    values = [record["clip_psnr"] for record in records]
    result = {
        "benchmark": "clip_real",
        "pairs": len(records),
        "psnr_outside_median_db": round(float(np.median(values)), 2) if values else None,
        "psnr_outside_p10_db": round(float(np.quantile(values, 0.1)), 2) if values else None,
        "last_frame": max((record["clip_frame"] for record in records), default=None),
        "motion_max_px": round(max((record["clip_motion"] for record in records), default=0.0), 2),
        "cpu_s": round(seconds, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
