"""ICC profiles of three primaries and tone curves (ICC.1:2022, section 8.3.3), applied in floats.

Pillow's colour management has 8 bits; pictures of 16 bits need more, where one level of a dark colour is many of sRGB.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SRGB_TO_D50 = ((0.4360747, 0.3850649, 0.1430804), (0.2225045, 0.7168786, 0.0606169), (0.0139322, 0.0971045, 0.7141733))
"""Linear sRGB to XYZ with the profiles' white D50, adapted by Bradford's method."""
STEPS = 65_536  # of a tone curve
MAX_TAGS = 100  # of a profile, which has about twenty


class MatrixProfile(NamedTuple):
    """A profile of three primaries.

    Attributes:
        matrix: (3, 3) linear RGB to XYZ with white D50.
        curves: (3, 65536) linear light of each 16-bit level, 0 to 1.
    """

    matrix: Floats
    curves: Floats


def parse_matrix_profile(data: bytes) -> MatrixProfile | None:
    """Parse a profile; None where it is not one of three primaries and their tone curves alone."""
    if data[16:20] != b"RGB ":
        return None
    tags = {}
    for index in range(min(int.from_bytes(data[128:132]), MAX_TAGS)):
        entry = data[132 + 12 * index : 144 + 12 * index]
        start, size = int.from_bytes(entry[4:8]), int.from_bytes(entry[8:12])
        tags[entry[:4]] = data[start : start + size]
    names = (b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC")
    if b"A2B0" in tags or not all(name in tags for name in names):
        return None
    try:
        matrix = np.array([_read_fixed(tags[name][8:20]) for name in names[:3]]).T
        return MatrixProfile(matrix, np.array([_read_curve(tags[name]) for name in names[3:]]))
    except (ValueError, IndexError):
        return None  # damaged: others may make something of it


def _read_fixed(data: bytes) -> Floats:
    return np.asarray(np.frombuffer(data, ">i4") / 65_536)


def _read_curve(data: bytes) -> Floats:
    """Read a tone curve as linear light of 65,536 levels: a table, a gamma, or one of five formulas."""
    level = np.arange(STEPS) / (STEPS - 1)
    if data[:4] == b"curv":
        count = int.from_bytes(data[8:12])
        values = np.frombuffer(data[12 : 12 + 2 * count], ">u2")
        if count == 0:
            return level
        if count == 1:
            return np.asarray(level ** (values[0] / 256))
        return np.asarray(np.interp(level, np.linspace(0, 1, count), values / 65_535))
    if data[:4] != b"para":
        raise ValueError(f"a curve of type {data[:4]!r}")
    kind = int.from_bytes(data[8:10])
    numbers = [float(value) for value in _read_fixed(data[12 : 12 + 4 * (1, 3, 4, 5, 7)[kind]])]
    gamma, a, b = numbers[:3] if kind else (numbers[0], 1.0, 0.0)
    c = numbers[3] if kind >= 2 else 0.0
    power: Floats = np.asarray(np.maximum(a * level + b, 0) ** gamma)
    if kind == 0:
        return power
    if kind < 3:
        return np.asarray(np.where(level >= -b / a, power + (c if kind == 2 else 0), c if kind == 2 else 0.0))
    offset, slope_offset = (numbers[5], numbers[6]) if kind == 4 else (0.0, 0.0)
    return np.asarray(np.where(level >= numbers[4], power + offset, c * level + slope_offset))


def convert_words(words: npt.NDArray[Any], profile: MatrixProfile) -> npt.NDArray[np.uint8]:
    """Convert (h, w, 3) uint16 of a profile's colours to (h, w, 3) uint8 sRGB.

    Examples:
        >>> linear = MatrixProfile(np.array(SRGB_TO_D50), np.tile(np.arange(65536) / 65535, (3, 1)))
        >>> convert_words(np.full((1, 1, 3), 14032, np.uint16), linear).tolist()
        [[[128, 128, 128]]]
    """
    matrix = np.linalg.inv(np.array(SRGB_TO_D50)) @ profile.matrix
    out = np.empty(words.shape, np.uint8)
    for start in range(0, len(words), 256):  # strips, so that a large picture needs little memory
        red, green, blue = (profile.curves[k][words[start : start + 256, :, k]] for k in range(3))
        for k, (r, g, b) in enumerate(matrix):
            light = np.clip(r * red + g * green + b * blue, 0, 1)
            encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
            out[start : start + 256, :, k] = np.rint(255 * encoded).astype(np.uint8)
    return out
