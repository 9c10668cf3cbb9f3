"""Marks that outlive a crash: what a worker was doing when its process ended.

Before records enter a stage the worker writes a mark (stage and record ids) into a small file on its own node. A write
into the page cache survives a segfault and SIGKILL, so the driver can attribute a death to the records that were
running. The time limit is kept by a thread in C that needs no interpreter: a record that hangs in native code ends its
process too.
"""

import contextlib
import faulthandler
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasura.pipeline.engine.execute import ActivityMonitor

OLD_MARK_S = 3600.0
PROGRESS_EVERY_S = 0.5
ROOM = 2048  # bytes of a mark that are written at first
LATE, LATE_S = 0.1, 10.0
"""A record is ended at most this share of its limit, and these seconds, late: one timer then serves many records."""
LINGER_S = 0.5
"""For how long the mark of a record stays after it, where it or the next one is suspected of ending its worker."""


@dataclass(frozen=True)
class CrashMark:
    """The last activity that a worker wrote down.

    Args:
        stage: name of the stage.
        ids: ids of the records in it.
        timed_out: True where the time limit ended the process.
        setting_up: True where the stage was being set up, so that no record is at fault.
        deadline: time at which the process should have ended itself; None where it has no limit.
        progress: of one long record: done, total, note; None where the stage reports none.
    """

    stage: str
    ids: tuple[str, ...]
    timed_out: bool = False
    setting_up: bool = False
    progress: tuple[float, float, str] | None = None
    deadline: float | None = None


class MarkFile(ActivityMonitor):
    """The worker's mark on disk, and beside it the traceback that `faulthandler` writes when the process ends."""

    def __init__(self) -> None:
        _delete_old_marks()
        handle, name = tempfile.mkstemp(prefix=f"rasura-{os.getpid()}-", suffix=".mark")
        self.path, self._handle = name, handle
        self._trace = Path(f"{name}.trace").open("w+b")  # noqa: SIM115 - open as long as the process
        self._entry: dict[str, Any] | None = None
        self._length = ROOM
        self._write_entry(None)  # its place on the disk is taken while there is some
        self._reported = 0.0
        self._ends = 0.0  # monotonic time at which the timer ends the process; 0 where none is running
        self.lingers = False
        faulthandler.enable(self._trace)

    def _write(self, **entry: object) -> None:
        self._write_entry(entry)

    def _write_entry(self, entry: dict[str, Any] | None) -> None:
        """Write in place, so that a full disk takes nothing from it; where that fails, the worker has no mark."""
        self._entry = entry
        data = json.dumps(entry).encode()
        self._length = max(self._length, len(data))
        try:
            os.pwrite(self._handle, data.ljust(self._length), 0)
        except OSError:  # no mark is better than that of earlier records
            os.ftruncate(self._handle, 0)

    def start(self, stage: str, ids: Sequence[str], limit_s: float) -> None:
        self._write(stage=stage, ids=list(ids), deadline=time.time() + limit_s)
        now, latest_s = time.monotonic(), limit_s + min(LATE * limit_s, LATE_S)
        if not limit_s <= self._ends - now <= latest_s:
            self._ends = now + latest_s
            faulthandler.dump_traceback_later(latest_s, exit=True, file=self._trace)

    def start_setup(self, stage: str) -> None:
        """Note that a stage is being set up: a death from here on is no record's fault."""
        self._write(stage=stage, ids=[], setting_up=True)

    def report(self, done: float, total: float, note: str) -> None:
        """Note how far the running record is, at most twice a second."""
        if self._entry is not None and time.monotonic() - self._reported >= PROGRESS_EVERY_S:
            self._reported = time.monotonic()
            self._write(**{**self._entry, "progress": [done, total, note]})

    def stop(self) -> None:
        if self.lingers:
            time.sleep(LINGER_S)  # what ends the process just after a record is that record's doing
        self._write_entry(None)

    def rest(self) -> None:
        """Stop the timer: the worker has nothing to do."""
        faulthandler.cancel_dump_traceback_later()
        self._ends = 0.0


def _delete_old_marks() -> None:
    """Delete the marks of workers whose driver was killed, so that nobody read them."""
    for path in Path(tempfile.gettempdir()).glob("rasura-*.mark*"):
        with contextlib.suppress(OSError):
            if (
                time.time() - path.stat().st_mtime > OLD_MARK_S
                and not Path(f"/proc/{get_marked_pid(path.name)}").exists()
            ):
                path.unlink()


def get_marked_pid(path: str) -> int:
    """Return the id of the process whose mark this is.

    Examples:
        >>> get_marked_pid("/tmp/rasura-4711-x8aq_2.mark")
        4711
    """
    return int(Path(path).name.split("-")[1])


def read_mark(path: str) -> CrashMark | None:
    """Read the mark of a worker, living or dead; None where it is gone, empty or half written."""
    try:
        entry = json.loads(Path(path).read_bytes() or b"null")
        trace = Path(f"{path}.trace").read_text(errors="replace")
    except (OSError, ValueError):
        return None
    if entry is None:
        return None
    progress = entry.get("progress")
    return CrashMark(
        entry["stage"],
        tuple(entry["ids"]),
        "Timeout (" in trace,
        entry.get("setting_up", False),
        tuple(progress) if progress else None,
        entry.get("deadline"),
    )


def take_mark(path: str) -> CrashMark | None:
    """Read a dead worker's mark and delete its files."""
    mark = read_mark(path)
    for name in (path, f"{path}.trace"):
        with contextlib.suppress(OSError):
            Path(name).unlink()
    return mark
