"""The queue: what is dealt to whom, and the log that every verdict goes into. On SQLite and on PostgreSQL."""

import random
import threading
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from support.annotator.queue import ONE, TWO, check_queue, database, lease, vote  # noqa: F401
from support.annotator.runs import CANDIDATES, Run, make_run, people, row

from rasura.annotator.stats.accounting import read_accounting
from rasura.annotator.store import vote_log as votes
from rasura.annotator.store.database import Database, items
from rasura.annotator.store.enums import Variant
from rasura.annotator.store.items import load_queue
from rasura.annotator.store.known_answers import is_known_turn
from rasura.annotator.store.policy import Policy, compute_priority, count_needed_votes, find_majority
from rasura.annotator.store.reviewers import Reviewer
from rasura.annotator.store.rows import NothingToReview
from rasura.annotator.store.vote_log import CompletedItem
from rasura.manifests.run_layout import NoRun
from rasura.manifests.schemas import Kind
from rasura.manifests.storage import Store

WORDS = st.sampled_from(["yes", "no", "unsure"])


@given(st.lists(WORDS, max_size=12), st.one_of(st.none(), st.floats(0, 1)))
def test_votes_needed(verdicts: list[str], score: float | None) -> None:
    """An item never needs fewer votes than it has or than the recipe's least, nor more than the most unless it has
    them; and where it needs no more, a yes or no has the majority or the most are reached."""
    policy = Policy(votes=1, near_votes=2, most_votes=5)
    wanted = count_needed_votes(policy, verdicts, score)
    base = 2 if score is not None and abs(score - 0.9) <= 0.05 + 1e-9 else 1
    assert max(base, len(verdicts)) <= wanted <= max(5, len(verdicts))
    if wanted == len(verdicts):
        assert find_majority(verdicts) in ("yes", "no") or len(verdicts) >= 5


def test_votes_needed_examples() -> None:
    """One vote far from the threshold, two near it, a third where they disagree, one more where it is unsure."""
    policy = Policy()
    assert count_needed_votes(policy, [], 0.3) == 1
    assert count_needed_votes(policy, [], None) == 1
    assert count_needed_votes(policy, [], 0.93) == 2
    assert count_needed_votes(policy, ["yes"], 0.93) == 2
    assert count_needed_votes(policy, ["yes", "no"], 0.93) == 3
    assert count_needed_votes(policy, ["yes", "no", "yes"], 0.93) == 3
    assert count_needed_votes(policy, ["unsure"], 0.3) == 2
    assert count_needed_votes(policy, ["yes", "no", "unsure"], 0.3) == 3
    with pytest.raises(ValueError, match="most_votes is 1"):
        Policy(votes=2, most_votes=1)


def test_order() -> None:
    """Uncertainty: nearest to the threshold first, unscored last. Balance: one of each class, then a second of each.
    Random: neither the score nor the rank matters."""
    near, far = (compute_priority(Policy(), "a", score, 0) for score in (0.88, 0.2))
    assert near < far < compute_priority(Policy(), "a", None, 0)
    balance = Policy(order="balance")
    assert compute_priority(balance, "x", 0.1, 0) < compute_priority(balance, "y", 0.9, 1)
    shuffled = Policy(order="random")
    assert compute_priority(shuffled, "x", 0.1, 0) == compute_priority(shuffled, "x", 0.9, 7)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 0.5])
def test_honeypot_turns(share: float) -> None:
    """The promised share of turns has a known answer, at places that differ between reviewers and secrets; one turn
    says nothing about the next."""
    turns = [turn for turn in range(4000) if is_known_turn(share, "secret", 1, turn)]
    assert abs(len(turns) - 4000 * share) < 4 * (4000 * share * (1 - share)) ** 0.5
    again = sum(is_known_turn(share, "secret", 1, turn + 1) for turn in turns)
    assert abs(again - len(turns) * share) < 4 * (len(turns) * share) ** 0.5
    for secret, reviewer in (("secret", 2), ("other", 1)):
        assert turns != [turn for turn in range(4000) if is_known_turn(share, secret, reviewer, turn)]
    assert not any(is_known_turn(0.0, "secret", 1, turn) for turn in range(400))


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
    loaded = load_queue(run.store, database, Policy())
    assert (loaded.candidates, loaded.judged) == (5, 1)
    assert loaded.honeypots + 2 == 8
    with database.read() as connection:
        found = connection.execute(select(items)).all()
    by_kind = Counter(item.kind for item in found)
    assert by_kind == {"candidate": 5, "honeypot": 6, "example": 12}
    assert all(
        (item.expected == "yes") == (item.variant == Variant.TARGET) for item in found if item.kind != "candidate"
    )
    again = load_queue(run.store, database, Policy())
    assert (again.added, again.withdrawn) == (0, 0)


def test_nothing_to_review(tmp_path: Path, database: Database) -> None:
    """A folder that is no run, a run without triplets and a flow that is not there are told apart in one sentence."""
    with pytest.raises(NoRun, match=r"no plan\.json"):
        load_queue(Store(tmp_path / "empty"), database, ONE)
    run = Run(tmp_path / "run")
    run.flow("photos", [{"id": "p0"}], {"id": Kind.STRING})
    with pytest.raises(NothingToReview, match="nothing to review"):
        load_queue(run.store, database, ONE)
    with pytest.raises(NothingToReview, match="no flow 'scored'"):
        load_queue(run.store, database, ONE, ["scored"])


