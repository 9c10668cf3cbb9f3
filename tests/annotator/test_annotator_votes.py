"""Votes: edits, undoing, skipping, repeated sending, and their log. On SQLite and on PostgreSQL."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from support.annotator.queue import ONE, check_queue, database, lease, vote  # noqa: F401
from support.annotator.runs import CANDIDATES, make_run, people, row

from rasura.annotator.store import vote_log as votes
from rasura.annotator.store.database import Database, items, log
from rasura.annotator.store.items import load_queue
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.vote_log import UnknownItem, WithdrawnItem
from rasura.manifests.run_layout import table_path


def test_late_vote_counts_where_there_is_room(tmp_path: Path, database: Database) -> None:
    """A vote after the lease has expired counts when nobody else has the item."""
    load_queue(make_run(tmp_path / "run", 3).store, database, ONE)
    one, two = people(database, "ab")
    (late, *_) = lease(database, ONE, one, 1)
    taken = lease(database, Policy(honeypots=0, votes=1, near_votes=1), two, 1, now=10_000)
    assert taken == [late]
    vote(database, ONE, two, late, None)  # skipped: free again
    vote(database, ONE, one, late, "yes")
    check_queue(database)


def test_only_what_was_dealt_can_be_judged(tmp_path: Path, database: Database) -> None:
    """Nobody votes on an item that was never theirs, that does not exist, or that the run has lost."""
    run = make_run(tmp_path / "run", 4)
    load_queue(run.store, database, ONE)
    one, two = people(database, "ab")
    (item,) = lease(database, ONE, one)
    for who, what in ((two, item), (one, "f" * 32)):
        with pytest.raises(UnknownItem):
            vote(database, ONE, who, what, "yes")
    shutil.rmtree(run.store.local / table_path("candidates"))
    run.flow("candidates", [row(n, "edited") for n in range(100, 104)], CANDIDATES, shard_rows=2)
    load_queue(run.store, database, ONE)
    with database.read() as connection:
        gone = connection.execute(select(items.c.withdrawn).where(items.c.id == item)).scalar_one()
    if gone:
        with pytest.raises(WithdrawnItem):
            vote(database, ONE, one, item, "yes")
    check_queue(database)


def test_edit_undo_skip(tmp_path: Path, database: Database) -> None:
    """An edit replaces the verdict, an undo takes it back and deals the item again, a skip keeps the item away from
    its reviewer and leaves it to others: the log keeps all of it, in order."""
    load_queue(make_run(tmp_path / "run", 3).store, database, ONE)
    one, two = people(database, "ab")
    first, second, third = lease(database, ONE, one, 3)
    vote(database, ONE, one, first, "yes")
    vote(database, ONE, one, first, "no")
    vote(database, ONE, one, second, None)
    with database.read() as connection:
        assert [entry.verdict for entry in votes.read_history(connection, one)] == [None, "no"]
    assert lease(database, ONE, one, 3) == [third]
    assert lease(database, ONE, two, 3) == [second]
    back, is_open = database.write(lambda connection: votes.undo_vote(connection, ONE, one, "undo 1", 0.0, first))
    assert (back.id, is_open) == (first, True)
    assert lease(database, ONE, one, 3) == [first, third]
    vote(database, ONE, one, first, "unsure")
    with database.read() as connection:
        actions = [(entry.action, entry.verdict) for entry in votes.read_entries(connection)]
        assert votes.list_verdicts(connection) == [(first, one.id, "unsure")]
    assert actions == [("vote", "yes"), ("edit", "no"), ("skip", None), ("undo", None), ("vote", "unsure")]
    check_queue(database)


def test_undo_with_nothing_to_undo(tmp_path: Path, database: Database) -> None:
    """There is nothing to take back before the first vote, and nothing of somebody else's."""
    load_queue(make_run(tmp_path / "run", 3).store, database, ONE)
    one, two = people(database, "ab")
    (item,) = lease(database, ONE, one)
    vote(database, ONE, one, item, "yes")
    with pytest.raises(votes.NothingToUndo):
        database.write(lambda connection: votes.undo_vote(connection, ONE, two, "n", 0.0, item))


def test_the_same_vote_sent_twice_is_one(tmp_path: Path, database: Database) -> None:
    """A vote whose answer was lost is sent again under its nonce: it is there once. A nonce of somebody else's is
    refused, and one's own with another item or verdict: it would be acknowledged and not noted."""
    load_queue(make_run(tmp_path / "run", 3).store, database, ONE)
    one, two = people(database, "ab")
    item, other = lease(database, ONE, one, 2)
    for _ in range(3):
        vote(database, ONE, one, item, "yes", "nonce 1")
    (its,) = lease(database, ONE, two)
    with pytest.raises(UnknownItem, match="nonce"):
        vote(database, ONE, two, its, "no", "nonce 1")
    for what, verdict in ((other, "yes"), (item, "no"), (item, None)):
        with pytest.raises(votes.ReusedNonce, match="something else"):
            vote(database, ONE, one, what, verdict, "nonce 1")
    with database.read() as connection:
        assert [entry.item for entry in votes.read_entries(connection)] == [item]
    assert other in lease(database, ONE, one, 2)


def test_disagreement_calls_for_one_more(tmp_path: Path, database: Database) -> None:
    """Two who disagree call a third, and the third one ends it."""
    load_queue(make_run(tmp_path / "run", 1).store, database, Policy(votes=2, most_votes=3, honeypots=0))
    policy = Policy(votes=2, most_votes=3, honeypots=0)
    one, two, three, four = people(database, "abcd")
    for who, verdict in ((one, "yes"), (two, "no"), (three, "no")):
        (item,) = lease(database, policy, who)
        vote(database, policy, who, item, verdict)
    assert lease(database, policy, four) == []
    check_queue(database)


def test_the_log_only_grows(tmp_path: Path, database: Database) -> None:
    """Nobody who writes SQL changes or deletes an entry of the log either; and one reviewer has one verdict on an item
    at most, whatever is written."""
    load_queue(make_run(tmp_path / "run", 2).store, database, ONE)
    (one,) = people(database, "a")
    (item,) = lease(database, ONE, one)
    vote(database, ONE, one, item, "yes")
    for statement in ("UPDATE log SET verdict = 'no'", "DELETE FROM log"):
        with pytest.raises(DBAPIError, match="append-only"):
            database.write(lambda connection, statement=statement: connection.execute(text(statement)))
    double = f"INSERT INTO standing (item, reviewer, seq, verdict) VALUES ('{item}', {one.id}, 99, 'no')"
    with pytest.raises(DBAPIError):
        database.write(lambda connection: connection.execute(text(double)))
    with database.read() as connection:
        assert [entry.verdict for entry in connection.execute(select(log))] == ["yes"]
