"""Kinds of fault that `chaos` brings about by real means, renames, mounts, limits, signals: of files and processes.

Each kind is an injection at a moment, and the removal of its cause. Nothing in the product knows of them.
"""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.engine.chaos_job import LIMIT_S, MOMENTS, Ending, Job, has_come_locally


class CannotInject(Exception):
    """This fault cannot be brought about at this moment, or on this machine. The text says why."""


@dataclass
class Case:
    """A kind of fault at a moment, while it is carried out.

    Attributes:
        job: that is disturbed.
        photos: the folder of its inputs.
        moment: one of `MOMENTS`.
        stack: what is undone at the end of the case.
        tools: what a kind keeps between its steps.
        faults: what does not hold.
        fetch: returns the run's folder, or a copy of it where it is in a bucket.
        has_come: returns whether a moment has come.
    """

    job: Job
    photos: Path
    moment: str
    stack: contextlib.ExitStack
    tools: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    fetch: Callable[[], Path] = Path
    has_come: Callable[[str], bool] = lambda moment: True

    def __post_init__(self) -> None:
        self.fetch = lambda: self.job.run
        self.has_come = lambda moment: has_come_locally(self.job.run, moment)


def do_nothing(case: Case) -> None:
    """Leave the case as it is."""


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        inject: brings it about.
        undo: removes its cause.
        prepare: before the run starts.
        passes_after_s: seconds after which the cause goes while the run is still there; None where it stays.
        must_finish: the run has to end with exit status 0 in spite of it.
        statuses: exit statuses beside 0 and 1 that are right.
        lingering_s: seconds for which processes may be left, where their driver was killed.
        check: of the ending.
        limit_s: seconds after which the run hangs.
    """

    inject: Callable[[Case], None]
    undo: Callable[[Case], None] = do_nothing
    prepare: Callable[[Case], None] = do_nothing
    passes_after_s: float | None = None
    must_finish: bool = False
    statuses: tuple[int, ...] = ()
    lingering_s: float = 15.0
    check: Callable[[Case, Ending], None] = lambda case, ending: None
    limit_s: float = LIMIT_S
    moments: Sequence[str] = MOMENTS


# --- inputs


def move_inputs(case: Case) -> None:
    """Take the inputs away."""
    case.photos.rename(case.photos.with_name("photos.away"))


def return_inputs(case: Case) -> None:
    """Bring the inputs back."""
    away = case.photos.with_name("photos.away")
    if away.exists():
        shutil.rmtree(case.photos, ignore_errors=True)
        away.rename(case.photos)


def break_inputs(case: Case) -> None:
    """Have every read of an input answer EIO, as /proc/self/mem does at its beginning."""
    shutil.copytree(case.photos, case.photos.with_name("photos.away"))
    for path in case.photos.iterdir():
        path.unlink()
        path.symlink_to("/proc/self/mem")


def truncate_inputs(case: Case) -> None:
    """Cut every input in half."""
    shutil.copytree(case.photos, case.photos.with_name("photos.away"), copy_function=shutil.copy2)
    for path in case.photos.iterdir():
        os.truncate(path, path.stat().st_size // 2)


def return_inputs_whole(case: Case) -> None:
    """Bring the inputs back, with their times."""
    return_inputs(case)


# --- disks


def run_tool(*command: object) -> None:
    """Run a tool of the machine.

    Raises:
        CannotInject: it fails.
    """
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise CannotInject(f"{command[0]}: {done.stderr.strip() or done.returncode}"[:120])


def mount_small(case: Case, name: str, megabytes: int) -> Path:
    """Mount a small disk in memory below the case's folder."""
    place = case.job.folder / name
    place.mkdir()
    run_tool("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", place)
    case.stack.callback(subprocess.run, ["umount", "-l", str(place)], capture_output=True)
    return place


def fill(place: Path) -> None:
    """Fill a disk to the last byte."""
    with (place / "fill").open("wb", buffering=0) as out:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while out.write(b"\0" * size):
                    pass


def empty(place: Path) -> None:
    """Make room on a disk again."""
    (place / "fill").unlink(missing_ok=True)


def put_target_on_small_disk(case: Case) -> None:
    """Have the run be on a small disk."""
    case.tools["disk"] = mount_small(case, "disk", 40)
    case.job.target = str(case.tools["disk"] / "run")


