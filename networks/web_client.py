"""Requests to a model behind HTTP: retried while the server is busy or away, bounded in size, never redirected.

A redirect would carry the key to another address; an answer that is too large would fill the memory.
"""

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
BUSY = (408, 409, 425, 429)
"""Status codes below 500 after which the same request may succeed."""


class ServerUnavailable(RunError, OSError):
    """A server that is away, busy for too long, or refuses every request: its key, model or address is wrong.

    status: of its last answer; None where it gave none.
    """

    status: int | None = None


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
) -> bytes:
    """Return the answer to a GET, or with a body to a POST.

    Busy servers (status 408, 409, 425, 429, 500 and more), lost connections and time-outs are tried again, after a
    pause that doubles, or that the server asks for.

    Args:
        timeout_s: without a byte of the answer.
        attempts: in all.
        pause: waits that many seconds.
        patience_s: no attempt begins later than this after the first.

    Raises:
        ServerUnavailable: no attempt was answered, or the server refuses the request as it is.
    """
    opener = urllib.request.build_opener(_KeepAddress)
    wait, failure, end = FIRST_PAUSE_S, "", time.monotonic() + patience_s
    status: int | None = None
    for attempt in range(attempts):
        asked, status = None, None
        try:
            call = urllib.request.Request(url, body, dict(headers or {}))
            with opener.open(call, timeout=timeout_s) as response:
                answer: bytes = response.read(MAX_ANSWER + 1)
                stated = response.headers.get("Content-Length") or ""
            if len(answer) > MAX_ANSWER:
                raise ServerUnavailable(f"{url} answered with more than {MAX_ANSWER // 2**20} MiB")
            if stated.isdigit() and len(answer) < int(stated):  # a bounded read does not tell by itself
                raise EOFError(f"the answer broke off after {len(answer)} of {stated} bytes")
            return answer
        except urllib.error.HTTPError as error:
            text = " ".join(error.read(300).decode(errors="replace").split())
            failure, status = f"status {error.code}: {text or error.reason}", error.code
            if error.code < 500 and error.code not in BUSY:
                break
            after = error.headers.get("Retry-After") or ""
            asked = float(after) if after.isdigit() else None
        except ServerUnavailable:
            raise
        except (OSError, EOFError) as error:
            failure = f"{type(error).__name__}: {error}"
        except Exception as error:  # http.client's own classes, of an answer that breaks off
            if type(error).__module__ != "http.client":
                raise
            failure = f"{type(error).__name__}: {error}"
        delay = min(LONGEST_PAUSE_S, wait if asked is None else asked)
        if attempt + 1 == attempts or time.monotonic() + delay > end:
            break
        pause(delay)
        wait *= 2
    unavailable = ServerUnavailable(f"{url} gave no answer: {failure}")
    unavailable.status = status
    raise unavailable
