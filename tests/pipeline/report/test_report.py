"""The report: one page that shows a run as it is, whatever state the run is in and whatever its data is called."""

import base64
import hashlib
import io
import json
import math
import re
from collections import Counter
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from support.annotator.queue import ONE, lease
from support.annotator.runs import people
from support.report_pages import PHOTOS, TRIPLETS, Page, ReportRun, count_panels, triplet

from rasura.annotator.store.database import Database, items
from rasura.annotator.store.items import load_queue
from rasura.annotator.store.vote_log import Submission, cast_vote
from rasura.manifests.images import encode_image
from rasura.manifests.run_layout import NoRun
from rasura.manifests.schemas import PICTURES, Kind
from rasura.manifests.shards import RejectedRow
from rasura.manifests.storage import Store
from rasura.manifests.tables import REFERENCE
from rasura.pipeline.report import charts, run_page, run_tables, thumbnails
from rasura.pipeline.report.run_page import write
from rasura.pipeline.run.review import read_row_verdicts, summarize_review


@pytest.fixture
def run(tmp_path: Path) -> ReportRun:
    return ReportRun(tmp_path / "run")


def test_shows_the_run(run: ReportRun) -> None:
    """A triplet has source, target, difference and cut-out with its outlines; its values are in the page's tables, what
    was rejected in a table of its own, and the numbers of the funnel and of the dataset stand in the text."""
    rejected = RejectedRow("x", "in/x.png", "load", "rejected", "blurred", "12 of 100", "x")
    run.flow("cars", [triplet(n) for n in range(3)], TRIPLETS, [rejected])
    page = run.page()
    assert [count_panels(page, name) for name in ("source", "target", "difference", "cut-out")] == [3, 3, 3, 3]
    for entry in page.pictures("cars").values():
        source = entry["panels"][0]
        assert source["paths"].keys() == {"object", "effects"}
        assert source["src"] in page.json["sources"]
        assert round(entry["areas"]["object"], 2) == 0.11
    assert page.column("cars", "alpha_psnr") == [41.5] * 3
    assert page.column("cars", "weights") == [f"sam {'ab' * 32}"] * 3
    values = [page.column("cars, rejected", name) for name in ("id", "origin", "outcome", "stage", "reason", "detail")]
    assert values == [["x"], ["in/x.png"], ["rejected"], ["load"], ["blurred"], ["12 of 100"]]
    for words in ("1 blurred", "adds up", "CC BY 4.0", "ab" * 32, "car"):
        assert words in page.words
    assert "✗" not in page.words


def test_is_self_contained(run: ReportRun) -> None:
    """Nothing is fetched: pictures are in the page, each once, there are no links outwards; the policy admits the
    page's one script by its hash, and no request."""
    run.flow("cars", [triplet(n) for n in range(3)], TRIPLETS)
    page = run.page()
    for data in page.json["sources"].values():
        assert base64.b64decode(data)[8:12] == b"WEBP"
    names = {panel["src"] for entry in page.pictures("cars").values() for panel in entry["panels"]}
    assert names == set(page.json["sources"])
    assert not [attrs for _, attrs in page.tags if not (attrs.get("href") or "#").startswith(("#", "data:"))]
    assert not [attrs for _, attrs in page.tags if "src" in attrs]
    script = page.html.rpartition("<script>")[2].partition("</script>")[0]
    assert len([attrs for attrs in page.all("script") if attrs.get("type") != "application/json"]) == 1
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"] or ""
    assert f"script-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy


def test_data_cannot_become_markup(run: ReportRun) -> None:
    """Names with quotes, tags, dollars and letters of any script appear as they are, and change nothing else."""
    nasty = [
        '"><script>alert(1)</script>',
        "</script><script>alert(1)</script><!--<script>",
        "' onerror='alert(1)",
        "$name ${recipe} $$",
        "&lt;b&gt;",
        "צילום обрезанный 写真 \u2028 \u202e",
        "__proto__",
    ]
    fields = ("label", "origin", "licence", "split", "kind", "scene_id")
    rows = [triplet(n, **dict.fromkeys(fields, name), weights={name: name}) for n, name in enumerate(nasty)]
    gone = [RejectedRow(f"{name}{n}", name, "load", "failed", name, name, name) for n, name in enumerate(nasty)]
    run.flow("flow <i>\"'", rows, TRIPLETS, gone)
    page = run.page()
    assert len([attrs for attrs in page.all("script") if attrs.get("type") != "application/json"]) == 1
    assert page.html.count("<script") == len(page.all("script"))
    assert not page.all("b", onerror="alert(1)")
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    assert page.column("flow <i>\"'", "label") == nasty
    assert page.column("flow <i>\"', rejected", "reason") == nasty
    for name in [*nasty, "flow <i>\"'"]:
        assert name in page.words


