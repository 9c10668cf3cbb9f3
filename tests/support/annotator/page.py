"""The review's page, opened in a browser on a served run."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from support.annotator.browser import open_page
from support.annotator.runs import make_run
from support.annotator.server import Served, serving

from rasura.annotator.store import vote_log as votes
from rasura.annotator.store.policy import Policy

TWO = Policy(votes=2, near_votes=2, most_votes=2, honeypots=0)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """The review of forty candidates."""
    with serving(make_run(tmp_path / "run", 40, side=342).store, tmp_path / "r.sqlite") as server:
        yield server


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    """The page of a reviewer who is signed in; a fault of a script fails the test."""
    opened = open_page(browser, served, served.token("Ann"))
    yield opened
    assert opened.faults == []  # type: ignore[attr-defined]
    opened.context.close()


def list_votes(served: Served) -> list[tuple[str, str | None, str | None]]:
    """Action, verdict and reason of all votes, in order."""
    with served.database.read() as connection:
        return [(entry.action, entry.verdict, entry.reason) for entry in votes.read_entries(connection)]
