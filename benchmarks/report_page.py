"""The report of a run of many rows: how long it takes to make and to open, how large it is, what memory it needs.

Goals: the first picture at most 3 s after the page is opened from a disk, at 10,000 rows that all have pictures; search
and order within a second.

    python -m benchmarks report_page

REPORT_ROWS (10000) changes the number of rows. The run is written without Ray; Chromium is RASURA_CHROMIUM or
/usr/bin/chromium.
"""

import json
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.common import make_scratch_folder, print_result, run_rasura
from benchmarks.review.experts import CHROMIUM
from rasura.manifests.compacted.manifest import write_manifest
from rasura.manifests.run_layout import FlowDescription, RunPlan, table_path, write_plan
from rasura.manifests.schemas import PROVENANCE, TRIPLET, Kind, encode_records
from rasura.manifests.shards import RejectedRow, StageCount, commit
from rasura.manifests.storage import Store

ROWS = int(os.environ.get("REPORT_ROWS", "10000"))
SHARD_ROWS = 500
WIDTH, HEIGHT = 120, 80
"""Size of the pictures, px: each is another one, and small, so that the run is light."""
MEASURES = [f"measure_{number}" for number in range(12)]
COLUMNS = {**PROVENANCE, **TRIPLET, **dict.fromkeys(MEASURES, Kind.FLOAT)}
RECIPE = """\
name: many
flows:
  made:
    stages:
    - select: {keep: {measure_0: {max: 2.5}, measure_1: {min: -2.5}}}
"""


def make_pictures(rng: np.random.Generator, count: int) -> pa.Table:
    """Make triplets of smooth colours, with a disc and its shadow."""
    import cv2

    y, x = np.mgrid[:HEIGHT, :WIDTH]
    records = []
    for number in range(count):
        colours = rng.integers(40, 216, (4, 6, 3), np.uint8)
        target = cv2.resize(colours, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR) // 8 * 8
        left, top = rng.uniform(30, WIDTH - 30), rng.uniform(25, HEIGHT - 35)
        mask = (x - left) ** 2 + (y - top) ** 2 < 15**2
        whole = mask | (((x - left) / 2) ** 2 + ((y - top - 18) * 2) ** 2 < 10**2)
        source = target.copy()
        source[whole] //= 2
        source[mask] = rng.integers(0, 256, 3)
        record = {"id": str(number), "source": source, "target": target, "mask": mask, "foreground_mask": whole}
        records.append(record)
    return encode_records(records, COLUMNS)


def make_shard(rng: np.random.Generator, start: int, count: int) -> pa.Table:
    """Make rows with texts and measures."""
    numbers, table = range(start, start + count), make_pictures(rng, count)
    values = {
        "id": [f"{number:032x}" for number in numbers],
        "kind": ["captured"] * count,
        "scene_id": [f"scene {number // 2}" for number in numbers],
        "split": ["test" if number % 10 == 0 else "train" for number in numbers],
        "origin": [f"photographs/2026/{number // 100:04d}/{number:06d}.jpg" for number in numbers],
        "label": [("car", "person", "dog", "bicycle", "bench")[number % 5] for number in numbers],
        "licence": ["CC BY 4.0"] * count,
        **{name: rng.normal(0, 1, count).tolist() for name in MEASURES},
    }
    for name, column in values.items():
        index = table.schema.get_field_index(name)
        field = table.schema.field(index)
        table = table.set_column(index, field, pa.array(column, type=field.type))
    return table


def make_run(folder: Path) -> None:
    """Write a run of one flow with rejected inputs, as the engine writes it."""
    rng, store = np.random.default_rng(1), Store(folder)
    table, records = store.sub(table_path("made")), []
    for start in range(0, ROWS, SHARD_ROWS):
        count = min(SHARD_ROWS, ROWS - start)
        gone = [
            RejectedRow(
                f"x{start + n}", f"in/{start + n}.jpg", "select", "rejected", "measure_0 above 2.5", "3", f"x{n}"
            )
            for n in range(10)
        ]
        stages = [
            StageCount("select", count + 10, count, count, rejected={"measure_0 above 2.5": 10}),
            StageCount("write", count, count, count),
        ]
        rows = make_shard(rng, start, count)
        records.append(commit(table, f"{start:08d}", "p", count + 10, rows, gone, stages))
    write_manifest(table, records, COLUMNS)
    kinds = {name: str(kind) for name, kind in COLUMNS.items()}
    write_plan(store, RunPlan("many", "0" * 32, {"made": FlowDescription("p", [], ["select"], kinds)}, ["made"]))
    store.write("recipe.yaml", RECIPE.encode())


def open_page(page_path: Path) -> dict[str, float]:
    """Open a page in Chromium, from the disk: seconds to the first picture, to the answer of a search and of an order,
    and the megabytes of its JavaScript.
    """
    from playwright.sync_api import sync_playwright

    painted = "() => [...document.querySelectorAll('.card img')].some((i) => i.complete && i.naturalWidth > 0)"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        page.goto("about:blank")
        start = time.perf_counter()
        page.goto(page_path.as_uri(), wait_until="commit")
        page.wait_for_function(painted, polling=20, timeout=120_000)
        result = {"first_picture_s": time.perf_counter() - start}
        start = time.perf_counter()
        page.get_by_label("Search all texts").fill("dog 004999")
        page.wait_for_function(
            "() => document.querySelector('[role=status]').textContent.includes('match')", polling=20
        )
        result["search_s"] = time.perf_counter() - start
        page.get_by_label("Search all texts").fill("")
        page.wait_for_function(
            "() => !document.querySelector('[role=status]').textContent.includes('match')", polling=20
        )
        before = page.locator(".card code").first.get_attribute("title")
        start = time.perf_counter()
        page.get_by_label("Order by").select_option("measure_3")
        page.wait_for_function(
            "(id) => document.querySelector('.card code').title !== id", arg=before, polling=20, timeout=30_000
        )
        result["order_s"] = time.perf_counter() - start
        result["heap_mb"] = page.evaluate("() => performance.memory.usedJSHeapSize") / 1e6
        browser.close()
    return result


def main() -> None:
    """Make a run, write its page with few and with all pictures, and open each."""
    with make_scratch_folder() as folder:
        run = folder / "run"
        make_run(run)
        for rows in (300, ROWS):
            out = folder / f"page-{rows}.html"
            seconds, peak = run_rasura("report", run, "--out", out, "--rows", rows, "--quiet", track_memory=True)
            beside = list(out.with_name(f"{out.stem}_files").glob("*"))
            page = out.read_text()
            print_result(
                "report_page",
                rows=ROWS,
                with_pictures=rows,
                build_s=round(seconds, 1),
                peak_mb=round(peak),
                page_mb=round(len(page) / 1e6, 2),
                files_beside=len(beside),
                beside_mb=round(sum(path.stat().st_size for path in beside) / 1e6, 1),
                **{name: round(value, 2) for name, value in open_page(out).items()},
            )
            assert json.loads(page.split('id="galleries">')[1].split("</script>")[0])[0]["count"] == ROWS


if __name__ == "__main__":
    main()
