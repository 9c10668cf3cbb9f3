"""Small files that ask for gigabytes or minutes: each is one error before that is spent, and a real picture is none."""

import io
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import psutil
import pytest
from PIL import Image
from support.broken_pictures import make_deep_bomb, make_page_bomb, make_scan_bomb, make_tag_bomb

from rasura.manifests import images
from rasura.manifests.safety.picture_limits import MAX_SCANS

SECONDS, MEGABYTES = 10, 150


def encode(format: str, side: int = 32, **settings: object) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(side).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, format, **settings)
    return out.getvalue()


def add_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return png[:33] + chunk + png[33:]


@contextmanager
def little_is_spent() -> Iterator[None]:
    """Fail where the process grew, or worked long (other processes do not count)."""
    process, start = psutil.Process(), time.process_time()
    before = process.memory_info().rss
    yield
    assert time.process_time() - start < SECONDS
    assert process.memory_info().rss - before < MEGABYTES * 2**20


def test_limit_counts_decoded_bytes() -> None:
    """125 kB of 16-bit PNG that would take 1.6 GiB are refused unread; the limit is the parameter, reckoned with four
    bytes a pixel, so that a picture of 8 bits may have all its pixels, and one of 16 bits and alpha half of them."""
    bomb = make_deep_bomb(6000)
    assert len(bomb) < 400_000
    with little_is_spent(), pytest.raises(images.TooManyPixels, match="6000 x 6000, 288 MB decoded, limit 256"):
        images.decode_image(bomb)
    deep = make_deep_bomb(100)
    with pytest.raises(images.TooManyPixels, match="decoded"):
        images.decode_image(deep, max_pixels=19_999)
    assert images.decode_image(deep, max_pixels=20_000).shape == (100, 100, 3)
    assert images.decode_image(encode("PNG", 100), max_pixels=10_000).shape == (100, 100, 3)
    with pytest.raises(images.TooManyPixels):
        images.decode_mask(make_deep_bomb(100), max_pixels=19_999)


def test_tile_of_a_tiff_counts_as_its_pixels() -> None:
    """One pixel in a tile of gigabytes, which the decoder would allocate."""
    tile = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    tile += [(322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 8), (325, 4, 1, 8)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tile)
    data = b"II*\0" + struct.pack("<I", 16) + zlib.compress(b"")[:8] + struct.pack("<H", len(tile)) + entries + bytes(4)
    with little_is_spent(), pytest.raises(images.TooManyPixels, match="3600 MB decoded"):
        images.decode_image(data)


@pytest.mark.parametrize("holder", ["jpeg", "jpeg of many", "png", "png as text", "webp", "tiff"])
def test_tags_that_claim_each_other(holder: str) -> None:
    """60 kB of tags whose values are all of the same bytes would take 300 MB: no holder of EXIF data lets them in."""
    bomb = make_tag_bomb()
    exif = b"Exif\0\0" + bomb
    text = b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n%d\n" % len(exif) + exif.hex().encode())
    jpeg = encode("JPEG")
    segment = lambda kind, body: b"\xff" + kind + struct.pack(">H", len(body) + 2) + body  # noqa: E731
    data = {
        "jpeg": lambda: jpeg[:2] + segment(b"\xe1", exif) + jpeg[2:],
        "jpeg of many": lambda: jpeg[:2] + segment(b"\xe2", b"MPF\0" + bomb) + jpeg[2:],
        "png": lambda: add_chunk(encode("PNG"), b"eXIf", bomb),
        "png as text": lambda: add_chunk(encode("PNG"), b"zTXt", text),
        "webp": lambda: encode("WEBP", exif=exif),
        "tiff": lambda: bomb,
    }[holder]()
    with little_is_spent(), pytest.raises(images.TooManyParts, match="tags whose values take"):
        images.decode_image(data)


def test_pages_and_scans_are_bounded() -> None:
    """A TIFF of 100,000 pages, and a progressive JPEG of thousands of scans, are not walked through."""
    with little_is_spent(), pytest.raises(images.TooManyParts, match="more than 256 pages"):
        images.decode_image(make_page_bomb(100_000))
    jpeg = encode("JPEG", 64, progressive=True)
    assert images.decode_image(jpeg).shape == (64, 64, 3)
    with little_is_spent(), pytest.raises(images.TooManyParts, match=f"scans of a JPEG, limit {MAX_SCANS}"):
        images.decode_image(make_scan_bomb(jpeg, 50_000))


def test_profiles_are_bounded() -> None:
    """A profile that says it has four thousand million tags, or that unpacks to gigabytes, costs no time."""
    profile = bytearray(200)
    profile[16:20], profile[128:132] = b"RGB ", b"\xff\xff\xff\xff"
    packed = zlib.compress(bytes(300_000_000), 9)
    deep = make_deep_bomb(32)
    with little_is_spent():
        for data in (
            encode("PNG", icc_profile=bytes(profile)),
            add_chunk(deep, b"iCCP", b"p\0\0" + zlib.compress(profile)),
        ):
            assert images.decode_image(data).shape == (32, 32, 3)
        with pytest.raises(images.TruncatedImage, match="too large"):
            images.decode_image(add_chunk(deep, b"iCCP", b"p\0\0" + packed))


def test_animations_are_one_error() -> None:
    """Frames are never decoded: of a PNG, a WebP, or a GIF, which is no format that is read."""
    frames = [Image.fromarray(np.full((16, 16, 3), level, np.uint8)) for level in range(0, 250, 5)]
    for format, error in (("PNG", images.UnclearImage), ("WEBP", images.UnclearImage), ("GIF", images.NotAnImage)):
        out = io.BytesIO()
        frames[0].save(out, format, save_all=True, append_images=frames[1:])
        with little_is_spent(), pytest.raises(error):
            images.decode_image(out.getvalue())


def test_real_metadata_pass() -> None:
    """Whole EXIF data with directories, a profile and a thumbnail are none of this."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture " * 500
    exif.get_ifd(0x8769)[0x927C] = bytes(range(256)) * 40
    exif.get_ifd(0x8825)[1] = "N"
    for format in ("JPEG", "PNG", "WEBP", "TIFF"):
        out = io.BytesIO()
        Image.new("RGB", (40, 30), (9, 80, 200)).save(out, format, exif=exif.tobytes())
        assert images.decode_image(out.getvalue()).shape == (40, 30, 3), format
