"""Fine detail of a pair's clean picture: what was painted over, blurred, sharpened or compressed more has another.

A network that learns from such a target learns the blur and the blocks. Energies are squares of a filter's response,
averaged over `WINDOW` px; ratios are binary logarithms of amplitudes, so that -1 is half the contrast.
"""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import RGB, Mask
from rasura.stages.imaging.comparison import find_unchanged_pixels
from rasura.stages.imaging.filters import Floats, blur, box_mean, convert_to_grey
from rasura.stages.imaging.morphology import dilate, erode

FLOOR = 0.02  # squared grey levels, below the rounding of 8 bits: two flat areas are equal
WINDOW = 7  # px
FINE_SIGMA, COARSE_SIGMA = 0.7, 1.5
"""Gaussians whose difference passes details of 3 to 8 px: a move by half a pixel softens only finer ones."""
STRONGEST = 0.1  # share of the unchanged pixels whose details are compared for sharpness: there noise plays no part
BLOCK = 8  # px, of JPEG
DARK, BRIGHT = 10, 240  # levels beyond which details are clipped
LARGEST_STEP = 8.0  # levels of difference up to which two places show the same, also where most of a picture changed
LEAST_PIXELS = 500  # that have to be unchanged
SURROUNDINGS = 0.15  # of the longer side: how far around the object details are compared
IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
"""Kernel that passes noise and no slopes. Source: Immerkaer, "Fast Noise Variance Estimation", CVIU 64 (1996)."""


class PairDetail(NamedTuple):
    """What gt has of the details of input, where nothing changed; None where too little is unchanged.

    Attributes:
        sharpness: log2 of the contrast of gt's strongest details over that of input's: negative is blurred.
        grain: the same of the details at a typical pixel: negative is denoised.
        blocks: log2 of how far steps on a grid of 8 px exceed others in gt, less the same of input: compressed more.
    """

    sharpness: float | None
    grain: float | None
    blocks: float | None


class FillDetail(NamedTuple):
    """What gt shows where the object was, beside what it shows around.

    Attributes:
        detail: 0 within the range of the surroundings (their 10th to 90th percentile); below, log2 of the contrast
            over its lower end; above, over its upper end.
        flat: share of pixels equal to their four neighbours, less the same of the surroundings.
    """

    detail: float
    flat: float


def compute_fine_energy(grey: Floats, side: int = WINDOW) -> Floats:
    """Compute the energy of noise and of the finest details of (h, w) grey levels, averaged over side × side px."""
    return box_mean(cv2.filter2D(grey, cv2.CV_32F, IMMERKAER, borderType=cv2.BORDER_REFLECT_101) ** 2, side)


def compute_band_energy(grey: Floats, side: int = WINDOW) -> Floats:
    """Compute the energy of details of 3 to 8 px of (h, w) grey levels, averaged over side × side px."""
    return box_mean((blur(grey, FINE_SIGMA) - blur(grey, COARSE_SIGMA)) ** 2, side)


