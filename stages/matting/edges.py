"""Coverage and colours at an object's edge, where hair, motion and the lens mix it with what is behind it.

A trimap marks the unknown pixels (`trimap`), each is unmixed by itself (`unmixing`), the matting Laplacian makes the
result smooth where the picture is (`laplacian`), and the colours are solved again for that coverage.
"""

import cv2
import numpy as np

from rasura.manifests.images import RGB, Mask
from rasura.stages.imaging.filters import Floats, box_mean
from rasura.stages.imaging.morphology import compute_distance_inside, compute_distance_to, dilate
from rasura.stages.matting.extrapolation import extrapolate_nearest, extrapolate_smoothly
from rasura.stages.matting.laplacian import solve_alpha
from rasura.stages.matting.trimap import find_definite_foreground, find_non_shadow_changes, find_unknown_bands
from rasura.stages.matting.unmixing import sample_foreground_colours, select_best_fit, solve_shading

DISTINCT_CONTRAST = 3 * 10.0**2  # grey levels²: contrast of F and g at which a pixel's coverage has half its weight
MISFIT = 20.0  # grey levels²: error of the three equations at which that weight is halved again
MIN_SQUARED_COVERAGE = 0.005  # added to κ² where the colour is solved: faint pixels keep the colour next to them
STRAND_VARIANCE = 0.006  # of coverage within 9 × 9 px, from which on it is strands
GLOW_COVERAGE = 0.15  # of what is smooth beside an object, from which on it is the object
NEGLIGIBLE_COVERAGE = 0.04  # below it there is nothing, and above 1 minus it there is nothing but the object


def estimate_edge_layers(
    source: RGB, clean: RGB, object_mask: Mask, foreground_mask: Mask, shade: Floats, noise: float, reach: int = 12
) -> tuple[Floats, Floats, Floats]:
    """Estimate the object's coverage, its own colours without the background's, and the shadow behind its edge.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        object_mask, foreground_mask: (h, w) bool, M_o and M_fg.
        shade: (h, w) float32, alpha of the shadow where nothing covers it.
        noise: sigma of the 5 × 5 mean difference, grey levels.
        reach: px around M_o within which hair and blur are detected.

    Returns:
        (h, w) float32 κ: 1 on the object, fractional at its edge, 0 beyond; (h, w, 3) float32 F, where κ > 0;
        (h, w) float32 shade, filled in behind the edge.
    """
    coverage, colour, behind = object_mask.astype(np.float32), source.astype(np.float32), shade.copy()
    ys, xs = np.flatnonzero(object_mask.any(1)), np.flatnonzero(object_mask.any(0))
    margin = reach + 12
    window = np.s_[max(0, ys[0] - margin) : ys[-1] + margin, max(0, xs[0] - margin) : xs[-1] + margin]
    coverage[window], colour[window], behind[window] = _estimate_window(
        source[window], clean[window], object_mask[window], foreground_mask[window], shade[window], noise, reach
    )
    return coverage, colour, behind


