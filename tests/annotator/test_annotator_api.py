"""The calls of the page, over a socket: what each tells, what it hides, and what survives when things break."""

import io
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select
from support.annotator.runs import CANDIDATES, Run, make_run, row
from support.annotator.server import OPEN, Served, nonce, serving

from rasura.annotator.server import images as pictures
from rasura.annotator.server.variants import render_result
from rasura.annotator.store.database import items
from rasura.annotator.store.enums import MISTAKES, ItemKind, Variant
from rasura.annotator.store.policy import Policy
from rasura.manifests.images import decode_image
from rasura.manifests.storage import Store

POLICY = Policy(votes=1, near_votes=2, most_votes=3, honeypots=0.2, feedback=True)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run", 40, truth=10)


@pytest.fixture
def served(tmp_path: Path, run: Run) -> Iterator[Served]:
    with serving(run.store, tmp_path / "review.sqlite", POLICY) as found:
        yield found


def vote(item: str, verdict: str = "yes", **more: object) -> dict[str, object]:
    return {"item": item, "nonce": nonce(), "verdict": verdict, **more}


def test_a_reviewer_works(served: Served) -> None:
    """Items come, a vote tells what was hidden until then, the list and the progress follow, an undo brings the item
    back."""
    with served.client("Ann") as ann, served.client("Bob") as bob:
        me = ann.get("/api/me").json()
        assert (me["name"], me["admin"], me["run"]) == ("Ann", False, "run")
        first = ann.post("/api/next", json={"want": 3}).json()["items"]
        assert len(first) == 3
        assert set(first[0]) == {"id", "label", "dilation", "task"}
        item = first[0]["id"]
        with served.database.read() as connection:
            row = connection.execute(select(items.c.score, items.c.kind).where(items.c.id == item)).one()
        told = ann.post("/api/votes", json=vote(item, "no", reason="shadow", seconds=1.5)).json()
        # an item with a known answer has that of a candidate
        assert told["score"] == row.score if row.kind == ItemKind.CANDIDATE else told["score"] is not None
        assert told["others"] == {}
        others = {one["id"] for one in bob.post("/api/next", json={"want": 6}).json()["items"]}
        assert not others & {one["id"] for one in first[1:]} or POLICY.near_votes == 2
        (past,) = ann.get("/api/history").json()["items"]
        assert (past["id"], past["verdict"], past["reason"]) == (item, "no", "shadow")
        progress = ann.get("/api/progress").json()
        assert progress["mine"] == {"votes": 1, "per_hour": None, "median_seconds": 1.5}
        assert progress["team"]["total"] >= 40
        assert ann.post("/api/undo", json={"nonce": nonce()}).json()["id"] == item
        assert ann.post("/api/next", json={"want": 3}).json()["items"][0]["id"] == item
        assert ann.get("/api/history").json()["items"] == []


def test_verdicts_that_waited_and_wrong_reasons(served: Served) -> None:
    """Verdicts that a browser kept have the times at which they were given, so that the pace is that of the person; a
    reason that the item's question does not have is refused with those that it has, and nothing is stored."""
    with served.client("Ann") as ann:
        dealt = ann.post("/api/next", json={"want": 4}).json()["items"]
        wrong = ann.post("/api/votes", json=vote(dealt[0]["id"], "no", reason="stands"))
        assert wrong.status_code == 422
        assert "it can have object, hallucinated" in wrong.json()["detail"]
        assert ann.get("/api/progress").json()["mine"]["votes"] == 0
        for item, age in zip(dealt, (90.0, 60.0, 30.0, None), strict=True):
            more = {} if age is None else {"age": age}
            assert ann.post("/api/votes", json=vote(item["id"], seconds=1.0, **more)).status_code == 200
        assert 100 < ann.get("/api/progress").json()["mine"]["per_hour"] < 125
        assert ann.post("/api/votes", json=vote(dealt[0]["id"], age=-1.0)).status_code == 422


