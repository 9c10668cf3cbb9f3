"""What happened when: times, hosts, attempts. Kept apart from the data, which must not depend on them."""

import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from typing import Any

from rasura.manifests.storage import Store

FLUSH_S = 10.0


class RunLog:
    """Events of one attempt, written as small JSONL files into `log/`, so that it works on any store."""

    def __init__(self, run: Store) -> None:
        self.run = run
        self.attempt = f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}-{secrets.token_hex(2)}"
        self._events: list[dict[str, Any]] = []
        self._part = 0
        self._flushed = time.monotonic()

    def event(self, kind: str, **fields: Any) -> None:
        """Notes an event; the file follows within some seconds, or at `flush`."""
        self._events.append({"event": kind, "time": round(time.time(), 3), "host": socket.gethostname(), **fields})
        if time.monotonic() - self._flushed > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Writes what is noted."""
        self._flushed = time.monotonic()
        if self._events:
            text = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in self._events)
            self.run.write(f"log/{self.attempt}-{self._part:05d}.jsonl", text.encode())
            self._part += 1
            self._events = []


def events(run: Store) -> Iterator[dict[str, Any]]:
    """All events of all attempts, oldest attempt first."""
    for name in run.files("log"):
        for line in run.read(f"log/{name}").decode().splitlines():
            yield json.loads(line)
