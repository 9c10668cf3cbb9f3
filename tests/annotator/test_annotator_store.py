"""The queue: what is dealt to whom, and the log that every verdict goes into. On SQLite and on PostgreSQL."""

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import ROOT, environment
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from support.annotator_databases import Postgres, postgres, where  # noqa: F401
from support.annotator_runs import CANDIDATES, make_run, people, row

from rasura.annotator.stats.accounting import account, faults
from rasura.annotator.store import vote_log as votes
from rasura.annotator.store.database import Database, NoDatabase, items, leases, log, standing
from rasura.annotator.store.enums import Variant
from rasura.annotator.store.items import NothingToReview, load
from rasura.annotator.store.leases import held, next_items
from rasura.annotator.store.policy import Policy, is_honeypot_turn, leader, needed, priority
from rasura.annotator.store.reviewers import BadName, Reviewer, add_reviewer, new_token, remove_reviewer, sign_in, whose
from rasura.annotator.store.vote_log import Entry, Taken, UnknownItem, Withdrawn
from rasura.manifests.schemas import Kind
from rasura.manifests.storage import Store
from rasura.pipeline.run.verify import verify

ONE = Policy(votes=1, near_votes=1, most_votes=1, honeypots=0)
TWO = Policy(votes=2, near_votes=2, most_votes=2, honeypots=0)
WORDS = st.sampled_from(["yes", "no", "unsure"])


@pytest.fixture
def database(where: str) -> Iterator[Database]:  # noqa: F811
    opened = Database(where)
    yield opened
    opened.close()


def deal(database: Database, policy: Policy, who: Reviewer, want: int = 1, now: float = 0.0) -> list[str]:
    rows = database.write(lambda connection: next_items(connection, policy, who, want, now))
    return [row.id for row in rows]


def say(database: Database, policy: Policy, who: Reviewer, item: str, verdict: str | None, nonce: str = "") -> None:
    entry = Entry(item, nonce or f"{who.id}-{item}-{random.random()}", verdict)
    database.write(lambda connection: votes.cast(connection, policy, who, entry, time.time()))


def whole(database: Database) -> None:
    """The queue's own numbers are what the log and the leases say."""
    with database.read() as connection:
        assert faults(connection) == []


@given(st.lists(WORDS, max_size=12), st.one_of(st.none(), st.floats(0, 1)))
def test_votes_needed(verdicts: list[str], score: float | None) -> None:
    """An item never needs fewer votes than it has or than the recipe's least, nor more than the most unless it has
    them; and where it needs no more, a yes or no has the majority or the most are reached."""
    policy = Policy(votes=1, near_votes=2, most_votes=5)
    wanted = needed(policy, verdicts, score)
    base = 2 if score is not None and abs(score - 0.9) <= 0.05 + 1e-9 else 1
    assert max(base, len(verdicts)) <= wanted <= max(5, len(verdicts))
    if wanted == len(verdicts):
        assert leader(verdicts) in ("yes", "no") or len(verdicts) >= 5


def test_votes_needed_examples() -> None:
    """One vote far from the threshold, two near it, a third where they disagree, one more where it is unsure."""
    policy = Policy()
    assert needed(policy, [], 0.3) == 1
    assert needed(policy, [], None) == 1
    assert needed(policy, [], 0.93) == 2
    assert needed(policy, ["yes"], 0.93) == 2
    assert needed(policy, ["yes", "no"], 0.93) == 3
    assert needed(policy, ["yes", "no", "yes"], 0.93) == 3
    assert needed(policy, ["unsure"], 0.3) == 2
    assert needed(policy, ["yes", "no", "unsure"], 0.3) == 3
    with pytest.raises(ValueError, match="most_votes is 1"):
        Policy(votes=2, most_votes=1)


def test_order() -> None:
    """Uncertainty: nearest to the threshold first, unscored last. Balance: one of each class, then a second of each.
    Random: neither the score nor the rank matters."""
    near, far = (priority(Policy(), "a", score, 0) for score in (0.88, 0.2))
    assert near < far < priority(Policy(), "a", None, 0)
    balance = Policy(order="balance")
    assert priority(balance, "x", 0.1, 0) < priority(balance, "y", 0.9, 1)
    shuffled = Policy(order="random")
    assert priority(shuffled, "x", 0.1, 0) == priority(shuffled, "x", 0.9, 7)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 0.5])
