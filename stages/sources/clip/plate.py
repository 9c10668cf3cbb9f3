"""Arithmetic of a fixed camera: how far it shook, how its exposure drifted, what changed, what the empty scene is.

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
MIN_TRUSTED = 4  # tiles; fewer say nothing about the camera


def features(picture: Array) -> Array:
    """(h, w) float32 that does not see exposure: high-passed log brightness, slightly smoothed."""
    log = np.log(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY).astype(np.float32) + 4)
    return cv2.GaussianBlur(log - cv2.GaussianBlur(log, (0, 0), 8), (0, 0), 1)


def _tile_shift(reference: Array, moved: Array, x: int, y: int, steps: int) -> tuple[float, float, float]:
    """Shift (dx, dy) of one tile by robust Lucas-Kanade steps, and the correlation it reaches."""
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
            steps = 0  # converged: one more look, for the correlation
        step += 1
    a, b = reference - reference.mean(), patch - patch.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float(shift[0]), float(shift[1]), float((a * b).sum()) / norm if norm > 1e-6 else 0.0


def tile_shifts(reference: Array, moved: Array, steps: int = 4) -> Array:
    """Motion of `moved` against `reference` (feature maps of one size), tile by tile.

    Returns:
        (n, 5): tile centre x, y; shift dx, dy (where the tile of `reference` lies in `moved`); correlation.
        Phase correlation finds false peaks of 100 px on bare asphalt; gradient steps with a check do not.
    """
    height, width = reference.shape
    th, tw = height // TILES, width // TILES
    rows = []
    for y in range(0, th * TILES, th):
        for x in range(0, tw * TILES, tw):
            found = _tile_shift(np.ascontiguousarray(reference[y : y + th, x : x + tw]), moved, x, y, steps)
            rows.append((x + tw / 2, y + th / 2, *found))
    return np.array(rows)


def camera_motion(tiles: Array) -> tuple[float, Array]:
    """Camera motion out of tile shifts: (median length of the shifts in px, (2, 3) affine reference -> moved).

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
    """`picture` seen from the reference: output(p) = picture(matrix p). Same shape and type."""
    height, width = picture.shape[:2]
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def scaled(matrix: Array, factor: float) -> Array:
    """An affine of a picture for the same picture `factor` times as large."""
    out = matrix.copy()
    out[:, 2] *= factor
    return out


def fit_tone(picture: Array, wanted: Array, keep: Array | None = None, limit: int = 20_000) -> Array:
    """Exposure: (3, 2) per channel a, b with a * picture + b close to `wanted`, robust against changed pixels.

    A gain alone leaves 3-4 dB on the table where a white car makes the camera darken the frame by half.
    `keep` (h, w) bool limits the fit; at most about `limit` pixels are looked at, on a fixed grid.
    """
    use = slice(None) if keep is None else keep.ravel()
    x, y = picture.reshape(-1, 3)[use].astype(np.float64), wanted.reshape(-1, 3)[use].astype(np.float64)
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
    """(h, w, 3) float32 in 0-255."""
    toned: Array = picture * lines[:, 0].astype(np.float32) + lines[:, 1].astype(np.float32)
    return np.clip(toned, 0, 255)


