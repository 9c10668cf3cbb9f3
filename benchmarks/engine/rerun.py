"""Seconds to run a finished run of 100,000 rows again. Goal: under 10 s.

The rows are small, so that the first run is quick; the measured work (listing the source, comparing shard ids, reading
the manifests, checking the dataset) depends on their number, not on their size.

    python -m benchmarks rerun
"""

from benchmarks.common import make_scratch_folder, print_result, run_rasura, write_recipe

ROWS = 100_000


def main() -> None:
    with make_scratch_folder() as folder:
        flows = {
            "triplets": {
                "source": {"synthetic:Numbers": {"count": ROWS, "side": 16}},
                "stages": [{"synthetic:Triplet": {"reject_every": 1000, "raise_every": 1000}}],
            },
            "selected": {
                "source": {"flow": {"of": "triplets"}},
                "stages": [{"select": {"keep": {"number": {"min": 0}}}}],
            },
        }
        path = write_recipe(folder, flows=flows, dataset={"flows": ["selected"]}, engine={"shard_rows": 64})
        first_seconds, _ = run_rasura("run", path, "--into", folder / "run", "--quiet", track_memory=True)
        again_seconds, peak = run_rasura("run", path, "--into", folder / "run", "--quiet", track_memory=True)
        print_result(
            "rerun",
            rows=ROWS,
            first_seconds=round(first_seconds, 1),
            again_seconds=round(again_seconds, 2),
            driver_mb=round(peak),
        )


if __name__ == "__main__":
    main()
