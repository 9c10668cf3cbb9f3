"""What a team does beside judging: any row reviewed, masks corrected, experts, votes set aside, rankings, programs."""

import io
import json
import shutil
import time
import zlib
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from support.annotator.queue import ONE, check_queue, database, lease, vote  # noqa: F401
from support.annotator.runs import CANDIDATES, CAPTURED, Run, make_run, people, row
from support.annotator.server import Served, lease_item, nonce, serving
from support.s3_server import serve_bucket

import rasura
from rasura._reviews import ReviewFailed
from rasura.annotator.exchange.drawings_file import export_drawings
from rasura.annotator.exchange.publish import fetch_votes, publish_review
from rasura.annotator.exchange.statistics_file import encode_statistics
from rasura.annotator.exchange.verdicts import read_verdicts
from rasura.annotator.server.team.packed_masks import pack_mask
from rasura.annotator.stats.accounting import read_accounting
from rasura.annotator.stats.ratings import CENTRE, SCALE, rate_removers
from rasura.annotator.store.database import Database, items
from rasura.annotator.store.enums import ItemKind
from rasura.annotator.store.items import load_queue
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.rows import NothingToReview
from rasura.annotator.store.team import rulings, set_aside
from rasura.annotator.store.team.tables import TEAM_TABLES, corrections
from rasura.annotator.store.vote_log import Submission, fold_entries, read_entries
from rasura.manifests.images import RGB, Mask, decode_mask
from rasura.manifests.run_layout import REVIEW_DATABASE, NoRun, table_path
from rasura.manifests.schemas import PROVENANCE, Kind
from rasura.manifests.storage import Store
from rasura.pipeline.cli.review_tools import check_drawing
from rasura.pipeline.run.review import read_row_verdicts, summarize_review
from rasura.stages.correction.source import read_corrections
from rasura.stages.ground_plane.drawing import list_drawings, parse_drawing

THREE = ("telea", "ns", "lama")
NO_KNOWN = Policy(votes=1, near_votes=1, most_votes=1, honeypots=0)


class Flip:
    """A repairer whose answers can be told from the mask."""

    def click(self, key: str, picture: RGB, mask: Mask, x: int, y: int, add: bool, radius: float) -> Mask:
        changed = mask.copy()
        changed[y, x] = add
        return changed

    def snap(self, picture: RGB, mask: Mask, reach: float) -> Mask:
        return ~mask


def make_scenes(folder: str | Path, scenes: int = 3) -> Run:
    """A run with three candidates of each scene, and a captured row of each."""
    run = Run(folder)
    run.flow("captured", [row(n, "captured", 32) for n in range(scenes)], CAPTURED)
    made = [row(n, "edited", 32, id=f"e{n}{name}", remover=name) for n in range(scenes) for name in THREE]
    run.flow("candidates", made, CANDIDATES)
    return run


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("team")
    with serving(make_scenes(folder / "run").store, folder / "r.sqlite", NO_KNOWN, repairer=Flip()) as found:
        yield found


def count_kinds(found: Database) -> dict[str, set[str]]:
    with found.read() as connection:
        rows = connection.execute(select(items.c.kind, items.c.row_id).where(~items.c.withdrawn)).all()
    return {str(kind): {one.row_id for one in rows if one.kind == kind} for kind in ItemKind}


def test_any_row_can_be_reviewed(tmp_path: Path, database: Database) -> None:
    """Without a flow the candidates are asked about; with one all its rows, of whatever kind, which are then no known
    answers; and a run without candidates is asked about its triplets."""
    run = make_run(tmp_path / "run", 4, truth=6)
    load_queue(run.store, database, ONE)
    assert len(count_kinds(database)["candidate"]) == 4
    load_queue(run.store, database, ONE, ["captured"])
    kinds = count_kinds(database)
    assert len(kinds["candidate"]) == 6
    assert not kinds["candidate"] & (kinds["honeypot"] | kinds["example"])
    (who,) = people(database, "a")
    for item in lease(database, ONE, who, 6):
        vote(database, ONE, who, item, "no")
    check_queue(database)
    load_queue(run.store, database, ONE)  # back to the candidates: what was judged is withdrawn, or known again
    check_queue(database)
    with pytest.raises(NothingToReview, match="no flow 'captioned'"):
        load_queue(run.store, database, ONE, ["captioned"])
    assert len(count_kinds(database)["candidate"]) == 4  # a slip empties no queue
    alone = Run(tmp_path / "alone")
    alone.flow("captured", [row(n, "captured", 32) for n in range(3)], CAPTURED)
    other = Database(tmp_path / "alone.sqlite")
    assert load_queue(alone.store, other, ONE).candidates == 3
    other.close()