def test_honeypot_turns(share: float) -> None:
    """The promised share of turns has a known answer, evenly spread, at places that differ between reviewers."""
    policy = Policy(honeypots=share)
    turns = [turn for turn in range(400) if is_honeypot_turn(policy, 1, turn)]
    assert len(turns) == 400 * share
    assert max(b - a for a, b in pairwise(turns)) < 2 / share
    assert turns != [turn for turn in range(400) if is_honeypot_turn(policy, 2, turn)]
    assert not any(is_honeypot_turn(Policy(honeypots=0), 1, turn) for turn in range(400))


def test_loads_what_is_to_be_judged(tmp_path: Path, database: Database) -> None:
    """Candidates without a verdict are in the queue, those with one are not; a row that a later flow scored is taken
    from there, once; captured rows give honeypots and examples; a second load changes nothing."""
    run = make_run(tmp_path / "run", 0, truth=8)
    rows = [row(n, "edited", verdict="yes" if n == 3 else None) for n in range(6)]
    run.flow("candidates", rows, CANDIDATES)
    selection = dict.fromkeys(("id", "kind", "label", "ref_table", "ref_shard"), Kind.STRING)
    selection |= {"score": Kind.FLOAT, "ref_row": Kind.INT}
    refers = {"ref_table": "candidates", "ref_shard": "candidates0", "ref_row": 1}
    table = [{"id": rows[1]["id"], "kind": "edited", "label": "car", "score": 0.77, **refers}]
    run.flow("scored", table, selection)
    loaded = load(run.store, database, Policy())
    assert (loaded.candidates, loaded.judged) == (5, 1)
    assert loaded.honeypots + 2 == 8
    with database.read() as connection:
        found = connection.execute(select(items)).all()
    by_kind = Counter(item.kind for item in found)
    assert by_kind == {"candidate": 5, "honeypot": 6, "example": 12}
    assert all(
        (item.expected == "yes") == (item.variant == Variant.TARGET) for item in found if item.kind != "candidate"
    )
    again = load(run.store, database, Policy())
    assert (again.added, again.withdrawn) == (0, 0)


def test_nothing_to_review(tmp_path: Path, database: Database) -> None:
    """A folder that is no run, a run without candidates and a flow that is not there are told apart in one sentence."""
    with pytest.raises(NothingToReview, match=r"no plan\.json"):
        load(Store(tmp_path / "empty"), database, ONE)
    run = make_run(tmp_path / "run", 0, truth=3)
    with pytest.raises(NothingToReview, match="no candidate"):
        load(run.store, database, ONE)
    with pytest.raises(NothingToReview, match="no flow 'scored'"):
        load(run.store, database, ONE, ["scored"])


def test_an_item_is_in_one_hand_for_each_vote_it_needs(tmp_path: Path, database: Database) -> None:
    """With two votes an item, four reviewers who take all they can get hold each item exactly twice, never twice in
    one hand; and the votes end at two each."""
    load(make_run(tmp_path / "run", 12).store, database, TWO)
    four = people(database, "abcd")
    hands = {who.id: deal(database, TWO, who, 12) for who in four}
    assert Counter(item for hand in hands.values() for item in hand) == dict.fromkeys(
        {item for hand in hands.values() for item in hand}, 2
    )
    assert all(len(set(hand)) == len(hand) for hand in hands.values())
    while any(hands.values()):
        for who in four:
            for item in hands[who.id]:
                say(database, TWO, who, item, "yes")
            hands[who.id] = deal(database, TWO, who, 12)
    with database.read() as connection:
        tally = Counter(item for item, *_ in votes.verdicts(connection))
    assert set(tally.values()) == {2}
    assert len(tally) == 12
    whole(database)


