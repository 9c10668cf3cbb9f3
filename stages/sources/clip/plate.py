"""Arithmetic of a fixed camera: shake, drift of exposure, changed pixels, and the plate (the empty scene).

Pictures are (h, w, 3) uint8 or float32 on 0-255; motions are in pixels of the arrays that come in.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

TILES = 4
MIN_CORRELATION = 0.4  # a tile where an object stands, or without texture, does not follow the camera
QUIET = 0.005  # share of changed pixels up to which two frames show the same scene
MIN_TRUSTED = 4  # tiles; fewer do not determine the camera's motion


def compute_features(picture: Array) -> Array:
    """Compute (h, w) float32 that does not depend on exposure: high-passed log brightness, slightly smoothed."""
    log = np.log(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY).astype(np.float32) + 4)
    return cv2.GaussianBlur(log - cv2.GaussianBlur(log, (0, 0), 8), (0, 0), 1)


def _measure_tile_shift(reference: Array, moved: Array, x: int, y: int, steps: int) -> tuple[float, float, float]:
    """Estimate the shift (dx, dy) of one tile by robust Lucas-Kanade steps, and the correlation it reaches."""
    height, width = reference.shape
    gx = cv2.Sobel(reference, cv2.CV_32F, 1, 0, scale=1 / 8)
    gy = cv2.Sobel(reference, cv2.CV_32F, 0, 1, scale=1 / 8)
    shift = np.zeros(2)
    patch = reference
    step = 0
    while True:
        matrix = np.array([[1, 0, x + shift[0]], [0, 1, y + shift[1]]], np.float32)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        patch = cv2.warpAffine(moved, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        if step >= steps:
            break
        error = patch - reference
        sigma = 1.4826 * float(np.median(np.abs(error.ravel()[::7]))) + 1e-4
        weight = 1 / (1 + (error / (3 * sigma)) ** 2)  # Cauchy: an object in the tile must not pull it
        cross = float((weight * gx * gy).sum())
        normal = np.array([[float((weight * gx * gx).sum()), cross], [cross, float((weight * gy * gy).sum())]])
        if np.linalg.eigvalsh(normal)[0] < 1e-3 * height * width / 5000:
            return 0.0, 0.0, 0.0
        update = np.linalg.solve(normal, [float((weight * gx * error).sum()), float((weight * gy * error).sum())])
        shift -= update
        if np.abs(shift).max() > min(height, width) / 2:
            return 0.0, 0.0, 0.0
        if np.abs(update).max() < 0.01:
            steps = 0  # converged: once more, for the correlation
        step += 1
    a, b = reference - reference.mean(), patch - patch.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float(shift[0]), float(shift[1]), float((a * b).sum()) / norm if norm > 1e-6 else 0.0


def measure_tile_shifts(reference: Array, moved: Array, steps: int = 4) -> Array:
    """Measure the motion of `moved` against `reference` (feature maps of one size), tile by tile.

    Returns:
        (n, 5): tile centre x, y; shift dx, dy (where the tile of `reference` is in `moved`); correlation.
        Phase correlation finds false peaks of 100 px on bare asphalt; gradient steps with a check do not.
    """
    height, width = reference.shape
    th, tw = height // TILES, width // TILES
    rows = []
    for y in range(0, th * TILES, th):
        for x in range(0, tw * TILES, tw):
            shift = _measure_tile_shift(np.ascontiguousarray(reference[y : y + th, x : x + tw]), moved, x, y, steps)
            rows.append((x + tw / 2, y + th / 2, *shift))
    return np.array(rows)


def estimate_camera_motion(tiles: Array) -> tuple[float, Array]:
    """Estimate the camera motion from tile shifts: (median length in px, (2, 3) affine reference -> moved).

    Tiles that an object covers are left out by their correlation, the rest by distance from the median.
    Infinite, and the identity, when fewer than `MIN_TRUSTED` tiles can be followed.
    """
    good = tiles[tiles[:, 4] > MIN_CORRELATION]
    matrix = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    if len(good) < MIN_TRUSTED:
        return float("inf"), matrix
    shift = good[:, 2:4]
    middle = np.median(shift, axis=0)
    distance = np.hypot(*(shift - middle).T)
    near = distance <= max(1.0, 3 * float(np.median(distance)))
    matrix[:, 2] = middle
    if near.sum() >= TILES * TILES // 2:  # enough of the frame for slight rotation and zoom
        centres = np.column_stack([good[near, :2], np.ones(near.sum())])
        spread = np.linalg.lstsq(centres, shift[near], rcond=None)[0].T
        matrix = spread + np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    return float(np.median(np.hypot(*shift[near].T))), matrix


def warp(picture: Array, matrix: Array) -> Array:
    """Resample `picture` in the reference's grid: output(p) = picture(matrix p). Same shape and type."""
    height, width = picture.shape[:2]
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def scale_affine(matrix: Array, factor: float) -> Array:
    """Return the affine of a picture for the same picture `factor` times as large.

    Examples:
        >>> scale_affine(np.array([[1.0, 0, 3], [0, 1, -2]]), 2.0).tolist()
        [[1.0, 0.0, 6.0], [0.0, 1.0, -4.0]]
    """
    out = matrix.copy()
    out[:, 2] *= factor
    return out


