"""The report's page in a real browser: what it shows, finds, orders and refuses to do."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from support.report_pages import TRIPLETS, ReportRun, triplet

from rasura.manifests.schemas import Kind
from rasura.manifests.shards import RejectedRow
from rasura.pipeline.report import run_page
from rasura.pipeline.report.run_page import write

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

NASTY = '</script><img src=x onerror="document.title=1">'
COLUMNS = TRIPLETS | {"seam": Kind.FLOAT, "tilt": Kind.FLOAT}
LIGHT = {name: kind for name, kind in COLUMNS.items() if kind in (Kind.STRING, Kind.FLOAT)}


def make_run(folder: Path) -> ReportRun:
    """Make a run of 60 rows from which a selection keeps 50; texts are hostile, one row's label is its own."""
    run = ReportRun(folder / "run")
    rows = [
        triplet(n, seam=None if n == 7 else float(n), tilt=n / 100, label="zebra" if n == 31 else NASTY)
        for n in range(60)
    ]
    run.flow("all", rows, COLUMNS)
    kept = [{name: value for name, value in row.items() if name in LIGHT} for row in rows[:50]]
    reasons = [f"seam above {50 - 1}"] * 9 + [NASTY]
    gone = [
        RejectedRow(row["id"], row["origin"], "select", "rejected", reason, f"{row['seam']:g}", row["id"])
        for row, reason in zip(rows[50:], reasons, strict=True)
    ]
    references = [{"ref_table": "all", "ref_shard": f"all{n - n % 2}", "ref_row": n % 2} for n in range(50)]
    columns = {**LIGHT, "ref_table": Kind.STRING, "ref_shard": Kind.STRING, "ref_row": Kind.INT}
    run.flow(
        "good", [row | ref for row, ref in zip(kept, references, strict=True)], columns, gone, ["all"], stage="select"
    )
    recipe = {"name": "x", "flows": {"good": {"stages": [{"select": {"keep": {"seam": {"max": 49}}}}]}}}
    run.store.write("recipe.yaml", yaml.safe_dump(recipe).encode())
    run.describe(["good"])
    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page with its pictures inside, and with them beside it."""
    folder = tmp_path_factory.mktemp("pages")
    run = make_run(folder)
    with pytest.MonkeyPatch.context() as patch:
        write(run.store, folder / "inside.html", rows=12)
        patch.setattr(run_page, "INSIDE_BYTES", 1000)
        write(run.store, folder / "beside # 1.html", rows=12)
    return {"inside": folder / "inside.html", "beside": folder / "beside # 1.html"}


@pytest.fixture
def page(request: pytest.FixtureRequest, files: dict[str, Path], browser: "Browser") -> Iterator["Page"]:
    """The page, opened from the disk. A fault of a script, a refusal of the policy or a request to elsewhere fails."""
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
    page.on("request", lambda asked: faults.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None)
    page.goto(files[getattr(request, "param", "inside")].as_uri())
    page.wait_for_selector(".card img")
    yield page
    assert faults == []
    assert page.title() == "cars · Rasura"
    page.close()


def list_ids(page: "Page") -> list[int]:
    """List the numbers of the rows on the present page of the table."""
    titles = page.eval_on_selector_all("#rows .card code", "codes => codes.map((code) => code.title)")
    return [int(title[:8], 16) for title in titles]


@pytest.mark.parametrize("page", ["inside", "beside"], indirect=True)
def test_rows_are_shown_found_and_ordered(page: "Page") -> None:
    """The row nearest to the limit comes first; any measure orders all rows, a search and a filter find one among all
    pages; a picture shows, however its file is named, and no outline until its box is ticked."""
    assert list_ids(page)[:3] == [49, 48, 47]
    first = page.locator(".card img").first
    assert first.evaluate("async (image) => { await image.decode(); return image.naturalWidth; }") == 90
    outline = page.locator(".card path.object").first
    assert not outline.is_visible()
    page.locator("#show-object").check()
    assert outline.is_visible()
    page.get_by_label("Order by").select_option("tilt")
    assert list_ids(page) == list(range(24))
    page.get_by_role("button", name="next ›").click()
    assert list_ids(page) == list(range(24, 48))
    page.get_by_role("button", name="↑ smallest first").click()
    assert list_ids(page)[:2] == [49, 48]
    page.get_by_label("Order by").select_option("seam")  # worst first, and what has no value last
    page.get_by_role("button", name="last »").click()
    assert list_ids(page)[-1] == 7
    page.get_by_label("Search all texts").fill("ZEBRA")
    page.wait_for_function("() => document.querySelectorAll('#rows .card').length === 1")
    assert list_ids(page) == [31]
    page.get_by_label("Search all texts").fill("")
    page.get_by_label("Column to filter by").select_option("seam")
    page.get_by_label("Condition").select_option("most")
    page.get_by_label("Value", exact=True).fill("2.5")
    page.get_by_role("button", name="add").click()
    assert sorted(list_ids(page)) == [0, 1, 2]
    page.get_by_role("button", name="Remove the filter").click()
    assert "50 rows" in page.locator("#rows [role=status]").inner_text()


def test_texts_stay_texts(page: "Page") -> None:
    """What looks like markup is shown as it is, in captions, lists, filters and reasons."""
    page.locator(".tab", has_text="rejected").click()
    chip = page.locator("button.chip", has_text="onerror")
    assert NASTY in chip.inner_text()
    chip.click()
    assert list_ids(page) == [59]
    page.get_by_role("button", name="as a list").click()
    assert NASTY in page.locator("table.rows").inner_text()
    assert page.locator("img[src=x]").count() == 0
    page.get_by_role("button", name="as a list").click()
    page.locator("details summary", has_text="all values").first.click()
    assert NASTY in page.locator(".card dl").first.inner_text()


def test_a_moved_limit_says_what_it_would_keep(page: "Page") -> None:
    """The answer counts kept and rejected rows with the limits as they are moved, and writes them as a recipe has
    them; a row without a value that was kept stays kept."""
    page.locator("#measures").scroll_into_view_if_needed()
    exact = page.get_by_label("seam at most, exactly")
    exact.fill("54")
    answer = page.locator("#measures .answer").first
    assert answer.inner_text() == "With these limits 55 of 59 would be kept, in place of 50."
    assert page.locator("#measures pre.yaml").first.inner_text() == "keep:\n  seam: {max: 54}"
    exact.fill("9.5")
    assert answer.inner_text() == "With these limits 10 of 59 would be kept, in place of 50."
    exact.fill("49")
    assert "Move a limit" in answer.inner_text()
    page.get_by_text("measures without a limit").first.click()  # their figures are drawn by an event after the click
    page.locator("#measures figure", has_text="tilt").first.locator("path.kept").wait_for(state="attached")


def test_pictures_open_large_and_by_keys(page: "Page") -> None:
    """Enter opens a picture, arrows go on, Space shows the target, Escape gives the focus back."""
    panel = page.locator("button.panel").first
    panel.focus()
    page.keyboard.press("Enter")
    label = page.locator("dialog .bottom span")
    assert label.inner_text().startswith("source · ")
    before = page.locator("dialog img").get_attribute("src")
    page.locator("dialog").focus()
    page.evaluate("document.activeElement.blur()")
    page.locator("dialog .close").focus()
    page.keyboard.press("ArrowRight")
    assert label.inner_text().startswith("target · ")
    target = page.locator("dialog img").get_attribute("src")
    assert target != before
    page.keyboard.press("ArrowLeft")
    page.dispatch_event("dialog", "keydown", {"key": " "})
    assert page.locator("dialog img").get_attribute("src") == target
    page.dispatch_event("dialog", "keyup", {"key": " "})
    assert page.locator("dialog img").get_attribute("src") == before
    page.keyboard.press("Escape")
    assert panel.evaluate("(panel) => panel === document.activeElement")


@pytest.mark.parametrize("look", [{}, {"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 844}}])
def test_it_fits_and_can_be_read(files: dict[str, Path], browser: "Browser", look: dict[str, Any]) -> None:
    """Nothing is wider than the window, texts have a contrast of 4.5, controls a name, in any look and at 390 px, which
    is a window of 780 px at 200 %."""
    page = browser.new_page(**({"viewport": {"width": 1366, "height": 768}} | look))
    page.goto(files["inside"].as_uri())
    page.wait_for_selector(".card img")
    page.get_by_label("Column to filter by").select_option("label")
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    contrasts = page.evaluate(CONTRASTS)
    assert [entry for entry in contrasts if entry["contrast"] < 4.5] == []
    assert len(contrasts) > 50
    unnamed = page.evaluate(
        "() => [...document.querySelectorAll('main :is(button, input, select)')].filter((e) => e.checkVisibility() && "
        "!(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).map((e) => e.outerHTML)"
    )
    assert unnamed == []
    page.close()


CONTRASTS = """() => {
  const light = ([r, g, b]) => { const f = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  const parse = (text) => (text.match(/[\\\\d.]+/g) || []).map(Number);
  const result = [];
  for (const element of document.querySelectorAll("main *, header *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest("svg, .panel, option, select, button:disabled")) continue;
    let place = element, back = [];
    const isClear = (colour) => colour.length === 4 && colour[3] === 0;
    while (place && isClear((back = parse(getComputedStyle(place).backgroundColor)))) place = place.parentElement;
    if (!place) back = parse(getComputedStyle(document.body).backgroundColor);
    const a = light(parse(getComputedStyle(element).color)), b = light(back);
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    result.push({ text: element.textContent.slice(0, 40), contrast });
  }
  return result;
}""".replace("\\\\d", "\\d")


def test_the_served_page_asks_for_its_pictures(tmp_path: Path, browser: "Browser") -> None:
    """The printed link signs in and its token leaves the address; pictures come when they are looked at, and whole."""
    from support.report_pages import serve_report

    run = ReportRun(tmp_path / "run")
    large = {
        name: np.repeat(np.repeat(value, 12, axis=0), 12, axis=1)
        for name, value in triplet(0).items()
        if isinstance(value, np.ndarray)
    }
    run.flow("cars", [triplet(n) | large for n in range(3)], TRIPLETS)
    with serve_report(run.store) as url:
        page = browser.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(url)
        page.wait_for_selector(".card img")
        assert "token" not in page.url
        page.locator("button.panel").first.click()
        page.wait_for_function("() => document.querySelector('dialog img').naturalWidth === 1080")
        assert faults == []
        page.close()
        stranger = browser.new_page()
        stranger.goto(url.partition("#")[0])
        assert "Open the link" in stranger.locator("#state").inner_text()
        stranger.close()