def test_many_at_once(tmp_path: Path, database: Database) -> None:
    """Eight reviewers in eight threads, voting as fast as they can: no item is over its quota at any moment, no vote
    is lost or twice."""
    load(make_run(tmp_path / "run", 40).store, database, TWO)
    reviewers = people(database, "abcdefgh")
    given_votes: list[tuple[str, int]] = []
    over: list[object] = []

    def work(who: Reviewer) -> None:
        while hand := deal(database, TWO, who, 3):
            with database.read() as connection:
                of = (items.c.votes + items.c.leases > items.c.needed, items.c.kind == "candidate")
                over.extend(connection.execute(select(items.c.id).where(*of)))
            for item in hand:
                say(database, TWO, who, item, random.choice(["yes", "no"]))
                given_votes.append((item, who.id))

    threads = [threading.Thread(target=work, args=(who,)) for who in reviewers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert over == []
    assert len(given_votes) == len(set(given_votes)) == 80
    with database.read() as connection:
        assert sorted((item, who) for item, who, _ in votes.verdicts(connection)) == sorted(given_votes)
    whole(database)


def test_leases_expire_and_are_renewed(tmp_path: Path, database: Database) -> None:
    """What one holds comes back to the same hands after a reload; left alone for its minutes it goes to somebody else;
    who asks again in time keeps it. A late vote counts where there is room, and is refused where there is none."""
    load(make_run(tmp_path / "run", 1).store, database, ONE)
    one, two = people(database, "ab")
    (item,) = deal(database, ONE, one, 5)
    assert deal(database, ONE, two, 5) == []
    assert deal(database, ONE, one, 5, now=500) == [item]  # a reload, which renews
    assert deal(database, ONE, two, 5, now=1000) == []
    assert deal(database, ONE, two, 5, now=1101) == [item]
    with pytest.raises(Taken):
        say(database, ONE, one, item, "yes")
    assert deal(database, ONE, one, 5, now=5000) == [item]  # the second one went away, too
    say(database, ONE, one, item, "yes")
    with pytest.raises(Taken):
        say(database, ONE, two, item, "no")
    whole(database)


def test_late_vote_counts_where_there_is_room(tmp_path: Path, database: Database) -> None:
    """A vote after the lease has expired counts when nobody else has the item."""
    load(make_run(tmp_path / "run", 3).store, database, ONE)
    one, two = people(database, "ab")
    (late, *_) = deal(database, ONE, one, 1)
    taken = deal(database, Policy(honeypots=0, votes=1, near_votes=1), two, 1, now=10_000)
    assert taken == [late]
    say(database, ONE, two, late, None)  # skipped: free again
    say(database, ONE, one, late, "yes")
    whole(database)


def test_only_what_was_dealt_can_be_judged(tmp_path: Path, database: Database) -> None:
    """Nobody votes on an item that was never theirs, that does not exist, or that the run has lost."""
    run = make_run(tmp_path / "run", 4)
    load(run.store, database, ONE)
    one, two = people(database, "ab")
    (item,) = deal(database, ONE, one)
    for who, what in ((two, item), (one, "f" * 32)):
        with pytest.raises(UnknownItem):
            say(database, ONE, who, what, "yes")
    run.flow("candidates", [row(n, "edited") for n in range(100, 104)], CANDIDATES, shard_rows=3)
    run.flow("candidates", [row(n, "edited") for n in range(100, 104)], CANDIDATES, shard_rows=2)
    load(run.store, database, ONE)
    with database.read() as connection:
        gone = connection.execute(select(items.c.withdrawn).where(items.c.id == item)).scalar_one()
    if gone:
        with pytest.raises(Withdrawn):
            say(database, ONE, one, item, "yes")
    whole(database)


def test_edit_undo_skip(tmp_path: Path, database: Database) -> None:
    """An edit replaces the verdict, an undo takes it back and deals the item again, a skip keeps the item away from
    its reviewer and leaves it to others: the log keeps all of it, in order."""
    load(make_run(tmp_path / "run", 3).store, database, ONE)
    one, two = people(database, "ab")
    first, second, third = deal(database, ONE, one, 3)
    say(database, ONE, one, first, "yes")
    say(database, ONE, one, first, "no")
    say(database, ONE, one, second, None)
    with database.read() as connection:
        assert [entry["verdict"] for entry in votes.history(connection, one)] == [None, "no"]
    assert deal(database, ONE, one, 3) == [third]
    assert deal(database, ONE, two, 3) == [second]
    back = database.write(lambda connection: votes.undo(connection, ONE, one, "undo 1", 0.0, first))
    assert back.id == first
    assert deal(database, ONE, one, 3) == [first, third]
    say(database, ONE, one, first, "unsure")
    with database.read() as connection:
        actions = [(entry.action, entry.verdict) for entry in votes.entries(connection)]
        assert votes.verdicts(connection) == [(first, one.id, "unsure")]
    assert actions == [("vote", "yes"), ("edit", "no"), ("skip", None), ("undo", None), ("vote", "unsure")]
    whole(database)


def test_undo_with_nothing_to_undo(tmp_path: Path, database: Database) -> None:
    """There is nothing to take back before the first vote, and nothing of somebody else's."""
    load(make_run(tmp_path / "run", 3).store, database, ONE)
    one, two = people(database, "ab")
    (item,) = deal(database, ONE, one)
    say(database, ONE, one, item, "yes")
    with pytest.raises(votes.NothingToUndo):
        database.write(lambda connection: votes.undo(connection, ONE, two, "n", 0.0, item))


def test_the_same_vote_sent_twice_is_one(tmp_path: Path, database: Database) -> None:
    """A vote whose answer was lost is sent again under its nonce: it is there once. A nonce of somebody else's is
    refused, and one's own with another item or verdict: it would be acknowledged and not noted."""
    load(make_run(tmp_path / "run", 3).store, database, ONE)
    one, two = people(database, "ab")
    item, other = deal(database, ONE, one, 2)
    for _ in range(3):
        say(database, ONE, one, item, "yes", "nonce 1")
    (its,) = deal(database, ONE, two)
    with pytest.raises(UnknownItem, match="nonce"):
        say(database, ONE, two, its, "no", "nonce 1")
    for what, verdict in ((other, "yes"), (item, "no"), (item, None)):
        with pytest.raises(votes.NonceUsed, match="something else"):
            say(database, ONE, one, what, verdict, "nonce 1")
    with database.read() as connection:
        assert [entry.item for entry in votes.entries(connection)] == [item]
    assert other in deal(database, ONE, one, 2)


def test_disagreement_calls_for_one_more(tmp_path: Path, database: Database) -> None:
    """Two who disagree call a third, and the third one ends it."""
    load(make_run(tmp_path / "run", 1).store, database, Policy(votes=2, most_votes=3, honeypots=0))
    policy = Policy(votes=2, most_votes=3, honeypots=0)
    one, two, three, four = people(database, "abcd")
    for who, verdict in ((one, "yes"), (two, "no"), (three, "no")):
        (item,) = deal(database, policy, who)
        say(database, policy, who, item, verdict)
    assert deal(database, policy, four) == []
    whole(database)


def test_honeypots_are_mixed_in(tmp_path: Path, database: Database) -> None:
    """Every tenth item of a reviewer has a known answer, none comes twice to the same one, none counts in the queue."""
    policy = Policy(honeypots=0.1, votes=1, near_votes=1, most_votes=1)
    load(make_run(tmp_path / "run", 60, truth=12).store, database, policy)
    (one,) = people(database, "a")
    seen: list[str] = []
    while hand := deal(database, policy, one, 6):
        for item in hand:
            say(database, policy, one, item, "yes")
            seen.append(item)
    with database.read() as connection:
        pots = set(connection.execute(select(items.c.id).where(items.c.kind == "honeypot")).scalars())
        counted = account(connection)
    assert len(seen) == len(set(seen))
    assert len(pots & set(seen)) in (6, 7)
    assert len(seen) == 60 + len(pots & set(seen))
    assert (counted.candidates, counted.voted, counted.waiting, counted.leased) == (60, 60, 0, 0)


def test_rows_are_added_while_people_review(tmp_path: Path, database: Database) -> None:
    """New rows come into the queue, changed scores move what is there, votes and leases stay; a policy with more votes
    an item opens judged items again."""
    run = make_run(tmp_path / "run", 4)
    load(run.store, database, ONE)
    one, two = people(database, "ab")
    judged, open_ = deal(database, ONE, one, 2)
    say(database, ONE, one, judged, "yes")
    run.flow("more", [row(n, "edited") for n in range(50, 56)], CANDIDATES)
    assert load(run.store, database, ONE).added == 6
    assert open_ in deal(database, ONE, one, 2)
    with database.read() as connection:
        assert account(connection).candidates == 10
    load(run.store, database, TWO)
    hand = deal(database, TWO, two, 12)
    assert len(hand) == 10
    assert judged in hand
    whole(database)


def test_the_log_only_grows(tmp_path: Path, database: Database) -> None:
    """Nobody who writes SQL changes or deletes an entry of the log either; and one reviewer has one verdict on an item
    at most, whatever is written."""
    load(make_run(tmp_path / "run", 2).store, database, ONE)
    (one,) = people(database, "a")
    (item,) = deal(database, ONE, one)
    say(database, ONE, one, item, "yes")
    for statement in ("UPDATE log SET verdict = 'no'", "DELETE FROM log"):
        with pytest.raises(DBAPIError, match="append-only"):
            database.write(lambda connection, statement=statement: connection.execute(text(statement)))
    double = f"INSERT INTO standing (item, reviewer, seq, verdict) VALUES ('{item}', {one.id}, 99, 'no')"
    with pytest.raises(DBAPIError):
        database.write(lambda connection: connection.execute(text(double)))
    with database.read() as connection:
        assert [entry.verdict for entry in connection.execute(select(log))] == ["yes"]


def test_a_job_that_fails_takes_no_other_with_it(database: Database) -> None:
    """Jobs that are committed together fail alone."""
    gate = threading.Event()
    blocked = database.submit(lambda connection: gate.wait(10))
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
        assert whose(connection, cookie, 1.0) == who
        assert whose(connection, cookie, 1e9) is None
        assert whose(connection, token, 1.0) is None
        for table in ("reviewers", "sessions"):
            kept = str(connection.execute(text(f"SELECT * FROM {table}")).all())
            assert token not in kept
            assert cookie not in kept
    other = database.write(lambda connection: new_token(connection, "Ann"))
    with database.read() as connection:
        assert whose(connection, cookie, 1.0) is None
    assert database.write(lambda connection: sign_in(connection, token, 0.0)) is None
    assert database.write(lambda connection: sign_in(connection, other, 0.0))
    database.write(lambda connection: remove_reviewer(connection, "Ann"))
    assert database.write(lambda connection: sign_in(connection, other, 0.0)) is None
    for name in ("", "  ", "x" * 65, "a\nb", "\x00"):
        with pytest.raises(BadName):
            database.write(lambda connection, name=name: add_reviewer(connection, name))
    with pytest.raises(BadName, match="no reviewer 'Bob'"):
        database.write(lambda connection: new_token(connection, "Bob"))


KILLED = """
import sys, time
sys.path.insert(0, "tests")
from annotator.database import Database
from annotator.deal import next_items
from annotator.people import Reviewer
from annotator.queue import Policy
from annotator.votes import Entry, cast
policy = Policy(votes=1, near_votes=1, most_votes=1, honeypots=0)
database, who = Database(sys.argv[1]), Reviewer(1, "a", False)
while rows := database.write(lambda c: next_items(c, policy, who, 1, time.time())):
    item = rows[0].id
    database.write(lambda c: cast(c, policy, who, Entry(item, "n" + item, "yes"), time.time()))
    print(item, flush=True)
"""


def test_killed_between_votes(tmp_path: Path, where: str, database: Database) -> None:  # noqa: F811
    """A process that is killed at any moment has lost no vote that it said was taken, and left nothing half done."""
    load(make_run(tmp_path / "run", 400, side=8).store, database, ONE)
    people(database, "a")
    told: list[str] = []
    for _ in range(3):
        command = [sys.executable, "-c", KILLED, where]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(), cwd=ROOT) as process:
            assert process.stdout is not None
            told += [process.stdout.readline().strip() for _ in range(15)]
            process.send_signal(signal.SIGKILL)
            told += process.stdout.read().split("\n")[:-1]
    with database.read() as connection:
        kept = [entry.item for entry in votes.entries(connection)]
    assert len(kept) == len(set(kept))
    assert {item for item in told if len(item) == 32} <= set(kept)
    whole(database)


