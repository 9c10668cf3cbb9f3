"""The state of the server: the run, its database and policy, and the dependencies of the routes."""

import hashlib
import logging
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
from rasura.annotator.server.team.repairer import MaskRepairer
from rasura.annotator.server.views import ViewFiles, ViewMaker, open_folder
from rasura.annotator.stats.accounting import TeamProgress, read_team_progress
from rasura.annotator.stats.statistics import Figures, build_figures
from rasura.annotator.store.database import Database
from rasura.annotator.store.known_answers import read_disguise
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.reviewers import Reviewer, authenticate
from rasura.annotator.store.team.photos import Photo, list_photos
from rasura.annotator.store.team.settings import ReviewSettings, read_settings
from rasura.manifests.storage import Store

log = logging.getLogger("rasura.review")
PAGE = Path(__file__).parent.parent / "page"
WATCH_S = 20.0
"""Seconds between two looks for new rows of the run."""
SETTINGS_S = 1.0
"""Age in seconds that the wording of the review may have."""
PROGRESS_S = 2.0
"""Age in seconds that the numbers of the progress line may have."""
REVIEWER_HEADER = "x-reviewer"
"""Id of the reviewer for whom a page sends a request: another one may have signed in meanwhile."""
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
        public_url: address that reviewers type, behind a proxy; over https, cookies say so.
        watch_s: seconds between two looks for new rows.
        repairer: answers clicks on masks; None: masks are corrected with the brush alone.
        check_drawing: raises a ValueError for a drawing of the ground, as JSON, that is none; None: nothing is drawn.
        login_limit: of wrong tokens.
    """

    run: Store
    database: Database
    policy: Policy = field(default_factory=Policy)
    flows: Sequence[str] = ()
    hosts: Sequence[str] = LOOPBACK
    public_url: str | None = None
    watch_s: float = WATCH_S
    repairer: MaskRepairer | None = None
    check_drawing: Callable[[bytes], object] | None = None
    login_limit: FailureLimit = field(default_factory=FailureLimit)

    @property
    def secure(self) -> bool:
        """True where it is served over https."""
        return bool(self.public_url and self.public_url.startswith("https://"))

    @cached_property
    def name(self) -> str:
        """Name of the run: the last part of its address."""
        return self.run.uri.rstrip("/").rpartition("/")[2] or self.run.uri

    @property
    def cookie(self) -> str:
        """Name of the cookie, with the id of the review: a browser sends a host's cookies to all of its ports."""
        return f"rasura_{self.database.review_id}"

    @cached_property
    def pictures(self) -> PictureReader:
        """The run's pictures."""
        return PictureReader(self.run)

    @cached_property
    def views(self) -> ViewMaker:
        """The pictures as the page shows them."""
        with self.database.read() as connection:
            secret = read_disguise(connection).secret
        return ViewMaker(self.pictures, ViewFiles(open_folder(self.database.file)), secret)

    @cached_property
    def settings(self) -> "CachedValue[tuple[int, ReviewSettings]]":
        """Number and contents of the wording's newest version, a little old at most."""

        def read() -> tuple[int, ReviewSettings]:
            with self.database.read() as connection:
                return read_settings(connection)

        return CachedValue(read, SETTINGS_S)

    @cached_property
    def photos(self) -> "CachedValue[dict[str, Photo]]":
        """The photographs on which a floor can be drawn, by the ids of their rows, a little old at most."""
        return CachedValue(lambda: {photo.id: photo for photo in list_photos(self.run)}, WATCH_S)

    @cached_property
    def _page_guidelines(self) -> str:
        """Hash of the texts of the page."""
        digest = hashlib.sha256()
        for path in sorted((PAGE / "texts").glob("*.js")):
            digest.update(path.read_bytes())
        return digest.hexdigest()[:12]

    @property
    def guidelines(self) -> str:
        """Hash of the guidelines that reviewers read."""
        version, settings = self.settings.get()
        return settings.compute_hash() if version else self._page_guidelines

    @cached_property
    def figures(self) -> "SteadyValue[Figures]":
        """The figures of the admin page, a little old where the log is long."""

        def build() -> Figures:
            with self.database.read() as connection:
                return build_figures(connection, self.policy.model_dump())

        return SteadyValue(build)

    @cached_property
    def progress(self) -> "CachedValue[TeamProgress]":
        """The progress of all reviewers, a little old at most."""

        def read() -> TeamProgress:
            with self.database.read() as connection:
                return read_team_progress(connection, self.policy)

        return CachedValue(read, PROGRESS_S)


class SteadyValue(Generic[T]):
    """A value whose computation takes a share of the time at most.

    Where it takes little, it is computed whenever it is asked for; else by a thread, while the last one is returned.
    """

    QUICK_S = 0.05
    FIRST_S = 0.5  # the first time statements are compiled, too
    SHARE = 0.05

    def __init__(self, compute: Callable[[], T]) -> None:
        self._compute = compute
        self._lock, self._took, self._ended = threading.Lock(), 0.0, 0.0
        self._value: T | None = None

    def get(self) -> T:
        """Return the value."""
        if self._value is None:
            with self._lock:
                return self._value if self._value is not None else self._refresh()
        is_due = self._took <= self.QUICK_S or time.monotonic() - self._ended > self._took / self.SHARE
        if not is_due or not self._lock.acquire(blocking=False):
            return self._value
        if self._took > self.QUICK_S:
            threading.Thread(target=self._refresh_and_release, name="rasura-figures", daemon=True).start()
            return self._value
        try:
            return self._refresh()
        finally:
            self._lock.release()

    def _refresh_and_release(self) -> None:
        try:
            self._refresh()
        except Exception as error:  # a database that is away: the next request tries again
            log.warning("the figures cannot be computed: %s", error)
        finally:
            self._lock.release()

    def _refresh(self) -> T:
        start, is_first = time.thread_time(), self._value is None  # and not what others take of the processor
        self._value = self._compute()
        self._ended = time.monotonic()
        took = time.thread_time() - start
        self._took = 0.0 if is_first and took < self.FIRST_S else took
        return self._value


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
        if reviewer and request.headers.get(REVIEWER_HEADER, str(reviewer.id)) != str(reviewer.id):
            raise HTTPException(401, "somebody else has signed in in this browser")
        if reviewer:
            return reviewer
    raise HTTPException(401, "sign in first")


SignedIn = Annotated[Reviewer, Depends(require_reviewer)]