def put_tmp_on_small_disk(case: Case) -> None:
    """Have TMPDIR be on a small disk."""
    case.tools["disk"] = mount_small(case, "small", 8)
    case.job.env["TMPDIR"] = str(case.tools["disk"])


def put_ray_on_small_disk(case: Case) -> None:
    """Have Ray's folder be on a small disk."""
    case.tools["disk"] = mount_small(case, "r", 64)
    case.job.env["RASURA_RAY_TMP"] = str(case.tools["disk"] / "ray")


def fill_disk(case: Case) -> None:
    """Fill the disk of the case."""
    fill(case.tools["disk"])


def empty_disk(case: Case) -> None:
    """Make room on the disk of the case."""
    empty(case.tools["disk"])


def give_own_shm(case: Case) -> None:
    """Give the run a /dev/shm of its own, of 160 MB, in a mount namespace."""
    script = 'mount -t tmpfs -o size=160m tmpfs /dev/shm && exec "$@"'
    run_tool("unshare", "-m", "sh", "-c", script, "sh", "true")
    case.job.prefix = ["unshare", "-m", "sh", "-c", script, "sh"]


def fill_shm(case: Case) -> None:
    """Fill the run's own /dev/shm."""
    fill(Path(f"/proc/{case.job.driver.pid}/root/dev/shm"))


def put_target_on_ext4(case: Case) -> None:
    """Have the run be on a disk of its own that turns read-only at an error, as most do."""
    image, place = case.job.folder / "image", case.job.folder / "disk"
    with image.open("wb") as out:
        out.truncate(96 << 20)
    run_tool("mkfs.ext4", "-q", "-F", image)
    place.mkdir()
    run_tool("mount", "-o", "loop,errors=remount-ro", image, place)
    case.stack.callback(subprocess.run, ["umount", "-l", str(place)], capture_output=True)
    case.job.target = str(place / "run")


def make_read_only(case: Case) -> None:
    """Report an error of the disk to its file system, which turns read-only."""
    place = case.job.folder / "disk"
    done = subprocess.run(["findmnt", "-no", "SOURCE", str(place)], capture_output=True, text=True)
    trigger = Path("/sys/fs/ext4") / Path(done.stdout.strip()).name / "trigger_fs_error"
    try:
        trigger.write_text("1")
    except OSError as error:
        raise CannotInject(f"{trigger}: {error.strerror}") from None


def repair_disk(case: Case) -> None:
    """Check the disk, as after a start of the machine, and mount it again."""
    place, image = case.job.folder / "disk", case.job.folder / "image"
    run_tool("umount", place)
    subprocess.run(["e2fsck", "-fy", str(image)], capture_output=True)
    run_tool("mount", "-o", "loop", image, place)


def move_target(case: Case) -> None:
    """Take the run's folder away."""
    case.job.run.rename(case.job.run.with_name("away"))


def replace_target(case: Case) -> None:
    """Put an empty folder in the place of the run's."""
    move_target(case)
    case.job.run.mkdir()


def return_target(case: Case) -> None:
    """Bring the run's folder back; nothing may have been made in its place."""
    if case.job.run.exists():
        if made := [path for path in case.job.run.rglob("*") if path.is_file()]:
            case.faults.append(f"{len(made)} files were written beside the run, such as {made[0].name}")
        shutil.rmtree(case.job.run)
    case.job.run.with_name("away").rename(case.job.run)


# --- limits


def find_workers(case: Case) -> list[psutil.Process]:
    """Find the workers of the run.

    Raises:
        CannotInject: there are none at the moment.
    """
    if not (workers := case.job.find("ray::Worker")):
        raise CannotInject("there is no worker at this moment")
    return workers


def limit(case: Case, what: int, value: Callable[[psutil.Process], int]) -> None:
    """Lower a limit of the driver and its workers."""
    for process in [case.job.driver, *case.job.find("ray::Worker")]:
        with contextlib.suppress(psutil.Error):
            most = process.rlimit(what)[1]
            process.rlimit(what, (value(process), most))


def limit_open_files(case: Case) -> None:
    """Let no process of the run open one more file."""
    limit(case, resource.RLIMIT_NOFILE, lambda process: process.num_fds())


