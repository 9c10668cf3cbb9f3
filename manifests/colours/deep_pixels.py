"""Pixels of 16 bits a colour channel, of which Pillow keeps the upper eight."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint16]

STRIP_ROWS = 256  # rows that are converted at once

_TURNS: dict[int, Callable[[Any], Any]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
"""What turns stored pixels upright, by EXIF's orientation."""


def read_words(data: bytes, upright: Image.Image, orientation: int) -> Words | None:
    """Read the pixels of a PNG or TIFF of 16 bits a colour channel.

    Args:
        data: contents of the file.
        upright: the same picture as Pillow decoded it: RGB or RGBA of the upper bytes, or LA.
        orientation: of the stored pixels, as EXIF counts it.

    Returns:
        (h, w, 3 or 4) uint16, upright; None where the other decoder does not read the same upper bytes.
    """
    import cv2

    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        stored = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    if stored is None or stored.dtype != np.uint16 or stored.ndim != 3 or stored.shape[2] not in (3, 4):
        return None
    mode = "RGBA" if stored.shape[2] == 4 else "RGB"
    cv2.cvtColor(stored, cv2.COLOR_BGRA2RGBA if mode == "RGBA" else cv2.COLOR_BGR2RGB, dst=stored)
    words: Words = _TURNS.get(orientation, _TURNS[1])(stored)
    if upright.mode != mode:
        upright = upright.convert(mode)
    if words.shape[:2] != upright.size[::-1]:
        return None
    for rows in _list_strips(words):
        expected = np.asarray(upright.crop((0, rows.start, upright.width, rows.stop)))
        if not np.array_equal(words[rows] >> 8, expected):
            return None
    return words


def _list_strips(pixels: npt.NDArray[Any]) -> Iterator[slice]:
    """Yield slices of some rows each, so that a large picture needs little memory beside itself."""
    for start in range(0, len(pixels), STRIP_ROWS):
        yield slice(start, min(start + STRIP_ROWS, len(pixels)))


def interpolate_conversion(words: Words, convert: Callable[[Bytes], Bytes]) -> Bytes:
    """Convert colours of 16 bits by a conversion of colours of 8 bits, interpolated between the eight nearest ones.

    In dark, saturated colours one level in may be a dozen levels out: rounding first would show.

    Args:
        words: (h, w, 3).
        convert: (h, w, 3) uint8 to the same.

    Examples:
        >>> interpolate_conversion(np.full((1, 1, 3), 0x8080, np.uint16), lambda colours: 255 - colours).tolist()
        [[[127, 127, 127]]]
    """
    out = np.empty(words.shape, np.uint8)
    if not any((words[rows] % 257).any() for rows in _list_strips(words)):
        for rows in _list_strips(words):
            out[rows] = words[rows] // 257
        return convert(out)
    grey = all(bool((words[rows] == words[rows][..., :1]).all()) for rows in _list_strips(words))
    for rows in _list_strips(words):
        level = words[rows].astype(np.float32) / 257
        below = np.minimum(np.floor(level), 254)
        share = level - below
        total = np.zeros_like(level)
        if grey:  # a profile of grey knows no other corners
            total = (1 - share) * convert(below.astype(np.uint8)) + share * convert((below + 1).astype(np.uint8))
        for corner in range(0 if grey else 8):
            step = np.array([corner & 1, corner >> 1 & 1, corner >> 2], np.float32)
            weights = np.where(step > 0, share, 1 - share)
            weight = weights[..., 0] * weights[..., 1] * weights[..., 2]
            if weight.any():
                total += weight[..., None] * convert((below + step).astype(np.uint8))
        out[rows] = np.clip(np.rint(total), 0, 255).astype(np.uint8)
    return out
