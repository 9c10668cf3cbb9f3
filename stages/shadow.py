"""Stage `shadow`: from where the light came, told by the shadow it made the objects cast on the floor.

An object's silhouette is read as a solid that stands on the floor. Under a candidate sun its shadow is known; the sun
whose shadow best covers the dark region wins (`shading.sun`). Camera pitch is a nuisance like the sun's height, unless
the floor's plane is known.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from rasura.manifests.images import RGB, Mask
from rasura.manifests.schemas import Kind
from rasura.stages.matting.layers import Floats, shadow_alpha
from rasura.stages.pair import blur, dilate
from rasura.stages.shadow_fit.solids import Floor, level_floor
from rasura.stages.shadow_fit.sun import Sun, fit_sun
from rasura.stages.stage import Kept, Outcome, Params, Record, Stage

Array = npt.NDArray[Any]

WORK_SIDE = 128  # px, longest side at which shadows are drawn
PITCHES = (13.0, 20.0, 28.0)  # degrees below level that a camera may look when nothing is known
LEVELS = (60.0, 85.0)  # percentiles of α that may be the cast shadow's
SOFT_EDGE, HARD_EDGE = 0.035, 0.10  # strength of a shadow's border that only skies make, that only suns and lamps make
POOR, GOOD = 0.3, 0.55  # agreement of the best shadow with the umbra: no sun's, surely one's
TORN, AGREED = 0.5, 0.9  # how far the good fits agree on an azimuth: on none, on one


def umbra(alpha: Floats, effects: Mask, percentile: float) -> tuple[Floats, float]:
    """(h, w) float32 0 to 1: how surely a pixel lies in the cast shadow; and α of that shadow.

    Its border is at half of that percentile of α. The line of contact under an object is darker than its shadow, and
    what the object mirrors in the floor is paler: which percentile is the shadow's own, the fit has to find out.
    """
    if effects.sum() < 8:
        return np.zeros(alpha.shape, np.float32), 0.0
    deep = float(np.percentile(alpha[effects], percentile))
    sure = np.clip((alpha / max(deep, 1e-3) - 0.3) / 0.4, 0, 1) * effects
    return np.asarray(sure, np.float32), deep


def penumbra(alpha: Floats, sure: Floats, object_mask: Mask, deep: float) -> float | None:
    """Width of the shadow's border as a share of the objects' height: px in which α falls from all to nothing.

    The usual α over the slope across the border, median over the border away from the objects; None without one.
    """
    smooth = blur(alpha, 0.8)
    slope = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)) / 8
    border = (dilate(sure > 0.5, 1) & ~(sure > 0.5)) & ~dilate(object_mask, 4)
    if border.sum() < 8 or deep <= 0.02:
        return None
    return float(np.median(deep / np.maximum(slope[border], 1e-3))) / max(1, int(object_mask.any(1).sum()))


def border_strength(alpha: Floats, effects: Mask, object_mask: Mask) -> float:
    """How abruptly the darkest shadow ends: what a sun or a lamp makes and an overcast sky does not.

    95th percentile of the slope of α over a hundredth of the picture's longest side, times the root of that of α
    itself, away from the objects' own outline.
    """
    side = max(alpha.shape)
    away = effects & ~dilate(object_mask, max(3, round(0.012 * side)))
    if away.sum() < 8:
        return 0.0
    smooth = blur(alpha, max(0.8, 0.006 * side))
    slope = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)) / 8
    abrupt = float(np.percentile(slope[away], 95)) * side / 100
    return float(abrupt * math.sqrt(max(0.0, float(np.percentile(alpha[away], 95)))))


def cluster(azimuth: float | None) -> int:
    """The eighth of the circle, 0 to 7 in bins of 45° around 0, 45, …; −1 where the azimuth is unknown."""
    return -1 if azimuth is None else int(((azimuth + 22.5) % 360) // 45)


def confidence(strength: float, sun: Sun) -> float:
    """0 to 1: that there is a cast shadow at all, times how well and how uniquely a sun explains it."""
    edge = math.log(max(strength, 1e-6) / SOFT_EDGE) / math.log(HARD_EDGE / SOFT_EDGE)
    explained, unique = (sun.fit - POOR) / (GOOD - POOR), (sun.peak - TORN) / (AGREED - TORN)
    return float(np.prod(np.clip([edge, explained, unique], 0, 1)))


@dataclass(frozen=True)
class Light:
    """What a pair tells about its light; null where it tells nothing."""

    sun: Sun | None
    confidence: float
    softness: float | None


def light_of(
    source: RGB,
    clean: RGB,
    object_mask: Mask,
    foreground_mask: Mask,
    plane: Sequence[float] | None = None,
    focal: float | None = None,
) -> Light:
    """The light of a pair.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        object_mask, foreground_mask: (h, w) bool, M_o and M_fg.
        plane: nx, ny, nz, d of the floor, and focal: px, if they are known.
    """
    height, width = object_mask.shape
    effects = foreground_mask & ~object_mask
    if not effects.any() or not object_mask.any():
        return Light(None, 0.0, None)
    alpha = shadow_alpha(source, clean, effects, ~dilate(foreground_mask | object_mask, 8)) * effects
    scale = min(1.0, WORK_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))

    def small(values: Array) -> Floats:
        return np.asarray(cv2.resize(values.astype(np.float32), size, interpolation=cv2.INTER_AREA), np.float32)

    mask, share = small(object_mask) > 0.5, small(effects)
    mean = np.where(share > 0.05, small(alpha) / np.maximum(share, 0.05), 0)
    levels = [umbra(np.asarray(mean, np.float32), (share > 0.3) & ~mask, level) for level in LEVELS]
    if not levels[0][0].any() or not mask.any():
        return Light(None, 0.0, None)
    if plane is not None and focal is not None:
        middle = (size[0] / 2, size[1] / 2)
        floors = [Floor(np.asarray(plane[:3], np.float64) / max(plane[3], 1e-9), focal * scale, middle)]
    else:
        floors = [level_floor(pitch, size) for pitch in PITCHES]
    sun = fit_sun(mask, [sure for sure, _ in levels], floors)
    sure, deep = levels[sun.level if sun else 0]
    wide = np.asarray(cv2.resize(sure, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    softness = penumbra(alpha, wide, object_mask, deep)
    if sun is None:
        return Light(None, 0.0, softness)
    return Light(sun, confidence(border_strength(alpha, effects, object_mask), sun), softness)


class ShadowParams(Params):
    confident: float = Field(0.4, ge=0, le=1, description="Confidence below which the direction counts as unknown.")


class Shadow(Stage):
    """Tells a pair's light direction from the shadow that its objects cast."""

    name = "shadow"
    needs = {"input": Kind.RGB, "gt": Kind.RGB, "object_mask": Kind.MASK, "foreground_mask": Kind.MASK}
    gives = {
        "shadow_azimuth": Kind.FLOAT,
        "shadow_elevation": Kind.FLOAT,
        "shadow_confidence": Kind.FLOAT,
        "shadow_cluster": Kind.INT,
        "shadow_softness": Kind.FLOAT,
    }
    Params = ShadowParams
    params: ShadowParams

    def process_one(self, record: Record) -> Outcome:
        light = light_of(
            record["input"],
            record["gt"],
            record["object_mask"],
            record["foreground_mask"],
            record.get("ground_plane"),
            record.get("ground_focal"),
        )
        known = light.sun if light.confidence >= self.params.confident else None
        azimuth = known.azimuth if known else None
        measured = {
            "shadow_azimuth": azimuth,
            "shadow_elevation": known.elevation if known else None,
            "shadow_confidence": light.confidence,
            "shadow_cluster": cluster(azimuth),
            "shadow_softness": light.softness,
        }
        return Kept([record | measured])
