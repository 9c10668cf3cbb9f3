"""Four arms of the tiny loop with equal training steps, on two seeds: does the loop help, and what of it?

  nothing     the initial triplets alone
  everything  a candidate of every scene, good or not
  humans      what the oracle, in people's place, accepts; nothing of the automatic rounds
  promise     the loop: and what the judge promises

  python -m benchmarks.loop_arms FOLDER [--photos FOLDER] [--seeds 2] [--at-once 2]        (make loop-demo)
All arms of a seed share the scenes, the remover's first training and, where they need one, the judge that they begin
with. A folder that was begun goes on. Errors are those of the test scenes; all arms are tested on the same ones, so
their difference is judged scene by scene.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import yaml

from benchmarks.common import ROOT

ARMS = ("nothing", "everything", "humans", "promise")
NAMES = dict(zip(ARMS, ("initial set only", "everything kept", "human rounds only", "the loop"), strict=True))
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


def scenes(folder: Path, seed: int, photos: str) -> None:
    """A seed's scenes."""
    out = folder / f"scenes-{seed}"
    if not (out / "plan.json").exists():
        arguments = ["-m", "benchmarks.loop_scenes", str(out), "--seed", str(seed), "--photos", photos]
        call(arguments, folder / f"scenes-{seed}.log")


def first_judge(folder: Path) -> None:
    """The judge that the loops begin with: its photographs are in no seed's rounds or tests."""
    if not (folder / "start" / "judge" / "judge.json").exists():
        arguments = ["-m", "benchmarks.loop_start", str(folder / "scenes-1"), str(folder / "start")]
        call(arguments, folder / "start.log")


def call(arguments: Sequence[str], log: Path) -> None:
    """A Python process of its own; what it says goes to a file.

    Raises:
        SystemExit: it failed.
    """
    with log.open("a") as out:
        if subprocess.run([sys.executable, *arguments], stdout=out, stderr=out, cwd=ROOT).returncode:
            raise SystemExit(f"{' '.join(arguments)[:200]} failed; its last words are in {log}")


def start(folder: Path, seed: int, photos: str) -> None:
    """A seed's scenes, its first arm, and what the others share with it."""
    scenes(folder, seed, photos)
    arm(folder, seed, ARMS[0])
    share_start(folder, seed)


def share_start(folder: Path, seed: int) -> None:
    """Gives the other arms what the first one has of the steps before any round: no arm's recipe touches them."""
    first = folder / f"{seed}-{ARMS[0]}"
    for name in ARMS[1:]:
        other = folder / f"{seed}-{name}"
        if not other.exists():
            part = folder / f"{seed}-{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            for path in (*first.glob("*.json"), first / "codec.safetensors", *(first / "steps").glob("00-*.json")):
                if path.name != "loop.json":
                    (part / path.relative_to(first)).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, part / path.relative_to(first))
            shutil.copytree(first / "removers" / "00", part / "removers" / "00")
            part.rename(other)


def arm(folder: Path, seed: int, name: str) -> None:
    """Runs one arm, or goes on with it."""
    told = yaml.safe_load(RECIPE.read_text()) | {"seed": seed, "keep": name}
    for part in ("initial", "pool", "test"):
        told[part] = [{**told[part][0], "run": str(folder / f"scenes-{seed}")}]
    told["judge"]["start"] = str(folder / "start" / "judge")
    file = folder / f"{seed}-{name}.yaml"
    file.write_text(yaml.safe_dump(told))
    call(["-c", ONE, str(file), str(folder / f"{seed}-{name}")], folder / f"{seed}-{name}.log")


def table(folder: Path, seeds: int) -> str:
    """Every arm's rounds, with what was kept and truly yes; then the loop against each control."""
    from rasura.pipeline.loop.state import Loop
    from rasura.pipeline.loop.table import rows

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


def chart(folder: Path, seeds: int) -> str:
    """Success and PSNR in the hole by round, the mean of the seeds, as an SVG file."""
    from rasura.pipeline.loop.state import Loop
    from rasura.pipeline.loop.table import rows
    from rasura.pipeline.report import loop_charts

    lines: dict[str, dict[str, list[tuple[float, float]]]] = {"success": {}, "psnr": {}}
    errors: dict[str, dict[str, list[float]]] = {"success": {}, "psnr": {}}
    for name in ARMS:
        found = [rows(Loop.open(folder / f"{seed}-{name}")) for seed in range(1, seeds + 1)]
        for what in lines:
            rounds = list(enumerate(zip(*found, strict=True)))
            lines[what][NAMES[name]] = [(float(at), sum(one[what] for one in ones) / seeds) for at, ones in rounds]
            errors[what][NAMES[name]] = [
                sum(one[f"{what}_error"] ** 2 for one in ones) ** 0.5 / seeds for _, ones in rounds
            ]
    across = ["init", "h1", "a1", "h2", "a2"]
    told = {
        "success": ("Success", "% of the test scenes", (20.0, 45.0)),
        "psnr": ("Closeness", "PSNR in the hole, dB", (17.5, 20.0)),
    }
    panels = [
        loop_charts.panel(
            title, "h: human round, a: automatic", up, lines[what], (0, low), (len(across) - 1.0, high), names=across,
            errors=errors[what],
        )
        for what, (title, up, (low, high)) in told.items()
    ]  # fmt: skip
    return loop_charts.page(panels, legend=len(ARMS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", default=str(ROOT.parent / "shared" / "assets" / "photos"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=2)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    folder = given.folder.absolute()
    seeds = range(1, given.seeds + 1)
    began = time.monotonic()

    with ThreadPoolExecutor(given.at_once) as pool:

        def wait(jobs: Iterable[Future[None]], told: str) -> None:
            for job in jobs:
                job.result()
            print(f"{(time.monotonic() - began) / 60:5.1f} min  {told}", flush=True)

        # the rendered scenes are the same for all seeds: rendered once, they are at hand
        wait([pool.submit(scenes, folder, 1, given.photos)], "scenes")
        starts = [pool.submit(start, folder, seed, given.photos) for seed in seeds]
        judge = pool.submit(first_judge, folder)
        wait(starts, f"arm '{ARMS[0]}'")
        # the loop last: by then there is the judge that it begins with
        others = {name: [pool.submit(arm, folder, seed, name) for seed in seeds] for name in ARMS[1:-1]}
        wait([judge], "the judge to begin with")
        loops = [pool.submit(arm, folder, seed, ARMS[-1]) for seed in seeds]
        for name, jobs in others.items():
            wait(jobs, f"arm '{name}'")
        wait(loops, "the loop")
    told = table(folder, given.seeds)
    (folder / "table.txt").write_text(told + "\n")
    (folder / "arms.svg").write_text(chart(folder, given.seeds))
    print(told)
    print(json.dumps({"folder": str(folder), "seeds": given.seeds}))


if __name__ == "__main__":
    main()
