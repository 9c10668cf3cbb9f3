"""What a video file's container states about itself: whether it is whole, and how its levels are to be read.

OpenCV reads the frames, but says neither where a container ends nor which transfer function its levels have.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAX_HEADER = 64 << 20  # bytes: a header that is larger is not read

# ISO/IEC 23091-2 (H.273), table 3: transfer characteristics whose levels are not those of an ordinary display.
HDR_TRANSFERS = {16: "PQ (SMPTE ST 2084)", 18: "HLG (ARIB STD-B67)"}


@dataclass(frozen=True)
class Container:
    """A container's statements.

    Attributes:
        stores_count: the number of frames is stored in it, and not estimated from its duration.
        missing_bytes: by how much the file is shorter than the container says; 0 where it does not say.
        transfer: transfer characteristics by ISO/IEC 23091-2; None where it does not say.
    """

    stores_count: bool = False
    missing_bytes: int = 0
    transfer: int | None = None


def read_container(path: Path) -> Container:
    """Read a container's statements: ISO base media (MP4, MOV, 3GP), Matroska (MKV, WebM) or AVI.

    Returns:
        No statements at all for other formats, such as transport streams, and for damaged headers.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(0)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"):
            return _read_iso_media(file, size)
        if head[:4] == b"\x1a\x45\xdf\xa3":
            return _read_matroska(file, size)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            # a long AVI consists of several RIFF lists: the first one's size is what must be there at least; its count
            # of frames includes empty ones, which repeat the one before and are not decoded
            return Container(missing_bytes=max(0, 8 + int.from_bytes(head[4:8], "little") - size))
    return Container()


def _walk_boxes(file: BinaryIO, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, start and end of the content of each box from the file's position to `end`."""
    start = file.tell()
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        size, kind, content = int.from_bytes(head[:4], "big"), head[4:8], start + 8
        if size == 1:
            size, content = int.from_bytes(head[8:16], "big"), start + 16
        elif size == 0:  # to the end of the file
            size = end - start
        if size < content - start:
            return
        yield kind, content, start + size
        start += size


def _read_iso_media(file: BinaryIO, size: int) -> Container:
    transfer, furthest = None, 0
    for kind, start, end in _walk_boxes(file, size):
        furthest = max(furthest, end)
        if kind == b"moov" and end <= size:
            transfer = _find_iso_transfer(file, start, end)
    return Container(stores_count=True, missing_bytes=max(0, furthest - size), transfer=transfer)


def _find_iso_transfer(file: BinaryIO, start: int, end: int) -> int | None:
    """Find the transfer characteristics of the first video track in a `moov` box: ISO/IEC 14496-12, 12.1.5."""
    inner = {b"trak", b"mdia", b"minf", b"stbl"}
    file.seek(start)
    for kind, content, stop in _walk_boxes(file, end):
        if kind in inner and (transfer := _find_iso_transfer(file, content, stop)) is not None:
            return transfer
        if kind == b"stsd":
            file.seek(content + 8)  # version, flags, number of entries
            for _, entry, entry_end in _walk_boxes(file, stop):
                file.seek(entry + 78)  # the fixed part of a visual sample entry
                for name, colour, _ in _walk_boxes(file, entry_end):
                    file.seek(colour)
                    data = file.read(8)
                    if name == b"colr" and data[:4] in (b"nclx", b"nclc"):
                        return int.from_bytes(data[6:8], "big")
    return None


def _read_vint(file: BinaryIO, keep_marker: bool) -> int | None:
    """Read a variable-length integer of EBML (RFC 8794, section 4); None at the end or for an unknown size."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(length - 1), "big")
    if keep_marker:
        return value
    value &= (1 << 7 * length) - 1
    return None if value == (1 << 7 * length) - 1 else value


def _read_matroska(file: BinaryIO, size: int) -> Container:
    missing, transfer = 0, None
    path = {0x18538067: "Segment", 0x1654AE6B: "Tracks", 0xAE: "TrackEntry", 0xE0: "Video", 0x55B0: "Colour"}
    while file.tell() < size:
        element, length = _read_vint(file, True), _read_vint(file, False)
        if element is None:
            break
        if element == 0x18538067 and length is not None:
            missing = max(0, file.tell() + length - size)
        if element == 0x1F43B675 or (length is None and element not in path):  # the first cluster: frames begin
            break
        if element == 0x55BA and length is not None and length <= 8:
            transfer = int.from_bytes(file.read(length), "big")
        elif element not in path:
            file.seek(length or 0, 1)
    return Container(missing_bytes=missing, transfer=transfer)
