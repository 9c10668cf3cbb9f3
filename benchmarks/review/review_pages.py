"""The review page with large photographs and a long log.

Goals: memory of the server with 12 concurrent 24-megapixel views at most 600 MB; from key to painted picture p95 at
most 60 ms at 512 px and 150 ms at 24 megapixels; the main thread never blocked for more than 50 ms; the admin
page at most five times as slow as the next item with 100,000 entries in the log.

    python -m benchmarks review_pages
"""

import os
import secrets
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import psutil

from benchmarks.common import make_scratch_folder, print_result
from benchmarks.review.experts import open_browser
from benchmarks.review_load import Server, compute_quantile_ms, make_candidates

LOG_ENTRIES = int(os.environ.get("REVIEW_LOG", "100000"))
VIEWS = 12
KEYS = 10


def make_large_candidates(folder: Path, count: int, width: int, height: int) -> None:
    """Make a run of candidates of a size, smooth as photographs are."""
    from support.annotator.runs import CANDIDATES, Run, row

    rows = []
    for number in range(count):
        small = row(number, "edited", 400)
        for name in ("source", "target"):
            small[name] = cv2.resize(small[name], (width, height), interpolation=cv2.INTER_CUBIC)
        mask = small["mask"].astype(np.uint8)
        small["mask"] = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST) > 0
        rows.append(small)
    Run(folder).flow("candidates", rows, CANDIDATES, shard_rows=4)


@contextmanager
def serve(run: Path, database: Path, admin: bool = False) -> Iterator[tuple[Server, httpx.Client, str]]:
    """Serve a run; yield the server, a client that is signed in, and the token of an unused link."""
    from rasura.annotator.store.database import Database
    from rasura.annotator.store.reviewers import add_reviewer, renew_token

    store = Database(database)
    token = store.write(lambda connection: add_reviewer(connection, "Ann", admin))
    second = store.write(lambda connection: renew_token(connection, "Ann", keep=True))
    store.close()
    server = Server(run, str(database))
    server.start()
    url = f"http://127.0.0.1:{server.port}"
    try:
        with httpx.Client(base_url=url, headers={"origin": url}, timeout=600) as client:
            assert client.post("/api/login", json={"token": token}).status_code == 200
            yield server, client, second
    finally:
        server.end()


