"""A study of the tiny loop that can show a gain: votes, triplets and success, over several training seeds.

  python -m benchmarks loop_study [--folder FOLDER] [--minutes 120] [--seeds 4] [--at-once 2] [--factor 1]

Three parts. The curve: a remover that is trained long on 60 to 1,000 triplets, against success; where it is flat, more
triplets cannot help. The arms: people alone who are asked for all candidates, people who are asked best first, and the
loop with spot checks, at equal votes. The discriminator: 100 to 3,000 votes against AUC and yield.

It stops after so many minutes; the same command goes on, also from results that were copied into FOLDER/results, such
as those of benchmarks/results/loop_study, of which a table is made when all seeds are there. Errors are over training
seeds and test scenes together, which are the same for all seeds. On two idle cores a seed takes about an hour, half of
it for the arms.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import loop_arms
from benchmarks.common import ROOT

CURVE = (60, 125, 250, 500, 1000)
VOTES = (100, 300, 1000, 3000)
"""Triplets of the curve, and votes of the discriminators."""
ARMS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "humans": [{"kind": "human", "count": count} for count in (88, 88, 87, 87)],
    "best_first": [{"kind": "human", "count": 100}, *3 * [{"kind": "human", "count": 193, "ask": "best_first"}]],
    "loop": [
        {"kind": "human", "count": 167},
        {"kind": "auto", "count": 500, "spot_check": 60},
        {"kind": "human", "count": 167},
        {"kind": "auto", "count": 500, "spot_check": 60},
    ],
}
"""Rounds of each arm, for about 2,800 votes of eight candidates a scene; all have as many steps of training."""

Unit = tuple[str, str, int]
"""Kind, size and seed."""
LEAST_S = 20.0
"""A unit is not begun where less is left."""


def compute_error(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Compute the mean of values (seeds, scenes), and its standard error over random seeds and random scenes.

    The variance is that of the seeds' means over their number plus that of the scenes' means over theirs, less what
    both count: the residual over the number of values. It is at least the larger of the first two.

    Examples:
        >>> mean, error = compute_error(np.array([[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0]]))
        >>> mean, round(error, 3)
        (0.5, 0.289)
    """
    seeds, scenes = values.shape
    by_seed, by_scene = values.mean(axis=1), values.mean(axis=0)
    residual = values - by_seed[:, None] - by_scene + values.mean()
    of_seeds = float(by_seed.var(ddof=1) / seeds) if seeds > 1 else 0.0
    of_scenes = float(by_scene.var(ddof=1) / scenes) if scenes > 1 else 0.0
    freedom = (seeds - 1) * (scenes - 1)
    of_both = float((residual**2).sum() / freedom / values.size) if freedom else 0.0
    return float(values.mean()), max(of_seeds + of_scenes - of_both, of_seeds, of_scenes) ** 0.5


def list_units(seeds: int) -> Iterator[Unit]:
    """Yield the units, the arms first, seed by seed, so that a part is a smaller study."""
    yield "candidates", "0", 0
    yield from (("arm", name, seed) for seed in range(1, seeds + 1) for name in ARMS)
    for seed in range(1, seeds + 1):
        yield from (("curve", str(size), seed) for size in CURVE)
        yield from (("judge", str(size), seed) for size in VOTES)


class Results:
    """The results so far, in a study's folder."""

    def __init__(self, folder: Path, seeds: int) -> None:
        self.folder, self.seeds = folder, range(1, seeds + 1)

    def locate(self, unit: Unit) -> Path:
        """Return the file of a unit's result."""
        kind, size, seed = unit
        return self.folder / "results" / f"{kind}-{size}-{seed}.json"

    def read(self, kind: str, size: object) -> dict[int, dict[str, Any]]:
        """Read the results of all seeds, by seed."""
        files = {seed: self.locate((kind, str(size), seed)) for seed in self.seeds}
        return {seed: json.loads(file.read_text()) for seed, file in files.items() if file.is_file()}


def stack_success(results: Sequence[dict[str, Any]]) -> npt.NDArray[np.float64]:
    """Stack the verdicts (seeds, scenes) in percent; a scene that could not be filled is no success."""
    return 100 * np.array([[bool(yes) for yes in result["yes"]] for result in results], float)


