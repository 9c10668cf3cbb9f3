"""Fingerprints of pictures: nearly equal pictures have nearly equal ones, however they are encoded."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import starmap
from typing import Any

import cv2
import numpy as np

from rasura.manifests.images import RGB
from rasura.manifests.parallel.jobs import MapJobs

FREQUENCIES = 12  # the lowest ones in both directions; without the mean, 143 signs
THUMBNAIL = 4  # pixels in both directions
# Nearly equal: at most so many signs and levels differ. On 45 photographs: JPEG at quality 30, a quarter of the size,
# noise of 10 levels, blur, exposure by 10 % differ by at most 6 signs, a rim of 2 % cut off by at most 24; two
# different photographs by at least 50, two different rendered rooms by at least 60.
# A mirrored copy, compared by the fingerprint of the picture mirrored back, differs by at most 12 signs, with a rim cut
# off by at most 26; two different photographs by at least 48.
MAX_SIGNS = 24
MAX_LEVELS = 10.0
SIGNS_BYTES = 24
"""Bytes of the signs, in 64-bit words; the thumbnail follows."""
_ODD = np.tile(np.arange(FREQUENCIES) % 2 == 1, FREQUENCIES)[1:]  # frequencies whose sign mirroring turns
MIRROR = np.frombuffer(np.packbits(_ODD).tobytes().ljust(SIGNS_BYTES, b"\0"), np.uint64)
"""What turns the signs of a picture into those of the picture mirrored, by exclusive or."""
_BLOCK = 256  # pictures that are compared with others at a time
_TILE = 4096  # of those others: what is computed stays in the processor's cache
JOB_COMPARISONS = 2**26
"""Comparisons of a job: about half a second of one core."""


def compute_fingerprint(picture: RGB) -> bytes:
    """Compute the fingerprint of a picture: signs of its lowest frequencies, then a thumbnail.

    Args:
        picture: (h, w, 3) uint8, sRGB.

    Returns:
        72 bytes: 143 bits, whether a DCT coefficient of the 64 x 64 grey picture is above their median, in 24 bytes,
        then 4 x 4 x 3 levels. Source: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions"
        (2010), with 12 x 12 frequencies in place of 8 x 8.

    Examples:
        >>> len(compute_fingerprint(np.zeros((30, 40, 3), np.uint8)))
        72
    """
    grey = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (64, 64), interpolation=cv2.INTER_AREA)
    lowest = cv2.dct(grey.astype(np.float32))[:FREQUENCIES, :FREQUENCIES].ravel()[1:]
    signs = np.packbits(lowest > np.median(lowest)).tobytes().ljust(SIGNS_BYTES, b"\0")
    thumbnail = cv2.resize(picture, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return signs + np.asarray(thumbnail, np.uint8).tobytes()


def find_near_duplicates(
    fingerprints: Sequence[bytes], known: int = 0, map_jobs: MapJobs = starmap
) -> Iterator[tuple[int, int]]:
    """Find the pairs of pictures that are equal or nearly equal, or would be if one of them were mirrored.

    Pictures of one colour have no signs: they are near each other only where the colour is the same.

    Every picture is compared with every other one: under a minute for 100,000 pictures on one core, and memory that
    grows with their number only. A mirrored picture has the cosines of odd horizontal frequencies with the other sign.

    Args:
        fingerprints: by `compute_fingerprint`.
        known: so many first ones were compared with each other before, and are compared with the later ones only.
        map_jobs: has parts of the pictures compared with all, by workers for example.

    Yields:
        Indices i < j, in order.

    Examples:
        >>> dark, wide = np.zeros((30, 40, 3), np.uint8), np.zeros((30, 40, 3), np.uint8)
        >>> wide[:, 20:] = 255
        >>> list(find_near_duplicates([compute_fingerprint(each) for each in (dark, wide, wide[::2, ::2], dark)]))
        [(0, 3), (1, 2)]
    """
    count = len(fingerprints)
    if count < 2:
        return
    table = np.frombuffer(b"".join(fingerprints), np.uint8).reshape(count, -1)
    size = -(-JOB_COMPARISONS // max(1, count - known) // _BLOCK) * _BLOCK
    jobs = ((start, min(start + size, count)) for start in range(0, count, size))
    for pairs in map_jobs(partial(_compare_part, table, known), jobs):
        yield from pairs


def _compare_part(table: np.ndarray[Any, Any], known: int, start: int, stop: int) -> list[tuple[int, int]]:
    """Compare the pictures from `start` to `stop` with all later ones; the pairs are in order."""
    signs = np.ascontiguousarray(table[:, :SIGNS_BYTES]).view(np.uint64)
    thumbnails = table[:, SIGNS_BYTES:].reshape(len(table), -1, 3)
    near: set[tuple[int, int]] = set()
    for top in range(start, stop, _BLOCK):
        block = signs[top : min(top + _BLOCK, stop)]
        for left in range(max(top, known), len(table), _TILE):
            others = signs[left : left + _TILE]
            for is_mirrored in (False, True):
                rows, columns = find_near_signs(block ^ MIRROR if is_mirrored else block, others, MAX_SIGNS, MAX_SIGNS)
                for i, j in zip((rows + top).tolist(), (columns + left).tolist(), strict=True):
                    if i >= j:
                        continue
                    if signs[i].any() and signs[j].any():
                        first = _mirror(thumbnails[i], is_mirrored)
                        is_alike = _compare_thumbnails(first, thumbnails[j]) <= MAX_LEVELS
                    else:  # one of them is of one colour: that their signs agree says nothing
                        is_alike = bool((thumbnails[i] == thumbnails[j]).all())
                    if is_alike:
                        near.add((i, j))
    return sorted(near)


def find_near_signs(
    block: np.ndarray[Any, Any], others: np.ndarray[Any, Any], most: int, most_first: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Find the pairs of which few signs differ.

    Args:
        block: signs of pictures (n, 3), uint64.
        others: those of others.
        most: signs that differ.
        most_first: of the first 64 signs, in which most pairs differ already.

    Returns:
        Indices of rows of both.
    """
    rows, columns = np.nonzero(np.bitwise_count(block[:, None, 0] ^ others[None, :, 0]) <= most_first)
    different = np.bitwise_count(block[rows] ^ others[columns]).sum(axis=1, dtype=np.int64)
    is_near = different <= most
    return rows[is_near], columns[is_near]


def _mirror(thumbnail: np.ndarray[Any, Any], is_mirrored: bool) -> np.ndarray[Any, Any]:
    """Return the pixels of a thumbnail (pixels, 3), mirrored where that is asked for."""
    return thumbnail.reshape(THUMBNAIL, THUMBNAIL, 3)[:, ::-1].reshape(-1, 3) if is_mirrored else thumbnail


def _compare_thumbnails(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean difference of two thumbnails (pixels, 3), apart from their difference in exposure."""
    difference = first.astype(np.float64) - second
    return float(np.abs(difference - difference.mean(axis=0)).mean())
