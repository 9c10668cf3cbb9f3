"""Masks as the page sends them: one bit a pixel, rows padded to bytes, deflated, in base64. Pure functions."""

import base64
import binascii
import zlib

import numpy as np

from rasura.manifests.images import Mask

MAX_PIXELS = 200_000_000


class BadMask(ValueError):
    """Bytes that are no packed mask. The text says why."""


def pack_mask(mask: Mask) -> str:
    """Pack a mask, (h, w) bool.

    Examples:
        >>> unpack_mask(pack_mask(np.eye(3, dtype=bool)), 3, 3).tolist()[0]
        [True, False, False]
    """
    return base64.b64encode(zlib.compress(np.packbits(mask, axis=1).tobytes(), 6)).decode()


def unpack_mask(text: str, width: int, height: int) -> Mask:
    """Unpack a mask of a size, (height, width) bool; no more is decompressed than it can have.

    Raises:
        BadMask: it is none, or has another size.

    """
    if not 0 < width * height <= MAX_PIXELS:
        raise BadMask(f"a mask of {width} x {height} px")
    size = (width + 7) // 8 * height
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadMask("the mask is no base64") from None
    decoder = zlib.decompressobj()
    try:
        bits = decoder.decompress(data, size + 1)
    except zlib.error as error:
        raise BadMask(f"the mask is not deflated: {error}") from None
    if len(bits) != size or not decoder.eof:
        raise BadMask(f"the mask does not have {width} x {height} px")
    return np.unpackbits(np.frombuffer(bits, np.uint8).reshape(height, -1), axis=1, count=width).astype(bool)
