"""Requests to a model behind HTTP: retried while the server is busy, bounded in size and time, never redirected.

A redirect would carry the key to another address; an answer that is too large would fill the memory; and a server that
sends a byte now and then would hold a worker for as long as it likes.
"""

import http.client
import io
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from rasura.manifests.errors import RunError

MAX_ANSWER = 64 * 2**20
"""Bytes of an answer."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
REFUSAL_LENGTH = 600
"""Bytes of a refusal's text that are reported."""
BUSY = (408, 409, 425, 429)
"""Status codes below 500 after which the same request may succeed."""


ABOUT_THE_REQUEST = (400, 413, 415, 422, 451)
"""Status codes of a server that refuses what this request asks, such as to work on a picture that it does not like."""


class ServerUnavailable(RunError, OSError):
    """A server that is away, busy for too long, or refuses a request.

    status: of its last answer; None where it gave none.
    """

    status: int | None = None

    @property
    def is_about_the_request(self) -> bool:
        """Whether the server refuses what was asked, and might answer another request."""
        return self.status in ABOUT_THE_REQUEST


class _BoundedReader(io.RawIOBase):
    """Reads from a socket until a moment of `time.monotonic`."""

    def __init__(self, sock: Any, end: float) -> None:
        self.sock, self.end, self.inner = sock, end, sock.makefile("rb", 0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Any:
        if (left := self.end - time.monotonic()) <= 0:
            raise TimeoutError("the answer was not complete in time")
        self.sock.settimeout(left)
        return self.inner.readinto(buffer)

    def close(self) -> None:
        self.inner.close()
        super().close()


def _bound_connection(cls: Any, end: float) -> Any:
    """Return what makes connections of that class whose answers are complete by a moment, or fail."""

    class Response(http.client.HTTPResponse):
        def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
            super().__init__(sock, *args, **options)
            self.fp.close()
            self.fp = io.BufferedReader(_BoundedReader(sock, end))

    def connect(host: str, **options: Any) -> Any:
        connection = cls(host, **options)
        connection.response_class = Response
        return connection

    return connect


class _Bounded(urllib.request.HTTPHandler):
    end = math.inf

    def http_open(self, request: Any) -> Any:
        return self.do_open(_bound_connection(http.client.HTTPConnection, self.end), request)


class _BoundedTls(urllib.request.HTTPSHandler):
    end = math.inf

    def https_open(self, request: Any) -> Any:
        return self.do_open(_bound_connection(http.client.HTTPSConnection, self.end), request)


class _KeepAddress(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def check_address(url: str) -> str:
    """Return the address of a server without a slash at its end.

    Raises:
        ValueError: it is no http or https address, or holds a password.

    Examples:
        >>> check_address("http://localhost:8188/")
        'http://localhost:8188'
        >>> check_address("file:///etc/passwd")
        Traceback (most recent call last):
        ValueError: 'file:///etc/passwd' is no address of a server: it begins with http:// or https://
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"'{url}' is no address of a server: it begins with http:// or https://")
    if parts.password or parts.username:
        raise ValueError(
            "an address holds no password: name the environment variable that has the key (`key_variable`)"
        )
    return url.rstrip("/")


def make_headers(key_variable: str) -> dict[str, str]:
    """Return the header with the key that an environment variable holds; none where it is not set."""
    key = os.environ.get(key_variable)
    return {"Authorization": f"Bearer {key}"} if key else {}


def request(
    url: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 120,
    attempts: int = 5,
    pause: Callable[[float], None] = time.sleep,
    patience_s: float = math.inf,
    deadline_s: float = math.inf,
) -> bytes:
    """Return the answer to a GET, or with a body to a POST.

    Busy servers (status 408, 409, 425, 429, 500 and more), lost connections and time-outs are tried again, after a
    pause that doubles, or that the server asks for.

    Args:
        timeout_s: until an attempt's answer is complete.
        attempts: in all.
        pause: waits that many seconds.
        patience_s: no attempt begins later than this after the first.
        deadline_s: seconds for all attempts and pauses together.

    Raises:
        ServerUnavailable: no attempt was answered, or the server refuses the request as it is.
    """
    wait, failure, start = FIRST_PAUSE_S, "", time.monotonic()
    end = start + min(patience_s, deadline_s)
    status: int | None = None
    for attempt in range(attempts):
        asked, status = None, None
        within = min(timeout_s, start + deadline_s - time.monotonic())
        try:
            return _ask(urllib.request.Request(url, body, dict(headers or {})), within)
        except urllib.error.HTTPError as error:
            failure, status = f"status {error.code}: {_read_refusal(error)}", error.code
            if error.code < 500 and error.code not in BUSY:
                break
            after = error.headers.get("Retry-After") or ""
            asked = float(after) if after.isdigit() else None
        except ServerUnavailable:
            raise
        except (OSError, EOFError) as error:
            late = isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError)
            failure = f"{type(error).__name__}: {error}" + (f" ({within:.3g} s)" if late else "")
        except Exception as error:  # http.client's own classes, of an answer that breaks off
            if type(error).__module__ != "http.client":
                raise
            failure = f"{type(error).__name__}: {error}"
        delay = min(LONGEST_PAUSE_S, wait if asked is None else asked)
        if attempt + 1 == attempts or time.monotonic() + delay > end:
            break
        pause(delay)
        wait *= 2
    unavailable = ServerUnavailable(f"{url} {'gave no answer:' if status is None else 'answered with'} {failure}")
    unavailable.status = status
    raise unavailable


def _ask(call: urllib.request.Request, within_s: float) -> bytes:
    """Return the answer to a request, complete after at most that many seconds."""
    handlers: list[Any] = [_Bounded(), _BoundedTls()]
    for handler in handlers:
        handler.end = time.monotonic() + within_s
    with urllib.request.build_opener(_KeepAddress, *handlers).open(call, timeout=max(within_s, 0.001)) as response:
        answer: bytes = response.read(MAX_ANSWER + 1)
        stated = response.headers.get("Content-Length") or ""
    if len(answer) > MAX_ANSWER:
        raise ServerUnavailable(f"{call.full_url} answered with more than {MAX_ANSWER // 2**20} MiB")
    if stated.isdigit() and len(answer) < int(stated):  # a bounded read does not tell by itself
        raise EOFError(f"the answer broke off after {len(answer)} of {stated} bytes")
    return answer


def _read_refusal(error: urllib.error.HTTPError) -> str:
    """Return the beginning of a refusal's text."""
    try:
        return " ".join(error.read(REFUSAL_LENGTH).decode(errors="replace").split()) or str(error.reason)
    except (OSError, EOFError):
        return str(error.reason)
