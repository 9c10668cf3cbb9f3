"""Keys of every layout, and windows of every size: the page in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from support.annotator.browser import open_page, press, wait_for_item, wait_for_paint, wait_for_votes
from support.annotator.page import list_votes
from support.annotator.runs import make_run
from support.annotator.server import Served, serving

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("keys")
    with serving(make_run(folder / "run", 90, side=64).store, folder / "r.sqlite") as started:
        yield started


def type_key(page: Page, key: str, code: str, **more: object) -> None:
    """A key as a layout types it: what it means and where it is."""
    page.evaluate(
        "(event) => document.body.dispatchEvent(new KeyboardEvent('keydown', {...event, bubbles: true}))",
        {"key": key, "code": code, **more},
    )
    wait_for_paint(page)


def test_keys_of_other_layouts(browser: Browser, served: Served) -> None:
    """Cyrillic and Greek letters count by their place, the digits of a French keyboard without shift, Latin letters by
    what they type wherever they are; what an input method or AltGr takes gives a hint and no verdict."""
    page = open_page(browser, served, served.token("Ann"))
    type_key(page, "н", "KeyY")  # Russian
    type_key(page, "θ", "KeyU")  # Greek
    type_key(page, "т", "KeyN")
    type_key(page, "&", "Digit1")  # French
    type_key(page, "y", "KeyZ")  # German
    type_key(page, "Dead", "KeyS")
    wait_for_votes(page)
    given = [("vote", "yes", None), ("vote", "unsure", None), ("vote", "no", "object"), ("vote", "yes", None)]
    assert list_votes(served) == [*given, ("skip", None, None)]
    for key, more, hint in (("Process", {}, "input method"), ("@", {"modifierAltGraph": True}, "AltGr")):
        type_key(page, key, "KeyY", **more)
        assert hint in page.locator("#message").inner_text()
    page.keyboard.press("f")
    page.locator("#remark").fill("half of it")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#flag", state="hidden")
    wait_for_votes(page)
    assert [action for action, *_ in list_votes(served)][5:] == ["flag"]
    page.context.close()


def test_reasons_have_keys_that_can_be_changed(browser: Browser, served: Served) -> None:
    """The key of a reason is changed in the table, shown on its button, and gives that reason."""
    page = open_page(browser, served, served.token("Bea"))
    page.keyboard.press("k")
    page.get_by_role("button", name="Reason 1 of a no").click()
    page.keyboard.press("q")
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    assert page.locator("#reason-keys button").first.locator("kbd").inner_text() == "q"
    before = len(list_votes(served))
    press(page, "q")
    wait_for_votes(page)
    assert list_votes(served)[before:] == [("vote", "no", "object")]
    page.context.close()


SIZES = {"200 %": (683, 384), "400 %": (342, 192), "phone sideways": (844, 390), "small phone sideways": (667, 375)}


def test_the_picture_has_half_of_a_low_window(browser: Browser, served: Served) -> None:
    """At 200 % and 400 % and on a phone that is held sideways, the pictures have at least half of the height, also
    while a reason is chosen; every button can be reached, and nothing is scrolled sideways."""
    page = open_page(browser, served, served.token("Cy"))
    for name, (width, height) in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        wait_for_item(page)
        wait_for_paint(page)
        for key in ("Escape", "n"):
            page.keyboard.press(key)
            wait_for_paint(page)
            box = page.locator("#canvas").bounding_box()
            assert box is not None
            shown = min(height, box["y"] + box["height"]) - max(0, box["y"])
            assert shown >= height / 2 - 8, (name, key, box)
            assert box["width"] >= width / 2, (name, key, box)
        page.locator("#reason-keys button").last.scroll_into_view_if_needed()
        page.keyboard.press("Escape")
        for button in ("#judge .no", "#judge .yes", "#more button:last-child", "#signout"):
            page.locator(button).scroll_into_view_if_needed()
            assert page.locator(button).is_visible(), (name, button)
        page.evaluate("scrollTo(0, 0)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.context.close()


def test_tags_of_a_narrow_picture_do_not_cover_each_other(browser: Browser, tmp_path: Path) -> None:
    """On the slider view of a picture that is narrower than two tags, one is below the other."""
    with serving(make_run(tmp_path / "run", 3, side=16).store, tmp_path / "r.sqlite") as served:
        page = open_page(browser, served, served.token("Ann"), viewport={"width": 1280, "height": 540})
        page.locator("[data-mode=slider]").click()
        page.set_viewport_size({"width": 130, "height": 700})
        wait_for_paint(page)
        one, two = (page.locator(f"#tag-{name}").bounding_box() for name in ("one", "two"))
        assert one
        assert two
        assert one["x"] + one["width"] <= two["x"] or one["y"] + one["height"] <= two["y"]
        page.context.close()
