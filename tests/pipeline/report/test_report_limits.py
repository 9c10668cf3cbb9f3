"""The report beside the recipe: which rows are nearest to a limit, how measures are distributed, what was rejected."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from support.report_pages import PHOTOS, TRIPLETS, Page, ReportRun, count_panels, triplet

from rasura.manifests.images import encode_image, encode_mask
from rasura.manifests.schemas import Kind
from rasura.manifests.shards import RejectedRow
from rasura.pipeline.report import charts, measures, thumbnails
from rasura.pipeline.report.limits import Limit, read_limits
from rasura.pipeline.report.measures import Measure
from rasura.pipeline.report.run_page import render

if TYPE_CHECKING:
    from playwright.sync_api import Browser

COLUMNS = TRIPLETS | {"seam": Kind.FLOAT, "tilt": Kind.FLOAT}


@pytest.fixture
def run(tmp_path: Path) -> ReportRun:
    return ReportRun(tmp_path / "run")


def write_recipe(run: ReportRun, flows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    recipe = {"name": "cars", "flows": {name: {"stages": list(stages)} for name, stages in flows.items()}}
    run.store.write("recipe.yaml", yaml.safe_dump(recipe).encode())


def select(**keep: Mapping[str, Any]) -> dict[str, Any]:
    return {"select": {"keep": keep}}


def list_shown_rows(page: Page) -> list[int]:
    """List the numbers of the rows with a card, in their order."""
    return [int((attrs["title"] or "")[:8], 16) for attrs in page.all("code") if "title" in attrs]


def test_the_row_nearest_to_any_limit_comes_first(run: ReportRun) -> None:
    """Nearness has no unit: it is the distance to the limit beside that of the median. A row without values is never
    near; without a recipe, rows are a sample."""
    seam = [1.0, 1.0, 3.8, 1.0, 2.0, 1.0, 1.0, 1.0]  # median 1, limit 4
    tilt: list[float | None] = [900.0, 900.0, 900.0, 515.0, 900.0, 900.0, None, 900.0]  # median 900, limit 500
    rows = [triplet(n, seam=seam[n], tilt=tilt[n]) for n in range(8)]
    run.flow("cars", rows, COLUMNS)
    assert "Nearest to a limit" not in run.page().words
    write_recipe(run, {"cars": [select(seam={"max": 4}, tilt={"min": 500}, label={"any_of": ["car"]})]})
    page = run.page(rows=6)
    assert "Nearest to a limit" in page.words
    shown = list_shown_rows(page)
    assert shown[:3] == [3, 2, 4]  # 15/400, 0.2/3, 2/3
    assert len(set(shown)) == len(shown) == 6
    assert "tilt 515, at least 500" in page.words
    assert "seam 3.8, at most 4" in page.words


def test_the_nearest_rows_are_those_of_the_whole_table(run: ReportRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution may be of a sample; the row at the limit is found wherever it is."""
    monkeypatch.setattr(measures, "SAMPLED_ROWS", 4)
    rows = [triplet(n, seam=3.99 if n == 17 else 1.0 + n / 100, tilt=0.0) for n in range(20)]
    run.flow("cars", rows, COLUMNS)
    write_recipe(run, {"cars": [select(seam={"max": 4})]})
    assert list_shown_rows(run.page(rows=2))[0] == 17


def test_limits_are_read_from_the_recipe(run: ReportRun) -> None:
    """Two selections in a row narrow each other; a recipe that is missing or damaged has no limits."""
    assert read_limits(run.store) == {}
    stages = [select(seam={"max": 9, "min": 1}), {"matte": {}}, select(seam={"max": 4, "missing": True}), "masks"]
    write_recipe(run, {"cars": stages})
    assert read_limits(run.store) == {"cars": {"seam": Limit(1, 4)}}
    for damaged in (b"flows: [", b"flows: {cars: 3, vans: {stages: [{select: {keep: [1]}}]}}", b"\xff\xfe"):
        run.store.write("recipe.yaml", damaged)
        assert all(not limits for limits in read_limits(run.store).values())


def test_margins_at_the_edges() -> None:
    """A median at the limit has no margin; beyond a limit the margin is negative; of two limits the nearer counts."""
    assert Limit(high=0).compute_margins(np.array([0.0, 1.0]), typical=0).tolist() == [math.inf, math.inf]
    assert Limit(low=0, high=10).compute_margins(np.array([1.0, 9.5, 11.0]), typical=5).tolist() == [0.2, 0.1, -0.2]
    assert Limit(high=1).compute_margins(np.array([np.nan]), typical=0.5).tolist() == [math.inf]


def test_distributions_draw_what_was_kept_and_rejected(run: ReportRun) -> None:
    """Bars are as high as their counts, what was rejected stands on what was kept, the limit is a line at its value; an
    outlier cannot squeeze the rest; a column without a limit is drawn on a click, a constant is a sentence."""
    kept, rejected = np.array([1.0] * 30 + [2.0] * 15), np.array([2.0] * 15)
    page = Page(charts.draw_distribution("seam", Measure(kept, rejected), Limit(high=3)))
    paths = {attrs["class"]: attrs["d"] or "" for attrs in page.all("path")}
    bars = {kind: re.findall(r"M(\S+) (\S+?)v-(\S+?)h", path) for kind, path in paths.items()}
    (first, second), (top,) = bars["kept"], bars["rejected"]
    assert [float(first[2]), float(second[2]), float(top[2])] == [56, 28, 28]
    assert (top[0], float(top[1])) == (second[0], float(second[1]) - 28)
    (line,) = page.all("line")
    assert [float(first[0]), float(second[0]), float(line["x1"] or 0)] == [0, 150, 300]  # of an axis from 1 to 3
    assert "at most 3 · median 1.5" in page.words

    values = np.append(np.linspace(0, 1, 999), 1e6)
    wide = Page(charts.draw_distribution("seam", Measure(values)))
    assert len(re.findall("M", wide.all("path")[0]["d"] or "")) > 30

    run.flow("cars", [triplet(n, seam=n / 7, tilt=2.5) for n in range(5)], COLUMNS)
    page = run.page()
    assert "1 measure without a limit" in page.words
    assert "tilt 2.5" in page.words.split("The same in all rows")[1]


