"""Running a finished run of 100,000 rows again. Goal: under 10 s.

The rows are small, so that making them does not take long; what is measured (listing the source, comparing shard ids,
reading the manifests, checking the dataset) depends on their number, not on their size.
"""

from benchmarks.common import rasura, recipe, say, scratch

ROWS = 100_000


def main() -> None:
    with scratch() as folder:
        flows = {
            "made": {
                "source": {"synthetic:Numbers": {"count": ROWS, "side": 16}},
                "stages": [{"synthetic:Triplet": {"reject_every": 1000, "raise_every": 1000}}],
            },
            "chosen": {"source": {"flow": {"of": "made"}}, "stages": [{"select": {"keep": {"number": {"min": 0}}}}]},
        }
        path = recipe(folder, flows=flows, dataset={"flows": ["chosen"]}, engine={"shard_rows": 64})
        first, _ = rasura("run", path, "--into", folder / "run", "--quiet", memory=True)
        again, peak = rasura("run", path, "--into", folder / "run", "--quiet", memory=True)
        say("rerun", rows=ROWS, first_seconds=round(first, 1), again_seconds=round(again, 2), driver_mb=round(peak))


if __name__ == "__main__":
    main()
