"""A review as the server sees it: the run, its database and policy, who may ask, and what is told how often."""

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Generic, TypeVar

from fastapi import HTTPException, Request

from rasura.annotator.server.images import Pictures
from rasura.annotator.server.middleware import LOOPBACK
from rasura.annotator.store import reviewers as people
from rasura.annotator.store.database import Database
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.reviewers import Reviewer
from rasura.manifests.storage import Store

PAGE = Path(__file__).parent.parent / "page"
WATCH_S = 20.0  # how often the run is looked at for new rows
T = TypeVar("T")


def program_version() -> str:
    """Version of this program."""
    try:
        return version("rasura")
    except PackageNotFoundError:
        return "0"


@dataclass
class Review:
    """All that a review needs: the run, its database, its policy, and who may ask."""

    run: Store
    database: Database
    policy: Policy = field(default_factory=Policy)
    flows: Sequence[str] = ()
    hosts: Sequence[str] = LOOPBACK
    secure: bool = False  # served over https: the cookie says so
    watch_s: float = WATCH_S

    @cached_property
    def name(self) -> str:
        """The run's name: the last part of its address."""
        return self.run.uri.rstrip("/").rpartition("/")[2] or self.run.uri

    @cached_property
    def cookie(self) -> str:
        """Name of the cookie: two reviews on one host, at two ports, keep theirs apart."""
        return "rasura_" + hashlib.sha256(f"{self.run.uri}\0{self.database.url}".encode()).hexdigest()[:8]

    @cached_property
    def pictures(self) -> Pictures:
        """The run's pictures."""
        return Pictures(self.run)

    @cached_property
    def guidelines(self) -> str:
        """Which guidelines the reviewers see: a hash of their text."""
        page = (PAGE / "index.html").read_bytes()
        text = page.partition(b'<dialog id="guidelines"')[2].partition(b"</dialog>")[0]
        return hashlib.sha256(text).hexdigest()[:12]


class Recent(Generic[T]):
    """A value that is made again when it is older than some seconds; many who ask at once wait for one."""

    def __init__(self, make: Callable[[], T], seconds: float) -> None:
        self._make, self._seconds = make, seconds
        self._lock, self._made = threading.Lock(), -float("inf")
        self._value: T | None = None

    def get(self) -> T:
        """The value."""
        with self._lock:
            if self._value is None or time.monotonic() - self._made > self._seconds:
                self._value, self._made = self._make(), time.monotonic()
            return self._value


def signed_in(review: Review) -> Callable[[Request], Reviewer]:
    """A dependency: the reviewer whose cookie came with the request.

    Raises:
        HTTPException: 401.
    """

    def who(request: Request) -> Reviewer:
        cookie = request.cookies.get(review.cookie)
        if cookie:
            with review.database.read() as connection:
                found = people.whose(connection, cookie, time.time())
            if found:
                return found
        raise HTTPException(401, "sign in first")

    return who
