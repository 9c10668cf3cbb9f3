"""One small job with Rasura and with its peers: decode, blur, WebP, Parquet. What a bad row costs, and the throughput.

Each engine makes the same rows of the same JPEGs on two cores: all clean, with one row that raises an exception, and
with one that ends its process as a fault in native code does. Throughput is from the first row that is begun to the
last file that is written; start-up is the rest. An engine that has not ended after a multiple of Rasura's time hangs.

The peers are installed into an environment of their own, which is made where `--environment` names none:

    python -m benchmarks peers [--rows 4096] [--environment FOLDER] [--photos FOLDER] [--repeats 3]
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import psutil
from pydantic import Field

from benchmarks.common import ROOT, make_scratch_folder, print_result, read_events, write_recipe
from benchmarks.engine.peer_jobs import ENGINES, WORKERS, blur, fail
from rasura.manifests.schemas import Kind
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.stages.stage import Kept, Outcome, Params, Record, Stage

JOBS = ROOT / "benchmarks" / "engine" / "peer_jobs.py"
PACKAGES = (
    "ray[data]==2.60.0",
    "daft==0.7.26",
    "datatrove==0.10.1",
    "pyarrow",
    "pillow",
    "opencv-python-headless",
    "orjson",
)
FAULTS = ("clean", "raises", "segfaults")
SIDE = 512
PATIENCE_S, PATIENCE = 60.0, 5.0
"""An engine hangs after so many seconds, and so many times the time that Rasura took for the clean job."""


class BlurParams(Params):
    fault: Literal["clean", "raises", "segfaults"] = Field("clean", description="what the bad photograph does")
    bad: str = Field("", description="name of the bad photograph")


class Blur(Stage):
    """The work of the job."""

    name = "benchmarks.peers:Blur"
    needs = {"source": Kind.RGB}
    gives = {"source": Kind.RGB}
    Params = BlurParams
    params: BlurParams

    def process_one(self, record: Record) -> Outcome:
        if Path(record["origin"]).name == self.params.bad:
            fail(self.params.fault)
        return Kept([{**record, "source": blur(record["source"])}])


class Result(NamedTuple):
    """What an engine made of the job.

    Attributes:
        rows: that came out.
        end: `ends`, `error` or `hangs`.
        working: seconds from the first row to the last file; 0 where nothing came out.
        startup: the other seconds of the process.
        processor: seconds of processor time of all its processes, start-up included.
    """

    rows: int
    end: str
    working: float
    startup: float
    processor: float


class Command(NamedTuple):
    """How a command ended (`ends`, `error` or `hangs`), its seconds, and the processor time of all its processes."""

    end: str
    seconds: float
    processor: float


def make_photographs(folder: Path, rows: int, photos: Path | None) -> None:
    """Write `rows` JPEGs of 512 px: crops of some photographs, or drawn ones; no two are equal."""
    from PIL import Image

    folder.mkdir()
    sources = [] if photos is None else sorted(path for path in photos.rglob("*") if path.suffix.lower() == ".jpg")
    for number in range(rows):
        rng = np.random.default_rng(number)
        if sources:
            with Image.open(sources[number % len(sources)]) as opened:
                picture = opened.convert("RGB")
            scale = SIDE / min(picture.size) * float(rng.uniform(1.0, 1.6))
            picture = picture.resize((round(picture.width * scale) + 1, round(picture.height * scale) + 1))
            x, y = (int(rng.integers(0, extent - SIDE + 1)) for extent in picture.size)
            picture = picture.crop((x, y, x + SIDE, y + SIDE))
        else:
            coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((SIDE, SIDE))
            grain = rng.normal(0, 4, (SIDE, SIDE, 3))
            picture = Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))
        picture.save(folder / f"{number:06d}.jpg", quality=90)


def make_environment(folder: Path) -> Path:
    """Return the Python of the peers' environment, which is made where it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