def test_an_item_asks_what_its_row_is(tmp_path: Path) -> None:
    """The reasons of a triplet are its own, and known answers among them ask the same; a foreign reason is refused."""
    run = make_run(tmp_path / "run", 2, truth=4)
    with serving(run.store, tmp_path / "r.sqlite", NO_KNOWN, flows=["captured"]) as served:
        load_queue(run.store, served.database, NO_KNOWN, ["captured"])
        with served.client("Ann") as ann:
            tasks = ann.get("/api/me").json()["wording"]["tasks"]
            assert {"mask", "effects", "seam"} <= set(tasks["pair"]["reasons"])
            assert "stands" in tasks["composite"]["reasons"]
            (item,) = ann.post("/api/next", json={"want": 1}).json()["items"]
            assert item["task"] == "pair"
            body = {"item": item["id"], "verdict": "no", "reason": "nonsense"}
            assert ann.post("/api/votes", json={**body, "nonce": nonce()}).status_code == 422
            assert ann.post("/api/votes", json={**body, "nonce": nonce(), "reason": "mask"}).status_code == 200


def test_verdicts_are_read_by_row(tmp_path: Path) -> None:
    """The verdicts of a run's review by row id: the majority's, an expert's in its place; none on a picture that was
    made again; `status` counts them; a file of before the team's tables is read as it is."""
    run = make_run(tmp_path / "run", 4)
    (run.store.local / "review").mkdir()  # type: ignore[operator]
    found = Database(tmp_path / "run" / REVIEW_DATABASE)
    load_queue(run.store, found, ONE)
    ann, eve = (*people(found, ["Ann"]), *people(found, ["Eve"], admin=True))
    first, second, third = lease(found, ONE, ann, 3)
    for item, verdict in ((first, "yes"), (second, "no"), (third, "unsure")):
        vote(found, ONE, ann, item, verdict)
    ruling = Submission(second, "n" * 12, "yes")
    found.write(lambda connection: rulings.overrule(connection, ONE, eve, ruling, time.time()))
    check_queue(found)
    with found.read() as connection:
        rows = {one.id: one.row_id for one in connection.execute(select(items.c.id, items.c.row_id))}
    verdicts = read_verdicts(run.store)
    assert {id: (found.verdict, found.by_expert) for id, found in verdicts.items()} == {
        rows[first]: ("yes", False),
        rows[second]: ("yes", True),
        rows[third]: ("unsure", False),
    }
    assert str(summarize_review(run.store, read_row_verdicts(run.store))) == "2 yes, 1 unsure; 1 by an expert"
    withdrawn = Submission(second, "w" * 12, None)
    found.write(lambda connection: rulings.overrule(connection, ONE, eve, withdrawn, time.time()))
    assert read_verdicts(run.store)[rows[second]].verdict == "no"
    with found._writing.begin() as connection:  # as 0.1.0 left it
        for table in TEAM_TABLES:
            connection.execute(text(f"DROP TABLE {table.name}"))
    found.close()
    assert len(read_verdicts(run.store)) == 3
    shutil.rmtree(tmp_path / "run" / table_path("candidates"))
    made = [row(n, "edited", score=0.5) for n in range(4)]
    run.flow("candidates", made, CANDIDATES, shard_rows=1)  # made again, in other shards
    assert len(read_verdicts(run.store)) < 3