def fit_tone(picture: Array, target: Array, keep: Array | None = None, limit: int = 20_000) -> Array:
    """Fit the exposure, (3, 2): per channel a, b with a * picture + b close to `target`, robust against changes.

    A gain alone loses 3-4 dB where a white car makes the camera darken the frame by half.

    Args:
        keep: (h, w) bool, limits the fit. limit: at most about so many pixels are used, on a fixed grid.
    """
    use = slice(None) if keep is None else keep.ravel()
    x, y = picture.reshape(-1, 3)[use].astype(np.float64), target.reshape(-1, 3)[use].astype(np.float64)
    step = max(1, len(x) // limit)
    x, y = x[::step], y[::step]
    if len(x) < 16:
        return np.array([[1.0, 0.0]] * 3)
    lines = []
    for channel in range(3):
        g, i = x[:, channel], y[:, channel]
        a, b = float(np.median((i + 1) / (g + 1))), 0.0
        for _ in range(4):
            error = i - a * g - b
            sigma = 1.4826 * float(np.median(np.abs(error))) + 0.5
            w = 1 / (1 + (error / (2.5 * sigma)) ** 2)
            total = w.sum()
            gm, im = float((w * g).sum() / total), float((w * i).sum() / total)
            variance = float((w * (g - gm) ** 2).sum() / total)
            if variance > 4:  # a flat channel fixes no slope
                a = float((w * (g - gm) * (i - im)).sum() / total) / variance
            b = im - a * gm
        lines.append((a, b))
    return np.array(lines)


def apply_tone(picture: Array, lines: Array) -> Array:
    """Apply the exposure of `fit_tone`; return (h, w, 3) float32 in 0-255."""
    toned: Array = picture * lines[:, 0].astype(np.float32) + lines[:, 1].astype(np.float32)
    return np.clip(toned, 0, 255)


def find_changes(picture: Array, empty: Array, floor: float = 12.0, sigma: float = 1.5) -> Array:
    """Find, (h, w) bool, where two aligned, tone-matched pictures differ by more than the noise and `floor` levels."""
    blurred = [cv2.GaussianBlur(p.astype(np.float32), (0, 0), sigma) for p in (picture, empty)]
    red, green, blue = cv2.split(cv2.absdiff(*blurred))
    difference = cv2.max(cv2.max(red, green), blue)
    limit = max(floor, 4 * 1.4826 * float(np.median(difference)))
    return cv2.morphologyEx((difference > limit).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0


def find_difference(picture: Array, plate: Array) -> Array:
    """Find, (h, w) bool, where a picture differs from the plate, after exposure. Both are small, about 192 px."""
    return find_changes(picture, apply_tone(plate, fit_tone(plate, picture, limit=2500)), sigma=1.0)


def measure_activity(picture: Array, plate: Array) -> float:
    """Measure the share of the picture that `find_difference` finds."""
    return float(find_difference(picture, plate).mean())


def _refine_plate(frames: Sequence[Array], plate: Array, count: int, turns: int) -> tuple[Array, Array]:
    """Replace `plate` by that of the `count` frames nearest to it, again and again until they are the same ones."""
    chosen: tuple[int, ...] = ()
    scores = np.zeros(len(frames))
    for _ in range(turns):
        scores = np.array([measure_activity(frame, plate) for frame in frames])
        quietest = tuple(sorted(np.argsort(scores, kind="stable")[:count].tolist()))
        if quietest == chosen:
            break
        chosen = quietest
        first = frames[chosen[0]]
        matched = [apply_tone(frames[k], fit_tone(frames[k], first, limit=2500)) for k in chosen]
        plate = np.median(np.stack(matched), axis=0).astype(np.float32)
    return plate, scores


def compute_edges(picture: Array) -> Array:
    """Compute the slope of a picture's brightness, smoothed by 1 px: (h, w) float32."""
    grey = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 1).mean(axis=2)
    slope: Array = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    return slope


def remove_ghosts(plate: Array, other: Array, least: float = 0.004) -> Array | None:
    """Replace regions of `plate` by `other` where the contour of their difference is an edge in `plate` only.

    Somebody who stands still for most of the clip is in the plate, and the empty frames then look occupied. But the
    outline of what differs is an edge of the picture that has the object, and crosses plain scene in the other.

    Returns:
        (h, w, 3) float32, or None when no region of at least `least` of the picture is to be exchanged.
    """
    other = apply_tone(other, fit_tone(other, plate, limit=2500))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(find_changes(plate, other).astype(np.uint8))
    plate_edges, other_edges = compute_edges(plate), compute_edges(other)
    out = plate.copy()
    kernel = np.ones((5, 5), np.uint8)
    for k in range(1, count):
        if stats[k, cv2.CC_STAT_AREA] < least * labels.size:
            continue
        region = (labels == k).astype(np.uint8)
        band = cv2.morphologyEx(region, cv2.MORPH_GRADIENT, kernel) > 0
        if plate_edges[band].mean() > 1.15 * other_edges[band].mean():
            grown = cv2.dilate(region, kernel) > 0
            out[grown] = other[grown]
    return None if np.array_equal(out, plate) else out


def find_plate(frames: Sequence[Array], share: float = 0.12, turns: int = 5) -> tuple[Array, Array]:
    """Find the empty scene in aligned frames: start from the median, keep the quietest, take theirs, repeat.

    The median alone fails when somebody stays for more than half of the clip; so does the repetition when it is
    always in the same place. Therefore scenes that other frames agree on are held against the plate.

    Returns:
        plate (h, w, 3) float32, activity of every frame against it (n,).
    """
    count = min(len(frames), max(3, round(share * len(frames))))
    support = max(3, round(0.05 * len(frames)))
    plate, scores = _refine_plate(frames, np.median(np.stack(frames), axis=0).astype(np.float32), count, turns)
    unlike = scores.copy()
    for _ in range(4):
        seed = int(np.argmax(unlike))
        if unlike[seed] <= QUIET:
            break
        other, other_scores = _refine_plate(frames, frames[seed].astype(np.float32), min(len(frames), support), 2)
        unlike = np.minimum(unlike, other_scores)
        unlike[seed] = 0
        better = remove_ghosts(plate, other) if (other_scores <= QUIET).sum() >= support else None
        if better is not None:
            cleaned, cleaned_scores = _refine_plate(frames, better, count, turns)
            if (cleaned_scores <= QUIET).sum() >= support:  # a mixture is no scene: frames must look like it
                plate, scores = cleaned, cleaned_scores
    return plate, scores
