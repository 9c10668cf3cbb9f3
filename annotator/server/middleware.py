"""Protection of the server: hosts, origins, sizes, slow clients, headers, and a limit on wrong tokens."""

import asyncio
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 64 * 1024  # bytes of a request
MAX_BODIES = {"/api/corrections": 4 * 2**20, "/api/repairs": 4 * 2**20, "/api/v1/votes": 16 * 2**20}  # masks, votes
BODY_S = 20.0  # for the body of a request to arrive
SEND_S = 60.0  # for a part of an answer to be taken
MAX_OPEN = 256  # requests at once
REVIEW_HEADER = "x-review"
"""Id of the review: of requests that are meant for it, and of all its answers."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
SAFE = ("GET", "HEAD")


def parse_host(host: str) -> str:
    """Return the name in a Host header, without the port.

    Examples:
        >>> parse_host("localhost:8765"), parse_host("[::1]")
        ('localhost', '[::1]')
    """
    return host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host


def is_same_origin(headers: Headers, public_origin: str | None = None) -> bool:
    """Return True where a request that changes something comes from the server's own page.

    Its Origin must name the host that it was sent to, or be the public origin: a proxy may name its own host. A request
    without one must at least say, in a header that no page can set, that it is of the same origin. A client that is no
    browser has to send an Origin.
    """
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site") == "same-origin"
    if public_origin is not None and origin.lower() == public_origin.lower():
        return True
    parts = urlsplit(origin)
    return parts.scheme in ("http", "https") and parts.netloc.lower() == headers.get("host", "").lower()


class RequestGuard:
    """The middleware that refuses foreign or oversized requests, and sets the headers of every answer."""

    def __init__(
        self, app: ASGIApp, hosts: Collection[str], review_id: str = "", public_origin: str | None = None
    ) -> None:
        self.app, self.hosts = app, {host.lower() for host in hosts}
        self.review_id, self.public_origin = review_id, public_origin
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)  # a page may bring a policy of its own
                headers.setdefault("cache-control", "no-store")
                headers[REVIEW_HEADER] = self.review_id
            async with asyncio.timeout(SEND_S):
                await send(message)

        headers = Headers(scope=scope)
        most = MAX_BODIES.get(scope["path"], MAX_BODY)
        refusal = self._check(scope["method"], headers, most)
        if refusal is not None:
            status, text = refusal
            await JSONResponse({"detail": text}, status)(scope, receive, send_with_headers)
            return
        self._open += 1
        try:
            await self.app(scope, _Body(receive, most).receive, send_with_headers)
        except TimeoutError:  # the client does not take the answer: the server closes the connection
            pass
        finally:
            self._open -= 1

    def _check(self, method: str, headers: Headers, most: int) -> tuple[int, str] | None:
        host = headers.get("host", "").lower()
        if parse_host(host) not in self.hosts:
            return 421, "unknown host; start the server with --host or --public-url to name it"
        if self._open >= MAX_OPEN:
            return 503, "too many requests at once; try again"
        if headers.get(REVIEW_HEADER, self.review_id) != self.review_id:
            return 421, "another review is served at this address"
        if method not in SAFE and not is_same_origin(headers, self.public_origin):
            return 403, "this request does not come from the server's own page"
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > most:
            return 413, f"at most {most} bytes"
        return None


class _Body:
    """A request's body, cut off where it is longer than allowed, whatever its header says, or takes too long."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most, self._size, self._is_complete = receive, most, 0, False
        self._deadline = time.monotonic() + BODY_S

    async def receive(self) -> Message:
        if self._is_complete:
            return await self._receive()
        try:
            async with asyncio.timeout(self._deadline - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            return {"type": "http.disconnect"}
        self._is_complete = not message.get("more_body", False)
        self._size += len(message.get("body", b""))
        return message if self._size <= self._most else {"type": "http.disconnect"}


class FailureLimit:
    """A limit on failures in a period of time: of one address, and of all together."""

    def __init__(
        self, each: int = 10, together: int = 100, window_s: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.each, self.together, self.window_s, self.clock = each, together, window_s, clock
        self._failures: dict[str, deque[float]] = defaultdict(deque)
        self._lock = threading.Lock()

    def compute_wait(self, address: str) -> float:
        """Return the seconds until an address may try again; 0 where it may now."""
        now = self.clock()
        with self._lock:
            for name in list(self._failures):
                failures = self._failures[name]
                while failures and failures[0] <= now - self.window_s:
                    failures.popleft()
                if not failures:
                    del self._failures[name]
            recent = self._failures.get(address, deque())
            if len(recent) >= self.each:
                return recent[0] + self.window_s - now
            if sum(map(len, self._failures.values())) >= self.together:
                return min(failures[0] for failures in self._failures.values()) + self.window_s - now
        return 0.0

    def add_failure(self, address: str) -> None:
        """Record a failure of an address."""
        with self._lock:
            self._failures[address].append(self.clock())