def measure_memory(folder: Path) -> None:
    """Measure the memory of the server while clients load the views of twelve 24-megapixel items at once."""
    with serve(folder / "large", folder / "memory.sqlite") as (server, client, _):
        assert server.process is not None
        process, ended = psutil.Process(server.process.pid), threading.Event()
        sizes = [process.memory_info().rss]

        def watch() -> None:
            while not ended.wait(0.01):
                sizes.append(process.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        items = [item["id"] for item in client.post("/api/next", json={"want": VIEWS}).json()["items"]]
        pictures = [f"/api/pictures/{item}/{role}" for item in items for role in ("source", "result", "mask")]
        start = time.perf_counter()
        with ThreadPoolExecutor(len(pictures)) as pool:
            statuses = {answer.status_code for answer in pool.map(client.get, pictures)}
        seconds = time.perf_counter() - start
        ended.set()
        watcher.join()
    figures = {"idle_mb": round(sizes[0] / 1e6), "peak_mb": round(max(sizes) / 1e6), "seconds": round(seconds, 1)}
    print_result("review_pages memory", views=len(items), statuses=sorted(statuses), **figures)


def measure_keys(name: str, run: Path, database: Path, keys: int = KEYS) -> None:
    """Measure the time from a key to the painted next picture, and the longest task of the page's main thread."""
    with serve(run, database) as (server, _, token), open_browser() as page:
        answers: list[str] = []
        page.on("response", lambda answer: answers.append(answer.url) if "size=view" in answer.url else None)

        def wait_for_items(count: int) -> None:
            """Wait until the pictures of so many items are loaded: people look longer than that at each."""
            while len(answers) < 3 * count:
                page.wait_for_timeout(50)
            page.wait_for_timeout(200)

        page.goto(f"http://127.0.0.1:{server.port}/#token={token}")
        shown = "() => !document.getElementById('tag-one').hidden"
        page.wait_for_function(shown)
        page.evaluate("() => { tasks.length = 0; }")
        for number in range(keys):
            wait_for_items(number + 3)
            page.keyboard.press("yu"[number % 2])
            page.wait_for_function(shown)
        times = page.evaluate("performance.getEntriesByName('judge').map((entry) => entry.duration / 1000)")
        page.evaluate("() => { tasks.length = 0; }")
        page.keyboard.press("d")
        page.wait_for_function("() => !document.getElementById('heat-note').hidden")
        blocked = page.evaluate("tasks")
    quantiles = {share: compute_quantile_ms(times, share) for share in (0.5, 0.95)}
    print_result(f"review_pages keys {name}", key_to_paint_ms=quantiles, differences_blocked_ms=max(blocked, default=0))


def fill_log(database: Path, entries: int) -> None:
    """Fill the log of a review with votes of twenty reviewers, two on an item."""
    from rasura.annotator.store.database import Database, items, log, standing
    from rasura.annotator.store.reviewers import get_or_add_id

    store = Database(database)

    def fill(connection: Any) -> None:
        people = [get_or_add_id(connection, f"p{number}") for number in range(20)]
        ids = list(connection.exec_driver_sql("SELECT id FROM items WHERE kind = 'candidate'").scalars())
        rows = []
        for number in range(entries):
            item, who = ids[number // 2 % len(ids)], people[(number // 2 + number % 2) % 20]
            verdict = "no" if number % 7 < 2 else "yes"
            entry = {"seq": number + 1, "time": 1e9 + number, "item": item, "reviewer": who, "action": "vote"}
            rows.append({**entry, "verdict": verdict, "seconds": 1.5, "nonce": secrets.token_hex(12)})
        connection.execute(log.insert(), rows)
        connection.execute(
            standing.insert(), [{name: row[name] for name in ("item", "reviewer", "seq", "verdict")} for row in rows]
        )
        connection.execute(items.update().where(items.c.id.in_(ids[:100])).values(votes=2))

    store.write(fill)
    store.close()


def time_calls(call: Callable[[], httpx.Response], count: int = 40) -> Sequence[float]:
    """Time requests, in seconds."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        assert call().status_code == 200
        times.append(time.perf_counter() - start)
    return times


def measure_admin(folder: Path) -> None:
    """Compare the admin page's requests with the next item, with a long log."""
    make_candidates(folder / "long", LOG_ENTRIES // 2)
    with serve(folder / "long", folder / "long.sqlite", admin=True):
        pass  # loads the queue
    fill_log(folder / "long.sqlite", LOG_ENTRIES)
    from rasura.annotator.store.database import Database
    from rasura.annotator.store.reviewers import renew_token

    store = Database(folder / "long.sqlite")
    token = store.write(lambda connection: renew_token(connection, "Ann"))
    store.close()
    server = Server(folder / "long", str(folder / "long.sqlite"))
    server.start()
    url = f"http://127.0.0.1:{server.port}"
    with httpx.Client(base_url=url, headers={"origin": url}, timeout=600) as client:
        assert client.post("/api/login", json={"token": token}).status_code == 200
        client.get("/api/admin/overview")  # waits for the first figures
        medians = {"next": statistics.median(time_calls(lambda: client.post("/api/next", json={"want": 6})))}
        for path in ("overview", "disputed", "flagged"):
            medians[path] = statistics.median(time_calls(partial(client.get, f"/api/admin/{path}")))
    server.end()
    print_result(
        "review_pages admin", entries=LOG_ENTRIES, **{name: round(1000 * value, 1) for name, value in medians.items()}
    )


def main() -> None:
    with make_scratch_folder() as folder:
        measure_admin(folder)
        make_large_candidates(folder / "small", 24, 512, 342)
        measure_keys("512 px", folder / "small", folder / "small.sqlite")
        make_large_candidates(folder / "large", 20, 6000, 4000)
        measure_memory(folder)
        measure_keys("24 MP", folder / "large", folder / "large.sqlite")
        make_large_candidates(folder / "strip", 6, 12000, 1200)
        measure_keys("panorama", folder / "strip", folder / "strip.sqlite", 3)


if __name__ == "__main__":
    main()
