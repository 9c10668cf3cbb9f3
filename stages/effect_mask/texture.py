"""Texture of the background: where it is still visible through a change (light), and where it is hidden (an object).

Both compare the high-passed logarithms of the two pictures: in logarithms a shadow is an offset, which the high pass
removes, so that the texture of shaded ground correlates with that of the ground itself.
"""

import cv2
import numpy as np

from rasura.manifests.images import RGB, Mask
from rasura.stages.imaging.filters import Floats, blur, box_mean, channel_mean
from rasura.stages.imaging.memory import remember_last_pair
from rasura.stages.imaging.morphology import morph

LOG_RANGE, RATIO_RANGE = (1.3, 5.6), (-1.8, 1.0)  # of the log brightness, and of its difference, that medians cover
SMALL_PICTURE = 200  # px of the shorter side, below which the windows are smaller
VISIBLE, HIDDEN = 0.7, 0.4
"""Correlation of texture above which the background is seen, and below which something hides it."""


def compute_log_brightness(picture: RGB) -> Floats:
    """Return (h, w) log of the channels' mean after a blur of 1 px, plus 4 grey levels against noise in the dark."""
    return np.asarray(np.log(blur(channel_mean(picture), 1.0) + 4), np.float32)


def correlate_locally(first: Floats, second: Floats, side: int) -> tuple[Floats, Floats]:
    """Return the correlation over side × side of two high-passed (h, w), and the variance of the second."""
    power = box_mean(first * first, side), box_mean(second * second, side)
    correlation = box_mean(first * second, side) / np.sqrt(np.maximum(power[0] * power[1], 1e-12))
    return np.asarray(correlation, np.float32), power[1]


def take_median(values: Floats, low: float, high: float, side: int) -> Floats:
    """Return the median over side × side px, in 256 steps between `low` and `high`: a filter that keeps steps."""
    steps = np.clip((values - low) * (255 / (high - low)) + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.medianBlur(steps, side).astype(np.float32) * ((high - low) / 255) + low, np.float32)


@remember_last_pair
def compare_texture(source: RGB, clean: RGB) -> tuple[Floats, Floats]:
    """Compare what the two pictures show in detail, whatever the light on it.

    Clean's texture is its log less its median. Source's is the same, plus the log ratio less *its* median: a shadow's
    log ratio is monotone across its rim, however sharp, and a median filter leaves that as it is, so that no rim is
    texture; a high pass would make a band of each. What an object hides is not in source's texture.

    Args:
        source, clean: (h, w, 3) uint8, registered.

    Returns:
        (h, w) correlation of both textures over a window of 11 px (9 in small pictures); (h, w) contrast that clean's
        texture should have in source, grey levels.
    """
    # A shadow narrower than half of a median's side is texture to it.
    side, window = (5, 9) if min(source.shape[:2]) < SMALL_PICTURE else (9, 11)
    logs = [compute_log_brightness(picture) for picture in (source, clean)]
    ratio = logs[0] - logs[1]
    second = logs[1] - take_median(logs[1], *LOG_RANGE, side)
    first = second + ratio - take_median(ratio, *RATIO_RANGE, side)
    correlation, variance = correlate_locally(first, second, window)
    contrast = np.sqrt(np.maximum(variance, 0)) * np.exp(box_mean(np.minimum(*logs), window))
    return correlation, np.asarray(contrast, np.float32)


def measure_ratio_texture(source: RGB, clean: RGB) -> tuple[Floats, Floats]:
    """Measure what detail the log ratio of brightness has that is no rim of a shadow.

    Args:
        source, clean: (h, w, 3) uint8, registered.

    Returns:
        (h, w) root mean square over 7 × 7 px of the log ratio less its median; (h, w) brightness of the darker picture,
        grey levels, by which noise is to be divided before it is compared.
    """
    logs = [compute_log_brightness(picture) for picture in (source, clean)]
    ratio = logs[0] - logs[1]
    detail = ratio - take_median(ratio, *RATIO_RANGE, 5 if min(source.shape[:2]) < SMALL_PICTURE else 9)
    texture = np.sqrt(np.maximum(box_mean(detail * detail, 7), 0))  # running sums may fall just below 0
    return np.asarray(texture, np.float32), np.asarray(np.exp(np.minimum(*logs)), np.float32)


def find_visible_texture(source: RGB, clean: RGB, noise: float) -> Mask:
    """Return (h, w) bool, True where the background's texture is still visible: what changed there is light.

    Distinguishes coloured shadows and reflections on wood or carpet from objects; always False on plain surfaces.

    Args:
        source, clean: (h, w, 3) uint8, registered.
        noise: sigma of the 5 × 5 mean difference, grey levels; the texture has to stand out of it.
    """
    correlation, contrast = compare_texture(source, clean)
    return np.asarray((correlation > VISIBLE) & (contrast > max(0.8, 1.2 * noise)))


def find_hidden_texture(source: RGB, clean: RGB, noise: float) -> Mask:
    """Return (h, w) bool, True where the background's texture should be visible, shaded or not, and is not.

    An object covers it there. Spots below an opening of 7 px are left out.

    Args:
        source, clean: (h, w, 3) uint8, registered.
        noise: sigma of the 5 × 5 mean difference, grey levels.
    """
    small = min(source.shape[:2]) < SMALL_PICTURE
    correlation, contrast = compare_texture(source, clean)
    hidden = (correlation < HIDDEN) & (contrast > max(0.8, 1.2 * noise))
    return morph(morph(hidden, cv2.MORPH_OPEN, 5 if small else 7), cv2.MORPH_CLOSE, 5) & (correlation < VISIBLE)