def test_an_overruled_item_needs_no_vote(tmp_path: Path, database: Database) -> None:
    """An item that an expert has ruled on is dealt to nobody and counts as judged, and is dealt again when the ruling
    is withdrawn; the expert's queue holds flags and disagreements until then."""
    policy = Policy(votes=2, near_votes=2, most_votes=3, honeypots=0)
    load_queue(make_run(tmp_path / "run", 2).store, database, policy)
    ann, bob, eve = people(database, ["Ann", "Bob", "Eve"], admin=True)
    for who, verdict in ((ann, "yes"), (bob, "no")):
        item, _ = lease(database, policy, who, 2)
        vote(database, policy, who, item, verdict)
    with database.read() as connection:
        assert rulings.list_expert_queue(connection) == [(item, "disagreement")]
    unsure = next(other for other in lease(database, policy, ann, 2) if other != item)
    vote(database, policy, ann, unsure, "unsure")
    with database.read() as connection:
        assert dict(rulings.list_expert_queue(connection)) == {item: "disagreement", unsure: "unsure"}
    vote(database, policy, ann, unsure, "yes")
    for verdict, waits in (("no", False), (None, True)):
        ruling = Submission(item, nonce(), verdict, "seam" if verdict else None)
        database.write(lambda connection, ruling=ruling: rulings.overrule(connection, policy, eve, ruling, 1.0))
        check_queue(database)
        with database.read() as connection:
            assert bool(rulings.list_expert_queue(connection)) == waits
            assert read_accounting(connection).voted == (0 if waits else 1)
        assert (item in lease(database, policy, eve, 2, time.time())) == waits


def test_votes_are_set_aside_and_brought_back(tmp_path: Path, database: Database) -> None:
    """After a set-aside the items wait again and the verdicts are gone; after the restore all is as it was, but for
    what the reviewer has judged again since; the log holds each step, and nothing happens twice."""
    load_queue(make_run(tmp_path / "run", 5).store, database, ONE)
    ann, eve = (*people(database, ["Ann"]), *people(database, ["Eve"], admin=True))
    dealt = lease(database, ONE, ann, 5)
    for item in dealt:
        vote(database, ONE, ann, item, "yes")

    def verdicts() -> dict[str, str | None]:
        with database.read() as connection:
            folded = fold_entries(read_entries(connection))
        return {item: entry.verdict for (item, _), entry in folded.items()}

    before = verdicts()
    move = set_aside.set_votes_aside
    assert database.write(lambda connection: move(connection, ONE, eve, ann.id, 1.0)) == 5
    assert database.write(lambda connection: move(connection, ONE, eve, ann.id, 1.0)) == 0
    check_queue(database)
    assert verdicts() == {}
    assert set(lease(database, ONE, eve, 5)) == set(dealt)
    again = lease(database, ONE, ann, 1, now=10_000.0)  # Eve's leases have expired
    vote(database, ONE, ann, again[0], "no")
    assert database.write(lambda connection: set_aside.restore_votes(connection, ONE, eve, ann.id, 2.0)) == 4
    assert database.write(lambda connection: set_aside.restore_votes(connection, ONE, eve, ann.id, 2.0)) == 0
    assert verdicts() == {**before, again[0]: "no"}
    check_queue(database)


