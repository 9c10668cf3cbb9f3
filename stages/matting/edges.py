"""Coverage and colours at an object's edge, where hair, motion and the lens mix it with what lies behind.

Natural matting has to guess both colours of a mixed pixel; a pair shows one of them: the background g, bare. So
c = κ F + (1 − κ)(1 − a) g has only the object's colour F to be guessed, from the object next to it, and the shadow a,
whose value a little farther out is known. The rest is three equations for two numbers, a pixel each.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import RGB, Mask
from rasura.stages.matting.layers import Floats
from rasura.stages.pair import blur, box_mean, dilate, disc

Ints = npt.NDArray[np.int64]

SHADE_TRUST = 0.15  # weight of the extrapolated shadow against the pixel's own three equations
PRIOR = 3 * 5.0**2  # grey levels²: contrast of F and g at which the mask's own outline weighs as much as the pixel
DISTINCT = 3 * 10.0**2  # grey levels²: contrast at which a pixel's coverage is half believed
MISFIT = 20.0  # grey levels²: error of the three equations at which it is half believed again
FLAT = 20.0  # grey levels²: variance of colours within 3 × 3 px that is noise
LEAST_COVER = 0.005  # added to κ² where the colour is solved for: faint pixels keep the colour next to them
OUTLINE, WIDE, HALF = 2, 3.5, 0.6  # px beside M_o where an edge is steepest; px of a wide one; share of it a side
STRANDS = 0.006  # variance of coverage within 9 × 9 px from which on it is strands
GLOW = 0.15  # coverage of what hangs smoothly beside an object from which on it is the object
CLEAR = 0.04  # coverage below which there is nothing, and above 1 minus which there is nothing but the object


def eroded(mask: Mask, radius: int) -> Mask:
    """`mask` less `radius` px (a circle); the picture's border is no edge."""
    if radius <= 0:
        return mask.copy()
    kernel = disc(radius)
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), radius, radius, radius, radius, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.erode(padded, kernel), np.uint8)[radius:-radius, radius:-radius] > 0


