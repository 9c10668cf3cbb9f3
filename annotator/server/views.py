"""Pictures as the page shows them: made once, two at a time, and kept on disk.

Whatever the kind of an item, the same work is done for it: its source, target and mask are decoded, a deliberate
mistake is rendered (of a candidate for nothing), and the result is encoded. So the time of an answer does not tell an
item with a known answer from another; and a picture that was made before takes as long as it took then (`hold_answer`).
"""

import asyncio
import hashlib
import logging
import math
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa

from rasura.annotator.server.decoding import compute_view_scale, decode_scaled, decode_scaled_mask
from rasura.annotator.server.images import (
    VIEW_QUALITY,
    NoPicture,
    PictureReader,
    Role,
    Size,
    detect_media_type,
    make_thumbnail,
    shrink,
)
from rasura.annotator.server.variants import render_result
from rasura.annotator.store.enums import Variant
from rasura.manifests.errors import StorageError
from rasura.manifests.images import RGB, Mask, decode_image, decode_mask, encode_image, encode_mask, open_image

log = logging.getLogger("rasura.review")

DECODERS = 2
CACHE_BYTES = 4 * 2**30
"""Bytes of pictures on disk."""
SENT_WHOLE = 2**20
"""Bytes of a picture that is read into memory; larger ones are sent from the disk in parts."""
QUANTUM_S = 0.025
"""Answers come at multiples of this, so that their times do not tell how a picture was found."""
TEMPORARY = "rasura-views-"
"""Beginning of the name of a temporary folder."""
LONGEST_S = 1.0
"""Seconds for which an answer is held at most."""
VERSION = "1"
"""Of the way in which pictures are made."""
WRONG = (Variant.UNTOUCHED, Variant.BLUR, Variant.HALLUCINATED)
_FILE = re.compile(r"^([0-9a-f]{40})\.(\d+)x(\d+)\.(\d+)$")


@dataclass(frozen=True)
class View:
    """A picture that can be sent.

    Attributes:
        data: the encoded picture; empty where it is in a file.
        file: that has it, where it is large.
        width: of the picture as it is stored, px.
        height: of the picture as it is stored, px.
        seconds: that it took to make it.
        media_type: of the encoded picture.
    """

    data: bytes
    file: Path | None
    width: int
    height: int
    seconds: float
    media_type: str


async def hold_answer(start: float, seconds: float) -> None:
    """Wait until an answer is due: as long after its request as the picture took to make, at a multiple of `QUANTUM_S`.

    Args:
        start: time of the request (`time.monotonic`).
        seconds: that it took to make the picture.
    """
    due = max(min(seconds, LONGEST_S), time.monotonic() - start)
    await asyncio.sleep(max(0.0, start + math.ceil(due / QUANTUM_S) * QUANTUM_S - time.monotonic()))


def open_folder(database_file: Path | None) -> Path:
    """Open the folder of pictures: beside the database; where that is no file, a temporary one of this user alone."""
    if database_file is not None:
        folder = database_file.parent / "views"
        try:
            if not folder.is_symlink():
                folder.mkdir(mode=0o700, exist_ok=True)
                return folder
        except OSError as error:
            log.warning("pictures are kept in a temporary folder: %s", error)
    return Path(tempfile.mkdtemp(prefix=TEMPORARY))