def _estimate_window(
    source: RGB, clean: RGB, object_mask: Mask, foreground_mask: Mask, shade: Floats, noise: float, reach: int
) -> tuple[Floats, Floats, Floats]:
    """Estimate the edge layers of the part of a picture that holds the object."""
    observed, base = source.astype(np.float32), clean.astype(np.float32)
    unshadowlike = find_non_shadow_changes(source, clean, noise)
    edge, strands, width = find_unknown_bands(observed - base, object_mask, foreground_mask, unshadowlike, reach)
    definite = find_definite_foreground(object_mask, edge)
    covered = edge | strands | object_mask
    unknown = (edge | strands) & ~definite
    coverage, colour = object_mask.astype(np.float32), observed.copy()
    if not unknown.any():
        return coverage, colour, shade
    behind = np.where(covered, extrapolate_smoothly(shade[..., None], ~covered, 3.0)[..., 0], shade)
    prior = compute_coverage_prior(object_mask, width)[unknown]
    pixels, background, dark = observed[unknown], base[unknown], behind[unknown]
    colours = [candidate[unknown] for candidate in sample_foreground_colours(observed, definite)]
    kappa, light, error, foreground = select_best_fit(pixels, background, dark, colours, prior)

    contrast = ((foreground - light[:, None] * background) ** 2).sum(1)
    trust = np.zeros_like(coverage)
    trust[unknown] = contrast / (contrast + DISTINCT_CONTRAST) / (1 + error / MISFIT)
    coverage[unknown] = kappa
    coverage = snap_coverage(solve_alpha(coverage, trust, unknown, observed))
    coverage = remove_specks(np.where(strands & find_glow(coverage, object_mask), 0, coverage), object_mask)

    kappa = coverage[unknown]
    light = solve_shading(pixels - kappa[:, None] * foreground, background, 1 - kappa, 1 - dark)
    residual = pixels - kappa[:, None] * foreground - ((1 - kappa) * light)[:, None] * background
    solved = foreground + (kappa / (kappa * kappa + MIN_SQUARED_COVERAGE))[:, None] * residual
    solved[kappa == 1] = pixels[kappa == 1]
    colour[unknown] = np.clip(solved, 0, 255)
    filled = behind.copy()
    filled[unknown] = np.clip(1 - light, 0, 1)
    return coverage, colour, np.where(covered & (coverage > 0), filled, shade).astype(np.float32)


def compute_coverage_prior(object_mask: Mask, width: Floats) -> Floats:
    """Return (h, w) float32: the coverage of an edge of `width` px (h, w), a ramp across the mask's outline.

    Examples:
        >>> mask = np.array([[True, True, True, False, False, False]])
        >>> compute_coverage_prior(mask, np.full((1, 6), 4, np.float32)).tolist()
        [[1.0, 0.875, 0.625, 0.375, 0.125, 0.0]]
    """
    signed = np.where(object_mask, compute_distance_inside(object_mask) - 0.5, 0.5 - compute_distance_to(object_mask))
    return np.asarray(np.clip(0.5 + signed / np.maximum(width, 1.5), 0, 1), np.float32)


def snap_coverage(coverage: Floats) -> Floats:
    """Return coverage with negligible values set to 0 and nearly full ones to 1.

    Examples:
        >>> snap_coverage(np.array([0.03, 0.5, 0.97], np.float32)).tolist()
        [0.0, 0.5, 1.0]
    """
    full = np.where(coverage > 1 - NEGLIGIBLE_COVERAGE, 1, coverage)
    return np.where(coverage < NEGLIGIBLE_COVERAGE, 0, full).astype(np.float32)


def find_glow(coverage: Floats, object_mask: Mask) -> Mask:
    """Return (h, w) bool, True where coverage beside the object is no strand of it but light that it throws.

    Strands vary from pixel to pixel; a reflection, which may have the object's colour too, does not. Reflections are
    below what they mirror; beside and above it, only what is faint is glow.
    """
    variance = box_mean((coverage - box_mean(coverage, 9)) ** 2, 9)
    rows = np.broadcast_to(np.arange(len(object_mask), dtype=np.float32)[:, None], object_mask.shape)
    object_row = extrapolate_nearest(rows[..., None], object_mask)[..., 0]
    below = rows - object_row > 0.6 * compute_distance_to(object_mask)
    glow: Mask = np.logical_and(variance < STRAND_VARIANCE, below | (coverage < GLOW_COVERAGE))
    return glow


def remove_specks(coverage: Floats, object_mask: Mask) -> Floats:
    """Return `coverage` without the specks that are not connected to the object."""
    _, labels = cv2.connectedComponents((coverage > 0.08).astype(np.uint8), connectivity=8)
    attached = np.zeros(int(labels.max()) + 1, bool)
    attached[np.unique(labels[object_mask & (labels > 0)])] = True
    near = dilate(attached[labels] & (labels > 0), 1)
    return np.where(near, coverage, 0).astype(np.float32)
