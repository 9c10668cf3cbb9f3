"""The run against a bare loop over the same functions, and two cores against one.

Measured from the first shard handed out to the last commit; start-up is reported beside it. Goals: at most 10 % over
the bare loop; two cores do at least 1.8 times the work of one.
"""

import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2

from benchmarks.common import events, rasura, recipe, say, scratch
from rasura.manifests.shards import commit
from rasura.manifests.storage import Store
from rasura.pipeline.engine.execute import Blame, Shipment, Watch, encode, run_group
from rasura.pipeline.recipe.load import load
from rasura.pipeline.recipe.plan import plan, shards
from rasura.stages.stage import Source

ROWS, SIDE, ROUNDS = 1024, 512, 4
REPEATS = 3


def _flows() -> dict[str, Any]:
    source = {"synthetic:Numbers": {"count": ROWS, "side": SIDE}}
    return {"made": {"source": source, "stages": [{"synthetic:Work": {"rounds": ROUNDS}}]}}


def bare(path: Path, into: Path, share: tuple[int, int] = (0, 1)) -> tuple[float, float]:
    """Start and end of a plain loop in this process: same stages, same encoding, same commit.

    Args:
        share: (n, of): only every of-th shard, from the n-th.
    """
    cv2.setNumThreads(1)
    resolved = plan(*load(path))
    flow = resolved.flows["made"]
    (group,) = flow.groups
    stages = [spec.make() for spec in group.stages]
    for stage in stages:
        assert isinstance(stage, Source) or stage.name
        stage.setup()
    work = shards(flow, resolved.sources["made"], Store(into))[share[0] :: share[1]]
    start = time.time()
    for shard in work:
        items = list(shard.items)
        done = run_group(group, stages, Shipment(items, len(items)), Blame(), Watch(), flow.splits)
        table, failed, count = encode(done, flow.columns)
        dropped = [*done.dropped, *failed]
        commit(Store(into / "made"), shard.id, flow.part, done.inputs, table, dropped, [*done.stages, count])
    return start, time.time()


def bare_on_two(path: Path, into: Path) -> float:
    """Seconds of two such loops side by side, half of the shards each: what this machine's two cores can do."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        spans = list(pool.map(bare, [path] * 2, [into] * 2, [(0, 2), (1, 2)]))
    return max(end for _, end in spans) - min(start for start, _ in spans)


def engine(path: Path, into: Path, workers: int) -> tuple[float, float]:
    """Seconds of work, and of start-up and shut-down, of a run."""
    wall, _ = rasura("run", path, "--into", into, "--quiet", "--set", f"engine.workers={workers}")
    (flow,) = events(into, "flow")
    return flow["working_seconds"], wall - flow["working_seconds"]


def main() -> None:
    with scratch() as folder:
        path = recipe(folder, flows=_flows(), engine={"shard_rows": 8, "workers": 1})
        loops, pairs, ones, twos, starts = [], [], [], [], []
        for repeat in range(REPEATS):
            begin, end = bare(path, folder / f"bare{repeat}")
            loops.append(end - begin)
            pairs.append(bare_on_two(path, folder / f"pair{repeat}"))
            one, start = engine(path, folder / f"one{repeat}", 1)
            two, _ = engine(path, folder / f"two{repeat}", 2)
            ones.append(one)
            twos.append(two)
            starts.append(start)
        loop, pair, one, two = (statistics.fmean(values) for values in (loops, pairs, ones, twos))
        say(
            "overhead",
            rows=ROWS,
            bare_seconds=round(loop, 2),
            run_seconds=round(one, 2),
            overhead=round(one / loop - 1, 3),
            two_cores_speedup=round(one / two, 2),
            bare_two_cores_speedup=round(loop / pair, 2),
            overhead_on_two=round(two / pair - 1, 3),
            startup_seconds=round(statistics.median(starts), 1),
            all_bare=[round(value, 2) for value in loops],
            all_bare_on_two=[round(value, 2) for value in pairs],
            all_one=[round(value, 2) for value in ones],
            all_two=[round(value, 2) for value in twos],
        )


if __name__ == "__main__":
    main()
