"""The log of a run: times, hosts, attempts. Kept apart from the data, which must not depend on them."""

import contextlib
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from typing import Any

from rasura.manifests.errors import StorageError
from rasura.manifests.run_layout import LOG, RUN_ID, check_place, read_place
from rasura.manifests.storage import Store

FLUSH_S = 10.0


class EventLog:
    """Events of one attempt, written as small JSONL files into `log/`, so that it works on any store."""

    def __init__(self, run: Store) -> None:
        self.run = run
        self.attempt = f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}-{secrets.token_hex(2)}"
        self._events: list[dict[str, Any]] = []
        self._part = 0
        self._last_flush = time.monotonic()
        self._place = read_place(run) if run.exists(RUN_ID) else None

    def add(self, kind: str, **fields: Any) -> None:
        """Add an event; the file is written within some seconds, or by `flush`."""
        self._events.append({"event": kind, "time": round(time.time(), 3), "host": socket.gethostname(), **fields})
        if time.monotonic() - self._last_flush > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write the events that were added. While the run's folder is full, gone or replaced, they wait.

        No run stops for its log, and what stops it is not hidden by a log that cannot be written either.
        """
        self._last_flush = time.monotonic()
        if not self._events or not (self.run.local is None or self.run.local.is_dir()):
            return
        text = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in self._events)
        with contextlib.suppress(StorageError):
            if self._place is not None:
                check_place(self.run, self._place)
            self.run.write(f"{LOG}/{self.attempt}-{self._part:05d}.jsonl", text.encode())
            self._part += 1
            self._events = []


def read_events(run: Store) -> Iterator[dict[str, Any]]:
    """Yield all events of all attempts, oldest attempt first. Lines that are damaged count as absent."""
    for name in run.files(LOG):
        for line in run.read(f"{LOG}/{name}").split(b"\n"):
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(event, dict) and "event" in event and "time" in event:
                yield event