def compare_contrasts(first: npt.ArrayLike, second: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return log2 of the contrast of the first energies over that of the second.

    Examples:
        >>> float(compare_contrasts(16.06, 4.0).round(2))
        1.0
    """
    above, below = np.asarray(first, np.float64), np.asarray(second, np.float64)
    return np.asarray(0.5 * np.log2((above + FLOOR) / (below + FLOOR)))


def measure_pair_detail(source: RGB, clean: RGB, dx: float, dy: float) -> PairDetail:
    """Measure the details of gt by those of input, where both show the same.

    Args:
        source: (h, w, 3) uint8, input.
        clean: (h, w, 3) uint8, gt in input's exposure, before it is moved: moving it by fractions of a pixel would
            soften it.
        dx, dy: px by which it is to be moved; here it is moved by whole ones.
    """
    first = convert_to_grey(source)
    second = np.roll(convert_to_grey(clean), (round(dy), round(dx)), (0, 1))
    delta = blur(first, 2) - blur(second, 2)
    same = find_unchanged_pixels(first, second) & ~dilate(np.abs(delta - np.median(delta)) > LARGEST_STEP, 9)
    margin = max(abs(round(dx)), abs(round(dy))) + WINDOW
    same[:margin], same[-margin:], same[:, :margin], same[:, -margin:] = False, False, False, False
    for grey in (first, second):
        level = blur(grey, 2)
        same &= (level > DARK) & (level < BRIGHT)
    if int(same.sum()) < LEAST_PIXELS:
        return PairDetail(None, None, None)
    before, after = compute_band_energy(first)[same], compute_band_energy(second)[same]
    joint = before.astype(np.float64) * after
    strong = joint >= np.quantile(joint, 1 - STRONGEST)
    sharpness = compare_contrasts(after[strong].mean(dtype=np.float64), before[strong].mean(dtype=np.float64))
    grain = np.median(compare_contrasts(after, before))
    blocks = measure_blocks(second, same) - measure_blocks(first, same)
    return PairDetail(float(sharpness), float(grain), blocks)


def measure_blocks(grey: Floats, area: Mask) -> float:
    """Measure how far steps on one line in eight exceed those on the others: the grid of JPEG, wherever it begins.

    Args:
        grey: (h, w) levels.
        area: (h, w) bool, where steps count.

    Returns:
        log2 of the ratio; of the two directions the lower one, since a picture may have stripes in one.
    """
    ratios = []
    for values, inside in ((grey, area), (grey.T, area.T)):
        steps, counted = np.abs(np.diff(values, axis=0)), inside[1:]
        means = np.zeros(BLOCK)
        for phase in range(BLOCK):
            chosen = steps[phase::BLOCK][counted[phase::BLOCK]]
            means[phase] = chosen.mean(dtype=np.float64) if chosen.size else 0.0
        ratios.append(float(np.log2((means.max() + FLOOR) / (np.median(means) + FLOOR))))
    return min(ratios)


def find_flat_pixels(picture: RGB) -> Mask:
    """Return (h, w) bool, where a pixel of (h, w, 3) equals its neighbours above, below, left and right.

    Examples:
        >>> find_flat_pixels(np.zeros((2, 2, 3), np.uint8)).all()
        np.True_
    """
    flat = np.ones(picture.shape[:2], bool)
    down = (picture[1:] == picture[:-1]).all(axis=2)
    across = (picture[:, 1:] == picture[:, :-1]).all(axis=2)
    flat[:-1] &= down
    flat[1:] &= down
    flat[:, :-1] &= across
    flat[:, 1:] &= across
    return flat


def measure_fill(clean: RGB, foreground_mask: Mask, object_mask: Mask) -> FillDetail:
    """Measure what gt shows in the place of the object, by what it shows around M_fg.

    Both are of one picture, so that registration has softened them alike.

    Args:
        clean: (h, w, 3) uint8, gt.
        foreground_mask, object_mask: (h, w) bool.
    """
    core = erode(object_mask, 3)
    core = core if core.sum() >= 60 else object_mask
    area = foreground_mask | object_mask
    distance = cv2.distanceTransform((~area).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    around = (distance > 4) & (distance <= 4 + SURROUNDINGS * max(area.shape))
    flat = find_flat_pixels(clean)
    share = float(flat[core].mean()) if core.any() else 0.0
    if int(around.sum()) < LEAST_PIXELS or not core.any():
        return FillDetail(0.0, share)
    grey = convert_to_grey(clean)
    fine, band = compute_fine_energy(grey, 5), compute_band_energy(grey, 5)
    low = min(float(compare_contrasts(np.median(e[core]), np.quantile(e[around], 0.1))) for e in (fine, band))
    high = float(compare_contrasts(np.median(fine[core]), np.quantile(fine[around], 0.9)))
    return FillDetail(min(low, 0.0) + max(high, 0.0), share - float(flat[around].mean()))
