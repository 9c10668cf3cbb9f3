"""Items with a known answer: nothing that a client sees tells them from candidates, and nobody mends a record."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from sqlalchemy import select, update
from support.annotator.queue import check_queue, lease, vote
from support.annotator.runs import CANDIDATES, CAPTURED, Run, make_run, people, row
from support.annotator.server import Served, nonce, serving

from rasura.annotator.server import review as review_state
from rasura.annotator.stats.statistics import build_overview, compute_weights
from rasura.annotator.store import vote_log
from rasura.annotator.store.database import Database, items, meta
from rasura.annotator.store.items import load_queue
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.vote_log import Submission

POLICY = Policy(votes=2, near_votes=2, most_votes=2, honeypots=0.3)
COUNT = 400
Features = npt.NDArray[np.float64]


def compute_auc(scores: Features, is_known: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve, ties counted half."""
    ranks = (scores[:, None] > scores).sum(1) + 0.5 * ((scores[:, None] == scores).sum(1) - 1)
    known, others = int(is_known.sum()), int((~is_known).sum())
    return float((ranks[is_known].sum() - known * (known - 1) / 2) / (known * others))


def boost_stumps(features: Features, is_known: npt.NDArray[np.bool_], unseen: Features, rounds: int = 60) -> Features:
    """Scores of unseen items by AdaBoost on decision stumps (Freund and Schapire 1997)."""
    sign, weights, scores = (
        np.where(is_known, 1.0, -1.0),
        np.full(len(features), 1 / len(features)),
        np.zeros(len(unseen)),
    )
    cuts = [
        (index, cut)
        for index, column in enumerate(features.T)
        for cut in np.unique(np.quantile(column, np.linspace(0.05, 0.95, 15)))
    ]
    answers = np.array([np.where(features[:, index] > cut, 1.0, -1.0) for index, cut in cuts])
    for _ in range(rounds):
        edges = answers @ (weights * sign)
        best = int(np.abs(edges).argmax())
        step = (
            0.25 * np.log((1 + min(abs(edges[best]), 0.99)) / (1 - min(abs(edges[best]), 0.99))) * np.sign(edges[best])
        )
        weights *= np.exp(-step * sign * answers[best])
        weights /= weights.sum()
        index, cut = cuts[best]
        scores += step * np.where(unseen[:, index] > cut, 1.0, -1.0)
    return scores


def judge_by_others(features: Features, is_known: npt.NDArray[np.bool_]) -> float:
    """AUC of a classifier on items that it was not trained on: odd ones judged by even ones, and the reverse."""
    even = np.arange(len(features)) % 2 == 0
    aucs = [
        compute_auc(boost_stumps(features[part], is_known[part], features[~part]), is_known[~part])
        for part in (even, ~even)
    ]
    return float(np.mean(aucs))


def fetch_facts(client: httpx.Client, item: str, role: str) -> list[float]:
    """What a client sees of a picture, but for what the result shows: that is the question itself."""
    start = time.perf_counter()
    answer = client.get(f"/api/pictures/{item}/{role}")
    took = time.perf_counter() - start
    assert answer.status_code == 200
    width, height = map(float, answer.headers["x-picture-size"].split("x"))
    tag = int(answer.headers["etag"].strip('"')[:6], 16)
    size = 0.0 if role == "result" else float(len(answer.content))
    return [
        took,
        width,
        height,
        float(tag),
        size,
        float(len(answer.headers)),
        hash(answer.headers["content-type"]) % 97,
    ]


