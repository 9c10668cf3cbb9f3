"""The ground-truth reviewer: yes or no by measured closeness to the truth, where a candidate has one.

Lengths follow the hole. The limits were measured at 64 px, where a hole is some 23 px wide. On a larger hole closeness
is required at the same share of it, because a fill need not repeat what was behind an object to the pixel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

VERSION = "1"
"""Version of the rule; each vote records the one that it follows."""
TRUE_KINDS = ("captured", "simulated")
"""Kinds of triplets whose target is the truth."""
HOLE = 23.0
"""Square root of a hole's area, px, at which lengths are as `Limits` has them."""
PICTURE = 64.0
"""Shorter side of a picture at which lengths never grow, px."""


@dataclass(frozen=True)
class Limits:
    """The limits of a yes. Differences are in grey levels of 255.

    blur: sigma, px, at which pictures are compared; below it only the amount of texture counts.
    mean, high: of |candidate - truth| over the region, its mean and its 95th percentile.
    flat, busy: ln of the candidate's texture over the truth's; soft: the same of its finest texture alone.
    remnant, alike: grey levels of (source - truth) that are in (candidate - truth) too, and the correlation of both;
        above both, the object or its effect still shows.
    outside: share of the hole's area that may differ from the truth by more than `high` outside the regions.
    """

    blur: float = 1.5
    mean: float = 14.0
    high: float = 42.0
    flat: float = -0.75
    busy: float = 0.6
    soft: float = -1.5
    remnant: float = 6.0
    alike: float = 0.7
    outside: float = 0.02


LIMITS = Limits()


class Closeness(NamedTuple):
    """A candidate compared with the truth in one region; see `Limits`."""

    mean: float
    high: float
    texture: float
    finest: float
    remnant: float
    alike: float


class Opinion(NamedTuple):
    """Yes or no, and for a no one of the reviewers' reasons (`rasura.annotator.store.enums.Reason`)."""

    verdict: str
    reason: str | None


def compute_scale(hole: Array) -> float:
    """Compute the factor on the lengths in `Limits` for a hole: by its size, never by more than the picture's.

    Args:
        hole: (h, w) bool.

    Examples:
        >>> compute_scale(np.ones((46, 92), bool))
        1.0
        >>> hole = np.zeros((640, 640), bool)
        >>> hole[:46, :46] = True
        >>> compute_scale(hole)
        2.0
    """
    return float(np.clip(np.sqrt(hole.sum()) / HOLE, 1.0, max(1.0, min(hole.shape) / PICTURE)))


def measure_closeness(
    candidate: Array, truth: Array, source: Array, region: Array, sigma: float, fine: float
) -> Closeness:
    """Measure a candidate in one region.

    Args:
        candidate, truth, source: (h, w, 3) uint8. region: (h, w) bool, not empty.
        sigma, fine: px, as `Limits.blur`: scaled with the hole, and as it is.
    """
    candidate_blur, truth_blur = _blur(candidate, sigma), _blur(truth, sigma)
    apart = np.abs(candidate_blur - truth_blur).mean(2)[region]
    texture, finest = (
        float(
            np.log((_measure_texture(candidate, region, width) + 1.5) / (_measure_texture(truth, region, width) + 1.5))
        )
        for width in (sigma, fine)
    )
    error = (candidate.astype(np.float32) - truth)[region].ravel()
    removed = (source.astype(np.float32) - truth)[region].ravel()
    shared, energy, error_energy = float(error @ removed), float(removed @ removed), float(error @ error)
    remnant = shared / max(energy, 1e-6) * (energy / max(1, len(removed))) ** 0.5
    alike = shared / max((error_energy * energy) ** 0.5, 1e-6)
    return Closeness(float(apart.mean()), float(np.percentile(apart, 95)), texture, finest, remnant, alike)