def test_is_deterministic(run: ReportRun, tmp_path: Path) -> None:
    """The same files of a run give the same bytes, wherever it stands; times and machine are those of its log."""
    event = {"event": "commit", "time": 1.7e9, "host": "vm7", "flow": "cars", "shard": "cars0", "seconds": {"load": 12}}
    start = {"event": "start", "time": 1.7e9 - 60, "host": "vm7", "resources": {"CPU": 16, "GPU": 1, "nodes": 1}}
    damaged = [
        {"event": "start", "time": "then", "resources": 3},
        {"event": "flow", "time": 1, "flow": [], "seconds": {}},
    ]
    other = ReportRun(tmp_path / "elsewhere")
    for each in (run, other):
        each.flow("cars", [triplet(n) for n in range(5)], TRIPLETS)
        lines = [json.dumps(line) for line in (start, event, *damaged[:1])]
        each.store.write("log/a.jsonl", "\n".join(lines).encode())
    first = Path(write(run.store)).read_bytes()
    assert Path(write(other.store, tmp_path / "pages" / "page.html")).read_bytes() == first
    assert write(run.store) == str(tmp_path / "run/report.html")
    page = Page(first.decode())
    for words in ("2023-11-14 22:12 to 2023-11-14 22:13 UTC", "vm7", "16 CPU cores, 1 GPU"):
        assert words in page.words
    assert page.all("td", **{"data-name": "seconds"})
    assert page.all("td", **{"data-seconds": "12"})
    endless = {"event": "flow", "time": math.nan, "flow": "cars", "seconds": math.inf}
    lines = [damaged[1], endless, endless | {"time": 1}, endless | {"time": 1, "seconds": math.nan}]
    other.store.write("log/b.jsonl", "\n".join(map(json.dumps, lines)).encode())
    write(other.store)


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
    assert [gallery["title"] for gallery in page.json["galleries"]] == ["good", "cars"]
    assert page.column("good", "label") == ["chosen"]
    assert "ref_shard" not in page.gallery("good")["columns"]
    assert "Pictures are in the tables that chose from these rows." in page.gallery("cars")["note"]
    assert "1 row" in page.words.split("Object area")[1].split("Funnel")[0]

    (run.store.local or Path()).joinpath("tables/cars/shards/cars2.parquet").unlink()
    page = run.page()
    assert page.pictures("good")[0]["fault"]
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
    counts = {gallery["title"]: gallery["count"] for gallery in page.json["galleries"]}
    assert counts == {"later": 0, "making": 4, "nothing": 0, "nothing, rejected": 1}
    assert count_panels(page, "source") == 4
    cut = (run.store.local or Path()) / "tables/making/shards/making0.parquet"
    cut.write_bytes(cut.read_bytes()[:2000])
    page = run.page()
    assert "Cannot be read: shards/making0.parquet" in page.words
    assert count_panels(page, "source") == 2


def test_the_composition_of_a_dataset_is_shown(run: ReportRun) -> None:
    """Simulated triplets are counted by shadow direction, by objects in a picture, and by how often each background and
    cut-out was used; removers are counted; a run without any of these shows none of it."""
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

    other = ReportRun("memory://report/edited")
    edited = [triplet(n, kind="edited", remover=("telea", "ns")[n % 2]) for n in range(3)]
    other.flow("candidates", edited, TRIPLETS)
    page = other.page()
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
    """A photo is one picture with its ground and its detection to draw over it; one that lacks them is fine."""
    ground = np.zeros((60, 90), bool)
    ground[40:] = True
    base = {name: value for name, value in triplet(0).items() if name in PHOTOS}
    photos = [base | {"ground_mask": ground, "box": [10.0, 5.0, 50.0, 30.0]}, base | {"id": "b" * 32}]
    run.flow("photos", photos, PHOTOS)
    page = run.page()
    first, second = (entry["panels"] for entry in page.pictures("photos").values())
    assert [panel["name"] for panel in first + second] == ["source", "source"]
    assert first[0]["paths"]["box"] == "M10 5H50V30H10Z"
    assert first[0]["paths"]["ground"]
    assert "paths" not in second[0]
    assert page.pictures("photos")[0]["areas"]["ground"] == 0.33333
    assert "No flow makes triplets." in page.words


