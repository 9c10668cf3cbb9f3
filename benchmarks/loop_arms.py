"""Success and PSNR of the tiny loop against three controls with equal training steps, on two seeds.

  nothing           train on the initial triplets alone
  everything        add a candidate of every scene, good or bad
  humans            add the candidates that the oracle, in place of people, accepts, and none of automatic rounds
  precision_target  the loop: add these, and those that the discriminator accepts at the precision target

  python -m benchmarks.loop_arms FOLDER [--photos FOLDER] [--seeds 2] [--at-once 2]        (make loop-demo)

All arms of a seed share the scenes, the remover's first training and, where they need it, the first discriminator. An
interrupted measurement in FOLDER continues. All arms are tested on the same scenes, so that their differences are
computed scene by scene; errors are over the scenes.
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

ARMS = ("nothing", "everything", "humans", "precision_target")
NAMES = dict(zip(ARMS, ("initial set only", "everything kept", "human rounds only", "the loop"), strict=True))
RECIPE = ROOT / "recipes" / "loop-demo.yaml"
RUN_LOOP = """
import sys
from rasura.pipeline.loop.recipe import load
from rasura.pipeline.loop.runner import run_loop
run_loop(load(sys.argv[1]), sys.argv[2])
"""


def make_scenes(folder: Path, seed: int, photos: str) -> None:
    """Make the scenes of a seed."""
    out = folder / f"scenes-{seed}"
    if not (out / "plan.json").exists():
        arguments = ["-m", "benchmarks.loop_scenes", str(out), "--seed", str(seed), "--photos", photos]
        run_python(arguments, folder / f"scenes-{seed}.log")


def train_first_discriminator(folder: Path) -> None:
    """Train the first discriminator of all loops; its photographs are in no seed's rounds or tests."""
    if not (folder / "start" / "judge" / "judge.json").exists():
        arguments = ["-m", "benchmarks.loop_start", str(folder / "scenes-1"), str(folder / "start")]
        run_python(arguments, folder / "start.log")


def run_python(arguments: Sequence[str], log: Path) -> None:
    """Run Python in a process of its own, and append its output to a file.

    Raises:
        SystemExit: the process failed.
    """
    with log.open("a") as out:
        if subprocess.run([sys.executable, *arguments], stdout=out, stderr=out, cwd=ROOT).returncode:
            raise SystemExit(f"{' '.join(arguments)[:200]} failed; see the end of '{log}'")


def prepare_seed(folder: Path, seed: int, photos: str) -> None:
    """Make a seed's scenes, run its first arm, and copy the steps that the other arms share with it."""
    make_scenes(folder, seed, photos)
    run_arm(folder, seed, ARMS[0])
    share_start(folder, seed)


def share_start(folder: Path, seed: int) -> None:
    """Copy the first arm's steps before any round to the other arms, whose recipes do not change them."""
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


def run_arm(folder: Path, seed: int, name: str) -> None:
    """Run an arm, or continue it."""
    recipe = yaml.safe_load(RECIPE.read_text()) | {"seed": seed, "keep": name}
    for part in ("initial", "pool", "test"):
        recipe[part] = [{**recipe[part][0], "run": str(folder / f"scenes-{seed}")}]
    recipe["discriminator"]["start"] = str(folder / "start" / "judge")
    file = folder / f"{seed}-{name}.yaml"
    file.write_text(yaml.safe_dump(recipe))
    run_python(["-c", RUN_LOOP, str(file), str(folder / f"{seed}-{name}")], folder / f"{seed}-{name}.log")