def spread(values: Floats, known: Mask, sigma: float) -> Floats:
    """(h, w, c) `values` carried from `known` pixels to all others: a normalised blur, and where it does not reach,
    the mean of ever larger squares."""
    shrink = 2 if sigma >= 4 and min(known.shape) >= 16 else 1
    stack = np.dstack([values * known[..., None], known.astype(np.float32)])
    if shrink > 1:
        stack = _halved(stack)
    levels: list[npt.NDArray[Any]] = [blur(stack, sigma / shrink).reshape(stack.shape)]
    while (levels[-1][..., -1] < 1e-3).any() and max(levels[-1].shape[:2]) > 1:
        levels.append(_halved(levels[-1]))
    out = levels[-1][..., :-1] / (levels[-1][..., -1:] + 1e-9)
    for level in reversed(levels[:-1]):
        height, width = int(level.shape[0]), int(level.shape[1])
        grown = np.asarray(cv2.resize(out, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        wide = grown.reshape(height, width, -1)
        weight = level[..., -1:]
        out = np.where(weight > 1e-3, level[..., :-1] / (weight + 1e-9), wide)
    height, width = int(known.shape[0]), int(known.shape[1])
    full = out if out.shape[:2] == known.shape else cv2.resize(out, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(full.reshape(values.shape), np.float32)


def _halved(stack: Floats) -> Floats:
    height, width = int(stack.shape[0]), int(stack.shape[1])
    small = cv2.resize(stack, (max(1, (width + 1) // 2), max(1, (height + 1) // 2)), interpolation=cv2.INTER_AREA)
    return np.asarray(small.reshape(*small.shape[:2], stack.shape[2]), np.float32)


def nearest_values(values: Floats, known: Mask) -> Floats:
    """(h, w, c) `values` with each pixel that is not `known` taking those of the nearest one that is."""
    empty = (~known).astype(np.uint8)
    _, cells = cv2.distanceTransformWithLabels(empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    table = np.zeros((int(cells.max()) + 1, values.shape[2]), np.float32)
    table[cells[known]] = values[known]
    return np.asarray(table[cells], np.float32)


def edge_width(change: Floats, object_mask: Mask, reach: int) -> Floats:
    """(h, w) float32, px: over how many pixels the object's edge nearby runs from nothing to all; 1 if it is sharp.

    Contrast over steepest slope of the difference to the background, both the largest within `reach`: only an edge
    that is soft everywhere along that stretch is wide. The background's own texture is not in the difference.
    """
    smooth = blur(change, 0.8)
    slope = cv2.Sobel(smooth, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(smooth, cv2.CV_32F, 0, 1) ** 2
    steep = np.sqrt(np.asarray(slope, np.float32).sum(2)) / 8
    edge = dilate(object_mask, OUTLINE) & ~eroded(object_mask, OUTLINE)
    kernel = disc(reach)
    most = np.asarray(cv2.dilate(np.where(edge, steep, 0), kernel), np.float32)
    contrast = np.asarray(cv2.dilate(np.sqrt((smooth * smooth).sum(2)) * object_mask, kernel), np.float32)
    width = np.clip(contrast / np.maximum(most, 1e-3), 1, 2 * reach)
    return np.where(most > 0, width, 1).astype(np.float32)


def unexplained(source: RGB, clean: RGB, noise: float) -> Mask:
    """(h, w) True where no shadow makes `clean` into `source`: brighter, or of another colour."""
    seen, base = source.astype(np.float32), clean.astype(np.float32)
    share = (seen * base).sum(2) / np.maximum((base * base).sum(2), 1)
    left = np.abs(box_mean(seen - np.clip(share, 0, 1)[..., None] * base, 3)).max(2)
    return np.asarray(left > max(6.0, 3 * noise))


def mixed(seen: Floats, behind: Floats, shade: Floats, colour: Floats, prior: Floats) -> tuple[Floats, Floats, Floats]:
    """Least squares of c = κ F + (1 − κ) s g over the channels, with s drawn to 1 − a.

    Linear in u = κ and v = (1 − κ) s: |c − u F − v g|² + λ |g|² (v − (1 − u)(1 − a))² + PRIOR (u − prior)².

    Args:
        seen, behind, colour: (n, 3) c, g, F.
        shade, prior: (n,) a, and the coverage to lean on where F and g are alike.

    Returns:
        (n,) κ in [0, 1]; (n,) s; (n,) mean squared error a channel.
    """
    lit = 1 - shade
    tie = SHADE_TRUST * (behind * behind).sum(1) + 1
    ff, gg, fg = (colour * colour).sum(1), (behind * behind).sum(1), (colour * behind).sum(1)
    cf, cg = (seen * colour).sum(1), (seen * behind).sum(1)
    # normal equations of (u, v)
    a11, a12, a22 = ff + tie * lit * lit + PRIOR, fg + tie * lit, gg + tie
    b1, b2 = cf + tie * lit * lit + PRIOR * prior, cg + tie * lit
    coverage = np.clip((b1 * a22 - b2 * a12) / np.maximum(a11 * a22 - a12 * a12, 1e-3), 0, 1)
    second = (b2 - a12 * coverage) / a22
    left = 1 - coverage
    light = np.where(left > 0.05, np.clip(second / np.maximum(left, 0.05), 0, 1.2), lit)
    error = ((seen - coverage[:, None] * colour - (left * light)[:, None] * behind) ** 2).mean(1)
    return coverage.astype(np.float32), light.astype(np.float32), error.astype(np.float32)


def matting_laplacian(guide: Floats, open_: Mask, floor: float) -> tuple[Ints, Floats]:
    """Levin's matting Laplacian of the 3 × 3 windows that hold an open pixel: in each, α is linear in the colour.

    Args:
        guide: (h, w, 3), grey levels.
        open_: (h, w) bool.
        floor: grey levels²; differences of the guide below it are noise.

    Returns:
        (n, 9) int64, each window's pixels as flat indices; (n, 9, 9) float32: what is left of α in a window after
        its best linear model.
    """
    width = open_.shape[1]
    centres = dilate(open_, 1)
    centres[[0, -1]] = False
    centres[:, [0, -1]] = False
    steps = np.array([dy * width + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
    windows = np.flatnonzero(centres)[:, None] + steps
    colours = guide.reshape(-1, 3)[windows]
    colours = colours - colours.mean(1, keepdims=True)
    spread_of = colours.transpose(0, 2, 1) @ colours + 9 * floor * np.eye(3, dtype=np.float32)
    explained = colours @ np.linalg.solve(spread_of, colours.transpose(0, 2, 1))
    return windows, np.asarray(np.eye(9, dtype=np.float32) - 1 / 9 - explained, np.float32)


def settled(alpha: Floats, trust: Floats, open_: Mask, guide: Floats, weight: float = 0.1, steps: int = 15) -> Floats:
    """α that minimises Σ trust (x − α)² + weight · xᵀ L x over the `open_` pixels, the others held.

    By conjugate gradients.

    Args:
        alpha: (h, w), what the pixels say by themselves, and the held values.
        trust: (h, w), how far they are believed.
        guide: (h, w, 3) of the matting Laplacian L.
    """
    if min(alpha.shape) < 3:
        return alpha
    windows, left_over = matting_laplacian(guide, open_, FLAT)
    free, believed = open_.ravel().astype(np.float32), trust.ravel() + 1e-3

    def product(values: Floats) -> Floats:
        parts = (left_over @ values[windows][..., None])[..., 0]
        return np.bincount(windows.ravel(), parts.ravel(), values.size).astype(np.float32)

    x = alpha.ravel().copy()
    rest = -weight * free * product(x)
    scale = 1 / (believed + 6 * weight)  # Jacobi: L's diagonal is about 9 windows times 2 / 3
    step = scale * rest
    power = first = float(rest @ step)
    for _ in range(steps):
        if power <= 1e-5 * first:
            break
        pushed = free * (believed * step + weight * product(step))
        length = power / float(step @ pushed)
        x += length * step
        rest -= length * pushed
        fresh = float(rest @ (scale * rest))
        step = scale * rest + (fresh / power) * step
        power = fresh
    return np.clip(x, 0, 1).reshape(alpha.shape).astype(np.float32)


def bands(
    change: Floats, object_mask: Mask, foreground_mask: Mask, odd: Mask, reach: int, rim: int = 2
) -> tuple[Mask, Mask, Floats]:
    """Where coverage is open: the `rim` px on both sides of the outline, all of a wide edge, and what hair may be.

    Args:
        change: (h, w, 3) source − clean.
        odd: (h, w) bool, what no shadow explains.
        reach: px around the object's outline beyond which nothing is open.

    Returns:
        (h, w) bool: open for certain; (h, w) bool: open if it turns out to be strands; (h, w) float32 px: the
        width of the edge.
    """
    width = edge_width(change, object_mask, reach)
    # 3 px is what lens and mask make of any edge: only more is motion or blur
    half = np.where(width > WIDE, HALF * width + 1, rim)
    outside = depth_outside(object_mask)
    ring = np.where(object_mask, depth_inside(object_mask), outside)
    certain = (ring <= half) & (object_mask | foreground_mask)
    strands = foreground_mask & ~object_mask & odd & (outside <= reach) & ~certain
    return certain, strands, width


def _framed(mask: Mask) -> npt.NDArray[np.uint8]:
    """`mask` with a border of its own values: the picture's end is no edge."""
    return np.asarray(cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE), np.uint8)


def depth_inside(mask: Mask) -> Floats:
    """(h, w) float32, px from each pixel of `mask` to the nearest one outside; 0 outside."""
    return np.asarray(cv2.distanceTransform(_framed(mask), cv2.DIST_L2, 5), np.float32)[1:-1, 1:-1]


def depth_outside(mask: Mask) -> Floats:
    """(h, w) float32, px from each pixel outside `mask` to the nearest one inside; 0 inside."""
    return np.asarray(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5), np.float32)


def sure_part(object_mask: Mask, certain: Mask) -> Mask:
    """What is object beyond doubt; of something as thin as a wire, its middle."""
    sure = object_mask & ~certain
    if sure.any() or not object_mask.any():
        return sure
    inside = depth_inside(object_mask)
    return np.logical_and(object_mask, inside >= 0.7 * float(inside.max()))


def colours_nearby(seen: Floats, sure: Mask) -> list[Floats]:
    """What colour the object may have at each pixel, (h, w, 3) each: the nearest sure pixel's, means over two sizes,
    and the nearest one's from deeper inside."""
    found = [nearest_values(blur(seen, 0.7), sure), spread(seen, sure, 2.0), spread(seen, sure, 6.0)]
    deep = eroded(sure, 3)
    return [*found, nearest_values(blur(seen, 1.0), deep)] if deep.any() else found


def edge_layers(
    source: RGB, clean: RGB, object_mask: Mask, foreground_mask: Mask, shade: Floats, noise: float, reach: int = 12
) -> tuple[Floats, Floats, Floats]:
    """The object's coverage, its own colours without the background's, and the shadow behind its edge.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        object_mask, foreground_mask: (h, w) bool, M_o and M_fg.
        shade: (h, w) float32, α of the shadow where nothing covers it.
        noise: sigma of the 5 × 5 mean difference, grey levels.
        reach: px around M_o within which hair and blur are looked for.

    Returns:
        (h, w) float32 κ: 1 on the object, fractional at its edge, 0 beyond; (h, w, 3) float32 F, where κ > 0;
        (h, w) float32 shade, filled in behind the edge.
    """
    coverage, colour, behind = object_mask.astype(np.float32), source.astype(np.float32), shade.copy()
    ys, xs = np.flatnonzero(object_mask.any(1)), np.flatnonzero(object_mask.any(0))
    margin = reach + 12
    window = np.s_[max(0, ys[0] - margin) : ys[-1] + margin, max(0, xs[0] - margin) : xs[-1] + margin]
    coverage[window], colour[window], behind[window] = _edge(
        source[window], clean[window], object_mask[window], foreground_mask[window], shade[window], noise, reach
    )
    return coverage, colour, behind


def glow(coverage: Floats, object_mask: Mask) -> Mask:
    """(h, w) True where coverage beside the object is no strand of it but light that it throws.

    Strands vary from pixel to pixel; a reflection, which may have the object's colour too, does not. Reflections lie
    below what they show; beside and above it, only what is faint is glow.
    """
    fine = box_mean((coverage - box_mean(coverage, 9)) ** 2, 9)
    _, cells = cv2.distanceTransformWithLabels(
        (~object_mask).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    row_of = np.zeros(int(cells.max()) + 1, np.float32)
    rows = np.broadcast_to(np.arange(len(object_mask), dtype=np.float32)[:, None], object_mask.shape)
    row_of[cells[object_mask]] = rows[object_mask]
    below = rows - row_of[cells] > 0.6 * depth_outside(object_mask)
    light: Mask = np.logical_and(fine < STRANDS, below | (coverage < GLOW))
    return light


def _edge(
    source: RGB, clean: RGB, object_mask: Mask, foreground_mask: Mask, shade: Floats, noise: float, reach: int
) -> tuple[Floats, Floats, Floats]:
    """`edge_layers` of the part of a picture that holds the object."""
    seen, base = source.astype(np.float32), clean.astype(np.float32)
    odd = unexplained(source, clean, noise)
    certain, strands, width = bands(seen - base, object_mask, foreground_mask, odd, reach)
    sure = sure_part(object_mask, certain)
    covered = certain | strands | object_mask
    open_ = (certain | strands) & ~sure
    coverage, colour = object_mask.astype(np.float32), seen.copy()
    if not open_.any():
        return coverage, colour, shade
    behind = np.where(covered, spread(shade[..., None], ~covered, 3.0)[..., 0], shade)
    signed = np.where(object_mask, depth_inside(object_mask) - 0.5, 0.5 - depth_outside(object_mask))
    prior = np.asarray(np.clip(0.5 + signed / np.maximum(width, 1.5), 0, 1)[open_], np.float32)
    picture, ground, dark = seen[open_], base[open_], behind[open_]
    guesses = [guess[open_] for guess in colours_nearby(seen, sure)]
    fits = [mixed(picture, ground, dark, guess, prior) for guess in guesses]
    best = np.argmin([error for _, _, error in fits], axis=0)
    each = np.arange(len(best))
    kappa, light, error = (np.stack([fit[k] for fit in fits])[best, each] for k in range(3))
    own = np.stack(guesses)[best, each]
    contrast = ((own - light[:, None] * ground) ** 2).sum(1)
    trust = np.zeros_like(coverage)
    trust[open_] = contrast / (contrast + DISTINCT) / (1 + error / MISFIT)
    coverage[open_] = kappa
    coverage = settled(coverage, trust, open_, seen)
    coverage = np.where(coverage < CLEAR, 0, np.where(coverage > 1 - CLEAR, 1, coverage)).astype(np.float32)
    coverage = attached(np.where(strands & glow(coverage, object_mask), 0, coverage), object_mask)
    kappa = coverage[open_]
    light = shading(picture - kappa[:, None] * own, ground, 1 - kappa, 1 - dark)
    left = picture - kappa[:, None] * own - ((1 - kappa) * light)[:, None] * ground
    solved = own + (kappa / (kappa * kappa + LEAST_COVER))[:, None] * left
    solved[kappa == 1] = picture[kappa == 1]
    colour[open_] = np.clip(solved, 0, 255)
    filled = behind.copy()
    filled[open_] = np.clip(1 - light, 0, 1)
    return coverage, colour, np.where(covered & (coverage > 0), filled, shade).astype(np.float32)


def shading(rest: Floats, behind: Floats, left: Floats, lit: Floats) -> Floats:
    """(n,) s of rest = left · s · g, least squares over the channels, drawn to `lit` where little of g is left."""
    power = left * left * (behind * behind).sum(1)
    tie = SHADE_TRUST * (behind * behind).sum(1) * (1 - left) + 1
    found = (left * (rest * behind).sum(1) + tie * lit) / (power + tie)
    return np.asarray(np.clip(found, 0, 1.2), np.float32)


def attached(coverage: Floats, object_mask: Mask) -> Floats:
    """`coverage` without the specks that do not hang on the object."""
    _, labels = cv2.connectedComponents((coverage > 0.08).astype(np.uint8), connectivity=8)
    mine = np.zeros(int(labels.max()) + 1, bool)
    mine[np.unique(labels[object_mask & (labels > 0)])] = True
    near = dilate(mine[labels] & (labels > 0), 1)
    return np.where(near, coverage, 0).astype(np.float32)
