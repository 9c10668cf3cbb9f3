"""A run against a bare loop over the same functions, and two cores against one.

Measured from the first scheduled shard to the last commit; start-up is reported separately. Goals: an overhead of at
most 10 % over the bare loop; two cores do at least 1.8 times the work of one.

    python -m benchmarks overhead
"""

import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2

from benchmarks.common import make_scratch_folder, print_result, read_events, run_rasura, write_recipe
from rasura.manifests.shards import commit
from rasura.manifests.storage import Store
from rasura.pipeline.engine.execute import ActivityMonitor, PartialShard, Quarantine, encode_shard, run_group
from rasura.pipeline.recipe.load import load
from rasura.pipeline.recipe.plan import plan
from rasura.pipeline.recipe.shards import list_shards
from rasura.stages.stage import Source

ROWS, SIDE, ROUNDS = 1024, 512, 4
REPEATS = 3


def _make_flows() -> dict[str, Any]:
    source = {"synthetic:Numbers": {"count": ROWS, "side": SIDE}}
    return {"rows": {"source": source, "stages": [{"synthetic:Work": {"rounds": ROUNDS}}]}}


def run_bare_loop(path: Path, into: Path, share: tuple[int, int] = (0, 1)) -> tuple[float, float]:
    """Run the same stages, encoding and commits in a plain loop in this process.

    Args:
        path: the recipe.
        into: folder of the tables.
        share: (first, step) of the slice of the shards to process.

    Returns:
        Start and end, seconds since the epoch.
    """
    cv2.setNumThreads(1)
    resolved = plan(*load(path))
    flow = resolved.flows["rows"]
    (group,) = flow.groups
    stages = [spec.make() for spec in group.stages]
    for stage in stages:
        assert isinstance(stage, Source) or stage.name
        stage.setup()
    shards = list_shards(flow, resolved.sources["rows"], Store(into))[share[0] :: share[1]]
    start = time.time()
    for shard in shards:
        items = list(shard.items)
        result = run_group(group, stages, PartialShard(items, len(items)), Quarantine(), ActivityMonitor(), flow.splits)
        table, failed, count = encode_shard(result, flow.columns)
        rejected = [*result.dropped, *failed]
        commit(Store(into / "rows"), shard.id, flow.part, result.inputs, table, rejected, [*result.stages, count])
    return start, time.time()


def run_two_bare_loops(path: Path, into: Path) -> float:
    """Return the seconds of two bare loops side by side, half of the shards each: the bound of two cores here."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        spans = list(pool.map(run_bare_loop, [path] * 2, [into] * 2, [(0, 2), (1, 2)]))
    return max(end for _, end in spans) - min(start for start, _ in spans)


def run_engine(path: Path, into: Path, workers: int) -> tuple[float, float]:
    """Return the seconds of work, and of start-up and shut-down, of a run."""
    wall, _ = run_rasura("run", path, "--into", into, "--quiet", "--set", f"engine.workers={workers}")
    (flow,) = read_events(into, "flow")
    return flow["working_seconds"], wall - flow["working_seconds"]


def main() -> None:
    with make_scratch_folder() as folder:
        path = write_recipe(folder, flows=_make_flows(), engine={"shard_rows": 8, "workers": 1})
        bare_seconds, bare_pair_seconds, one_core_seconds, two_core_seconds, startup_seconds = [], [], [], [], []
        for repeat in range(REPEATS):
            begin, end = run_bare_loop(path, folder / f"bare{repeat}")
            bare_seconds.append(end - begin)
            bare_pair_seconds.append(run_two_bare_loops(path, folder / f"pair{repeat}"))
            working, startup = run_engine(path, folder / f"one{repeat}", 1)
            working, _ = run_engine(path, folder / f"two{repeat}", 2)
            one_core_seconds.append(working)
            startup_seconds.append(startup)
            two_core_seconds.append(working)
        timings = (bare_seconds, bare_pair_seconds, one_core_seconds, two_core_seconds)
        bare_mean, bare_pair_mean, one_core_mean, two_core_mean = map(statistics.fmean, timings)
        print_result(
            "overhead",
            rows=ROWS,
            bare_seconds=round(bare_mean, 2),
            run_seconds=round(one_core_mean, 2),
            overhead=round(one_core_mean / bare_mean - 1, 3),
            two_cores_speedup=round(one_core_mean / two_core_mean, 2),
            bare_two_cores_speedup=round(bare_mean / bare_pair_mean, 2),
            overhead_on_two=round(two_core_mean / bare_pair_mean - 1, 3),
            startup_seconds=round(statistics.median(startup_seconds), 1),
            all_bare=[round(value, 2) for value in bare_seconds],
            all_bare_on_two=[round(value, 2) for value in bare_pair_seconds],
            all_one=[round(value, 2) for value in one_core_seconds],
            all_two=[round(value, 2) for value in two_core_seconds],
        )


if __name__ == "__main__":
    main()