class ViewFiles:
    """Pictures on disk, the least recently used of which are removed where they are too many. For any thread."""

    def __init__(self, folder: Path, limit: int = CACHE_BYTES) -> None:
        self.folder, self.limit = folder, limit
        self._lock = threading.Lock()
        self._files: OrderedDict[str, tuple[str, int]] = OrderedDict()  # key -> name, bytes
        self._bytes = 0
        for path in sorted(folder.iterdir(), key=lambda path: path.lstat().st_mtime):
            if (match := _FILE.match(path.name)) and not path.is_symlink():
                self._add(match[1], path.name, path.lstat().st_size)
            elif path.name.startswith("new-"):
                path.unlink(missing_ok=True)
        self._shrink()

    def _add(self, key: str, name: str, size: int) -> None:
        self._bytes += size - self._files.pop(key, ("", 0))[1]
        self._files[key] = (name, size)

    def _shrink(self) -> None:
        while self._bytes > self.limit and len(self._files) > 1:
            name, size = self._files.popitem(last=False)[1]
            self._bytes -= size
            with suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)

    def find(self, key: str) -> View | None:
        """Find a picture."""
        with self._lock:
            if key not in self._files:
                return None
            self._files.move_to_end(key)
            name, size = self._files[key]
        try:
            with (self.folder / name).open("rb") as file:
                data = file.read(SENT_WHOLE + 1 if size <= SENT_WHOLE else 16)
        except OSError:
            with self._lock:
                self._bytes -= self._files.pop(key, ("", 0))[1]
            return None
        match = _FILE.match(name)
        media_type = detect_media_type(data)
        if match is None or media_type is None:
            return None
        facts = int(match[2]), int(match[3]), int(match[4]) / 1000, media_type
        return View(data, None, *facts) if size <= SENT_WHOLE else View(b"", self.folder / name, *facts)

    def add(self, key: str, data: bytes, width: int, height: int, seconds: float) -> View:
        """Add a picture. Where it cannot be written, it is sent all the same."""
        name = f"{key}.{width}x{height}.{round(1000 * seconds)}"
        new = self.folder / f"new-{secrets.token_hex(8)}"
        try:
            new.write_bytes(data)
            new.replace(self.folder / name)
        except OSError as error:
            log.warning("a picture cannot be kept: %s", error)
            with suppress(OSError):
                new.unlink(missing_ok=True)
            return View(data, None, width, height, seconds, detect_media_type(data) or "application/octet-stream")
        with self._lock:
            self._add(key, name, len(data))
            self._shrink()
        return self.find(key) or View(data, None, width, height, seconds, detect_media_type(data) or "image/webp")


