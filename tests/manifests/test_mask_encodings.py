"""Masks of every encoding: the same mask comes out, in both polarities, or a statement of what the file holds."""

import io
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image

from rasura.manifests.images import Mask
from rasura.manifests.masks import EmptyMask, NotAMask, read_mask

VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128, 128, 0, 128]


def save(pixels: np.ndarray | Image.Image, format: str = "PNG", **more: object) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.ascontiguousarray(pixels))
    out = io.BytesIO()
    image.save(out, format, **more)
    return out.getvalue()


def save_words(words: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel from (h, w, 3) uint16, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", words.shape[1], words.shape[0], 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in words))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def palette(indices: np.ndarray, colours: list[int], **more: object) -> bytes:
    image = Image.fromarray(indices.astype(np.uint8), "L")
    image.putpalette(colours)
    return save(image, **more)


def paint(mask: Mask, colour: tuple[int, ...], ground: tuple[int, ...]) -> np.ndarray:
    return np.where(mask[..., None], np.array(colour, np.uint8), np.array(ground, np.uint8))


def label(mask: Mask) -> np.ndarray:
    return cv2.connectedComponents(mask.astype(np.uint8))[1].astype(np.uint8)


def soften(mask: Mask) -> np.ndarray:
    return cv2.GaussianBlur(mask.astype(np.uint8) * 255, (0, 0), 1.0)


def recode(data: bytes) -> bytes:
    """A lossy file opened and saved as PNG: its noise stays."""
    return save(Image.open(io.BytesIO(data)))


ENCODINGS: dict[str, Callable[[Mask], bytes]] = {
    "grey 0/255": lambda m: save(m * np.uint8(255)),
    "grey 0/1": lambda m: save(m.astype(np.uint8)),
    "1 bit": save,
    "half opacity": lambda m: save(m * np.uint8(128)),
    "labels 1, 2, 3": lambda m: save(label(m)),
    "labels 60, 120": lambda m: save(label(m) * np.uint8(60)),
    "VOC palette": lambda m: palette(label(m), VOC),
    "palette white, black": lambda m: palette(~m, [255, 255, 255, 0, 0, 0]),
    "red on black": lambda m: save(paint(m, (255, 0, 0), (0, 0, 0))),
    "blue on black": lambda m: save(paint(m, (0, 0, 255), (0, 0, 0))),
    "red on white": lambda m: save(paint(m, (255, 0, 0), (255, 255, 255))),
    "ids in one channel": lambda m: save(paint(m, (1, 0, 0), (0, 0, 0))),
    "black paint on transparency": lambda m: save(paint(m, (0, 0, 0, 255), (0, 0, 0, 0))),
    "half red on transparency": lambda m: save(paint(m, (255, 0, 0, 128), (0, 0, 0, 0))),
    "opaque RGBA": lambda m: save(paint(m, (255, 255, 255, 255), (0, 0, 0, 255))),
    "grey and alpha": lambda m: save(paint(m, (0, 200), (0, 0))),
    "16 bit 0/255": lambda m: save(m.astype(np.uint16) * 255),
    "16 bit 0/1": lambda m: save(m.astype(np.uint16)),
    "16 bit colours 0/255": lambda m: save_words(np.repeat(m[..., None].astype(np.uint16) * 255, 3, 2)),
    "float 0..1": lambda m: save(m.astype(np.float32), "TIFF"),
    "float 0..255": lambda m: save(m.astype(np.float32) * 255, "TIFF"),
    "int32 0/1": lambda m: save(m.astype(np.int32), "TIFF"),
    "int32 -1/0": lambda m: save(m.astype(np.int32) - 1, "TIFF"),
    "CMYK": lambda m: save(Image.fromarray(paint(m, (255,) * 3, (0,) * 3)).convert("CMYK"), "TIFF"),
    "soft edge": lambda m: save(soften(m)),
    "soft edge at 40 %": lambda m: save((soften(m) * 0.4).astype(np.uint8)),
    "JPEG": lambda m: save(m * np.uint8(255), "JPEG", quality=70),
    "JPEG saved as PNG": lambda m: recode(save(m * np.uint8(255), "JPEG", quality=100)),
    "WebP": lambda m: save(paint(m, (255,) * 3, (0,) * 3), "WEBP", quality=60),
}
LOSSY = ("soft", "JPEG", "WebP")


def draw(seed: int) -> Mask:
    """One to three ellipses."""
    rng = np.random.default_rng(seed)
    canvas = np.zeros((96, 128), np.uint8)
    for _ in range(int(rng.integers(1, 4))):
        centre = (int(rng.integers(20, 108)), int(rng.integers(20, 76)))
        axes = (int(rng.integers(9, 24)), int(rng.integers(9, 18)))
        cv2.ellipse(canvas, centre, axes, float(rng.integers(0, 180)), 0, 360, 1, -1)
    return canvas > 0


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("seed", [501, 502, 503])
def test_the_mask_that_goes_in_comes_out(name: str, seed: int) -> None:
    """Whatever marks the object (0/1, palette, labels, paint, alpha, bits), the reading is the mask; with black as the
    object, one of the black readings is. Files without loss are read to the pixel."""
    mask = draw(seed)
    for inverted in (False, True):
        reading = read_mask(ENCODINGS[name](~mask if inverted else mask))
        readings = [*reading.black, reading.white] if inverted else [reading.white]
        overlaps = [(one & mask).sum() / (one | mask).sum() for one in readings]
        assert max(overlaps) >= (0.97 if name.startswith(LOSSY) else 1.0), reading.values


@pytest.mark.parametrize(
    ("data", "values"),
    [
        (save(np.zeros((20, 30), np.uint8)), "values 0"),
        (save(np.full((20, 30, 3), 255, np.uint8)), "values 255"),
        (palette(np.ones((20, 30)), VOC), "indices 1"),
        (save(np.zeros((20, 30), np.uint16)), "values 0"),
    ],
)
def test_a_file_that_marks_nothing_says_what_it_holds(data: bytes, values: str) -> None:
    """Nothing marked, or everything, is an error with the values, not an empty mask."""
    with pytest.raises(EmptyMask, match=values):
        read_mask(data)


def test_a_photograph_is_no_mask() -> None:
    """A picture of many values, grey or in colour, and values that are not finite, are refused."""
    y, x = np.mgrid[:80, :100]
    photo = np.dstack([x * 2.5, y * 3, (x + y) * 1.4]).astype(np.uint8)
    for data in (save(photo), save(photo[..., 0]), save(np.where(x > 50, np.nan, 1).astype(np.float32), "TIFF")):
        with pytest.raises(NotAMask):
            read_mask(data)


def test_overlapping_strokes_at_half_opacity_are_all_marked() -> None:
    """Two strokes of a soft brush: where they overlap is brighter, and where they do not is marked too."""
    canvas = np.zeros((60, 90), np.uint8)
    canvas[10:40, 10:40] = 128
    canvas[20:50, 30:70] = np.where(canvas[20:50, 30:70] > 0, 191, 128)
    assert (read_mask(save(canvas)).white == (canvas > 0)).all()
    assert any((one == (canvas > 0)).all() for one in read_mask(save(255 - canvas)).black)


def test_a_page_with_a_thumbnail_before_it_is_the_mask() -> None:
    """The largest page of a TIFF is read, upright."""
    mask = draw(504)
    small = Image.fromarray(mask * np.uint8(255)).resize((16, 12))
    data = save(small, "TIFF", save_all=True, append_images=[Image.fromarray(mask * np.uint8(255))])
    assert (read_mask(data).white == mask).all()


@pytest.mark.parametrize("values", [(7, 23, 24), (1, 2, 3), (1, 2, 255), (70, 90, 120)])
@pytest.mark.parametrize("encode", ["grey", "palette"])
def test_labels_without_a_0_do_not_say_what_the_background_is(values: tuple[int, int, int], encode: str) -> None:
    """Of a street, road and sky are labels, too: all but the lowest one together are no object."""
    labels = np.full((60, 80), values[0], np.uint8)
    labels[:20], labels[30:50, 20:40] = values[1], values[2]
    data = save(labels) if encode == "grey" else palette(labels, [channel * 97 % 256 for channel in range(768)])
    with pytest.raises(NotAMask, match="none is 0"):
        read_mask(data)


def test_three_colours_without_black_or_white_do_not_say_what_the_background_is() -> None:
    labels = np.full((60, 80, 3), (128, 64, 128), np.uint8)
    labels[:20], labels[30:50, 20:40] = (70, 130, 180), (220, 20, 60)
    with pytest.raises(NotAMask, match="3 colours"):
        read_mask(save(labels))
    two = np.full((60, 80, 3), (0, 102, 30), np.uint8)
    two[30:50, 20:40] = (200, 0, 0)
    assert read_mask(save(two)).white.sum() == 400


def test_a_trimap_is_no_mask_but_soft_edges_and_three_labels_are() -> None:
    """The band of a trimap is neither object nor background; an edge of one pixel and labels that touch are read."""
    inner = np.zeros((60, 80), bool)
    inner[20:40, 30:50] = True
    for reach, refused in ((11, True), (3, False)):
        wide = cv2.dilate(inner.astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
        for values in ((0, 128, 255), (255, 127, 0)):
            data = save(np.where(inner, values[2], np.where(wide, values[1], values[0])).astype(np.uint8))
            if refused:
                with pytest.raises(NotAMask, match="a trimap"):
                    read_mask(data)
            else:
                assert read_mask(data).values
    for values in ((0, 128, 255), (0, 1, 2), (0, 2, 1), (0, 15, 20)):
        labels = np.full((60, 80), values[0], np.uint8)
        labels[10:30, 10:30], labels[10:30, 40:60] = values[1:]
        assert (read_mask(save(labels)).white == (labels > 0)).all()


@pytest.mark.parametrize("encode", ["grey", "palette"])
def test_bands_and_voids_of_label_maps_are_no_objects(encode: str) -> None:
    """Trimaps of any three labels, and 255 beside small labels; a label in a wide one, and 255 alone, are objects."""
    inner = np.zeros((120, 160), bool)
    inner[40:80, 60:100] = True
    wide = cv2.dilate(inner.astype(np.uint8), np.ones((11, 11), np.uint8)) > 0

    def write(*values: int, ring: Mask = wide) -> bytes:
        labels = np.where(inner, values[2], np.where(ring, values[1], values[0])).astype(np.uint8)
        return save(labels) if encode == "grey" else palette(labels, [channel * 97 % 256 for channel in range(768)])

    for values, reason in (((0, 1, 2), "trimap"), ((0, 2, 1), "trimap"), ((0, 9, 4), "trimap"), ((0, 255, 15), "void")):
        with pytest.raises(NotAMask, match=reason):
            read_mask(write(*values))
    everywhere = np.zeros_like(inner)
    everywhere[5:115, 5:155] = True
    assert (read_mask(write(0, 2, 1, ring=everywhere)).white == (inner | everywhere)).all()
    assert (read_mask(write(0, 255, 255)).white == wide).all()
