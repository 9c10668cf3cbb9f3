"""The simulated expert of `review_pace` on Label Studio's own page, with the pictures and the configuration that
`rasura votes export --label-studio` writes for it.
"""

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.review.experts import REQUESTS, START_RECORDS, open_browser, print_pace
from benchmarks.review.label_studio_peer import PASSWORD, USER, connect, create_project, serve_label_studio

if TYPE_CHECKING:
    from playwright.sync_api import Page

KEYS = ("y", "n", "y", "u")
SHOWN = """([width, before]) => { const shown = [...document.images].filter((image) => image.naturalWidth === width);
return shown.length === 3 && shown.every((image) => image.complete && !before.includes(image.src)); }"""


class OpenFiles(SimpleHTTPRequestHandler):
    """Serves files to pages of other addresses."""

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """Serve the files of a folder, and yield their address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(OpenFiles, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def export_tasks(run: Path, out: Path, address: str) -> tuple[list[dict[str, Any]], str]:
    """Export a run's candidates for Label Studio; return the tasks, with pictures at an address, and the config."""
    from rasura.annotator.exchange.label_studio import FOLDER, PICTURES, export_label_studio
    from rasura.annotator.server.images import PictureReader
    from rasura.annotator.store.database import Database
    from rasura.annotator.store.items import load_queue
    from rasura.annotator.store.policy import Policy
    from rasura.manifests.json_lines import parse_json
    from rasura.manifests.storage import Store

    database = Database(out / "items.sqlite")
    load_queue(Store(run), database, Policy(honeypots=0))
    with database.read() as connection:
        export_label_studio(connection, out, PictureReader(Store(run)))
    database.close()
    tasks = parse_json((out / "label-studio.json").read_bytes(), "label-studio.json")
    for task in tasks:
        task.pop("predictions", None)  # they would be ticked already, and a hotkey would untick them
        for key in PICTURES:
            task["data"][key] = re.sub(rf".*{FOLDER}", f"{address}/{FOLDER}", task["data"][key])
    return tasks, (out / "label-studio.xml").read_text()


async def import_tasks(port: int, token: str, tasks: list[dict[str, Any]], config: str) -> int:
    """Create a project with tasks over a connection of its own, and return its number."""
    with closing(connect(port, token)) as connection:
        return await create_project(connection, config, tasks)


def judge_tasks(page: "Page", width: int, count: int, decision_s: float) -> tuple[float, list[float], list[float]]:
    """Judge tasks with the hotkeys of the choices and of the submission.

    Returns:
        The seconds in all, those from each submission to the next three pictures, and the long tasks, ms.
    """
    read = "() => [...document.images].map((image) => image.src)"
    times, sources = [], page.evaluate(read)
    page.evaluate(START_RECORDS)
    start = time.perf_counter()
    for number in range(count):
        page.wait_for_timeout(1000 * decision_s)
        page.keyboard.press(KEYS[number % len(KEYS)])
        page.wait_for_function("() => document.querySelector('input[type=checkbox]:checked')")
        pressed = time.perf_counter()
        page.keyboard.press("Control+Enter")
        page.wait_for_function(SHOWN, arg=[width, sources])
        times.append(time.perf_counter() - pressed)
        sources = page.evaluate(read)
    return time.perf_counter() - start, times, page.evaluate("tasks")


def measure_page(command: str, run: Path, folder: Path, count: int, width: int, decision_s: float) -> None:
    """Measure the expert on Label Studio's page.

    Args:
        command: `label-studio`, in an environment of its own.
        run: whose candidates are judged, more than `count`.
        folder: for Label Studio's files.
        count: of verdicts.
        width: of the pictures, px.
        decision_s: seconds before each verdict.
    """
    out = folder / "exported"
    out.mkdir()
    with serve_label_studio(command, folder) as (port, token), serve_folder(out) as address:
        project = asyncio.run(import_tasks(port, token, *export_tasks(run, out, address)))
        url = f"http://127.0.0.1:{port}"
        with open_browser() as page:  # has an event loop of its own
            page.goto(f"{url}/user/login/")
            page.fill("input[name=email]", USER)
            page.fill("input[name=password]", PASSWORD)
            page.keyboard.press("Enter")
            page.wait_for_url(f"{url}/")
            page.goto(f"{url}/projects/{project}/data?labeling=1")
            page.wait_for_function(SHOWN, arg=[width, []])
            seconds, times, blocked = judge_tasks(page, width, count, decision_s)
            requests = {"next": page.evaluate(REQUESTS, "next_task"), "submit": page.evaluate(REQUESTS, "/annotations")}
    print_pace("review_pace Label Studio", count, seconds, 2 * count, times, blocked, requests)