class ViewMaker:
    """A maker of the pictures of a review. Concurrent requests for one item wait for one making."""

    def __init__(self, pictures: PictureReader, files: ViewFiles, secret: str) -> None:
        self.pictures, self.files, self.secret = pictures, files, secret
        # threads of their own: the C library keeps freed memory for each thread that has decoded anything
        self._decoders = ThreadPoolExecutor(DECODERS, "rasura-views")
        self._lock = threading.Lock()
        self._making: dict[str, tuple[threading.Lock, list[int]]] = {}  # lock of an item, and those who want it

    def close(self) -> None:
        """End the decoders, and delete pictures that are in a temporary folder."""
        self._decoders.shutdown(cancel_futures=True)
        if self.files.folder.name.startswith(TEMPORARY):
            shutil.rmtree(self.files.folder, ignore_errors=True)

    def compute_key(self, item: Any, role: str, size: str) -> str:
        """Compute the name of a picture, which changes when the picture does, and tells nothing."""
        words = (VERSION, item.place_table, item.place_shard, item.place_row, item.variant, role, size)
        return hashlib.sha256("\0".join(map(str, (self.secret, *words))).encode()).hexdigest()[:40]

    def get(self, item: Any, role: Role, size: Size) -> View:
        """Return a picture.

        Args:
            item: row of the table `items`.
            role: source, mask or result.
            size: native, as it is stored; view, as it fits a screen; or a thumbnail.

        Raises:
            NoPicture: it cannot be read.
        """
        if found := self.files.find(self.compute_key(item, role, size)):
            return found
        with self._own(self.compute_key(item, "", "")):
            if found := self.files.find(self.compute_key(item, role, size)):
                return found
            try:
                return self._decoders.submit(self._make, item, role, size).result()
            except (OSError, StorageError, ValueError, pa.ArrowException, IndexError, cv2.error) as error:
                raise NoPicture(f"the {role} of row {item.row_id} cannot be read: {error}") from error

    @contextmanager
    def _own(self, key: str) -> Iterator[None]:
        """Own the making of an item's pictures; others wait."""
        with self._lock:
            lock, waiting = self._making.setdefault(key, (threading.Lock(), []))
            waiting.append(1)
        try:
            with lock:
                yield
        finally:
            with self._lock:
                waiting.pop()
                if not waiting:
                    del self._making[key]

    def _make(self, item: Any, role: Role, size: Size) -> View:
        start = time.thread_time()  # and not what others take of the processor meanwhile
        if size == "thumb":
            view = self._find_view(item, role)
            data = view.file.read_bytes() if view.file else view.data
            return self._add(item, role, size, make_thumbnail(data), view, time.thread_time() - start)
        if size == "native":
            view = self._find_view(item, role)
            if compute_view_scale(view.width, view.height) == 1:
                return view
            return self._add(item, role, size, self._make_native(item, role), view, time.thread_time() - start)
        pictures, width, height = self._make_views(item)
        seconds = time.thread_time() - start
        shown = View(b"", None, width, height, seconds, "")
        return {name: self._add(item, name, size, data, shown, seconds) for name, data in pictures.items()}[role]

    def _find_view(self, item: Any, role: Role) -> View:
        return self.files.find(self.compute_key(item, role, "view")) or self._make(item, role, "view")

    def _add(self, item: Any, role: str, size: str, data: bytes, shown: View, seconds: float) -> View:
        return self.files.add(self.compute_key(item, role, size), data, shown.width, shown.height, seconds)

    def _read(self, item: Any, column: str) -> bytes:
        place = (item.place_table, item.place_shard, item.place_row)
        return self.pictures.read_picture(place, column, keep=False)

    def _make_views(self, item: Any) -> tuple[dict[Role, bytes], int, int]:
        """Make all pictures of an item as they fit a screen; return them, and the size of the stored ones."""
        stored_source, stored_mask = self._read(item, "source"), self._read(item, "mask")
        width, height = open_image(stored_source).size
        scale = compute_view_scale(width, height)
        source, stored_target = decode_scaled(stored_source, scale), self._read(item, "target")
        target, mask = decode_scaled(stored_target, scale), decode_scaled_mask(stored_mask, scale)
        result = self._render(item, source, target, mask)
        if scale == 1:
            return (
                {
                    "source": _make_showable(stored_source, lambda: encode_image(source)),
                    "mask": _make_showable(stored_mask, lambda: encode_mask(mask)),
                    "result": encode_image(result),
                },
                width,
                height,
            )
        side = max(source.shape)
        return (
            {
                "source": shrink(source, side, VIEW_QUALITY),
                "mask": encode_mask(mask),
                "result": shrink(result, side, VIEW_QUALITY),
            },
            width,
            height,
        )

    def _render(self, item: Any, source: RGB, target: RGB, mask: Mask) -> RGB:
        """Render the result; where it is the target, render a mistake for nothing, so that both take as long."""
        if not source.shape[:2] == target.shape[:2] == mask.shape:
            raise ValueError(f"source, target and mask are {source.shape}, {target.shape} and {mask.shape}")
        if item.variant != Variant.TARGET:
            return render_result(item.variant, source, target, mask)
        decoy = WRONG[int(hashlib.sha256(item.id.encode()).hexdigest(), 16) % len(WRONG)]
        render_result(decoy, source, target, mask)
        return target

    def _make_native(self, item: Any, role: Role) -> bytes:
        if role == "result" and item.variant != Variant.TARGET:
            source, target = (decode_image(self._read(item, name)) for name in ("source", "target"))
            return encode_image(render_result(item.variant, source, target, decode_mask(self._read(item, "mask"))))
        data = self._read(item, "target" if role == "result" else role)
        if role == "mask":
            return _make_showable(data, lambda: encode_mask(decode_mask(data)))
        return _make_showable(data, lambda: encode_image(decode_image(data)))


def _make_showable(data: bytes, encode: Callable[[], bytes]) -> bytes:
    return data if detect_media_type(data) is not None else encode()
