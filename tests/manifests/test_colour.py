"""One colour, whatever the file stores it in: pixel format, profile, depth, orientation; unclear ones are refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from rasura.manifests.images import UnclearImage, decode_image

PRIMARIES = {  # columns of the matrix to XYZ with white D50, as profiles have them
    "srgb": [[0.43607, 0.38506, 0.14308], [0.2225, 0.71688, 0.06062], [0.01393, 0.0971, 0.71417]],
    "p3": [[0.51512, 0.29198, 0.1571], [0.2412, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]],
    "adobe": [[0.60976, 0.20524, 0.14922], [0.31112, 0.62566, 0.06322], [0.01948, 0.06089, 0.74484]],
}


def build_profile(space: str, grey: bool = False) -> bytes:
    """An ICC profile of version 2 with a matrix and tone curves, or a grey one with the curve alone."""

    def fixed(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(value * 65_536) for value in values))

    if space == "adobe":
        curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, 563) + b"\0\0"
    else:
        curve = (
            b"curv\0\0\0\0"
            + struct.pack(">I", 1024)
            + np.rint(_linear(np.arange(1024) / 1023, space) * 65_535).astype(">u2").tobytes()
        )
    text = b"desc\0\0\0\0" + struct.pack(">I", len(space) + 1) + space.encode() + b"\0" * 80
    tags = [(b"desc", text), (b"cprt", b"text\0\0\0\0CC0\0"), (b"wtpt", b"XYZ \0\0\0\0" + fixed(0.9642, 1, 0.8249))]
    if grey:
        tags.append((b"kTRC", curve))
    else:
        columns = np.array(PRIMARIES[space]).T
        tags += [
            (name, b"XYZ \0\0\0\0" + fixed(*column))
            for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)
        ]
        tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    start, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags:
        data += b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"", 0x2100000, b"mntr", b"GRAY" if grey else b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28 + fixed(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + table + body


def _linear(level: np.ndarray, space: str) -> np.ndarray:
    if space == "adobe":
        return level ** (563 / 256)
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)


def to_srgb(pixels: np.ndarray, space: str) -> np.ndarray:
    """The reference, in floats."""
    light = _linear(pixels / 255, space)
    if pixels.ndim == 3:
        light = light @ (np.linalg.inv(np.array(PRIMARIES["srgb"])) @ np.array(PRIMARIES[space])).T
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


PATCHES = ((200, 60, 50), (60, 180, 60), (40, 70, 200), (255, 255, 255), (0, 0, 0))


def make_scene(seed: int) -> np.ndarray:
    """Smooth colours, and patches of red, green, blue, white and black."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :56]
    waves = [128 + 90 * np.sin(x / rng.uniform(8, 20) + y / rng.uniform(8, 20)) for _ in range(3)]
    scene = np.dstack(waves)
    for left, colour in zip((2, 12, 22, 32, 42), PATCHES, strict=True):
        scene[4:12, left : left + 8] = colour
    return np.clip(np.rint(scene), 0, 255).astype(np.uint8)


def save(pixels: np.ndarray | Image.Image, format: str = "PNG", **more: object) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.ascontiguousarray(pixels))
    out = io.BytesIO()
    image.save(out, format, **more)
    return out.getvalue()