@contextlib.contextmanager
def _own_group(command: list[str], log: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, of which nothing is left at the end."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, **env}
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _run_command(command: list[str], log: Path, limit: float, **env: str) -> Command:
    """Run a command to its end, or to a limit in seconds."""
    start = time.time()
    with _own_group(command, log, **env) as process:
        root, seconds = psutil.Process(process.pid), dict[int, float]()
        while process.poll() is None and time.time() - start < limit:
            _add_processor_time(root, seconds)
            time.sleep(0.2)
        status = process.poll()
    end = "hangs" if status is None else "ends" if status == 0 else "error"
    return Command(end, time.time() - start, sum(seconds.values()))


def _add_processor_time(root: psutil.Process, seconds: dict[int, float]) -> None:
    """Note the processor time of a process and all below it, by their ids, so that what has ended is kept."""
    with contextlib.suppress(psutil.Error):
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                seconds[process.pid] = times.user + times.system


def run_peer(python: Path, engine: str, photos: Path, out: Path, fault: str, bad: str, limit: float) -> Result:
    """Run the job with one of the peers."""
    command = [str(python), str(JOBS), engine, str(photos), str(out), fault, bad]
    done = _run_command(command, out.with_suffix(".log"), limit, HF_HUB_OFFLINE="1", TQDM_DISABLE="1")
    answer = subprocess.run([str(python), str(JOBS), "read", str(out)], capture_output=True, check=True).stdout
    values: dict[str, Any] = json.loads(answer)
    working = values["last"] - values["first"] if values["rows"] else 0.0
    return Result(values["rows"], done.end, working, done.seconds - working, done.processor)


def run_rasura(photos: Path, out: Path, fault: str, bad: str, limit: float) -> Result:
    """Run the job with Rasura."""
    folder = out.with_suffix(".recipe")
    folder.mkdir()
    stages = [{"benchmarks.peers:Blur": {"fault": fault, "bad": bad if fault != "clean" else ""}}]
    source = {"photos": {"path": str(photos), "licence": "CC0"}}
    recipe = write_recipe(folder, flows={"photos": {"source": source, "stages": stages}}, engine={"workers": WORKERS})
    command = [sys.executable, "-m", "rasura", "run", str(recipe), "--into", str(out), "--quiet"]
    done = _run_command(command, out.with_suffix(".log"), limit, PYTHONPATH=str(ROOT))
    rows = Tables(Store(out)).table("photos").rows if done.end == "ends" else 0
    working = sum(event["working_seconds"] for event in read_events(out, "flow"))
    return Result(rows, done.end, working, done.seconds - working, done.processor)


def main() -> None:
    """Run all engines and print one JSON line each, and the table of README."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks peers", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=4096, help="photographs of 512 px of the clean job")
    parser.add_argument("--fault-rows", type=int, default=64, help="of the jobs with a bad one")
    parser.add_argument("--repeats", type=int, default=3, help="of the clean job, engine by engine; the fastest counts")
    parser.add_argument("--photos", type=Path, help="a folder of JPEGs, in place of drawn ones")
    parser.add_argument("--environment", type=Path, default=Path(".venv-peers"), help="virtual environment of peers")
    options = parser.parse_args()
    python = make_environment(options.environment).absolute()
    with make_scratch_folder() as folder:
        for name, rows in (("clean", options.rows), ("faults", options.fault_rows)):
            make_photographs(folder / name, rows, options.photos)
        table = measure(python, folder, options.repeats, f"{options.fault_rows // 3:06d}.jpg")
    for engine, results in table.items():
        for fault, result in results.items():
            rate = round(result.rows / result.working, 1) if result.working else None
            seconds = {name: round(getattr(result, name), 1) for name in ("working", "startup", "processor")}
            print_result("peers", engine=engine, fault=fault, rows_per_second=rate, **result._asdict() | seconds)
    print(format_table(table, options.fault_rows - 1))
    print_result("peers", **compare(table, options.fault_rows - 1))


def measure(python: Path, folder: Path, repeats: int, bad: str) -> dict[str, dict[str, Result]]:
    """Run every engine on the photographs in `folder`, in turns, so that what else the machine does meets all of them.

    Args:
        python: of the peers' environment.
        folder: with the photographs in `clean/` and `faults/`.
        repeats: of the clean job.
        bad: name of the photograph with the fault.
    """
    table: dict[str, dict[str, Result]] = {}
    limit, out = 3600.0, folder / "out"
    for fault in (*[FAULTS[0]] * repeats, *FAULTS[1:]):
        photos = folder / ("clean" if fault == "clean" else "faults")
        for engine in ("Rasura", *ENGINES):
            if engine == "Rasura":
                result = run_rasura(photos, out, fault, bad, limit)
            else:
                result = run_peer(python, engine, photos, out, fault, bad, limit)
            for left in folder.glob("out*"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            before = table.setdefault(engine, {}).get(fault)
            table[engine][fault] = min((each for each in (before, result) if each), key=lambda each: each.working)
        rasura = table["Rasura"]["clean"]
        limit = max(PATIENCE_S, PATIENCE * (rasura.working + rasura.startup))
    return table


def format_table(table: dict[str, dict[str, Result]], good: int) -> str:
    """Format the results as the table of README; `good` is the number of rows that are not bad."""

    def describe(result: Result) -> str:
        end = {"ends": "", "error": ", ends with an error", "hangs": ", does not end"}[result.end]
        return f"{'all' if result.rows == good else result.rows}{end}"

    lines = [
        f"| engine | rows/s | start-up, s | one row raises: rows out of {good} | one row segfaults |",
        "|---|---|---|---|---|",
    ]
    for engine, results in table.items():
        clean = results["clean"]
        rate = f"{clean.rows / clean.working:.0f}" if clean.working and clean.end == "ends" else "–"
        cells = (engine, rate, f"{clean.startup:.1f}", describe(results["raises"]), describe(results["segfaults"]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def compare(table: dict[str, dict[str, Result]], good: int) -> dict[str, float | None]:
    """Return Rasura's throughput over that of the fastest peer, of all and of those that lose no good row."""

    def compute_rate(engine: str) -> float:
        clean = table[engine]["clean"]
        return clean.rows / clean.working if clean.working and clean.end == "ends" else 0.0

    def survives(engine: str, *faults: str) -> bool:
        results = [table[engine][fault] for fault in faults]
        return all(result.rows == good and result.end == "ends" for result in results)

    peers = [engine for engine in table if engine != "Rasura"]
    groups = {
        "over_fastest": peers,
        "over_fastest_that_survives_raising": [engine for engine in peers if survives(engine, "raises")],
        "over_fastest_that_survives_both": [engine for engine in peers if survives(engine, "raises", "segfaults")],
    }
    own = compute_rate("Rasura")
    best = {name: max((compute_rate(engine) for engine in group), default=0.0) for name, group in groups.items()}
    return {name: round(own / rate, 2) if rate else None for name, rate in best.items()}


if __name__ == "__main__":
    main()
