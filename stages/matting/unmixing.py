"""Unmixing of edge pixels into the object's colour, its coverage and the shaded background behind it.

Natural matting has to estimate both colours of a mixed pixel; a pair shows one of them: the background g, bare. So
c = κ F + (1 − κ)(1 − a) g has only the object's colour F to be sampled, from the object next to it, and the shadow a,
whose value a little farther out is measured. What remains is three equations with two unknowns at each pixel.
"""

import numpy as np

from rasura.manifests.images import Mask
from rasura.stages.imaging.filters import Floats, blur
from rasura.stages.imaging.morphology import erode
from rasura.stages.matting.extrapolation import extrapolate_nearest, extrapolate_smoothly

SHADE_WEIGHT = 0.15  # weight of the extrapolated shadow against the pixel's own three equations
PRIOR_WEIGHT = 3 * 5.0**2  # grey levels²: contrast of F and g at which the mask's outline weighs as much as the pixel


def sample_foreground_colours(observed: Floats, definite: Mask) -> list[Floats]:
    """Return candidates for the object's colour at each pixel, (h, w, 3) each.

    Those of the nearest definite pixel, means over two sizes, and the nearest one from deeper inside.

    Args:
        observed: (h, w, 3) grey levels.
        definite: (h, w) bool, definite foreground.
    """
    candidates = [
        extrapolate_nearest(blur(observed, 0.7), definite),
        extrapolate_smoothly(observed, definite, 2.0),
        extrapolate_smoothly(observed, definite, 6.0),
    ]
    deep = erode(definite, 3)
    return [*candidates, extrapolate_nearest(blur(observed, 1.0), deep)] if deep.any() else candidates


def unmix(
    observed: Floats, background: Floats, shade: Floats, colour: Floats, prior: Floats
) -> tuple[Floats, Floats, Floats]:
    """Solve c = κ F + (1 − κ) s g for κ and s by least squares over the channels, with s drawn to 1 − a.

    Linear in u = κ and v = (1 − κ) s: |c − u F − v g|² + λ |g|² (v − (1 − u)(1 − a))² + PRIOR_WEIGHT (u − prior)².

    Args:
        observed, background, colour: (n, 3) c, g, F.
        shade: (n,) a.
        prior: (n,) the coverage that is assumed where F and g are alike.

    Returns:
        (n,) κ in [0, 1]; (n,) s; (n,) mean squared error a channel.

    Examples:
        >>> background, colour = np.full((1, 3), 100, np.float32), np.array([[200, 0, 0]], np.float32)
        >>> none, half = np.zeros(1, np.float32), np.full(1, 0.5, np.float32)
        >>> coverage, light, error = unmix((background + colour) / 2, background, none, colour, half)
        >>> print(coverage.round(3), light.round(3), error.round(3))
        [0.5] [1.] [0.]
    """
    lit = 1 - shade
    tie = SHADE_WEIGHT * (background * background).sum(1) + 1
    ff, gg, fg = (colour * colour).sum(1), (background * background).sum(1), (colour * background).sum(1)
    cf, cg = (observed * colour).sum(1), (observed * background).sum(1)
    # normal equations of (u, v)
    a11, a12, a22 = ff + tie * lit * lit + PRIOR_WEIGHT, fg + tie * lit, gg + tie
    b1, b2 = cf + tie * lit * lit + PRIOR_WEIGHT * prior, cg + tie * lit
    coverage = np.clip((b1 * a22 - b2 * a12) / np.maximum(a11 * a22 - a12 * a12, 1e-3), 0, 1)
    second = (b2 - a12 * coverage) / a22
    rest = 1 - coverage
    light = np.where(rest > 0.05, np.clip(second / np.maximum(rest, 0.05), 0, 1.2), lit)
    error = ((observed - coverage[:, None] * colour - (rest * light)[:, None] * background) ** 2).mean(1)
    return coverage.astype(np.float32), light.astype(np.float32), error.astype(np.float32)


def select_best_fit(
    observed: Floats, background: Floats, shade: Floats, colours: list[Floats], prior: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Unmix with each candidate colour and take, at each pixel, the one with the smallest error.

    Returns:
        (n,) κ; (n,) s; (n,) error; (n, 3) F.
    """
    fits = [unmix(observed, background, shade, colour, prior) for colour in colours]
    best = np.argmin([error for _, _, error in fits], axis=0)
    each = np.arange(len(best))
    coverage, light, error = (np.stack([fit[k] for fit in fits])[best, each] for k in range(3))
    return coverage, light, error, np.stack(colours)[best, each]


def solve_shading(rest: Floats, background: Floats, share: Floats, lit: Floats) -> Floats:
    """Solve rest = share · s · g for s by least squares over the channels, drawn to `lit` where the share is small.

    Args:
        rest: (n, 3) c − κ F.
        background: (n, 3) g.
        share: (n,) 1 − κ.
        lit: (n,) 1 − a.

    Returns:
        (n,) s, 0 to 1.2.
    """
    power = share * share * (background * background).sum(1)
    tie = SHADE_WEIGHT * (background * background).sum(1) * (1 - share) + 1
    shading = (share * (rest * background).sum(1) + tie * lit) / (power + tie)
    return np.asarray(np.clip(shading, 0, 1.2), np.float32)
