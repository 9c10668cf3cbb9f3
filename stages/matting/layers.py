"""What a pair's difference is made of: alpha (what is covered or missing), colour, and light that was added.

The one arithmetic of cut-outs: `compose` puts them back, here and wherever they are pasted.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import RGB, Mask
from rasura.stages.pair import blur, box_mean

Floats = npt.NDArray[np.float32]
RGBA = npt.NDArray[np.uint8]

DARK_PRIOR = 3 * 4.0**2  # grey levels², over three channels: below it, alpha leans on its neighbours


def compose(foreground: RGBA, light: RGB | None, background: RGB, left: int = 0, top: int = 0) -> RGB:
    """α F + (1 − α) B + L: `foreground` (h, w, 4) and its additive `light` (h, w, 3; None: no light) over
    `background` (H, W, 3), their corner at (left, top), clipped to the frame and to white."""
    out = background.copy()
    height, width = background.shape[:2]
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(width, left + foreground.shape[1]), min(height, top + foreground.shape[0])
    if x1 <= x0 or y1 <= y0:
        return out
    window = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    part = foreground[window].astype(np.float32)
    alpha = part[..., 3:] / 255
    mixed = alpha * part[..., :3] + (1 - alpha) * background[y0:y1, x0:x1]
    if light is not None:
        mixed = np.minimum(mixed + light[window], 255)
    out[y0:y1, x0:x1] = np.rint(mixed).astype(np.uint8)
    return out


def psnr(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float:
    """dB between two uint8 arrays of one shape, at most 99."""
    error = float(np.mean((first.astype(np.float32) - second.astype(np.float32)) ** 2, dtype=np.float64))
    return 99.0 if error < 1e-5 else min(99.0, float(10 * np.log10(255**2 / error)))


def grain(values: Floats, calm: Mask) -> float:
    """Sigma of what is finer than 5 px in (h, w) `values` on `calm` pixels, robust; 0 where hardly any are calm."""
    if calm.mean() <= 0.02:
        return 0.0
    return 1.4826 * float(np.median(np.abs(values - box_mean(values, 5))[calm]))


def calmed(values: Floats, variance: Floats, inside: Floats, side: int = 7) -> Floats:
    """(h, w) `values` without what does not stand out of noise of `variance` (Wiener, side × side).

    What is laid elsewhere must not carry this camera's grain along.

    Args:
        values, variance: (h, w).
        inside: (h, w) weight of the pixels that count, 0 outside.
    """
    weight = box_mean(inside, side) + 1e-6
    mean = box_mean(values * inside, side) / weight
    spread = np.maximum(box_mean(values * values * inside, side) / weight - mean * mean, 0)
    # Twice the noise: codec noise is patchy, and one patch in two would pass a bar at its mean.
    keep = np.maximum(spread - 2 * variance, 0) / (spread + 1e-9)
    return np.asarray(mean + keep * (values - mean), np.float32)


def shadow_alpha(source: RGB, clean: RGB, where: Mask, calm: Mask) -> Floats:
    """(h, w) float32 in [0, 1]: least squares over channels of c = (1 − α) g, that is α = Σ g (g − c) / Σ g².

    Where the background is nearly black the ratio says nothing, and α is drawn to the mean of its neighbours.

    Args:
        source, clean: (h, w, 3) uint8.
        where: (h, w) bool, where α is wanted. Values outside are meaningless.
        calm: (h, w) bool, where nothing changed but noise.
    """
    seen, base = source.astype(np.float32), clean.astype(np.float32)
    missing = np.asarray((base * (base - seen)).sum(2), np.float32)
    light = np.asarray((base * base).sum(2), np.float32) + DARK_PRIOR
    inside = where.astype(np.float32)
    around = blur(missing * inside, 2.0) / (blur((light - DARK_PRIOR) * inside, 2.0) + DARK_PRIOR)
    alpha = (missing + DARK_PRIOR * around) / light
    # multiplied by √light, that is in grey levels, the noise is about the same everywhere
    sigma = grain(missing / np.sqrt(light), calm)
    alpha = calmed(alpha, np.asarray(sigma * sigma / light, np.float32), inside)
    return np.clip(alpha, 0, 1).astype(np.float32)


def end_weight(alpha: Floats, where: Mask, width: int, faint: float = 0.06) -> Floats:
    """(h, w) float32: 1 on M_fg, falling to 0 over `width` px outside it.

    A soft shadow goes on below the height of the noise, where M_fg ends; cut there it would show a step. What is
    stronger than `faint` outside is no tail of a shadow but something else, and gets 0.
    """
    if width <= 0 or where.all() or not where.any():
        return where.astype(np.float32)
    distance = np.asarray(cv2.distanceTransform((~where).astype(np.uint8), cv2.DIST_L2, 5), np.float32)
    ramp = np.clip(1 - (distance / (width + 1)) ** 2, 0, 1)
    tail = ramp * np.clip(2 - alpha / faint, 0, 1)
    return np.where(where, 1, tail).astype(np.float32)


def added_light(source: RGB, clean: RGB, alpha: Floats, where: Mask, calm: Mask) -> Floats:
    """(h, w, 3) float32, grey levels: what `source` is brighter by than (1 − α) clean: bounced light, reflections.

    α being the least-squares one, this is what brightened, and the tint of what darkened; never the share of the
    shadow that a darker α would leave over. Noise is taken off as in the shadow.

    Args:
        source, clean: (h, w, 3) uint8.
        alpha: (h, w) of the effects.
        where, calm: (h, w) bool, as in `shadow_alpha`.
    """
    over = source.astype(np.float32) - (1 - alpha[..., None]) * clean
    inside = where.astype(np.float32)
    noise = source.astype(np.float32) - clean
    for channel in range(3):
        sigma = grain(np.ascontiguousarray(noise[..., channel]), calm)
        variance = np.full(alpha.shape, sigma * sigma, np.float32)
        over[..., channel] = calmed(np.ascontiguousarray(over[..., channel]), variance, inside)
    return np.where(where[..., None], np.maximum(over, 0), 0).astype(np.float32)


def light_energy(light: RGB, source: RGB, clean: RGB, effects: Mask) -> float:
    """Energy of the additive layer where the pair shows nothing but darkening, as a share of the darkening's energy.

    Purely darkened: the 5 × 5 mean of source − clean is negative in all channels, by more than 2 levels in one.
    """
    change = box_mean(source.astype(np.float32) - clean, 5)
    dark = effects & (change.max(2) < 0) & (change.min(2) < -2)
    darkening = float((change[dark] ** 2).sum(dtype=np.float64))
    return float((light[dark].astype(np.float64) ** 2).sum()) / darkening if darkening else 0.0


def stacked(coverage: Floats, colour: Floats, shade: Floats) -> RGBA:
    """The object over its own shadow as one straight-alpha layer, (h, w, 4) uint8.

    κ F + (1 − κ)(1 − a) B = α F' + (1 − α) B with α = 1 − (1 − κ)(1 − a) and F' = κ F / α: black where only the
    shadow is, the object's own colour where it covers.

    Args:
        coverage: (h, w) κ of the object, 0 to 1.
        colour: (h, w, 3) F, grey levels.
        shade: (h, w) a, α of the shadow behind it.
    """
    alpha = np.rint(255 * (1 - (1 - coverage) * (1 - shade)))
    straight = 255 * (coverage / np.maximum(alpha, 1))[..., None] * colour
    return np.dstack([np.clip(np.rint(straight), 0, 255), alpha]).astype(np.uint8)
