"""No verdict that the page has shown as given is lost: two tabs, a server that is away or killed, another run at the
address, a full disk, a reload, a reviewer who was removed, a clock that jumps. In a real browser."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import ROOT, environment
from playwright.sync_api import Browser, BrowserContext, Page
from sqlalchemy import update
from support.annotator.browser import (
    open_page,
    press,
    read_outbox,
    wait_for_answers,
    wait_for_item,
    wait_for_votes,
    watch,
)
from support.annotator.page import TWO, list_votes
from support.annotator.runs import Run, make_run
from support.annotator.server import Served, lease_item, nonce, serving
from support.ports import find_free_ports

from rasura.annotator.exchange.votes_file import append_votes, read_votes
from rasura.annotator.stats.accounting import find_faults
from rasura.annotator.store import reviewers, vote_log
from rasura.annotator.store.database import Database, leases

pytestmark = pytest.mark.browser

JUMPING_CLOCK = """(() => { const now = Date.now; let calls = 0;
    Date.now = () => now() + [0, -9e9, 4e9, -4e12][calls++ % 4]; })()"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("outbox") / "run", 20, side=64)


@pytest.fixture
def served(run: Run, tmp_path: Path) -> Iterator[Served]:
    with serving(run.store, tmp_path / "r.sqlite") as started:
        yield started


def go_away(context: BrowserContext) -> None:
    """Let no request to the API reach the server."""
    context.route("**/api/**", lambda route: route.abort())


def come_back(context: BrowserContext) -> None:
    context.unroute("**/api/**")
    for page in context.pages:
        page.evaluate("dispatchEvent(new Event('online'))")


def wait_for_text(page: Page, selector: str, text: str) -> str:
    """Wait until an element that is shown has a text, and return all of it."""
    page.wait_for_function(
        "([selector, text]) => { const node = document.querySelector(selector); "
        "return node?.checkVisibility() && node.innerText.includes(text); }",
        arg=[selector, text],
    )
    return page.locator(selector).inner_text()


def check_log(served: Served, count: int) -> None:
    """The log has so many votes, each once, and the queue follows from it."""
    with served.database.read() as connection:
        entries = vote_log.read_entries(connection)
        assert find_faults(connection) == []
    assert [entry.action for entry in entries] == ["vote"] * count
    assert len({entry.item for entry in entries}) == count


def test_two_tabs_and_a_server_that_is_away(browser: Browser, served: Served) -> None:
    """Two tabs of one reviewer judge while the server is away, one is closed, one reloaded, the clock jumps: all
    verdicts are stored once, in the order in which they were given; one tab sends each, and the other sees of it."""
    page = open_page(browser, served, served.token("Ann"))
    context = page.context
    context.add_init_script(JUMPING_CLOCK)
    other = watch(context.new_page())
    other.goto(served.url)
    wait_for_item(other)
    for tab in (page, other):
        wait_for_answers(tab, "/api/pictures/", 3 * 6)
    go_away(context)
    press(page, *"yu")
    press(other, *"ny"[1:])
    press(page, "y")
    wait_for_text(page, "#saving", "4 verdicts wait to be sent")
    given = read_outbox(page)
    assert [entry["body"]["verdict"] for entry in given] == ["yes", "unsure", "yes", "yes"]
    assert len({entry["body"]["item"] for entry in given}) == 4  # what one tab judged the other no longer shows
    posts: list[str] = []
    context.on("request", lambda request: posts.append(request.url) if request.url.endswith("/api/votes") else None)
    come_back(context)
    wait_for_votes(page)
    page.wait_for_selector("#saving", state="hidden")
    check_log(served, 4)
    assert [verdict for _, verdict, _ in list_votes(served)] == ["yes", "unsure", "yes", "yes"]
    assert len(posts) == 4
    go_away(context)
    press(other, "y")
    other.close()  # the tab that gave it is gone
    come_back(context)
    page.reload()
    wait_for_item(page)
    wait_for_votes(page)
    check_log(served, 5)
    context.close()


