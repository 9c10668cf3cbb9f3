"""Limits of a picture file, checked before its pixels are decoded: small files can ask for gigabytes, or for minutes.

What counts: the size of the decoded pixels, the pages and scans through which a decoder would walk, and the tags whose
values it would copy; see `find_excess` and `count_decoded_bytes`.
"""

import re
from typing import Any

BYTES_A_PIXEL = 4
"""Bytes with which a limit in pixels reckons: colours of 8 bits and alpha. Of 16 bits a channel, fewer pixels fit."""
MAX_DIRECTORIES = 256
"""Pages of a TIFF, and directories of EXIF data."""
MAX_TAGS = 20_000
MAX_SCANS = 200
"""Of a JPEG. Progressive ones have about ten; each further one is a pass over all pixels, for ten bytes of the file."""

_TAG_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value by its type (TIFF 6.0, section 2, and BigTIFF)."""
_BYTE_ORDERS: dict[bytes, Any] = {b"II": "little", b"MM": "big"}
_SUB_DIRECTORIES = (0x8769, 0x8825, 0xA005)  # of EXIF, GPS and interoperability
_TILE_WIDTH, _TILE_HEIGHT, _SAMPLES, _BITS = 322, 323, 277, 258
_SCAN = re.compile(rb"\xff\xda")
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by IHDR's colour type
_MODE_BYTES = {"1": 1, "L": 1, "P": 1, "LA": 2, "La": 2, "PA": 2, "I;16": 2}


def find_excess(data: bytes) -> str | None:
    """Find in the contents of a picture file what no picture needs, before anything parses it; None where it is fine.

    Examples:
        >>> find_excess(b"\\xff\\xd8" + 300 * b"\\xff\\xda")
        '300 scans of a JPEG, limit 200'
    """
    if data.startswith(tuple(_BYTE_ORDERS)):
        return find_tag_excess(data)
    if not data.startswith(b"\xff\xd8"):
        return None
    scans = sum(1 for _ in _SCAN.finditer(data))
    if scans > MAX_SCANS:
        return f"{scans} scans of a JPEG, limit {MAX_SCANS}"
    exif, pictures = _read_jpeg_tags(data)
    return find_tag_excess(exif) or find_tag_excess(pictures)


def _read_jpeg_tags(data: bytes) -> tuple[bytes, bytes]:
    """Return the EXIF data of a JPEG and its table of pictures (MPF), as decoders put their segments together."""
    exif, pictures, start = [], [], 2
    while start + 4 <= len(data) and data[start] == 0xFF and data[start + 1] != 0xDA:
        size = int.from_bytes(data[start + 2 : start + 4])
        body = data[start + 4 : start + 2 + size]
        if data[start + 1] == 0xE1 and body.startswith(b"Exif\0"):
            exif.append(body[6:])
        elif data[start + 1] == 0xE2 and body.startswith(b"MPF\0"):
            pictures.append(body[4:])
        start += 2 + max(size, 2)
    return b"".join(exif), b"".join(pictures)


def find_tag_excess(data: bytes) -> str | None:
    """Find what is excessive in the directories of a TIFF, or of EXIF data, which have its form.

    A value that does not fit into its entry lies elsewhere, and any number of entries can name the same place: a
    decoder copies it for each. Therefore all values together are bounded by the size of what holds them.
    """
    data = data.removeprefix(b"Exif\0\0")
    order = _BYTE_ORDERS.get(data[:2])
    if order is None or len(data) < 8:
        return None
    is_big = int.from_bytes(data[2:4], order) == 43
    head, entry_bytes, word, count_bytes = (16, 20, 8, 8) if is_big else (8, 12, 4, 2)
    waiting = [int.from_bytes(data[head - word : head], order)]
    visited: set[int] = set()
    tags = claimed = 0
    while waiting:
        start = waiting.pop()
        if start in visited or not 0 < start <= len(data) - count_bytes:
            continue
        visited.add(start)
        if len(visited) > MAX_DIRECTORIES:
            return f"more than {MAX_DIRECTORIES} pages or directories of tags"
        count = int.from_bytes(data[start : start + count_bytes], order)
        tags += count
        if tags > MAX_TAGS:
            return f"{tags} tags, limit {MAX_TAGS}"
        first = start + count_bytes
        for place in range(first, min(first + count * entry_bytes, len(data) - entry_bytes + 1), entry_bytes):
            tag, kind = (int.from_bytes(data[place + k : place + k + 2], order) for k in (0, 2))
            size = int.from_bytes(data[place + 4 : place + 4 + word], order) * _TAG_BYTES.get(kind, 0)
            value = int.from_bytes(data[place + entry_bytes - word : place + entry_bytes], order)
            if size > word:
                claimed += max(0, min(size, len(data) - value))
            if tag in _SUB_DIRECTORIES:
                waiting.append(value)
        if claimed > 2 * len(data):
            return f"tags whose values take {claimed} bytes, in {len(data)} bytes"
        end = first + count * entry_bytes
        waiting.append(int.from_bytes(data[end : end + word], order))
    return None


def count_decoded_bytes(image: Any, data: bytes) -> int:
    """Count the bytes of an opened picture's pixels, decoded at the depth of its file, or of a larger tile of a TIFF.

    Args:
        image: as Pillow has opened it.
        data: contents of the file.
    """
    width, height = image.size
    pixels, depth = width * height, _MODE_BYTES.get(image.mode, BYTES_A_PIXEL)
    if image.format == "PNG" and data[24] > 8:
        depth = max(depth, 2 * _PNG_CHANNELS.get(data[25], 4))
    elif image.format == "TIFF":
        tags = image.tag_v2
        pixels = max(pixels, _read_number(tags, _TILE_WIDTH) * _read_number(tags, _TILE_HEIGHT))
        depth = max(depth, -(-_read_number(tags, _BITS) // 8) * _read_number(tags, _SAMPLES))
    return int(pixels * depth)


def _read_number(tags: Any, tag: int) -> int:
    value = tags.get(tag, 1)
    value = max(value, default=1) if isinstance(value, tuple) else value
    return int(value) if isinstance(value, int) else 1