def test_rejected_inputs_are_shown_by_reason(run: ReportRun) -> None:
    """An input that a selection rejected is shown with the pictures that it has in the flow that was selected from; of
    each reason one comes before another has two. Its values count in the distributions. One without pictures is a
    line."""
    run.flow("cars", [triplet(n, seam=float(n), tilt=1.0 - n / 9) for n in range(9)], COLUMNS)
    light = {name: kind for name, kind in COLUMNS.items() if kind in (Kind.STRING, Kind.FLOAT)}
    kept = [{name: value for name, value in triplet(n, seam=float(n), tilt=0.5).items() if name in light} for n in (0,)]
    reasons = ["seam above 1"] * 6 + ["tilt below 0.2"]
    gone = [
        RejectedRow(f"{n:08x}" * 4, "in/x", "select", "rejected", reason, f"{n}.5", f"{n:08x}" * 4)
        for n, reason in enumerate(reasons, 2)
    ]
    gone.append(RejectedRow("draw", "in/y", "select", "rejected", "no place", "", "draw"))
    run.flow("good", kept, light, gone, upstream=["cars"], stage="select")
    write_recipe(run, {"good": [select(seam={"max": 1}, tilt={"min": 0.2})]})
    page = run.page(rows=3)
    rejected = page.html.split('<section id="rejected">')[1].split("</section>")[0]
    captions = re.findall(r'<b class="bad"><bdi>(.*?)</bdi>', rejected)
    assert captions == ["seam above 1", "seam above 1", "tilt below 0.2"]
    assert rejected.count('data-name="source"') == 3
    assert "no place" in rejected
    assert "1 row, 7 rejected" in page.words
    assert "at most 1 · median 5" in page.words  # of 0, of 2.5 to 7.5, for which they were rejected, and of 8


def test_a_page_is_bounded_whatever_its_data(run: ReportRun) -> None:
    """Pictures that do not compress and texts without end make no larger page: what does not fit is counted."""
    noise = np.random.default_rng(3).integers(0, 256, (200, 300, 3), np.uint8)
    long = "W" * 100_000
    fields = dict.fromkeys(("label", "origin", "licence", "scene_id"), long)
    size = {"mask": np.zeros((200, 300), bool), "foreground_mask": np.zeros((200, 300), bool)}
    rows = [triplet(n, source=noise, target=noise[::-1].copy(), **size, **fields) for n in range(6)]
    gone = [RejectedRow(f"x{n}", long, "load", "rejected", f"{n} {long}", long, "x") for n in range(3)]
    run.flow("cars", rows, TRIPLETS, gone)
    whole = render(run.store, 6, size=10_000_000)
    bare = len(render(run.store, 6, size=0))
    part = render(run.store, 6, size=len(whole) // 2)
    assert bare < 100_000
    assert len(part) < bare + len(whole) // 2
    assert 0 < count_panels(Page(part), "source") < 6
    left_out = 6 - count_panels(Page(part), "source")
    assert f"{left_out} more rows are not shown" in Page(part).words
    assert "not shown" not in Page(whole).words


def test_light_that_would_be_black_is_not_shown() -> None:
    """A cut-out is shown with the outline of its object; its light only where it can be seen."""
    roles = thumbnails.assign_roles(
        {"foreground": Kind.RGBA, "foreground_light": Kind.RGB, "foreground_object": Kind.MASK}
    )
    light = np.zeros((40, 40, 3), np.uint8)
    light[0, 0] = 60
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    cells = {
        "foreground": encode_image(np.full((40, 40, 4), 90, np.uint8)),
        "foreground_light": encode_image(light),
        "foreground_object": encode_mask(mask),
    }
    raw = {name: {"bytes": value, "path": None} for name, value in cells.items()}
    (panel,) = thumbnails.build_example(raw, roles, 40).panels
    assert panel.name == "cut-out"
    assert panel.paths["object"]


@pytest.mark.browser
def test_outlines_are_shown_and_hidden_without_a_script(run: ReportRun, tmp_path: Path, browser: "Browser") -> None:
    """The ground plane hides nothing until its box is ticked, except that a picture of it alone has its outline; the
    object's outline goes when its box is cleared. No script runs for it, and the page asks for nothing."""
    ground = np.ones((60, 90), bool)
    run.flow("cars", [triplet(1, ground_mask=ground)], TRIPLETS | {"ground_mask": Kind.MASK})
    photo = {name: value for name, value in triplet(0).items() if name in PHOTOS}
    run.flow("photos", [photo | {"ground_mask": ground, "box": None}], PHOTOS)
    page_path = tmp_path / "page.html"
    page_path.write_text(run.page().html)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_path.as_uri())
    page.locator("#flow-1 summary").first.click()
    of_triplet, of_photo = (page.locator(f"#flow-{n} path.ground") for n in (0, 1))
    outline = page.locator("#flow-0 path.object")
    assert [of_triplet.is_visible(), of_photo.is_visible(), outline.is_visible()] == [False, True, True]
    page.locator("#show-ground").check()
    page.locator("#show-object").uncheck()
    assert [of_triplet.is_visible(), of_photo.is_visible(), outline.is_visible()] == [True, True, False]
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    context.close()
