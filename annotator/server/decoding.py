"""Pictures decoded no larger than they are shown.

A picture of 24 megapixels takes 72 MB as an array, and up to six times as much while some decoders work.
"""

import contextlib
import math
import threading
from collections.abc import Iterator

import cv2
import numpy as np
from PIL import Image

from rasura.manifests.colours.srgb import UnclearColours, convert_to_srgb, read_facts
from rasura.manifests.images import (
    RGB,
    Mask,
    TruncatedImage,
    UnclearImage,
    decode_image,
    decode_mask,
    load_upright,
    open_image,
)

VIEW_SIDE = 1600
"""Longer side of a picture that is shown smaller until a reviewer zooms in, px; of a panorama more."""
WIDE = 2.0
"""Ratio of the sides from which a picture is a panorama."""
LARGE = 12_000_000
"""Pixels from which one picture is decoded at once."""
COVERED = 64
"""Level out of 255 from which a pixel of a shrunk mask is object: a thin object does not vanish."""


def compute_view_scale(width: int, height: int) -> float:
    """Compute the factor by which a picture is shrunk to fit a screen.

    Its longer side has at most `VIEW_SIDE` px, times √(ratio / 2) for a panorama, so that a strip keeps its detail.

    Examples:
        >>> compute_view_scale(800, 600), compute_view_scale(6000, 4000)
        (1.0, 0.26666666666666666)
        >>> round(12000 * compute_view_scale(12000, 1200))
        3578
    """
    longer, shorter = max(width, height), max(1, min(width, height))
    return min(1.0, VIEW_SIDE * math.sqrt(max(1.0, longer / shorter / WIDE)) / longer)


_large_work = threading.Lock()


@contextlib.contextmanager
def limit_memory(is_large: bool) -> Iterator[None]:
    """Wait, before a large picture is read or decoded, until that of another one has ended."""
    with _large_work if is_large else contextlib.nullcontext():
        yield


def _resize(pixels: RGB, width: int, height: int, scale: float) -> RGB:
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def decode_scaled(data: bytes, scale: float) -> RGB:
    """Decode a picture to upright 8-bit sRGB of another size.

    JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that is enough. A plain WebP, as runs store pictures, is
    decoded by OpenCV, which takes less than half of the memory of Pillow.

    Args:
        data: contents of the file.
        scale: factor, at most 1.

    Returns:
        (round(height · scale), round(width · scale), 3) uint8.

    Raises:
        BadImage: the file is no usable picture.
    """
    if scale >= 1:
        return decode_image(data)
    image = open_image(data)
    with limit_memory(image.width * image.height > LARGE):
        return _decode_scaled(image, data, scale)


def _decode_scaled(image: Image.Image, data: bytes, scale: float) -> RGB:
    width, height = image.size
    if image.format == "WEBP" and image.mode == "RGB" and not {"icc_profile", "exif"} & set(image.info):
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if pixels is None:
            raise TruncatedImage("the pixels cannot be read")
        return np.ascontiguousarray(_resize(np.asarray(pixels, np.uint8), width, height, scale)[..., ::-1])
    if image.format in ("JPEG", "MPO"):
        image.draft("RGB", (math.ceil(width * scale), math.ceil(height * scale)))
    try:
        facts = read_facts(image, data)
        upright = np.asarray(convert_to_srgb(load_upright(image), facts, data))
    except UnclearColours as error:
        raise UnclearImage(str(error)) from None
    is_turned = (upright.shape[1] > upright.shape[0]) != (width > height) and width != height
    return _resize(np.asarray(upright, np.uint8), *((height, width) if is_turned else (width, height)), scale)


def decode_scaled_mask(data: bytes, scale: float) -> Mask:
    """Decode a mask to another size; a pixel of which a quarter is object is object.

    Raises:
        BadImage: the file is no usable picture.
    """
    width, height = open_image(data).size
    with limit_memory(width * height > LARGE):
        mask = decode_mask(data)
    if scale >= 1:
        return mask
    return _resize(np.where(mask, np.uint8(255), np.uint8(0)), width, height, scale) >= COVERED
