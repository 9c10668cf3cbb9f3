"""The pages of a team in a browser: a mask corrected, candidates compared, people and wording, and Chinese."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import select
from support.annotator.browser import find_accessibility_faults, open_page, wait_for_paint
from support.annotator.runs import CANDIDATES, CAPTURED, Run, row
from support.annotator.server import Served, nonce, serving

from rasura.annotator.server.team.markdown import parse_markdown
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.team.corrections import find_correction
from rasura.annotator.store.team.rankings import list_rankings
from rasura.annotator.store.team.tables import corrections
from rasura.annotator.store.vote_log import read_entries
from rasura.manifests.images import RGB, Mask, decode_mask

pytestmark = pytest.mark.browser
PAINTED = "() => document.getElementById('grid').ariaBusy === 'false'"
REMOVERS = ("telea", "ns", "lama")


class Fill:
    """A repairer that takes all of the upper half."""

    def click(self, key: str, picture: RGB, mask: Mask, x: int, y: int, add: bool, radius: float) -> Mask:
        changed = mask.copy()
        changed[: len(mask) // 2] = add
        return changed

    def snap(self, picture: RGB, mask: Mask, reach: float) -> Mask:
        return mask


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("team")
    run = Run(folder / "run")
    run.flow("captured", [row(n, "captured", 96) for n in range(3)], CAPTURED)
    made = [row(n, "edited", 96, id=f"e{n}{name}", remover=name) for n in range(3) for name in REMOVERS]
    alone = [row(n, "edited", 96, remover="telea") for n in range(10, 80)]  # no second candidate of their scenes
    run.flow("candidates", [*made, *alone], CANDIDATES)
    policy = Policy(votes=1, near_votes=1, most_votes=1, honeypots=0)
    with serving(run.store, folder / "r.sqlite", policy, repairer=Fill()) as found:
        yield found


@pytest.fixture
def page(browser: Browser, served: Served, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page of an admin; a fault of a script fails the test."""
    opened = open_page(browser, served, served.token(request.node.name, True))
    yield opened
    assert opened.faults == []  # type: ignore[attr-defined]
    opened.context.close()


def read_mask(served: Served, item: str, part: str = "mask") -> Mask:
    with served.database.read() as connection:
        found = find_correction(connection, item, part)
    assert found is not None
    return decode_mask(found.png)


def test_a_mask_is_painted_clicked_and_stored(page: Page, served: Served) -> None:
    """What the brush adds and the eraser takes is what is stored, pixel by pixel; undo takes it back; a click changes
    what the server says; and the item as it was gets a no."""
    page.keyboard.press("c")
    canvas = page.locator("dialog.correct canvas")
    page.wait_for_function(
        "() => document.querySelector('dialog.correct .segments button').getAttribute('aria-pressed')"
    )
    expect(page.locator(".correct-message")).to_have_text("")
    assert find_accessibility_faults(page) == []
    box = canvas.bounding_box()
    assert box is not None
    scale = min(box["width"] / 144, box["height"] / 96)
    left, top = box["x"] + box["width"] / 2 - 72 * scale, box["y"] + box["height"] / 2 - 48 * scale

    def drag(x0: float, y0: float, x1: float, y1: float) -> None:
        page.mouse.move(left + x0 * scale, top + y0 * scale)
        page.mouse.down()
        page.mouse.move(left + x1 * scale, top + y1 * scale, steps=4)
        page.mouse.up()

    save = page.locator("dialog.correct .primary")
    assert save.is_disabled()
    for _ in range(6):
        page.keyboard.press("]")
    drag(10, 80, 130, 80)
    assert save.is_enabled()
    page.keyboard.press("z")
    assert save.is_disabled()
    page.keyboard.press("y")
    page.keyboard.press("e")
    drag(70, 80, 70, 80)
    page.keyboard.press("a")
    page.mouse.click(left + 5 * scale, top + 5 * scale)
    page.wait_for_function("() => !document.querySelector('dialog.correct').classList.contains('busy')")
    page.keyboard.press("Enter")
    page.wait_for_function("() => !document.querySelector('dialog.correct')")
    wait_for_paint(page)
    page.wait_for_function("() => document.querySelector('#list .no')")
    with served.database.read() as connection:
        stored = connection.execute(select(corrections.c.item, corrections.c.steps)).one()
    mask = read_mask(served, stored.item)
    assert stored.steps == 3
    assert mask[:48].all()  # the click
    assert mask[80, 12]  # the brush
    assert mask[80, 128]
    assert not mask[80, 70]  # the eraser
    assert not mask[94:, :].any()
    deadline = time.monotonic() + 60
    while True:
        with served.database.read() as connection:
            said = [(entry.action, entry.verdict, entry.reason) for entry in read_entries(connection)]
        if len(said) == 2 or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert said == [("correct", None, None), ("vote", "no", "mask")]


