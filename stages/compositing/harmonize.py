"""A cut-out's light, white balance and grain brought towards the photo it is laid on, within limits.

What an object looked like under other light cannot be known: its colour and the light's are one product. So these are
small steps in the likely direction, and each has a limit.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
BRIGHT = 0.9  # quantile of the luma that stands for how brightly something is lit


def white_of(picture: Array) -> Array:
    """(3,) float32, mean 1: the colour of the light by shades of grey, the 6-norm of (n, 3) or (h, w, 3) levels."""
    flat = picture.reshape(-1, 3).astype(np.float32) / 255
    norm = np.mean(flat**6, axis=0, dtype=np.float64) ** (1 / 6) + 1e-3
    return np.asarray(norm / norm.mean(), np.float32)


def lit(colours: Array) -> float:
    """Level, 0-255, of the bright part of (n, 3) colours."""
    return float(np.quantile(colours.reshape(-1, 3).astype(np.float32) @ LUMA, BRIGHT)) if colours.size else 0.0


@dataclass(frozen=True, eq=False)
class Mood:
    """What a background looks like as a whole; measured once, however many objects come onto it."""

    bright: float  # level of its bright part
    white: Array  # (3,) colour of its light
    hue: float  # 0 black and white, 1 coloured
    grain: float  # levels of noise

    @classmethod
    def of(cls, picture: Array) -> "Mood":
        """The mood of (h, w, 3) uint8."""
        small = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA)
        return cls(lit(small), white_of(small), colourful(small), grain_of(picture))


def gains(
    object_colours: Array,
    mood: Mood,
    around: Array,
    strength: float = 0.4,
    exposure: float = 0.2,
    balance: float = 0.05,
) -> Array:
    """(3,) float32: factors for the object's levels.

    Exposure: (bright level of the background / bright level of the object) ** strength, within 1 + `exposure` and its
    inverse; the background counts half as a whole and half around the object. White balance: the background's light
    ** strength, each channel within ± `balance`.

    Args:
        object_colours: (n, 3) levels of the object. around: (n, 3) or (h, w, 3), the background near it.
    """
    here, own = 0.5 * (mood.bright + lit(around)), lit(object_colours)
    step = 1.0 if own < 1 or here < 1 else (here / own) ** strength
    step = float(np.clip(step, 1 / (1 + exposure), 1 + exposure))
    tint = np.clip(mood.white**strength, 1 - balance, 1 + balance)
    return np.asarray(step * tint, np.float32)


def colourful(picture: Array) -> float:
    """0 for a black and white picture (h, w, 3), 1 for one with colours, be they few: a grey road has some.

    By the 99th percentile of the difference between a pixel's channels: 0 at 1 level, 1 at 3. A toned picture counts
    as coloured.
    """
    spread = np.ptp(picture.reshape(-1, 3).astype(np.float32), axis=1)
    return float(np.clip((np.quantile(spread, 0.99) - 1) / 2, 0, 1))


def grain_of(picture: Array, inside: Array | None = None) -> float:
    """Standard deviation, levels, of the noise in (h, w, 3): the median over the calm quarter of its 8 x 8 tiles of
    Immerkaer's estimate, sqrt(pi / 2) / 6 times the mean absolute response to [[1, -2, 1], [-2, 4, -2], [1, -2, 1]],
    which sees no slopes and no straight edges. Tiles that are clipped, or not wholly `inside` (h, w) bool, are left
    out. 0 where no tile is left.
    """
    grey = picture.astype(np.float32) @ LUMA
    height, width = (8 * (n // 8) for n in grey.shape)
    if not height or not width:
        return 0.0
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = np.abs(cv2.filter2D(grey, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT_101))
    size = (width // 8, height // 8)
    mean = cv2.resize(response[:height, :width], size, interpolation=cv2.INTER_AREA).ravel()
    level = cv2.resize(grey[:height, :width], size, interpolation=cv2.INTER_AREA).ravel()
    good = (level > 12) & (level < 243)
    if inside is not None:
        share = cv2.resize(inside[:height, :width].astype(np.float32), size, interpolation=cv2.INTER_AREA).ravel()
        good &= share > 0.999
    if not good.any():
        return 0.0
    calm = np.sort(mean[good])[: max(1, int(good.sum()) // 4)]
    return float(np.sqrt(np.pi / 2) / 6 * np.median(calm))


def calmed(colour: Array, alpha: Array, excess: float) -> Array:
    """(h, w, 3) float32 `colour` (multiplied by alpha) with `excess` levels of noise taken out.

    Wiener in 5 x 5: mean + max(0, variance - excess²)/variance * (value - mean). Only where the window is opaque.
    """
    mean = cv2.blur(colour, (5, 5))
    spread = np.maximum(cv2.blur(colour * colour, (5, 5)) - mean * mean, 1e-3)
    keep = np.maximum(spread - excess * excess, 0) / spread
    opaque = cv2.erode(alpha, np.ones((5, 5), np.uint8)) > 0.99
    return np.asarray(np.where(opaque[..., None], mean + keep * (colour - mean), colour), np.float32)


def matched_grain(
    colour: Array, alpha: Array, own: float, wanted: float, most: float, rng: np.random.Generator
) -> Array:
    """(h, w, 3) float32 `colour` (multiplied by alpha) with noise of `wanted` levels where it had `own`.

    What is missing is added, sqrt(wanted² - own²), at most `most`; what is too much is calmed, by at most `most`.
    Differences below a quarter of a level stay.
    """
    if abs(wanted - own) < 0.25 or most <= 0:
        return colour
    change = min(most, float(np.sqrt(abs(wanted**2 - own**2))))
    if own > wanted:
        return calmed(colour, alpha, change)
    noise = rng.standard_normal(alpha.shape, np.float32) * np.float32(change)
    return np.asarray(np.clip(colour + (noise * alpha)[..., None], 0, 255), np.float32)