def test_a_mask_is_corrected_in_versions(served: Served, tmp_path: Path) -> None:
    """Each correction is a version and an entry of the log, sent twice it is one; it can be withdrawn; nothing of it
    can be changed; what is no mask of the item's size is refused; and the run gets the newest masks."""
    with served.client("Cora") as ann, served.client("Dan") as bob:
        item = lease_item(ann)
        own = decode_mask(ann.get(f"/api/items/{item}/masks/mask").content)
        height, width = own.shape
        mask = own.copy()
        mask[:4] = True
        body: dict[str, Any] = {"item": item, "part": "mask", "width": width, "height": height, "steps": 2}
        body |= {"bits": pack_mask(mask), "nonce": nonce()}
        assert [ann.post("/api/corrections", json=body).json()["version"] for _ in range(2)] == [1, 1]
        assert (decode_mask(ann.get(f"/api/items/{item}/masks/mask").content) == mask).all()
        assert ann.get(f"/api/items/{item}/masks").json()["parts"] == {"mask": 1, "foreground_mask": 0}
        assert bob.post("/api/corrections", json={**body, "nonce": nonce()}).status_code == 404  # not dealt to Bob
        bomb = b64encode(zlib.compress(bytes(50_000_000))).decode()
        for changes in (
            {"bits": "?"},
            {"bits": b64encode(b"no zlib").decode()},
            {"bits": bomb},
            {"bits": pack_mask(mask[:, :-9])},
            {"bits": pack_mask(np.zeros_like(mask))},
            {"width": width + 8, "bits": pack_mask(np.pad(mask, ((0, 0), (0, 8))))},
            {"part": "alpha"},
            {"width": 100_000, "height": 100_000},
        ):
            assert ann.post("/api/corrections", json={**body, "nonce": nonce(), **changes}).status_code == 422, changes
        effects = {**body, "nonce": nonce(), "part": "foreground_mask", "bits": pack_mask(np.eye(height, width) > 0)}
        assert ann.post("/api/corrections", json=effects).json() == {"version": 1}
        wide = decode_mask(ann.get(f"/api/items/{item}/masks/foreground_mask").content)
        assert (wide == (np.eye(height, width) > 0) | mask).all()  # effects are never without their object
        publish_review(served.review.run, served.database)
        found = {one["part"]: one for one in read_corrections(served.review.run)}
        assert (decode_mask(found["mask"]["mask"]) == mask).all()
        withdrawal = {"item": item, "part": "mask", "nonce": nonce()}
        assert ann.post("/api/corrections/withdraw", json=withdrawal).json() == {"version": 2}
        assert (decode_mask(ann.get(f"/api/items/{item}/masks/mask").content) == own).all()
        publish_review(served.review.run, served.database)
        assert {one["part"] for one in read_corrections(served.review.run)} == {"foreground_mask"}
        with pytest.raises(DBAPIError, match="only grow"):
            served.database.write(lambda connection: connection.execute(corrections.delete()))


def test_clicks_are_answered(served: Served) -> None:
    """A click changes the mask that is sent and stores nothing; outside of the picture, or of a mask of another size,
    it is refused."""
    with served.client("Fay") as ann:
        item = lease_item(ann)
        mask = decode_mask(ann.get(f"/api/items/{item}/masks/mask").content)
        height, width = mask.shape
        body = {"item": item, "width": width, "height": height, "bits": pack_mask(mask), "radius": 9.0}
        mask[0, 5] = True
        click = {**body, "tool": "add", "x": 5, "y": 0}
        assert ann.post("/api/repairs", json=click).json() == {"bits": pack_mask(mask)}
        assert ann.post("/api/repairs", json={**click, "x": width}).status_code == 422
        small = {**click, "width": 8, "height": 8, "bits": pack_mask(np.ones((8, 8), bool))}
        assert ann.post("/api/repairs", json=small).status_code == 422
        assert ann.get(f"/api/items/{item}/masks").json()["parts"]["mask"] == 0


def test_candidates_are_ranked(tmp_path: Path) -> None:
    """Each scene is dealt once for each vote, what was not dealt or not shown cannot be ranked, a ranking that is sent
    twice counts once, and the best remover has the highest rating."""
    with serving(make_scenes(tmp_path / "run", 4).store, tmp_path / "r.sqlite", NO_KNOWN) as served:
        with served.database.read() as connection:
            names = {one.id: one.remover for one in connection.execute(select(items))}
        with served.client("Ann", admin=True) as ann, served.client("Bob") as bob:
            first = ann.post("/api/scenes/next").json()
            other = bob.post("/api/scenes/next").json()
            assert first["scene"] != other["scene"]
            assert bob.get(f"/api/pictures/{other['items'][0]}/result").status_code == 200
            assert bob.get(f"/api/pictures/{first['items'][0]}/result").status_code == 404
            body = {"scene": first["scene"], "nonce": nonce(), "ranking": [[one] for one in first["items"]]}
            assert bob.post("/api/rankings", json=body).status_code == 404
            for ranking in ([first["items"][:1]], [first["items"], []], [other["items"]], [first["items"][:1] * 3]):
                assert ann.post("/api/rankings", json={**body, "nonce": nonce(), "ranking": ranking}).status_code == 409
            while scene := ann.post("/api/scenes/next").json():
                ordered = sorted(scene["items"], key=lambda one: THREE.index(names[one]), reverse=True)
                body = {"scene": scene["scene"], "nonce": nonce(), "ranking": [ordered[:1], ordered[1:]]}
                assert [ann.post("/api/rankings", json=body).status_code for _ in range(2)] == [200, 200]
            ratings = ann.get("/api/admin/ratings").json()
    assert ratings[0]["name"] == "lama"
    assert [one["comparisons"] for one in ratings] == [6, 3, 3]
    assert all(one["low"] < one["rating"] < one["high"] for one in ratings)


