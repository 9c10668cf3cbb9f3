"""Helpers that the benchmarks share: recipes of synthetic work, runs in separate processes, and their event logs."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml

from rasura.manifests.json_lines import parse_json_lines

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
ASSETS = Path(os.environ.get("RASURA_ASSETS", ROOT.parent / "shared" / "assets"))


def print_result(name: str, **values: Any) -> None:
    """Print one measurement as one JSON line."""
    print(json.dumps({"benchmark": name, **values}), flush=True)


@contextmanager
def make_scratch_folder() -> Iterator[Path]:
    """Create a temporary folder, which is deleted at the end of the context."""
    with tempfile.TemporaryDirectory(prefix="rasura-bench-") as folder:
        yield Path(folder)


def write_recipe(folder: Path, **keys: Any) -> Path:
    """Write a recipe file with these keys and return its path."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"name": "bench", **keys}, sort_keys=False))
    return path


def run_rasura(*arguments: object, track_memory: bool = False, **env: str) -> tuple[float, float]:
    """Run the command line in a process of its own.

    Args:
        arguments: of the command line.
        track_memory: sample the memory. Optional because sampling takes processor time itself.
        env: environment variables to add.

    Returns:
        Wall seconds, and the peak memory, MB, of the driver and its workers together. The memory is the sum of the
        processes' unique set sizes (USS), so that pages that Ray shares are not counted twice.

    Raises:
        SystemExit: the command failed.
    """
    python_path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    start = time.perf_counter()
    command = [sys.executable, "-m", "rasura", *map(str, arguments)]
    discard = subprocess.DEVNULL
    process = subprocess.Popen(
        command, stdout=discard, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": python_path, **env}
    )
    peak = 0.0
    driver = psutil.Process(process.pid)
    while process.poll() is None:
        if track_memory:
            peak = max(peak, _measure_memory(driver))
        time.sleep(0.25)
    if process.returncode:
        assert process.stderr is not None
        raise SystemExit(process.stderr.read().decode())
    return time.perf_counter() - start, peak


def _measure_memory(driver: psutil.Process) -> float:
    total = 0
    try:
        for process in [driver, *driver.children(recursive=True)]:
            if process == driver or process.name().startswith("ray::Worker"):
                total += process.memory_full_info().uss
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        pass
    return total / 2**20


def read_events(run: Path, kind: str) -> list[dict[str, Any]]:
    """Return the events of one kind from the log of a run."""
    files = sorted((run / "log").glob("*.jsonl"))
    return [event for path in files for event in parse_json_lines(path.read_bytes()) if event["event"] == kind]
