"""Peak memory of the driver and its workers together, for 2,000 and for 8,000 records. Goal: no growth.

python -m benchmarks memory
"""

from benchmarks.common import make_scratch_folder, print_result, run_rasura, write_recipe


def main() -> None:
    peaks = {}
    for rows in (2000, 8000):
        with make_scratch_folder() as folder:
            source = {"synthetic:Numbers": {"count": rows, "side": 192}}
            flows = {"triplets": {"source": source, "stages": ["synthetic:Triplet"]}}
            path = write_recipe(folder, flows=flows, dataset={"flows": ["triplets"], "shard_bytes": 50_000_000})
            _, peaks[rows] = run_rasura("run", path, "--into", folder / "run", "--quiet", track_memory=True)
    print_result(
        "memory",
        peak_mb_2000=round(peaks[2000]),
        peak_mb_8000=round(peaks[8000]),
        ratio=round(peaks[8000] / peaks[2000], 3),
    )


if __name__ == "__main__":
    main()
