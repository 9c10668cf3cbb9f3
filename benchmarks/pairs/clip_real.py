"""Pairs from the real fixed-camera clip: their number, and the PSNR between `gt` and `input` outside of the objects.

python -m benchmarks clip_real
"""

import resource
import time

import cv2
import numpy as np

from benchmarks.common import ASSETS, print_result
from rasura.manifests.storage import Store
from rasura.stages.sources.clip.clip import Clip, ClipParams
from rasura.stages.sources.files import RunContext
from rasura.stages.stage import Kept


def main() -> None:
    cv2.setNumThreads(1)
    path = ASSETS / "clips" / "car-detection.mp4"
    if not path.exists():
        print_result("clip_real", skipped=f"no clip at {path}: set RASURA_ASSETS")
        return
    source = Clip(ClipParams(path=str(path)))
    (item,) = source.items(RunContext(Store("/nonexistent"), "clip"))
    start = time.process_time()
    outcome = source.process_one(item)
    seconds = time.process_time() - start
    records = outcome.records if isinstance(outcome, Kept) else []
    values = [record["clip_psnr"] for record in records]
    print_result(
        "clip_real",
        pairs=len(records),
        psnr_outside_median_db=round(float(np.median(values)), 2) if values else None,
        psnr_outside_p10_db=round(float(np.quantile(values, 0.1)), 2) if values else None,
        last_frame=max((record["clip_frame"] for record in records), default=None),
        motion_max_px=round(max((record["clip_motion"] for record in records), default=0.0), 2),
        cpu_s=round(seconds, 1),
        peak_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    )


if __name__ == "__main__":
    main()
