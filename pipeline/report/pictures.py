"""The pictures of a page: inside it while they are few, else in a folder beside it."""

import base64
import hashlib
import re
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from rasura.manifests.run_layout import REPORT_FILES
from rasura.manifests.storage import Store
from rasura.pipeline.report.galleries import write_json
from rasura.pipeline.report.thumbnails import Example, Panel

INSIDE_BYTES = 8_000_000
"""Size of all pictures together up to which they are inside the page; as base64 they are a third larger."""
WRITERS, MOST_WAITING = 8, 64
"""Pictures that are written at a time, since a disk confirms many together, and that wait for it."""
NAME = re.compile(r"[0-9a-f]{24}\.webp")


class PictureFiles:
    """Pictures by the hash of their bytes, so that equal ones are there once.

    Examples:
        >>> files = PictureFiles()
        >>> files.add(b"one") == files.add(b"one"), len(files.inside)
        (True, 1)
    """

    def __init__(self, store: Store | None = None, folder: str = REPORT_FILES, most: int = INSIDE_BYTES) -> None:
        """Prepare the pictures of a page.

        Args:
            store: where the page is; None: all pictures are inside it.
            folder: name of the folder beside the page.
            most: bytes of pictures inside the page; with more, all are in the folder.
        """
        self.store, self.folder, self.most = store, folder, most
        self.inside: dict[str, bytes] = {}
        self.names: set[str] = set()
        self.is_beside = False
        self._size = 0
        self._writers = ThreadPoolExecutor(WRITERS)
        self._writes: deque[Future[None]] = deque()

    def add(self, data: bytes) -> str:
        """Add a picture (WebP) and return its name.

        Raises:
            StoreError: it cannot be written into the folder.
        """
        name = f"{hashlib.sha256(data).hexdigest()[:24]}.webp"
        if name in self.names:
            return name
        self.names.add(name)
        self._size += len(data)
        self.inside[name] = data
        if self.store is not None and (self.is_beside or self._size > self.most):
            self.is_beside = True
            for waiting, content in self.inside.items():
                self._writes.append(self._writers.submit(self.store.write, f"{self.folder}/{waiting}", content))
            self.inside.clear()
            self._wait(MOST_WAITING)
        return name

    def finish(self) -> None:
        """Wait until all pictures are written.

        Raises:
            StoreError: one cannot be written into the folder.
        """
        self._wait(0)
        self._writers.shutdown()

    def _wait(self, most: int) -> None:
        while len(self._writes) > most:
            self._writes.popleft().result()

    def delete_former(self) -> None:
        """Delete pictures of an earlier page from the folder; other files there are left alone."""
        if self.store is None:
            return
        present = self.names if self.is_beside else set()
        for name in self.store.files(self.folder):
            if NAME.fullmatch(name) and name not in present:
                self.store.delete(f"{self.folder}/{name}")


def write_pictures(files: PictureFiles) -> str:
    """Write where the pictures of a page are as elements of the page, with those that are inside it.

    Raises:
        StoreError: a picture could not be written.
    """
    files.finish()
    parts = [write_json("pictures", {"folder": files.folder} if files.is_beside else {})]
    if files.inside:
        encoded = {name: base64.b64encode(data).decode() for name, data in files.inside.items()}
        parts.append(write_json("sources", encoded))
    return "\n".join(parts)


def describe_example(example: Example, add: Callable[[bytes], str], full: Example | None = None) -> dict[str, Any]:
    """Describe the pictures of a row as the page reads them.

    Args:
        add: takes a picture's bytes and returns what the page has in its place.
        full: the same row at full size.
    """
    larger = {panel.name: panel for panel in full.panels} if full else {}
    panels = []
    for panel in example.panels:
        entry = _describe_panel(panel, add)
        if panel.name in larger and panel.natural[0] > panel.width:
            entry["full"] = add(larger[panel.name].data)
        panels.append(entry)
    result: dict[str, Any] = {"panels": panels}
    if example.areas:
        result["areas"] = {name: round(area, 5) for name, area in sorted(example.areas.items(), reverse=True)}
    if example.fault:
        result["fault"] = example.fault[:400]
    return result


def _describe_panel(panel: Panel, add: Callable[[bytes], str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": panel.name, "src": add(panel.data), "width": panel.width, "height": panel.height}
    if panel.natural != (panel.width, panel.height):
        entry["natural"] = list(panel.natural)
    if paths := {kind: path for kind, path in panel.paths.items() if path}:
        entry["paths"] = paths
    return entry
