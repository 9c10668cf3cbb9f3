"""Nobody judges what is not on the screen: verdicts, picks and corrections wait for the pictures, and say so."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from playwright.sync_api import Browser, Error, Page, Route, expect
from sqlalchemy import func, select
from support.annotator.browser import open_page, press, wait_for_item, wait_for_votes
from support.annotator.page import list_votes
from support.annotator.runs import CANDIDATES, Run, row
from support.annotator.server import Served, serving

from rasura.annotator.store import vote_log
from rasura.annotator.store.team.tables import rankings

pytestmark = pytest.mark.browser
PICTURES = "**/api/pictures/**"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A review of forty candidates of twenty scenes, two removers each."""
    folder = tmp_path_factory.mktemp("unseen")
    run = Run(folder / "run")
    scenes = [{"scene_id": f"scene {n // 2}", "remover": ("telea", "ns")[n % 2], "score": None} for n in range(40)]
    run.flow("candidates", [row(n, "edited", 48, **more) for n, more in enumerate(scenes)], CANDIDATES)
    with serving(run.store, folder / "r.sqlite") as started:
        yield started


@contextmanager
def held_back(page: Page) -> Iterator[list[Route]]:
    """Pictures are asked for, and no answer comes until the context ends."""
    routes: list[Route] = []
    page.route(PICTURES, lambda route: routes.append(route))
    yield routes
    page.unroute(PICTURES)
    for route in routes:
        with suppress(Error):  # some are handled when they are no longer held back
            route.continue_()


def test_no_verdict_without_a_picture(browser: Browser, served: Served) -> None:
    """While the pictures are on their way, keys and buttons give no verdict, none is kept for later, and the page says
    that it loads; then one key is one verdict, with its seconds. While the server is away, the page says so, and goes
    on by itself."""
    page = open_page(browser, served, served.token("Ann"))
    loading, message = page.locator("#loading"), page.locator("#message")
    with held_back(page):
        page.reload()
        expect(loading).to_have_text("Loading the pictures …")
        for key in ("y", "u", "n", "y"):
            page.keyboard.press(key)
        page.locator("#judge .yes").click()
        expect(message).to_have_text("Not taken: the pictures are not on the screen yet.")
        expect(page.locator("#reasons")).to_be_hidden()
        expect(page.locator("#list li")).to_have_count(0)
    wait_for_item(page)
    expect(loading).to_be_hidden()
    assert list_votes(served) == []
    page.keyboard.type("yyyyyy")  # faster than the next item is on the screen
    wait_for_item(page)
    wait_for_votes(page)
    with served.database.read() as connection:
        entries = vote_log.read_entries(connection)
    assert 1 <= len(entries) <= 6
    assert all(entry.seconds is not None for entry in entries)
    expect(page.locator("#list li")).to_have_count(len(entries))
    page.route(PICTURES, lambda route: route.abort())
    page.reload()
    expect(loading).to_have_text("Waiting for the server …")
    expect(page.locator("#nothing")).to_be_hidden()
    page.keyboard.press("y")
    page.unroute(PICTURES)
    wait_for_item(page)  # without a reload
    page.wait_for_function("() => document.querySelector('#list img').naturalWidth > 0", timeout=120_000)
    press(page, "y")
    wait_for_votes(page)
    assert len(list_votes(served)) == len(entries) + 1
    page.context.close()


def test_no_pick_without_a_picture(browser: Browser, served: Served) -> None:
    """A number picks nothing while a picture of the scene is missing; afterwards it does."""
    page = open_page(browser, served, served.token("Bob"))

    def count() -> int:
        with served.database.read() as connection:
            return int(connection.execute(select(func.count()).select_from(rankings)).scalar_one())

    with held_back(page):
        page.goto(f"{served.url}/rank")
        page.wait_for_selector("#grid li:nth-child(3)")
        expect(page.locator("#message")).to_have_text("Loading the pictures …")
        page.keyboard.press("1")
        expect(page.locator("#message")).to_have_text("Not taken: the pictures are not on the screen yet.")
    expect(page.locator("#message")).to_have_text("")
    assert count() == 0
    before = page.locator("#waiting").inner_text()
    page.keyboard.press("1")
    expect(page.locator("#waiting")).not_to_have_text(before)
    assert count() == 1
    page.context.close()


def test_no_correction_without_a_picture(browser: Browser, served: Served) -> None:
    """A stroke changes no mask that is not on the screen."""
    page = open_page(browser, served, served.token("Cy"))
    with held_back(page):
        page.keyboard.press("c")
        message = page.locator(".correct-message")
        expect(message).to_have_text("Loading the pictures …")
        page.locator("dialog.correct canvas").click()
        expect(page.locator("dialog.correct button.primary")).to_be_disabled()
    expect(message).to_have_text("")
    page.locator("dialog.correct canvas").click()
    expect(page.locator("dialog.correct button.primary")).to_be_enabled()
    page.context.close()
