"""Zoom and turn of a pair: what a refocused lens or a nudged tripod adds to the translation that `motion` estimates.

Each tile of the pictures moves by its own translation; a similarity is fitted to them and then refined on all unchanged
pixels. A pair whose pixels are equal where nothing changed has none.
"""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import RGB
from rasura.stages.imaging.comparison import find_unchanged_pixels
from rasura.stages.imaging.filters import Floats, blur, box_mean
from rasura.stages.registration.exposure import estimate_modal_gain
from rasura.stages.registration.motion import (
    IDENTITY_BONUS,
    estimate_global_shifts,
    measure_tiles,
    resize_to_working_size,
)
from rasura.stages.registration.resampling import fill_beyond_border, translate

Doubles = npt.NDArray[np.float64]

LEAST_TILES = 5  # that a similarity is fitted to
INLIER_LIMIT = 0.5  # px from the fit, beyond which a tile shows something that moved by itself
LARGEST_ZOOM, LARGEST_TURN = 0.1, 5.0  # share, degrees: beyond them it is another picture
BORDER_SHARE = 0.03  # of the shorter side that is left out where residuals are compared: pixels without data


class Similarity(NamedTuple):
    """What lays gt on input, about the picture's centre: p' = (1 + zoom) · R(turn) · p + (dx, dy).

    Attributes:
        zoom: by which gt has to grow, a share.
        turn: by which it has to turn clockwise, degrees.
        dx, dy: by which it then moves right and down, px.
    """

    zoom: float = 0.0
    turn: float = 0.0
    dx: float = 0.0
    dy: float = 0.0


NO_MOTION = Similarity()


def build_matrix(similarity: Similarity, width: int, height: int) -> Doubles:
    """Build the (2, 3) matrix that maps a pixel of gt to its place in input.

    Examples:
        >>> (build_matrix(Similarity(zoom=0.5, dx=2.0), 3, 3) + 0.0).tolist()
        [[1.5, 0.0, 1.5], [0.0, 1.5, -0.5]]
    """
    angle = np.deg2rad(similarity.turn)
    a, b = (1 + similarity.zoom) * np.cos(angle), (1 + similarity.zoom) * np.sin(angle)
    cx, cy = (width - 1) / 2, (height - 1) / 2
    return np.array(
        [[a, -b, cx - a * cx + b * cy + similarity.dx], [b, a, cy - b * cx - a * cy + similarity.dy]], np.float64
    )


def read_matrix(matrix: Doubles, width: int, height: int) -> Similarity:
    """Read the similarity nearest to a (2, 3) matrix: the inverse of `build_matrix`."""
    a, b = (matrix[0, 0] + matrix[1, 1]) / 2, (matrix[1, 0] - matrix[0, 1]) / 2
    centre = np.array([(width - 1) / 2, (height - 1) / 2, 1.0])
    dx, dy = matrix @ centre - centre[:2]
    return Similarity(float(np.hypot(a, b)) - 1, float(np.rad2deg(np.arctan2(b, a))), float(dx), float(dy))


def fit_similarity(tiles: Doubles, width: int, height: int) -> Similarity | None:
    """Fit a similarity to the translations of tiles, without those that moved by themselves.

    Args:
        tiles: (n, 4) x, y, dx, dy of `measure_tiles`.
        width, height: of the picture.

    Returns:
        None where fewer than `LEAST_TILES` agree.
    """
    x, y = tiles[:, 0] - (width - 1) / 2, tiles[:, 1] - (height - 1) / 2
    zeros, ones = np.zeros(len(tiles)), np.ones(len(tiles))
    # dx = s·x − t·y + tx, dy = t·x + s·y + ty, with s = zoom and t the turn in radians, both small
    design = np.concatenate([np.stack([x, -y, ones, zeros], 1), np.stack([y, x, zeros, ones], 1)])
    values = np.concatenate([tiles[:, 2], tiles[:, 3]])
    good = np.ones(len(tiles), bool)
    for limit in (np.inf, 3 * INLIER_LIMIT, INLIER_LIMIT):
        if good.sum() < LEAST_TILES:
            return None
        chosen = np.concatenate([good, good])
        solution = np.linalg.lstsq(design[chosen], values[chosen], rcond=None)[0]
        left = (values - design @ solution).reshape(2, -1)
        good = np.hypot(*(left - np.median(left[:, good], axis=1, keepdims=True))) <= limit
    zoom, turn, dx, dy = (float(value) for value in solution)
    return Similarity(zoom, float(np.rad2deg(turn)), dx, dy)