def test_who_judges_does_not_rank(tmp_path: Path) -> None:
    """Rankings show candidates alone: where there are known answers, nobody but an admin both judges and ranks. Items
    that were dealt and not judged bind nobody, since the page opens some at the start."""
    policy = NO_KNOWN.model_copy(update={"honeypots": 0.2})

    def judge(client: httpx.Client, item: str) -> httpx.Response:
        return client.post("/api/votes", json={"item": item, "verdict": "yes", "nonce": nonce()})

    with (
        serving(make_scenes(tmp_path / "run", 4).store, tmp_path / "r.sqlite", policy) as served,
        served.client("Ann") as ann,
        served.client("Bob") as bob,
        served.client("Eve", admin=True) as eve,
    ):
        dealt = {client: lease_item(client) for client in (ann, bob, eve)}
        assert judge(ann, dealt[ann]).status_code == 200
        for client in (bob, eve):
            opened = client.post("/api/scenes/next").json()
            ranking = {"scene": opened["scene"], "nonce": nonce(), "ranking": [opened["items"]]}
            assert client.post("/api/rankings", json=ranking).status_code == 200
        for refused in (ann.post("/api/scenes/next"), bob.post("/api/next", json={}), judge(bob, dealt[bob])):
            assert refused.status_code == 409
            assert "ask an admin for a link under another name" in refused.text
        assert judge(eve, dealt[eve]).status_code == 200
        assert eve.post("/api/scenes/next").status_code == 200


def test_ratings_find_the_strengths() -> None:
    """On rankings drawn from known strengths the interval of 95 % holds the truth about as often as it says."""
    random = np.random.default_rng(20)
    strengths = {"a": 0.9, "b": 0.1, "c": -1.0}
    held = []
    for _ in range(60):
        rankings = []
        for scene in range(50):
            drawn = {name: value + random.gumbel() for name, value in strengths.items()}  # Plackett and Luce
            rankings.append((str(scene), 1, [[name] for name in sorted(drawn, key=lambda name: -drawn[name])]))
        for rating in rate_removers(rankings):
            held.append(rating.low <= CENTRE + SCALE * strengths[rating.name] <= rating.high)
    assert 0.9 <= np.mean(held) <= 0.99
    assert rate_removers([]) == []
    (best, *_) = rate_removers([("s", 1, [["a"], ["b"]])])  # won all: still finite, and uncertain
    assert best.high - best.low > 300


def test_the_wording_is_versioned_and_harmless(served: Served) -> None:
    """A version is based on the one before; HTML and addresses of scripts in guidelines are text; reasons that an admin
    names are those that votes may carry; who is no admin changes nothing."""
    evil = "<img src=x onerror=alert(1)> [a](javascript:alert(1)) ![b](https://tracker.example/p.png) **yes**"
    with served.client("Gus", admin=True) as eve, served.client("Hal") as ann:
        version = len(eve.get("/api/admin/settings").json()["versions"])
        value = {"guidelines": evil, "reasons": {"removal": {"ugly": "Ugly"}}, "labels": {"yes": "Good"}}
        body = {"based_on": version, "value": value}
        assert ann.post("/api/admin/settings", json=body).status_code == 403
        assert eve.post("/api/admin/settings", json=body).json() == {"version": version + 1}
        assert eve.post("/api/admin/settings", json=body).status_code == 409
        for reasons in ({"removal": {}}, {"removal": {"UPPER": "x"}}, {"removal": {"a": " "}}, {"nothing": {"a": "b"}}):
            wrong = {"based_on": version + 1, "value": {"reasons": reasons}}
            assert eve.post("/api/admin/settings", json=wrong).status_code == 422
        time.sleep(1.1)  # the age that the wording may have
        wording = ann.get("/api/me").json()["wording"]
        assert wording["labels"] == {"yes": "Good"}
        said = json.dumps(wording["guidelines"])
        assert '"href"' not in said
        assert '"img"' not in said
        assert "<img src=x onerror=alert(1)>" in said
        item = lease_item(ann)
        for reason, status in (("shadow", 422), ("ugly", 200)):
            answer = ann.post("/api/votes", json={"item": item, "nonce": nonce(), "verdict": "no", "reason": reason})
            assert answer.status_code == status
        eve.post("/api/admin/settings", json={"based_on": version + 1, "value": {}})


