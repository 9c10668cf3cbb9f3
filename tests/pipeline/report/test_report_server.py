"""`rasura report --serve`: every picture at full size, and nothing for those who have no token."""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.report_pages import TRIPLETS, ReportRun, triplet

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from rasura.annotator.server.middleware import FailureLimit
from rasura.pipeline.report.server import ServedReport, create_report_app

ROW = "/pictures/flow-0/1"
ORIGIN = {"origin": "http://localhost"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> ServedReport:
    """A run of small pictures and a large one."""
    run = ReportRun(tmp_path_factory.mktemp("served") / "run")
    large = {
        name: np.repeat(np.repeat(value, 12, axis=0), 12, axis=1)
        for name, value in triplet(0).items()
        if isinstance(value, np.ndarray)
    }
    run.flow("cars", [triplet(0), triplet(1) | large], TRIPLETS)
    return ServedReport(run.store)


@pytest.fixture
def client(report: ServedReport) -> Iterator[TestClient]:
    with TestClient(create_report_app(report, ("localhost",)), base_url="http://localhost") as client:
        yield client


def sign_in(client: TestClient, token: str) -> int:
    return client.post("/session", json={"token": token}, headers=ORIGIN).status_code


def test_who_has_the_token_sees_every_picture(report: ServedReport, client: TestClient) -> None:
    """The page brings its own policy and no pictures; a row's pictures come in the page's size and at full size."""
    assert sign_in(client, report.token) == 204
    page = client.get("/")
    assert page.status_code == 200
    assert "connect-src 'self'" in page.headers["content-security-policy"]
    assert "script-src 'sha256-" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["cache-control"] == "no-store"
    sizes = []
    for size in ("small", "full"):
        panel = client.get(f"{ROW}/{size}").json()["panels"][0]
        data = base64.b64decode(panel["src"].partition(",")[2])
        sizes.append(Image.open(io.BytesIO(data)).size)
    assert sizes == [(480, 320), (1080, 720)]
    for missing in ("/pictures/flow-0/2/small", "/pictures/flow-9/0/small", f"{ROW}/huge", "/pictures/flow-0/-1/small"):
        assert client.get(missing).status_code == 404
    assert client.get("/pictures/flow-0/x/small").status_code == 422
    assert client.get("/pictures/..%2f..%2fplan.json/0/small").status_code in (404, 422)


def test_without_the_token_there_is_nothing(report: ServedReport, client: TestClient) -> None:
    """Neither page nor picture is shown without a session; wrong tokens, foreign hosts and foreign pages get none."""
    sign_in_page = client.get("/")
    assert sign_in_page.status_code == 200, "a browser would log the page on which a session begins as a failed request"
    assert "cars" not in sign_in_page.text
    for page in (sign_in_page.headers["content-security-policy"], report.page):
        assert "'none'" not in re.search(r"img-src ([^;]*);", page)[1], "beside a source, it is an error"
    assert all('<link rel="icon" href="data:,">' in text for text in (sign_in_page.text, report.page)), "no favicon.ico"
    assert client.get(f"{ROW}/small").status_code == 401
    assert client.get(f"{ROW}/small", headers={"cookie": f"{report.cookie}=ääää".encode()}).status_code == 401
    assert client.get("/openapi.json").status_code == 404
    assert client.get("/", headers={"host": "evil.example"}).status_code == 421
    for headers in ({}, {"origin": "http://evil.example"}, {"origin": "null"}):
        assert client.post("/session", json={"token": report.token}, headers=headers).status_code == 403
    assert client.post("/session", json={"token": "x" * 300}, headers=ORIGIN).status_code == 422
    assert report.cookie not in client.cookies
    outcomes = [sign_in(client, f"wrong {number}") for number in range(12)]
    assert outcomes == [401] * 10 + [429] * 2
    assert sign_in(client, report.token) == 429
    report.limit = FailureLimit()
    answer = client.post("/session", json={"token": report.token}, headers=ORIGIN)
    assert {"httponly", "samesite=strict"} <= set(answer.headers["set-cookie"].lower().split("; "))


def test_a_row_that_is_gone_is_said_to_be(report: ServedReport, client: TestClient, tmp_path: Path) -> None:
    """A shard that has vanished since the server started makes a sentence and no error."""
    assert sign_in(client, report.token) == 204
    shard = (report.run.local or Path()) / "tables/cars/shards/cars0.parquet"
    shard.rename(tmp_path / "away")
    try:
        answer = client.get(f"{ROW}/small")
        assert answer.status_code == 200
        assert answer.json()["panels"] == []
        assert answer.json()["fault"]
    finally:
        (tmp_path / "away").rename(shard)
