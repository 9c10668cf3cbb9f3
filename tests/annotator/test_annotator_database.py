"""The database of a review: crashes, a server that goes away, tokens, indices. On SQLite and on PostgreSQL."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import ROOT, environment
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from support.annotator.databases import Postgres
from support.annotator.queue import ONE, check_queue, database, lease, vote  # noqa: F401
from support.annotator.runs import make_run, people

from rasura.annotator.store import vote_log as votes
from rasura.annotator.store.database import Database, NoDatabase, leases, standing
from rasura.annotator.store.items import load_queue
from rasura.annotator.store.leases import list_open_items
from rasura.annotator.store.reviewers import BadName, add_reviewer, authenticate, remove_reviewer, renew_token, sign_in
from rasura.pipeline.run.verify import verify


def test_a_job_that_fails_takes_no_other_with_it(database: Database) -> None:
    """Jobs that are committed together fail alone."""
    gate = threading.Event()
    blocked = database.submit(lambda connection: gate.wait(300))
    good = [database.submit(lambda connection, n=n: add_reviewer(connection, f"r{n}")) for n in range(5)]
    bad = database.submit(lambda connection: add_reviewer(connection, "r0"))
    late = database.submit(lambda connection: add_reviewer(connection, "r9"))
    gate.set()
    assert blocked.result()
    with pytest.raises(BadName, match="there is a reviewer 'r0'"):
        bad.result()
    assert len({future.result() for future in [*good, late]}) == 6


def test_tokens(database: Database) -> None:
    """Only hashes are kept: no token or cookie stands in the database; a new token ends the old one and its sessions;
    one who is removed is out at once."""
    token = database.write(lambda connection: add_reviewer(connection, "Ann"))
    who, cookie = database.write(lambda connection: sign_in(connection, token, 0.0)) or pytest.fail("not signed in")
    with database.read() as connection:
        assert authenticate(connection, cookie, 1.0) == who
        assert authenticate(connection, cookie, 1e9) is None
        assert authenticate(connection, token, 1.0) is None
        for table in ("reviewers", "sessions"):
            kept = str(connection.execute(text(f"SELECT * FROM {table}")).all())
            assert token not in kept
            assert cookie not in kept
    other = database.write(lambda connection: renew_token(connection, "Ann"))
    with database.read() as connection:
        assert authenticate(connection, cookie, 1.0) is None
    assert database.write(lambda connection: sign_in(connection, token, 0.0)) is None
    assert database.write(lambda connection: sign_in(connection, other, 0.0))
    database.write(lambda connection: remove_reviewer(connection, "Ann"))
    assert database.write(lambda connection: sign_in(connection, other, 0.0)) is None
    for name in ("", "  ", "x" * 65, "a\nb", "\x00"):
        with pytest.raises(BadName):
            database.write(lambda connection, name=name: add_reviewer(connection, name))
    with pytest.raises(BadName, match="no reviewer 'Bob'"):
        database.write(lambda connection: renew_token(connection, "Bob"))


def test_killed_between_votes(tmp_path: Path, where: str, database: Database) -> None:
    """A process that is killed at any moment has lost no vote that it said was taken, and left nothing half done."""
    load_queue(make_run(tmp_path / "run", 400, side=8).store, database, ONE)
    people(database, "a")
    told: list[str] = []
    for _ in range(3):
        command = [sys.executable, "-m", "support.annotator.vote_until_killed", where]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(), cwd=ROOT) as process:
            assert process.stdout is not None
            told += [process.stdout.readline().strip() for _ in range(15)]
            process.send_signal(signal.SIGKILL)
            told += process.stdout.read().split("\n")[:-1]
    assert len(told) >= 45
    with database.read() as connection:
        kept = [entry.item for entry in votes.read_entries(connection)]
    assert len(kept) == len(set(kept))
    assert {item for item in told if len(item) == 32} <= set(kept)
    check_queue(database)


@pytest.mark.postgres
def test_postgres_goes_away_and_comes_back(tmp_path: Path, postgres: Postgres) -> None:
    """When the database server dies, votes fail and say so, none half; when it is back, they go on without a restart,
    and the vote that was sent again is there once."""
    database = Database(postgres.new())
    load_queue(make_run(tmp_path / "run", 6).store, database, ONE)
    (one,) = people(database, "a")
    first, second = lease(database, ONE, one, 2)
    vote(database, ONE, one, first, "yes", "n1")
    postgres.stop()
    try:
        with pytest.raises(DBAPIError):
            vote(database, ONE, one, second, "no", "n2")
        with pytest.raises(NoDatabase, match="cannot open"):
            Database(database.url)
    finally:
        postgres.start()
    vote(database, ONE, one, first, "yes", "n1")
    vote(database, ONE, one, second, "no", "n2")
    with database.read() as connection:
        assert [entry.item for entry in votes.read_entries(connection)] == [first, second]
    database.close()


def test_what_is_no_database(tmp_path: Path) -> None:
    """A file that is none, a URL of another kind, and a review that has not begun are told in one sentence."""
    (tmp_path / "text.sqlite").write_text("this is not a database, and long enough to be read as one" * 20)
    with pytest.raises(NoDatabase, match="cannot open"):
        Database(tmp_path / "text.sqlite")
    with pytest.raises(NoDatabase, match="mysql://…': give postgresql://"):
        Database("mysql://user:secret@host/x")
    with pytest.raises(NoDatabase, match="there is no review"):
        Database(tmp_path / "none.sqlite", create=False)


def test_tables_of_the_queue_use_their_indices(tmp_path: Path, where: str, database: Database) -> None:
    """The next item is found by index, not by looking at all of them."""
    if where.startswith("postgresql"):
        pytest.skip("its planner looks at so few rows directly")
    load_queue(make_run(tmp_path / "run", 30).store, database, ONE)
    with database.read() as connection:
        queue = "SELECT id FROM items WHERE free > 0 ORDER BY priority, id LIMIT 1"
        plan = str(connection.execute(text(f"EXPLAIN QUERY PLAN {queue}")).all())
        assert "USING INDEX waiting" in plan or "USING COVERING INDEX waiting" in plan
        assert list_open_items(connection, 1) == []
        assert connection.execute(select(leases)).all() == []
        assert connection.execute(select(standing)).all() == []


def test_run_helper_is_a_run(tmp_path: Path) -> None:
    """The tests' own run is one that the rest of the program accepts."""
    run = make_run(tmp_path / "run", 4, truth=2)
    assert verify(run.store)[0] == []
