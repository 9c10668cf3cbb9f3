"""Harmonization: brightness, white balance and grain of a cut-out, brought towards its background's within limits.

The look of an object under other light cannot be computed: its colour and the light's are one product. So these are
small steps in the likely direction, and each has a limit.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
BRIGHT_QUANTILE = 0.9  # of the luma: measures how brightly something is lit


def estimate_white_point(picture: Array) -> Array:
    """Estimate the colour of the light, (3,) float32 of mean 1, of (n, 3) or (h, w, 3) levels.

    Source: Finlayson and Trezzi, "Shades of Gray and Colour Constancy" (CIC 2004): the 6-norm of each channel.
    """
    flat = picture.reshape(-1, 3).astype(np.float32) / 255
    norm = np.mean(flat**6, axis=0, dtype=np.float64) ** (1 / 6) + 1e-3
    return np.asarray(norm / norm.mean(), np.float32)


def measure_bright_level(colours: Array) -> float:
    """Measure the level, 0-255, of the bright part of (n, 3) colours: a quantile of their luma."""
    return (
        float(np.quantile(colours.reshape(-1, 3).astype(np.float32) @ LUMA, BRIGHT_QUANTILE)) if colours.size else 0.0
    )


@dataclass(frozen=True, eq=False)
class ColorStatistics:
    """Colours and grain of a background; measured once, however many objects come onto it."""

    bright_level: float  # level of its bright part
    white_point: Array  # (3,) colour of its light
    colourfulness: float  # 0 black and white, 1 coloured
    grain: float  # levels of noise

    @classmethod
    def measure(cls, picture: Array) -> "ColorStatistics":
        """Measure a picture, (h, w, 3) uint8."""
        small = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA)
        return cls(
            measure_bright_level(small),
            estimate_white_point(small),
            measure_colourfulness(small),
            estimate_grain(picture),
        )


def compute_gains(
    object_colours: Array,
    statistics: ColorStatistics,
    around: Array,
    strength: float = 0.4,
    exposure: float = 0.2,
    balance: float = 0.05,
) -> Array:
    """Compute the factors for the object's levels, (3,) float32.

    Exposure: (bright level of the background / bright level of the object) ** strength, within 1 + `exposure` and its
    inverse; half of the background's level is that of the full picture, half that around the object. White balance:
    the background's light ** strength, each channel within ± `balance`.

    Args:
        object_colours: (n, 3) levels of the object. statistics: of the background. around: (n, 3) or (h, w, 3), the
            background near the object.
    """
    background_level = 0.5 * (statistics.bright_level + measure_bright_level(around))
    object_level = measure_bright_level(object_colours)
    step = 1.0 if object_level < 1 or background_level < 1 else (background_level / object_level) ** strength
    step = float(np.clip(step, 1 / (1 + exposure), 1 + exposure))
    tint = np.clip(statistics.white_point**strength, 1 - balance, 1 + balance)
    return np.asarray(step * tint, np.float32)


def measure_colourfulness(picture: Array) -> float:
    """Measure whether a picture (h, w, 3) is coloured: 0 for black and white, 1 for colours, be they few.

    A grey road has some. By the 99th percentile of the difference between a pixel's channels: 0 at 1 level, 1 at 3. A
    toned picture counts as coloured.
    """
    spread = np.ptp(picture.reshape(-1, 3).astype(np.float32), axis=1)
    return float(np.clip((np.quantile(spread, 0.99) - 1) / 2, 0, 1))


def estimate_grain(picture: Array, inside: Array | None = None) -> float:
    """Estimate the standard deviation, levels, of the noise in (h, w, 3); 0 where nothing can be measured.

    The median, over the smoothest quarter of its 8 x 8 tiles, of sqrt(pi / 2) / 6 times the mean absolute response to
    [[1, -2, 1], [-2, 4, -2], [1, -2, 1]], which is blind to slopes and straight edges. Tiles that are clipped, or not
    wholly `inside` (h, w) bool, are left out.

    Source: Immerkaer, "Fast Noise Variance Estimation" (CVIU 1996).
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
    smoothest = np.sort(mean[good])[: max(1, int(good.sum()) // 4)]
    return float(np.sqrt(np.pi / 2) / 6 * np.median(smoothest))


def denoise(colour: Array, alpha: Array, excess: float) -> Array:
    """Take `excess` levels of noise out of `colour`, (h, w, 3) float32 multiplied by alpha.

    Wiener in 5 x 5: mean + max(0, variance - excess²)/variance * (value - mean). Only where the window is opaque.
    """
    mean = cv2.blur(colour, (5, 5))
    spread = np.maximum(cv2.blur(colour * colour, (5, 5)) - mean * mean, 1e-3)
    weight = np.maximum(spread - excess * excess, 0) / spread
    opaque = cv2.erode(alpha, np.ones((5, 5), np.uint8)) > 0.99
    return np.asarray(np.where(opaque[..., None], mean + weight * (colour - mean), colour), np.float32)


def match_grain(
    colour: Array, alpha: Array, present: float, target: float, limit: float, rng: np.random.Generator
) -> Array:
    """Bring the grain of `colour`, (h, w, 3) float32 multiplied by alpha, from `present` to `target` levels.

    Missing noise is added, sqrt(target² - present²), at most `limit`; excess is taken out, at most `limit`.
    Differences below a quarter of a level stay.
    """
    if abs(target - present) < 0.25 or limit <= 0:
        return colour
    change = min(limit, float(np.sqrt(abs(target**2 - present**2))))
    if present > target:
        return denoise(colour, alpha, change)
    noise = rng.standard_normal(alpha.shape, np.float32) * np.float32(change)
    return np.asarray(np.clip(colour + (noise * alpha)[..., None], 0, 255), np.float32)
