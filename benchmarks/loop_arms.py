"""Four arms of the tiny loop with equal training steps, on two seeds: does the loop help, and what of it?

  nothing     the initial triplets alone
  everything  a candidate of every scene, good or not
  humans      what the oracle, in people's place, accepts; nothing of the automatic rounds
  promise     the loop: and what the judge promises

  python -m benchmarks.loop_arms FOLDER [--photos FOLDER] [--seeds 2] [--at-once 2]
A folder that was begun goes on. The table's errors are those of the test scenes; all arms are tested on the same ones,
so their difference is judged scene by scene.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from benchmarks.common import ROOT

ARMS = ("nothing", "everything", "humans", "promise")
RECIPE = ROOT / "recipes" / "loop-demo.yaml"
ONE = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from pipeline import loop
from pipeline.loop_recipe import load
loop.run(load(sys.argv[1]), Path(sys.argv[2]))
"""


def arm(folder: Path, seed: int, name: str) -> None:
    """Runs one arm, or goes on with it."""
    told = yaml.safe_load(RECIPE.read_text()) | {"seed": seed, "keep": name}
    for part in ("initial", "pool", "test"):
        told[part] = [{**told[part][0], "run": str(folder / f"scenes-{seed}")}]
    file = folder / f"{seed}-{name}.yaml"
    file.write_text(yaml.safe_dump(told))
    with (folder / f"{seed}-{name}.log").open("a") as log:
        subprocess.run([sys.executable, "-c", ONE, str(file), str(folder / f"{seed}-{name}")], check=True, stdout=log,
                       stderr=log, cwd=ROOT)  # fmt: skip


def table(folder: Path, seeds: int) -> str:
    """Every arm's rounds, with what was kept and truly yes; then the loop against each control."""
    from pipeline.loop import Loop
    from pipeline.loop_table import rows

    lines = ["seed arm         round           kept  true yes  total  success %      PSNR hole"]
    last: dict[tuple[int, str], list[bool]] = {}
    for seed in range(1, seeds + 1):
        for name in ARMS:
            opened = Loop.open(folder / f"{seed}-{name}")
            for row in rows(opened):
                if row["success"] is None:
                    continue
                true = f"{row['truly_yes']}/{row['truth_known']}" if row["truth_known"] else "-"
                lines.append(
                    f"{seed:<4} {name:<11} {row['round']:<14} {row['selected']:>5}  {true:>8}  {row['total']:>5}  "
                    f"{row['success']:5.1f} ± {row['success_error']:3.1f}  {row['psnr']:5.2f} ± {row['psnr_error']:.2f}"
                )
            found = opened.result("test", len(opened.recipe.rounds))
            if found:
                last[seed, name] = found["yes"]
    for name in ARMS[:-1]:
        pairs = [
            (one, other)
            for seed in range(1, seeds + 1)
            if (seed, name) in last and (seed, ARMS[-1]) in last
            for one, other in zip(last[seed, ARMS[-1]], last[seed, name], strict=True)
        ]
        if pairs:
            away = [int(one) - int(other) for one, other in pairs]
            mean = sum(away) / len(away)
            error = (sum((value - mean) ** 2 for value in away) / max(1, len(away) - 1) / len(away)) ** 0.5
            lines.append(
                f"loop - {name}: {100 * mean:+.1f} ± {100 * error:.1f} points of success on {len(away)} scenes"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", default=str(ROOT.parent / "shared" / "assets" / "photos"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=2)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    folder = given.folder.absolute()
    for seed in range(1, given.seeds + 1):
        scenes = ["-m", "benchmarks.loop_scenes", str(folder / f"scenes-{seed}"), "--seed", str(seed)]
        if not (folder / f"scenes-{seed}" / "plan.json").exists():
            subprocess.run([sys.executable, *scenes, "--photos", given.photos], check=True, cwd=ROOT)
    with ThreadPoolExecutor(given.at_once) as pool:
        jobs = [pool.submit(arm, folder, seed, name) for name in reversed(ARMS) for seed in range(1, given.seeds + 1)]
        for job in jobs:
            job.result()
    told = table(folder, given.seeds)
    (folder / "table.txt").write_text(told + "\n")
    print(told)
    print(json.dumps({"folder": str(folder), "seeds": given.seeds}))


if __name__ == "__main__":
    main()
