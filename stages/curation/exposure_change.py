"""Whether the gain of a pair is a change of exposure or white balance, or light that the object keeps off or throws.

A gain is the same all over the picture. What an object does to the light of its room differs from place to place, so
that the ratio of the two pictures spreads, towards none where the object does nothing.
"""

from collections.abc import Sequence

import numpy as np

from rasura.manifests.images import RGB
from rasura.stages.imaging.comparison import find_unchanged_pixels
from rasura.stages.imaging.filters import box_mean, channel_max, channel_mean, convert_to_grey

LEVELS = (12.0, 247.0)  # means of all channels, and of the largest one, between which a ratio is read
LEAST_PIXELS = 200
MOST_LIGHT = 0.015  # of a gain: no object in the rendered rooms changed a whole picture's light by more than 0.011
CERTAIN = 1.2  # times the spread of the ratio towards none: a smaller gain may be the object's light


def measure_exposure_change(source: RGB, clean: RGB, gains: Sequence[float]) -> float:
    """Measure the largest gain of a channel that is certain to be the camera's.

    Args:
        source, clean: (h, w, 3) uint8, registered, before exposures are matched.
        gains: a channel, as `estimate_tone` estimated them.

    Returns:
        |gain - 1|; 0 where no channel's gain is `CERTAIN` times its spread, or `MOST_LIGHT`. The spread is that of
        log(source / clean) over wide means of unchanged pixels: from its median to its 95th percentile, and for a gain
        above 1, which no shade explains, to its 5th where that is more.
    """
    if all(gain == 1 for gain in gains):
        return 0.0
    grey = convert_to_grey(clean) * float(np.mean(gains))
    reach = min(20, max(1, min(source.shape[:2]) // 16))
    side = max(5, min(source.shape[:2]) // 15 | 1)
    first, second = box_mean(source, side), box_mean(clean, side)
    usable = find_unchanged_pixels(convert_to_grey(source), grey, reach)
    usable &= (channel_mean(second) > LEVELS[0]) & (channel_max(second) < LEVELS[1]) & (channel_max(first) < LEVELS[1])
    usable &= channel_mean(first) > LEVELS[0] / 3
    if usable.sum() < LEAST_PIXELS:
        return max(abs(gain - 1) for gain in gains)
    change = 0.0
    for channel, gain in enumerate(gains):
        ratio = np.log((first[usable][:, channel] + 1) / (second[usable][:, channel] + 1))
        low, middle, high = (float(value) for value in np.percentile(ratio, (5, 50, 95)))
        spread = high - middle if gain < 1 else max(high - middle, middle - low)
        if abs(gain - 1) >= min(CERTAIN * spread, MOST_LIGHT):
            change = max(change, abs(gain - 1))
    return change