def test_postgres_goes_away_and_comes_back(tmp_path: Path, postgres: Postgres) -> None:  # noqa: F811
    """When the database server dies, votes fail and say so, none half; when it is back, they go on without a restart,
    and the vote that was sent again is there once."""
    database = Database(postgres.new())
    load(make_run(tmp_path / "run", 6).store, database, ONE)
    (one,) = people(database, "a")
    first, second = deal(database, ONE, one, 2)
    say(database, ONE, one, first, "yes", "n1")
    postgres.stop()
    try:
        with pytest.raises(DBAPIError):
            say(database, ONE, one, second, "no", "n2")
        with pytest.raises(NoDatabase, match="cannot open"):
            Database(database.url)
    finally:
        postgres.start()
    say(database, ONE, one, first, "yes", "n1")
    say(database, ONE, one, second, "no", "n2")
    with database.read() as connection:
        assert [entry.item for entry in votes.entries(connection)] == [first, second]
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


def test_tables_of_the_queue_use_their_indices(tmp_path: Path, where: str, database: Database) -> None:  # noqa: F811
    """The next item is found by index, not by looking at all of them."""
    if where.startswith("postgresql"):
        pytest.skip("its planner looks at so few rows directly")
    load(make_run(tmp_path / "run", 30).store, database, ONE)
    with database.read() as connection:
        queue = "SELECT id FROM items WHERE free > 0 ORDER BY priority, id LIMIT 1"
        plan = str(connection.execute(text(f"EXPLAIN QUERY PLAN {queue}")).all())
        assert "USING INDEX waiting" in plan or "USING COVERING INDEX waiting" in plan
        assert held(connection, 1) == []
        assert connection.execute(select(leases)).all() == []
        assert connection.execute(select(standing)).all() == []


def test_run_helper_is_a_run(tmp_path: Path) -> None:
    """The tests' own run is one that the rest of the program accepts."""
    run = make_run(tmp_path / "run", 4, truth=2)
    assert verify(run.store)[0] == []
