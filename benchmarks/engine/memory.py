"""Peak memory of the driver and its workers together, for 2,000 and for 8,000 records. Goal: flat."""

from benchmarks.common import rasura, recipe, say, scratch


def main() -> None:
    peaks = {}
    for rows in (2000, 8000):
        with scratch() as folder:
            source = {"synthetic:Numbers": {"count": rows, "side": 192}}
            flows = {"made": {"source": source, "stages": ["synthetic:Triplet"]}}
            path = recipe(folder, flows=flows, dataset={"flows": ["made"], "shard_bytes": 50_000_000})
            _, peaks[rows] = rasura("run", path, "--into", folder / "run", "--quiet", memory=True)
    say(
        "memory",
        peak_mb_2000=round(peaks[2000]),
        peak_mb_8000=round(peaks[8000]),
        ratio=round(peaks[8000] / peaks[2000], 3),
    )


if __name__ == "__main__":
    main()
