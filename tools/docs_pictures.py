#!/usr/bin/env python3
"""Make the pictures of the report, of the review page and of the removers in docs/images from the run of the demo.

Run it with the environment's python after `make demo`: `.venv/bin/python tools/docs_pictures.py [RUN [TINY]]`. It needs
Chromium (RASURA_CHROMIUM, or /usr/bin/chromium) and playwright. TINY is a remover that `make loop-demo` trained
(runs/loop-demo/2-precision_target/removers/04), for the picture of the removers. The run is not changed: page and votes
go into a temporary folder. Not among them are `loop-arms.webp`, which is `arms.svg` of `make loop-demo`, and
`review-agreement.webp`, which is of a review by several people.
"""

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Browser, Page, sync_playwright

import rasura

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
RASURA = [sys.executable, "-m", "rasura"]
CHROMIUM = os.environ.get("RASURA_CHROMIUM", "/usr/bin/chromium")
CARDS = {"captured": 3, "simulated": 2}
"""Cards of the demo's tables that the picture of the report has."""
REMOVED, TITLE = 3, 38
"""Scenes in the picture of the removers, and the height of its line of titles, px."""
VOTES = "yn1n2yn1un1yn3n1y"
"""Keys that the reviewer presses: yes, unsure, or no with a reason."""


def save(screenshot: bytes, name: str) -> None:
    """Write a screenshot as docs/images/NAME.webp."""
    write(Image.open(io.BytesIO(screenshot)).convert("RGB"), name)


def write(image: Image.Image, name: str) -> None:
    """Write a picture as docs/images/NAME.webp."""
    path = IMAGES / f"{name}.webp"
    image.save(path, "WEBP", quality=84, method=6)
    print(f"{path.relative_to(ROOT)}: {image.width} × {image.height}, {path.stat().st_size:,} bytes")


def picture_report(browser: Browser, run: Path, folder: Path) -> None:
    """Make the pictures of the report: rows of the dataset's flows, measures with their limits, part of the funnel."""
    report = folder / "report.html"
    subprocess.run([*RASURA, "report", str(run), "--out", str(report)], check=True, stdout=subprocess.DEVNULL)
    page = browser.new_page(viewport={"width": 1240, "height": 900})
    page.goto(report.as_uri())
    page.add_style_tag(content="section[id] { padding: 6px 20px } section h2 { margin-top: 10px }")
    for name in ("object", "effects"):
        page.locator(f"#show-{name}").check()
    page.evaluate("document.querySelector('#rows').insertAdjacentHTML('afterend', '<section id=chosen></section>')")
    for title, count in CARDS.items():
        page.locator(".tab", has_text=title).first.click()
        page.wait_for_function("(n) => document.querySelectorAll('#rows .card').length >= n", arg=count)
        page.wait_for_function("() => [...document.querySelectorAll('#rows .card img')].every((i) => i.decode())")
        page.evaluate(
            """([title, count]) => {
              const chosen = document.getElementById("chosen"), cards = document.createElement("div");
              cards.className = "cards";
              for (const card of [...document.querySelectorAll("#rows .card")].slice(0, count))
                cards.append(card.cloneNode(true));
              const head = document.createElement("h3");
              head.textContent = title;
              chosen.append(head, cards);
              for (const image of cards.querySelectorAll("img")) image.loading = "eager";
            }""",
            [title, count],
        )
    page.wait_for_function("() => [...document.querySelectorAll('#chosen img')].every((i) => i.complete)")
    page.locator("#chosen > h3").first.evaluate("title => { title.style.marginTop = '10px'; }")
    save(page.locator("#chosen").screenshot(), "report-pictures")
    page.set_viewport_size({"width": 1000, "height": 900})
    page.locator("#measures").scroll_into_view_if_needed()
    page.wait_for_selector("#measures article")
    page.evaluate(
        "document.querySelectorAll('#measures article ~ article, #measures details').forEach(e => e.remove())"
    )
    save(page.locator("#measures").screenshot(), "report-measures")
    page.evaluate(
        """() => { for (const article of [...document.querySelectorAll("#funnel article")])
          if (!["captured", "objects", "backgrounds", "simulated"].includes(article.querySelector("bdi").textContent))
            article.remove(); }"""
    )
    save(page.locator("#funnel").screenshot(), "report-funnel")
    page.close()