def test_all_rows_have_values_and_some_have_pictures(run: ReportRun) -> None:
    """The values of all rows are in the page; as many as asked for have pictures, spread evenly over the table."""
    assert thumbnails.space_evenly(100, 4) == [12, 37, 62, 87]
    assert thumbnails.space_evenly(3, 12) == [0, 1, 2]
    assert thumbnails.space_evenly(0, 12) == []
    run.flow("cars", [triplet(n) for n in range(10)], TRIPLETS)
    page = run.page(rows=2)
    assert page.column("cars", "id") == [f"{n:08x}" * 4 for n in range(10)]
    assert list(page.pictures("cars")) == [2, 7]
    assert count_panels(run.page(rows=0), "source") == 0


def test_a_long_table_is_in_the_page_in_part(run: ReportRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a table with more values than a page can have, every n-th row is there, and every row that has pictures; the
    page says so."""
    monkeypatch.setattr(run_tables, "MOST_ROWS", 4)
    gone = [RejectedRow(f"x{n}", None, "load", "rejected", "blurred", "", f"x{n}") for n in range(9)]
    run.flow("cars", [triplet(n) for n in range(10)], TRIPLETS, gone)
    page = run.page(rows=3)
    assert page.gallery("cars")["total"] == 10
    assert page.column("cars", "origin") == [f"in/{n}.png" for n in (0, 1, 3, 5, 6, 8, 9)]
    assert [page.column("cars", "origin")[row] for row in page.pictures("cars")] == ["in/1.png", "in/5.png", "in/8.png"]
    assert "one row in 3" in page.gallery("cars")["note"]
    assert page.gallery("cars, rejected")["total"] == 9
    assert page.column("cars, rejected", "id") == ["x0", "x3", "x6"]


def test_many_pictures_are_beside_the_page(run: ReportRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its budget a page has its pictures in a folder, by hashes; the next page deletes what it no longer needs
    and nothing else. At full size they are there, too, where they are larger than in the page."""
    large = {
        name: np.repeat(np.repeat(value, 12, axis=0), 12, axis=1)
        for name, value in triplet(0).items()
        if isinstance(value, np.ndarray)
    }
    run.flow("cars", [triplet(n) for n in range(4)] + [triplet(4) | large], TRIPLETS)
    out = tmp_path / "pages" / "p.html"
    files = out.with_name("p_files")
    page = Page(Path(write(run.store, out, full=True)).read_text())
    assert "sources" not in page.json
    assert page.json["pictures"] == {"folder": "p_files"}
    panels = [panel for entry in page.pictures("cars").values() for panel in entry["panels"]]
    names = {panel[key] for panel in panels for key in ("src", "full") if key in panel}
    assert {path.name for path in files.iterdir()} == names
    source = page.pictures("cars")[4]["panels"][0]
    sizes = [Image.open(io.BytesIO((files / source[key]).read_bytes())).size for key in ("src", "full")]
    assert sizes == [(480, 320), (1080, 720)]
    assert source["natural"] == [1080, 720]
    assert "full" not in page.pictures("cars")[0]["panels"][0]
    (files / "mine.webp").write_text("mine")
    monkeypatch.setattr(run_page, "INSIDE_BYTES", 10)
    page = Page(Path(write(run.store, out, rows=1)).read_text())
    assert len(page.pictures("cars")) == 1
    assert len(list(files.iterdir())) == 4 + 1
    monkeypatch.undo()
    assert "sources" in Page(Path(write(run.store, out)).read_text()).json
    assert [path.name for path in files.iterdir()] == ["mine.webp"]


def test_near_duplicates_are_pairs(run: ReportRun) -> None:
    """Nearly the same picture in two scenes is a pair, first of all in two splits; within a scene and a split it is
    what a scene is."""
    noise = np.random.default_rng(5).integers(0, 256, (8, 4, 3), np.uint8)
    pictures = [cv2.resize(np.roll(noise, 3 * n, axis=0) // (1 + n), (90, 60)) for n in range(3)]
    numbers = [0, 1, 0, 2, 2]
    fields = [("a", "train"), ("b", "train"), ("c", "test"), ("d", "train"), ("d", "train")]
    rows = [
        triplet(n, source=pictures[number], scene_id=scene, split=split)
        for n, (number, (scene, split)) in enumerate(zip(numbers, fields, strict=True))
    ]
    run.flow("cars", rows, TRIPLETS)
    page = run.page()
    leak = {"rows": [["flow-0", 0], ["flow-0", 2]], "note": "in two splits: train and test"}
    assert page.json["near-duplicates"] == [leak]
    assert "1 pair" in page.words
    gone = [
        RejectedRow(
            rows[n]["id"], "in/x", "distinct", "rejected", "near-duplicate", f"of {rows[0]['id']} (in/0.png)", id
        )
        for n, id in ((1, rows[1]["id"]), (2, "nobody"))
    ]
    light = {name: kind for name, kind in TRIPLETS.items() if kind not in PICTURES} | REFERENCE
    kept = {name: rows[0].get(name) for name in light} | {"ref_table": "cars", "ref_shard": "cars0", "ref_row": 0}
    run.flow("unique", [kept], light, gone, upstream=["cars"])
    pairs = run.page().json["near-duplicates"]
    pair = {"rows": [["flow-1", 0], ["flow-1-rejected", 0]], "note": "rejected by distinct: near-duplicate"}
    assert pairs == [pair]  # the pictures of `cars` are not in the page again


def test_all_removers_of_a_scene_are_shown(run: ReportRun) -> None:
    """Candidates of one scene have pictures together, so that removers can be compared."""
    names = [f"{n:04x}.{remover}" for n in range(6) for remover in ("lama", "telea")]
    rows = [triplet(n) | {"id": id, "remover": id.partition(".")[2]} for n, id in enumerate(names)]
    run.flow("candidates", rows, TRIPLETS)
    page = run.page(rows=4)
    shown = [page.column("candidates", "id")[row] for row in page.pictures("candidates")]
    assert shown == ["0001.lama", "0001.telea", "0004.lama", "0004.telea"]


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
    """Nothing is black: equal pixels are pale grey, a shadow of a few grey levels is clearly tinted, an object more."""
    source = np.full((10, 30, 3), 120, np.uint8)
    target = source.copy()
    target[:, 10:20] += 8
    target[:, 20:] += 100
    heat = thumbnails.draw_difference(source, target).astype(int)
    tint = np.ptp(heat, axis=2)
    assert tint[0, 0] == 0
    assert heat[0, 0].min() > 180
    assert tint[0, 15] > 25
    assert tint[0, 25] > tint[0, 15] + 40
    assert thumbnails.draw_difference(source // 120, source // 120).min() > 180


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


def test_people_s_verdicts_are_columns(run: ReportRun) -> None:
    """What people said of the pictures of a row is in each table that shows them, its own flow's and a selection's;
    the numbers are those of `status`; a review that cannot be read costs the section and not the page."""
    assert not run.page().all("section", id="review")
    run.flow("cars", [triplet(n, kind="edited") for n in range(4)], TRIPLETS)
    light = {name: kind for name, kind in TRIPLETS.items() if kind not in PICTURES}
    chosen = [{name: value for name, value in triplet(n, kind="edited").items() if name in light} for n in range(3)]
    references = [{"ref_table": "cars", "ref_shard": f"cars{n - n % 2}", "ref_row": n % 2} for n in range(3)]
    run.flow("good", [a | b for a, b in zip(chosen, references, strict=True)], light | REFERENCE, upstream=["cars"])
    file = Path(run.store.uri) / "review" / "review.sqlite"
    database = Database(file)
    load_queue(run.store, database, ONE)
    (ann,) = people(database, ["Ann"])
    with database.read() as connection:
        rows = {row.id: row.row_id for row in connection.execute(items.select())}
    expected: dict[str, tuple[str | None, str | None]] = {}
    said = [("yes", None), ("no", "mask"), ("unsure", None)]
    for item, (verdict, reason) in zip(lease(database, ONE, ann, 3), said, strict=True):
        entry = Submission(item, f"{item}-nonce", verdict, reason=reason)
        database.write(partial(cast_vote, policy=ONE, reviewer=ann, submission=entry, now=0.0))
        expected[rows[item]] = (verdict, reason)
    database.close()
    page = run.page()
    for title, count in (("cars", 4), ("good", 3)):
        values = zip(*(page.column(title, name) for name in ("id", "verdict", "verdict_reason")), strict=True)
        assert {id: (verdict, reason) for id, verdict, reason in values} == {
            f"{n:08x}" * 4: expected.get(f"{n:08x}" * 4, (None, None)) for n in range(count)
        }
    assert sum(filter(None, page.column("cars", "verdict_votes"))) == 3
    for words in ("3 rows have a verdict", "mask wrong"):
        assert words in page.words
    assert str(summarize_review(run.store, read_row_verdicts(run.store))) == "1 yes, 1 no, 1 unsure (no: mask wrong 1)"
    file.write_bytes(b"no database" * 99)
    damaged = run.page()
    assert "The verdicts cannot be read: " in damaged.words
    assert set(damaged.column("cars", "verdict")) == {None}