def test_another_run_at_the_address_gets_nothing(browser: Browser, run: Run, tmp_path: Path) -> None:
    """What was said of one run is not sent to another that is served at the same address, where the same reviewer is
    signed in; it is sent when the first one is back."""
    other = make_run(tmp_path / "other", 20, side=64)
    with serving(run.store, tmp_path / "a.sqlite") as first:
        page = open_page(browser, first, first.token("Ann"))
        wait_for_answers(page, "/api/pictures/", 3 * 6)
        go_away(page.context)
        press(page, *"yy")
    port = int(first.url.rpartition(":")[2])
    with serving(other.store, tmp_path / "b.sqlite", port=port) as second:
        come_back(page.context)
        wait_for_text(page, "#saving", "2 verdicts wait to be sent: another review is served at this address")
        page.goto(f"{second.url}/#token={second.token('Ann')}")
        page.reload()
        wait_for_item(page)
        wait_for_text(page, "#saving", "2 verdicts of Ann, run wait until that review is back")
        press(page, "y")
        wait_for_votes(page, left=2)
        assert [entry["run"] for entry in read_outbox(page)] == ["run", "run"]
        check_log(second, 1)
    with serving(run.store, tmp_path / "a.sqlite", port=port) as first:
        page.reload()
        wait_for_item(page)
        wait_for_votes(page)
        check_log(first, 2)
    page.context.close()


def test_a_full_disk(browser: Browser, served: Served) -> None:
    """Where the browser can store nothing, a verdict is on the server before the next item is shown; where there is no
    server either, it is not given: the page says so and shows the same item."""
    page = browser.new_context().new_page()
    page.set_default_timeout(20_000)
    session = page.context.new_cdp_session(page)
    session.send("Storage.overrideQuotaForOrigin", {"origin": served.url, "quotaSize": 1})
    page.goto(f"{served.url}/#token={served.token('Ann')}")
    wait_for_item(page)
    press(page, "y")
    wait_for_text(page, "#saving", "this browser stores nothing")
    check_log(served, 1)
    assert read_outbox(page) == []
    go_away(page.context)
    page.keyboard.press("u")
    wait_for_text(page, "#message", "Not given")
    assert page.locator("#list li").count() == 1
    come_back(page.context)
    press(page, "u")
    page.wait_for_selector("#list li:nth-child(2)")
    check_log(served, 2)
    session.send("Storage.overrideQuotaForOrigin", {"origin": served.url})
    press(page, "y")
    wait_for_votes(page)
    check_log(served, 3)
    page.context.close()


def test_what_is_refused_stays_until_it_is_dismissed(browser: Browser, served: Served) -> None:
    """A verdict that the server refuses, since others judged the item after the lease had expired, stays in sight, also
    over a reload, until somebody dismisses it."""
    page = open_page(browser, served, served.token("Ann"))
    wait_for_answers(page, "/api/pictures/", 3 * 6)
    go_away(page.context)
    press(page, "y")
    item = read_outbox(page)[0]["body"]["item"]
    served.database.write(lambda connection: connection.execute(update(leases).values(expires=0.0)))
    with served.client("Bob") as bob:
        while (dealt := lease_item(bob)) != item:
            bob.post("/api/votes", json={"item": dealt, "nonce": nonce(), "verdict": "skip"})
        assert bob.post("/api/votes", json={"item": item, "nonce": nonce(), "verdict": "no"}).status_code == 200
    come_back(page.context)
    wait_for_text(page, "#refused", "this item has all the votes it needs")
    page.reload()
    wait_for_text(page, "#refused", "Not stored")
    assert [entry["problem"] is None for entry in read_outbox(page)] == [False]
    page.locator("#refused button").click()
    page.wait_for_selector("#refused", state="hidden")
    assert read_outbox(page) == []
    page.context.close()


