"""What labelling servers were attacked with, and that none of it works here. docs/reviewing.md has the table."""

import contextlib
import json
import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.annotator.runs import make_run
from support.annotator.server import Served, lease_item, nonce, serving

from rasura.annotator.exchange.vote_rows import BadVotes
from rasura.annotator.exchange.votes_file import read_votes
from rasura.annotator.server.middleware import CONTENT_SECURITY_POLICY, parse_host
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.reviewers import renew_token

PAGES = ["/", "/admin", "/page/review.js", "/page/common.css", "/favicon.ico"]
CALLS = ["/api/me", "/api/history", "/api/progress", "/api/examples", "/api/admin/overview"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("review")
    run = make_run(folder / "run", 40, truth=6)
    with serving(run.store, folder / "r.sqlite", Policy(honeypots=0.1)) as found:
        yield found


@pytest.fixture
def stranger(served: Served) -> Iterator[httpx.Client]:
    with served.stranger() as client:
        yield client


def test_nothing_without_a_session(served: Served, stranger: httpx.Client) -> None:
    """Without a session no call tells or changes anything, and none of a made-up cookie."""
    for cookie in (None, "x", "'; DROP TABLE reviewers; --", "%00", "é"):
        headers = {"cookie": f"{served.review.cookie}={cookie}".encode()} if cookie else {}
        for path in CALLS:
            assert stranger.get(path, headers=headers).status_code == 401, path
        for path, body in (
            ("next", {}),
            ("votes", {"item": "a" * 32, "nonce": "n" * 8, "verdict": "yes"}),
            ("undo", {"nonce": "n" * 8}),
            ("logout", {}),
        ):
            assert stranger.post(f"/api/{path}", json=body, headers=headers).status_code == 401, path
        assert stranger.get(f"/api/pictures/{'a' * 32}/source", headers=headers).status_code == 401


def test_nobody_registers_oneself(stranger: httpx.Client) -> None:
    """Label Studio: open self-registration. Here there is no such call, and a wrong token makes nobody."""
    for path in ("/api/register", "/api/signup", "/user/signup", "/api/users", "/api/reviewers"):
        assert stranger.post(path, json={"token": "x"}).status_code in (404, 405)
    assert stranger.post("/api/login", json={"token": "x" * 43}).status_code == 401


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "http://evil.example",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "file://",
        "https://127.0.0.1.evil.example",
        "javascript:alert(1)",
    ],
)
def test_no_post_from_elsewhere(served: Served, origin: str | None) -> None:
    """Every request that changes something must come from the server's own page: another origin, none at all, one that
    looks alike are refused, with a valid session, whatever the body is said to be."""
    with served.client(f"Ann {origin}") as ann:
        ann.headers.pop("origin")
        headers = {"origin": origin} if origin else {}
        for path in ("next", "votes", "undo", "flag", "logout", "login"):
            for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
                answer = ann.post(f"/api/{path}", content=b"{}", headers={**headers, "content-type": kind})
                assert answer.status_code == 403, (path, kind)
        assert ann.get("/api/me").status_code == 200


def test_a_form_cannot_vote(served: Served) -> None:
    """A body that is no JSON is refused even from the right origin: what a plain form can send means nothing."""
    with served.client("Former") as ann:
        item = lease_item(ann)
        body = json.dumps({"item": item, "nonce": nonce(), "verdict": "yes"})
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            assert ann.post("/api/votes", content=body, headers={"content-type": kind}).status_code == 422
        assert ann.get("/api/progress").json()["mine"]["votes"] == 0


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "localhost.evil.example"]
)
def test_no_rebound_name(served: Served, stranger: httpx.Client, host: str) -> None:
    """A name that an attacker lets point to 127.0.0.1 is not answered, neither pages nor calls."""
    for path in (*PAGES, *CALLS):
        assert stranger.get(path, headers={"host": host}).status_code in (400, 421)


def test_host_names() -> None:
    """Ports and IPv6 addresses in a Host header are told apart."""
    assert [parse_host(host) for host in ("a:1", "a", "[::1]:80", "[::1]")] == ["a", "a", "[::1]", "[::1]"]


