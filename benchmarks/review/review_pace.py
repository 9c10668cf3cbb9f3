"""Items a minute of a simulated expert on the review's page, and on Label Studio's.

The expert decides in 0.8 s once the next pictures are on the screen. On the review's page every third item is looked
at closely before that, in turn by holding the key for the picture before (0.3 s) and by dragging the slider (0.4 s).
Goals: 55 items a minute, and the main thread never blocked for more than 50 ms, also by the differences and at the
stored size, which follow at the end.

    python -m benchmarks review_pace

Environment variables: REVIEW_VERDICTS (60), and LABEL_STUDIO, the path of a `label-studio` command, which is installed
in an environment of its own: the same pictures are then judged on its page, too, with its hotkeys and without a closer
look.
"""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common import make_scratch_folder
from benchmarks.review.experts import REQUESTS, START_RECORDS, open_browser, print_pace, trace_main_thread
from benchmarks.review.label_studio_page import measure_page
from benchmarks.review.review_pages import make_large_candidates, serve

if TYPE_CHECKING:
    from playwright.sync_api import Page

VERDICTS = int(os.environ.get("REVIEW_VERDICTS", "60"))
DECISION_S = 0.8
BLINK_S = 0.3
DRAG_S, DRAG_STEPS = 0.4, 8
CYCLE = (("y",), ("n", "1"), ("y",), ("u",), ("y",), ("n", "2"))
"""Keys of the verdicts, in turn."""


def count_judged(page: "Page") -> int:
    """Return the number of verdicts after which the next item was painted."""
    return int(page.evaluate("performance.getEntriesByName('judge').length"))


def look_closely(page: "Page", number: int) -> None:
    """Look at the picture before, in turn by holding its key and with the slider."""
    if number % 2:
        page.keyboard.down(" ")
        page.wait_for_timeout(1000 * BLINK_S)
        page.keyboard.up(" ")
        return
    page.keyboard.press("v")
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    for step in range(DRAG_STEPS):
        page.wait_for_timeout(1000 * DRAG_S / DRAG_STEPS)
        page.mouse.move(box["x"] + box["width"] * (0.3 + 0.05 * step), box["y"] + box["height"] / 2)
    page.mouse.up()
    page.keyboard.press("v")
    page.keyboard.press("v")


def judge_items(page: "Page", count: int) -> tuple[float, int, list[float]]:
    """Judge items as the expert does, and return the seconds, the keys that were pressed, and the long tasks, ms."""
    keys = 0
    page.evaluate(START_RECORDS)
    start = time.perf_counter()
    for number in range(count):
        before = count_judged(page)
        page.wait_for_timeout(1000 * DECISION_S)
        if number % 3 == 0:
            look_closely(page, number // 3)
        for key in CYCLE[number % len(CYCLE)]:
            page.keyboard.press(key)
            keys += 1
        page.wait_for_function("(before) => performance.getEntriesByName('judge').length > before", arg=before)
    return time.perf_counter() - start, keys, page.evaluate("tasks")


def measure_review(name: str, run: Path, database: Path, count: int) -> None:
    """Measure the expert on the review's page."""
    with serve(run, database) as (server, _, token), open_browser() as page:
        page.goto(f"http://127.0.0.1:{server.port}/#token={token}")
        page.wait_for_function("() => !document.getElementById('tag-one').hidden")
        page.wait_for_timeout(2000)
        with trace_main_thread(page, database.with_suffix(".trace")) as busy:
            seconds, keys, blocked = judge_items(page, count)
            page.keyboard.press("d")
            page.wait_for_function("() => !document.getElementById('heat-note').hidden")
            page.keyboard.press("x")
            page.wait_for_timeout(3000)
        times = page.evaluate("performance.getEntriesByName('judge').map((entry) => entry.duration / 1000)")
        requests = {"next": page.evaluate(REQUESTS, "/api/next"), "submit": page.evaluate(REQUESTS, "/api/votes")}
    print_pace(f"review_pace {name}", count, seconds, keys, times, blocked, requests, busy)


def main() -> None:
    with make_scratch_folder() as folder:
        for name, width, height, count in (("512 px", 512, 342, VERDICTS), ("24 MP", 6000, 4000, 20)):
            run = folder / name.replace(" ", "")
            make_large_candidates(run, count + 8, width, height)
            measure_review(name, run, folder / f"{run.name}.sqlite", count)
            if (command := os.environ.get("LABEL_STUDIO")) and width == 512:
                measure_page(command, run, folder, count, width, DECISION_S)


if __name__ == "__main__":
    main()
