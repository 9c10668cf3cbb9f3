"""The light of a pair: umbra and penumbra of the shadow that its objects cast, and the sun that they reveal.

An object's silhouette is read as a solid on the ground plane. Under a candidate sun its shadow follows; the sun whose
shadow best covers the dark region wins (`sun.fit_sun`). Camera pitch is a nuisance parameter like the sun's height,
unless the ground plane is available.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import RGB, Mask
from rasura.stages.imaging.filters import Floats, blur, estimate_gradient
from rasura.stages.imaging.morphology import dilate, disc
from rasura.stages.matting.layers import estimate_shadow_alpha
from rasura.stages.shadow_fit.camera import GroundCamera, make_ground_camera
from rasura.stages.shadow_fit.sun import Sun, fit_sun

WORKING_SIDE = 128  # px, longest side at which shadows are rendered
DEFAULT_PITCHES = (13.0, 20.0, 28.0)  # degrees below level, candidates where the ground plane is not available
UMBRA_PERCENTILES = (60.0, 85.0)  # percentiles of alpha that may be the cast shadow's
SOFT_BORDER, HARD_BORDER = 0.26, 0.40  # border sharpness that only skies make, that only suns and lamps make
MIN_SHADOW_ALPHA = 0.04  # alpha of the faintest shadow that has a border
MIN_BORDER_ALPHA = 0.08  # alpha below which noise and rounding make borders of their own: they count for less
TAIL_SHARE = 0.02  # of the picture's longest side, beyond M_e: where shadows run out
POOR_AGREEMENT, GOOD_AGREEMENT = 0.3, 0.55  # of the best shadow with the umbra: no sun's, certainly one's
MIRROR_MARGIN = 0.1  # by which a sun has to explain the umbra better than a mirror image does
NARROW_SPREAD, WIDE_SPREAD = 40.0, 50.0  # degrees of azimuth under which shadows fit nearly as well, for a sun at 45°
WIDE_CONFIDENCE = 0.45  # at most, where they are that many
LOW_SUN = 0.6  # tangent of the height below which suns count alike: 67 and 83 degrees of azimuth are the limits there
LOW_CONSENSUS, HIGH_CONSENSUS = 0.5, 0.9  # of the near-best suns on an azimuth: on none, on one


def segment_umbra(alpha: Floats, effects: Mask, percentile: float) -> tuple[Floats, float]:
    """Segment the umbra of the cast shadow: its border is at half of a percentile of alpha.

    The line of contact under an object is darker than its shadow, and what the object mirrors in the ground is paler:
    the fit has to find out which percentile is the shadow's own.

    Args:
        alpha: (h, w) float32, of the shadow.
        effects: (h, w) bool, M_e.
        percentile: of alpha on the effects.

    Returns:
        (h, w) float32, 0 to 1: how certainly a pixel is umbra; alpha of that shadow, 0 where effects are below 8 px.
    """
    if effects.sum() < 8:
        return np.zeros(alpha.shape, np.float32), 0.0
    depth = float(np.percentile(alpha[effects], percentile))
    umbra = np.clip((alpha / max(depth, 1e-3) - 0.3) / 0.4, 0, 1) * effects
    return np.asarray(umbra, np.float32), depth


def compute_slope(alpha: Floats, sigma: float) -> Floats:
    """Return (h, w) float32, the slope of alpha a px after a blur of `sigma` px."""
    return np.asarray(np.hypot(*estimate_gradient(blur(alpha, sigma))) / 8, np.float32)


def measure_penumbra_width(alpha: Floats, umbra: Floats, object_mask: Mask, depth: float) -> float | None:
    """Measure the penumbra: px in which alpha falls from all to nothing, as a share of the objects' height.

    The shadow's alpha over the slope across its border, median over the border away from the objects.

    Args:
        alpha: (h, w) of the shadow.
        umbra: (h, w) float32, 0 to 1.
        object_mask: (h, w) bool, M_o.
        depth: alpha of the umbra.

    Returns:
        A share; None without a border.
    """
    slope = compute_slope(alpha, 0.8)
    border = (dilate(umbra > 0.5, 1) & ~(umbra > 0.5)) & ~dilate(object_mask, 4)
    if border.sum() < 8 or depth <= 0.02:
        return None
    return float(np.median(depth / np.maximum(slope[border], 1e-3))) / max(1, int(object_mask.any(1).sum()))


def measure_border_sharpness(alpha: Floats, effects: Mask, object_mask: Mask) -> float:
    """Measure how abruptly the sharpest border of the shadow ends: a sun or a lamp makes one, an overcast sky does not.

    The slope of alpha over a hundredth of the picture's longest side, as a share of the shadow's alpha beside it, so
    that a pale shadow counts like a dark one; 95th percentile, away from the objects' own outline.

    Args:
        alpha: (h, w) of the shadow, not cut off at the border of M_e.
        effects, object_mask: (h, w) bool, M_e and M_o.

    Returns:
        0 (no border) to about 0.7 (a step).
    """
    side = max(alpha.shape)
    depth = np.asarray(cv2.dilate(blur(alpha, 1.5), disc(round(0.02 * side))), np.float32)
    away = effects & ~dilate(object_mask, max(3, round(0.012 * side))) & (depth > MIN_SHADOW_ALPHA)
    if away.sum() < 30:
        return 0.0
    slope = compute_slope(alpha, max(0.8, 0.006 * side)) * np.float32(side / 100)
    return float(np.percentile(slope[away] / np.maximum(depth[away], MIN_BORDER_ALPHA), 95))


def cluster_azimuth(azimuth: float | None) -> int:
    """Return the eighth of the circle, 0 to 7 in bins of 45° around 0, 45, …; −1 where the azimuth is None.

    Examples:
        >>> [cluster_azimuth(azimuth) for azimuth in (0.0, 22.0, 23.0, 350.0, None)]
        [0, 0, 1, 0, -1]
    """
    return -1 if azimuth is None else int(((azimuth + 22.5) % 360) // 45)


def compute_confidence(sharpness: float, sun: Sun) -> float:
    """Return 0 to 1: that there is a cast shadow at all, times how well and how uniquely a sun explains it.

    What the objects' mirror image in a glossy ground explains as well as any sun does says nothing about the sun.

    Examples:
        >>> round(compute_confidence(0.5, Sun(azimuth=30, elevation=40, agreement=0.6, consensus=0.7, umbra=0)), 3)
        0.5
        >>> round(compute_confidence(0.5, Sun(30, 50, 0.6, 0.9, 0, spread=45)), 3)
        0.45
    """
    border = math.log(max(sharpness, 1e-6) / SOFT_BORDER) / math.log(HARD_BORDER / SOFT_BORDER)
    explained = (sun.agreement - POOR_AGREEMENT) / (GOOD_AGREEMENT - POOR_AGREEMENT)
    unique = (sun.consensus - LOW_CONSENSUS) / (HIGH_CONSENSUS - LOW_CONSENSUS)
    # A short shadow half hidden by its object fits many directions: such an answer is never certain. The higher the
    # sun, the less of the shadow's outline tells its direction.
    spread = sun.spread * max(math.tan(math.radians(sun.elevation)), LOW_SUN)
    narrow = float(np.interp(spread, (NARROW_SPREAD, WIDE_SPREAD), (1, WIDE_CONFIDENCE)))
    no_mirror = (sun.agreement - sun.mirror) / MIRROR_MARGIN
    return float(narrow * np.prod(np.clip([border, explained, unique, no_mirror], 0, 1)))


@dataclass(frozen=True)
class LightEstimate:
    """The light of a pair.

    Attributes:
        sun: None where no shadow shows one.
        confidence: 0 to 1.
        softness: width of the penumbra as a share of the objects' height; None without a shadow's border.
    """

    sun: Sun | None
    confidence: float
    softness: float | None


def estimate_light(
    source: RGB,
    clean: RGB,
    object_mask: Mask,
    foreground_mask: Mask,
    plane: Sequence[float] | None = None,
    focal: float | None = None,
) -> LightEstimate:
    """Estimate the light of a pair from the shadow that its objects cast.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        object_mask, foreground_mask: (h, w) bool, M_o and M_fg.
        plane: nx, ny, nz, d of the ground plane, and focal: px, if they are available.
    """
    height, width = object_mask.shape
    effects = foreground_mask & ~object_mask
    if not effects.any() or not object_mask.any():
        return LightEstimate(None, 0.0, None)
    tail = max(3, round(TAIL_SHARE * max(height, width)))
    around = dilate(foreground_mask | object_mask, tail) & ~object_mask
    uncut = estimate_shadow_alpha(source, clean, around, ~dilate(foreground_mask | object_mask, tail + 8)) * around
    alpha = uncut * effects
    scale = min(1.0, WORKING_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))

    def shrink(values: npt.NDArray[Any]) -> Floats:
        return np.asarray(cv2.resize(values.astype(np.float32), size, interpolation=cv2.INTER_AREA), np.float32)

    mask, share = shrink(object_mask) > 0.5, shrink(effects)
    mean = np.asarray(np.where(share > 0.05, shrink(alpha) / np.maximum(share, 0.05), 0), np.float32)
    umbras = [segment_umbra(mean, (share > 0.3) & ~mask, percentile) for percentile in UMBRA_PERCENTILES]
    if not umbras[0][0].any() or not mask.any():
        return LightEstimate(None, 0.0, None)
    if plane is not None and focal is not None:
        normal = np.asarray(plane[:3], np.float64) / max(plane[3], 1e-9)
        cameras = [GroundCamera(normal, focal * scale, (size[0] / 2, size[1] / 2))]
    else:
        cameras = [make_ground_camera(pitch, size) for pitch in DEFAULT_PITCHES]
    sun = fit_sun(mask, [umbra for umbra, _ in umbras], cameras)
    umbra, depth = umbras[sun.umbra if sun else 0]
    enlarged = np.asarray(cv2.resize(umbra, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    softness = measure_penumbra_width(alpha, enlarged, object_mask, depth)
    if sun is None:
        return LightEstimate(None, 0.0, softness)
    sharpness = measure_border_sharpness(uncut, effects, object_mask)
    return LightEstimate(sun, compute_confidence(sharpness, sun), softness)