def test_one_key_picks_the_best(page: Page, served: Served) -> None:
    """A number picks a candidate and the next scene comes; in the other mode all are ranked; space shows the picture
    before; at the end nothing waits."""
    page.goto(f"{served.url}/rank")
    page.wait_for_function("() => document.querySelectorAll('#grid img').length === 4")
    page.wait_for_function(PAINTED)
    assert find_accessibility_faults(page) == []
    page.keyboard.down("Space")
    shown = page.evaluate("[...document.querySelectorAll('#grid img')].map((image) => image.src.split('/').at(-1))")
    assert set(shown) == {"source?size=view"}
    page.keyboard.up("Space")
    chosen = page.evaluate("document.querySelectorAll('#grid [data-item]')[1].dataset.item")
    page.keyboard.press("2")
    page.wait_for_function(
        "(old) => ![...document.querySelectorAll('#grid [data-item]')].some((one) => one.dataset.item === old)",
        arg=chosen,
    )
    page.wait_for_function(PAINTED)
    page.keyboard.press("r")
    page.keyboard.press("3")
    assert page.locator("#grid .ranked").count() == 1
    page.keyboard.press("z")
    assert page.locator("#grid .ranked").count() == 0
    for key in "31":
        page.keyboard.press(key)
    page.wait_for_function("() => !document.querySelector('#grid .ranked')")
    page.wait_for_function(PAINTED)
    page.keyboard.press("s")
    page.wait_for_function("() => !document.getElementById('nothing').hidden")
    with served.database.read() as connection:
        groups = sorted(len(ranking) for _, _, ranking in list_rankings(connection))
    assert groups == [2, 3]
    page.goto(f"{served.url}/admin")
    page.wait_for_function("() => document.querySelectorAll('.ratings li').length === 3")
    assert find_accessibility_faults(page) == []


def test_a_refusal_is_read_on_the_page(browser: Browser, tmp_path: Path) -> None:
    """Why a ranking was refused is still there when the scene is painted again, until the next one is sent; who ranks
    where there are known answers reads in place of the pictures why there is nothing to judge, also in Chinese."""
    run = Run(tmp_path / "run")
    run.flow("captured", [row(500 + n, "captured", 32) for n in range(6)], CAPTURED)
    run.flow("candidates", [row(n, "edited", 32, id=f"e{n}{m}", remover=m) for n in range(3) for m in "ab"], CANDIDATES)
    with serving(run.store, tmp_path / "r.sqlite", Policy(honeypots=0.2)) as served:
        page = open_page(browser, served, served.token("Ann"), locale="zh-CN")
        page.goto(f"{served.url}/rank")
        page.wait_for_function(PAINTED)
        other = {"scene": "no such one", "nonce": nonce(), "ranking": []}
        page.route("**/api/rankings", lambda route: route.continue_(post_data=json.dumps(other)))
        page.evaluate("document.getElementById('grid').firstElementChild.id = 'old'")
        page.keyboard.press("1")
        page.wait_for_selector("#old", state="detached")
        page.wait_for_function(PAINTED)
        expect(page.locator("#message")).to_have_text("未保存：您没有这个条目。")
        page.unroute("**/api/rankings")
        page.keyboard.press("1")
        expect(page.locator("#message")).to_be_empty()
        page.goto(served.url)
        expect(page.locator("#nothing p")).to_contain_text("请向管理员索取另一个名称的链接")
        expect(page.locator("#loading")).to_be_hidden()
        page.context.close()


