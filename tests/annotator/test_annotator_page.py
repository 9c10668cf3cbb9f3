"""The page in a real browser: by keyboard, by mouse, by finger, with the server gone, and with hostile words."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from playwright.sync_api import Browser, Page
from sqlalchemy import select
from support.annotator_browser import NODE, axe, browser, item, open_page, picture, ready, settled  # noqa: F401
from support.annotator_runs import CANDIDATES, CAPTURED, Run, make_run, row
from support.annotator_server import OPEN, Served, serving

from rasura.annotator.exchange.votes_file import export, read_votes
from rasura.annotator.stats.accounting import account, faults
from rasura.annotator.store import vote_log as votes
from rasura.annotator.store.database import items, log
from rasura.annotator.store.policy import Policy
from rasura.manifests.storage import Store

TWO = Policy(votes=2, near_votes=2, most_votes=2, honeypots=0)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(make_run(tmp_path / "run", 40, side=342).store, tmp_path / "r.sqlite") as found:
        yield found


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:  # noqa: F811
    opened = open_page(browser, served, served.token("Ann"))
    yield opened
    assert opened.faults == []  # type: ignore[attr-defined]
    opened.context.close()


def said(served: Served) -> list[tuple[str, str | None, str | None]]:
    with served.database.read() as connection:
        return [(one.action, one.verdict, one.reason) for one in votes.entries(connection)]


def test_thirty_items_by_keyboard(served: Served, page: Page, tmp_path: Path) -> None:
    """A reviewer judges thirty items without a mouse, with reasons, a skip and an undo; each key has its effect on the
    screen within 100 ms (p95, at 512 px); what was said comes out of the export, and every candidate is accounted
    for."""
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
        page.wait_for_timeout(250)  # nobody judges faster; the next ones are loaded meanwhile
    settled(page)
    times = page.evaluate("performance.getEntriesByName('judge').map((entry) => entry.duration)")
    assert len(times) == 30
    p95 = float(np.quantile(times, 0.95))
    print(f"key to paint at 513 x 342 px: median {np.median(times):.0f} ms, p95 {p95:.0f} ms, most {max(times):.0f} ms")
    assert p95 <= 100
    assert [verdict for _, verdict, _ in said(served)] == told
    page.keyboard.press("z")
    page.keyboard.press("s")
    settled(page)
    assert [action for action, *_ in said(served)[-2:]] == ["undo", "skip"]
    with served.database.read() as connection:
        export(connection, Store(tmp_path / "out"))
        counted = account(connection)
        assert faults(connection) == []
    out = read_votes(tmp_path / "out" / "votes.parquet")
    assert [entry["verdict"] for entry in out if entry["action"] == "vote"] == told
    assert {entry["reason"] for entry in out if entry["verdict"] == "no"} <= {"seam", "shadow", "outside", "other",
                                                                             "object", "hallucinated"}  # fmt: skip
    # a verdict that came before its picture was painted has no time
    spent = [entry["seconds"] for entry in out if entry["action"] == "vote" and entry["seconds"] is not None]
    assert len(spent) > 15
    assert all(0 <= seconds < 30 for seconds in spent)
    assert (counted.candidates, counted.voted) == (40, 29)
    assert counted.balanced


def test_blink_slider_and_side_by_side(page: Page) -> None:
    """Side by side shows before and after; holding space shows before in place of after, as long as it is held; the
    slider shows one left and the other right of a divider that arrows, the range and the mouse move."""
    page.keyboard.press("m")  # no outline, so that pixels are the pictures'
    drawn = picture(page)
    middle = drawn.shape[1] // 2
    left, right = drawn[:, : middle - 5], drawn[:, -(middle - 5) :]
    differ = (left != right).any(axis=2)
    assert 0.02 < differ.mean() < 0.5
    page.keyboard.down(" ")
    held = picture(page)
    both = held[:, : middle - 5].astype(int) - held[:, -(middle - 5) :]
    assert np.abs(both).max() <= 2  # scaled at two places of the screen
    assert page.locator("#tag-two").inner_text() == "before"
    page.keyboard.up(" ")
    assert (picture(page) == drawn).all()
    page.keyboard.press("v")
    page.keyboard.press("v")
    after = picture(page)
    page.keyboard.down(" ")
    before = picture(page)
    page.keyboard.up(" ")
    assert (before != after).any()
    page.keyboard.press("v")
    page.keyboard.press("v")
    box = page.locator("#canvas").bounding_box()
    assert box is not None

    def divider() -> float:
        now = picture(page)
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
        drawn = picture(page)
        middle = drawn.shape[1] // 2
        return float((drawn[:, : middle - 5] == drawn[:, -(middle - 5) :]).all(axis=2).mean())

    assert locked() > 0.5
    page.keyboard.press("y")
    page.wait_for_timeout(300)
    ready(page)
    assert page.locator("#zoom").inner_text() == zoom
    assert locked() > 0.5
    page.keyboard.press("x")
    assert page.locator("#zoom").inner_text() == "fit"


def test_resumes_after_a_reload(served: Served, page: Page) -> None:
    """After a reload the same item is shown, the list holds what was said, the view is as it was left."""
    for key in "yyu":
        page.keyboard.press(key)
        page.wait_for_timeout(100)
    page.keyboard.press("v")
    settled(page)
    shown, drawn = item(page), picture(page)
    page.reload()
    ready(page)
    page.wait_for_selector("#list li:nth-child(3)")
    assert item(page) == shown
    assert (picture(page) == drawn).all()
    assert page.locator("[data-mode=slider]").get_attribute("aria-pressed") == "true"
    assert [page.locator(f"#list li:nth-child({n}) button").get_attribute("class") for n in (1, 2, 3)] == [
        "unsure", "yes", "yes"]  # fmt: skip


def test_the_list_is_editable(served: Served, page: Page) -> None:
    """An item of the last twenty opens with what was said of it; another verdict replaces it; escape leaves it."""
    for key in "yy":
        page.keyboard.press(key)
        page.wait_for_timeout(150)
    settled(page)
    page.locator("#list li:nth-child(2) button").click()
    assert "You said yes" in page.locator("#editing").inner_text()
    page.keyboard.press("n")
    page.keyboard.press("4")
    settled(page)
    assert said(served)[-1] == ("edit", "no", "shadow")
    assert page.locator("#list li").count() == 2
    page.locator("#list li:nth-child(2) button").click()
    assert "shadow or reflection left" in page.locator("#editing").inner_text()
    page.keyboard.press("Escape")
    page.wait_for_selector("#editing", state="hidden")
    page.keyboard.press("y")
    settled(page)
    assert [action for action, *_ in said(served)] == ["vote", "vote", "edit", "vote"]
    with served.database.read() as connection:
        assert faults(connection) == []


def test_two_reviewers_never_get_the_same(browser: Browser, tmp_path: Path) -> None:  # noqa: F811
    """Two who work at once, on items that need one vote, are never shown the same item; together they judge all."""
    run = make_run(tmp_path / "run", 24, side=64)
    with ExitStack() as stack:
        served = stack.enter_context(serving(run.store, tmp_path / "r.sqlite"))
        both = [open_page(browser, served, served.token(name)) for name in ("Ann", "Bob")]
        for _ in range(14):
            for page in both:
                if page.locator("#nothing").is_hidden():
                    page.keyboard.press("y")
                    page.wait_for_timeout(120)
        for page in both:
            settled(page)
            assert page.faults == []  # type: ignore[attr-defined]
        with served.database.read() as connection:
            entries = votes.entries(connection)
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


def test_by_finger_on_a_phone(browser: Browser, served: Served) -> None:  # noqa: F811
    """On 390 px: right is yes, up is unsure, left asks for the reason; a short one is nothing; a resting finger shows
    before; the page does not scroll sideways."""
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    page = open_page(browser, served, served.token("Ann"), **phone)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    swipe(page, 30, 0)
    for dx, dy in ((150, 5), (10, -250)):
        swipe(page, dx, dy)
        page.wait_for_timeout(250)
        ready(page)
    swipe(page, -150, 0)
    page.locator("#reason-keys button", has_text="blur or seam").tap()
    page.wait_for_timeout(200)
    settled(page)
    assert said(served) == [("vote", "yes", None), ("vote", "unsure", None), ("vote", "no", "seam")]
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    session = page.context.new_cdp_session(page)
    point = {"x": box["x"] + 50, "y": box["y"] + box["height"] - 60}
    session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
    page.wait_for_selector("#tag-two.now")
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_selector("#tag-two:not(.now)")
    assert len(said(served)) == 3
    assert page.faults == []  # type: ignore[attr-defined]
    page.context.close()


def test_votes_outlast_a_server_that_is_gone(browser: Browser, tmp_path: Path) -> None:  # noqa: F811
    """While the server does not answer one goes on judging what is loaded, and is told; after a reload without it and
    its return, every verdict is noted once, in order."""
    run = make_run(tmp_path / "run", 20, side=64)
    with serving(run.store, tmp_path / "r.sqlite") as served:
        page = open_page(browser, served, served.token("Ann"))
        page.keyboard.press("y")
        settled(page)
        page.wait_for_timeout(500)
        page.route("**/api/**", lambda route: route.abort())
        for key in "yuy":
            page.keyboard.press(key)
            page.wait_for_timeout(100)
        page.wait_for_selector("#saving:not([hidden])")
        assert "3 verdicts wait to be sent" in page.locator("#saving").inner_text()
        assert len(said(served)) == 1
        page.reload()
        page.unroute("**/api/**")
        page.reload()
        ready(page)
        settled(page)
        page.wait_for_selector("#saving", state="hidden")
        assert [verdict for _, verdict, _ in said(served)] == ["yes", "yes", "unsure", "yes"]
        with served.database.read() as connection:
            assert faults(connection) == []
        page.context.close()


def test_hostile_words_are_shown_as_words(browser: Browser, tmp_path: Path) -> None:  # noqa: F811
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
            for key in keys:
                page.keyboard.press(key)
                page.wait_for_timeout(150)
            settled(page)
            page.goto(f"{served.url}/admin")
            page.wait_for_selector("#flagged .votes q")
            assert page.locator("#flagged .votes q").first.inner_text().strip('“”"') == nasty.strip('"')
            assert page.locator("img[src=x], main script").count() == 0
            assert page.title() == "Review: agreement · Rasura"
            assert page.faults == []  # type: ignore[attr-defined]
            page.context.close()


def test_keys_can_be_changed(page: Page, served: Served) -> None:
    """A key is changed in the table, kept over a reload, shown on the buttons, and swapped where it was taken; what
    means one thing everywhere cannot be taken; all can be put back."""
    page.keyboard.press("k")
    page.locator("#key-table .key").nth(0).click()
    page.keyboard.press("n")
    page.locator("#key-table .key").nth(2).click()
    page.keyboard.press("3")
    assert "is taken" in page.locator("#key-problem").inner_text()
    page.keyboard.press("Escape")
    page.reload()
    ready(page)
    assert page.locator("#judge [data-key=yes]").inner_text() == "n"
    assert page.locator("#judge [data-key=no]").inner_text() == "y"
    page.keyboard.press("n")
    settled(page)
    page.wait_for_selector("#list li")
    settled(page)
    assert said(served) == [("vote", "yes", None)]
    page.keyboard.press("k")
    page.locator("#reset-keys").click()
    assert page.locator("#key-table .key").nth(0).inner_text() == "y"


def test_differences_outside_the_mask(browser: Browser, tmp_path: Path) -> None:  # noqa: F811
    """The heat map tells a result that touched nothing outside its hole from one that did, and by how much."""
    clean, leaky = row(0, "edited", 128, score=0.9), row(1, "edited", 128, score=0.8)
    leaky["target"] = leaky["target"].copy()
    leaky["target"][:6, :20] = np.clip(leaky["target"][:6, :20].astype(int) + 40, 0, 255)
    run = Run(tmp_path / "run")
    run.flow("candidates", [clean, leaky], CANDIDATES)
    with serving(run.store, tmp_path / "r.sqlite", Policy(honeypots=0, votes=1, near_votes=1)) as served:
        page = open_page(browser, served, served.token("Ann"))
        page.keyboard.press("d")
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
  const {outline, grown, heat} = await import('/page/shapes.js');
  const mask = new Uint8Array(7 * 5); for (const i of [9, 10, 16, 17, 31]) mask[i] = 1;
  const lines = outline(mask, 7, 5);
  let length = 0; for (let i = 0; i < lines.length; i += 4)
    length += Math.abs(lines[i] - lines[i + 2]) + Math.abs(lines[i + 1] - lines[i + 3]);
  const one = new Uint8ClampedArray(7 * 5 * 4), other = one.slice(); other[0] = 9; other[4 * 9] = 200;
  return {lines: lines.length / 4, length, grown: Array.from(grown(mask, 7, 5, 1)), same: grown(mask, 7, 5, 0) === mask,
          heat: (({changed, outside, most}) => [changed, outside, most])(heat(one, other, mask)),
          whole: Array.from(grown(mask, 7, 5, 9))};
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
    assert (np.array(told["grown"]).reshape(5, 7) == wide).all()
    assert told["same"]
    assert all(told["whole"])
    assert told["heat"] == [1, 30, 9]


def test_large_pictures_come_as_stored_on_demand(browser: Browser, tmp_path: Path) -> None:  # noqa: F811
    """A picture larger than the screen is shown smaller and loaded as it is stored when somebody looks closely."""
    with serving(make_run(tmp_path / "run", 2, side=1200).store, tmp_path / "r.sqlite") as served:
        page = open_page(browser, served, served.token("Ann"))
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.wait_for_timeout(500)
        assert not [url for url in asked if "size=native" in url]
        page.keyboard.press("x")
        page.wait_for_timeout(1500)
        assert sum("size=native" in url for url in asked) == 2
        assert page.locator("#zoom").inner_text() == "100 %"
        page.context.close()


def test_feedback_and_guidelines(browser: Browser, tmp_path: Path) -> None:  # noqa: F811
    """With feedback, a wrong verdict on a known answer is told in the next moment; the guidelines show one example of
    each mistake."""
    policy = Policy(votes=1, near_votes=1, honeypots=0.5, feedback=True)
    with serving(make_run(tmp_path / "run", 12, truth=12).store, tmp_path / "r.sqlite", policy) as served:
        page = open_page(browser, served, served.token("Ann"))
        notes = []
        for _ in range(8):
            page.keyboard.press("u")
            page.wait_for_timeout(350)
            notes.append(page.locator("#told").inner_text())
        assert any("The answer to the last one is known" in note for note in notes)
        page.keyboard.press("h")
        page.wait_for_selector("#examples li:nth-child(6) img")
        captions = page.locator("#examples figcaption").all_inner_texts()
        assert captions == ["yes", "no: object left", "no: hallucinated object", "no: blur or seam",
                            "no: shadow or reflection left", "no: changed outside the mask"]  # fmt: skip
        page.wait_for_function("() => [...document.querySelectorAll('#examples img')].every((i) => i.naturalWidth > 0)")
        assert page.faults == []  # type: ignore[attr-defined]
        page.context.close()


def test_a_picture_that_cannot_be_read_can_be_skipped(browser: Browser, tmp_path: Path) -> None:  # noqa: F811
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
        settled(page)
        time.sleep(0.3)
        assert said(served) == [("skip", None, None)]
        page.context.close()


def test_accessibility(browser: Browser, tmp_path: Path) -> None:  # noqa: F811
    """axe finds no serious fault: signing in, judging, choosing a reason, editing, the dialogs, on a phone, the admin's
    page; light and dark."""
    run = make_run(tmp_path / "run", 8, truth=4, side=64)
    with serving(run.store, tmp_path / "r.sqlite", TWO) as served:
        found: dict[str, list[str]] = {}
        for scheme in ("light", "dark"):
            stranger = browser.new_page(color_scheme=scheme)
            stranger.goto(served.url)
            stranger.wait_for_selector("#signin:not([hidden])")
            found[f"sign in {scheme}"] = axe(stranger)
            stranger.context.close()
            page = open_page(browser, served, served.token(f"Ann {scheme}", admin=True), color_scheme=scheme)
            page.keyboard.press("y" if scheme == "light" else "u")
            page.wait_for_timeout(200)
            found[f"judge {scheme}"] = axe(page)
            page.keyboard.press("v")
            page.keyboard.press("d")
            page.keyboard.press("n")
            found[f"reasons {scheme}"] = axe(page)
            page.keyboard.press("Escape")
            page.locator("#list li button").first.click()
            found[f"edit {scheme}"] = axe(page)
            page.keyboard.press("Escape")
            for key, name in (("h", "guidelines"), ("k", "keys"), ("f", "flag")):
                page.keyboard.press(key)
                page.wait_for_selector(f"#{name}[open]")
                page.wait_for_timeout(200)
                found[f"{name} {scheme}"] = axe(page)
                page.keyboard.press("Escape")
            settled(page)
            page.goto(f"{served.url}/admin")
            page.wait_for_selector("#reviewers tbody tr")
            page.wait_for_timeout(300)
            found[f"admin {scheme}"] = axe(page)
            page.context.close()
            phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
            small = open_page(browser, served, served.token(f"Bob {scheme}"), color_scheme=scheme, **phone)
            found[f"phone {scheme}"] = axe(small)
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
        pytest.skip("no typescript here (tests/annotator_setup.sh fetches it)")
    files = sorted(str(path) for path in (ROOT / "annotator" / "page").glob("*.js"))
    command = ["node", str(tsc), "--noEmit", "--allowJs", "--checkJs", "--strict", "--target", "es2022", "--module",
               "es2022", "--lib", "es2023,dom,dom.iterable", "--moduleResolution", "bundler", *files]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert all(len(Path(name).read_text().splitlines()) <= 400 for name in files)


def test_nothing_of_the_score_is_sent_before_the_vote(browser: Browser, tmp_path: Path) -> None:  # noqa: F811
    """Before the vote nothing that the page receives tells the score, the remover, others' votes, or that an answer is
    known; what it is told after the vote is in the list."""
    with serving(make_run(tmp_path / "run", 6, truth=6).store, tmp_path / "r.sqlite", TWO) as served:
        page = browser.new_context().new_page()
        received: list[str] = []
        page.on("response", lambda answer: received.append(answer.text()) if "json" in
                answer.headers.get("content-type", "") else None)  # fmt: skip
        page.goto(f"{served.url}/#token={served.token('Ann')}")
        ready(page)
        page.wait_for_timeout(300)
        before = "".join(received)
        for word in ("score", "remover", "telea", "expected", "honeypot", "captured"):
            assert word not in before
        page.keyboard.press("y")
        settled(page)
        page.wait_for_function("() => document.querySelector('#list button')?.title.includes('score')")
        with served.database.read() as connection:
            first = connection.execute(select(log.c.item)).scalar()
            score = connection.execute(select(items.c.score).where(items.c.id == first)).scalar_one()
        assert f"score {score:.2f}" in (page.locator("#list button").get_attribute("title") or "")
        page.context.close()
    assert OPEN.honeypots == 0
