"""Pictures of items, read from a run's shards: one row group and one column at a time, the last ones cached.

A request has an item's id and one of a few words. The place of the picture comes from the database, and where the row
there refers to another one, from that row: no path comes from outside.
"""

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from rasura.annotator.server.decoding import limit_memory
from rasura.annotator.server.variants import render_result
from rasura.annotator.store.enums import Variant
from rasura.manifests.errors import StorageError
from rasura.manifests.images import RGB, BadImage, decode_image, decode_mask, encode_image
from rasura.manifests.run_layout import shard_path, table_path
from rasura.manifests.storage import Store
from rasura.manifests.tables import RUN_REFERENCE

Role = Literal["source", "mask", "result"]
Size = Literal["view", "native", "thumb"]

CACHE_BYTES = 64 * 2**20
FOOTERS = 256
VIEW_QUALITY, THUMB_QUALITY = 92, 80
THUMB_SIDE = 160
BATCH_ROWS = 1
READ_BYTES = 2**20  # of a column at a time
LARGE_GROUP = 16 * 2**20  # bytes of a row group that count as large: a page may hold all of its pictures
_MAGIC = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


class NoPicture(LookupError):
    """A picture that cannot be shown. The text says which, and why."""


def detect_media_type(data: bytes) -> str | None:
    """Detect the media type of a picture that every browser shows; None for others.

    Examples:
        >>> detect_media_type(b"RIFF....WEBPVP8L")
        'image/webp'
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for magic, media_type in _MAGIC.items() if data.startswith(magic)), None)


def shrink(pixels: RGB, side: int, quality: int) -> bytes:
    """Encode a picture as WebP with its longer side at most `side` px."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", quality=quality, method=2)
    return out.getvalue()


def make_thumbnail(data: bytes) -> bytes:
    """Make a thumbnail of an encoded picture."""
    return shrink(decode_image(data), THUMB_SIDE, THUMB_QUALITY)


class PictureReader:
    """A reader of the pictures of one run, for any thread."""

    def __init__(self, run: Store, cache_bytes: int = CACHE_BYTES) -> None:
        self.run, self.cache_bytes = run, cache_bytes
        self._cache: OrderedDict[tuple[Any, ...], bytes] = OrderedDict()
        self._cached_bytes = 0
        self._footers: OrderedDict[tuple[str, str], pq.FileMetaData] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, item: Any, role: Role) -> tuple[bytes, str]:
        """Return a picture as it is stored, and its media type.

        Args:
            item: row of the table `items`.
            role: source, mask or result.

        Raises:
            NoPicture: it cannot be read.
        """
        try:
            data = self._make(item, role)
        except (OSError, StorageError, BadImage, pa.ArrowException, IndexError) as error:
            raise NoPicture(f"the {role} of row {item.row_id} cannot be read: {error}") from error
        return data, detect_media_type(data) or "application/octet-stream"

    def _make(self, item: Any, role: Role) -> bytes:
        place = (item.place_table, item.place_shard, item.place_row)
        if role == "result" and item.variant != Variant.TARGET:
            source, target = (decode_image(self.read_picture(place, name)) for name in ("source", "target"))
            mask = decode_mask(self.read_picture(place, "mask"))
            return encode_image(render_result(item.variant, source, target, mask))
        data = self.read_picture(place, "target" if role == "result" else role)
        return data if detect_media_type(data) is not None else encode_image(decode_image(data))

    def read_picture(self, place: tuple[str, str, int], column: str, keep: bool = True) -> bytes:
        """Read a picture as it is stored in its shard, or in that of the row that this one refers to.

        Args:
            place: table, shard and row.
            column: that has the picture.
            keep: keep it in memory.

        Raises:
            OSError, ArrowException, IndexError: there is none, or it cannot be read.
        """
        key = (*place, column)
        if (data := self._find_in_cache(key)) is None:
            data = self._read(self.run, place, column)
            if keep:
                self._cache_picture(key, data)
        return data

    def _read(self, run: Store, place: tuple[str, str, int], column: str) -> bytes:
        """Read a picture from a row, or from the row that it refers to, which may be in another run."""
        table, shard, row = place
        name = f"{table_path(table)}/{shard_path(shard)}"
        with run.open(name) as source:
            footer = self._footers.get((run.uri, name))
            with pq.ParquetFile(source, metadata=footer, pre_buffer=False, buffer_size=READ_BYTES) as file:
                self._cache_footer((run.uri, name), file.metadata)
                columns = set(file.schema_arrow.names)
                if column in columns:
                    groups = file.metadata.num_row_groups
                    is_large = groups > 0 and file.metadata.row_group(0).total_byte_size > LARGE_GROUP
                    with limit_memory(is_large):
                        picture = _read_row(file, row, [f"{column}.bytes"], name)[column]
                        pa.default_memory_pool().release_unused()
                    if picture is None or picture["bytes"] is None:
                        raise IndexError(f"the row has no {column}")
                    return picture["bytes"]  # type: ignore[no-any-return]
                names = [reference for reference in RUN_REFERENCE if reference in columns]
                reference = _read_row(file, row, names, name) if names else {}
        if reference.get("ref_shard") is None:
            raise IndexError(f"the row has no {column}")
        other = run if reference.get("ref_run") is None else Store(reference["ref_run"])
        return self._read(other, (reference["ref_table"], reference["ref_shard"], reference["ref_row"]), column)

    def _cache_footer(self, key: tuple[str, str], footer: pq.FileMetaData) -> None:
        with self._lock:
            self._footers[key] = footer
            while len(self._footers) > FOOTERS:
                self._footers.popitem(last=False)

    def _find_in_cache(self, key: tuple[Any, ...]) -> bytes | None:
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
            return self._cache.get(key)

    def _cache_picture(self, key: tuple[Any, ...], data: bytes) -> None:
        with self._lock:
            self._cached_bytes += len(data) - len(self._cache.pop(key, b""))
            self._cache[key] = data
            while self._cached_bytes > self.cache_bytes and len(self._cache) > 1:
                self._cached_bytes -= len(self._cache.popitem(last=False)[1])


def _read_row(file: pq.ParquetFile, row: int, columns: Sequence[str], name: str) -> dict[str, Any]:
    """Read columns of one row of a file; of its row group no more than the batches up to that row is decoded."""
    start = 0
    for group in range(file.num_row_groups):
        end = start + file.metadata.row_group(group).num_rows
        if start <= row < end:
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False):
                if row < start + batch.num_rows:
                    return dict(batch.slice(row - start, 1).to_pylist()[0])
                start += batch.num_rows
        start = end
    raise IndexError(f"{name} has no row {row}")