def make_exif(space: int, index: bytes, orientation: int = 1) -> bytes:
    """EXIF data with a colour space, its interoperability index in the folder of its own, and an orientation."""

    def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
        return struct.pack("<HHI", tag, kind, count) + value

    data = b"II*\0" + struct.pack("<IH", 8, 2) + entry(0x112, 3, 1, struct.pack("<HH", orientation, 0))
    data += entry(0x8769, 4, 1, struct.pack("<I", 38)) + b"\0" * 4
    data += struct.pack("<H", 2) + entry(0xA001, 3, 1, struct.pack("<HH", space, 0))
    data += entry(0xA005, 4, 1, struct.pack("<I", 68)) + b"\0" * 4
    return b"Exif\0\0" + data + struct.pack("<H", 1) + entry(1, 2, 4, index + b"\0") + b"\0" * 4


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def save_words(words: np.ndarray, profile: bytes = b"") -> bytes:
    """A PNG of 16 bits a channel: grey, grey with alpha, RGB or RGBA."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[words.shape[2]]
    header = struct.pack(">IIBBBBB", words.shape[1], words.shape[0], 16, kind, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in words))
    icc = chunk(b"iCCP", b"x\0\0" + zlib.compress(profile)) if profile else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + icc + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def add_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    place = png.index(b"IDAT") - 4
    return png[:place] + chunk(kind, data) + png[place:]


ALPHA = np.where(np.arange(56) < 20, 90, 255).astype(np.uint8)[None].repeat(40, 0)


def over_white(colours: np.ndarray) -> np.ndarray:
    share = ALPHA[..., None] / 255
    return colours * share + 255 * (1 - share)


@pytest.mark.parametrize("space", PRIMARIES)
@pytest.mark.parametrize("seed", [31, 32])
def test_a_profile_counts_in_every_pixel_format(space: str, seed: int) -> None:
    """RGB, with alpha, palette, grey, 16 bits, each as PNG, TIFF or WebP: within 2 levels of the reference."""
    scene, profile = make_scene(seed), build_profile(space)
    expected = to_srgb(scene.astype(float), space)
    quantized = Image.fromarray(scene).quantize(64)
    palette = to_srgb(np.asarray(quantized.convert("RGB")).astype(float), space)
    grey = np.repeat(to_srgb(scene[..., 1].astype(float), space)[..., None], 3, 2)
    rgba = np.dstack([scene, ALPHA])
    words = np.dstack([scene.astype(np.uint16) * 257, ALPHA.astype(np.uint16) * 257])
    cases = {
        "rgb": (save(scene, icc_profile=profile), expected),
        "rgba": (save(rgba, icc_profile=profile), over_white(expected)),
        "palette": (save(quantized, icc_profile=profile), palette),
        "grey": (save(scene[..., 1], icc_profile=profile), grey),
        "grey profile": (save(scene[..., 1], icc_profile=build_profile(space, grey=True)), grey),
        "16 bits": (save_words(words[..., :3], profile), expected),
        "16 bits, alpha": (save_words(words, profile), over_white(expected)),
        "16 bits, grey, alpha": (save_words(words[..., [1, 3]], build_profile(space, grey=True)), over_white(grey)),
        "TIFF": (save(scene, "TIFF", icc_profile=profile), expected),
        "WebP": (save(rgba, "WEBP", lossless=True, exact=True, icc_profile=profile), over_white(expected)),
    }
    for name, (data, reference) in cases.items():
        assert np.abs(decode_image(data) - reference).max() <= 2, name


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_adobe_rgb_of_cameras_is_recognised_without_a_profile(orientation: int) -> None:
    """ColorSpace 0xFFFF and R03 mean Adobe RGB, upright or turned; R98 is sRGB; a profile counts more."""
    scene = make_scene(33)
    turn = {1: lambda a: a, 3: lambda a: a[::-1, ::-1], 6: np.rot90}[orientation]
    stored = np.ascontiguousarray(turn(scene))
    adobe = decode_image(save(stored, exif=make_exif(0xFFFF, b"R03", orientation)))
    assert np.abs(adobe - to_srgb(scene.astype(float), "adobe")).max() <= 1
    plain = decode_image(save(stored, exif=make_exif(1, b"R98", orientation)))
    assert (plain == scene).all()
    profile = build_profile("srgb")
    told = decode_image(save(stored, exif=make_exif(0xFFFF, b"R03", orientation), icc_profile=profile))
    assert np.abs(told.astype(int) - scene).max() <= 1


def test_png_names_its_colours_by_cicp() -> None:
    """Display P3 is converted; PQ, of HDR, is refused with its name."""
    scene = make_scene(34)
    p3 = decode_image(add_chunk(save(scene), b"cICP", bytes([12, 13, 0, 1])))
    assert np.abs(p3 - to_srgb(scene.astype(float), "p3")).max() <= 2
    with pytest.raises(UnclearImage, match="PQ"):
        decode_image(add_chunk(save(scene), b"cICP", bytes([9, 16, 0, 1])))


def test_png_names_its_colours_by_chromaticities() -> None:
    """cHRM of Display P3 is applied; gAMA of sRGB changes nothing; another one is refused, without sRGB's chunk."""
    scene = make_scene(36)
    screen, linear = (b"gAMA", (45_455).to_bytes(4)), (b"gAMA", (100_000).to_bytes(4))
    p3 = struct.pack(">8I", 31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6_000)
    srgb = struct.pack(">8I", 31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000)
    for chunks, space in (([screen], None), ([screen, (b"cHRM", srgb)], None), ([screen, (b"cHRM", p3)], "p3")):
        data = save(scene)
        for kind, contents in chunks:
            data = add_chunk(data, kind, contents)
        expected = scene if space is None else to_srgb(scene.astype(float), space)
        assert np.abs(decode_image(data) - expected).max() <= (2 if space else 0)
    for gamma in (100_000, 55_556):
        with pytest.raises(UnclearImage, match="gAMA says"):
            decode_image(add_chunk(save(scene), b"gAMA", gamma.to_bytes(4)))
    assert (decode_image(add_chunk(add_chunk(save(scene), *linear), b"sRGB", b"\0")) == scene).all()
    with pytest.raises(UnclearImage, match="white"):
        decode_image(add_chunk(save(scene), b"cHRM", struct.pack(">8I", 34_570, 35_850, *struct.unpack(">6I", p3[8:]))))


