"""The page in a real browser: by keyboard, by mouse, by finger, with the server gone, and with hostile words."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from sqlalchemy import select
from support.annotator.browser import (
    fetch_item,
    open_page,
    press,
    read_canvas,
    wait_for_answers,
    wait_for_item,
    wait_for_paint,
    wait_for_votes,
)
from support.annotator.page import TWO, list_votes, page, served  # noqa: F401
from support.annotator.runs import CANDIDATES, CAPTURED, Run, make_run, row
from support.annotator.server import OPEN, Served, serving

from rasura.annotator.exchange.votes_file import export_votes, read_votes
from rasura.annotator.stats.accounting import find_faults, read_accounting
from rasura.annotator.store import vote_log as votes
from rasura.annotator.store.database import items, log
from rasura.manifests.storage import Store

pytestmark = pytest.mark.browser


def test_thirty_items_by_keyboard(served: Served, page: Page, tmp_path: Path) -> None:
    """A reviewer judges thirty items without a mouse, with reasons, a skip and an undo; each key has its effect on the
    screen; what was said comes out of the export, and every candidate is accounted for."""
    told = []
    for number in range(30):
        if number % 5 == 4:
            page.keyboard.press("n")
            page.wait_for_selector("#reasons:not([hidden])")
            page.keyboard.press(str(number % 6 + 1))
            told.append("no")
        else:
            page.keyboard.press("u" if number % 7 == 6 else "y")
            told.append("unsure" if number % 7 == 6 else "yes")
        wait_for_answers(page, "/api/pictures/", 3 * (number + 2))
        wait_for_paint(page)
    wait_for_votes(page)
    assert page.evaluate("performance.getEntriesByName('judge').length") == 30  # how long: benchmarks review_pages
    assert [verdict for _, verdict, _ in list_votes(served)] == told
    page.keyboard.press("z")
    wait_for_votes(page)
    wait_for_paint(page)  # a key before that is not taken
    page.keyboard.press("s")
    wait_for_votes(page)
    assert [action for action, *_ in list_votes(served)[-2:]] == ["undo", "skip"]
    with served.database.read() as connection:
        export_votes(connection, Store(tmp_path / "out"))
        counted = read_accounting(connection)
        assert find_faults(connection) == []
    out = read_votes(tmp_path / "out" / "votes.parquet")
    assert [entry["verdict"] for entry in out if entry["action"] == "vote"] == told
    assert {entry["reason"] for entry in out if entry["verdict"] == "no"} <= {
        "seam",
        "shadow",
        "outside",
        "other",
        "object",
        "hallucinated",
    }
    spent = [entry["seconds"] for entry in out if entry["action"] == "vote"]
    assert len(spent) == 30
    assert all(0 <= seconds < 300 for seconds in spent)
    assert (counted.candidates, counted.voted) == (40, 29)
    assert counted.balances


def test_resumes_after_a_reload(served: Served, page: Page) -> None:
    """After a reload the same item is shown, the list holds what was said, the view is as it was left."""
    press(page, *"yyu", "v")
    wait_for_votes(page)
    shown, drawn = fetch_item(page), read_canvas(page)
    page.reload()
    wait_for_item(page)
    page.wait_for_selector("#list li:nth-child(3)")
    assert fetch_item(page) == shown
    assert (read_canvas(page) == drawn).all()
    assert page.locator("[data-mode=slider]").get_attribute("aria-pressed") == "true"
    assert [page.locator(f"#list li:nth-child({n}) button").get_attribute("class") for n in (1, 2, 3)] == [
        "unsure",
        "yes",
        "yes",
    ]


def test_the_list_is_editable(served: Served, page: Page) -> None:
    """An item of the last twenty opens with what was said of it; another verdict replaces it; escape leaves it."""
    press(page, *"yy")
    wait_for_votes(page)
    page.locator("#list li:nth-child(2) button").click()
    assert "You said yes" in page.locator("#editing").inner_text()
    wait_for_paint(page)
    page.keyboard.press("n")
    page.keyboard.press("4")
    wait_for_votes(page)
    assert list_votes(served)[-1] == ("edit", "no", "shadow")
    assert page.locator("#list li").count() == 2
    page.locator("#list li:nth-child(2) button").click()
    assert "shadow or reflection left" in page.locator("#editing").inner_text()
    page.keyboard.press("Escape")
    page.wait_for_selector("#editing", state="hidden")
    wait_for_paint(page)
    page.keyboard.press("y")
    wait_for_votes(page)
    assert [action for action, *_ in list_votes(served)] == ["vote", "vote", "edit", "vote"]
    with served.database.read() as connection:
        assert find_faults(connection) == []


def test_two_reviewers_never_get_the_same(browser: Browser, tmp_path: Path) -> None:
    """Two who work at once, on items that need one vote, are never shown the same item; together they judge all."""
    run = make_run(tmp_path / "run", 24, side=64)
    with ExitStack() as stack:
        served = stack.enter_context(serving(run.store, tmp_path / "r.sqlite"))
        both = [open_page(browser, served, served.token(name)) for name in ("Ann", "Bob")]
        for _ in range(24):
            for page in both:
                if page.locator("#nothing").is_hidden():
                    press(page, "y")
        for page in both:
            wait_for_votes(page)
            assert page.faults == []  # type: ignore[attr-defined]
        with served.database.read() as connection:
            entries = votes.read_entries(connection)
            assert len(entries) == len({entry.item for entry in entries}) == 24
            assert len({entry.reviewer for entry in entries}) == 2
        for page in both:
            page.wait_for_selector("#nothing:not([hidden])")
            page.context.close()


def swipe(page: Page, dx: float, dy: float) -> None:
    """A finger across the picture."""
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)
    session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for step in range(1, 6):
        point = {"x": x + dx * step / 5, "y": y + dy * step / 5}
        session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_by_finger_on_a_phone(browser: Browser, served: Served) -> None:
    """On 390 px: right is yes, up is unsure, left asks for the reason; a short one is nothing; a resting finger shows
    before; the page does not scroll sideways."""
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    page = open_page(browser, served, served.token("Ann"), **phone)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    swipe(page, 30, 0)
    for dx, dy in ((150, 5), (10, -250)):
        swipe(page, dx, dy)
        wait_for_paint(page)
        wait_for_item(page)
    swipe(page, -150, 0)
    page.locator("#reason-keys button", has_text="blur or seam").tap()
    wait_for_paint(page)
    wait_for_votes(page)
    assert list_votes(served) == [("vote", "yes", None), ("vote", "unsure", None), ("vote", "no", "seam")]
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    session = page.context.new_cdp_session(page)
    point = {"x": box["x"] + 50, "y": box["y"] + box["height"] - 60}
    session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
    page.wait_for_selector("#tag-two.now")
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_selector("#tag-two:not(.now)")
    assert len(list_votes(served)) == 3
    assert page.faults == []  # type: ignore[attr-defined]
    page.context.close()


def test_votes_outlast_a_server_that_is_gone(browser: Browser, tmp_path: Path) -> None:
    """While the server does not answer one goes on judging what is loaded, and is told; after a reload without it and
    its return, every verdict is noted once, in order."""
    run = make_run(tmp_path / "run", 20, side=64)
    with serving(run.store, tmp_path / "r.sqlite") as served:
        page = open_page(browser, served, served.token("Ann"))
        press(page, "y")
        wait_for_votes(page)
        wait_for_answers(page, "/api/pictures/", 3 * 7)  # the judged item, and the six that are open then
        page.route("**/api/**", lambda route: route.abort())
        press(page, *"yuy")
        page.wait_for_selector("#saving:not([hidden])")
        assert "3 verdicts wait to be sent" in page.locator("#saving").inner_text()
        assert len(list_votes(served)) == 1
        page.reload()
        page.unroute("**/api/**")
        page.reload()
        wait_for_item(page)
        wait_for_votes(page)
        page.wait_for_selector("#saving", state="hidden")
        assert [verdict for _, verdict, _ in list_votes(served)] == ["yes", "yes", "unsure", "yes"]
        with served.database.read() as connection:
            assert find_faults(connection) == []
        page.context.close()


def test_hostile_words_are_shown_as_words(browser: Browser, tmp_path: Path) -> None:
    """Labels, flow names, remarks and reviewers' names full of markup are shown as they are and run nothing, on both
    pages."""
    nasty = '"><img src=x onerror="document.title=666"><script>document.title=666</script>${1}'
    run = Run(tmp_path / "run")
    run.flow(
        "candidates", [row(n, "edited", label=nasty, remover=nasty, id=f"{nasty}{n}") for n in range(6)], CANDIDATES
    )
    run.flow("captured", [row(n, "captured", label=nasty) for n in range(4)], CAPTURED)
    with serving(run.store, tmp_path / "r.sqlite", TWO) as served:
        for name, keys in ((f"{nasty[:50]}a", "yyn2"), (f"{nasty[:50]}b", "nny")):
            page = open_page(browser, served, served.token(name, admin=True))
            assert nasty in page.locator("#what").inner_text()
            page.keyboard.press("f")
            page.locator("#remark").fill(nasty)
            page.locator("#flag-form button.primary").click()
            page.wait_for_selector("#flag", state="hidden")
            wait_for_votes(page)
            press(page, *keys)
            wait_for_votes(page)
            assert "flag" in {action for action, *_ in list_votes(served)}
            page.goto(f"{served.url}/admin")
            page.wait_for_selector("#flagged .votes q")
            assert page.locator("#flagged .votes q").first.inner_text().strip('“”"') == nasty.strip('"')
            assert page.locator("img[src=x], main script").count() == 0
            assert page.title() == "Agreement · Rasura"
            assert page.faults == []  # type: ignore[attr-defined]
            page.context.close()


def test_keys_can_be_changed(page: Page, served: Served) -> None:
    """A key is changed in the table, kept over a reload, shown on the buttons, and swapped where it was taken; what
    means one thing everywhere cannot be taken; all can be put back."""
    page.keyboard.press("k")
    page.locator("#key-table .key").nth(0).click()
    page.keyboard.press("n")
    page.locator("#key-table .key").nth(2).click()
    page.keyboard.press("Enter")
    assert "cannot be changed" in page.locator("#key-problem").inner_text()
    page.keyboard.press("Escape")
    page.reload()
    wait_for_item(page)
    assert page.locator("#judge [data-key=yes]").inner_text() == "n"
    assert page.locator("#judge [data-key=no]").inner_text() == "y"
    page.keyboard.press("n")
    wait_for_votes(page)
    page.wait_for_selector("#list li")
    wait_for_votes(page)
    assert list_votes(served) == [("vote", "yes", None)]
    page.keyboard.press("k")
    page.locator("#reset-keys").click()
    assert page.locator("#key-table .key").nth(0).inner_text() == "y"


def test_a_picture_that_cannot_be_read_can_be_skipped(browser: Browser, tmp_path: Path) -> None:
    """An item whose shard is gone says so and is skipped with the same key as any other."""
    run = make_run(tmp_path / "run", 3, side=64)
    with serving(run.store, tmp_path / "r.sqlite") as served:
        (shard,) = (tmp_path / "run/tables/candidates/shards").iterdir()
        whole = shard.read_bytes()
        shard.write_bytes(whole[:200])
        page = browser.new_page()
        page.goto(f"{served.url}/#token={served.token('Ann')}")
        page.wait_for_selector("#nothing:not([hidden])")
        assert "cannot be shown" in page.locator("#nothing").inner_text()
        shard.write_bytes(whole)
        page.keyboard.press("s")
        wait_for_votes(page)
        assert list_votes(served) == [("skip", None, None)]
        page.context.close()


def test_nothing_of_the_score_is_sent_before_the_vote(browser: Browser, tmp_path: Path) -> None:
    """Before the vote nothing that the page receives tells the score, the remover, others' votes, or that an answer is
    known; what it is told after the vote is in the list."""
    with serving(make_run(tmp_path / "run", 6, truth=6).store, tmp_path / "r.sqlite", TWO) as served:
        page = browser.new_context().new_page()
        received: list[str] = []
        page.on(
            "response",
            lambda answer: received.append(answer.text()) if "json" in answer.headers.get("content-type", "") else None,
        )
        page.goto(f"{served.url}/#token={served.token('Ann')}")
        wait_for_item(page)
        page.wait_for_timeout(300)
        before = "".join(received)
        for word in ("score", "remover", "telea", "expected", "honeypot", "captured"):
            assert word not in before
        page.keyboard.press("y")
        wait_for_votes(page)
        page.wait_for_function("() => document.querySelector('#list button')?.title.includes('score')")
        with served.database.read() as connection:
            first = connection.execute(select(log.c.item)).scalar()
            score = connection.execute(select(items.c.score).where(items.c.id == first)).scalar_one()
        assert f"score {score:.2f}" in (page.locator("#list button").get_attribute("title") or "")
        page.context.close()
    assert OPEN.honeypots == 0