def list_figures(answer: Any) -> list[float]:
    """All numbers of an answer, in the order of their names; what is missing counts as -1."""
    if isinstance(answer, dict):
        return [figure for name in sorted(answer) for figure in list_figures(answer[name])]
    return [float(answer if isinstance(answer, (int, float)) else -1)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("known")
    run = Run(folder / "run")
    run.flow("captured", [row(700 + n, "captured", 32) for n in range(200)], CAPTURED)
    run.flow("candidates", [row(n, "edited", 32) for n in range(COUNT)], CANDIDATES)
    with pytest.MonkeyPatch.context() as patch, serving(run.store, folder / "r.sqlite", POLICY) as started:
        patch.setattr(review_state, "PROGRESS_S", 0.0)  # as for somebody who waits between two votes
        yield started


def collect(client: httpx.Client, pool: ThreadPoolExecutor, count: int) -> list[tuple[str, list[float]]]:
    """Everything that a client gets to see of the items that it judges."""
    seen: list[tuple[str, list[float]]] = []
    progress = np.array(list_figures(client.get("/api/progress").json()))
    while len(seen) < count:
        start = time.perf_counter()
        dealt = client.post("/api/next", json={"want": 12}).json()["items"]
        waited = time.perf_counter() - start
        pictures = {
            (item["id"], role): pool.submit(fetch_facts, client, item["id"], role)
            for item in dealt
            for role in ("result",)
        }
        for place, item in enumerate(dealt):
            facts = [float(place), float(len(seen) % 3), float(len(seen) % 10), waited, float(len(item))]
            facts += [int(item["id"][:6], 16), int(item["id"][-6:], 16), item["dilation"], hash(item["task"]) % 97]
            facts += [hash(item["label"]) % 97, float(item["label"] is None)]
            for role in ("result",):
                facts += pictures[item["id"], role].result()
            start = time.perf_counter()
            body = {"item": item["id"], "nonce": nonce(), "verdict": "yes", "seconds": 1.0}
            answer = client.post("/api/votes", json=body).json()
            facts += [time.perf_counter() - start, answer["score"] is None, answer["score"] or -1.0]
            facts += [float(sum(answer["others"].values())), float(answer["others"].get("yes", 0)), float(len(answer))]
            before, progress = progress, np.array(list_figures(client.get("/api/progress").json()))
            facts += [*(progress - before), *progress]
            seen.append((item["id"], facts))
    return seen


def test_no_classifier_finds_them(served: Served) -> None:
    """A classifier that is trained on all that the API returns for 400 items (fields, order, times of answers, headers,
    what is told after the vote, every step of the progress) finds known answers no better than chance; one sign would
    give them away. Nor do they have masks of effects that candidates lack."""
    with served.client("Bob") as bob, served.client("Ann") as ann, ThreadPoolExecutor(4) as pool:
        for _ in range(5):  # some items have votes of others already
            for item in bob.post("/api/next", json={"want": 12}).json()["items"]:
                bob.post("/api/votes", json={"item": item["id"], "nonce": nonce(), "verdict": "no"})
        seen = collect(ann, pool, COUNT)[:COUNT]
        history = ann.get("/api/history").json()["items"]
        for item, _ in seen[:20]:
            masks = [ann.get(f"/api/items/{item}/masks/{part}").content for part in ("mask", "foreground_mask")]
            assert masks[0] == masks[1]
    with served.database.read() as connection:
        known = set(connection.execute(select(items.c.id).where(items.c.kind == "honeypot")).scalars())
    is_known = np.array([item in known for item, _ in seen])
    features = np.array([facts for _, facts in seen], float)
    assert 60 < is_known.sum() < 180
    auc = judge_by_others(features, is_known)
    print(f"AUC {auc:.3f} on {len(seen)} items, {is_known.sum()} known, {features.shape[1]} features")
    assert auc <= 0.6
    planted = np.column_stack([features, np.where(is_known, 0.0, 2.0)])  # as the dilation once did
    assert judge_by_others(planted, is_known) > 0.99
    assert {frozenset(one) for one in history} == {frozenset(history[0])}


def test_labels_are_hidden_where_they_would_tell(tmp_path: Path) -> None:
    """Where rows with a true target have other labels than the candidates, no item's label is shown; where they have
    the same, known answers come with the labels of the candidates whose turns they take."""
    for name, label, shows in (("other", "tree", False), ("same", None, True)):
        run = Run(tmp_path / name)
        labels: dict[str, Any] = {} if label is None else {"label": label}
        run.flow("captured", [row(700 + n, "captured", 32, **labels) for n in range(30)], CAPTURED)
        run.flow("candidates", [row(n, "edited", 32) for n in range(30)], CANDIDATES)
        with serving(run.store, tmp_path / f"{name}.sqlite", POLICY) as served, served.client("Ann") as ann:
            dealt = ann.post("/api/next", json={"want": 12}).json()["items"]
            assert all((item["label"] is not None) == shows for item in dealt)
            assert "tree" not in ann.post("/api/next", json={"want": 12}).text


def test_the_secret_stays(served: Served) -> None:
    """Two reviews of one run have other known answers at other turns; no answer of the server holds the secret, to an
    admin neither."""
    with served.database.read() as connection:
        secret = connection.execute(select(meta.c.value).where(meta.c.key == "secret")).scalar_one()
    assert len(secret) == 64
    with served.client("Eve", admin=True) as eve:
        told = "".join(eve.get(f"/api/{path}").text for path in ("me", "history", "progress", "admin/overview"))
        told += "".join(str(eve.get(path).headers) for path in ("/", "/api/me"))
    assert secret not in told


def answer(database: Database, who: Any, item: str, words: Sequence[str]) -> None:
    """Vote on an item, take it back, vote again."""
    for number, word in enumerate(words):
        if number:
            database.write(partial(vote_log.undo_vote, policy=POLICY, reviewer=who, nonce=nonce(), now=1.0, item=item))
        vote(database, POLICY, who, item, word)


def test_no_record_is_mended(tmp_path: Path) -> None:
    """The first answer on a known item is the one that counts for the record, whatever undos, skips and edits follow;
    the standing verdict is the last one all the same."""
    database = Database(tmp_path / "r.sqlite")
    load_queue(make_run(tmp_path / "run", 40, truth=30).store, database, POLICY)
    honest, sly = people(database, ["honest", "sly"])
    for who in (honest, sly):
        while hand := lease(database, POLICY, who, 12):
            with database.read() as connection:
                known = dict(connection.execute(select(items.c.id, items.c.expected)).all())
            for item in hand:
                right, wrong = known[item], {"yes": "no", "no": "yes"}.get(known[item] or "", "yes")
                answer(database, who, item, [right or "yes"] if who == honest else [wrong, right or "yes"])
    with database.read() as connection:
        entries = vote_log.read_entries(connection)
        people_ = {one["name"]: one for one in build_overview(connection, {})["reviewers"]}
        weights = compute_weights(connection, entries)
    assert people_["honest"]["right"] > 3
    assert (people_["honest"]["wrong"], people_["sly"]["right"]) == (0, 0)
    assert people_["sly"]["wrong"] > 3
    assert weights[honest.id] > 1
    assert weights[sly.id] == 0
    database.close()


@pytest.mark.parametrize(
    ("route", "outcome"),
    [("pause", True), ("late", False), ("skip", False), ("undone skip", False), ("undone vote", True)],
)
def test_a_late_vote_tells_no_known_answer(tmp_path: Path, route: str, outcome: bool) -> None:
    """After a pause a reviewer's items come back; where others judged all meanwhile, a vote on an item whose lease had
    expired, or that was skipped, is refused; a skip that is undone brings no item back, a verdict does: all of it the
    same for candidates and for items with a known answer. No candidate has more votes than it needs."""
    policy = Policy(votes=1, near_votes=1, most_votes=1, honeypots=0.3)
    database = Database(tmp_path / "r.sqlite")
    fixed = update(meta).where(meta.c.key == "secret").values(value="8" * 64)  # the same turns in every run of the test
    database.write(lambda connection: connection.execute(fixed))
    load_queue(make_run(tmp_path / "run", 40, truth=24, side=16).store, database, policy)
    ann, bob = people(database, ["Ann", "Bob"])
    dealt = lease(database, policy, ann, 12)
    for item in dealt if route in ("skip", "undone skip", "undone vote") else []:
        vote(database, policy, ann, item, "yes" if route == "undone vote" else None)
    back = set(lease(database, policy, ann, 12, now=1000.0)) if route == "pause" else set()
    while route != "pause" and (others := lease(database, policy, bob, 6, now=1000.0)):
        for item in others:
            vote(database, policy, bob, item, "yes")

    def act(item: str) -> bool:
        if route == "pause":
            return item in back
        if route.startswith("undone"):
            undo = partial(vote_log.undo_vote, policy=policy, reviewer=ann, nonce=nonce(), now=2000.0, item=item)
            return database.write(undo)[1]
        try:
            vote(database, policy, ann, item, "yes")
        except vote_log.CompletedItem:
            return False
        return True

    outcomes = {item: act(item) for item in dealt}
    with database.read() as connection:
        known = set(connection.execute(select(items.c.id).where(items.c.kind == "honeypot")).scalars())
        over = (items.c.kind == "candidate", items.c.votes + items.c.leases > items.c.needed)
        assert connection.execute(select(items.c.id).where(*over)).all() == []
    check_queue(database)
    assert 2 < len(known & set(dealt)) < 10
    assert set(outcomes.values()) == {outcome}
    database.close()


def test_an_undone_skip_takes_no_vote_that_is_not_needed(tmp_path: Path) -> None:
    """Who skipped an item that others then judged, and takes the skip back, is not given the item: it needs nothing."""
    one_vote = Policy(votes=1, near_votes=1, most_votes=1, honeypots=0)
    database = Database(tmp_path / "r.sqlite")
    load_queue(make_run(tmp_path / "run", 1).store, database, one_vote)
    ann, bob = people(database, ["Ann", "Bob"])
    (item,) = lease(database, one_vote, ann)
    vote(database, one_vote, ann, item, None)
    assert lease(database, one_vote, bob) == [item]
    undo = partial(vote_log.undo_vote, policy=one_vote, reviewer=ann, now=1.0, item=item)
    assert database.write(partial(undo, nonce="undo-one"))[1] is False
    assert lease(database, one_vote, ann) == []
    vote(database, one_vote, bob, item, "yes")
    with database.read() as connection:
        over = (items.c.kind == "candidate", items.c.votes + items.c.leases > items.c.needed)
        assert connection.execute(select(items.c.id).where(*over)).all() == []
    database.write(
        lambda connection: vote_log.cast_vote(connection, one_vote, bob, Submission(item, "skip-it", None), 2.0)
    )
    assert lease(database, one_vote, ann) == [item]
    database.close()