def review_candidate(
    candidate: Array,
    truth: Array,
    source: Array,
    hole: Array,
    effects: Array | None = None,
    limits: Limits = LIMITS,
) -> Opinion:
    """Review one candidate by its closeness to the truth.

    Args:
        candidate, truth, source: (h, w, 3) uint8.
        hole: (h, w) bool, what was filled: the mask with its dilation.
        effects: (h, w) bool M_e, shadow and reflection, inside the hole or not; None where there are none or unknown.

    Raises:
        ValueError: shapes do not fit, or the hole is empty.
    """
    if not candidate.shape == truth.shape == source.shape or candidate.shape[:2] != hole.shape:
        raise ValueError(
            f"candidate {candidate.shape}, truth {truth.shape}, source {source.shape} and hole {hole.shape} do not fit"
        )
    if not hole.any():
        raise ValueError("the hole is empty: there is nothing to review")
    scale = compute_scale(hole)
    sigma = limits.blur * scale
    effect_region = effects if effects is not None and effects.any() else np.zeros_like(hole)
    # the place of the object alone; the whole hole where all of it is effect
    object_region = hole & ~effect_region if (hole & ~effect_region).any() else hole
    pictures = (candidate, truth, source)
    opinion = _review_object(measure_closeness(*pictures, object_region, sigma, limits.blur), limits)
    if opinion.verdict == "yes" and effect_region.any():
        opinion = _review_effects(
            measure_closeness(candidate, truth, source, effect_region, sigma, limits.blur), limits
        )
    if opinion.verdict == "yes":
        # the feather of a paste reaches a little beyond the hole
        allowed = cv2.dilate((hole | effect_region).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        apart = np.abs(_blur(candidate, limits.blur) - _blur(truth, limits.blur)).mean(2)
        if ((apart > limits.high) & ~allowed).sum() > limits.outside * hole.sum():
            return Opinion("no", "outside")
    return opinion


def _review_object(closeness: Closeness, limits: Limits) -> Opinion:
    if closeness.remnant > limits.remnant and closeness.alike > limits.alike:
        return Opinion("no", "object")
    if closeness.texture < limits.flat or closeness.finest < limits.soft:
        return Opinion("no", "seam")
    if closeness.texture > limits.busy or closeness.mean >= limits.mean or closeness.high >= limits.high:
        return Opinion("no", "hallucinated")
    return Opinion("yes", None)


def _review_effects(closeness: Closeness, limits: Limits) -> Opinion:
    """Review a region of effects, which is mostly intact picture: a fault in it is the shadow or what it became."""
    remains = closeness.remnant > limits.remnant and closeness.alike > limits.alike
    differs = (
        closeness.mean >= limits.mean
        or closeness.high >= limits.high
        or not limits.flat < closeness.texture < limits.busy
    )
    return Opinion("no", "shadow") if remains or differs else Opinion("yes", None)


def _blur(picture: Array, sigma: float) -> Array:
    return np.asarray(cv2.GaussianBlur(picture.astype(np.float32), (0, 0), sigma))


def _measure_texture(picture: Array, region: Array, sigma: float) -> float:
    grey = picture.astype(np.float32).mean(2)
    return float(np.abs(grey - cv2.GaussianBlur(grey, (0, 0), sigma))[region].mean())


def find_effects(row: Mapping[str, Any]) -> Array | None:
    """Return M_e of a triplet's row, (h, w) bool: its foreground without the object; None where it has no foreground.

    The foreground that can be seen is used where a row has it: `foreground_mask` is widened for compositing.

    Examples:
        >>> masks = {"mask": np.array([[True, False, False]]), "foreground_mask": np.array([[True, True, True]])}
        >>> find_effects(masks | {"foreground_visible": np.array([[True, True, False]])}).tolist()
        [[False, True, False]]
    """
    foreground = row.get("foreground_visible")
    foreground = row.get("foreground_mask") if foreground is None else foreground
    return None if foreground is None else foreground & ~row["mask"]


def grow_hole(mask: Array, dilation: int) -> Array:
    """Return what a remover filled: (h, w) bool, the mask grown by `dilation` px."""
    if not dilation:
        return mask
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * dilation + 1, 2 * dilation + 1))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel) > 0)
