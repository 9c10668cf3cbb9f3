"""Tone curve of a pair: what a camera's own tone mapping changed between two shots, beyond a gain.

A shot with a dark object in it is often developed otherwise than one without: shadows are lifted, lights are held. The
change depends on the level of a pixel; that of an object's light depends on where it is. So a curve over levels is
fitted together with smooth shading over the picture, and only the curve is used.
"""

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import RGB
from rasura.stages.imaging.comparison import find_unchanged_pixels
from rasura.stages.imaging.filters import Floats, box_mean, channel_max, convert_to_grey
from rasura.stages.registration.exposure import IDENTITY, Gains, apply_gain, apply_tone, estimate_gain

Levels = npt.NDArray[np.float64]

KNOT_COUNT = 9  # of the piecewise linear curve, evenly spaced over 0 to 255
SMOOTHNESS = 300.0  # weight of the curve's squared second differences, beside the pixels'
STEP = 4  # px: every fourth pixel in both directions is used
MAX_LEVEL = 250.0  # grey levels: above, a channel may be cut off
MIN_PIXELS = 400  # a curve is fitted to at least so many
ITERATIONS = 5  # of the reweighted least squares
MIN_CURVE = 0.4  # grey levels, root mean square: a smaller curve is none
MAX_REMAINDER = 0.85  # of the spread without a curve: a curve that leaves more than that explains nothing
SUPPORT = (0.5, 99.5)  # percentiles of the levels between which a curve is supported by pixels


def _compute_hats(levels: Floats) -> Levels:
    """Return (n, KNOT_COUNT): the weights of the knots at n levels, two of them not zero."""
    place = np.clip(levels.astype(np.float64) / 255 * (KNOT_COUNT - 1), 0, KNOT_COUNT - 1)
    return np.asarray(np.clip(1 - np.abs(place[:, None] - np.arange(KNOT_COUNT)), 0, None))


def _fit_robustly(design: Levels, values: Levels, penalty: Levels) -> tuple[Levels, float]:
    """Fit `values` by reweighted least squares (Geman-McClure); return coefficients and the spread of what is left."""
    weights: Levels = np.ones(len(values))
    coefficients: Levels = np.zeros(design.shape[1])
    spread = 0.0
    for _ in range(ITERATIONS):
        weighted = design * weights[:, None]
        coefficients = np.asarray(np.linalg.solve(weighted.T @ design + penalty, weighted.T @ values), np.float64)
        left = values - design @ coefficients
        spread = 1.4826 * float(np.median(np.abs(left))) + 0.2  # grey levels: rounding alone leaves some
        weights = 1 / (1 + (left / (2 * spread)) ** 2) ** 2
    return coefficients, spread


def fit_channel(levels: Floats, change: Floats, shading: Levels) -> tuple[Levels, float, float]:
    """Fit change = curve(level) + shading · level of one channel.

    Args:
        levels: (n,) of the clean picture.
        change: (n,) of the source less the clean picture.
        shading: (n, k) smooth functions of the place.

    Returns:
        (256,) the curve without its part that is a gain, grey levels, held where no pixel supports it; the spread that
        is left with the curve, and without it.
    """
    plain = shading * (levels[:, None] / 128)
    bends = np.diff(np.eye(KNOT_COUNT), 2, axis=0)
    design = np.concatenate([_compute_hats(levels), plain], axis=1)
    penalty = 1e-6 * len(levels) * np.eye(design.shape[1])
    penalty[:KNOT_COUNT, :KNOT_COUNT] += SMOOTHNESS * bends.T @ bends
    values = change.astype(np.float64)
    coefficients, spread = _fit_robustly(design, values, penalty)
    _, plain_spread = _fit_robustly(plain, values, penalty[KNOT_COUNT:, KNOT_COUNT:])
    low, high = np.percentile(levels, SUPPORT)
    every = np.arange(256.0)
    curve = _compute_hats(np.clip(every, low, high).astype(np.float32)) @ coefficients[:KNOT_COUNT]
    counts = np.bincount(levels.astype(np.int64), minlength=256)
    curve -= every * (counts * curve * every).sum() / max((counts * every * every).sum(), 1)
    return curve, spread, plain_spread


def estimate_tone_curve(source: RGB, clean: RGB) -> Floats:
    """Estimate what to add to the levels of `clean`, so that it is developed as `source` is, a gain apart.

    Zero where a curve explains little: it has to leave at most `MAX_REMAINDER` of the spread that shading alone leaves.

    Args:
        source, clean: (h, w, 3) uint8, registered and of about one exposure.

    Returns:
        (256, 3) float32, grey levels a level and channel.
    """
    none = np.zeros((256, 3), np.float32)
    sampled = np.s_[STEP // 2 :: STEP, STEP // 2 :: STEP]
    if clean[sampled].size < 3 * MIN_PIXELS:
        return none
    first, second = box_mean(source, 5)[sampled], box_mean(clean, 5)[sampled]
    usable = find_unchanged_pixels(convert_to_grey(source), convert_to_grey(clean))[sampled]
    usable &= cv2.max(channel_max(first), channel_max(second)) < MAX_LEVEL
    if usable.sum() < MIN_PIXELS:
        return none
    rows, columns = (
        2 * place / max(count - 1, 1) - 1 for place, count in zip(np.nonzero(usable), usable.shape, strict=True)
    )
    shading = np.stack([rows**0, rows, columns, rows * rows, rows * columns, columns * columns], axis=1)
    first, second = first[usable], second[usable]
    fits = [fit_channel(second[:, k], first[:, k] - second[:, k], shading) for k in range(3)]
    curve = np.stack([fit[0] for fit in fits], axis=1)
    counts = np.stack([np.bincount(second[:, k].astype(np.int64), minlength=256) for k in range(3)], axis=1)
    size = np.sqrt((counts * curve**2).sum(0) / counts.sum(0)).max()
    explained = sum(fit[1] for fit in fits) <= MAX_REMAINDER * sum(fit[2] for fit in fits)
    monotone = bool((np.diff(np.arange(256.0)[:, None] + curve, axis=0) > 0).all())
    return np.asarray(curve, np.float32) if explained and size >= MIN_CURVE and monotone else none


def estimate_tone(source: RGB, clean: RGB, dead_zone: float, with_curve: bool = True) -> tuple[Gains, Floats]:
    """Estimate the gain and the tone curve that bring `clean` to `source`'s exposure: source ≈ gain · (clean + curve).

    Args:
        source, clean: (h, w, 3) uint8, registered.
        dead_zone: see `estimate_gain`.
        with_curve: whether a curve is looked for; without one it is zero.

    Returns:
        The gain a channel; (256, 3) float32, the curve, grey levels.
    """
    gains = estimate_gain(source, clean, dead_zone)
    curve = np.zeros((256, 3), np.float32)
    if with_curve:
        gained = estimate_tone_curve(source, apply_gain(clean, gains))
        if gained.any():  # which has been in the gain, too
            every = np.arange(256)
            columns = [np.interp(every * gain, every, gained[:, k]) / gain for k, gain in enumerate(gains)]
            curve = np.stack(columns, axis=1).astype(np.float32)
            # Without the dead zone: a camera that developed otherwise did not keep its exposure either.
            gains = estimate_gain(source, apply_tone(clean, IDENTITY, curve), 0.0)
    return gains, curve