def test_headers_on_every_answer(served: Served, stranger: httpx.Client) -> None:
    """The policy that admits only what the server itself sends stands on pages, calls, pictures and refusals; no
    page has a script or style within itself."""
    with served.client("Header") as ann:
        picture = f"/api/pictures/{lease_item(ann)}/source"
        for path in (*PAGES, *CALLS, picture, "/nowhere", "/page/../server.py"):
            answer = ann.get(path)
            assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "DENY"
            assert "server" not in answer.headers
        assert ann.get("/api/me").headers["cache-control"] == "no-store"
    assert "default-src 'self'" in CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    for path in ("/", "/admin"):
        text = stranger.get(path).text
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|https?:", text)


def test_the_cookie(served: Served, stranger: httpx.Client) -> None:
    """Scripts cannot read the cookie, other sites' links do not carry it, over https it is for https alone."""
    answer = stranger.post("/api/login", json={"token": served.token("Cookie")})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/" in cookie
    assert "secure" not in cookie
    assert answer.json() == {"ok": True}


def test_reviews_at_two_ports_keep_their_sessions(tmp_path: Path) -> None:
    """A browser has one set of cookies for all ports of a host: signing in, being served again from another place, and
    signing out at one leave the session at the other alone, and none of them takes the other's cookie."""
    runs = [make_run(tmp_path / name, 1) for name in ("one", "two")]
    files = [tmp_path / name / "r.sqlite" for name in ("a", "b")]
    with serving(runs[0].store, files[0]) as first, httpx.Client(timeout=120) as browser:

        def ask(server: Served, path: str, **body: str) -> int:
            return browser.post(f"{server.url}/api/{path}", json=body, headers={"origin": server.url}).status_code

        with serving(runs[1].store, files[1]) as second:
            for server in (first, second):
                assert ask(server, "login", token=server.token("Ann")) == 200
            assert [ask(server, "next") for server in (first, second)] == [200, 200]
            mine, other = (browser.cookies[server.review.cookie] for server in (first, second))
            for name in (first.review.cookie, "rasura", "session"):
                header = {"cookie": f"{name}={other if name == first.review.cookie else mine}"}
                assert httpx.get(f"{first.url}/api/me", headers=header).status_code == 401, name
        files[1].parent.rename(tmp_path / "moved")
        with serving(runs[1].store, tmp_path / "moved" / files[1].name) as second:
            assert ask(second, "next") == 200
            assert ask(first, "logout") == 200
            assert [ask(server, "next") for server in (first, second)] == [401, 200]


def test_the_cookie_over_https(tmp_path: Path) -> None:
    """Served over https, the cookie says so."""
    address = {"public_url": "https://review.example"}
    with serving(make_run(tmp_path / "run", 1).store, tmp_path / "r.sqlite", **address) as served:
        with served.stranger() as stranger:
            answer = stranger.post("/api/login", json={"token": served.token("Ann")})
        assert "secure" in answer.headers["set-cookie"].lower()


@pytest.mark.parametrize(
    "path",
    [
        "/page/../server.py",
        "/page/..%2fserver.py",
        "/page/%2e%2e/server.py",
        "/page/....//server.py",
        "/page//etc/passwd",
        "/page/..\\server.py",
        "/page/%00",
        "/page/index.html%00.js",
        "/../../etc/passwd",
        "/page/.%2e/.%2e/pyproject.toml",
        "/data/local-files/?d=etc/passwd",
        "/static../annotator/server/app.py",
    ],
)
def test_no_path_leads_out(served: Served, path: str) -> None:
    """Label Studio: nginx alias traversal. Files are a list of names that was read at the start: no spelling of another
    path finds anything. (Sent raw, since clients tidy paths up.)"""
    host = served.url.removeprefix("http://")
    with socket.create_connection(host.split(":"), 120) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.split(b" ")[1] in (b"404", b"400")
    assert b"def " not in answer
    assert b"root:" not in answer


def test_pictures_by_id_only(served: Served) -> None:
    """A picture is asked for by an item's id and a word: anything else is refused before anything is opened."""
    with served.client("Viewer") as ann:
        item = lease_item(ann)
        for bad in (
            "../../etc/passwd",
            "..%2f..%2fplan.json",
            "candidates0",
            item.upper(),
            item[:-1],
            f"{item}0",
            "%00",
        ):
            assert ann.get(f"/api/pictures/{bad}/source").status_code in (404, 422), bad
        for role in ("target", "foreground_mask", "id", "bytes", "path", "../source"):
            assert ann.get(f"/api/pictures/{item}/{role}").status_code in (404, 422), role
        assert ann.get(f"/api/pictures/{item}/source?size=../../x").status_code == 422
        assert ann.get("/api/pictures/" + "f" * 32 + "/source").status_code == 404


