"""Utilization of slow stages between CPU stages: each sleeps for 0.2 s per 8 pictures in place of a GPU.

Once one such stage, and once two, each with a card of its own (Ray is told that there are two). Goal: each is busy for
at least 90 % of the time from its first batch to its last.

    python -m benchmarks busy
"""

from pathlib import Path
from typing import Any

from benchmarks.common import make_scratch_folder, print_result, run_rasura, write_recipe

ROWS, SIDE = 768, 512


def read_use(log: Path) -> dict[str, Any]:
    """Read when a stage slept: its batches, how many of them were full, and the share of the time that it was busy."""
    batches = sorted(tuple(map(float, line.split())) for line in log.read_text().splitlines())
    span = batches[-1][1] - batches[0][0]
    return {
        "batches": len(batches),
        "full_batches": sum(size == 8 for *_, size in batches),
        "busy": round(sum(end - start for start, end, _ in batches) / span, 3),
        "span_seconds": round(span, 1),
    }


def measure(count: int) -> None:
    """Run a recipe with `count` slow stages between CPU stages and print their use."""
    with make_scratch_folder() as folder:
        light = {"synthetic:Work": {"rounds": 1}}
        logs = [folder / f"batches{index}.txt" for index in range(count)]
        stages: list[dict[str, Any]] = [light]
        for log in logs:
            slow = {"log": str(log), "resources": {"cpus": 0, "gpus": 1}}  # a sleeping stage needs no core
            stages += [{"synthetic:SlowDevice": slow}, light]
        flows = {"rows": {"source": {"synthetic:Numbers": {"count": ROWS, "side": SIDE}}, "stages": stages}}
        path = write_recipe(folder, flows=flows, engine={"shard_rows": 8, "queue": 3})
        wall, _ = run_rasura("run", path, "--into", folder / "run", "--quiet", RASURA_RESOURCES=f"GPU={count}")
        uses = [read_use(log) for log in logs]
        print_result("busy", slow_stages=count, rows=ROWS, wall_seconds=round(wall, 1), stages=uses)


def main() -> None:
    measure(1)
    measure(2)


if __name__ == "__main__":
    main()
