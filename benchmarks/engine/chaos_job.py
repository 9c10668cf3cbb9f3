"""The job that `chaos` disturbs: its inputs and recipe, its processes, its moments, and what has to hold of its end."""

import contextlib
import hashlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.common import ROOT, write_recipe

PHOTOS, SHARD_ROWS = 48, 4
FLOWS = ("made", "chosen")
MOMENTS = ("start", "middle", "between", "export")
"""Before the first shard; in the middle of the first flow; before its manifest; while the dataset is written."""
PATIENCE_S = 4
LIMIT_S = 240.0  # after which a run hangs
MARKER = "RASURA_CHAOS"
TRACE = re.compile(
    r'Traceback \(most recent|\*\*\* SIG|Fatal Python error|^\s+@ +0x|^\s+File ".+", line |terminate called', re.M
)
"""What no user should have to read."""


def write_inputs(folder: Path) -> Path:
    """Write the photographs of the job."""
    photos = folder / "photos"
    photos.mkdir(parents=True)
    for number in range(PHOTOS):
        noise = np.random.default_rng(number).integers(0, 256, (160, 160, 3), dtype=np.uint8)
        Image.fromarray(noise).save(photos / f"{number:03d}.png")
    return photos


def write_job(folder: Path, photos: Path) -> Path:
    """Write the recipe of the job: two flows and a dataset of several files."""
    flows = {
        "made": {
            "source": {"photos": {"path": str(photos), "licence": "CC0-1.0"}},
            "stages": ["benchmarks.engine.chaos_stage:Square"],
        },
        "chosen": {
            "source": {"flow": {"of": "made"}},
            "stages": ["benchmarks.engine.chaos_stage:Pace", {"select": {"keep": {"number": {"max": 90}}}}],
        },
    }
    engine = {"shard_rows": SHARD_ROWS, "workers": 2, "patience_s": PATIENCE_S, "object_store_mb": 100}
    return write_recipe(folder, flows=flows, engine=engine, dataset={"flows": ["chosen"], "shard_bytes": 1_000_000})


@dataclass
class Ending:
    """The end of a command.

    Attributes:
        status: exit status, negative for a signal; None where it had to be killed since it did not end.
        seconds: until then.
        text: what it printed.
    """

    status: int | None
    seconds: float
    text: str

    @property
    def last_line(self) -> str:
        """The last line that it printed."""
        return ([line for line in self.text.splitlines() if line.strip()] or [""])[-1]

    @property
    def has_trace(self) -> bool:
        """Whether a user would read a stack."""
        return bool(TRACE.search(self.text))


@dataclass
class Job:
    """One run of the job in a folder of its own: its command, environment and processes.

    Attributes:
        folder: of the case; the run is in `run` below it unless `target` says otherwise.
        target: folder or URI of the run.
        photos: its inputs.
        env: variables to add.
        prefix: of the command, such as `unshare`.
        cluster_token: marker of the processes of a cluster that the job joins; "" where it starts its own Ray.
    """

    folder: Path
    target: str
    photos: Path
    env: dict[str, str] = field(default_factory=dict)
    prefix: list[str] = field(default_factory=list)
    token: str = field(default_factory=lambda: secrets.token_hex(6))
    cluster_token: str = ""
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    tokens: list[str] = field(default_factory=list)

    @property
    def run(self) -> Path:
        """The run's folder, where it is local."""
        return Path(self.target)

    @property
    def ray_folder(self) -> Path:
        """Ray's folder of this job."""
        return Path(self.env.get("RASURA_RAY_TMP", self.folder / "ray"))

    def start(self, *, name: str = "run") -> None:
        """Start the command; its output goes into `<name>.txt`."""
        self.token = secrets.token_hex(6)
        self.tokens.append(self.token)
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True)
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        env = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "RASURA_"))}
        env |= {"PYTHONPATH": path, "TMPDIR": str(temporary), "RASURA_RAY_TMP": str(self.folder / "ray")}
        env |= {"COLUMNS": "200", MARKER: self.token, **self.env}
        # many times: Ray's agents write their titles over the beginning of their environment, whose order is random
        env |= {f"{MARKER}_{number}": self.token for number in range(16)}
        command = [*self.prefix, sys.executable, "-m", "rasura", "run", str(self.folder / "recipe.yaml")]
        command += ["--into", self.target, "--quiet"]
        self.output = self.folder / f"{name}.txt"
        self.started = time.monotonic()
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)

    @property
    def driver(self) -> psutil.Process:
        """The driver's process, below `unshare` where there is one."""
        assert self.process is not None
        process = psutil.Process(self.process.pid)
        while self.prefix and process.name() in ("unshare", "sh", "bash", "setpriv") and process.children():
            process = process.children()[0]
        return process

    def find(self, name: str) -> list[psutil.Process]:
        """Find the job's processes whose names begin so, such as `ray::Worker`, `raylet`, `gcs_server`."""
        processes = []
        for process in list_marked(self.token, self.cluster_token):
            with contextlib.suppress(psutil.Error):
                title = (process.cmdline() or [""])[0]
                if process.name().startswith(name) or Path(title).name.startswith(name):
                    processes.append(process)
        return processes

    def finish(self, limit_s: float = LIMIT_S) -> Ending:
        """Wait for the end of the command; one that does not end is killed with all that it started."""
        assert self.process is not None
        status: int | None
        try:
            status = self.process.wait(max(1.0, limit_s - (time.monotonic() - self.started)))
        except subprocess.TimeoutExpired:
            status = None
            kill_marked(self.token)
            self.process.wait(30)
        seconds = time.monotonic() - self.started
        return Ending(status, seconds, self.output.read_text(errors="replace"))