def warp(picture: npt.NDArray[np.generic], similarity: Similarity) -> npt.NDArray[np.generic]:
    """Return a picture of any type under a similarity (Lanczos), mirrored at the border."""
    height, width = picture.shape[:2]
    matrix = build_matrix(similarity, width, height)
    return np.asarray(
        cv2.warpAffine(
            np.ascontiguousarray(picture),
            matrix,
            (width, height),
            flags=cv2.INTER_LANCZOS4,
            borderMode=cv2.BORDER_REFLECT_101,
        )
    )


def warp_and_fill(picture: RGB, similarity: Similarity, fill: RGB) -> RGB:
    """Return `picture` under a similarity; pixels without data are taken from `fill`, as `translate_and_fill` does.

    Args:
        picture, fill: (h, w, 3) uint8.
    """
    if similarity == NO_MOTION:
        return picture
    height, width = picture.shape[:2]
    inverse = cv2.invertAffineTransform(build_matrix(similarity, width, height))
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    x = inverse[0, 0] * columns + inverse[0, 1] * rows + inverse[0, 2]
    y = inverse[1, 0] * columns + inverse[1, 1] * rows + inverse[1, 2]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    reach = int(np.ceil(max(np.abs(x - columns).max(), np.abs(y - rows).max())))
    return fill_beyond_border(np.asarray(warp(picture, similarity), np.uint8), inside, fill, reach)


def refine_similarity(fixed: Floats, moving: Floats, start: Similarity) -> Similarity | None:
    """Refine a similarity on all unchanged pixels by the enhanced correlation coefficient, see `maximize_ecc`.

    OpenCV fits an affine map; its nearest similarity is returned. None where it does not converge.
    """
    height, width = fixed.shape
    unchanged = find_unchanged_pixels(fixed, np.asarray(warp(moving, start), np.float32))
    if unchanged.mean() <= 0.05:
        return None
    matrix = cv2.invertAffineTransform(build_matrix(start, width, height)).astype(np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-5)
    try:
        _, matrix = cv2.findTransformECC(  # type: ignore[assignment]
            blur(fixed, 1.0),
            blur(moving, 1.0),
            matrix,
            cv2.MOTION_AFFINE,
            criteria,
            unchanged.astype(np.uint8) * 255,
            1,
        )
    except cv2.error:  # singular: no texture, or the two have nothing in common
        return None
    if not np.isfinite(matrix).all():
        return None
    return read_matrix(np.asarray(cv2.invertAffineTransform(matrix), np.float64), width, height)


def estimate_similarity(source: RGB, clean: RGB) -> Similarity:
    """Estimate the similarity that lays `clean` on `source`; `NO_MOTION` where standing still explains as much.

    The candidates are compared by the mean |difference|, cut at 30 grey levels, of pixels that are unchanged under one
    of them, and have to beat standing still by `IDENTITY_BONUS`, as in `estimate_registration`.

    Args:
        source, clean: (h, w, 3) uint8 of one size.
    """
    fixed, moving, scale = resize_to_working_size(source, clean)
    height, width = fixed.shape
    moving = moving * float(estimate_modal_gain(box_mean(fixed, 5), box_mean(moving, 5)))
    shifts, _ = estimate_global_shifts(fixed, moving)
    start = shifts.get("ecc", shifts["phase"])
    tiles = measure_tiles(fixed, translate(moving, *start).astype(np.float32))
    candidates = [NO_MOTION]
    fitted = fit_similarity(tiles, width, height) if len(tiles) >= LEAST_TILES else None
    if fitted is not None:
        candidates.append(fitted._replace(dx=fitted.dx + start[0], dy=fitted.dy + start[1]))
    if min(fixed.shape) > 16:
        refined = refine_similarity(fixed, moving, candidates[-1])
        candidates += [refined] if refined is not None else []
    candidates = [c for c in candidates if abs(c.zoom) <= LARGEST_ZOOM and abs(c.turn) <= LARGEST_TURN]
    best = _choose(fixed, moving, candidates)
    return best._replace(dx=best.dx / scale, dy=best.dy / scale)


def _choose(fixed: Floats, moving: Floats, candidates: list[Similarity]) -> Similarity:
    """Return the candidate with the smallest residual; the first is standing still."""
    if len(candidates) == 1:
        return candidates[0]
    smooth = blur(fixed, 1.0)
    moved = [blur(warp(moving, candidate), 1.0) for candidate in candidates]
    evaluated = np.zeros(fixed.shape, bool)
    for picture in moved:
        evaluated |= find_unchanged_pixels(smooth, picture)
    margin = max(2, int(BORDER_SHARE * min(fixed.shape)))
    evaluated[:margin], evaluated[-margin:], evaluated[:, :margin], evaluated[:, -margin:] = False, False, False, False
    if not evaluated.any():
        return candidates[0]
    residuals = [float(np.minimum(np.abs(smooth - picture)[evaluated], 30).mean()) for picture in moved]
    residuals[0] -= IDENTITY_BONUS
    return candidates[int(np.argmin(residuals))]
