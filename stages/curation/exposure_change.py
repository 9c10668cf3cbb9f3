"""Whether the gain of a pair is a change of exposure or white balance, or light that the object keeps off or throws.

A gain is the same all over the picture. What an object does to the light of its room differs from place to place, so
that the ratio of the two pictures spreads, towards none where the object does nothing. Levels that were rounded to 8
bits spread it, too, in dark places above all: by 1 % at level 29. So places count as much as they are bright.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rasura.manifests.images import RGB
from rasura.stages.registration.exposure import IDENTITY, Gains, measure_levels

GRID = np.s_[2::4, 2::4]  # every fourth pixel in both directions is used, of means over wider windows
LEAST_PIXELS = 40
MOST_LIGHT = 0.015  # of a gain: no object in the rendered rooms changed a whole picture's light by more than 0.011
CERTAIN_DARKER = 1.5  # times the spread of the ratio towards none: a smaller gain may be the object's light
CERTAIN_BRIGHTER = 2.0  # times the spread beyond the 80th percentile: no shade brightens, but thrown light fades


class ExposureChange(NamedTuple):
    """A change of exposure or white balance.

    Attributes:
        size: |gain - 1| of the channel that changed most, as far as no object explains it.
        gains: a channel, source over clean; all 1 where the size is 0.
    """

    size: float
    gains: Gains


NO_CHANGE = ExposureChange(0.0, IDENTITY)


def measure_exposure_change(source: RGB, clean: RGB, gains: Sequence[float]) -> ExposureChange:
    """Measure the gain of the channels that is certain to be the camera's.

    It is read from log(source / clean) over wide means of unchanged pixels, weighted by their levels. A gain below 1
    is the median, and certain where it is `CERTAIN_DARKER` times the distance to the 95th percentile, towards none. One
    above 1 is the 80th percentile, which no shade has pulled down, and certain where more than half of the pixels are
    brighter and it is `CERTAIN_BRIGHTER` times the distance to the 95th.

    Args:
        source, clean: (h, w, 3) uint8, registered, before exposures are matched.
        gains: a channel, as `estimate_tone` estimated them: from `MOST_LIGHT` on, these are certain, too.

    Returns:
        The change; none where no channel's is certain.
    """
    ample = [abs(gain - 1) for gain in gains if abs(gain - 1) >= MOST_LIGHT]
    first, second, usable, unchanged = measure_levels(source, clean)
    pixels = (usable & unchanged)[GRID]
    if pixels.sum() < LEAST_PIXELS:
        size = max(abs(gain - 1) for gain in gains)
        return ExposureChange(size, (gains[0], gains[1], gains[2])) if size else NO_CHANGE
    estimates, sizes = [], ample
    for channel in range(3):
        before, after = (np.maximum(means[GRID][pixels, channel], 1) for means in (second, first))
        percentiles = np.percentile(np.log(after / before), (50, 80, 95), weights=before, method="inverted_cdf")
        middle, upper, top = (float(value) for value in percentiles)
        level = middle if middle < 0 else upper
        spread = CERTAIN_DARKER * (top - middle) if middle < 0 else CERTAIN_BRIGHTER * (top - upper)
        estimates.append(float(np.exp(level)))
        if abs(level) >= spread:
            sizes.append(abs(estimates[-1] - 1))
    return ExposureChange(max(sizes), (estimates[0], estimates[1], estimates[2])) if sizes else NO_CHANGE
