"""A real browser on the review's page: Debian's Chromium through playwright, and what is seen in it."""

from __future__ import annotations

import base64
import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from support.annotator.server import Served

CHROMIUM = Path(os.environ.get("RASURA_CHROMIUM", "/usr/bin/chromium"))
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
READ_OUTBOX = """(() => new Promise((done, fail) => {
    const opening = indexedDB.open('rasura', 1);
    opening.onupgradeneeded = () => { opening.transaction.abort(); };  // the page has not made it yet
    opening.onerror = () => done([]);
    opening.onsuccess = () => {
        const all = opening.result.transaction('outbox').objectStore('outbox').index('order').getAll();
        all.onsuccess = () => { opening.result.close(); done(all.result); };
        all.onerror = () => fail(all.error);
    };
}))"""
NODE = ROOT / ".venv" / "node" / "node_modules"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium; what needs it skips where there is none (tests/support/annotator/setup.sh installs it)."""
    if not CHROMIUM.exists():
        pytest.skip("no Chromium here (tests/support/annotator/setup.sh installs it)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield started
        started.close()


def watch(page: Page) -> Page:
    """The page, which keeps its scripts' faults and refused resources in `faults`, and its answers in `answers`."""
    page.set_default_timeout(20_000)
    page.faults = []  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.faults.append(str(error)))  # type: ignore[attr-defined]
    page.on("console", lambda said: page.faults.append(said.text) if said.type == "error" else None)  # type: ignore[attr-defined]
    page.answers = []  # type: ignore[attr-defined]
    page.on("response", lambda answer: page.answers.append(answer.url))  # type: ignore[attr-defined]
    return page


def open_page(browser: Browser, served: Served, token: str, **settings: Any) -> Page:
    """The page, signed in by the link of a token. A script's fault or a refused resource fails the test at `faults`."""
    settings = {"viewport": {"width": 1280, "height": 800}, **settings}
    page = watch(browser.new_context(**settings).new_page())
    page.goto(f"{served.url}/#token={token}")
    wait_for_item(page)
    return page


def wait_for_item(page: Page) -> None:
    """Waits until an item is painted."""
    page.wait_for_function(
        "() => !document.getElementById('tag-one').hidden && document.getElementById('stage').ariaBusy === 'false'"
    )


def press(page: Page, *keys: str) -> None:
    """Press keys, and wait after each until an item or the note that nothing is left is painted."""
    for key in keys:
        page.keyboard.press(key)
        wait_for_paint(page)


def wait_for_paint(page: Page) -> None:
    """Wait until an item or the note that nothing is left is painted, and what follows a paint is done."""
    page.wait_for_function(
        "() => document.getElementById('stage').ariaBusy !== 'true' "
        "&& (!document.getElementById('tag-one').hidden || !document.getElementById('nothing').hidden)"
    )
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))")


def wait_for_animations(page: Page) -> None:
    """Wait until nothing on the page moves."""
    page.wait_for_function("() => document.getAnimations().every((animation) => animation.playState !== 'running')")


def wait_for_answers(page: Page, part: str, count: int) -> None:
    """Wait until so many answers have come whose address contains a part, to the page or its workers."""
    deadline = time.monotonic() + 120
    while sum(part in url for url in page.answers) < count:  # type: ignore[attr-defined]
        assert time.monotonic() < deadline, f"{count} answers of {part} did not come"
        page.wait_for_timeout(20)


def read_canvas(page: Page) -> np.ndarray:
    """The canvas as it is drawn, (height, width, 4) uint8 in device pixels."""
    address = page.evaluate("document.getElementById('canvas').toDataURL('image/png')")
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as drawn:
        return np.array(drawn.convert("RGBA"))


def fetch_item(page: Page) -> str:
    """The item that is shown: the first of those that the server holds open."""
    return str(
        page.evaluate(
            """async () => (await (await fetch('/api/next', {method: 'POST', headers: {'content-type':
        'application/json'}, body: '{"want": 1}'})).json()).items[0].id"""
        )
    )


def wait_for_votes(page: Page, left: int = 0) -> None:
    """Wait until every vote is sent, or refused, but for so many that wait for another review or reviewer."""
    deadline = time.monotonic() + 60
    while (waiting := sum(entry["problem"] is None for entry in read_outbox(page))) > left:
        assert time.monotonic() < deadline, f"{waiting} verdicts were not sent"
        page.wait_for_timeout(20)


def read_outbox(page: Page) -> list[dict[str, Any]]:
    """The entries that the browser keeps, in their order."""
    entries: list[dict[str, Any]] = page.evaluate(f"{READ_OUTBOX}()")
    return entries


def find_accessibility_faults(page: Page) -> list[str]:
    """Faults of accessibility that axe calls serious or critical, WCAG 2 A and AA."""
    source = NODE / "axe-core" / "axe.min.js"
    if not source.exists():
        pytest.skip("no axe-core here (tests/support/annotator/setup.sh fetches it)")
    page.evaluate(source.read_text())  # evaluated by the test, not loaded by the page: its policy stays as it is
    nodes = page.evaluate(
        """async () => (await axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa',
        'best-practice']})).violations"""
    )
    return [
        f"{one['impact']} {one['id']}: {json.dumps([node['html'][:120] for node in one['nodes'][:3]])}"
        for one in nodes
        if one["impact"] in ("serious", "critical")
    ]