def make_table(folder: Path, seeds: int) -> str:
    """Make the table of every arm's rounds, and of the differences between the loop and each control."""
    from rasura.pipeline.loop.results import TestResult
    from rasura.pipeline.loop.state import Loop
    from rasura.pipeline.loop.table import build_rows

    lines = ["seed arm              round           kept  true yes  total  success %      PSNR hole"]
    last: dict[tuple[int, str], list[bool]] = {}
    for seed in range(1, seeds + 1):
        for name in ARMS:
            loop = Loop.open(str(folder / f"{seed}-{name}"))
            for row in (entry.to_json() for entry in build_rows(loop)):
                if row["success"] is None:
                    continue
                correct = f"{row['truly_yes']}/{row['truth_known']}" if row["truth_known"] else "-"
                lines.append(
                    f"{seed:<4} {name:<16} {row['round']:<14} {row['selected']:>5}  {correct:>8}  {row['total']:>5}  "
                    f"{row['success']:5.1f} ± {row['success_error']:3.1f}  {row['psnr']:5.2f} ± {row['psnr_error']:.2f}"
                )
            result = loop.read_result(TestResult, len(loop.recipe.rounds))
            if result:
                last[seed, name] = [bool(yes) for yes in result.yes or ()]
    for name in ARMS[:-1]:
        pairs = [
            (yes, control_yes)
            for seed in range(1, seeds + 1)
            if (seed, name) in last and (seed, ARMS[-1]) in last
            for yes, control_yes in zip(last[seed, ARMS[-1]], last[seed, name], strict=True)
        ]
        if pairs:
            differences = [int(yes) - int(control_yes) for yes, control_yes in pairs]
            mean = sum(differences) / len(differences)
            variance = sum((value - mean) ** 2 for value in differences) / max(1, len(differences) - 1)
            error = (variance / len(differences)) ** 0.5
            points = f"{100 * mean:+.1f} ± {100 * error:.1f} points of success"
            lines.append(f"loop - {name}: {points} on {len(differences)} scenes")
    return "\n".join(lines)


def draw_chart(folder: Path, seeds: int) -> str:
    """Draw success and PSNR in the hole by round, the mean of the seeds, as SVG."""
    from rasura.pipeline.loop.state import Loop
    from rasura.pipeline.loop.table import build_rows
    from rasura.pipeline.report import loop_charts

    lines: dict[str, dict[str, list[tuple[float, float]]]] = {"success": {}, "psnr": {}}
    errors: dict[str, dict[str, list[float]]] = {"success": {}, "psnr": {}}
    for name in ARMS:
        loops = [Loop.open(str(folder / f"{seed}-{name}")) for seed in range(1, seeds + 1)]
        tables = [[row.to_json() for row in build_rows(loop)] for loop in loops]
        for figure in lines:
            rounds = list(enumerate(zip(*tables, strict=True)))
            lines[figure][NAMES[name]] = [
                (float(position), sum(row[figure] for row in rows) / seeds) for position, rows in rounds
            ]
            errors[figure][NAMES[name]] = [
                sum(row[f"{figure}_error"] ** 2 for row in rows) ** 0.5 / seeds for _, rows in rounds
            ]
    round_names = ["init", "h1", "a1", "h2", "a2"]
    axes = {
        "success": ("Success", "% of the test scenes", (20.0, 45.0)),
        "psnr": ("Closeness", "PSNR in the hole, dB", (17.5, 20.0)),
    }
    panels = [
        loop_charts.draw_panel(
            title,
            "h: human round, a: automatic",
            label,
            lines[figure],
            (0, low),
            (len(round_names) - 1.0, high),
            names=round_names,
            errors=errors[figure],
        )
        for figure, (title, label, (low, high)) in axes.items()
    ]
    return loop_charts.draw_page(panels, legend=len(ARMS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", default=str(ROOT.parent / "shared" / "assets" / "photos"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=2)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    folder = arguments.folder.absolute()
    seeds = range(1, arguments.seeds + 1)
    start = time.monotonic()

    with ThreadPoolExecutor(arguments.at_once) as pool:

        def wait(jobs: Iterable[Future[None]], message: str) -> None:
            for job in jobs:
                job.result()
            print(f"{(time.monotonic() - start) / 60:5.1f} min  {message}", flush=True)

        # first, since the rendered scenes are the same for all seeds and are cached
        wait([pool.submit(make_scenes, folder, 1, arguments.photos)], "scenes")
        starts = [pool.submit(prepare_seed, folder, seed, arguments.photos) for seed in seeds]
        discriminator = pool.submit(train_first_discriminator, folder)
        wait(starts, f"arm '{ARMS[0]}'")
        # the loop is last, since it needs the first discriminator
        others = {name: [pool.submit(run_arm, folder, seed, name) for seed in seeds] for name in ARMS[1:-1]}
        wait([discriminator], "the first discriminator")
        loops = [pool.submit(run_arm, folder, seed, ARMS[-1]) for seed in seeds]
        for name, jobs in others.items():
            wait(jobs, f"arm '{name}'")
        wait(loops, "the loop")
    table = make_table(folder, arguments.seeds)
    (folder / "table.txt").write_text(table + "\n")
    (folder / "arms.svg").write_text(draw_chart(folder, arguments.seeds))
    print(table)
    print(json.dumps({"folder": str(folder), "seeds": arguments.seeds}))


if __name__ == "__main__":
    main()
