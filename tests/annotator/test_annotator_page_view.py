"""What the page shows, in a real browser: pictures compared, zoomed and outlined; accessible to everybody."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from playwright.sync_api import Browser, Page
from support.annotator.browser import (
    NODE,
    find_accessibility_faults,
    open_page,
    press,
    read_canvas,
    wait_for_animations,
    wait_for_answers,
    wait_for_item,
    wait_for_paint,
    wait_for_votes,
)
from support.annotator.page import TWO, page, served  # noqa: F401
from support.annotator.runs import CANDIDATES, Run, make_run, row
from support.annotator.server import Served, serving

from rasura.annotator.store.policy import Policy

pytestmark = pytest.mark.browser


def test_blink_slider_and_side_by_side(page: Page) -> None:
    """Side by side shows before and after; holding space shows before in place of after, as long as it is held; the
    slider shows one left and the other right of a divider that arrows, the range and the mouse move."""
    page.keyboard.press("m")  # no outline, so that pixels are the pictures'
    drawn = read_canvas(page)
    middle = drawn.shape[1] // 2
    left, right = drawn[:, : middle - 5], drawn[:, -(middle - 5) :]
    differ = (left != right).any(axis=2)
    assert 0.02 < differ.mean() < 0.5
    page.keyboard.down(" ")
    held = read_canvas(page)
    both = held[:, : middle - 5].astype(int) - held[:, -(middle - 5) :]
    assert np.abs(both).max() <= 2  # scaled at two places of the screen
    assert page.locator("#tag-two").inner_text() == "before"
    page.keyboard.up(" ")
    assert (read_canvas(page) == drawn).all()
    page.keyboard.press("v")
    page.keyboard.press("v")
    after = read_canvas(page)
    page.keyboard.down(" ")
    before = read_canvas(page)
    page.keyboard.up(" ")
    assert (before != after).any()
    page.keyboard.press("v")
    page.keyboard.press("v")
    box = page.locator("#canvas").bounding_box()
    assert box is not None

    def divider() -> float:
        now = read_canvas(page)
        shows_before = (now == before).all(axis=(0, 2))
        changed = (before != after).any(axis=(0, 2))
        return float((shows_before & changed).sum() / changed.sum())

    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60)
    shares = [divider()]
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    shares.append(divider())
    page.mouse.down()
    page.mouse.move(box["x"] + 0.95 * box["width"], box["y"] + 90)
    page.mouse.up()
    shares.append(divider())
    page.locator("#divider").fill("5")
    shares.append(divider())
    assert shares[3] < shares[0] < shares[1] <= shares[2]
    assert shares[3] < 0.1
    assert shares[2] > 0.9


def test_zoom_and_place_are_locked_and_stay(page: Page) -> None:
    """Wheel, drag and keys move both panes together: outside the hole they show the same; the next item is shown at the
    same zoom and place; one key goes back to all of it."""
    page.keyboard.press("m")
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.42 * box["width"], box["y"] + 0.7 * box["height"])
    for _ in range(6):
        page.mouse.wheel(0, -200)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.65 * box["height"], steps=4)
    page.mouse.up()
    zoom = page.locator("#zoom").inner_text()
    assert zoom.endswith("%")
    assert int(zoom.split()[0]) > 300

    def locked() -> float:
        drawn = read_canvas(page)
        middle = drawn.shape[1] // 2
        return float((drawn[:, : middle - 5] == drawn[:, -(middle - 5) :]).all(axis=2).mean())

    assert locked() > 0.5
    press(page, "y")
    wait_for_item(page)
    assert page.locator("#zoom").inner_text() == zoom
    assert locked() > 0.5
    page.keyboard.press("x")
    assert page.locator("#zoom").inner_text() == "fit"


def test_differences_outside_the_mask(browser: Browser, tmp_path: Path) -> None:
    """The heat map tells a result that touched nothing outside its hole from one that did, and by how much."""
    clean, leaky = row(0, "edited", 128, score=0.9), row(1, "edited", 128, score=0.8)
    leaky["target"] = leaky["target"].copy()
    leaky["target"][:6, :20] = np.clip(leaky["target"][:6, :20].astype(int) + 40, 0, 255)
    run = Run(tmp_path / "run")
    run.flow("candidates", [clean, leaky], CANDIDATES)
    with serving(run.store, tmp_path / "r.sqlite", Policy(honeypots=0, votes=1, near_votes=1)) as served:
        page = open_page(browser, served, served.token("Ann"))
        page.keyboard.press("d")
        page.wait_for_selector("#heat-note:not([hidden])")  # computed by a worker
        assert page.locator("#heat-note").inner_text() == "nothing changed outside the mask"
        page.keyboard.press("y")
        page.wait_for_function("() => document.getElementById('heat-note').textContent.includes('%')")
        note = page.locator("#heat-note").inner_text()
        size = leaky["mask"].size
        share = 100 * 120 / (size - leaky["mask"].sum())
        assert "by 40 of 255" in note
        assert abs(float(note.split(" ")[0]) - share) < 0.15
        page.context.close()


SHAPES = """async () => {
  const {traceOutline, dilate, computeHeat} = await import('/page/shapes.js');
  const mask = new Uint8Array(7 * 5); for (const i of [9, 10, 16, 17, 31]) mask[i] = 1;
  const lines = traceOutline(mask, 7, 5);
  let length = 0; for (let i = 0; i < lines.length; i += 4)
    length += Math.abs(lines[i] - lines[i + 2]) + Math.abs(lines[i + 1] - lines[i + 3]);
  const one = new Uint8ClampedArray(7 * 5 * 4), other = one.slice(); other[0] = 9; other[4 * 9] = 200;
  return {lines: lines.length / 4, length, dilated: Array.from(dilate(mask, 7, 5, 1)),
          same: dilate(mask, 7, 5, 0) === mask,
          heat: (({changed, outside, largest}) => [changed, outside, largest])(computeHeat(one, other, mask)),
          full: Array.from(dilate(mask, 7, 5, 9))};
}"""


def test_shapes(page: Page) -> None:
    """The outline's length is the mask's circumference, in as few lines as it has sides; a mask grows to all sides as a
    square and stops at the border; the heat map counts what is outside the mask only."""
    told = page.evaluate(SHAPES)
    assert told["lines"] == 8
    assert told["length"] == 12
    mask = np.zeros((5, 7), bool)
    mask.ravel()[[9, 10, 16, 17, 31]] = True
    wide = np.zeros((5, 7), bool)
    for y, x in np.argwhere(mask):
        wide[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = True
    assert (np.array(told["dilated"]).reshape(5, 7) == wide).all()
    assert told["same"]
    assert all(told["full"])
    assert told["heat"] == [1, 30, 9]


def test_large_pictures_come_as_stored_on_demand(browser: Browser, tmp_path: Path) -> None:
    """A picture larger than the screen is shown smaller and loaded as it is stored when somebody looks closely."""
    with serving(make_run(tmp_path / "run", 2, side=1200).store, tmp_path / "r.sqlite") as served:
        page = open_page(browser, served, served.token("Ann"))
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.wait_for_timeout(500)
        assert not [url for url in asked if "size=native" in url]
        page.keyboard.press("x")
        wait_for_answers(page, "size=native", 3)
        assert sum("size=native" in url for url in asked) == 3
        assert page.locator("#zoom").inner_text() == "100 %"
        page.context.close()


def test_feedback_and_guidelines(browser: Browser, tmp_path: Path) -> None:
    """With feedback, a wrong verdict on a known answer is told in the next moment; the guidelines show one example of
    each mistake."""
    policy = Policy(votes=1, near_votes=1, honeypots=0.5, feedback=True)
    with serving(make_run(tmp_path / "run", 12, truth=12).store, tmp_path / "r.sqlite", policy) as served:
        page = open_page(browser, served, served.token("Ann"))
        notes = []
        for _ in range(8):
            press(page, "u")
            wait_for_votes(page)
            wait_for_paint(page)
            notes.append(page.locator("#message").inner_text())
        assert any("The last item has a known answer" in note for note in notes)
        page.keyboard.press("h")
        page.wait_for_selector("#examples li:nth-child(6) img")
        captions = page.locator("#examples figcaption").all_inner_texts()
        assert captions == [
            "yes",
            "no: object left",
            "no: hallucinated object",
            "no: blur or seam",
            "no: shadow or reflection left",
            "no: changed outside the mask",
        ]
        page.wait_for_function("() => [...document.querySelectorAll('#examples img')].every((i) => i.naturalWidth > 0)")
        assert page.faults == []  # type: ignore[attr-defined]
        page.context.close()


def test_accessibility(browser: Browser, tmp_path: Path) -> None:
    """axe finds no serious fault: signing in, judging, choosing a reason, editing, the dialogs, on a phone, the admin's
    page; light and dark."""
    run = make_run(tmp_path / "run", 24, truth=4, side=64)
    with serving(run.store, tmp_path / "r.sqlite", TWO) as served:
        found: dict[str, list[str]] = {}
        for scheme in ("light", "dark"):
            stranger = browser.new_page(color_scheme=scheme)
            stranger.goto(served.url)
            stranger.wait_for_selector("#signin:not([hidden])")
            found[f"sign in {scheme}"] = find_accessibility_faults(stranger)
            stranger.context.close()
            page = open_page(browser, served, served.token(f"Ann {scheme}", admin=True), color_scheme=scheme)
            press(page, "y" if scheme == "light" else "u")
            wait_for_animations(page)
            found[f"judge {scheme}"] = find_accessibility_faults(page)
            page.keyboard.press("v")
            page.keyboard.press("d")
            page.keyboard.press("n")
            found[f"reasons {scheme}"] = find_accessibility_faults(page)
            page.keyboard.press("Escape")
            page.locator("#list li button").first.click()
            found[f"edit {scheme}"] = find_accessibility_faults(page)
            page.keyboard.press("Escape")
            for key, name in (("h", "guidelines"), ("k", "keys"), ("f", "flag")):
                page.keyboard.press(key)
                page.wait_for_selector(f"#{name}[open]")
                wait_for_animations(page)
                found[f"{name} {scheme}"] = find_accessibility_faults(page)
                page.keyboard.press("Escape")
            wait_for_votes(page)
            page.goto(f"{served.url}/admin")
            page.wait_for_selector("#reviewers tbody tr")
            wait_for_animations(page)
            found[f"admin {scheme}"] = find_accessibility_faults(page)
            page.context.close()
            phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
            small = open_page(browser, served, served.token(f"Bob {scheme}"), color_scheme=scheme, **phone)
            found[f"phone {scheme}"] = find_accessibility_faults(small)
            small.context.close()
    assert {name: list_ for name, list_ in found.items() if list_} == {}


def test_keyboard_reaches_everything(page: Page) -> None:
    """Tab walks through every button that can be seen, each with a visible focus; space and enter press it; a click
    leaves space to the blink."""
    visible = page.evaluate(
        "[...document.querySelectorAll('button, a, input')].filter((n) => n.checkVisibility()).length"
    )
    seen = set()
    for _ in range(visible + 5):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.outerHTML.slice(0, 90)"))
        if page.evaluate("document.activeElement !== document.body"):
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert len(seen - {""}) >= visible - 1
    page.locator("[data-mode=single]").focus()
    page.keyboard.press(" ")
    assert page.locator("[data-mode=single]").get_attribute("aria-pressed") == "true"
    page.locator("[data-mode=side]").click()
    page.keyboard.down(" ")
    assert page.locator("#tag-two").inner_text() == "before"
    page.keyboard.up(" ")
    assert page.locator("[data-mode=side]").get_attribute("aria-pressed") == "true"


def test_the_code_is_typed() -> None:
    """The page's code passes TypeScript's checker by its comments."""
    tsc = NODE / "typescript" / "bin" / "tsc"
    if not tsc.exists():
        pytest.skip("no typescript here (tests/support/annotator/setup.sh fetches it)")
    files = sorted(str(path) for path in (ROOT / "annotator" / "page").rglob("*.js"))
    command = [
        "node",
        str(tsc),
        "--noEmit",
        "--allowJs",
        "--checkJs",
        "--strict",
        "--target",
        "es2022",
        "--module",
        "es2022",
        "--lib",
        "es2023,dom,dom.iterable",
        "--moduleResolution",
        "bundler",
        *files,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert all(len(Path(name).read_text().splitlines()) <= 400 for name in files)


def test_on_a_phone_the_reasons_of_a_no_leave_both_pictures_in_sight(browser: Browser, served: Served) -> None:
    """The reasons take the place of the buttons: nothing is above the pictures, and all of it is on the screen."""
    page = open_page(browser, served, served.token("Pia"), viewport={"width": 390, "height": 844}, has_touch=True)
    page.click("#judge .no")
    page.wait_for_selector("#reasons:not([hidden])")
    boxes = {name: page.locator(f"#{name}").bounding_box() for name in ("canvas", "reasons", "no-reason")}
    canvas, reasons, back = (boxes[name] for name in ("canvas", "reasons", "no-reason"))
    assert canvas
    assert reasons
    assert back
    assert canvas["y"] + canvas["height"] <= reasons["y"]
    assert reasons["y"] + reasons["height"] <= 844
    assert canvas["height"] > 300
    assert reasons["y"] <= back["y"] < reasons["y"] + 60
    page.click("#no-reason")
    assert page.locator("#judge .no").is_visible()
    page.context.close()


def test_the_axis_of_votes_over_time_is_as_long_as_its_columns(browser: Browser, served: Served) -> None:
    """A single column has its times below it, and the numbers of the admin's page their nouns."""
    page = open_page(browser, served, served.token("Olga", admin=True))
    press(page, "y")
    wait_for_votes(page)
    page.goto(f"{served.url}/admin")
    page.wait_for_selector(".timeline")
    columns, axis = (page.locator(f".timeline {part}").bounding_box() for part in (".columns span", ".axis"))
    assert columns
    assert axis
    assert (columns["x"], columns["width"]) == (axis["x"], axis["width"])
    totals = page.locator("#totals").inner_text().split("\n")
    assert "vote" in totals
    assert page.locator(".timeline .most").inner_text() == "1 vote"
    page.context.close()
