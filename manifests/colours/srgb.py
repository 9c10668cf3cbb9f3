"""Colours of decoded files: every pixel format, range and profile to 8-bit sRGB over white.

The same colour comes out whatever the file stores it in. What cannot be told (a range of numbers that has no usual
meaning, a transfer function of HDR) is an error with the values, never a guess.
"""

import io
import struct
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms

from rasura.manifests.colours.deep_pixels import Bytes, interpolate_conversion, read_words
from rasura.manifests.colours.icc import convert_words, parse_matrix_profile

Numbers = npt.NDArray[Any]

ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
STRIP_ROWS = 256  # rows that are converted at once, so that a large picture needs little memory
DARKEST_BYTES, DARKEST_WORDS = 32, 16_384
"""Maxima below which numbers may be of 8 or 16 bits, or of fewer bits in a larger container."""

_ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
_DISPLAY_P3 = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
_SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_D65 = (0.3127, 0.3290)
_ADOBE_GAMMA = 563 / 256  # Adobe RGB (1998) Color Image Encoding, section 4.3.1.2
_P3_PRIMARIES, _SRGB_PRIMARIES, _SRGB_TRANSFERS = 12, 1, (1, 6, 13)  # ITU-T H.273
_GAMMA_SLACK, _CHROMATICITY_SLACK = 0.01, 0.004  # by which programs round
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}


class UnclearColours(ValueError):
    """A file whose numbers have no meaning that can be told."""


class FileFacts(NamedTuple):
    """What a file says of its numbers, which is lost when its pixels are turned.

    Attributes:
        bits: a channel. Pillow keeps the upper eight of a colour channel.
        orientation: of the stored pixels, as EXIF counts it.
        inverted: white is zero, which Pillow inverts for 8 bits only.
        convert: colours without a profile to sRGB; None where nothing says that it is needed.
    """

    bits: int = 8
    orientation: int = 1
    inverted: bool = False
    convert: Callable[[Bytes], Bytes] | None = None


def read_facts(image: Any, data: bytes, is_mask: bool = False) -> FileFacts:
    """Read what an opened file, whose contents are `data`, says of its numbers; of a mask, colours mean nothing.

    Raises:
        UnclearColours: the transfer function is one of HDR, or is unknown here.
    """
    convert = None if is_mask or image.info.get("icc_profile") else find_colour_space(image, data)
    if image.format == "PNG":
        return FileFacts(data[24], _read_orientation(image) if data[24] > 8 else 1, False, convert)
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(ExifTags.Base.BitsPerSample) or (8,)
    inverted = tags.get(ExifTags.Base.PhotometricInterpretation) == 0
    return FileFacts(int(max(bits)), int(tags.get(ExifTags.Base.Orientation, 1)), inverted, convert)


def _read_orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (OSError, SyntaxError, ValueError, TypeError):
        return 1  # broken EXIF data are no reason to lose the picture


def read_chunks(data: bytes) -> dict[bytes, bytes]:
    """Read the chunks of a PNG before its pixels, the first one of each kind; none of another format."""
    chunks: dict[bytes, bytes] = {}
    start = 8
    while data.startswith(b"\x89PNG") and start + 12 <= len(data):
        length, kind = int.from_bytes(data[start : start + 4]), data[start + 4 : start + 8]
        if kind == b"IDAT":
            break
        chunks.setdefault(kind, data[start + 8 : start + 8 + length])
        start += length + 12
    return chunks


