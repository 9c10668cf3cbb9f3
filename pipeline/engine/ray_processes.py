"""The processes of a Ray that this process has started: whether its servers live, and their end.

All of them carry a random mark in their environment, so that those whose parent was killed are known, too. Where there
is no /proc (macOS), nothing is known of them, and Ray's own time limits hold.
"""

import contextlib
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MARK = "RASURA_RAY_OWNER"
SERVERS = ("gcs_server", "raylet")
"""Names of the processes without which a local Ray cannot go on."""
NEEDLESS = ("start_monitor", "start_log_monitor", "start_api_server")
"""Ray's methods that start its autoscaler, the reader of workers' logs and the server of its dashboard."""
STATE, PARENT, START = 0, 1, 19
"""Places in /proc/<pid>/stat, from the state on."""


class RayProcesses:
    """The processes of one local Ray."""

    def __init__(self) -> None:
        self._mark = secrets.token_hex(8)
        self._servers: dict[int, str] = {}
        self._started: dict[int, str] = {}  # when each of them was started, by its id

    @contextlib.contextmanager
    def mark_children(self) -> Iterator[None]:
        """Mark the processes that are started meanwhile, and remember the servers among them."""
        os.environ[MARK] = self._mark
        try:
            yield
        finally:
            os.environ.pop(MARK, None)
        pids = self._list()
        self._servers = {pid: name for pid in pids if (name := _read_name(pid)) in SERVERS}
        # Ray's agents write their titles over their environment: they are known as children
        parents = {str(pid) for pid in pids}
        agents = [pid for pid in _list_pids() if parents.intersection(_read_stat(pid)[PARENT : PARENT + 1])]
        self._started = {pid: _read_start(pid) for pid in {*pids, *agents}}

    def _list(self) -> list[int]:
        """List those that are alive."""
        entry = f"{MARK}={self._mark}".encode()
        pids = [pid for pid, start in self._started.items() if start and _read_start(pid) == start]
        for pid in _list_pids():
            with contextlib.suppress(OSError):
                if entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    pids.append(pid)
        return [pid for pid in dict.fromkeys(pids) if pid != os.getpid()]

    def find_ended_server(self) -> str | None:
        """Return the name of a server that has ended; None while all of them live."""
        return next((name for pid, name in self._servers.items() if _has_ended(pid)), None)

    def kill(self) -> None:
        """End all that is left of them."""
        for pid in self._list():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def leave_out_needless_processes() -> Iterator[None]:
    """Have a Ray of this machine start without autoscaler, log reader and dashboard while the context lasts.

    Nothing here uses them, and no argument of ``ray.init`` turns them off; with them, Ray and the engine take 1.7 times
    as long to start. Where a version of Ray does not have these functions, it starts as it would without this.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError):
            from ray._private import node, utils

            for name in NEEDLESS:
                _replace(stack, node.Node, name, lambda *arguments, **options: None)
            # a node of a Ray that was installed without its dashboard starts a smaller agent
            _replace(stack, utils, "get_dashboard_dependency_error", lambda: ImportError("it is not asked for"))
        yield


def _replace(stack: contextlib.ExitStack, holder: Any, name: str, function: Callable[..., Any]) -> None:
    """Replace a function, where there is one, until the stack is left."""
    if hasattr(holder, name):
        stack.callback(setattr, holder, name, getattr(holder, name))
        setattr(holder, name, function)


def _read_name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _list_pids() -> list[int]:
    with contextlib.suppress(OSError):  # there is no /proc, or no file may be opened
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - names are enough
    return []


def _read_stat(pid: int) -> list[str]:
    """Read the kernel's figures of a process from its state on (proc(5)); none where it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def _read_start(pid: int) -> str:
    """Read when a process was started: with its id, this names it for ever."""
    return "".join(_read_stat(pid)[START : START + 1])


def _has_ended(pid: int) -> bool:
    """Return whether a process is gone, or is dead and waits for its parent to notice."""
    return not (stat := _read_stat(pid)) or stat[STATE] in ("Z", "X")
