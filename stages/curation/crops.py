"""Crops of pictures: a picture that is nearly the same as a window of another one.

The fingerprint of a picture is compared with those of 54 windows of each other picture, 80 to 95 % of its sides long,
so that a crop of up to a fifth of both sides has one of them nearby, wherever it was cut.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.fingerprints import (
    FREQUENCIES,
    MIRROR,
    SIGNS_BYTES,
    THUMBNAIL,
    compute_fingerprint,
    find_near_signs,
)
from rasura.manifests.images import RGB

WINDOWS = ((0.95, 2), (0.9, 3), (0.85, 4), (0.8, 5))
"""Parts of the sides, and the number of windows of that size in both directions."""
COUNT = sum(number**2 for _, number in WINDOWS)
SIGN_BYTES = -(-(FREQUENCIES**2 - 1) // 8)
"""Bytes of a fingerprint's signs, without those that only fill its last word."""
WINDOW_BYTES = SIGN_BYTES + 3 * THUMBNAIL**2
SIDE = 384  # px of the longer side at which windows are cut: their fingerprints are made at 64 px
MAX_SIGNS, MAX_LEVELS = 30, 6.0
"""Signs and levels of the thumbnails in which a crop and its window differ at most. On 45 photographs with 5, 10 and
20 % cut off, one of the 135 crops is beyond these; two different photographs differ in at least 42 signs. Products on
white differ in fewer: of 11,175 pairs of drawn ones, 11 are within both, and 132 within the signs alone."""
MAX_FIRST_SIGNS = 22  # of the first 64: of different pictures 32 are usual, and few get past
BLOCK = 64  # pictures whose windows are compared with all others at a time

Words = npt.NDArray[np.uint64]
Thumbnails = npt.NDArray[np.int16]
Indices = npt.NDArray[np.int64]


def compute_windows(picture: RGB) -> bytes:
    """Compute the fingerprints of a picture's windows, `COUNT` times `WINDOW_BYTES` bytes: signs and thumbnails.

    Args:
        picture: (h, w, 3) uint8.

    Examples:
        >>> len(compute_windows(np.zeros((40, 60, 3), np.uint8))) == COUNT * WINDOW_BYTES
        True
    """
    height, width = picture.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    windows = []
    for part, number in WINDOWS:
        high, wide = (max(1, round(side * part)) for side in small.shape[:2])
        steps = np.linspace(0, 1, number)
        for down, right in itertools.product(steps, steps):
            top, left = round(down * (small.shape[0] - high)), round(right * (small.shape[1] - wide))
            window = np.ascontiguousarray(small[top : top + high, left : left + wide])
            windows.append(_cut(compute_fingerprint(window)))
    return b"".join(windows)


def _cut(fingerprint: bytes) -> bytes:
    """Return a fingerprint without the bytes that only fill its last word."""
    return fingerprint[:SIGN_BYTES] + fingerprint[SIGNS_BYTES:]


def find_crops(fingerprints: Sequence[str | None], windows: Sequence[str | None]) -> Iterator[tuple[int, int]]:
    """Find the pairs of which one picture is nearly a window of the other, or of the other mirrored.

    Every picture is compared with every window: 10,000 pictures take about five minutes of a core.

    Args:
        fingerprints: by `compute_fingerprint`, in hex digits; None has no pair.
        windows: of the same pictures, by `compute_windows`, in hex digits.

    Yields:
        Indices i < j, each pair once, in no order.
    """
    rows = [index for index, (one, all_) in enumerate(zip(fingerprints, windows, strict=True)) if one and all_]
    if not rows:
        return
    whole = _read_parts(b"".join(_cut(bytes.fromhex(fingerprints[row] or "")) for row in rows))
    mirrored = _mirror(whole)
    seen: set[tuple[int, int]] = set()
    for start in range(0, len(rows), BLOCK):
        parts = _read_parts(b"".join(bytes.fromhex(windows[row] or "") for row in rows[start : start + BLOCK]))
        for pictures in (whole, mirrored):
            cuts, owners = _find_near(pictures, parts)
            for cut, owner in zip(cuts.tolist(), (owners // COUNT + start).tolist(), strict=True):
                first, second = sorted((rows[cut], rows[owner]))
                if first != second and (first, second) not in seen:
                    seen.add((first, second))
                    yield first, second


class _Parts(NamedTuple):
    """Pictures or windows: signs as (n, 3) words, and thumbnails (n, 4, 4, 3)."""

    signs: Words
    thumbnails: Thumbnails


def _read_parts(data: bytes) -> _Parts:
    table = np.frombuffer(data, np.uint8).reshape(-1, WINDOW_BYTES)
    signs = np.zeros((len(table), SIGNS_BYTES), np.uint8)
    signs[:, :SIGN_BYTES] = table[:, :SIGN_BYTES]
    thumbnails = table[:, SIGN_BYTES:].reshape(-1, THUMBNAIL, THUMBNAIL, 3)
    return _Parts(signs.view(np.uint64), thumbnails.astype(np.int16))


def _mirror(pictures: _Parts) -> _Parts:
    return _Parts(pictures.signs ^ MIRROR, pictures.thumbnails[:, :, ::-1])


def _find_near(pictures: _Parts, parts: _Parts) -> tuple[Indices, Indices]:
    """Find where at most `MAX_SIGNS` signs and `MAX_LEVELS` levels differ, as indices of both.

    What is of one colour is left out: it would be a part of everything that has no detail.
    """
    found: list[tuple[Indices, Indices]] = []
    for start in range(0, len(pictures.signs), BLOCK):
        block = pictures.signs[start : start + BLOCK]
        rows, columns = find_near_signs(block, parts.signs, MAX_SIGNS, MAX_FIRST_SIGNS)
        has_detail = block[rows].any(axis=1) & parts.signs[columns].any(axis=1)
        rows, columns = rows[has_detail] + start, columns[has_detail]
        levels = (pictures.thumbnails[rows] - parts.thumbnails[columns]).astype(np.float32)
        levels = np.abs(levels - levels.mean(axis=(1, 2), keepdims=True)).mean(axis=(1, 2, 3))  # apart from exposure
        found.append((rows[levels <= MAX_LEVELS], columns[levels <= MAX_LEVELS]))
    return np.concatenate([rows for rows, _ in found]), np.concatenate([columns for _, columns in found])
