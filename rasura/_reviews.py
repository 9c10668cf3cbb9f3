"""A review from Python: which rows to ask about first, the votes that come in, and how far it is."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

from rasura.manifests.errors import ReviewError
from rasura.manifests.run_layout import read_plan
from rasura.manifests.storage import Store

TIMEOUT_S = 60.0


class ReviewFailed(ReviewError):
    """A request that a review's server refused, or did not answer. The text says why."""


class _Source(Protocol):
    """Where a review is asked: its server, or its database."""

    def read(self, what: str, **query: int) -> Any: ...

    def push(self, rows: Sequence[str]) -> Mapping[str, Any]: ...


class Review:
    """A review: push items, pull votes, watch progress. `rasura.review` opens one.

    Examples:
        >>> import rasura
        >>> review = rasura.review("runs/demo")  # doctest: +SKIP
        >>> review.push(["3f2a", "77b0"])  # judge these rows first  # doctest: +SKIP
        []
        >>> review.progress()["voted"], review.votes()[0]["verdict"]  # doctest: +SKIP
        (12, 'yes')
    """

    def __init__(self, source: _Source) -> None:
        self._source = source

    def progress(self) -> dict[str, Any]:
        """Return the numbers of items: `candidates` = `voted` + `leased` + `waiting` + `not_asked`; and of `votes`."""
        return dict(self._source.read("progress"))

    def votes(self, after: int = 0) -> list[dict[str, Any]]:
        """Return the entries of the log after one (`seq`), oldest first: the rows of `votes.parquet`."""
        entries: list[dict[str, Any]] = []
        while part := self._source.read("votes", after=after):
            entries += part
            after = part[-1]["seq"]
        return entries

    def verdicts(self) -> list[dict[str, Any]]:
        """Return the verdict on each item that has a vote: the rows of `verdicts.parquet`."""
        return list(self._source.read("verdicts"))

    def corrections(self) -> list[dict[str, Any]]:
        """Return the corrected masks; `png` is a 1-bit PNG in base64."""
        return list(self._source.read("corrections"))

    def ratings(self) -> list[dict[str, Any]]:
        """Return the removers' ratings from rankings, the best first, with the interval of 95 % confidence."""
        return list(self._source.read("ratings"))

    def push(self, rows: Sequence[str]) -> list[str]:
        """Put rows at the head of the queue, in this order, and return the ids that the review does not have."""
        unknown: list[str] = []
        for start in range(0, len(rows), 500):
            unknown += self._source.push(list(rows[start : start + 500]))["unknown"]
        return unknown

    def watch(self, seconds: float = 10.0) -> Iterator[dict[str, Any]]:
        """Yield the progress now and whenever it has changed, until every item has its votes."""
        last = None
        while True:
            if (progress := self.progress()) != last:
                yield progress
                last = progress
            if progress["voted"] + progress["not_asked"] >= progress["candidates"]:
                return
            time.sleep(seconds)


class _Server:
    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self.origin, self._token = f"{parts.scheme}://{parts.netloc}", token

    def _send(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        headers = {"authorization": f"Bearer {self._token}", "origin": self.origin}
        data = None
        if body is not None:
            data, headers["content-type"] = json.dumps(body).encode(), "application/json"
        try:
            with urlopen(Request(f"{self.origin}/api/v1/{path}", data, headers), timeout=TIMEOUT_S) as answer:
                return json.load(answer)
        except HTTPError as error:
            detail = error.read(2000).decode(errors="replace")
            with contextlib.suppress(ValueError, LookupError, TypeError):
                detail = json.loads(detail)["detail"]
            raise ReviewFailed(f"{self.origin} answered {error.code}: {detail}") from None
        except (URLError, TimeoutError, ValueError) as error:
            raise ReviewFailed(f"{self.origin} does not answer: {getattr(error, 'reason', error)}") from None

    def read(self, what: str, **query: int) -> Any:
        return self._send(f"{what}?{urlencode(query)}" if query else what)

    def push(self, rows: Sequence[str]) -> Any:
        return self._send("items", {"rows": list(rows)})


class _Database:
    def __init__(self, run: str, database: str | None) -> None:
        self.run, self.database = run, database

    def _open(self) -> Any:
        from rasura.pipeline.cli.review import open_database

        return open_database(self.run, self.database, create=False)

    def read(self, what: str, **query: int) -> Any:
        from rasura.annotator.exchange import program_views

        with self._open() as database, database.read() as connection:
            return getattr(program_views, f"view_{what}")(connection, **query)

    def push(self, rows: Sequence[str]) -> Any:
        from rasura.annotator.store.team.pushes import push_rows

        with self._open() as database:
            return {"unknown": database.write(lambda connection: push_rows(connection, rows))}


def review(run: str, token: str | None = None, database: str | None = None) -> Review:
    """Open the review of a run: by the address of its server, or its database on this machine.

    Args:
        run: the run's folder or URI, or the address that `rasura review` serves it at, http(s)://….
        token: of a program, which an admin makes on the page; for an address.
        database: URL or file where the review is kept; None: the one in the run.

    Raises:
        ReviewFailed: an address without a token, or a token without an address.
        NoRun: there is no run in the folder.
    """
    is_address = run.startswith(("http://", "https://"))
    if is_address != (token is not None):
        text = "give the token of a program (admin page, Programs)" if is_address else "a token is for an http address"
        raise ReviewFailed(f"{run}: {text}")
    if not is_address and database is None:
        read_plan(Store(run))
    return Review(_Server(run, token) if token is not None else _Database(run, database))
