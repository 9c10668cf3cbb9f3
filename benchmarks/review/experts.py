"""What the measurements of a simulated expert share: the browser, and the printed figures."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common import print_result
from benchmarks.review_load import compute_quantile_ms

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = os.environ.get("RASURA_CHROMIUM", "/usr/bin/chromium")
OBSERVE = """window.tasks = []; new PerformanceObserver((list) => { for (const entry of list.getEntries())
tasks.push(entry.duration); }).observe({ entryTypes: ['longtask'] });"""
TRACED = ["toplevel", "blink.user_timing"]
START_RECORDS = "() => { tasks.length = 0; performance.setResourceTimingBufferSize(100000); }"
"""Forgets the long tasks until now, and makes room for the times of all requests."""
REQUESTS = """(part) => performance.getEntriesByType('resource').filter((entry) => entry.name.includes(part))
.map((entry) => entry.duration / 1000)"""
"""Seconds that a page waited for the answers from addresses with a part."""


@contextmanager
def open_browser() -> "Iterator[Page]":
    """Open a page of Chromium that records the long tasks of its main thread."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(viewport={"width": 1366, "height": 768}).new_page()
        page.set_default_timeout(120_000)
        page.add_init_script(OBSERVE)
        yield page
        browser.close()


@contextmanager
def trace_main_thread(page: "Page", file: Path) -> Iterator[list[float]]:
    """Trace a page; at the end, the list has the processor time of each task of its main thread, ms.

    On a busy machine a task waits for a processor, so that its duration says little.

    Args:
        page: whose script marks something meanwhile (`performance.measure`), which tells its process from others.
        file: for the trace.
    """
    times: list[float] = []
    browser = page.context.browser
    assert browser is not None
    browser.start_tracing(page=page, categories=TRACED, path=str(file))
    yield times
    browser.stop_tracing()
    events = json.loads(file.read_bytes())["traceEvents"]
    processes = {event["pid"] for event in events if "blink.user_timing" in event.get("cat", "")}
    main = {
        (event["pid"], event["tid"])
        for event in events
        if event.get("name") == "thread_name"
        and event["args"]["name"] == "CrRendererMain"
        and event["pid"] in processes
    }
    times += [
        event.get("tdur", 0) / 1000
        for event in events
        if (event["pid"], event["tid"]) in main and event["ph"] == "X" and event["name"].endswith("RunTask")
    ]


def print_pace(
    name: str,
    count: int,
    seconds: float,
    keys: int,
    times: Sequence[float],
    blocked: Sequence[float],
    requests: Mapping[str, Sequence[float]],
    busy: Sequence[float] = (),
) -> None:
    """Print the measurement of an expert.

    Args:
        name: of the measurement.
        count: of verdicts.
        seconds: for all of them.
        keys: that were pressed.
        times: from the last key of each verdict to the painted next item, s.
        blocked: durations of the page's tasks that took more than 50 ms, ms.
        requests: seconds that the page waited for each answer of the server, by what was asked.
        busy: processor time of the tasks of the page's main thread, ms.
    """
    print_result(
        name,
        verdicts=count,
        items_per_minute=round(60 * count / seconds, 1),
        seconds_each=round(seconds / count, 3),
        keys_each=round(keys / count, 2),
        key_to_paint_ms={share: compute_quantile_ms(times, share) for share in (0.5, 0.95)},
        p95_ms={name: compute_quantile_ms(values, 0.95) for name, values in requests.items()},
        blocked={"tasks": len(blocked), "longest_ms": round(max(blocked, default=0))},
        longest_task_processor_ms=round(max(busy), 1) if busy else None,
        load=round(os.getloadavg()[0], 1),
    )