def test_others_votes_come_with_the_vote(tmp_path: Path) -> None:
    """What others said comes as counts, after one's own vote, without names."""
    policy = Policy(votes=2, near_votes=2, most_votes=2, honeypots=0)
    with serving(make_run(tmp_path / "run", 1).store, tmp_path / "r.sqlite", policy) as served:
        for name, verdict, others in (("Ann", "no", {}), ("Bob", "yes", {"no": 1})):
            with served.client(name) as client:
                (item,) = client.post("/api/next", json={"want": 1}).json()["items"]
                assert "score" not in item
                assert client.post("/api/votes", json=vote(item["id"], verdict)).json()["others"] == others


def test_feedback_on_known_answers(served: Served) -> None:
    """An item with a known answer looks like any other; its answer is told after the vote, where the policy says so."""
    with served.client("Ann") as ann:
        seen = {}
        while found := ann.post("/api/next", json={"want": 6}).json()["items"]:
            for item in found:
                seen[item["id"]] = ann.post("/api/votes", json=vote(item["id"])).json()
        known = {id: told["known"] for id, told in seen.items() if told["known"]}
        assert known
        with served.database.read() as connection:
            for id, told in known.items():
                expected = connection.execute(select(items.c.expected).where(items.c.id == id)).scalar()
                assert told == {"expected": expected, "right": expected == "yes"}