def test_nobody_sees_or_judges_what_others_hold(served: Served) -> None:
    """Label Studio: ids of others' things (CVE-2026-22033). What is dealt to one is not there for another: not its
    pictures, no vote, flag or undo; and a nonce of somebody else's does not answer with their vote."""
    with served.client("Owner") as ann, served.client("Thief") as eve:
        item, sent = lease_item(ann), nonce()
        assert eve.get(f"/api/pictures/{item}/source").status_code == 404
        for verdict in ("yes", "skip"):
            body = {"item": item, "nonce": nonce(), "verdict": verdict}
            assert eve.post("/api/votes", json=body).status_code == 404
        assert eve.post("/api/flag", json={"item": item, "nonce": nonce(), "remark": "x"}).status_code == 404
        assert ann.post("/api/votes", json={"item": item, "nonce": sent, "verdict": "yes"}).status_code == 200
        assert eve.post("/api/undo", json={"nonce": nonce(), "item": item}).status_code == 409
        assert eve.post("/api/undo", json={"nonce": sent}).status_code == 404
        assert eve.get(f"/api/pictures/{item}/source").status_code == 404
        assert eve.get("/api/history").json()["items"] == []


def test_no_filter_tells_of_other_columns(served: Served) -> None:
    """Label Studio: filters that leaked password hashes (CVE-2023-47117). No call takes a filter, an order or a column;
    unknown parameters change nothing, unknown fields are refused; no answer holds a hash of a token or a cookie."""
    with served.client("Admin", admin=True) as eve, served.database.read() as connection:
        plain = eve.get("/api/admin/disputed").json()
        for more in ("?filter=reviewers__token__startswith:a", "?order=token", "?fields=token", "?ordering=-token"):
            assert eve.get(f"/api/admin/disputed{more}").json() == plain
        assert eve.post("/api/next", json={"want": 1, "filter": "token"}).status_code == 422
        secrets = [
            row[0]
            for table, column in (("reviewers", "token"), ("sessions", "id"))
            for row in connection.exec_driver_sql(f"SELECT {column} FROM {table}")
            if row[0]
        ]
        told = "".join(eve.get(path).text for path in (*CALLS, "/api/admin/disputed", "/api/admin/flagged"))
    assert secrets
    assert not [secret for secret in secrets if secret in told]


def test_words_of_people_stay_words(served: Served) -> None:
    """Label Studio: XSS through names, labels and imported data. Words are answered as JSON, never as HTML; control
    characters are refused. (That the page shows them as text is shown in the browser test.)"""
    with served.client("<img src=x onerror=alert(1)>") as ann:
        answer = ann.get("/api/me")
        assert answer.headers["content-type"] == "application/json"
        item = lease_item(ann)
        for remark, status in (
            ("<script>alert(1)</script>", 200),
            ("a\x00b", 422),
            ("x" * 2001, 422),
            ("\x1b[31m", 422),
        ):
            body = {"item": item, "nonce": nonce(), "remark": remark}
            assert ann.post("/api/flag", json=body).status_code == status
        unpaired = b'{"item": "%s", "nonce": "12345678", "remark": "\\ud800"}' % item.encode()
        answer = ann.post("/api/flag", content=unpaired, headers={"content-type": "application/json"})
        assert answer.status_code == 422


def test_large_requests_are_cut(served: Served) -> None:
    """A body that is, or claims to be, larger than any vote is refused without being read."""
    with served.client("Large") as ann:
        headers = {"content-type": "application/json"}
        assert ann.post("/api/votes", content=b"x" * 100_000, headers=headers).status_code == 413
        with contextlib.suppress(httpx.TransportError):
            claimed = ann.post("/api/next", content=b"x" * 70_000, headers=headers)
            assert claimed.status_code == 413

        def endless() -> Iterator[bytes]:
            for _ in range(40):
                yield b"[" * 4096

        with contextlib.suppress(httpx.TransportError):  # the server may hang up
            assert ann.post("/api/votes", content=endless(), headers=headers).status_code >= 400
        deep = b'{"want":' + b"[" * 30_000
        assert ann.post("/api/next", content=deep, headers=headers).status_code in (400, 422)
        assert ann.get("/api/me").status_code == 200


