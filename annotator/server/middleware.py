"""Protection of the server: hosts, origins, sizes, headers, and a limit on wrong tokens."""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 64 * 1024  # bytes of a request
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


def is_same_origin(headers: Headers) -> bool:
    """Return True where a request that changes something comes from the server's own page.

    Its Origin must name the host that it was sent to; a request without one must at least say, in a header that no
    page can set, that it is of the same origin. A client that is no browser has to send an Origin.
    """
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site") == "same-origin"
    parts = urlsplit(origin)
    return parts.scheme in ("http", "https") and parts.netloc.lower() == headers.get("host", "").lower()


class RequestGuard:
    """The middleware that refuses foreign or oversized requests, and sets the headers of every answer."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self.app, self.hosts = app, {host.lower() for host in hosts}

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
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        refusal = self._check(scope["method"], headers)
        if refusal is None:
            body = _Body(receive)
            await self.app(scope, body.receive, send_with_headers)
        else:
            status, text = refusal
            await JSONResponse({"detail": text}, status)(scope, receive, send_with_headers)

    def _check(self, method: str, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "").lower()
        if parse_host(host) not in self.hosts:
            return 421, "unknown host; start the server with --host or --public-url to name it"
        if method not in SAFE and not is_same_origin(headers):
            return 403, "this request does not come from the server's own page"
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY:
            return 413, f"at most {MAX_BODY} bytes"
        return None


class _Body:
    """A request's body, cut off where it is longer than allowed, whatever its header says."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._size = receive, 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        return message if self._size <= MAX_BODY else {"type": "http.disconnect"}


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