def test_a_reviewer_who_was_removed(browser: Browser, run: Run, tmp_path: Path) -> None:
    """Verdicts of a reviewer who was removed meanwhile wait in the browser, the page says so beside the sign-in; what
    another reviewer says in the same browser goes to that one alone; both are sent under their own names."""
    with serving(run.store, tmp_path / "r.sqlite", TWO) as served:
        page = open_page(browser, served, served.token("Ann"))
        wait_for_answers(page, "/api/pictures/", 3 * 6)
        go_away(page.context)
        press(page, *"uu")
        served.database.write(lambda connection: reviewers.remove_reviewer(connection, "Ann"))
        come_back(page.context)
        waiting = "2 verdicts of Ann in the review of run wait in this browser"
        wait_for_text(page, "#signin", waiting)
        page.reload()  # nobody is signed in now
        wait_for_text(page, "#signin", waiting)
        with page.expect_download() as download:
            page.locator("#kept button").click()
        rows = read_votes(Path(shutil.copy(download.value.path(), tmp_path / "votes.jsonl")))
        assert [(row["reviewer"], row["verdict"]) for row in rows] == [("Ann", "unsure"), ("Ann", "unsure")]
        page.goto(f"{served.url}/#token={served.token('Bob')}")
        page.reload()
        wait_for_item(page)
        press(page, "y")
        page.wait_for_selector("#list li")
        wait_for_votes(page, left=2)
        assert [entry["name"] for entry in read_outbox(page)] == ["Ann", "Ann"]
        page.goto(f"{served.url}/#token={served.token('Ann')}")
        page.reload()
        wait_for_item(page)
        wait_for_votes(page)
        with served.database.read() as connection:
            names = reviewers.list_names(connection)
            said = [(names[entry.reviewer], entry.verdict) for entry in vote_log.read_entries(connection)]
        assert sorted(said) == [("Ann", "unsure"), ("Ann", "unsure"), ("Bob", "yes")]
        assert append_votes(served.database, TWO, rows).duplicates == 2  # the file says nothing else
        page.context.close()


def start_server(run: Run, database: Path, port: int) -> subprocess.Popen[bytes]:
    """Start `rasura review` in a process of its own, and wait until it answers."""
    command = [
        sys.executable,
        "-m",
        "rasura",
        "review",
        run.store.uri,
        "--port",
        str(port),
        "--database",
        str(database),
    ]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, env=environment(), cwd=ROOT)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            httpx.get(f"http://127.0.0.1:{port}/page/icon.svg", timeout=5)
            return process
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the server did not come up")


def test_a_server_that_is_killed(browser: Browser, run: Run, tmp_path: Path) -> None:
    """The server is killed while two tabs judge, and started again: every verdict that was shown is stored once."""
    (port,) = find_free_ports(1)
    database = Database(tmp_path / "r.sqlite")
    token = database.write(lambda connection: reviewers.add_reviewer(connection, "Ann"))
    process = start_server(run, tmp_path / "r.sqlite", port)
    url = f"http://127.0.0.1:{port}"
    tabs: list[Page] = [watch(browser.new_context().new_page())]
    tabs[0].goto(f"{url}/#token={token}")
    wait_for_item(tabs[0])
    tabs.append(watch(tabs[0].context.new_page()))
    tabs[1].goto(url)
    for tab in tabs:
        wait_for_item(tab)
        wait_for_answers(tab, "/api/pictures/", 3 * 6)
    for number, key in enumerate("yuyu"):
        if number == 2:
            process.send_signal(signal.SIGKILL)
            process.wait()
        press(tabs[number % 2], key)
    process = start_server(run, tmp_path / "r.sqlite", port)
    try:
        for tab in tabs:
            wait_for_votes(tab)
        with database.read() as connection:
            entries: list[Any] = vote_log.read_entries(connection)
            assert find_faults(connection) == []
        counting = vote_log.fold_entries(entries)
        assert len(entries) == len({entry.nonce for entry in entries}) == 4
        assert len(counting) == len({entry.item for entry in entries})
    finally:
        process.kill()
        process.wait()
        tabs[0].context.close()
        database.close()
