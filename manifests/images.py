"""The image codec: untrusted bytes in, upright RGB arrays out; lossless bytes on disk.

Every picture that enters Rasura passes `decode_image` once. Masks are boolean arrays in memory, True = object.
"""

import io
import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    ExifTags,
    Image,
    ImageOps,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from rasura.manifests.colours.srgb import ALPHA_MODES, UnclearColours, convert_to_srgb, read_facts
from rasura.manifests.safety.picture_limits import BYTES_A_PIXEL, count_decoded_bytes, find_excess, find_tag_excess

RGB = npt.NDArray[np.uint8]  # (height, width, 3), or 4 with alpha
Mask = npt.NDArray[np.bool_]  # (height, width), True = object, hole, to be removed
Depth = npt.NDArray[np.uint16]  # (height, width)

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")  # a JPEG with several pictures (MPO) opens as its first
MAX_PIXELS = 64_000_000
WEBP_MAX_SIDE = 16_383
ANIMATED = ("PNG", "WEBP")
TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
SUBFILE_TYPE, REDUCED, MASK_PAGE = 254, 1, 4  # TIFF 6.0, NewSubfileType and its bits

_PLUGINS = (BmpImagePlugin, JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin)
Image.MAX_IMAGE_PIXELS = None  # our own check runs on the header, before anything is decoded


class BadImage(ValueError):
    """A file that is no usable picture. Its subclasses say what is wrong:

    BadImage
    ├── EmptyFile        zero bytes
    ├── NotAnImage       no known picture format, or one that is not on the allow-list
    ├── TruncatedImage   the header is fine, the pixels are not
    ├── TooManyPixels    a decompression bomb, or simply larger than the limit
    ├── TooManyParts     pages, scans or tags by the thousand
    └── UnclearImage     its numbers, or its pages, could mean more than one picture
    """


class EmptyFile(BadImage):
    pass


class NotAnImage(BadImage):
    pass


class TruncatedImage(BadImage):
    pass


class TooManyPixels(BadImage):
    pass


class TooManyParts(BadImage):
    pass


class UnclearImage(BadImage):
    pass


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open and check a picture without decoding its pixels.

    Args:
        data: contents of the file.
        max_pixels: limit of the decoded pixels, reckoned with 4 bytes each: of 16 bits a channel, fewer are allowed.

    Raises:
        EmptyFile: it has zero bytes.
        NotAnImage: it has none of the formats `FORMATS`.
        TruncatedImage: its header cannot be read.
        TooManyPixels: it is over the limit.
        TooManyParts: reading it would walk through thousands of pages, scans or tags.
        UnclearImage: it has several pages or frames that could be the picture, or pixels of an unknown kind.
    """
    if not data:
        raise EmptyFile("the file has zero bytes")
    if excess := find_excess(data):
        raise TooManyParts(excess)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        head = data[:8].hex(" ")
        if data.startswith(TIFF_HEADS):
            raise UnclearImage(
                "a TIFF of a kind that is not read, as floats in colour; export it with 8 or 16 bits"
            ) from None
        raise NotAnImage(
            f"no picture in an allowed format ({', '.join(FORMATS)}); it starts with bytes {head}"
        ) from None
    except (OSError, SyntaxError, ValueError) as error:
        raise TruncatedImage(f"the header cannot be read: {error}") from None
    if image.format == "TIFF":
        _select_page(image)
    elif image.format in ANIMATED and (frames := getattr(image, "n_frames", 1)) > 1:
        raise UnclearImage(f"it holds {frames} frames of an animation; one picture a file is read")
    for name in ("exif", "Raw profile type exif"):  # of PNG and WebP, whose tags are parsed when they are asked for
        if excess := find_tag_excess(_read_info(image, name)):
            raise TooManyParts(excess)
    _check_size(image, data, max_pixels)
    return image


def _check_size(image: Image.Image, data: bytes, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise TooManyPixels(f"{width} x {height} = {width * height / 1e6:.0f} megapixels, limit {max_pixels / 1e6:.0f}")
    if (decoded := count_decoded_bytes(image, data)) > max_pixels * BYTES_A_PIXEL:
        raise TooManyPixels(
            f"{width} x {height}, {decoded / 1e6:.0f} MB decoded, limit {max_pixels * BYTES_A_PIXEL / 1e6:.0f} "
            f"({BYTES_A_PIXEL} bytes for each of {max_pixels / 1e6:.0f} megapixels)"
        )


def _read_info(image: Image.Image, name: str) -> bytes:
    """Return EXIF data that Pillow has found, as bytes; a PNG's may be written as text (hex digits after a header)."""
    value = image.info.get(name) or b""
    if isinstance(value, bytes):
        return value
    try:
        return bytes.fromhex("".join(value.split("\n", 3)[3:]))
    except ValueError:
        return b""  # broken EXIF data are no reason to lose the picture