def test_people_are_managed(served: Served) -> None:
    """Invited, renamed, made an expert, removed, by admins alone; the last name wins nowhere twice; nobody locks
    himself out."""
    with served.client("Ina", admin=True) as eve, served.client("Jo") as ann:
        assert ann.get("/api/admin/people").status_code == 403
        link = eve.post("/api/admin/people", json={"name": "Kim", "expert": True}).json()["link"]
        ids = {one["name"]: one["id"] for one in eve.get("/api/admin/people").json()}
        with served.stranger() as kim:
            assert kim.post("/api/login", json={"token": link.partition("#token=")[2]}).status_code == 200
            assert kim.get("/api/expert/queue").status_code == 200
            assert kim.get("/api/admin/people").status_code == 403
            renamed = eve.post(f"/api/admin/people/{ids['Kim']}", json={"name": "Kim 2"}).json()
            assert (renamed["name"], renamed["expert"]) == ("Kim 2", True)
            assert kim.get("/api/me").json()["name"] == "Kim 2"
            assert eve.post(f"/api/admin/people/{ids['Kim']}", json={"expert": False}).json()["expert"] is False
            assert kim.get("/api/expert/queue").status_code == 403
            assert eve.post(f"/api/admin/people/{ids['Kim']}", json={"active": False}).json()["active"] is False
            assert kim.get("/api/me").status_code == 401
        for name in ("Jo", "jO", " ", "a\u202eb", "x" * 65):
            assert eve.post(f"/api/admin/people/{ids['Kim']}", json={"name": name}).status_code == 422, name
        assert eve.post(f"/api/admin/people/{ids['Ina']}", json={"active": False}).status_code == 422
        assert eve.post("/api/admin/people/99999", json={"name": "Nobody"}).status_code == 422
        assert eve.post("/api/admin/people", json={"name": "INA"}).status_code == 422
        assert eve.post(f"/api/admin/people/{ids['Kim']}", json={"name": "KIM 2"}).status_code == 200  # one's own


