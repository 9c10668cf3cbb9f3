"""What the measurements share: recipes of made-up work, runs in a process of their own, and reading their logs."""

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

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "support")]
ASSETS = Path(os.environ.get("RASURA_ASSETS", ROOT.parent / "shared" / "assets"))


def say(name: str, **values: Any) -> None:
    """One measurement as one JSON line."""
    print(json.dumps({"benchmark": name, **values}), flush=True)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="rasura-bench-") as folder:
        yield Path(folder)


def recipe(folder: Path, **keys: Any) -> Path:
    """A recipe file."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"name": "bench", **keys}, sort_keys=False))
    return path


def rasura(*arguments: object, memory: bool = False, **env: str) -> tuple[float, float]:
    """Runs the command line; returns wall seconds and the peak memory (MB) of it and its workers together.

    Memory is looked at only where asked for, since looking takes time itself. It is the sum over processes of what is
    theirs alone (USS), so that what Ray shares is not counted twice.
    """
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    start = time.perf_counter()
    command = [sys.executable, "-m", "rasura", *map(str, arguments)]
    out = subprocess.DEVNULL
    process = subprocess.Popen(
        command, stdout=out, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path, **env}
    )
    peak = 0.0
    me = psutil.Process(process.pid)
    while process.poll() is None:
        if memory:
            peak = max(peak, _memory(me))
        time.sleep(0.25)
    if process.returncode:
        assert process.stderr is not None
        raise SystemExit(process.stderr.read().decode())
    return time.perf_counter() - start, peak


def _memory(driver: psutil.Process) -> float:
    total = 0
    try:
        for process in [driver, *driver.children(recursive=True)]:
            if process == driver or process.name().startswith("ray::Worker"):
                total += process.memory_full_info().uss
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        pass
    return total / 2**20


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    """The log's events of one kind."""
    lines = [line for path in sorted((run / "log").glob("*.jsonl")) for line in path.read_text().splitlines()]
    return [event for event in map(json.loads, lines) if event["event"] == kind]
