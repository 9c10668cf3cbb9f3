"""Layers of a pair's difference: alpha (what is covered or darkened), colour, and light that was added.

`compose` puts them back together, here and wherever they are pasted. Symbols: c source, g clean (the bare background),
F the object's own colour, κ its coverage, a the alpha of the shadow, α that of a layer, L added light.
"""

import numpy as np
import numpy.typing as npt

from rasura.manifests.images import RGB, Mask
from rasura.stages.imaging.filters import Floats, blur, box_mean
from rasura.stages.imaging.morphology import compute_distance_to

RGBA = npt.NDArray[np.uint8]

DARK_PRIOR = 3 * 4.0**2  # grey levels², over three channels: where g² is smaller, alpha is drawn to its neighbours'


def compose(foreground: RGBA, light: RGB | None, background: RGB, left: int = 0, top: int = 0) -> RGB:
    """Compose α F + (1 − α) B + L, clipped to the frame and to white.

    Args:
        foreground: (h, w, 4) uint8, F and α, straight alpha.
        light: (h, w, 3) uint8, L; None: no light.
        background: (H, W, 3) uint8, B.
        left, top: px, where the foreground's corner is in the background.

    Returns:
        (H, W, 3) uint8.

    Examples:
        >>> foreground = np.array([[[100, 0, 0, 255], [0, 0, 0, 51]]], np.uint8)
        >>> compose(foreground, None, np.full((1, 3, 3), 200, np.uint8), left=1).tolist()
        [[[200, 200, 200], [100, 0, 0], [160, 160, 160]]]
    """
    out = background.copy()
    height, width = background.shape[:2]
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(width, left + foreground.shape[1]), min(height, top + foreground.shape[0])
    if x1 <= x0 or y1 <= y0:
        return out
    window = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    part = foreground[window].astype(np.float32)
    alpha = part[..., 3:] / 255
    blend = alpha * part[..., :3] + (1 - alpha) * background[y0:y1, x0:x1]
    if light is not None:
        blend = np.minimum(blend + light[window], 255)
    out[y0:y1, x0:x1] = np.rint(blend).astype(np.uint8)
    return out


def estimate_grain(values: Floats, unchanged: Mask) -> float:
    """Return sigma of what is finer than 5 px in (h, w) `values` on unchanged pixels, by their median deviation.

    0 where fewer than 2 % of the pixels are unchanged.
    """
    if unchanged.mean() <= 0.02:
        return 0.0
    return 1.4826 * float(np.median(np.abs(values - box_mean(values, 5))[unchanged]))


def denoise(values: Floats, variance: Floats, inside: Floats, side: int = 7) -> Floats:
    """Remove what does not stand out of noise of a variance (Wiener filter, side × side).

    A layer that is pasted elsewhere must not carry this camera's grain along.

    Args:
        values, variance: (h, w).
        inside: (h, w) weight of the pixels that count, 0 outside.

    Returns:
        (h, w) float32.
    """
    weight = box_mean(inside, side) + 1e-6
    mean = box_mean(values * inside, side) / weight
    signal = np.maximum(box_mean(values * values * inside, side) / weight - mean * mean, 0)
    # Twice the noise: codec noise is patchy, and one patch in two would pass a threshold at its mean.
    gain = np.maximum(signal - 2 * variance, 0) / (signal + 1e-9)
    return np.asarray(mean + gain * (values - mean), np.float32)


def estimate_shadow_alpha(source: RGB, clean: RGB, area: Mask, unchanged: Mask) -> Floats:
    """Estimate the shadow's alpha by least squares over channels of c = (1 − a) g: a = Σ g (g − c) / Σ g².

    Where the background is nearly black the ratio is unreliable, and a is drawn to the mean of its neighbours.

    Args:
        source, clean: (h, w, 3) uint8.
        area: (h, w) bool, where a is estimated. Values outside are meaningless.
        unchanged: (h, w) bool, where nothing changed but noise.

    Returns:
        (h, w) float32 in [0, 1].
    """
    observed, base = source.astype(np.float32), clean.astype(np.float32)
    missing = np.asarray((base * (base - observed)).sum(2), np.float32)
    light = np.asarray((base * base).sum(2), np.float32) + DARK_PRIOR
    inside = area.astype(np.float32)
    around = blur(missing * inside, 2.0) / (blur((light - DARK_PRIOR) * inside, 2.0) + DARK_PRIOR)
    alpha = (missing + DARK_PRIOR * around) / light
    # multiplied by √light, that is in grey levels, the noise is about the same everywhere
    sigma = estimate_grain(missing / np.sqrt(light), unchanged)
    alpha = denoise(alpha, np.asarray(sigma * sigma / light, np.float32), inside)
    return np.clip(alpha, 0, 1).astype(np.float32)