def test_nothing_is_fetched(served: Served, tmp_path: Path) -> None:
    """Label Studio: SSRF on import (CVE-2022-36551). An import that names addresses and files as pictures opens no
    connection: nothing but choices and remarks is read from it."""
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.3)
        address = f"http://127.0.0.1:{trap.getsockname()[1]}/x"
        task = {
            "data": {"item": "a" * 32, "source": address, "result": "file:///etc/passwd", "mask": address},
            "annotations": [
                {
                    "completed_by": {"email": "x"},
                    "created_at": "2026-01-01T00:00:00+00:00",
                    "id": 1,
                    "result": [{"from_name": "verdict", "value": {"choices": ["yes"]}}],
                }
            ],
        }
        (tmp_path / "tasks.json").write_text(json.dumps([task]))
        (entry,) = read_votes(tmp_path / "tasks.json")
        assert entry["verdict"] == "yes"
        assert address not in json.dumps(entry)
        with pytest.raises(TimeoutError):
            trap.accept()
    with served.client("Importer", admin=True) as eve:
        for path in ("/api/import", "/api/projects/1/import", "/api/admin/import"):
            assert eve.post(path, json={"url": "http://127.0.0.1:1/"}).status_code in (404, 405)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.json", "{", "not JSON"),
        ("x.json", "{}", "a list of tasks"),
        ("x.json", "[1]", "names no item"),
        ("x.json", '[{"data": {"item": "a"}, "annotations": [3]}]', "no list"),
        ("x.json", '[{"data": {"item": "a"}, "annotations": [{"created_at": "2026-01-01"}]}]', "without a verdict"),
        ("x.jsonl", '{"item": "a"}', "'reviewer' is missing"),
        ("x.jsonl", "[]", "not an entry"),
        ("x.jsonl", "{", "x.jsonl:1"),
        ("x.jsonl", '{"item": "a", "reviewer": "b", "time": 1, "action": "grant", "nonce": "n"}', "action is 'grant'"),
        ("x.jsonl", '{"item": "a", "reviewer": "b", "time": 1, "action": "vote", "nonce": "n"}', "without a verdict"),
        ("x.jsonl", '{"item": "a", "reviewer": "b", "time": -1, "action": "skip", "nonce": "n"}', "time is -1"),
        (
            "x.jsonl",
            '{"item": "a", "reviewer": ["b"], "time": 1, "action": "skip", "nonce": "n"}',
            "reviewer is no text",
        ),
        (
            "x.jsonl",
            '{"item": "a", "reviewer": "b", "time": 1, "action": "skip", "verdict": "yes", "nonce": "n"}',
            "a skip with the verdict yes",
        ),
        (
            "x.jsonl",
            '{"item": "a", "reviewer": "b\\u0007", "time": 1, "action": "skip", "nonce": "n"}',
            "printable characters",
        ),
        (
            "x.jsonl",
            '{"item": "a", "reviewer": "b", "time": 1, "action": "skip", "nonce": "n"}\n'
            '{"item": "c", "reviewer": "b", "time": 2, "action": "skip", "nonce": "n"}',
            "entry 2: its nonce is that of entry 1",
        ),
        ("x.parquet", "PAR1", "not Parquet"),
    ],
)
def test_bad_imports_are_told(tmp_path: Path, name: str, text: str, says: str) -> None:
    """A file of votes that is not one is refused whole, with its place and what is wrong."""
    (tmp_path / name).write_text(text)
    with pytest.raises(BadVotes, match=re.escape(says)):
        read_votes(tmp_path / name)


def test_no_secret_is_built_in_or_logged(
    served: Served, stranger: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Label Studio: a hard-coded key (CVE-2023-43791). Here no key signs anything: cookies are random and looked up;
    two sign-ins give two cookies. Neither a token nor a cookie stands in the log, at any level."""
    caplog.set_level(logging.DEBUG)
    token = served.token("Logged")
    again = served.database.write(lambda connection: renew_token(connection, "Logged", keep=True))
    cookies = set()
    for link in (token, again):
        answer = stranger.post("/api/login", json={"token": link})
        cookies.add(answer.headers["set-cookie"].split("=")[1].split(";")[0])
    stranger.post("/api/login", json={"token": f"wrong-{token[:10]}"})
    assert len(cookies) == 2
    assert all(len(cookie) >= 43 for cookie in cookies)
    ours = [
        record.getMessage()
        for record in caplog.records
        if not record.name.startswith(("httpx", "httpcore", "sqlalchemy"))
    ]
    said = "\n".join(ours)
    assert token not in said
    assert token[:10] not in said
    assert not [cookie for cookie in cookies if cookie in said]
