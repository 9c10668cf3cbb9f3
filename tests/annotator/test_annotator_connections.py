"""Who may sign in, and slow or half-open clients: links of one use, the right token among wrong ones, time-outs."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send
from support.annotator.runs import make_run
from support.annotator.server import Served, lease_item, nonce, serving
from typer.testing import CliRunner

from rasura.annotator.server import connections, middleware
from rasura.annotator.server.middleware import RequestGuard
from rasura.annotator.store import reviewers
from rasura.annotator.store.database import Database
from rasura.annotator.store.server_lock import store_address
from rasura.pipeline.cli.review import review


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("connections")
    with serving(make_run(folder / "run", 6).store, folder / "r.sqlite") as started:
        yield started


def log_in(client: httpx.Client, token: str) -> int:
    return client.post("/api/login", json={"token": token}).status_code


def test_a_link_is_used_up(served: Served) -> None:
    """The token of a link begins one session; a second use, by whoever found it in a history, is refused; a further
    link for another device leaves the session, a new one ends it; after a week a link is worth nothing."""
    token = served.token("Ann")
    with served.stranger() as laptop, served.stranger() as thief, served.stranger() as phone:
        assert log_in(laptop, token) == 200
        assert log_in(thief, token) == 401
        assert thief.get("/api/me").status_code == 401
        again = served.database.write(lambda connection: reviewers.renew_token(connection, "Ann", keep=True))
        assert log_in(phone, again) == 200
        assert laptop.get("/api/me").status_code == phone.get("/api/me").status_code == 200
        served.database.write(lambda connection: reviewers.renew_token(connection, "Ann"))
        assert laptop.get("/api/me").status_code == phone.get("/api/me").status_code == 401
        old = served.database.write(lambda connection: reviewers.renew_token(connection, "Ann"))
        late = time.time() + reviewers.LINK_S + 1
        with served.database.read() as connection:
            assert reviewers.is_token(connection, old, late - 60)
            assert not reviewers.is_token(connection, old, late)


def test_the_right_token_passes_among_wrong_ones(served: Served) -> None:
    """However many wrong tokens came, from the same address or others, the right one signs in."""
    token = served.token("Bob")
    with served.stranger() as client:
        assert [log_in(client, f"wrong {number}") for number in range(14)][-2:] == [429, 429]
        assert log_in(client, token) == 200
        assert client.get("/api/me").json()["name"] == "Bob"


def test_links_name_the_address_that_is_served(tmp_path: Path) -> None:
    """The link of a reviewer who is added later has the address at which the review was served last."""
    run = make_run(tmp_path / "run", 2).store.uri
    database = Database(tmp_path / "run" / "review" / "review.sqlite")
    database.write(lambda connection: store_address(connection, "http://127.0.0.1:4321"))
    database.close()
    for command in (["add-reviewer", run, "Cat"], ["new-token", run, "Cat", "--keep"]):
        done = CliRunner().invoke(review, command)
        assert done.exit_code == 0, done.output
        assert done.output.startswith("http://127.0.0.1:4321/#token=")


def open_half(url: str, head: bytes, count: int) -> list[socket.socket]:
    """Open connections that send a part of a request."""
    address = url.removeprefix("http://").split(":")
    opened = []
    for _ in range(count):
        opened.append(socket.create_connection((address[0], int(address[1])), 30))
        opened[-1].sendall(head)
    return opened


def test_half_open_requests_block_nobody(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of connections that never end their head, and as many that never send their body, and of ones that take
    no answer: others are answered while these wait, and one is closed after its time."""
    monkeypatch.setattr(connections, "HEAD_S", 3600.0)
    monkeypatch.setattr(middleware, "BODY_S", 3600.0)
    host = served.url.removeprefix("http://")
    head = f"POST /api/login HTTP/1.1\r\nHost: {host}\r\nOrigin: {served.url}\r\nContent-Type: application/json\r\n"
    heads_text, bodies_text = head.encode(), f'{head}Content-Length: 900\r\n\r\n{{"tok'.encode()
    heads, bodies = open_half(served.url, heads_text, 300), open_half(served.url, bodies_text, 200)
    try:
        with served.client("Dan") as dan:
            item = lease_item(dan)
            assert dan.get(f"/api/pictures/{item}/source").status_code == 200
            assert dan.post("/api/votes", json={"item": item, "nonce": nonce(), "verdict": "yes"}).status_code == 200
        monkeypatch.setattr(connections, "HEAD_S", 1.0)
        monkeypatch.setattr(middleware, "BODY_S", 1.0)
        heads += open_half(served.url, heads_text, 1)
        bodies += open_half(served.url, bodies_text, 1)
        for waiting in (heads[-1], bodies[-1]):
            waiting.settimeout(120)
            with contextlib.suppress(ConnectionResetError):
                while waiting.recv(65536):
                    pass
    finally:
        for waiting in heads + bodies:
            waiting.close()
    deadline = time.monotonic() + 120
    while connections.TimedProtocol.waiting and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not connections.TimedProtocol.waiting


def call_guard(guard: RequestGuard, *headers: tuple[str, str], method: str = "POST") -> int:
    """The status of the answer to a request with these headers."""
    statuses: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    raw = [(name.encode(), value.encode()) for name, value in headers]
    scope = {"type": "http", "method": method, "path": "/", "headers": raw}
    with ThreadPoolExecutor(1) as pool:  # a browser's loop may run in this thread
        pool.submit(lambda: asyncio.run(guard(scope, receive, send))).result()
    return statuses[0]


async def answer_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


def test_who_is_answered() -> None:
    """Behind a proxy that names its own host, requests of the public page are answered and others are not; a request
    that is meant for another review is refused; more requests at once than allowed are told to come again."""
    guard = RequestGuard(answer_nothing, ["127.0.0.1", "review.example"], "abc", "https://review.example")
    inside = ("host", "127.0.0.1:8765")
    assert call_guard(guard, inside, ("origin", "https://review.example")) == 204
    for origin in ("https://evil.example", "http://review.example", "https://review.example.evil", "null"):
        assert call_guard(guard, inside, ("origin", origin)) == 403
    of_page = ("origin", "https://review.example")
    assert call_guard(guard, inside, of_page, ("x-review", "abc")) == 204
    assert call_guard(guard, inside, of_page, ("x-review", "xyz")) == 421
    guard._open = middleware.MAX_OPEN
    assert call_guard(guard, inside, of_page) == 503


def test_a_page_of_another_reviewer_is_signed_out(served: Served) -> None:
    """A tab that was opened by one reviewer sends nothing under the name of another who signed in since."""
    with served.client("Fay") as fay:
        me = fay.get("/api/me").json()
        assert fay.get("/api/progress", headers={"x-reviewer": str(me["reviewer"])}).status_code == 200
        answer = fay.post("/api/next", json={}, headers={"x-reviewer": str(me["reviewer"] + 1)})
        assert (answer.status_code, answer.json()["detail"]) == (401, "somebody else has signed in in this browser")
        assert answer.headers["x-review"] == me["review"] == served.database.review_id