def convert_to_srgb(image: Image.Image, facts: FileFacts, data: bytes) -> Image.Image:
    """Convert a loaded, upright picture to 8-bit sRGB; alpha is composited over white, after the colours.

    An embedded profile is applied in every mode. Without one, Adobe RGB is recognised by its EXIF data and Display P3
    by a PNG's cICP chunk; the rest is sRGB.

    Args:
        image: of any mode.
        facts: of its file.
        data: contents of the file.

    Raises:
        UnclearColours: the range of the numbers has no meaning that can be told.
    """
    profile, words = image.info.get("icc_profile"), None
    if image.mode == "F" or image.mode.startswith("I"):
        image = _reduce_depth(image, facts.inverted)
    elif facts.bits > 8 and image.mode in ("RGB", "RGBA", "CMYK", "LA"):
        _check_upper_bytes(image, facts.bits)
        words = read_words(data, image, facts.orientation) if image.mode in ("RGB", "RGBA") else None
    alpha = None
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        alpha, image = _split_alpha(image)
    if image.mode not in ("RGB", "L", "CMYK", "LAB"):
        image = image.convert("L" if image.mode == "1" else "RGB")

    def convert(colours: Image.Image) -> Image.Image:
        colours = _apply_profile(colours, profile)
        return colours if facts.convert is None else Image.fromarray(facts.convert(np.asarray(colours)))

    if words is None:
        colours = convert(image)
    elif matrix := parse_matrix_profile(profile) if profile else None:
        colours = Image.fromarray(convert_words(words[..., :3], matrix))
    else:
        deep = interpolate_conversion(words[..., :3], lambda pixels: np.asarray(convert(Image.fromarray(pixels))))
        colours = Image.fromarray(deep)
    if alpha is None:
        return colours
    if alpha.getextrema()[1] == 0:
        raise UnclearColours("every pixel is transparent; nothing of the picture is to be seen")
    white = Image.new("RGB", colours.size, (255, 255, 255))
    white.paste(colours, mask=alpha)
    return white


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image]:
    """Return the alpha channel and the colours without it."""
    grey = image.mode in ("LA", "La")
    full = image.convert("LA" if grey else "RGBA")
    return full.getchannel("A"), full.getchannel("L") if grey else full.convert("RGB")


def _reduce_depth(image: Image.Image, inverted: bool) -> Image.Image:
    values = np.asarray(image)
    deep = image.mode.startswith("I;16")
    if inverted:
        if not deep:
            raise UnclearColours("white is zero, in numbers without an upper end")
        values = 65_535 - values.astype(np.int64)
    key = image.info.get("transparency")
    reduced = Image.fromarray(scale_to_bytes(values))
    if isinstance(key, int) and deep:
        reduced.putalpha(Image.fromarray(np.where(values == key, np.uint8(0), np.uint8(255))))
    return reduced


def scale_to_bytes(values: Numbers) -> Bytes:
    """Scale grey numbers of 16 or 32 bits, or floats, to (h, w) uint8.

    Floats up to 1 are shares of white; numbers up to 255 are levels of 8 bits, those up to 65,535 of 16 bits. Maxima
    far below these ends could be dark, or of another range: they are refused.

    Raises:
        UnclearColours: the numbers are of none of these ranges.

    Examples:
        >>> scale_to_bytes(np.array([[0.0, 0.5, 1.0]])).tolist(), scale_to_bytes(np.array([[0, 65535]])).tolist()
        ([[0, 128, 255]], [[0, 255]])
        >>> scale_to_bytes(np.array([[0, 4095]], np.uint16))
        Traceback (most recent call last):
        rasura.manifests.colours.srgb.UnclearColours: grey numbers from 0 to 4095 (uint16): neither 0..255 nor 0..65535
    """
    low, high = float(values.min()), float(values.max())
    is_float = bool(np.issubdtype(values.dtype, np.floating))
    if is_float and not np.isfinite(values).all():
        raise UnclearColours("grey numbers that are not finite")
    words = values.dtype.itemsize == 2 and not is_float
    slack = 0.01 if is_float else 0.0  # interpolation overshoots
    if low == high == 0:
        return np.zeros(values.shape, np.uint8)
    if is_float and -slack <= low and 0.1 <= high <= 1 + slack:
        factor = 255.0
    elif not words and -255 * slack <= low and DARKEST_BYTES <= high <= 255 * (1 + slack):
        factor = 1.0
    elif -65_535 * slack <= low and DARKEST_WORDS <= high <= 65_535 * (1 + slack):
        factor = 1 / 257
    else:
        ranges = "0..1, 0..255" if is_float else "0..255"
        raise UnclearColours(
            f"grey numbers from {low:g} to {high:g} ({values.dtype.name}): neither {ranges} nor 0..65535"
        )
    return np.clip(np.rint(values.astype(np.float64) * factor), 0, 255).astype(np.uint8)


