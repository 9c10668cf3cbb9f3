"""Segmentation of M_fg: what stands out of the pair's noise and is connected to an object core."""

import cv2
import numpy as np

from rasura.manifests.images import RGB, Mask
from rasura.stages.effect_mask.leftovers import add_strong_blobs
from rasura.stages.effect_mask.object_core import find_object_core, select_strong_blobs
from rasura.stages.imaging.components import (
    apply_hysteresis,
    fill_holes,
    flag_near_components,
    label_components,
    select_components,
)
from rasura.stages.imaging.filters import Floats, blur, box_mean, channel_max, channel_mean, estimate_gradient
from rasura.stages.imaging.morphology import compute_distance_to, dilate, disc

MIN_EFFECT_LEVEL = 5.1  # grey levels, 2 % of white: the faintest effect that counts, however clean the pair is
FALLOFF_TOLERANCE = 4.0  # grey levels by which means of two widths may differ in a slow falloff


def compute_steady_difference(source: RGB, clean: RGB, noise: float) -> Floats:
    """Return the difference with little noise in slow falloffs, so that it bears a low threshold.

    Where the 5 × 5 and the 11 × 11 mean of the difference nearly agree (`FALLOFF_TOLERANCE`, or thrice the noise) a
    shadow is falling off slowly, and the wide mean, which has half the noise, is used; at a rim the narrow one. Zero
    where the narrow one is below 1 % of white: a wide mean must not carry an effect across its own rim.

    Args:
        source, clean: (h, w, 3) uint8, registered.
        noise: sigma of the 5 × 5 mean difference, grey levels.

    Returns:
        (h, w) float32, grey levels, the largest over channels.
    """
    delta = source.astype(np.float32) - clean
    narrow, wide = box_mean(delta, 5), box_mean(delta, 11)
    agrees = np.abs(narrow - wide) < max(FALLOFF_TOLERANCE, 3 * noise)
    steady = channel_max(np.abs(np.where(agrees, wide, narrow)))
    return np.asarray(np.where(channel_max(np.abs(narrow)) > MIN_EFFECT_LEVEL / 2, steady, 0), np.float32)


def detect_changes(source: RGB, clean: RGB, noise: float) -> Mask:
    """Return (h, w) bool: all that differs by more than the noise, whether it belongs to an object or not."""
    return apply_hysteresis(compute_steady_difference(source, clean, noise), max(MIN_EFFECT_LEVEL, 3 * noise))


def estimate_exposure_drift(values: Floats, core: Mask) -> float:
    """Return the grey levels by which the picture changes far from any object: the camera's own exposure control.

    The median of `values` on pixels at least a sixth of the diagonal from the core. A pattern that the whole room
    shows is no shadow; noise and a shadow near its object leave it low.

    Args:
        values: (h, w) grey levels of change.
        core: (h, w) bool, the object core.
    """
    if not core.any():
        return 0.0
    distant = compute_distance_to(core) > np.hypot(*values.shape) / 6
    return float(np.median(values[distant])) if distant.mean() > 0.05 else 0.0


def find_clean_only_shadows(source: RGB, clean: RGB, changed: Mask, core: Mask) -> Mask:
    """Return (h, w) bool: brighter parts of `changed` that are no effect of the object but a shadow in `clean`.

    Somebody beside the camera darkens the clean picture: the target would get a smudge that the source never had.
    With r = log source − log clean, the rim of a part is in the picture whose own slope follows that of r: an effect
    has ⟨∇r, ∇ log source⟩ > ⟨∇r, −∇ log clean⟩. In logarithms the background's texture is the same in both.
    """
    logs = [np.log(blur(channel_mean(p), 2.0) + 4) for p in (source, clean)]
    slopes = [estimate_gradient(log) for log in logs]
    steps = [a - b for a, b in zip(*slopes, strict=True)]
    votes = sum((a + b) * step for a, b, step in zip(*slopes, steps, strict=True))  # effect's less clean's own
    apart = ~dilate(core, 6)
    _, labels, areas = label_components(changed & apart & (logs[0] > logs[1]))
    wide = np.asarray(cv2.dilate(labels.astype(np.float32), disc(6)), np.float32).astype(np.int64)
    total = np.bincount(wide[apart], weights=np.asarray(votes, np.float64)[apart], minlength=len(areas) + 1)[1:]
    return select_components(labels, (total < 0) & (areas >= 64))


def smooth_outline(mask: Mask, certain: Mask) -> Mask:
    """Return `mask` without the frayed rim and the threads that noise and codec draw along a soft shadow's end.

    Args:
        mask: (h, w) bool.
        certain: (h, w) bool, pixels that a median of the mask may not remove.
    """
    side = min(15, max(3, min(mask.shape) // 45 | 1))
    smooth = np.asarray(cv2.medianBlur(mask.astype(np.uint8), side), np.uint8) > 0
    return np.asarray(smooth | certain)


def segment_foreground(
    source: RGB,
    clean: RGB,
    noise: float,
    threshold: float = MIN_EFFECT_LEVEL,
    sigmas: float = 3.0,
    reach: float = 0.03,
    spread: Floats | None = None,
) -> tuple[Mask, Mask]:
    """Segment the change of a pair, and the part of it that is connected to an object.

    `compute_steady_difference` above max(threshold, sigmas · noise), hysteresis × 2, within `reach` of the object
    core; where nothing is unlike a shadow, the strongest half of the change takes the core's place.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        noise: sigma of the 5 × 5 mean difference, grey levels.
        threshold: grey levels.
        sigmas: multiples of `noise`.
        reach: gap between an object and its effect, as a share of the diagonal.
        spread: (h, w) grey levels, sigma of each pixel's 5 × 5 mean while nothing is there: of leaves in the wind more
            than of the wall behind. A change below `sigmas` of it is none.

    Returns:
        (h, w) bool: all that changed; (h, w) bool: M_fg.
    """
    values = compute_steady_difference(source, clean, noise)
    if spread is not None:
        values = np.where(values > sigmas * spread, values, np.float32(0))
    low = max(threshold, sigmas * noise)
    changed = apply_hysteresis(values, low)
    if not changed.any():
        return changed, changed
    core = find_object_core(source, clean, changed, noise).mask
    # Exposure drift raises the threshold for effects, never below the core itself.
    drift = estimate_exposure_drift(values, core)
    if 3 * drift > low:
        low = 3 * drift
        changed = apply_hysteresis(values, low) | core
    core &= select_strong_blobs(core, values)
    if not core.any():
        core = changed & (values > 0.5 * float(values[changed].max()))
    px = max(2.0, reach * float(np.hypot(*changed.shape)))
    foreground = select_components(label_components(changed)[1], flag_near_components(changed, core, px)) | core
    clean_only = find_clean_only_shadows(source, clean, foreground, core)
    foreground &= ~clean_only
    foreground = smooth_outline(foreground, core | (foreground & (values > 2 * low)))
    _, labels, areas = label_components(foreground)
    flags = flag_near_components(foreground, core, px) & (areas >= max(16, foreground.size // 2000))
    foreground = select_components(labels, flags) | core
    foreground = add_strong_blobs(source, clean, changed & ~clean_only, foreground)
    return changed | core, fill_holes(foreground, max(16, foreground.size // 1000))