def _select_page(image: Any) -> None:
    """Turn to the page of a TIFF that is its picture: the largest; thumbnails and masks have a flag, or are small.

    Raises:
        TruncatedImage: a page cannot be read.
        UnclearImage: two pages are of about one size, or none is a full picture.
    """
    try:
        pages = []
        for index in range(image.n_frames):
            image.seek(index)
            if not image.tag_v2.get(SUBFILE_TYPE, 0) & (REDUCED | MASK_PAGE):
                pages.append((image.size[0] * image.size[1], index))
        if not pages:
            raise UnclearImage("it holds a reduced picture only, not the full one")
        pages.sort(key=lambda page: (-page[0], page[1]))
        rivals = [page for page in pages[1:] if 2 * page[0] > pages[0][0]]
        if rivals:
            raise UnclearImage(f"it holds {len(rivals) + 1} pages of about one size; one picture a file is read")
        image.seek(pages[0][1])
    except UnclearImage:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError) as error:
        raise TruncatedImage(f"a page cannot be read: {error}") from None


def _load(image: Image.Image) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise TruncatedImage(f"the pixels cannot be read: {error}") from None


def load_upright(image: Image.Image) -> Image.Image:
    """Decode the pixels of an opened picture and turn it upright by its EXIF data.

    Raises:
        TruncatedImage: the pixels cannot be read.
    """
    _load(image)
    ImageOps.exif_transpose(image, in_place=True)
    return image


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> RGB:
    """Decode a picture to upright 8-bit sRGB.

    Args:
        data: contents of the file.
        max_pixels: limit, in px.

    Returns:
        (height, width, 3) uint8.

    Raises:
        BadImage: one of its subclasses, with what is wrong and the value.
    """
    image = open_image(data, max_pixels)
    try:
        facts = read_facts(image, data)
        return np.array(convert_to_srgb(load_upright(image), facts, data))
    except UnclearColours as error:
        raise UnclearImage(str(error)) from None


def read_size(data: bytes) -> tuple[int, int]:
    """Read width and height of one of Rasura's own pictures from its header.

    Examples:
        >>> read_size(encode_mask(np.ones((3, 5), bool)))
        (5, 3)
    """
    with Image.open(io.BytesIO(data)) as image:
        return image.size


def read_field_of_view(data: bytes) -> float | None:
    """Read the horizontal field of view of the upright picture from its EXIF data.

    The focal length is given as that of a 36 × 24 mm camera with the same diagonal angle of view.

    Returns:
        Degrees; None where the EXIF data do not have it.

    Raises:
        BadImage: the file is no usable picture.

    Source:
        CIPA DCG-001, 35 mm film equivalent focal length.
    """
    image = open_image(data)
    try:
        exif = image.getexif()
        equivalent = float(exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.FocalLengthIn35mmFilm) or 0)
        swapped = exif.get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    except (OSError, SyntaxError, ValueError, TypeError, ZeroDivisionError):
        return None  # broken EXIF data are no reason to lose the picture
    if not 5 <= equivalent <= 2000:
        return None
    width, height = image.size[::-1] if swapped else image.size
    half = math.hypot(36, 24) / 2 * width / math.hypot(width, height)
    return math.degrees(2 * math.atan(half / equivalent))


def decode_mask(data: bytes, max_pixels: int = MAX_PIXELS) -> Mask:
    """Decode a mask that `encode_mask` wrote. Masks from elsewhere are read by `manifests.masks.read_mask`.

    Args:
        data: contents of the file.
        max_pixels: limit, in px.

    Returns:
        (height, width) bool; grey values above 127 are object, transparent pixels are not.

    Raises:
        BadImage: one of its subclasses, with what is wrong and the value.
    """
    image = load_upright(open_image(data, max_pixels))
    if image.mode == "1":
        return np.array(image)
    if image.mode in ALPHA_MODES or "transparency" in image.info:  # what is transparent is no object
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return np.asarray(image.convert("L")) > 127


def decode_rgba(data: bytes, max_pixels: int = MAX_PIXELS) -> RGB:
    """Decode a picture with alpha, such as a cut-out that `encode_image` wrote, (height, width, 4) uint8."""
    image = open_image(data, max_pixels)
    _load(image)
    return np.array(image.convert("RGBA"))


def decode_depth(data: bytes) -> Depth:
    """Decode a map that `encode_depth` wrote, (height, width) uint16."""
    image = open_image(data)
    _load(image)
    return np.array(image).astype(np.uint16)


def encode_image(pixels: RGB) -> bytes:
    """Encode an RGB or RGBA array without loss: WebP (method 0), or PNG where a side is too long for WebP."""
    out = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if max(image.size) > WEBP_MAX_SIDE:
        image.save(out, "PNG", compress_level=1)
    else:
        image.save(out, "WEBP", lossless=True, quality=0, method=0, exact=True)
    return out.getvalue()


def encode_mask(mask: Mask) -> bytes:
    """Encode a (height, width) bool array as 1-bit PNG.

    Examples:
        >>> mask = np.eye(3, dtype=bool)
        >>> bool((decode_mask(encode_mask(mask)) == mask).all())
        True
    """
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(mask)).save(out, "PNG")
    return out.getvalue()


def encode_depth(depth: Depth) -> bytes:
    """Encode a (height, width) uint16 array as 16-bit PNG."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(depth, dtype=np.uint16)).save(out, "PNG", compress_level=1)
    return out.getvalue()
