"""The state of the server: the run, its database and policy, and the dependencies of the routes."""

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Generic, TypeVar, cast

from fastapi import Depends, HTTPException, Request

from rasura.annotator.server.images import PictureReader
from rasura.annotator.server.middleware import LOOPBACK, FailureLimit
from rasura.annotator.stats.accounting import ReviewAccounting, read_accounting
from rasura.annotator.store.database import Database
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.reviewers import Reviewer, authenticate
from rasura.manifests.storage import Store

PAGE = Path(__file__).parent.parent / "page"
WATCH_S = 20.0
"""Seconds between two looks for new rows of the run."""
PROGRESS_S = 2.0
"""Age in seconds that the numbers of the progress line may have."""
T = TypeVar("T")


def get_program_version() -> str:
    """Return the version of this program."""
    try:
        return version("rasura")
    except PackageNotFoundError:
        return "0"


@dataclass
class Review:
    """The state that all requests share.

    Attributes:
        run: that has the candidates.
        database: of the review.
        policy: of the review.
        flows: whose candidates are reviewed; all where there is none.
        hosts: names by which the server may be addressed.
        secure: True where it is served over https; cookies say so.
        watch_s: seconds between two looks for new rows.
        login_limit: of wrong tokens.
    """

    run: Store
    database: Database
    policy: Policy = field(default_factory=Policy)
    flows: Sequence[str] = ()
    hosts: Sequence[str] = LOOPBACK
    secure: bool = False
    watch_s: float = WATCH_S
    login_limit: FailureLimit = field(default_factory=FailureLimit)

    @cached_property
    def name(self) -> str:
        """Name of the run: the last part of its address."""
        return self.run.uri.rstrip("/").rpartition("/")[2] or self.run.uri

    @cached_property
    def cookie(self) -> str:
        """Name of the cookie: two reviews on one host, at two ports, have two."""
        return "rasura_" + hashlib.sha256(f"{self.run.uri}\0{self.database.url}".encode()).hexdigest()[:8]

    @cached_property
    def pictures(self) -> PictureReader:
        """The run's pictures."""
        return PictureReader(self.run)

    @cached_property
    def guidelines(self) -> str:
        """Hash of the text of the guidelines."""
        page = (PAGE / "index.html").read_bytes()
        text = page.partition(b'<dialog id="guidelines"')[2].partition(b"</dialog>")[0]
        return hashlib.sha256(text).hexdigest()[:12]

    @cached_property
    def accounting(self) -> "CachedValue[ReviewAccounting]":
        """Numbers of candidates, a little old at most."""

        def read() -> ReviewAccounting:
            with self.database.read() as connection:
                return read_accounting(connection)

        return CachedValue(read, PROGRESS_S)


class CachedValue(Generic[T]):
    """A value that is computed again when it is older than some seconds; concurrent readers share one computation."""

    def __init__(self, compute: Callable[[], T], seconds: float) -> None:
        self._compute, self._seconds = compute, seconds
        self._lock, self._computed_at = threading.Lock(), -float("inf")
        self._value: T | None = None

    def get(self) -> T:
        """Return the value."""
        with self._lock:
            if self._value is None or time.monotonic() - self._computed_at > self._seconds:
                self._value, self._computed_at = self._compute(), time.monotonic()
            return self._value


def get_review(request: Request) -> Review:
    """Return the review that the application serves."""
    return cast(Review, request.app.state.review)


CurrentReview = Annotated[Review, Depends(get_review)]


def require_reviewer(request: Request, review: CurrentReview) -> Reviewer:
    """Return the reviewer whose cookie came with the request.

    Raises:
        HTTPException: 401, nobody is signed in.
    """
    cookie = request.cookies.get(review.cookie)
    if cookie:
        with review.database.read() as connection:
            reviewer = authenticate(connection, cookie, time.time())
        if reviewer:
            return reviewer
    raise HTTPException(401, "sign in first")


SignedIn = Annotated[Reviewer, Depends(require_reviewer)]
