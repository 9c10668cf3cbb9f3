"""The camera's part, as pure functions: exposure, development to 8 bits, degradation, and the effect mask."""

import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]

EFFECT_LEVELS = 0.02 * 255  # what a 5 x 5 mean must differ by to be an effect: 2 % of white
EVEN_LEVELS = 4.0  # about twice the noise of such a mean at 16 samples a pixel


def develop(light: Floats, exposure: float, drift: Mapping[str, Any] | None = None) -> Picture:
    """Develop linear light (h, w, 3) to 8-bit sRGB: linear up to 0.6, above it a shoulder towards white.

    Args:
        drift: by which the camera's tone is off (`compute_drift`); None: it is not.
    """
    x = np.maximum(np.asarray(light, np.float64), 0) * exposure
    x = np.where(x < 0.6, x, 0.6 + 0.4 * (1 - np.exp(-(x - 0.6) / 0.4)))
    srgb = np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-9) ** (1 / 2.4) - 0.055)
    levels = np.clip(srgb, 0, 1) * 255
    if drift is not None:
        levels = np.clip(levels + compute_drift(levels, drift["seed"], drift["levels"]), 0, 255)
    return np.asarray(levels + 0.5, np.uint8)


def compute_drift(levels: npt.NDArray[np.floating], seed: int, most: float) -> npt.NDArray[np.float64]:
    """Compute by how much a camera's tone is off: a curve over the grey levels, plus a slow field over the picture.

    Args:
        levels: (h, w, 3), 0 to 255.
        seed: of the curve and the field.
        most: grey levels; the sum stays within ± this.

    Returns:
        (h, w, 3), grey levels.
    """
    rng = np.random.default_rng(seed)
    height, width = levels.shape[:2]
    x = levels / 255
    gain, gamma, contrast = rng.uniform(-1, 1, 3)
    curve = gain * x + gamma * np.sin(math.pi * x) + 0.5 * contrast * np.sin(2 * math.pi * x)
    curve = curve * (1 + 0.2 * rng.uniform(-1, 1, 3))  # white balance
    grid = np.asarray(rng.standard_normal((3, 4)), np.float64)
    field = np.clip(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC), -1.5, 1.5)[..., None] / 1.5
    share = float(rng.uniform(0.4, 1.0))  # of the curve
    total = share * curve / max(float(np.abs(curve).max()), 1e-9) + (1 - share) * field
    return np.asarray(np.clip(total, -1, 1) * most)


def clamp_fireflies(light: Floats) -> Floats:
    """Clamp each channel of (h, w, 3) light to 1.5 times the second largest of its eight neighbours."""
    padded = np.pad(light, ((1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = light.shape[:2]
    around = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3) if (y, x) != (1, 1)]
    second = np.partition(np.stack(around), 6, axis=0)[6]
    return np.asarray(np.minimum(light, 1.5 * second + 1e-3), np.float32)


def compute_exposure(light: Floats, grey: float, key: float) -> float:
    """Compute the factor that puts the picture's middle at 0.26 x key, but its 98th percentile not above 1.1.

    The middle is drawn from the log-mean luminance of (h, w, 3) `light` and from `grey`, the radiance of a grey floor
    under the same lamps, so that a dark floor stays rather dark and a pale one rather pale.
    """
    luminance = light @ np.array([0.2126, 0.7152, 0.0722])
    mean = float(np.exp(np.log(luminance + 1e-4).mean()))
    return min(0.26 * key / float(mean**0.6 * grey**0.4), 1.1 / max(float(np.percentile(luminance, 98)), 1e-6))


def compute_effect_mask(source: Picture, clean: Picture) -> npt.NDArray[np.bool_]:
    """Return (h, w) bool: the 5 x 5 mean of the difference exceeds 2 % of white in a channel.

    In a smooth falloff the renderer's noise would fray that border: where the 11 x 11 mean is nearly the same
    (within `EVEN_LEVELS`) it is taken instead, and specks and pinholes below 0.04 % of the picture are left out.
    """
    difference = source.astype(np.float32) - clean.astype(np.float32)
    narrow, wide = cv2.blur(difference, (5, 5)), cv2.blur(difference, (11, 11))
    mean = np.where(np.abs(narrow - wide) < EVEN_LEVELS, wide, narrow)
    mask = np.asarray(np.abs(mean).max(axis=2) > EFFECT_LEVELS)
    for value in (False, True):  # first fill the pinholes, then remove the specks
        _, parts, stats, _ = cv2.connectedComponentsWithStats((mask == value).astype(np.uint8), connectivity=4)
        tiny = stats[:, cv2.CC_STAT_AREA] < 0.0004 * mask.size
        tiny[0] = False
        mask = np.where(tiny[parts], not value, mask)
    return mask


def degrade_pair(
    source: Picture,
    clean: Picture,
    rng: np.random.Generator,
    noise: float = 0.0,
    jpeg: int | None = None,
    shift: float = 0.0,
    flicker: float = 0.0,
) -> tuple[Picture, Picture]:
    """Degrade a pair (h, w, 3) as a real camera would. `clean` moves and flickers: the truth stays `source`'s.

    Args:
        noise: standard deviation of the sensor's noise at mid grey, in levels, fresh in each picture.
        jpeg: quality of the compression, None for none.
        shift: `clean` moves by up to this many pixels, in a random direction.
        flicker: its exposure changes by up to this share, each channel by another tenth of it.
    """
    pair = [source.astype(np.float32), clean.astype(np.float32)]
    direction, distance = rng.uniform(0, 2 * math.pi), shift * math.sqrt(rng.uniform(0, 1))
    gain = (1 + flicker * rng.uniform(-1, 1)) * (1 + 0.1 * flicker * rng.uniform(-1, 1, 3))
    if shift:
        matrix = np.array([[1, 0, distance * math.cos(direction)], [0, 1, distance * math.sin(direction)]])
        size = (clean.shape[1], clean.shape[0])
        pair[1] = np.asarray(
            cv2.warpAffine(pair[1], matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101), np.float32
        )
    if flicker:
        pair[1] = pair[1] * gain.astype(np.float32)
    finished = []
    for values in pair:
        noisy: npt.NDArray[np.floating] = values
        if noise:  # shot noise: grows with the root of the light, here of the level
            spread = noise * np.sqrt(np.clip(values, 0, 255) / 128 * 0.8 + 0.2)
            noisy = values + spread * rng.standard_normal(values.shape, np.float32)
        picture = np.asarray(np.clip(noisy + 0.5, 0, 255), np.uint8)
        if jpeg is not None:
            code = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, jpeg])[1]
            picture = np.ascontiguousarray(np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])
        finished.append(picture)
    return finished[0], finished[1]
