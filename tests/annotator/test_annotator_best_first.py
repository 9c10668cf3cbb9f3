"""A review that asks best first stops a scene at its first yes, and its votes still estimate rates without bias."""

import numpy as np
import pytest
from support.annotator.queue import check_queue, lease, vote
from support.annotator.runs import CANDIDATES, Run, people, row

from rasura.annotator.exchange.votes_file import list_votes
from rasura.annotator.stats.accounting import read_accounting
from rasura.annotator.store import vote_log
from rasura.annotator.store.best_first import estimate_rate, is_complete_scene
from rasura.annotator.store.database import Database
from rasura.annotator.store.items import load_queue
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.turns import describe_inclusion

SCENES, EACH = 30, 4
POLICY = Policy(votes=1, near_votes=1, most_votes=1, honeypots=0, order="best_first", complete_scenes=0.2, floor=0.05)


@pytest.fixture
def review(tmp_path):
    """Scenes of four candidates with falling scores, of which the last is below the floor."""
    run = Run(tmp_path / "run")
    rows = [
        row(SCENES * rank + number, "edited", 16, scene_id=f"scene {number}", score=(0.9, 0.5, 0.2, 0.01)[rank])
        for number in range(SCENES)
        for rank in range(EACH)
    ]
    run.flow("candidates", rows, CANDIDATES)
    database = Database(str(tmp_path / "review.sqlite"))
    load_queue(run.store, database, POLICY)
    yield run.store, database, {row["id"]: row for row in rows}
    database.close()


def read_rows(database, rows):
    """The row of each item, by the item's id."""
    with database.read() as connection:
        return {entry.id: rows[entry.row_id] for entry in connection.execute(vote_log.select(vote_log.items))}


def answer_all(database, rows, is_good, names=("Ann", "Bob")):
    """Answer until nothing is left to ask; return the ids of rows in the order of the votes."""
    who, order = people(database, names), []
    by_item = read_rows(database, rows)
    while True:
        leased = [(reviewer, item) for reviewer in who for item in lease(database, POLICY, reviewer, 5)]
        if not leased:
            return order
        check_queue(database)
        for reviewer, item in leased:
            vote(database, POLICY, reviewer, item, "yes" if is_good(by_item[item]) else "no")
            order.append(by_item[item]["id"])


def test_a_scene_is_asked_by_falling_score_until_its_first_yes(review):
    """No two candidates of a scene at a time, none after a yes, none below the floor; complete scenes have them all."""
    _, database, rows = review
    with database.read() as connection:
        before = read_accounting(connection)
    order = answer_all(database, rows, lambda row: row["score"] == 0.5)
    check_queue(database)
    complete = {n for n in range(SCENES) if is_complete_scene(f"scene {n}", 0.2, POLICY.seed)}
    assert 0 < len(complete) < SCENES
    first = SCENES + (EACH - 1) * len(complete)  # a complete scene asks for all at once
    assert (before.voted, before.leased, before.waiting) == (0, 0, first)
    assert (
        str(before)
        == f"{SCENES * EACH} candidates = 0 voted + 0 leased + {first} waiting + {before.not_asked} not asked; 0 votes"
    )
    with database.read() as connection:
        after = read_accounting(connection)
    assert (after.voted, after.waiting, after.votes) == (len(order), 0, len(order))
    assert before.balances
    assert after.balances
    for number in range(SCENES):
        scores = [rows[id]["score"] for id in order if rows[id]["scene_id"] == f"scene {number}"]
        assert sorted(scores, reverse=True) == ([0.9, 0.5, 0.2, 0.01] if number in complete else [0.9, 0.5])
        assert number in complete or scores == [0.9, 0.5]


def test_an_undone_yes_opens_the_scene_again(review):
    """What follows from a vote follows from its withdrawal: the next candidate is asked after all."""
    _, database, rows = review
    who = people(database, ["Ann"])[0]
    item = lease(database, POLICY, who)[0]
    scene = read_rows(database, rows)[item]["scene_id"]
    vote(database, POLICY, who, item, "yes")
    database.write(lambda connection: vote_log.undo_vote(connection, POLICY, who, "undo", 1.0))
    check_queue(database)
    vote(database, POLICY, who, item, "no")
    check_queue(database)
    seen = {item}
    while more := [one for one in lease(database, POLICY, who, 12) if one not in seen]:
        seen |= set(more)
        for one in more:
            vote(database, POLICY, who, one, "no")
    by_item = read_rows(database, rows)
    assert sum(by_item[one]["scene_id"] == scene for one in seen) >= 3


def test_a_reload_keeps_the_turns(review):
    """The queue is loaded again while people review: what is answered stays, and nothing is asked twice."""
    store, database, rows = review
    answer_all(database, rows, lambda row: row["score"] == 0.9)
    load_queue(store, database, POLICY)
    check_queue(database)
    assert answer_all(database, rows, lambda row: True, ["Cid"]) == []
    load_queue(store, database, POLICY.model_copy(update={"order": "random"}))
    with database.read() as connection:
        assert describe_inclusion(connection) == {}


def test_weighted_votes_estimate_the_rate_of_all_candidates(tmp_path):
    """Over many reviews of the same answers the weighted share is that of all candidates; the plain one is not."""
    rng = np.random.default_rng(8)
    scores = {"a": 0.9, "b": 0.5, "c": 0.2, "d": 0.01}
    good = {(scene, id): rng.random() < scores[id] for scene in range(150) for id in scores}
    from rasura.annotator.store.best_first import count_likely, list_asked, order_candidates

    estimates, plain = [], []
    for seed in range(200):
        votes = []
        for scene in range(150):
            order = order_candidates(list(scores), scores, seed)
            likely, complete = count_likely(order, scores, 0.05), is_complete_scene(str(scene), 0.2, seed)
            accepted = {}
            while missing := [id for id in list_asked(order, likely, accepted, complete, 0.2) if id not in accepted]:
                accepted[missing[0]] = good[scene, missing[0]]
            asked = list_asked(order, likely, accepted, complete, 0.2)
            votes += [(accepted[id], asked[id].probability) for id in asked]
        estimates.append(estimate_rate(votes, len(good)))
        plain.append(np.mean([yes for yes, _ in votes]))
    rate = np.mean(list(good.values()))
    assert np.mean(estimates) == pytest.approx(rate, abs=3 * np.std(estimates) / np.sqrt(200))
    assert abs(np.mean(plain) - rate) > 10 * abs(np.mean(estimates) - rate)


def test_exported_votes_have_their_probabilities(review):
    """Each vote of such a review has its inclusion probability, and whether its scene was asked completely."""
    _, database, rows = review
    answer_all(database, rows, lambda row: row["score"] == 0.5)
    with database.read() as connection:
        exported = list_votes(connection)
    for entry in exported:
        one = rows[entry["row_id"]]
        assert entry["complete"] == is_complete_scene(one["scene_id"], 0.2, POLICY.seed)
        assert entry["inclusion"] == (1.0 if one["score"] >= 0.5 else 0.2)