def test_pictures(served: Served) -> None:
    """Pictures come as they are stored, with a name that lets the browser keep them; a size that fits, and thumbnails;
    the second time nothing is sent."""
    with served.client("Ann") as ann:
        item = ann.post("/api/next", json={"want": 1}).json()["items"][0]["id"]
        for role in ("source", "mask", "result"):
            answer = ann.get(f"/api/pictures/{item}/{role}")
            assert answer.headers["content-type"] in ("image/webp", "image/png")
            assert "immutable" in answer.headers["cache-control"]
            assert "private" in answer.headers["cache-control"]
            again = ann.get(f"/api/pictures/{item}/{role}", headers={"if-none-match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            thumb = ann.get(f"/api/pictures/{item}/{role}?size=thumb")
            assert max(Image.open(io.BytesIO(thumb.content)).size) <= 160
        with served.database.read() as connection:
            row_ = connection.execute(select(items).where(items.c.id == item)).one()
        if row_.variant == Variant.TARGET:
            stored = served.review.pictures.read_picture((row_.place_table, row_.place_shard, row_.place_row), "target")
            assert ann.get(f"/api/pictures/{item}/result?size=native").content == stored


def test_large_pictures_are_shown_smaller(tmp_path: Path) -> None:
    """A picture of more than 1600 px comes smaller, until somebody asks for it as it is stored."""
    run = make_run(tmp_path / "run", 1, side=1200)
    with serving(run.store, tmp_path / "r.sqlite") as served, served.client("Ann") as ann:
        item = ann.post("/api/next", json={"want": 1}).json()["items"][0]["id"]
        sizes = {
            (role, size): Image.open(io.BytesIO(ann.get(f"/api/pictures/{item}/{role}?size={size}").content)).size
            for role in ("source", "mask", "result")
            for size in ("view", "native")
        }
        assert ann.get(f"/api/pictures/{item}/mask").headers["x-picture-size"] == "1800x1200"
    assert sizes["source", "view"] == sizes["mask", "view"] == sizes["result", "view"] == (1600, 1067)
    assert sizes["source", "native"] == sizes["mask", "native"] == sizes["result", "native"] == (1800, 1200)


def test_examples_show_every_mistake(served: Served) -> None:
    """The guidelines' examples are one right result and one of each mistake, of one scene; their pictures are for
    everybody."""
    with served.client("Ann") as ann:
        examples = ann.get("/api/examples").json()["items"]
        assert {example["variant"] for example in examples} == {"target", *map(str, MISTAKES)}
        shown = {
            example["variant"]: decode_image(ann.get(f"/api/pictures/{example['id']}/result").content)
            for example in examples
        }
    assert len({picture.tobytes() for picture in shown.values()}) == len(shown)


def test_known_mistakes_are_what_they_say() -> None:
    """Inside the hole three of them differ from the truth and two do not; far from the object only the leak does;
    all are of the truth's size."""
    made = row(3, "captured", 96)
    source, target, mask = made["source"], made["target"], made["mask"]
    wrong_inside = (Variant.UNTOUCHED, Variant.BLUR, Variant.HALLUCINATED)
    near = np.zeros_like(mask)
    near[10:80, 10:130] = True
    for variant in Variant:
        result = render_result(variant, source, target, mask)
        assert result.shape == target.shape
        inside = np.abs(result.astype(int) - target)[mask].mean()
        outside = np.abs(result.astype(int) - target)[~near].mean()
        assert (inside > 3) == (variant in wrong_inside), variant
        assert (outside > 1) == (variant is Variant.LEAK), variant
    empty = np.zeros_like(mask)
    assert (render_result(Variant.BLUR, source, target, empty) == target).all()


def test_a_shard_that_breaks_costs_its_items(tmp_path: Path, run: Run, served: Served) -> None:
    """A shard that is cut while the server runs: its pictures are not found, one can skip, all others go on."""
    with served.client("Ann") as ann:
        item = ann.post("/api/next", json={"want": 1}).json()["items"][0]["id"]
        with served.database.read() as connection:
            place = connection.execute(select(items).where(items.c.id == item)).one()
        name = tmp_path / "run" / f"tables/{place.place_table}/shards/{place.place_shard}.parquet"
        whole = name.read_bytes()
        for broken in (whole[: len(whole) // 2], b"", None):
            if broken is None:
                name.unlink()
            else:
                name.write_bytes(broken)
            answer = ann.get(f"/api/pictures/{item}/source")
            assert answer.status_code == 404
            assert str(tmp_path) not in answer.text
        assert ann.post("/api/votes", json=vote(item, "skip")).status_code == 200
        assert ann.post("/api/next", json={"want": 2}).status_code == 200
        name.write_bytes(whole)
        assert ann.get(f"/api/pictures/{item}/source").status_code == 200


def test_new_rows_come_by_themselves(run: Run, served: Served) -> None:
    """Rows that are added to the run while people review are in the queue soon after."""
    deadline = time.monotonic() + 300
    with served.client("Ann") as ann:
        before = ann.get("/api/progress").json()["team"]["total"]
        run.flow("more", [row(n, "edited") for n in range(200, 207)], CANDIDATES)
        while ann.get("/api/progress").json()["team"]["total"] < before + 7:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_the_same_vote_again_is_told_the_same(served: Served) -> None:
    """A vote whose answer was lost is sent again and answered again, and counts once."""
    with served.client("Ann") as ann:
        item = ann.post("/api/next", json={"want": 1}).json()["items"][0]["id"]
        body = vote(item)
        answers = [ann.post("/api/votes", json=body).json() for _ in range(3)]
        assert answers[0] == answers[1] == answers[2]
        assert ann.get("/api/progress").json()["mine"]["votes"] == 1


def test_flags_and_disputes_reach_the_admin(tmp_path: Path) -> None:
    """What two say differently stands on the admin's page with both votes, a remark with its words; reviewers may not
    look."""
    policy = Policy(votes=2, near_votes=2, most_votes=2, honeypots=0)
    with ExitStack() as stack:
        served = stack.enter_context(serving(make_run(tmp_path / "run", 3).store, tmp_path / "r.sqlite", policy))
        ann, bob, eve = (stack.enter_context(served.client(name, name == "Eve")) for name in ("Ann", "Bob", "Eve"))
        for client, verdicts in ((ann, "yes yes no"), (bob, "yes no no")):
            for item, verdict in zip(
                client.post("/api/next", json={"want": 3}).json()["items"], verdicts.split(), strict=True
            ):
                client.post("/api/votes", json=vote(item["id"], verdict))
        flagged = ann.get("/api/history").json()["items"][0]["id"]
        remark = '<img src=x onerror="alert(1)"> half the object'
        ann.post("/api/flag", json={"item": flagged, "nonce": nonce(), "remark": remark})
        for path in ("overview", "disputed", "flagged"):
            assert ann.get(f"/api/admin/{path}").status_code == 403
        overview = eve.get("/api/admin/overview").json()
        assert overview["consensus"] == {"yes": 1, "no": 1, "tie": 1}
        assert overview["pairs"] == [{"one": 1, "other": 2, "items": 3, "agreed": 2, "kappa": pytest.approx(0.4)}]
        assert overview["alpha"] == pytest.approx(0.4444, abs=1e-3)
        rates = {one["name"]: one["yes_rate"] for one in overview["reviewers"]}
        assert rates == {"Ann": pytest.approx(2 / 3), "Bob": pytest.approx(1 / 3), "Eve": None}
        disputed = eve.get("/api/admin/disputed").json()
        assert disputed["total"] == 1
        said = {one["reviewer"]: one["verdict"] for one in disputed["items"][0]["votes"]}
        assert said == {"Ann": "yes", "Bob": "no"}
        (found,) = eve.get("/api/admin/flagged").json()["items"]
        assert found["votes"][0]["remark"] == remark
        assert eve.get(f"/api/pictures/{found['id']}/source").status_code == 200


def test_signing_out_gives_back_what_is_open(tmp_path: Path) -> None:
    """After a sign-out the cookie is worth nothing, and what was open goes to others at once."""
    with ExitStack() as stack:
        served = stack.enter_context(serving(make_run(tmp_path / "run", 1).store, tmp_path / "r.sqlite"))
        ann, bob = (stack.enter_context(served.client(name)) for name in ("Ann", "Bob"))
        assert len(ann.post("/api/next", json={"want": 1}).json()["items"]) == 1
        cookie = "; ".join(f"{name}={value}" for name, value in ann.cookies.items())
        assert bob.post("/api/next", json={"want": 1}).json()["items"] == []
        assert ann.post("/api/logout", json={}).status_code == 200
        assert ann.get("/api/me", headers={"cookie": cookie}).status_code == 401
        assert len(bob.post("/api/next", json={"want": 1}).json()["items"]) == 1


def test_two_reviews_on_one_host(tmp_path: Path) -> None:
    """Two servers on one host, which share their cookies, do not sign each other out."""
    one, two = (make_run(tmp_path / name, 2).store for name in ("one", "two"))
    with serving(one, tmp_path / "1.sqlite") as first, serving(two, tmp_path / "2.sqlite") as second:
        assert first.review.cookie != second.review.cookie
        with first.client("Ann") as ann:
            assert ann.get("/api/me").json()["run"] == "one"


def test_pictures_are_kept_within_bounds(tmp_path: Path) -> None:
    """The cache holds what was used last and never more than its size, a single larger picture aside."""
    run = make_run(tmp_path / "run", 12)
    cache = pictures.PictureReader(Store(run.store.uri), cache_bytes=12_000)
    for number in range(12):
        cache.read_picture(("candidates", "candidates0", number), "source")
        assert cache._cached_bytes == sum(map(len, cache._cache.values()))
        assert cache._cached_bytes <= 12_000 or len(cache._cache) == 1
    with pytest.raises(IndexError, match="no row 99"):
        cache.read_picture(("candidates", "candidates0", 99), "source")


def test_what_the_browser_cannot_show_is_made_so() -> None:
    """Only PNG, JPEG and WebP are handed on as they are."""
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "TIFF")
    assert pictures.detect_media_type(out.getvalue()) is None
    assert pictures.detect_media_type(b"<svg onload=alert(1)>") is None
    assert json.dumps(OPEN.model_dump())
