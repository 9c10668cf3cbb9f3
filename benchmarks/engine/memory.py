"""Peak memory of the driver while it lists 10,000 and 1,000,000 rows and has the first shards of them made.

And that of driver and workers together, for 2,000 and for 8,000 records with pictures. Goal: no growth, and at most
400 MB for the driver.

    python -m benchmarks memory
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.common import ROOT, make_scratch_folder, print_result, run_rasura, write_recipe
from benchmarks.engine.rerun import write_light_recipe

SECONDS = 60.0  # of work on shards


def measure_driver(recipe: Path, run: Path) -> tuple[float, int]:
    """Run a recipe for a while after its first commit.

    Returns:
        The peak of the driver's resident memory, MB, which counts what it shares with Ray, and its commits.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [sys.executable, "-m", "rasura", "run", str(recipe), "--into", str(run), "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    peak, first, commits = 0.0, None, run / "tables/rows/lines"
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = max(peak, *(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")))
        if first is None and commits.is_dir():
            first = time.monotonic()
        if first is not None and time.monotonic() - first > SECONDS:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        time.sleep(0.2)
    return peak, sum(1 for _ in commits.iterdir())


def main() -> None:
    for rows in (10_000, 1_000_000):
        with make_scratch_folder() as folder:
            peak, commits = measure_driver(write_light_recipe(folder, rows), folder / "run")
            print_result("driver_memory", rows=rows, peak_mb=round(peak), commits=commits)
    peaks = {}
    for rows in (2000, 8000):
        with make_scratch_folder() as folder:
            source = {"synthetic:Numbers": {"count": rows, "side": 192}}
            flows = {"triplets": {"source": source, "stages": ["synthetic:Triplet"]}}
            dataset = {"flows": ["triplets"], "shard_bytes": 50_000_000}
            path = write_recipe(folder, flows=flows, dataset=dataset, engine={"max_failed": 1})
            _, peaks[rows] = run_rasura("run", path, "--into", folder / "run", "--quiet", track_memory=True)
    print_result(
        "memory",
        peak_mb_2000=round(peaks[2000]),
        peak_mb_8000=round(peaks[8000]),
        ratio=round(peaks[8000] / peaks[2000], 3),
    )


if __name__ == "__main__":
    main()