def test_programs_have_scopes(tmp_path: Path) -> None:
    """A program reads, pushes and imports with a token that may; without, with another scope's, a revoked one or a
    removed owner's it may not; what it pushes is dealt first, also after the queue was loaded again."""
    run = make_scenes(tmp_path / "run", 4)
    with ExitStack() as stack:
        served = stack.enter_context(serving(run.store, tmp_path / "r.sqlite", NO_KNOWN))
        eve, ann = (stack.enter_context(served.client(name, name == "Eve")) for name in ("Eve", "Ann"))
        assert ann.get("/api/admin/openapi.json").status_code == 403
        described = eve.get("/api/admin/openapi.json").json()["paths"]
        assert described["/api/v1/items"]["post"]["security"] == [{"token": ["push"]}]
        assert described["/api/votes"]["post"]["security"] == [{"session": []}]
        assert described["/api/admin/overview"]["get"]["description"] == "Admins."
        summaries = [one["summary"] for path in described.values() for one in path.values()]
        assert all(" " in one and one[-1] != "." for one in summaries)
        assert ann.post("/api/admin/tokens", json={"name": "x", "scopes": ["read"]}).status_code == 403
        tokens = {
            scope: eve.post("/api/admin/tokens", json={"name": scope, "scopes": [scope]}).json()["token"]
            for scope in ("read", "push", "vote")
        }
        assert not any(token in json.dumps(eve.get("/api/admin/tokens").json()) for token in tokens.values())
        reader, pusher = (rasura.review(served.url, token=tokens[scope]) for scope in ("read", "push"))
        assert reader.progress()["candidates"] == 12
        for ask in (lambda: reader.push(["e3ns"]), pusher.progress):
            with pytest.raises(ReviewFailed, match="403"):
                ask()
        assert pusher.push(["e3ns", "unknown", "e1lama"]) == ["unknown"]
        load_queue(run.store, served.database, Policy(votes=1, near_votes=1, honeypots=0, seed=1))
        for expected in ("e3ns", "e1lama"):
            item = lease_item(ann)
            ann.post("/api/votes", json={"item": item, "nonce": nonce(), "verdict": "yes"})
            assert reader.votes()[-1]["row_id"] == expected
        assert {one["row_id"] for one in reader.verdicts()} == {"e3ns", "e1lama"}
        given = [{"item": item, "reviewer": "script", "nonce": "n" * 12, "verdict": "no"}]
        headers = {"authorization": f"Bearer {tokens['vote']}"}
        with served.stranger() as program:
            for count in (1, 0):
                answer = program.post("/api/v1/votes", json={"votes": given}, headers=headers).json()
                assert answer["added"] == count
            wrong = [*given, {"item": item, "reviewer": "s", "nonce": "m" * 12, "verdict": "perhaps"}]
            assert program.post("/api/v1/votes", json={"votes": wrong}, headers=headers).status_code == 422
            assert program.get("/api/v1/votes").status_code == 401
        assert len(reader.votes()) == 3
        assert len(reader.votes(after=reader.votes()[0]["seq"])) == 2
        ids = {one["name"]: one["id"] for one in eve.get("/api/admin/tokens").json()}
        eve.post(f"/api/admin/tokens/{ids['read']}/revoke", json={})
        with pytest.raises(ReviewFailed, match="revoked"):
            reader.progress()
    with pytest.raises(ReviewFailed, match="token"):
        rasura.review("http://127.0.0.1:1")
    with pytest.raises(NoRun, match="is no run"):
        rasura.review(str(tmp_path / "nothing"))
    assert rasura.review(str(tmp_path / "run"), database=str(tmp_path / "r.sqlite")).progress()["voted"] >= 2


def test_statistics_are_files(served: Served) -> None:
    """Each table comes as CSV and as Parquet with the same rows, to admins; a name that a spreadsheet would run as a
    formula is text."""
    with served.client('=HYPERLINK("x")', admin=True) as eve, served.client("Lea") as ann:
        assert ann.get("/api/admin/statistics/votes.csv").status_code == 403
        for name in ("reviewers", "pairs", "items", "removers", "votes"):
            table = pq.read_table(io.BytesIO(eve.get(f"/api/admin/statistics/{name}.parquet").content))
            assert eve.get(f"/api/admin/statistics/{name}.csv").text == encode_statistics(table, "csv").decode()
        assert "\"'=HYPERLINK" in eve.get("/api/admin/statistics/reviewers.csv").text
        assert eve.get("/api/admin/statistics/secrets.csv").status_code == 422


def test_items_are_found(served: Served) -> None:
    """One item by its id, and all by text, state and verdict; a wildcard is a letter like any other."""
    with served.client("Max", admin=True) as eve, served.client("Ned") as ann:
        item = lease_item(ann)
        ann.post("/api/votes", json={"item": item, "nonce": nonce(), "verdict": "unsure"})
        assert eve.get(f"/api/items/{item}").json()["votes"][0]["verdict"] == "unsure"
        assert ann.get(f"/api/items/{item}").status_code == 403

        def find(**query: str) -> int:
            return int(eve.get("/api/admin/items", params=query).json()["total"])

        assert find() == 9
        assert find(text=item) == 1
        assert find(text="telea") == 3
        assert find(text="%") == find(text="_") == 0
        assert find(verdict="unsure") == 1
        assert find(task="composite") == 0
        assert eve.get("/api/admin/items", params={"status": "; DROP TABLE"}).status_code == 422


