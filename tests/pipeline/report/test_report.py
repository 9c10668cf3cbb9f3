"""The report: one page that shows a run as it is, whatever state the run is in and whatever its data is called."""

import base64
import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.report_pages import PHOTOS, TRIPLETS, Page, ReportRun, count_panels, triplet

from rasura.manifests.images import encode_image
from rasura.manifests.run_layout import NoRun
from rasura.manifests.schemas import PICTURES, Kind
from rasura.manifests.shards import RejectedRow
from rasura.manifests.storage import Store
from rasura.manifests.tables import REFERENCE
from rasura.pipeline.report import charts, thumbnails
from rasura.pipeline.report.run_page import render, write


@pytest.fixture
def run(tmp_path: Path) -> ReportRun:
    return ReportRun(tmp_path / "run")


def test_shows_the_run(run: ReportRun) -> None:
    """A triplet is shown as source, target, difference and cut-out with its outlines and measurements, and the numbers
    of the funnel and of the dataset stand in the text."""
    rejected = RejectedRow("x", "in/x.png", "load", "rejected", "blurred", "12 of 100", "x")
    run.flow("cars", [triplet(n) for n in range(3)], TRIPLETS, [rejected])
    page = run.page()
    assert [count_panels(page, name) for name in ("source", "target", "difference", "cut-out")] == [3, 3, 3, 3]
    assert len(page.all("path", **{"class": "object"})) == 3 + 1  # one is the legend's
    assert len(page.all("path", **{"class": "effects"})) == 3 + 1
    for words in (
        "1 blurred",
        "adds up",
        "object 11 %",
        "alpha PSNR 41.5 dB",
        "in/x.png",
        "12 of 100",
        "CC BY 4.0",
        "ab" * 32,
        "car",
    ):
        assert words in page.words
    assert "✗" not in page.words