def describe(results: Results) -> str:
    """Describe all results as tables."""
    lines = ["triplets      success %     PSNR hole   seeds"]
    for size in CURVE:
        if rows := [*results.read("curve", size).values()]:
            mean, error = compute_error(stack_success(rows))
            psnr = np.mean([row["psnr"] for row in rows])
            lines.append(f"{rows[0]['triplets']:<10} {mean:7.1f} ± {error:3.1f}  {psnr:9.2f}  {len(rows):>5}")
    lines += ["", "arm         votes  triplets  true yes      success %     PSNR hole   seeds"]
    arms = {name: results.read("arm", name) for name in ARMS}
    for name, by_seed in arms.items():
        if rows := [*by_seed.values()]:
            mean, error = compute_error(stack_success(rows))
            counts = [float(np.mean([row[key] for row in rows])) for key in ("votes", "triplets", "true_yes", "psnr")]
            figures = f"{counts[0]:7,.0f}  {counts[1]:8,.0f}  {counts[2]:8,.0f}  {mean:9.1f} ± {error:3.1f}"
            lines.append(f"{name:<10} {figures}  {counts[3]:9.2f}  {len(rows):>5}")
    for name in list(ARMS)[1:]:
        if common := sorted(set(arms[name]) & set(arms["humans"])):
            parts = [stack_success([arms[arm][seed] for seed in common]) for arm in (name, "humans")]
            mean, error = compute_error(parts[0] - parts[1])
            lines.append(f"{name} - humans: {mean:+.1f} ± {error:.1f} points of success, {len(common)} seeds")
    lines += ["", "votes    AUC    true yes among the scenes' best   right at .8   kept (true)   seeds"]
    for size in VOTES:
        if rows := [*results.read("judge", size).values()]:
            keys = ("auc", "yes_of_best", "scenes", "right_prefix", "kept", "kept_yes")
            auc, best, scenes, prefix, kept, true = (float(np.mean([row[key] for row in rows])) for key in keys)
            figures = f"{auc:.3f}  {best:12.0f} of {scenes:4.0f}           {prefix:8.0f}   {kept:8.0f} ({true:.0f})"
            lines.append(f"{rows[0]['votes']:<6} {figures}  {len(rows):>8}")
    return "\n".join(lines)


def run_unit(results: Results, unit: Unit, factor: float, deadline: float) -> str:
    """Run a unit in a process of its own, until the deadline; return what became of it in a word."""
    left = deadline - time.monotonic()
    if left < LEAST_S:
        return "not begun"
    kind, size, seed = unit
    command = [sys.executable, "-m", "benchmarks.loop_units", str(results.folder), kind, size, str(seed)]
    with (results.folder / f"{kind}-{size}-{seed}.log").open("a") as log:
        process = subprocess.Popen([*command, "--factor", str(factor)], stdout=log, stderr=log, cwd=ROOT)
        try:
            process.wait(left)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
            return "interrupted"
    return "done" if process.returncode == 0 else f"failed: see {log.name}"


def prepare(folder: Path, photos: str, factor: float) -> None:
    """Make the scenes and the first discriminator, as those of `make loop-demo`."""
    loop_arms.make_scenes(folder, 1, photos)
    if not (folder / "start" / "judge" / "judge.json").exists():
        steps = ["--steps", str(max(2, round(1200 * factor)))] if factor < 1 else []
        arguments = ["-m", "benchmarks.loop_start", str(folder / "scenes-1"), str(folder / "start"), *steps]
        loop_arms.run_python(arguments, folder / "start.log")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "loop-study")
    parser.add_argument("--photos", default=str(ROOT.parent / "shared" / "assets" / "photos"))
    parser.add_argument("--minutes", type=float, default=120.0, help="stop after so many; the same command goes on")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--factor", type=float, default=1.0, help="multiplies steps, scenes and votes, to try it out")
    arguments = parser.parse_args()
    deadline = time.monotonic() + 60 * arguments.minutes
    results = Results(arguments.folder.absolute(), arguments.seeds)
    (results.folder / "results").mkdir(parents=True, exist_ok=True)
    prepare(results.folder, arguments.photos, arguments.factor)
    todo = [unit for unit in list_units(arguments.seeds) if not results.locate(unit).is_file()]

    def run(unit: Unit) -> str:
        state = run_unit(results, unit, arguments.factor, deadline)
        print(f"{' '.join(map(str, unit))}: {state}", flush=True)
        return state

    before = [unit for unit in todo if unit[0] == "candidates"]  # the others need them
    states = [run(unit) for unit in before]
    with ThreadPoolExecutor(arguments.at_once) as pool:
        states += pool.map(run, todo[len(before) :])
    text = describe(results)
    (results.folder / "study.txt").write_text(text + "\n")
    print(text)
    remaining = [unit for unit in list_units(arguments.seeds) if not results.locate(unit).is_file()]
    print(json.dumps({"folder": str(results.folder), "remaining": len(remaining), "factor": arguments.factor}))
    if any(state.startswith("failed") for state in states):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
