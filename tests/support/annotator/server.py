"""A review that is really served: uvicorn in a thread, reached over a socket."""

import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from rasura.annotator.server.app import create_app
from rasura.annotator.server.connections import TimedProtocol
from rasura.annotator.server.review import Review
from rasura.annotator.store.database import Database
from rasura.annotator.store.items import load_queue
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.reviewers import add_reviewer
from rasura.manifests.storage import Store

OPEN = Policy(votes=1, near_votes=1, most_votes=1, honeypots=0)


class Served:
    """A running server, and clients that are signed in."""

    def __init__(self, review: Review, url: str) -> None:
        self.review, self.url = review, url
        self.database = review.database

    def token(self, name: str, admin: bool = False) -> str:
        """A new reviewer's token."""
        return self.database.write(lambda connection: add_reviewer(connection, name, admin))

    def stranger(self) -> httpx.Client:
        """A client that is not signed in, but says the right origin."""
        return httpx.Client(base_url=self.url, headers={"origin": self.url}, timeout=120)

    @contextlib.contextmanager
    def client(self, name: str, admin: bool = False) -> Iterator[httpx.Client]:
        """A client that is signed in as a new reviewer."""
        with self.stranger() as client:
            assert client.post("/api/login", json={"token": self.token(name, admin)}).status_code == 200
            yield client


@contextlib.contextmanager
def serving(run: Store, where: str | Path, policy: Policy = OPEN, port: int = 0, **settings: Any) -> Iterator[Served]:
    """Serves a run's review until the context ends; at a port that was used before, or a free one."""
    database = Database(where)
    load_queue(run, database, policy)
    review = Review(run, database, policy, **{"watch_s": 0.2, **settings})
    listener = socket.create_server(("127.0.0.1", port))
    config = uvicorn.Config(
        create_app(review),
        log_config=None,
        access_log=False,
        server_header=False,
        http=TimedProtocol,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield Served(review, f"http://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join(120)
        listener.close()
        database.close()


def nonce() -> str:
    """A nonce for a vote."""
    return secrets.token_urlsafe(18)


def lease_item(client: httpx.Client) -> str:
    """The id of the next item of a signed-in client."""
    return str(client.post("/api/next", json={"want": 1}).json()["items"][0]["id"])