def _check_upper_bytes(image: Image.Image, bits: int) -> None:
    """Check that a picture of 16 bits a channel uses them: of 8-bit values, the upper bytes are all zero."""
    bands = image.getextrema()[: 3 if image.mode != "LA" else 1]
    high = max(int(band[1]) for band in bands if isinstance(band, tuple))
    if 0 < high < DARKEST_WORDS >> 8:
        raise UnclearColours(f"{bits} bits a channel of which the greatest is about {high * 256}, not 65535")
    if high == 0:
        raise UnclearColours(f"{bits} bits a channel of which none is above 255")


def _apply_profile(image: Image.Image, data: bytes | None) -> Image.Image:
    """Convert RGB, L, CMYK or LAB to sRGB by a profile; one that is broken or of other channels is not applied."""
    if image.mode == "LAB":
        return _convert_by_profile(image, ImageCms.createProfile("LAB"))
    if not data:
        return image if image.mode == "RGB" else image.convert("RGB")
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        space = profile.profile.xcolor_space.strip()
        if space == "RGB" and image.mode == "L":
            image = image.convert("RGB")
        elif space == "GRAY" and image.mode == "RGB" and _is_grey(image):  # Pillow's grey of 16 bits with alpha
            image = image.getchannel(0)
        if space == {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}[image.mode]:
            return _convert_by_profile(image, profile)
    except (ImageCms.PyCMSError, OSError):
        pass  # a broken profile is no reason to lose the picture
    return image.convert("RGB")


def _is_grey(image: Image.Image) -> bool:
    pixels = np.asarray(image)
    return bool((pixels == pixels[..., :1]).all())


def _convert_by_profile(image: Image.Image, profile: Any) -> Image.Image:
    converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None  # it is None only where the picture is changed in place
    return converted


def find_colour_space(image: Image.Image, data: bytes) -> Callable[[Bytes], Bytes] | None:
    """Return the conversion to sRGB of a picture without a profile; None where nothing says that it needs one.

    Adobe RGB of cameras: ColorSpace 0xFFFF with the interoperability index R03 (DCF 2.0, the DCF optional colour
    space), or ColorSpace 2, which some cameras write. A PNG's cICP chunk names primaries and transfer by ITU-T H.273;
    without it and sRGB's chunk, gAMA and cHRM say what its numbers are.

    Raises:
        UnclearColours: the transfer function is one of HDR, or is unknown here.
    """
    chunks = read_chunks(data)
    if len(chunk := chunks.get(b"cICP", b"")) == 4:
        primaries, transfer = chunk[:2]
        if transfer in _HDR_TRANSFERS:
            raise UnclearColours(f"the transfer function is {_HDR_TRANSFERS[transfer]}, of HDR; export it as SDR")
        if primaries not in (_P3_PRIMARIES, _SRGB_PRIMARIES) or transfer not in _SRGB_TRANSFERS:
            raise UnclearColours(f"cICP names primaries {primaries} and transfer {transfer}, which are not known here")
        return convert_display_p3 if primaries == _P3_PRIMARIES else None
    if b"sRGB" not in chunks and {b"gAMA", b"cHRM"} & set(chunks):
        return find_chromaticities(chunks.get(b"gAMA", b""), chunks.get(b"cHRM", b""))
    try:
        exif = image.getexif()
        space = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
        index = exif.get_ifd(ExifTags.IFD.Interop).get(1)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        return None  # broken EXIF data are no reason to lose the picture
    text = index.decode("ascii", "replace") if isinstance(index, bytes) else str(index)
    return convert_adobe_rgb if space == 2 or (space == 0xFFFF and text.startswith("R03")) else None


