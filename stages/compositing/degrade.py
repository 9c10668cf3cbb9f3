"""Sensor noise and JPEG for a finished triplet, alike in source and target.

Noise: one field of random numbers for both, so that equal pixels stay equal. JPEG codes blocks of 16 x 16 pixels and
smooths colours across their borders, so that one changed pixel changes all of its block and more. Both pictures are
coded; outside M_fg the source then takes the coded target's pixels. M_fg keeps its shape (widened to blocks it would
say that clean ground is shadow), and what is lost is the ringing of the object's edges beyond M_fg.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def add_noise(picture: Array, field: Array, sigma: float) -> Array:
    """Add noise of `sigma` levels at mid grey; elsewhere its variance is 0.2 + 0.8 level / 128 times as much.

    Args:
        picture: (h, w, 3) uint8. field: (h, w, 3) float32 standard normal numbers.
    """
    spread = sigma * np.sqrt(0.2 + 0.8 / 128 * np.arange(256, dtype=np.float32))
    return np.asarray(np.clip(np.rint(picture + np.take(spread, picture) * field), 0, 255), np.uint8)


def compress_jpeg(picture: Array, quality: int) -> Array:
    """Return (h, w, 3) uint8 after JPEG compression."""
    code = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])


def degrade_triplet(
    source: Array, target: Array, foreground_mask: Array, noise: float, quality: int | None, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Degrade source and target (h, w, 3) uint8 as a camera would; they stay equal outside M_fg.

    Args:
        foreground_mask: (h, w) bool; outside it source and target are equal.
        noise: levels at mid grey, 0 for none. quality: of the JPEG, None for none.
    """
    if noise > 0:
        field = rng.standard_normal(source.shape, np.float32)
        source, target = add_noise(source, field, noise), add_noise(target, field, noise)
    if quality is not None:
        source, target = compress_jpeg(source, quality), compress_jpeg(target, quality)
        source = np.where(foreground_mask[..., None], source, target)
    return source, target