@contextmanager
def serve_review(run: Path, database: Path) -> Iterator[str]:
    """Serve the review page of a run, and yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [*RASURA, "review", str(run), "--database", str(database), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(url, timeout=1).close()
                break
            except OSError:
                server.poll()
                if server.returncode is not None:
                    raise SystemExit(f"the review ended with {server.returncode}") from None
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait()


def make_link(run: Path, database: Path, *command: str) -> str:
    """Run a command that prints a link, which signs in once, and return its token."""
    words = [*RASURA, "review", command[0], str(run), *command[1:], "--database", str(database)]
    link = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return re.findall(r"#token=(\S+)", link)[0]


def open_review(browser: Browser, url: str, token: str, **settings: object) -> Page:
    """Open the page of a reviewer, signed in."""
    page = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **settings}).new_page()  # type: ignore[arg-type]
    page.goto(f"{url}/#token={token}")
    wait_for_paint(page)
    return page


def wait_for_paint(page: Page) -> None:
    """Wait until a candidate, or the note that nothing is left, is painted."""
    page.wait_for_function(
        "() => document.getElementById('stage').ariaBusy !== 'true' "
        "&& (!document.getElementById('tag-one').hidden || !document.getElementById('nothing').hidden)"
    )
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))")


def press(page: Page, keys: str) -> None:
    """Press keys, each on the picture that the one before has brought."""
    for key in keys:
        page.keyboard.press(key)
        wait_for_paint(page)


def picture_review(browser: Browser, run: Path, folder: Path) -> None:
    """Make the pictures of the review: side by side, the slider in the dark, and a phone."""
    database, run = folder / "review.sqlite", shutil.copytree(run, folder / "run")  # verdicts are written into it
    token = make_link(run, database, "add-reviewer", "Ann", "--admin")
    with serve_review(run, database) as url:
        page = open_review(browser, url, token)
        press(page, VOTES)
        page.wait_for_timeout(1500)  # thumbnails and the counts of the others
        save(page.screenshot(), "review-judge")
        page.emulate_media(color_scheme="dark")
        page.locator('button[data-mode="slider"]').click()
        wait_for_paint(page)
        save(page.screenshot(), "review-slider-dark")
        page.context.close()
        phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
        page = open_review(browser, url, make_link(run, database, "new-token", "Ann", "--keep"), **phone)
        page.locator("#judge button.no").tap()
        page.wait_for_timeout(600)
        save(page.screenshot(), "review-phone")


def outline(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return a picture with the outline of a mask."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(picture.copy(), contours, -1, (255, 60, 60), 2)


def picture_removers(run: Path, tiny: Path | None) -> None:
    """Make the picture of the removers that can run without published weights, on rows with sure masks and shadows."""
    rows = [
        row for row in rasura.open_run(run).table("captured") if row["mask"].sum() < 0.8 * row["foreground_mask"].sum()
    ]
    lines = []
    for row in sorted(rows, key=lambda row: -row["segment_score"])[:REMOVED]:
        picture, mask = row["source"], row["mask"]
        columns = {"object's mask": outline(picture, mask)}
        columns |= {name: rasura.remove(picture, mask, name) for name in ("telea", "ns")}
        if tiny is not None:
            columns["tiny (loop demo)"] = rasura.remove(picture, mask, "tiny", base=str(tiny))
        columns["telea, effects' mask"] = rasura.remove(picture, row["foreground_mask"], "telea")
        columns["answer"] = row["target"]
        lines.append(np.hstack(list(columns.values())))
    sheet = Image.fromarray(np.vstack(lines))
    page = Image.new("RGB", (sheet.width, sheet.height + TITLE), "white")
    page.paste(sheet, (0, TITLE))
    for number, title in enumerate(columns):
        place = (number * sheet.width // len(columns) + 8, 6)
        ImageDraw.Draw(page).text(place, title, "black", ImageFont.load_default(TITLE - 10))
    write(page.resize((page.width * 2 // 3, page.height * 2 // 3), Image.Resampling.LANCZOS), "removers")


def main() -> None:
    """Make all pictures."""
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo").resolve()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        picture_report(browser, run, Path(folder))
        picture_review(browser, run, Path(folder))
        picture_removers(run, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
        browser.close()


if __name__ == "__main__":
    main()