def test_what_cannot_be_seen_or_moves_is_no_photograph() -> None:
    """A picture whose pixels are all transparent, and one of several frames, are refused with the reason."""
    scene = make_scene(37)
    with pytest.raises(UnclearImage, match="transparent"):
        decode_image(save(np.dstack([scene, np.zeros(scene.shape[:2], np.uint8)])))
    for format in ("PNG", "WEBP"):
        out = io.BytesIO()
        frames = [Image.fromarray(scene), Image.fromarray(scene[::-1].copy())]
        frames[0].save(out, format, save_all=True, append_images=frames[1:], duration=100)
        with pytest.raises(UnclearImage, match="2 frames"):
            decode_image(out.getvalue())


LEVELS = make_scene(35)[..., 0].astype(float)


@pytest.mark.parametrize(
    ("pixels", "exact"),
    [
        ((LEVELS / 255).astype(np.float32), True),
        (LEVELS.astype(np.float32), True),
        (LEVELS.astype(np.int32), True),
        ((LEVELS * 257).astype(np.uint16), True),
        ((LEVELS / 25).astype(np.float32), False),
        (np.where(LEVELS > 200, np.nan, LEVELS / 255).astype(np.float32), False),
        ((LEVELS * 16).astype(np.uint16), False),
        (LEVELS.astype(np.uint16), False),
        ((LEVELS * 4000).astype(np.int32), False),
    ],
)
def test_a_range_of_numbers_is_known_or_refused(pixels: np.ndarray, exact: bool) -> None:
    """0..1, 0..255 and 0..65535 are read; what could be two of them, or none, is an error with its range."""
    if exact:
        assert np.abs(decode_image(save(pixels, "TIFF"))[..., 0] - LEVELS).max() <= 1
    else:
        with pytest.raises(UnclearImage, match=r"grey numbers"):
            decode_image(save(pixels, "TIFF"))


def test_colours_of_8_bits_in_16_are_refused() -> None:
    """A PNG of 16 bits whose upper bytes are zero would be a black picture."""
    with pytest.raises(UnclearImage, match="none is above 255"):
        decode_image(save_words(make_scene(36).astype(np.uint16)))


@pytest.mark.parametrize("first", [True, False])
def test_the_full_page_of_a_tiff_is_read(first: bool) -> None:
    """A thumbnail before or after the picture is left out; two pages of one size are refused."""
    scene = make_scene(37)
    pages: list[Image.Image] = [Image.fromarray(scene).resize((14, 10)), Image.fromarray(scene)]
    pages = pages if first else pages[::-1]
    assert (decode_image(save(pages[0], "TIFF", save_all=True, append_images=pages[1:])) == scene).all()
    with pytest.raises(UnclearImage, match="2 pages"):
        decode_image(save(pages[0], "TIFF", save_all=True, append_images=[pages[0]]))


def test_white_may_be_zero() -> None:
    """A TIFF of 16 bits in which white is zero is not a negative."""
    words = np.rint(LEVELS * 257).astype(np.uint16)
    assert np.abs(decode_image(save(65_535 - words, "TIFF", tiffinfo={262: 0}))[..., 0] - LEVELS).max() <= 1