def run_tool_of(job: Job, command: str, *options: str) -> Ending:
    """Run another command of Rasura on the run of a job."""
    start = time.monotonic()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    words = [sys.executable, "-m", "rasura", command, job.target, "--quiet", *options]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=LIMIT_S)
    return Ending(done.returncode, time.monotonic() - start, done.stdout + done.stderr)


def list_marked(*tokens: str) -> list[psutil.Process]:
    """List the processes that commands with these markers started, they included; those that ended are left out."""
    marked = []
    ends = tuple(f"={token}".encode() for token in tokens if token)
    for process in psutil.process_iter():
        try:
            data = Path(f"/proc/{process.pid}/environ").read_bytes()
            if (
                ends
                and any(entry.endswith(ends) for entry in data.split(b"\0"))
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                marked.append(process)
        except (OSError, psutil.Error):
            continue
    return marked


def kill_marked(token: str) -> None:
    """End all processes of a command."""
    for process in list_marked(token):
        with contextlib.suppress(psutil.Error):
            process.kill()


def wait_for_none(token: str, limit_s: float) -> list[str]:
    """Wait until no process of a command is left. Returns the names of those that are left after the limit."""
    deadline = time.monotonic() + limit_s
    while (left := list_marked(token)) and time.monotonic() < deadline:
        time.sleep(0.3)
    names = []
    for process in left:
        with contextlib.suppress(psutil.Error):
            names.append(process.name())
    return names


# --- moments


def count_commits(run: Path, flow: str) -> int:
    """Count the commit records of a flow."""
    try:
        names = [path.name for path in (run / f"tables/{flow}/lines").iterdir()]
        return sum(name.endswith(".json") and not name.startswith(".") for name in names)
    except OSError:
        return 0


def is_exporting(run: Path) -> bool:
    """Return whether a data file of the dataset is being written, or has been."""
    try:
        return any((run / "dataset" / "data").iterdir())
    except OSError:
        return False


def wait_for_moment(job: Job, moment: str, has_come: Callable[[str], bool]) -> bool:
    """Wait for a moment of a run, and hold its driver there.

    Returns:
        False where the run ended before it came.
    """
    assert job.process is not None
    if moment == "start":
        while not job.find("ray::Worker") and job.process.poll() is None:
            time.sleep(0.05)
    while job.process.poll() is None:
        if has_come(moment):
            with contextlib.suppress(psutil.Error):
                job.driver.suspend()
            return job.process.poll() is None
        time.sleep(0.001)
        if time.monotonic() - job.started > LIMIT_S:
            return False
    return False


def has_come_locally(run: Path, moment: str) -> bool:
    """Return whether a moment of a run in a folder has come."""
    if moment == "start":
        return True
    if moment == "middle":
        return count_commits(run, "made") >= 3
    if moment == "between":
        return count_commits(run, "made") >= PHOTOS // SHARD_ROWS
    return is_exporting(run)


def resume(job: Job) -> None:
    """Let a driver that is held go on."""
    with contextlib.suppress(psutil.Error):
        job.driver.send_signal(signal.SIGCONT)


# --- what has to hold


def read_digest(run: Path) -> dict[str, str]:
    """Return the sha256 of each file of a run's tables and dataset."""
    digest = {}
    for part in ("tables", "dataset"):
        for path in sorted((run / part).rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                digest[str(path.relative_to(run))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digest


def count_ids(run: Path) -> Counter[str]:
    """Count the ids of a run's dataset."""
    ids: Counter[str] = Counter()
    for path in sorted((run / "dataset" / "data").glob("*.parquet")):
        ids.update(pq.read_table(path, columns=["id"])["id"].to_pylist())
    return ids


@dataclass(frozen=True)
class Reference:
    """The undisturbed run."""

    digest: Mapping[str, str]
    ids: Counter[str]

    def find_differences(self, run: Path) -> list[str]:
        """Find what is not as in the undisturbed run: rows lost and doubled, then files."""
        faults = []
        try:
            ids = count_ids(run)
        except Exception as error:
            return [f"the dataset cannot be read: {type(error).__name__}"]
        if lost := len(self.ids - ids):
            faults.append(f"{lost} rows lost")
        if doubled := sum((ids - self.ids).values()):
            faults.append(f"{doubled} rows doubled")
        now = read_digest(run)
        changed = [name for name in {*now, *self.digest} if now.get(name) != self.digest.get(name)]
        if changed:
            faults.append(f"{len(changed)} files differ, such as {min(changed)}")
        return faults


def make_reference(folder: Path) -> tuple[Reference, Path]:
    """Carry out the undisturbed run, or read the one that is there. Returns it, and the folder of the inputs."""
    photos = folder / "photos"
    run = folder / "reference" / "run"
    if not (run / "export.json").exists():
        if not photos.exists():
            write_inputs(folder)
        (folder / "reference").mkdir(exist_ok=True)
        job = Job(folder / "reference", str(run), photos)
        write_job(job.folder, photos)
        job.start()
        ending = job.finish()
        if ending.status != 0:
            raise SystemExit(f"the undisturbed run ended with {ending.status}:\n{ending.text}")
    return Reference(read_digest(run), count_ids(run)), photos


@contextlib.contextmanager
def keep_results(path: Path) -> Iterator[tuple[dict[str, Any], Callable[[dict[str, Any]], None]]]:
    """Read the results of cases that were carried out before, and append those that follow."""
    done = {}
    if path.exists():
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            done[entry["case"]] = entry
    with path.open("a") as out:

        def add(entry: dict[str, Any]) -> None:
            out.write(json.dumps(entry) + "\n")
            out.flush()

        yield done, add
