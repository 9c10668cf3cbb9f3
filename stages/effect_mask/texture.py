"""Texture of the background: where it is still visible through a change (light), and where it is hidden (an object).

Both compare the high-passed logarithms of the two pictures: in logarithms a shadow is an offset, which the high pass
removes, so that the texture of shaded ground correlates with that of the ground itself.
"""

import cv2
import numpy as np

from rasura.manifests.images import RGB, Mask
from rasura.stages.imaging.filters import Floats, blur, box_mean, channel_mean
from rasura.stages.imaging.morphology import morph


def compute_log_brightness(picture: RGB) -> Floats:
    """Return (h, w) log of the channels' mean after a blur of 1 px, plus 4 grey levels against noise in the dark."""
    return np.asarray(np.log(blur(channel_mean(picture), 1.0) + 4), np.float32)


def correlate_locally(first: Floats, second: Floats, side: int) -> tuple[Floats, Floats]:
    """Return the correlation over side × side of two high-passed (h, w), and the variance of the second."""
    power = box_mean(first * first, side), box_mean(second * second, side)
    correlation = box_mean(first * second, side) / np.sqrt(np.maximum(power[0] * power[1], 1e-12))
    return np.asarray(correlation, np.float32), power[1]


def find_visible_texture(source: RGB, clean: RGB, noise: float, min_correlation: float = 0.7, side: int = 11) -> Mask:
    """Return (h, w) bool, True where the background's texture is still visible: what changed there is light.

    Distinguishes coloured shadows and reflections on wood or carpet from objects; always False on plain surfaces.

    Args:
        source, clean: (h, w, 3) uint8, registered.
        noise: sigma of the 5 × 5 mean difference, grey levels; the texture has to stand out of it.
        min_correlation: of the two textures over side × side px.
    """
    logs = [compute_log_brightness(picture) for picture in (source, clean)]
    first, second = (log - box_mean(log, side) for log in logs)
    correlation, variance = correlate_locally(first, second, side)
    contrast = np.sqrt(np.maximum(variance, 0)) * np.exp(logs[1])  # grey levels
    return np.asarray((correlation > min_correlation) & (contrast > max(1.5, 2 * noise)))


def find_hidden_texture(source: RGB, clean: RGB, noise: float) -> Mask:
    """Return (h, w) bool, True where the background's texture should be visible, shaded or not, and is not.

    An object covers it there: correlation over 15 × 15 below 0.4 where clean's texture, as dark as source is there,
    stands out of the noise. Source's own edges are cut at 2.5 of clean's deviations, so that a shadow's rim does not
    drown the texture that it crosses; what is left of the rims is thinner than an opening of 21 px.

    Args:
        source, clean: (h, w, 3) uint8, registered.
        noise: sigma of the 5 × 5 mean difference, grey levels.
    """
    small = min(source.shape[:2]) < 256
    side, window, opening = (7, 9, 13) if small else (11, 15, 21)
    logs = [compute_log_brightness(picture) for picture in (source, clean)]
    first, second = (log - box_mean(log, side) for log in logs)
    limit = 2.5 * np.sqrt(np.maximum(box_mean(second * second, 2 * window + 1), 1e-9))
    correlation, variance = correlate_locally(np.clip(first, -limit, limit), second, window)
    contrast = np.sqrt(np.maximum(variance, 0)) * np.exp(box_mean(np.minimum(*logs), window))  # grey levels
    return morph((correlation < 0.4) & (contrast > max(1.5, 2.5 * noise)), cv2.MORPH_OPEN, opening)
