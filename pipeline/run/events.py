"""The log of a run: times, hosts, attempts. Kept apart from the data, which must not depend on them."""

import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from typing import Any

from rasura.manifests.json_lines import parse_json_lines
from rasura.manifests.run_layout import LOG
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

    def add(self, kind: str, **fields: Any) -> None:
        """Add an event; the file is written within some seconds, or by `flush`."""
        self._events.append({"event": kind, "time": round(time.time(), 3), "host": socket.gethostname(), **fields})
        if time.monotonic() - self._last_flush > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write the events that were added, unless the run's folder is gone: nothing is put in its place."""
        self._last_flush = time.monotonic()
        if self._events and (self.run.local is None or self.run.local.is_dir()):
            text = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in self._events)
            self.run.write(f"{LOG}/{self.attempt}-{self._part:05d}.jsonl", text.encode())
            self._part += 1
            self._events = []


def read_events(run: Store) -> Iterator[dict[str, Any]]:
    """Yield all events of all attempts, oldest attempt first."""
    for name in run.files(LOG):
        yield from parse_json_lines(run.read(f"{LOG}/{name}"))