def compute_tail_weight(alpha: Floats, area: Mask, width: int, faint: float = 0.06) -> Floats:
    """Compute the weight of a shadow's alpha: 1 on M_fg, falling to 0 over `width` px outside it.

    A soft shadow goes on below the height of the noise, where M_fg ends; cut there it would show a step. Alpha above
    `faint` outside is no tail of a shadow but something else, and gets 0.

    Args:
        alpha: (h, w) float32, of the shadow.
        area: (h, w) bool, M_fg.
        width: px.

    Returns:
        (h, w) float32.

    Examples:
        >>> area = np.array([[True, False, False, False]])
        >>> compute_tail_weight(np.zeros((1, 4), np.float32), area, 1).tolist()
        [[1.0, 0.75, 0.0, 0.0]]
    """
    if width <= 0 or area.all() or not area.any():
        return area.astype(np.float32)
    ramp = np.clip(1 - (compute_distance_to(area) / (width + 1)) ** 2, 0, 1)
    tail = ramp * np.clip(2 - alpha / faint, 0, 1)
    return np.where(area, 1, tail).astype(np.float32)


def estimate_added_light(source: RGB, clean: RGB, alpha: Floats, area: Mask, unchanged: Mask) -> Floats:
    """Estimate L, by which `source` is brighter than (1 − α) clean: bounced light and reflections.

    α being the least-squares one, this is what brightened, and the tint of what darkened; never the share of the
    shadow that a darker α would leave over. Noise is removed as from the shadow.

    Args:
        source, clean: (h, w, 3) uint8.
        alpha: (h, w) of the effects.
        area, unchanged: (h, w) bool, as in `estimate_shadow_alpha`.

    Returns:
        (h, w, 3) float32, grey levels.
    """
    over = source.astype(np.float32) - (1 - alpha[..., None]) * clean
    inside = area.astype(np.float32)
    noise = source.astype(np.float32) - clean
    for channel in range(3):
        sigma = estimate_grain(np.ascontiguousarray(noise[..., channel]), unchanged)
        variance = np.full(alpha.shape, sigma * sigma, np.float32)
        over[..., channel] = denoise(np.ascontiguousarray(over[..., channel]), variance, inside)
    return np.where(area[..., None], np.maximum(over, 0), 0).astype(np.float32)


def measure_light_energy(light: RGB, source: RGB, clean: RGB, effects: Mask) -> float:
    """Return the energy of the additive layer where the pair only darkens, as a share of the darkening's energy.

    Only darkened: the 5 × 5 mean of source − clean is negative in all channels, by more than 2 levels in one.
    """
    change = box_mean(source.astype(np.float32) - clean, 5)
    dark = effects & (change.max(2) < 0) & (change.min(2) < -2)
    darkening = float((change[dark] ** 2).sum(dtype=np.float64))
    return float((light[dark].astype(np.float64) ** 2).sum()) / darkening if darkening else 0.0


def merge_layers(coverage: Floats, colour: Floats, shade: Floats) -> RGBA:
    """Merge the object and the shadow behind it into one straight-alpha layer.

    κ F + (1 − κ)(1 − a) B = α F' + (1 − α) B with α = 1 − (1 − κ)(1 − a) and F' = κ F / α: black where only the
    shadow is, the object's own colour where it covers.

    Args:
        coverage: (h, w) κ of the object, 0 to 1.
        colour: (h, w, 3) F, grey levels.
        shade: (h, w) a, the alpha of the shadow behind it.

    Returns:
        (h, w, 4) uint8.

    Examples:
        >>> coverage, shade = np.array([[1.0, 0.5, 0.0]], np.float32), np.array([[0.0, 0.0, 0.4]], np.float32)
        >>> merge_layers(coverage, np.full((1, 3, 3), 90, np.float32), shade)[..., [0, 3]].tolist()
        [[[90, 255], [90, 128], [0, 102]]]
    """
    alpha = np.rint(255 * (1 - (1 - coverage) * (1 - shade)))
    straight = 255 * (coverage / np.maximum(alpha, 1))[..., None] * colour
    return np.dstack([np.clip(np.rint(straight), 0, 255), alpha]).astype(np.uint8)
