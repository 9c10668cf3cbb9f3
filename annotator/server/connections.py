"""Connections of the server: one that does not send a complete head of a request in time is closed."""

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEAD_S = 10.0
"""Seconds for the head of a request to arrive."""
MAX_WAITING = 128
"""Connections that may be without a complete head at once; the oldest is closed for a new one."""


class TimedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's protocol, with a limit of the time and of the number of connections that have sent no complete head."""

    waiting: ClassVar[dict["TimedProtocol", asyncio.TimerHandle]] = {}
    """Connections that wait for a head, the oldest first."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait on where the data do not complete a head."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._wait()
        else:
            self._end_wait()

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the connection."""
        self._end_wait()
        super().connection_lost(error)

    def _wait(self) -> None:
        if self in self.waiting or self.transport.is_closing():
            return
        if len(self.waiting) >= MAX_WAITING:
            next(iter(self.waiting))._close()
        self.waiting[self] = self.loop.call_later(HEAD_S, self._close)

    def _end_wait(self) -> None:
        if timer := self.waiting.pop(self, None):
            timer.cancel()

    def _close(self) -> None:
        self._end_wait()
        self.transport.abort()
