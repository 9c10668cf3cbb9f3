"""Exposure of a pair: the gain a channel between two pictures of one scene."""

from collections.abc import Sequence

import cv2
import numpy as np

from rasura.manifests.images import RGB, Mask
from rasura.stages.imaging.comparison import find_unchanged_pixels
from rasura.stages.imaging.filters import Floats, box_mean, channel_max, channel_mean, convert_to_grey
from rasura.stages.imaging.morphology import compute_distance_to

Gains = tuple[float, float, float]

UNSHADED_PERCENTILE = 80  # of the brightness ratio, at which no shadow is left: see `estimate_gain`
SPREADS = 3.0  # times the ratio's spread above that percentile, within which a gain is as likely none
MAX_FADED = 0.6  # of the ratio in the nearest third of the pixels, what is left in the farthest where it fades
MAX_TINT_SHARE = 0.5  # of the gain: light that an object keeps off has a hue, too, but less of it than brightness
MAX_UNCERTAIN = 0.02  # of the gain's logarithm: a larger one is a change of exposure, whatever the spread
IDENTITY: Gains = (1.0, 1.0, 1.0)


def estimate_modal_gain(source: Floats, clean: Floats) -> float:
    """Return the most frequent ratio source / clean of one channel, 1 where fewer than 200 pixels are usable.

    Args:
        source, clean: (h, w) grey levels, 5 × 5 means.
    """
    usable = (clean > 12) & (clean < 247) & (source > 4) & (source < 247)
    if usable.sum() < 200:
        return 1.0
    ratio = np.log(source[usable] / clean[usable])
    counts, edges = np.histogram(ratio, bins=241, range=(-0.6025, 0.6025))  # bins of half a per cent
    smooth = np.convolve(counts, [1, 2, 3, 2, 1], "same")
    peak = int(smooth.argmax())
    centre = float(edges[peak] + edges[peak + 1]) / 2
    for _ in range(3):
        near = ratio[np.abs(ratio - centre) < 0.02]
        if near.size:
            centre = float(near.mean())
    return float(np.exp(centre))


def _is_uneven(ratio: Floats, distance: Floats, level: float, upper: float, top: float) -> bool:
    """Return whether a log ratio spreads so much that it is rather none, since a gain is the same everywhere.

    Above 1, it is a drift of the camera that differs between places. Below, it is the light that a large object keeps
    off a whole room where it never comes to 1 (`top`) and fades with the distance from what changed.

    Args:
        ratio, distance: (n,) log ratio of brightness, and px to the nearest pixel that changed.
        level, upper, top: the ratio's 80th, 95th and 99th percentile.
    """
    if abs(level) > SPREADS * (upper - level):
        return False
    first, second = np.percentile(distance, (33, 67))
    near, far = np.median(ratio[distance <= first]), np.median(ratio[distance >= second])
    return level > 0 or bool(top < 0 and far > MAX_FADED * near)


def measure_levels(source: RGB, clean: RGB, margin: int = 20) -> tuple[Floats, Floats, Mask, Mask]:
    """Measure the levels that a pair's gain is read from.

    Args:
        source, clean: (h, w, 3) uint8, registered.
        margin: px around large changes where nothing counts as unchanged; fewer in small pictures.

    Returns:
        (h, w, 3) wide means of source and of clean; (h, w) bool: neither of them is near black or white;
        (h, w) bool: nothing but the exposure changed.
    """
    rough = estimate_modal_gain(box_mean(convert_to_grey(source), 5), box_mean(convert_to_grey(clean), 5))
    reach = min(margin, max(1, min(source.shape[:2]) // 16))
    unchanged = find_unchanged_pixels(convert_to_grey(source), convert_to_grey(clean) * rough, reach)
    side = max(5, min(source.shape[:2]) // 15 | 1)
    first, second = box_mean(source, side), box_mean(clean, side)
    usable = (channel_mean(second) > 12) & (channel_max(second) < 247)
    usable &= (channel_mean(first) > 4) & (channel_max(first) < 247)
    return first, second, usable, unchanged


def estimate_gain(source: RGB, clean: RGB, dead_zone: float = 0.0035, margin: int = 20) -> Gains:
    """Estimate the gain a channel that brings `clean` (registered) to `source`'s exposure: source ≈ gain · clean.

    What an object does to the light of its scene is mostly to take some, faintly and far around it. So the exposure
    is read from the unshaded part: the 80th percentile of log(source / clean) over wide means, of pixels at least
    `margin` px from large changes; a mode or median would be in the shade, 0.3 % too dark. Channels differ from that
    by their median there. Exactly (1, 1, 1) when every channel is within the dead zone, or where an unchanged exposure
    fits as well (`_is_uneven`, or 1 is between the 45th and the 95th percentile) and no channel stands out: correcting
    nothing is better than half a level of made-up light all over the picture.

    Args:
        source, clean: (h, w, 3) uint8, registered.
        dead_zone: gains closer to 1 than this are returned as 1; 0 turns this off.
        margin: px.
    """
    first, second, usable, unchanged = measure_levels(source, clean, margin)
    pixels = usable & unchanged if (usable & unchanged).mean() > 0.05 else usable
    if pixels.sum() < 200:
        return IDENTITY
    first, second = first[pixels], second[pixels]
    ratio = np.log((first @ np.ones(3, np.float32)) / (second @ np.ones(3, np.float32)))
    lower, level, upper, top = (float(v) for v in np.percentile(ratio, (45, UNSHADED_PERCENTILE, 95, 99)))
    near = np.abs(ratio - level) < 0.01
    tints = np.median(np.log((first[near] + 1) / (second[near] + 1)) - ratio[near, None], axis=0)
    gains = np.exp(level + tints)
    near_one = lower <= 0 <= upper or _is_uneven(ratio, compute_distance_to(~pixels)[pixels], level, upper, top)
    tinted = bool((np.abs(tints) >= max(dead_zone, MAX_TINT_SHARE * abs(level))).any())
    fits = near_one and not tinted and abs(level) < MAX_UNCERTAIN
    if dead_zone and (fits or (np.abs(gains - 1) < dead_zone).all()):
        return IDENTITY
    return float(gains[0]), float(gains[1]), float(gains[2])


def compute_gain_factor(gains: Sequence[float]) -> float:
    """Compute the strongest of the gains, up or down, as a factor of at least 1.

    Examples:
        >>> compute_gain_factor((1.0, 0.5, 1.25))
        2.0
    """
    return max(max(gain, 1 / gain) for gain in gains)


def apply_gain(picture: RGB, gains: Gains) -> RGB:
    """Return `picture` times a gain a channel, rounded and clipped to uint8; itself where all gains are 1.

    Examples:
        >>> apply_gain(np.array([[[100, 100, 200]]], np.uint8), (1.0, 1.1, 1.5))
        array([[[100, 110, 255]]], dtype=uint8)
    """
    return picture if gains == IDENTITY else apply_tone(picture, gains, np.zeros((256, 3), np.float32))


def apply_tone(picture: RGB, gains: Gains, curve: Floats) -> RGB:
    """Return `picture` with a curve added to its levels, then times a gain a channel, rounded once, clipped to uint8.

    Args:
        picture: (h, w, 3) uint8.
        gains: a factor a channel.
        curve: (256, 3) grey levels to add, by level and channel.
    """
    table = (np.arange(256, dtype=np.float32)[:, None] + curve) * np.array(gains, np.float32)
    table = np.clip(np.rint(table), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(np.ascontiguousarray(picture), table[:, None]), np.uint8)