def test_an_item_is_in_one_hand_for_each_vote_it_needs(tmp_path: Path, database: Database) -> None:
    """With two votes an item, four reviewers who take all they can get hold each item exactly twice, never twice in
    one hand; and the votes end at two each."""
    load_queue(make_run(tmp_path / "run", 12).store, database, TWO)
    four = people(database, "abcd")
    hands = {who.id: lease(database, TWO, who, 12) for who in four}
    assert Counter(item for hand in hands.values() for item in hand) == dict.fromkeys(
        {item for hand in hands.values() for item in hand}, 2
    )
    assert all(len(set(hand)) == len(hand) for hand in hands.values())
    while any(hands.values()):
        for who in four:
            for item in hands[who.id]:
                vote(database, TWO, who, item, "yes")
            hands[who.id] = lease(database, TWO, who, 12)
    with database.read() as connection:
        tally = Counter(item for item, *_ in votes.list_verdicts(connection))
    assert set(tally.values()) == {2}
    assert len(tally) == 12
    check_queue(database)


def test_many_at_once(tmp_path: Path, database: Database) -> None:
    """Eight reviewers in eight threads, voting as fast as they can: no item is over its quota at any moment, no vote
    is lost or twice."""
    load_queue(make_run(tmp_path / "run", 40).store, database, TWO)
    reviewers = people(database, "abcdefgh")
    given_votes: list[tuple[str, int]] = []
    over: list[object] = []

    def work(who: Reviewer) -> None:
        while hand := lease(database, TWO, who, 3):
            with database.read() as connection:
                of = (items.c.votes + items.c.leases > items.c.needed, items.c.kind == "candidate")
                over.extend(connection.execute(select(items.c.id).where(*of)))
            for item in hand:
                vote(database, TWO, who, item, random.choice(["yes", "no"]))
                given_votes.append((item, who.id))

    threads = [threading.Thread(target=work, args=(who,)) for who in reviewers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert over == []
    assert len(given_votes) == len(set(given_votes)) == 80
    with database.read() as connection:
        assert sorted((item, who) for item, who, _ in votes.list_verdicts(connection)) == sorted(given_votes)
    check_queue(database)


def test_leases_expire_and_are_renewed(tmp_path: Path, database: Database) -> None:
    """What one holds comes back to the same hands after a reload; left alone for its minutes it goes to somebody else;
    who asks again in time keeps it. A late vote counts where there is room, and is refused where there is none."""
    load_queue(make_run(tmp_path / "run", 1).store, database, ONE)
    one, two = people(database, "ab")
    (item,) = lease(database, ONE, one, 5)
    assert lease(database, ONE, two, 5) == []
    assert lease(database, ONE, one, 5, now=500) == [item]  # a reload, which renews
    assert lease(database, ONE, two, 5, now=1000) == []
    assert lease(database, ONE, two, 5, now=1101) == [item]
    with pytest.raises(CompletedItem):
        vote(database, ONE, one, item, "yes")
    assert lease(database, ONE, one, 5, now=5000) == [item]  # the second one went away, too
    vote(database, ONE, one, item, "yes")
    with pytest.raises(CompletedItem):
        vote(database, ONE, two, item, "no")
    check_queue(database)


def test_honeypots_are_mixed_in(tmp_path: Path, database: Database) -> None:
    """Items with a known answer come among others, none twice to the same one, and none counts in the queue."""
    policy = Policy(honeypots=0.3, votes=1, near_votes=1, most_votes=1)
    load_queue(make_run(tmp_path / "run", 60, truth=12).store, database, policy)
    (one,) = people(database, "a")
    seen: list[str] = []
    while hand := lease(database, policy, one, 6):
        for item in hand:
            vote(database, policy, one, item, "yes")
            seen.append(item)
    with database.read() as connection:
        pots = set(connection.execute(select(items.c.id).where(items.c.kind == "honeypot")).scalars())
        counted = read_accounting(connection)
    assert len(seen) == len(set(seen))
    assert pots & set(seen)
    assert len(seen) == 60 + len(pots & set(seen))
    assert (counted.candidates, counted.voted, counted.waiting, counted.leased) == (60, 60, 0, 0)


def test_rows_are_added_while_people_review(tmp_path: Path, database: Database) -> None:
    """New rows come into the queue, changed scores move what is there, votes and leases stay; a policy with more votes
    an item opens judged items again."""
    run = make_run(tmp_path / "run", 4)
    load_queue(run.store, database, ONE)
    one, two = people(database, "ab")
    judged, open_ = lease(database, ONE, one, 2)
    vote(database, ONE, one, judged, "yes")
    run.flow("more", [row(n, "edited") for n in range(50, 56)], CANDIDATES)
    assert load_queue(run.store, database, ONE).added == 6
    assert open_ in lease(database, ONE, one, 2)
    with database.read() as connection:
        assert read_accounting(connection).candidates == 10
    load_queue(run.store, database, TWO)
    hand = lease(database, TWO, two, 12)
    assert len(hand) == 10
    assert judged in hand
    check_queue(database)
