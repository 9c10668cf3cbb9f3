"""Pictures that are wrong on purpose."""

import struct
import zlib


def make_bomb(width: int, height: int) -> bytes:
    """A PNG of some kilobytes that would decode to width x height pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * ((width // 8 + 2) * height), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def make_deep_bomb(side: int) -> bytes:
    """A PNG of 16 bits a channel with alpha: eight bytes a pixel, of which almost nothing is in the file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, row = zlib.compressobj(9), b"\0" + b"\x80" * (8 * side)
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def make_tag_bomb(entries: int = 5000) -> bytes:
    """EXIF data of 60 kB whose every tag claims all of it as its value."""
    size = 8 + 2 + 12 * entries + 4
    tags = b"".join(struct.pack("<HHII", 0xC000 + number, 1, size - 8, 8) for number in range(entries))
    return b"II*\0" + struct.pack("<IH", 8, entries) + tags + bytes(4)


def make_page_bomb(pages: int) -> bytes:
    """A TIFF of one page whose directory is followed by thousands more, of 18 bytes each."""
    head = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 3, 1, 8)]
    head += [(277, 3, 1, 1), (278, 3, 1, 1), (279, 3, 1, 1)]
    start = 10 + 2 + 12 * len(head) + 4
    first = struct.pack("<H", len(head)) + b"".join(struct.pack("<HHII", *tag) for tag in head)
    out = [b"II*\0", struct.pack("<IH", 10, 0), first, struct.pack("<I", start)]
    for number in range(1, pages):
        following = start + 18 * number if number < pages - 1 else 0
        out.append(struct.pack("<HHHIII", 1, 256, 3, 1, 1, following))
    return b"".join(out)


def make_scan_bomb(jpeg: bytes, scans: int) -> bytes:
    """A progressive JPEG whose last scan is there many times."""
    start = jpeg.rindex(b"\xff\xda")
    return jpeg[:start] + jpeg[start:-2] * scans + b"\xff\xd9"
