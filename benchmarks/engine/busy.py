"""How busy a slow stage between two CPU stages is kept: it sleeps 0.2 s per 8 pictures in a GPU's place.

Goal: at least 90 % of the time from its first batch to its last.
"""

from benchmarks.common import rasura, recipe, say, scratch

ROWS, SIDE = 768, 512


def main() -> None:
    with scratch() as folder:
        log = folder / "batches.txt"
        light = {"synthetic:Work": {"rounds": 1}}
        stages = [light, {"synthetic:SlowDevice": {"log": str(log)}}, light]
        flows = {"made": {"source": {"synthetic:Numbers": {"count": ROWS, "side": SIDE}}, "stages": stages}}
        path = recipe(folder, flows=flows, engine={"shard_rows": 8, "queue": 3})
        wall, _ = rasura("run", path, "--into", folder / "run", "--quiet", RASURA_RESOURCES="device=1")
        batches = [tuple(map(float, line.split())) for line in log.read_text().splitlines()]
        batches.sort()
        span = batches[-1][1] - batches[0][0]
        asleep = sum(end - start for start, end, _ in batches)
        say(
            "busy",
            rows=ROWS,
            full_batches=sum(size == 8 for *_, size in batches),
            batches=len(batches),
            busy=round(asleep / span, 3),
            span_seconds=round(span, 1),
            wall_seconds=round(wall, 1),
        )


if __name__ == "__main__":
    main()
