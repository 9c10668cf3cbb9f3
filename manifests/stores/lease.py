"""A lease: the ownership of a run where no lock ends with its process. It is renewed, or has lost its owner."""

import contextlib
import json
import logging
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from os import getpid
from typing import Any, Protocol

from rasura.manifests.errors import RunError

LEASE = "lock.json"
LEASE_S = 60.0
"""Age of a lease that has lost its owner."""
RENEW_S = LEASE_S / 4
SKEW_S = 30.0
"""Seconds by which the clocks of two machines may differ."""
POLL_S = 1.0
SETTLE_S = 2.0
"""Seconds after which a lease that was taken over is looked at again: another driver may have taken it, too."""
END_S = 10.0  # for a request that is under way when the lease ends

_logger = logging.getLogger(__name__)


class RunLocked(RunError):
    """Another driver owns the run."""


class LeaseStore(Protocol):
    """The store that has the lease."""

    uri: str

    def create(self, path: str, data: bytes) -> bool: ...
    def write(self, path: str, data: bytes) -> None: ...
    def read(self, path: str) -> bytes: ...
    def delete(self, path: str) -> None: ...


@dataclass(frozen=True)
class _Entry:
    """The contents of a lease; an owner of "" where they cannot be read."""

    owner: str
    time: float
    holder: str


class Lease:
    """The lease of a run.

    Args:
        store: the run.
    """

    def __init__(self, store: LeaseStore) -> None:
        self._store = store
        self._owner = secrets.token_hex(8)
        self._ended = threading.Event()
        self._loss = ""

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the lease while the context lasts.

        A lease that its owner left behind is waited for. Where another driver takes this one over all the same (this
        process was stopped for a minute), the context is left as by Ctrl-C.

        Raises:
            RunLocked: another driver owns the run, or took it over.
            StoreError: the store cannot be reached.
        """
        self._acquire()
        thread = threading.Thread(target=self._renew, daemon=True, name="rasura-lease")
        try:
            with self._interrupt_on_loss():
                thread.start()
                try:
                    yield
                finally:
                    self._ended.set()
                    thread.join(END_S)
        except KeyboardInterrupt:
            if not self._loss:
                raise
        finally:
            self._release()
        if self._loss:
            raise RunLocked(self._loss)

    def _acquire(self) -> None:
        before: bytes | None = None
        since, taken_over = 0.0, False
        while not self._store.create(LEASE, self._encode()):
            data = self._read()
            if data is None:
                continue  # it was released meanwhile
            entry = _parse(data)
            if entry.owner == self._owner:
                break  # it was made, though the answer was lost
            if before is not None and data != before:
                raise RunLocked(f"{self._store.uri} is owned by another driver ({entry.holder})")
            if before is None:
                before, since = data, time.monotonic()
            if time.monotonic() - since >= LEASE_S or time.time() - entry.time >= LEASE_S + SKEW_S:
                self._store.delete(LEASE)  # of several that wait, the first to make it anew has it
                before, taken_over = None, True
                continue
            if time.monotonic() - since < POLL_S:
                _logger.warning(
                    "%s is owned by another driver (%s); waiting for up to %.0f s to see whether it is still alive",
                    self._store.uri,
                    entry.holder,
                    LEASE_S,
                )
            time.sleep(POLL_S)
        if taken_over:
            time.sleep(SETTLE_S)
            if not self._is_ours():
                raise RunLocked(f"{self._store.uri} was taken over by another driver at the same time")

    def _renew(self) -> None:
        pause = RENEW_S
        while not self._ended.wait(pause):
            try:
                data = self._read()
                entry = _parse(data) if data is not None else None
                if entry is None or entry.owner != self._owner:
                    holder = f" by another driver ({entry.holder})" if entry else ""
                    self._loss = (
                        f"{self._store.uri} was taken over{holder}, since this one could not renew its lease for "
                        f"{LEASE_S:.0f} s; what was committed is whole"
                    )
                    self._interrupt()
                    return
                self._store.write(LEASE, self._encode())
                pause = RENEW_S
            except OSError:  # passing, perhaps; whether it is still ours is seen when the store answers again
                pause = POLL_S

    def _release(self) -> None:
        with contextlib.suppress(OSError):  # it expires
            if self._is_ours():
                self._store.delete(LEASE)

    @contextlib.contextmanager
    def _interrupt_on_loss(self) -> Iterator[None]:
        """Have the loss of the lease raise `KeyboardInterrupt` in this thread, if it is the main one."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: object) -> None:
            if not self._ended.is_set():
                raise KeyboardInterrupt

        before = signal.signal(signal.SIGUSR1, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGUSR1, before if before is not None else signal.SIG_DFL)

    def _interrupt(self) -> None:
        if signal.getsignal(signal.SIGUSR1) not in (signal.SIG_DFL, signal.SIG_IGN, None):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def _is_ours(self) -> bool:
        data = self._read()
        return data is not None and _parse(data).owner == self._owner

    def _read(self) -> bytes | None:
        try:
            return self._store.read(LEASE)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _encode(self) -> bytes:
        body = {"owner": self._owner, "host": socket.gethostname(), "pid": getpid(), "time": time.time()}
        return json.dumps(body).encode()


def _parse(data: bytes) -> _Entry:
    try:
        body: dict[str, Any] = json.loads(data)
        holder = f"pid {body['pid']} on {body['host']}"
        return _Entry(str(body["owner"]), float(body["time"]), holder)
    except (ValueError, KeyError, TypeError):
        return _Entry("", time.time(), f"its {LEASE} cannot be read")
