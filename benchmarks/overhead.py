"""The run against a bare loop over the same functions, and two cores against one.

Measured from the first shard handed out to the last commit; start-up is reported beside it. Goals: at most 10 % over
the bare loop; two cores do at least 1.8 times the work of one.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import cv2

from benchmarks.common import events, rasura, recipe, say, scratch
from manifests.shards import commit
from manifests.storage import Store
from pipeline.plan import plan, shards
from pipeline.recipe import load
from pipeline.work import Blame, Shipment, Watch, encode, run_group
from stages.stage import Source

ROWS, SIDE, ROUNDS = 384, 512, 4
REPEATS = 3


def _flows() -> dict[str, Any]:
    source = {"synthetic:Numbers": {"count": ROWS, "side": SIDE}}
    return {"made": {"source": source, "stages": [{"synthetic:Work": {"rounds": ROUNDS}}]}}


def bare(path: Path, into: Path) -> float:
    """Seconds of a plain loop in this process: same stages, same encoding, same commit."""
    cv2.setNumThreads(1)
    resolved = plan(*load(path))
    flow = resolved.flows["made"]
    (group,) = flow.groups
    stages = [spec.make() for spec in group.stages]
    for stage in stages:
        assert isinstance(stage, Source) or stage.name
        stage.setup()
    work = shards(flow, resolved.sources["made"], Store(into))
    start = time.perf_counter()
    for shard in work:
        items = list(shard.items)
        done = run_group(group, stages, Shipment(items, len(items)), Blame(), Watch(), flow.splits)
        table, failed, count = encode(done, flow.columns)
        dropped = [*done.dropped, *failed]
        commit(Store(into / "made"), shard.id, flow.part, done.inputs, table, dropped, [*done.stages, count])
    return time.perf_counter() - start


def engine(path: Path, into: Path, workers: int) -> tuple[float, float]:
    """Seconds of work, and of start-up and shut-down, of a run."""
    wall, _ = rasura("run", path, "--into", into, "--quiet", "--set", f"engine.workers={workers}")
    (flow,) = events(into, "flow")
    return flow["working_seconds"], wall - flow["working_seconds"]


def main() -> None:
    with scratch() as folder:
        path = recipe(folder, flows=_flows(), engine={"shard_rows": 8, "workers": 1})
        loops, ones, twos, starts = [], [], [], []
        for repeat in range(REPEATS):
            loops.append(bare(path, folder / f"bare{repeat}"))
            one, start = engine(path, folder / f"one{repeat}", 1)
            two, _ = engine(path, folder / f"two{repeat}", 2)
            ones.append(one)
            twos.append(two)
            starts.append(start)
        loop, one, two = (statistics.median(values) for values in (loops, ones, twos))
        say(
            "overhead",
            rows=ROWS,
            bare_seconds=round(loop, 2),
            run_seconds=round(one, 2),
            overhead=round(one / loop - 1, 3),
            two_cores_speedup=round(one / two, 2),
            startup_seconds=round(statistics.median(starts), 1),
            all_bare=[round(value, 2) for value in loops],
            all_one=[round(value, 2) for value in ones],
            all_two=[round(value, 2) for value in twos],
        )


if __name__ == "__main__":
    main()