def limit_file_size(case: Case) -> None:
    """Let no process of the run write a file of more than 2 kB."""
    limit(case, resource.RLIMIT_FSIZE, lambda process: 2048)


# --- processes


def send(name: str, number: int) -> Callable[[Case], None]:
    """Return the injection that sends a signal to one process of the run."""

    def inject(case: Case) -> None:
        if name == "driver":
            case.job.driver.send_signal(number)
            return
        processes = find_workers(case) if name == "ray::Worker" else case.job.find(name)
        if not processes:
            raise CannotInject(f"there is no {name} at this moment")
        case.tools["victim"] = processes[0]
        processes[0].send_signal(number)

    return inject


def kill_all(case: Case) -> None:
    """Kill every process of the run at once, as a loss of power does."""
    for process in case.job.find(""):
        with contextlib.suppress(psutil.Error):
            process.kill()


def let_go_on(case: Case) -> None:
    """Let a process that was stopped go on."""
    with contextlib.suppress(psutil.Error):
        (case.tools.get("victim") or case.job.driver).send_signal(signal.SIGCONT)


def start_second(case: Case) -> None:
    """Start the same command a second time."""
    second = Job(case.job.folder, case.job.target, case.photos, case.job.env)
    second.start(name="second")
    case.tools["second"] = second


def check_second(case: Case, ending: Ending) -> None:
    """The second driver was refused in a sentence, or came when the first had ended."""
    second: Job = case.tools["second"]
    end = second.finish()
    refused = end.status == 1 and "owned by another driver" in end.text
    if not (refused or end.status == 0) or end.has_trace:
        case.faults.append(f"the second driver ended with {end.status}: {end.last_line[:80]}")


FILES: Mapping[str, Kind] = {
    "input away": Kind(move_inputs, return_inputs, passes_after_s=2.5, must_finish=True),
    "input gone": Kind(move_inputs, return_inputs),
    "input EIO": Kind(break_inputs, return_inputs_whole),
    "input cut": Kind(truncate_inputs, return_inputs_whole),
    "target full": Kind(fill_disk, empty_disk, put_target_on_small_disk),
    "target full for 2 s": Kind(fill_disk, empty_disk, put_target_on_small_disk, passes_after_s=2),
    "TMPDIR full": Kind(fill_disk, empty_disk, put_tmp_on_small_disk),
    "Ray's folder full": Kind(fill_disk, empty_disk, put_ray_on_small_disk),
    "/dev/shm full": Kind(fill_shm, prepare=give_own_shm),
    "target away": Kind(move_target, return_target),
    "target replaced": Kind(replace_target, return_target),
    "target read-only": Kind(make_read_only, repair_disk, put_target_on_ext4),
    "too many open files": Kind(limit_open_files),
    "file size limit": Kind(limit_file_size),
}
PROCESSES: Mapping[str, Kind] = {
    "kill driver": Kind(send("driver", signal.SIGKILL), statuses=(-9,), lingering_s=90),
    "kill worker": Kind(send("ray::Worker", signal.SIGKILL), must_finish=True),
    "kill raylet": Kind(send("raylet", signal.SIGKILL)),
    "kill GCS": Kind(send("gcs_server", signal.SIGKILL)),
    "kill everything": Kind(kill_all, statuses=(-9,)),
    "SIGTERM": Kind(send("driver", signal.SIGTERM), statuses=(143,)),
    "SIGINT": Kind(send("driver", signal.SIGINT), statuses=(130,)),
    "SIGHUP": Kind(send("driver", signal.SIGHUP), statuses=(129,)),
    "stop driver": Kind(send("driver", signal.SIGSTOP), let_go_on, passes_after_s=12, must_finish=True),
    "stop worker": Kind(send("ray::Worker", signal.SIGSTOP), let_go_on, passes_after_s=8, must_finish=True),
    "stop worker for good": Kind(send("ray::Worker", signal.SIGSTOP)),
    "stop raylet": Kind(send("raylet", signal.SIGSTOP), let_go_on, passes_after_s=8),
    "stop GCS": Kind(send("gcs_server", signal.SIGSTOP), let_go_on, passes_after_s=8),
    "two drivers": Kind(start_second, must_finish=True, check=check_second),
}
