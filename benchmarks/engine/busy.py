"""Utilization of a slow stage between two CPU stages, which sleeps for 0.2 s per 8 pictures in place of a GPU.

Goal: busy for at least 90 % of the time from its first batch to its last.

    python -m benchmarks busy
"""

from benchmarks.common import make_scratch_folder, print_result, run_rasura, write_recipe

ROWS, SIDE = 768, 512


def main() -> None:
    with make_scratch_folder() as folder:
        log = folder / "batches.txt"
        light = {"synthetic:Work": {"rounds": 1}}
        stages = [light, {"synthetic:SlowDevice": {"log": str(log)}}, light]
        flows = {"rows": {"source": {"synthetic:Numbers": {"count": ROWS, "side": SIDE}}, "stages": stages}}
        path = write_recipe(folder, flows=flows, engine={"shard_rows": 8, "queue": 3})
        wall, _ = run_rasura("run", path, "--into", folder / "run", "--quiet", RASURA_RESOURCES="device=1")
        batches = [tuple(map(float, line.split())) for line in log.read_text().splitlines()]
        batches.sort()
        span = batches[-1][1] - batches[0][0]
        busy = sum(end - start for start, end, _ in batches)
        print_result(
            "busy",
            rows=ROWS,
            full_batches=sum(size == 8 for *_, size in batches),
            batches=len(batches),
            busy=round(busy / span, 3),
            span_seconds=round(span, 1),
            wall_seconds=round(wall, 1),
        )


if __name__ == "__main__":
    main()
