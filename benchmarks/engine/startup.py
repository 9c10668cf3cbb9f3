"""Seconds that `rasura --help` takes. Goal: under 0.5 s.

python -m benchmarks startup
"""

import statistics
import subprocess
import sys
import time

from benchmarks.common import ROOT, print_result


def main() -> None:
    times = []
    for _ in range(7):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "rasura", "--help"], check=True, capture_output=True, cwd=ROOT)
        times.append(time.perf_counter() - start)
    print_result("help", seconds=round(statistics.median(times), 3))


if __name__ == "__main__":
    main()
