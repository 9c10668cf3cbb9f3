"""A queue in a database, and reviewers who lease its items and vote."""

import random
import time
from collections.abc import Iterator

import pytest

from rasura.annotator.stats.accounting import find_faults
from rasura.annotator.store import vote_log as votes
from rasura.annotator.store.database import Database
from rasura.annotator.store.leases import lease_items
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.reviewers import Reviewer
from rasura.annotator.store.vote_log import Submission

ONE = Policy(votes=1, near_votes=1, most_votes=1, honeypots=0)
TWO = Policy(votes=2, near_votes=2, most_votes=2, honeypots=0)


@pytest.fixture
def database(where: str) -> Iterator[Database]:
    """The database of a review: an SQLite file, and a PostgreSQL database."""
    opened = Database(where)
    yield opened
    opened.close()


def lease(database: Database, policy: Policy, who: Reviewer, want: int = 1, now: float = 0.0) -> list[str]:
    rows = database.write(lambda connection: lease_items(connection, policy, who, want, now))
    return [row.id for row in rows]


def vote(database: Database, policy: Policy, who: Reviewer, item: str, verdict: str | None, nonce: str = "") -> None:
    entry = Submission(item, nonce or f"{who.id}-{item}-{random.random()}", verdict)
    database.write(lambda connection: votes.cast_vote(connection, policy, who, entry, time.time()))


def check_queue(database: Database) -> None:
    """The queue's own numbers are what the log and the leases say."""
    with database.read() as connection:
        assert find_faults(connection) == []
