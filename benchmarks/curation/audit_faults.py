"""`rasura audit` on pairs with planted faults: recall by fault, false alarms on clean pairs, and what `--repair` mends.

Rendered scenes and photographs (`planted`), of seeds that no test uses. Faults: a shift of 0.2 to 1 px, a zoom of 0.3
to 1 %, exposure or one channel by 1 to 4 %, exposure of the stored 8-bit levels by 1 to 4 % and by exactly 1 % up and
down, a thing elsewhere of 0.5 to 2 % of the picture, the mask of another scene, and copies of a third of the scenes in
another split, compressed and half of them scaled. A row counts as found where its outcome is faulty or unreadable.
`error` is the mean |target - truth| in M_fg, grey levels, before and after the repair. Goals: recall at least 0.95 of
each fault, at most 2 % of the clean pairs.

    python -m benchmarks audit_faults
"""

import csv
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from datasets import load_dataset

from benchmarks.common import make_scratch_folder, print_result, run_rasura
from benchmarks.curation.near_duplicates import compress, resize
from benchmarks.curation.planted import CleanScene, PlantedPair, make_scenes, photograph, plant_all
from rasura.stages.imaging.morphology import erode

RENDERED, PHOTOGRAPHS, SEED = (int(os.environ.get(f"RASURA_AUDIT_{name}", value)) for name, value in (
    ("RENDERED", 24), ("PHOTOGRAPHS", 45), ("SEED", 52_000)
))  # fmt: skip
FOUND = ("faulty", "unreadable")


def write_pair(folder: Path, pair: PlantedPair) -> None:
    """Write a pair with its mask as PNG files."""
    name = f"{pair.name}-{pair.fault.replace(' ', '_')}.png"
    masks = np.repeat(pair.mask[..., None], 3, 2).astype(np.uint8) * 255
    for part, picture in (("input", pair.input), ("gt", pair.gt), ("mask", masks)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / part / name), picture[..., ::-1])


def audit(folder: Path, *places: str, repair: Path | None = None) -> list[dict[str, str]]:
    """Audit a dataset in a process of its own and return the lines of its table."""
    options = ["--repair", str(repair)] if repair else []
    run_rasura("audit", *places, "--into", folder / "run", "--quiet", *options)
    with (folder / "run" / "audit.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_fault(row: dict[str, str]) -> str:
    """Return the planted fault of a table's line, from its file's name."""
    return Path(row["origin"]).stem.partition("-")[2].replace("_", " ")


def score_rows(rows: Sequence[dict[str, str]]) -> dict[str, Any]:
    """Return the share of rows that are called faulty, by planted fault, and the clean ones that are."""
    by_fault: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        by_fault[read_fault(row)].append(row["outcome"] in FOUND)
    alarms = {row["origin"].rpartition("/")[2]: row["all_reasons"] for row in rows if is_false_alarm(row)}
    return {
        "rows": {fault: len(found) for fault, found in by_fault.items()},
        "found": {fault: round(float(np.mean(found)), 4) for fault, found in by_fault.items()},
        "false_alarms": alarms,
        "missed": sorted(
            f"{row['origin'].rpartition('/')[2]}: {row['inspect_shift']} px, zoom {row['inspect_zoom']}, "
            f"gain {row['inspect_gain']}, outside {row['inspect_outside']}"
            for row in rows
            if row["outcome"] not in FOUND and not read_fault(row).startswith("clean")
        ),
    }


def is_false_alarm(row: dict[str, str]) -> bool:
    """Return whether a clean pair is called faulty."""
    return read_fault(row).startswith("clean") and row["outcome"] in FOUND


def measure_repair(copy: Path, scenes: Sequence[CleanScene], pairs: dict[str, PlantedPair]) -> dict[str, Any]:
    """Return the mean error of the target inside M_fg by planted fault, before and after the repair."""
    by_name = {scene.name: scene for scene in scenes}
    errors: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in load_dataset("parquet", data_files=str(copy / "data" / "*.parquet"), split="train"):
        pair = pairs[Path(row["origin"]).stem]
        scene = by_name[pair.name]
        inside = erode(scene.foreground, 2)
        before, after = (
            float(np.abs(np.asarray(target, np.float32) - scene.gt)[inside].mean())
            for target in (pair.gt, row["target"])
        )
        errors[pair.fault].append((before, after))
    return {fault: [round(v, 2) for v in np.mean(values, axis=0).tolist()] for fault, values in errors.items()}


def measure_leaks(folder: Path, scenes: Sequence[CleanScene]) -> dict[str, Any]:
    """Return how many copies in another split are found, and how many rows without one are called so."""
    rng = np.random.default_rng([SEED, 2])
    copied = scenes[::3]
    others = scenes[1::3]
    for scene in (*copied, *scenes[2::3]):
        pair = PlantedPair(scene.name, "train", 0, photograph(scene.input, rng), photograph(scene.gt, rng), scene.mask)
        write_pair(folder / "train", pair)
    for number, scene in enumerate(copied):
        factor = 0.75 if number % 2 else 1.0
        source, clean = (compress(resize(photograph(p, rng), factor), 60) for p in (scene.input, scene.gt))
        mask = cv2.resize(scene.mask.astype(np.uint8), source.shape[1::-1], interpolation=cv2.INTER_AREA) > 0
        write_pair(folder / "test", PlantedPair(f"copy{scene.name}", "test", 0, source, clean, mask))
    for scene in others[: len(others) // 2]:
        pair = PlantedPair(scene.name, "test", 0, photograph(scene.input, rng), photograph(scene.gt, rng), scene.mask)
        write_pair(folder / "test", pair)
    rows = audit(folder, f"train={folder / 'train'}", f"test={folder / 'test'}")
    leaked = {scene.name for scene in copied}
    found = [row for row in rows if row["reason"].startswith("near-duplicate")]
    names = {Path(row["origin"]).stem.partition("-")[0] for row in found}
    return {"copies": len(leaked), "found": len(names & leaked), "called_so_wrongly": sorted(names - leaked)}


def main() -> None:
    """Measure recall, false alarms, repairs and leaks."""
    cv2.setNumThreads(1)
    scenes = make_scenes(RENDERED, PHOTOGRAPHS, SEED)
    with make_scratch_folder() as folder:
        pairs = {}
        for pair in plant_all(scenes, SEED):
            write_pair(folder / "pairs", pair)
            pairs[f"{pair.name}-{pair.fault.replace(' ', '_')}"] = pair
        rows = audit(folder / "a", str(folder / "pairs"), repair=folder / "copy")
        done = {kind: sum(row["repair"].startswith(kind) for row in rows) for kind in ("repaired", "untouched", "left")}
        print_result("audit", **score_rows(rows), inputs=len(pairs), table=len(rows), done=done)
        print_result("audit repair", error=measure_repair(folder / "copy", scenes, pairs))
        print_result("audit leaks", **measure_leaks(folder / "b", scenes))


if __name__ == "__main__":
    main()