def test_a_team_is_managed_on_the_page(page: Page, served: Served) -> None:
    """An admin invites somebody, whose link is shown once; words the review, which the reviewers' page shows at once;
    and finds an item and rules on it."""
    page.goto(f"{served.url}/team#people")
    page.fill("#panel form input:not([type=checkbox])", "Pat <b>")
    page.click("#panel form .primary")
    link = page.locator(".secret code").inner_text()
    assert "#token=" in link
    page.wait_for_function("() => document.querySelector('#panel table').textContent.includes('Pat <b>')")
    assert find_accessibility_faults(page) == []
    page.click("#tab-wording")
    page.fill("#panel textarea", "# Look <script>alert(1)</script>\n\n**twice**")
    page.wait_for_function("() => document.querySelector('.preview h3')")
    assert page.locator(".preview h3").inner_text() == "Look <script>alert(1)</script>"
    assert find_accessibility_faults(page) == []
    page.click("#panel form .primary")
    page.wait_for_function("() => document.getElementById('state').textContent")
    page.click("#tab-items")
    page.fill("#panel input[type=search]", "e1ns")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelectorAll('.items > li').length === 1")
    page.locator(".ruling button").first.click()
    page.wait_for_function("() => document.querySelector('.ruling .chosen')")
    assert find_accessibility_faults(page) == []
    time.sleep(1.1)  # the age that the wording may have
    page.goto(f"{served.url}/")
    page.wait_for_function(
        "() => !document.getElementById('tag-one').hidden || !document.getElementById('nothing').hidden"
    )
    page.keyboard.press("h")
    assert page.locator("#own-guidelines strong").inner_text() == "twice"
    assert page.locator("#own-guidelines script").count() == 0
    assert parse_markdown("<script>") == [{"tag": "p", "children": ["<script>"]}]


def test_a_chinese_browser_gets_chinese(browser: Browser, served: Served) -> None:
    """All words of the review's page are Chinese, and its language is said; the letters of keys stay."""
    page = open_page(browser, served, served.token("Li"), locale="zh-CN")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    page.keyboard.press("k")
    words = page.evaluate(
        """() => [...document.querySelectorAll('button, label, th, h2, #verdicts b')]
        .filter((node) => node.offsetParent).map((node) => node.textContent.trim())"""
    )
    latin = [
        word for word in words if len("".join(letter for letter in word if letter.isascii() and letter.isalpha())) > 3
    ]
    assert latin == ["wheel"] or latin == []
    assert any("不通过" in word for word in words)
    assert page.faults == []  # type: ignore[attr-defined]
    page.context.close()


@pytest.mark.parametrize("width", [390, 1366])
def test_the_pages_fit_a_phone(browser: Browser, served: Served, width: int) -> None:
    """No page of a team is wider than the screen, and the picture that is corrected has at least half of its height."""
    settings = {"viewport": {"width": width, "height": 844 if width < 700 else 768}}
    page = open_page(browser, served, served.token(f"Phone {width}", True), **settings)
    item = page.evaluate("fetch('/api/admin/items').then((answer) => answer.json()).then(({items}) => items[0].id)")
    team = [f"/team#{part}" for part in ("queue", "grounds", "people", "wording", "programs", "items")]
    for path in ("/", "/admin", "/rank", *team):
        page.goto(f"{served.url}{path}")
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    page.evaluate("(item) => import('/page/correct/correct.js').then(({correctMask}) => { correctMask(item); })", item)
    page.wait_for_function("() => document.querySelector('dialog.correct canvas')")
    share = page.evaluate("document.querySelector('.correct-stage').getBoundingClientRect().height / innerHeight")
    assert share >= 0.5
    assert np.isfinite(share)
    page.context.close()