def test_is_self_contained_and_accessible(run: ReportRun) -> None:
    """Nothing is fetched: pictures are data, there are no links outwards; every picture has a text of its own; the
    policy admits the page's one script by its hash."""
    run.flow("cars", [triplet(n) for n in range(3)], TRIPLETS)
    page = run.page()
    pictures = page.all("img")
    assert all((attrs["src"] or "").startswith("data:image/webp;base64,") for attrs in pictures)
    assert all(attrs["alt"] for attrs in pictures)
    assert len({attrs["alt"] for attrs in pictures}) == len(pictures)
    assert not [attrs for _, attrs in page.tags if (attrs.get("href") or "#")[0] != "#"]
    assert "http:" not in page.html
    assert "https:" not in page.html
    (script,) = re.findall(r"<script>(.*?)</script>", page.html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in page.html


def test_data_cannot_become_markup(run: ReportRun) -> None:
    """Names with quotes, tags, dollars and letters of any script appear as they are, and change nothing else."""
    nasty = [
        '"><script>alert(1)</script>',
        "' onerror='alert(1)",
        "$name ${recipe} $$",
        "&lt;b&gt;",
        "צילום обрезанный 写真",
    ]
    fields = ("label", "origin", "licence", "split", "kind", "scene_id")
    rows = [triplet(n, **dict.fromkeys(fields, name), weights={name: name}) for n, name in enumerate(nasty)]
    gone = [RejectedRow(f"{name}{n}", name, "load", "failed", name, name, name) for n, name in enumerate(nasty)]
    run.flow("flow <i>\"'", rows, TRIPLETS, gone)
    page = run.page()
    assert len(page.all("script")) == 1
    assert not page.all("b", onerror="alert(1)")
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    for name in [*nasty, "flow <i>\"'"]:
        assert page.words.count(name) >= (len(fields) if name in nasty else 1)


def test_is_deterministic(run: ReportRun, tmp_path: Path) -> None:
    """The same run gives the same bytes, wherever it stands and whatever its log says of times."""
    run.flow("cars", [triplet(n) for n in range(5)], TRIPLETS)
    first = Path(write(run.store)).read_bytes()
    other = ReportRun(tmp_path / "elsewhere")
    other.flow("cars", [triplet(n) for n in range(5)], TRIPLETS)
    event = {"event": "commit", "flow": "cars", "shard": "cars0", "seconds": {"load": 12.5}}
    other.store.write("log/a.jsonl", json.dumps(event).encode())
    assert Path(write(other.store, tmp_path / "pages" / "page.html")).read_bytes() == first
    assert write(run.store) == str(tmp_path / "run/report.html")


def test_selection_shows_the_pictures_it_refers_to(run: ReportRun) -> None:
    """A flow that only judges holds no pictures; its rows are shown with those of the table they were chosen from."""
    run.flow("cars", [triplet(n) for n in range(4)], TRIPLETS)
    light = {name: kind for name, kind in TRIPLETS.items() if kind not in PICTURES}
    chosen = {name: value for name, value in triplet(3).items() if name in light} | {"label": "chosen"}
    chosen |= {"ref_table": "cars", "ref_shard": "cars2", "ref_row": 1}
    run.flow("good", [chosen], {**light, **REFERENCE}, upstream=["cars"])
    run.describe(["good"])
    page = run.page()
    assert count_panels(page, "source") == 1  # the flow it chose from would only show them again
    assert page.words.count("chosen") > 1  # in the dataset's labels and under the picture
    assert "1 row" in page.words.split("Object area")[1].split("Funnel")[0]

    (run.store.local or Path()).joinpath("tables/cars/shards/cars2.parquet").unlink()
    page = run.page()
    assert "Its pictures cannot be read" in page.words
    assert "Cannot be read: shards/cars2.parquet" in page.words
    assert count_panels(page, "source") == 0


def test_flows_in_any_state(run: ReportRun) -> None:
    """Flows that have not begun, are in the making, kept nothing, or have a shard cut short, are shown as such."""
    assert "The run has no flows." in run.page().words
    run.plan("later", TRIPLETS)
    assert "Nothing is committed yet." in run.page().words
    run.flow("making", [triplet(n) for n in range(4)], TRIPLETS, complete=False)
    gone = [RejectedRow("x", None, "load", "failed", "BadImage", "", "x")]
    run.flow("nothing", [], TRIPLETS, gone)
    page = run.page()
    assert "2 still in progress" in page.words
    assert "in progress, 2 shards so far" in page.words
    assert "No rows were kept." in page.words
    assert "No rows yet." in page.words
    assert count_panels(page, "source") == 4
    cut = (run.store.local or Path()) / "tables/making/shards/making0.parquet"
    cut.write_bytes(cut.read_bytes()[:2000])
    page = run.page()
    assert "Cannot be read: shards/making0.parquet" in page.words
    assert count_panels(page, "source") == 2


def test_the_composition_of_a_dataset_is_shown(run: ReportRun) -> None:
    """Simulated triplets are shown on a contact sheet, numbered, and counted by shadow direction, by objects in a
    picture, and by how often each background and cut-out was used; removers are counted; a run without any of these
    shows none of it."""
    columns = TRIPLETS | {"shadow_azimuth": Kind.FLOAT, "objects": Kind.INT}
    rows = [
        triplet(
            n,
            kind="simulated",
            shadow_azimuth=[None, 10.0, 350.0, 95.0][n % 4],
            objects=1 + n % 2,
            parents=[f"background {n % 3}", *(f"cut-out {n + k}" for k in range(1 + n % 2))],
        )
        for n in range(9)
    ]
    run.flow("drawn", rows, columns)
    page = run.page()
    assert "9 of 9 simulated triplets" in page.words
    assert len([attrs for attrs in page.all("article") if "tile" in (attrs.get("class") or "")]) == 9
    assert page.all("section", id="sheet")
    rose = next(attrs for attrs in page.all("svg") if attrs.get("class") == "rose")
    assert "right 4, right, away 0, away 2," in (rose["aria-label"] or "")
    assert "6 rows, 3 more without a direction" in page.words
    labels = [attrs["aria-label"] for attrs in page.all("svg") if attrs.get("class") == "uses"]
    assert labels == [
        "Use of backgrounds: 3 backgrounds, 3 times each",
        "Use of cut-outs: 9 cut-outs, 1 to 2 times each",
    ]
    assert "1 object5" in page.words
    assert "2 objects4" in page.words
    assert len({attrs["alt"] for attrs in page.all("img")}) == len(page.all("img"))
    assert not Page(render(run.store, 3, sheet=0)).all("section", id="sheet")
    assert len(Page(render(run.store, 3, sheet=4)).all("section", id="sheet")) == 1

    other = ReportRun("memory://report/edited")
    edited = [triplet(n, kind="edited", remover=("telea", "ns")[n % 2]) for n in range(3)]
    other.flow("candidates", edited, TRIPLETS)
    page = other.page()
    assert not page.all("section", id="sheet")
    assert not page.all("svg", **{"class": "rose"})
    assert "telea2" in page.words


def test_charts_draw_what_they_count() -> None:
    """A petal's area is its count; with many things each bar is the mean of its share; equal use is said as such."""
    page = Page(charts.draw_rose(Counter({0: 400, 2: 100, None: 7})))
    petals = [attrs["d"] or "" for attrs in page.all("path")]
    radii = [float(re.findall(r"A(\S+)", petal)[0]) for petal in petals]
    assert radii[0] == 82
    assert radii[2] == 41
    assert radii[1] == 0
    assert "500 rows, 7 more without a direction" in page.words
    many = Page(charts.draw_uses("Use", "thing", range(1, 601)))
    bars = [float(attrs["height"] or 0) for attrs in many.all("rect")]
    assert len(bars) == 60
    assert bars == sorted(bars, reverse=True)
    assert bars[0] == pytest.approx(100 * 595.5 / 600, abs=0.01)
    assert "600 things, 1 to 600 times each" in many.words


def test_lost_inputs_are_reported(run: ReportRun) -> None:
    """When a stage gives more than the next is given, the page says that the account does not add up."""
    run.flow("cars", [triplet(1)], TRIPLETS, lost=1)
    assert "✗ does not add up" in run.page().words
    assert "✗ inputs were lost in 1 flow" in run.page().words


def test_photos_with_ground_and_box(run: ReportRun) -> None:
    """A photo is one picture with its ground and its detection drawn over it; one that lacks them is fine."""
    ground = np.zeros((60, 90), bool)
    ground[40:] = True
    base = {name: value for name, value in triplet(0).items() if name in PHOTOS}
    photos = [base | {"ground_mask": ground, "box": [10.0, 5.0, 50.0, 30.0]}, base | {"id": "b" * 32}]
    run.flow("photos", photos, PHOTOS)
    page = run.page()
    assert count_panels(page, "source") == 2
    assert count_panels(page, "target") == 0
    assert len(page.all("path", **{"class": "ground"})) == 2
    assert page.all("path", **{"class": "box"})[1]["d"] == "M10 5H50V30H10Z"
    assert "ground plane 33 %" in page.words
    assert "No flow makes triplets." in page.words


def test_rows_are_drawn_evenly(run: ReportRun) -> None:
    """As many rows as asked for, spread evenly over the table, the same every time."""
    assert thumbnails.space_evenly(100, 4) == [12, 37, 62, 87]
    assert thumbnails.space_evenly(3, 12) == [0, 1, 2]
    assert thumbnails.space_evenly(0, 12) == []
    run.flow("cars", [triplet(n) for n in range(10)], TRIPLETS)
    page = run.page(rows=2)
    assert "2 of 10 rows" in page.words
    titles = [attrs["title"] for attrs in page.all("code") if "title" in attrs]
    assert titles == [f"{2:08x}" * 4, f"{7:08x}" * 4]


def test_all_removers_of_a_scene_are_shown(run: ReportRun) -> None:
    """Candidates of one scene stand below each other, so that removers can be compared."""
    names = [f"{n:04x}.{remover}" for n in range(6) for remover in ("lama", "telea")]
    rows = [triplet(n) | {"id": id, "remover": id.partition(".")[2]} for n, id in enumerate(names)]
    run.flow("candidates", rows, TRIPLETS)
    titles = [attrs["title"] for attrs in run.page(rows=4).all("code") if "title" in attrs]
    assert titles == ["0001.lama", "0001.telea", "0004.lama", "0004.telea"]


def test_weak_light_is_shown_brightened() -> None:
    """The light of a cut-out is multiplied by a factor that its name has; strong light is as it is."""
    roles = thumbnails.assign_roles({"foreground": Kind.RGBA, "foreground_light": Kind.RGB})
    for level, name in ((5, "foreground_light × 16"), (60, "foreground_light × 4"), (255, "foreground_light")):
        light = np.full((8, 8, 3), level, np.uint8)
        raw = {"foreground_light": {"bytes": encode_image(light), "path": None}}
        (panel,) = thumbnails.build_example(raw, roles, 32).panels
        assert panel.name == name


def test_remote_run() -> None:
    """A run in a bucket is read and its page written there by the same code."""
    run = ReportRun("memory://report/run")
    run.flow("cars", [triplet(1)], TRIPLETS)
    assert write(run.store) == "memory://report/run/report.html"
    assert count_panels(Page(run.store.read("report.html").decode()), "cut-out") == 1


def test_no_run(tmp_path: Path) -> None:
    """A folder that is no run is refused, and nothing is written into it."""
    with pytest.raises(NoRun):
        write(Store(tmp_path))
    assert not list(tmp_path.iterdir())


def test_thumbnails_fit_their_budget() -> None:
    """The more pictures, the smaller they are, within limits."""
    sides = [thumbnails.choose_side(count, 4_000_000) for count in (1, 200, 400, 100_000)]
    assert sides == sorted(sides, reverse=True)
    assert sides[0] == 480
    assert sides[-1] == 160
    assert 400 * (sides[2] ** 2 / 1.5) * thumbnails.BYTES_PER_PIXEL <= 4_000_000


def test_difference_shows_faint_effects() -> None:
    """Equal pixels are black; a shadow of a few grey levels is clearly brighter, and an object brighter still."""
    source = np.full((10, 30, 3), 120, np.uint8)
    target = source.copy()
    target[:, 10:20] += 8
    target[:, 20:] += 100
    heat = thumbnails.draw_difference(source, target).astype(int).sum(axis=2)
    assert heat[0, 0] < 10
    assert heat[0, 15] > heat[0, 0] + 60
    assert heat[0, 25] > heat[0, 15] + 60


def test_outline_follows_the_mask() -> None:
    """The path around a mask, filled again with its holes left out, covers the mask to within its rim."""
    mask = np.zeros((240, 320), bool)
    cv2.circle(canvas := mask.astype(np.uint8), (150, 120), 80, 1, -1)
    cv2.circle(canvas, (150, 120), 30, 0, -1)
    mask = canvas > 0
    loops = [part.split() for part in thumbnails.trace_outline(mask, (160, 120)).replace("M", "").split("Z") if part]
    points = [np.array(loop, int).reshape(-1, 2) for loop in loops]
    filled = cv2.fillPoly(np.zeros((120, 160), np.uint8), points, 1) > 0
    small = cv2.resize(mask.astype(np.uint8), (160, 120), interpolation=cv2.INTER_AREA) > 0
    assert (filled & small).sum() / (filled | small).sum() > 0.95
    assert thumbnails.trace_outline(np.zeros((10, 10), bool), (10, 10)) == ""
