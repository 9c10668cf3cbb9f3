"""CPU seconds of one core from a 512 × 512 pair to a triplet, stage by stage, without a network and with SAM.

Goals: 1 s and 4.5 s.

    python -m benchmarks pair_time
"""

import time
from typing import Any

import cv2
import numpy as np

from benchmarks.common import ASSETS, print_result
from benchmarks.pairs.pairs_real import load_pairs, make_stages
from rasura.stages.stage import Kept, Record

SIDE = 512


def crop_square(record: Record) -> Record:
    """Crop a pair to the square of its height around the provided object, and resize it to 512 × 512."""
    height, width = record["input"].shape[:2]
    columns = np.flatnonzero(record["truth"].any(0))
    left = int(np.clip((columns[0] + columns[-1]) // 2 - height // 2, 0, width - height))
    part = {key: record[key][:, left : left + height] for key in ("input", "gt")}
    return {"id": record["id"]} | {
        key: cv2.resize(
            np.ascontiguousarray(value),
            (SIDE, SIDE),
            interpolation=cv2.INTER_AREA if height > SIDE else cv2.INTER_CUBIC,
        )
        for key, value in part.items()
    }


def measure(stages: list[Any], records: list[Record]) -> dict[str, Any]:
    """Return the median seconds of every stage and of all of them; of two passes over a pair the faster counts."""
    steps: dict[str, list[float]] = {stage.name: [] for stage in stages}
    for start in records:
        times: list[dict[str, float]] = []
        for _ in range(2):
            record, spent = start, {}
            for stage in stages:
                begin = time.process_time()
                outcome = stage.process_one(record)
                spent[stage.name] = time.process_time() - begin
                if not isinstance(outcome, Kept):
                    break
                record = dict(outcome.records[0])
            times.append(spent)
        for name, values in steps.items():
            if all(name in spent for spent in times):
                values.append(min(spent[name] for spent in times))
    totals = [sum(values) for values in zip(*steps.values(), strict=False)]
    return {
        "pairs": len(totals),
        "all_s": round(float(np.median(totals)), 3),
        "slowest_s": round(max(totals), 3),
        **{f"{name}_s": round(float(np.median(values)), 3) for name, values in steps.items() if values},
    }


def main() -> None:
    cv2.setNumThreads(1)
    records = [crop_square(r) for kind in ("cars", "person") for r in load_pairs(ASSETS / "pairs" / kind)[:4]]
    if not records:
        print_result("pair_time", skipped=f"no pairs under {ASSETS}/pairs: set RASURA_ASSETS")
        return
    report = {}
    for backend in ("grabcut", "sam-onnx"):
        report[backend] = measure(make_stages(backend, ASSETS / "weights"), records)
    print_result("pair_time", side=SIDE, **report)


if __name__ == "__main__":
    main()