def test_reviews_of_a_bucket_meet_in_it(tmp_path: Path) -> None:
    """Of a run in a bucket the server writes votes, verdicts and corrections into it, and takes the votes that were
    given elsewhere, each once; what reads the run finds the verdicts there."""
    with serve_bucket():
        run = make_scenes("s3://rasura-test/run", 2)
        for name, verdict in (("Ann", "yes"), ("Bob", "no")):
            with serving(run.store, tmp_path / f"{name}.sqlite", NO_KNOWN) as served, served.client(name) as client:
                item = lease_item(client)
                client.post("/api/votes", json={"item": item, "nonce": nonce(), "verdict": verdict})
        found = Database(tmp_path / "Bob.sqlite")
        assert fetch_votes(run.store, found, NO_KNOWN).added == 0  # the server has done it
        with found.read() as connection:
            assert {entry.verdict for entry in read_entries(connection)} == {"yes", "no"}
        check_queue(found)
        found.close()
        third = Database(tmp_path / "third.sqlite")
        load_queue(run.store, third, NO_KNOWN)
        assert fetch_votes(run.store, third, NO_KNOWN).added == 2
        third.close()
        (tie,) = read_verdicts(run.store).values()
        assert (tie.verdict, tie.votes) == (None, 2)
        assert str(summarize_review(run.store, read_row_verdicts(run.store))) == "1 tie"


BACKGROUNDS = {**PROVENANCE, "source": Kind.RGB, "ground_mask": Kind.MASK}
FLOOR = {"version": 1, "width": 48, "height": 32, "floor": [[[0, 32], [48, 32], [24, 16]]]}


def test_a_floor_is_drawn_where_the_stage_finds_it(tmp_path: Path) -> None:
    """A drawing is checked as stage `ground` checks it, kept in versions, and written into a file that the stage finds
    by the photograph's origin; of two photographs with one name each has its own; a name that is no file's is refused
    a file and said; a drawing that is withdrawn is no file any more."""
    run = make_run(tmp_path / "run", 1)
    origins = ["/photos/a/room.jpg", "/photos/b/room.jpg", "/photos/c/hall.png", "/photos/../x;rm.png"]
    picture = row(1, "captured", 32)["source"]
    rows = [
        {"id": f"b{n}", "origin": origin, "source": picture, "ground_mask": picture[..., 0] > 0}
        for n, origin in enumerate(origins)
    ]
    run.flow("backgrounds", rows, BACKGROUNDS)
    tools = {"check_drawing": check_drawing}
    with serving(run.store, tmp_path / "r.sqlite", NO_KNOWN, **tools) as served, ExitStack() as stack:
        eve, ann = (stack.enter_context(served.client(name, name == "Eve")) for name in ("Eve", "Ann"))
        assert ann.get("/api/drawings").status_code == 403
        assert eve.get("/api/drawings").json()["total"] == 4
        assert eve.get("/api/drawings/b0/picture").headers["content-type"] == "image/webp"
        body: dict[str, Any] = {"based_on": 0, "value": FLOOR}
        for changes in (
            {"width": 96},
            {"floor": [[[0, 0], [48, 32], [48, 0], [0, 32]]]},
            {"floor": [[[0, 32], [48, 32], [24, 900]]]},
            {"nonsense": 1},
        ):
            wrong = {"based_on": 0, "value": {**FLOOR, **changes}}
            assert eve.post("/api/drawings/b0", json=wrong).status_code == 422, changes
        assert eve.post("/api/drawings/c0", json=body).status_code == 404
        for photo in ("b0", "b1", "b2", "b3"):
            assert eve.post(f"/api/drawings/{photo}", json=body).json() == {"version": 1}
        assert eve.post("/api/drawings/b0", json=body).status_code == 409
        assert eve.get("/api/drawings/b0").json() == {"version": 1, "value": FLOOR, "width": 48, "height": 32}
        with served.database.read() as connection:
            assert export_drawings(connection, Store(tmp_path / "out")) == (3, [origins[3]])
        folder = list_drawings(tmp_path / "out" / "ground")
        found = [folder.find(origin) for origin in origins[:3]]
        assert len(set(found)) == 3
        assert all(path is not None and parse_drawing(path.read_bytes(), path.name).floor for path in found)
        assert eve.post("/api/drawings/b2", json={"based_on": 1, "value": None}).json() == {"version": 2}
        with served.database.read() as connection:
            assert export_drawings(connection, Store(tmp_path / "out"))[0] == 2
        assert list_drawings(tmp_path / "out" / "ground").find(origins[2]) is None
