"""Limits of the review server: wrong tokens, made-up requests, and whom it answers."""

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import httpx
import pytest
import schemathesis
from conftest import ROOT, environment
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from support.annotator.runs import make_run
from support.annotator.server import lease_item, serving
from support.ports import find_free_ports

from rasura.annotator.server.app import create_app
from rasura.annotator.server.middleware import FailureLimit
from rasura.annotator.store.policy import Policy


def test_wrong_tokens_are_limited(tmp_path: Path) -> None:
    """After ten wrong tokens in a minute an address has to wait with further wrong ones; the right one passes."""
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(serving(make_run(tmp_path / "run", 3).store, tmp_path / "r.sqlite"))
        ann, stranger = stack.enter_context(served.client("Ann")), stack.enter_context(served.stranger())
        token = served.token("Bob")
        statuses = [stranger.post("/api/login", json={"token": f"{n}"}).status_code for n in range(12)]
        assert statuses == [401] * 10 + [429] * 2
        answer = stranger.post("/api/login", json={"token": "another"})
        assert answer.status_code == 429
        assert 0 < int(answer.headers["retry-after"]) <= 61
        assert stranger.post("/api/login", json={"token": token}).status_code == 200
        assert ann.get("/api/me").status_code == 200


def test_limit_passes() -> None:
    """The limit ends by itself; many addresses together have one, too; nothing piles up."""
    now = [0.0]
    limit = FailureLimit(each=2, together=5, window_s=60, clock=lambda: now[0])
    for _ in range(2):
        assert limit.compute_wait("a") == 0
        limit.add_failure("a")
    assert limit.compute_wait("a") == 60
    assert limit.compute_wait("b") == 0
    for address in "bcd":
        limit.add_failure(address)
    assert limit.compute_wait("e") > 0
    now[0] = 60.0
    assert limit.compute_wait("a") == limit.compute_wait("e") == 0
    assert not limit._failures


def test_binds_to_this_machine_and_prints_no_token(tmp_path: Path) -> None:
    """The command serves on 127.0.0.1 unless told otherwise; what it prints and logs while people sign in holds no
    token; it ends in order when it is stopped."""
    run = make_run(tmp_path / "run", 3)
    code = "from rasura.pipeline.cli.review import review; review()"
    add = [sys.executable, "-c", code, "add-reviewer", run.store.uri, "Ann"]
    done = subprocess.run(add, capture_output=True, text=True, env=environment(), cwd=ROOT, check=True)
    token = done.stdout.strip().partition("#token=")[2]
    (port,) = find_free_ports(1)
    serve = [sys.executable, "-c", code, run.store.uri, "--port", str(port)]
    with subprocess.Popen(
        serve, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(), cwd=ROOT
    ) as process:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 300
        try:
            while True:
                try:
                    with urllib.request.urlopen(url, timeout=60) as page:
                        assert b"Rasura" in page.read()
                    break
                except OSError:
                    assert time.monotonic() < deadline, "did not come up"
                    time.sleep(0.1)
            with httpx.Client(base_url=url, headers={"origin": url}, timeout=120) as client:
                assert client.post("/api/login", json={"token": token}).status_code == 200
                client.post("/api/login", json={"token": token[::-1]})
                assert client.get("/api/me").json()["name"] == "Ann"
            outside = socket.gethostbyname(socket.gethostname())
            if not outside.startswith("127."):
                with pytest.raises((ConnectionRefusedError, TimeoutError)):
                    socket.create_connection((outside, port), 2)
        finally:
            process.terminate()
        said = process.stdout.read() if process.stdout else ""
        assert process.wait(120) in (0, -15)
    assert "review: http://127.0.0.1" in said
    assert token not in said
    assert token[::-1] not in said


ENDS_SESSIONS = ["/api/logout", "/api/admin/people/{person}/link"]
"""Requests that end the session of whoever makes them, of an admin who renews her own link."""


def test_any_request_gets_an_answer(tmp_path: Path) -> None:
    """Schemathesis makes up requests from the server's own description, right and wrong ones, signed in as an admin:
    none makes it fail (500), each is answered as described."""
    run = make_run(tmp_path / "run", 60, truth=6)
    with serving(run.store, tmp_path / "r.sqlite", Policy(honeypots=0.1)) as served, served.client("Ann", True) as ann:
        lease_item(ann)
        schema = schemathesis.openapi.from_dict(create_app(served.review).openapi())
        operations = [operation.ok() for operation in schema.exclude(path=ENDS_SESSIONS).get_all_operations()]
        modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        cookies = "; ".join(f"{name}={value}" for name, value in ann.cookies.items())
        headers = {"origin": served.url, "cookie": cookies}
        seen: set[tuple[str, int]] = set()

        def send(case: schemathesis.Case) -> None:
            answer = case.call(base_url=served.url, headers=headers)
            seen.add((case.operation.path, answer.status_code))
            assert answer.status_code < 500, case.as_curl_command()

        quiet = settings(
            max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True
        )
        for operation in operations:
            cases = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes))
            quiet(given(cases)(send))()
        assert {path for path, _ in seen} == {operation.path for operation in operations}
        assert {200, 404, 422} <= {status for _, status in seen}
        assert ann.get("/api/me").status_code == 200