def find_chromaticities(gamma: bytes, primaries: bytes) -> Callable[[Bytes], Bytes] | None:
    """Return the conversion to sRGB of a PNG with gAMA and cHRM; None where these are sRGB's, or broken.

    gAMA of 1 / 2.2 is written for sRGB's own curve; what another one means for dark levels, programs disagree on.

    Args:
        gamma: contents of the chunk gAMA; empty where there is none.
        primaries: of cHRM: white, red, green, blue, (x, y) each.

    Raises:
        UnclearColours: the exponent is not that of sRGB, or white is not that of daylight.

    Examples:
        >>> find_chromaticities((45455).to_bytes(4), b"") is None
        True
    """
    if len(gamma) == 4 and (exponent := int.from_bytes(gamma) / 100_000) and abs(exponent - 1 / 2.2) > _GAMMA_SLACK:
        raise UnclearColours(
            f"gAMA says {exponent:g}, where sRGB has 0.45455: its numbers are not those of a screen; export it as sRGB "
            "or with a profile"
        )
    if len(primaries) != 32:
        return None
    white, *colours = np.array(struct.unpack(">8I", primaries)).reshape(4, 2) / 100_000
    if np.abs(white - _D65).max() > _CHROMATICITY_SLACK:
        raise UnclearColours(f"cHRM names white {white.tolist()}, not that of daylight (0.3127, 0.329)")
    if np.abs(np.array(colours) - _SRGB).max() <= _CHROMATICITY_SLACK:
        return None
    if min(float(y) for _, y in colours) <= 0:
        raise UnclearColours(f"cHRM names primaries that are no colours: {np.array(colours).tolist()}")
    named = tuple((float(x), float(y)) for x, y in colours)
    return lambda pixels: _convert_primaries(pixels, _compute_srgb_light(), named)


def _compute_srgb_light() -> npt.NDArray[np.float64]:
    """Return the linear light of sRGB's 256 levels (IEC 61966-2-1)."""
    level = np.arange(256) / 255
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)


def convert_adobe_rgb(pixels: Bytes) -> Bytes:
    """Convert (h, w, 3) uint8 of Adobe RGB (1998) to sRGB.

    Examples:
        >>> convert_adobe_rgb(np.array([[[200, 60, 50], [255, 255, 255]]], np.uint8)).tolist()
        [[[231, 57, 46], [255, 255, 255]]]
    """
    linear = (np.arange(256) / 255) ** _ADOBE_GAMMA
    return _convert_primaries(pixels, linear, _ADOBE_RGB)


def convert_display_p3(pixels: Bytes) -> Bytes:
    """Convert (h, w, 3) uint8 of Display P3 to sRGB."""
    return _convert_primaries(pixels, _compute_srgb_light(), _DISPLAY_P3)


def _convert_primaries(pixels: Bytes, linear: Numbers, primaries: tuple[tuple[float, float], ...]) -> Bytes:
    matrix = (np.linalg.inv(_compute_matrix(_SRGB)) @ _compute_matrix(primaries)).astype(np.float32)
    curve, encode = linear.astype(np.float32), _tabulate_srgb()
    out = np.empty_like(pixels)
    for start in range(0, len(pixels), STRIP_ROWS):
        red, green, blue = (curve[pixels[start : start + STRIP_ROWS, :, channel]] for channel in range(3))
        for channel, (r, g, b) in enumerate(matrix):
            light = np.clip(r * red + g * green + b * blue, 0, 1)  # elementwise: the same on every processor
            out[start : start + STRIP_ROWS, :, channel] = encode[np.rint(light * 65_535).astype(np.uint16)]
    return out


@cache
def _tabulate_srgb() -> Bytes:
    """Return sRGB's encoding of linear light in 65,536 steps (IEC 61966-2-1)."""
    light = np.arange(65_536) / 65_535
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * encoded), np.uint8)


def _compute_matrix(primaries: tuple[tuple[float, float], ...]) -> npt.NDArray[np.float64]:
    """Compute the matrix from linear RGB of three primaries (x, y) and white D65 to XYZ."""
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in primaries]).T
    x, y = _D65
    white = np.array([x / y, 1.0, (1 - x - y) / y])
    return np.asarray(columns * np.linalg.solve(columns, white))