def changed(picture: Array, empty: Array, floor: float = 12.0, sigma: float = 1.5) -> Array:
    """(h, w) bool: where two aligned, tone-matched pictures differ by more than the noise and `floor` levels."""
    blurred = [cv2.GaussianBlur(p.astype(np.float32), (0, 0), sigma) for p in (picture, empty)]
    red, green, blue = cv2.split(cv2.absdiff(*blurred))
    difference = cv2.max(cv2.max(red, green), blue)
    limit = max(floor, 4 * 1.4826 * float(np.median(difference)))
    return cv2.morphologyEx((difference > limit).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0


def difference(picture: Array, plate: Array) -> Array:
    """(h, w) bool: where the picture differs from the plate, after exposure. Pictures are small, about 192 px."""
    return changed(picture, apply_tone(plate, fit_tone(plate, picture, limit=2500)), sigma=1.0)


def activity(picture: Array, plate: Array) -> float:
    """Share of the picture that `difference` finds."""
    return float(difference(picture, plate).mean())


def _settle(frames: Sequence[Array], plate: Array, count: int, turns: int) -> tuple[Array, Array]:
    """Plate of the quietest `count` frames against `plate`, again and again until they are the same ones."""
    chosen: tuple[int, ...] = ()
    scores = np.zeros(len(frames))
    for _ in range(turns):
        scores = np.array([activity(frame, plate) for frame in frames])
        quietest = tuple(sorted(np.argsort(scores, kind="stable")[:count].tolist()))
        if quietest == chosen:
            break
        chosen = quietest
        first = frames[chosen[0]]
        matched = [apply_tone(frames[k], fit_tone(frames[k], first, limit=2500)) for k in chosen]
        plate = np.median(np.stack(matched), axis=0).astype(np.float32)
    return plate, scores


def edges(picture: Array) -> Array:
    """(h, w) float32: slope of the brightness of a picture that was smoothed by 1 px."""
    grey = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 1).mean(axis=2)
    slope: Array = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    return slope


def without_ghosts(plate: Array, other: Array, least: float = 0.004) -> Array | None:
    """`plate` with regions of `other` where the contour of their difference is an edge in `plate` only.

    Somebody who stands still for most of the clip is in the plate, and the empty frames then look occupied. But the
    outline of what differs is an edge of the picture that has the object, and crosses plain scene in the other.

    Returns:
        (h, w, 3) float32, or None when no region of at least `least` of the picture is to be exchanged.
    """
    other = apply_tone(other, fit_tone(other, plate, limit=2500))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(changed(plate, other).astype(np.uint8))

    mine, theirs = edges(plate), edges(other)
    out = plate.copy()
    kernel = np.ones((5, 5), np.uint8)
    for k in range(1, count):
        if stats[k, cv2.CC_STAT_AREA] < least * labels.size:
            continue
        region = (labels == k).astype(np.uint8)
        band = cv2.morphologyEx(region, cv2.MORPH_GRADIENT, kernel) > 0
        if mine[band].mean() > 1.15 * theirs[band].mean():
            grown = cv2.dilate(region, kernel) > 0
            out[grown] = other[grown]
    return None if np.array_equal(out, plate) else out


def find_plate(frames: Sequence[Array], share: float = 0.12, turns: int = 5) -> tuple[Array, Array]:
    """The empty scene out of aligned frames: start from the median, keep the quietest, take theirs, repeat.

    The median alone fails when somebody stays for more than half of the clip; so does the repetition when it is
    always in the same place. Therefore scenes that other frames agree on are held against the plate.

    Returns:
        plate (h, w, 3) float32, activity of every frame against it (n,).
    """
    count = min(len(frames), max(3, round(share * len(frames))))
    support = max(3, round(0.05 * len(frames)))
    plate, scores = _settle(frames, np.median(np.stack(frames), axis=0).astype(np.float32), count, turns)
    unlike = scores.copy()
    for _ in range(4):
        seed = int(np.argmax(unlike))
        if unlike[seed] <= QUIET:
            break
        other, other_scores = _settle(frames, frames[seed].astype(np.float32), min(len(frames), support), 2)
        unlike = np.minimum(unlike, other_scores)
        unlike[seed] = 0
        better = without_ghosts(plate, other) if (other_scores <= QUIET).sum() >= support else None
        if better is not None:
            cleaned, cleaned_scores = _settle(frames, better, count, turns)
            if (cleaned_scores <= QUIET).sum() >= support:  # a mixture is no scene: frames must look like it
                plate, scores = cleaned, cleaned_scores
    return plate, scores


def psnr(a: Array, b: Array, keep: Array) -> float:
    """PSNR in dB of two pictures on the pixels `keep` (h, w); 99 where they are equal."""
    error = float(np.mean((a[keep].astype(np.float64) - b[keep]) ** 2))
    return min(99.0, 10 * float(np.log10(255**2 / max(error, 1e-9))))
