"""Quality of a photograph: what speaks against training on it, measured on its pixels alone.

Blur, noise and blocks are measured at the picture's own size, as a trainer's crops show them. Limits, and how often
good photographs pass them: docs/curation.md.
"""

from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import RGB
from rasura.stages.imaging.detail import FLOOR, compute_fine_energy, find_flat_pixels, measure_blocks
from rasura.stages.imaging.filters import Floats, blur, box_mean, channel_max, convert_to_grey

STRONGEST = 0.05  # share of the pixels with the strongest edges, at which sharpness is read
NOISE_PART = 0.1  # quantile of the local energies of noise: where the picture is flat
LEAST_NOISE = 0.3  # levels: below, windows are flat because they are clipped or drawn
DARK, BRIGHT = 4, 251  # levels at which details are lost
BORDER_SPREAD, BORDER_SHARE = 4.0, 0.25  # levels within which a line is of one colour; largest part of a side
GLYPH = (0.012, 0.12)  # of the shorter side: heights of letters that are looked for
GLYPH_STEP, GLYPH_SPREAD = 24.0, 22.0  # levels: a letter's step to its ground; spread of its own colour
OVERLAY_SIDE = 640  # px of the longer side at which letters are looked for
STROKE_COLOURS = 4  # colours in which letters are looked for, of light and of dark ones
MAX_HEIGHTS, WORD_GAP = 0.75, 1.8  # logarithm of the ratio of heights in one line; a space, in heights
LEAST_GLYPHS = 7  # in one line
LINE_SHARE, MOST_LETTERS = 0.4, 200  # of all such blobs that are in the line: of textures it is less; blobs looked at

Letters = npt.NDArray[np.float64]


class Quality(NamedTuple):
    """What is measured on one photograph.

    Attributes:
        sharpness: log2 of the contrast of details of 2 to 4 px over that of 5 to 12 px at the strongest edges.
        brightness: mean of the luma, 0 to 1.
        clipped: share of the pixels that are black or white in all channels.
        contrast: of the luma, 95th less 5th percentile, 0 to 1.
        noise: sigma in the flattest tenth, grey levels.
        blocks: log2 of how far steps on a grid of 8 px exceed others.
        information: entropy of the luma, bits, 0 to 8.
        flat: share of the pixels that equal their four neighbours.
        colour: colourfulness of Hasler and Süsstrunk; 0 is grey.
        aspect: longer side over shorter side.
        side: shorter side without borders, px.
        border: share of the picture that is a border of one colour.
        overlay: letters of one colour in the longest line of text.
    """

    sharpness: float
    brightness: float
    clipped: float
    contrast: float
    noise: float
    blocks: float
    information: float
    flat: float
    colour: float
    aspect: float
    side: float
    border: float
    overlay: float


def measure_sharpness(grey: Floats) -> float:
    """Measure the contrast of fine details over that of coarser ones, where edges are strongest.

    A ratio at one place, so that a dim or low-contrast picture is no blurred one.
    """
    fine = (grey - blur(grey, 0.8)) ** 2
    coarse = (blur(grey, 1.6) - blur(grey, 4.0)) ** 2
    fine, coarse = box_mean(fine, 9), box_mean(coarse, 9)
    strong = coarse >= np.quantile(coarse, 1 - STRONGEST)
    return float(0.5 * np.log2((fine[strong].mean() + FLOOR) / (coarse[strong].mean() + FLOOR)))


def measure_noise(grey: Floats) -> float:
    """Measure sigma of the noise in the flattest parts, grey levels, by Immerkaer's kernel; 0 in drawn pictures."""
    energies = np.sqrt(np.maximum(compute_fine_energy(grey, 9), 0))
    inside = (blur(grey, 2) > DARK + 8) & (blur(grey, 2) < BRIGHT - 8) & (energies > LEAST_NOISE)
    return float(np.quantile(energies[inside], NOISE_PART)) if inside.mean() > 0.05 else 0.0


def measure_colour(picture: RGB) -> float:
    """Measure colourfulness. Source: Hasler & Süsstrunk, "Measuring colourfulness in natural images", 2003.

    Examples:
        >>> measure_colour(np.full((4, 4, 3), 99, np.uint8))
        0.0
    """
    red, green, blue = (picture[..., k].astype(np.float32) for k in range(3))
    first, second = red - green, (red + green) / 2 - blue
    spread = np.hypot(first.std(dtype=np.float64), second.std(dtype=np.float64))
    return float(spread + 0.3 * np.hypot(first.mean(dtype=np.float64), second.mean(dtype=np.float64)))


def find_borders(picture: RGB) -> tuple[int, int, int, int]:
    """Find borders of one colour, as of letterboxed films and scanned prints.

    Returns:
        px at the left, top, right and bottom; each at most `BORDER_SHARE` of its side.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> picture = rng.integers(0, 255, (40, 60, 3)).astype(np.uint8)
        >>> picture[:6] = 0
        >>> find_borders(picture)
        (0, 6, 0, 0)
    """
    widths = []
    for turn in range(4):  # left, top, right, bottom
        lines = np.rot90(picture, turn).swapaxes(0, 1)
        limit = int(BORDER_SHARE * lines.shape[0])
        colour = np.median(lines[0].reshape(-1, 3), axis=0)
        unlike = np.abs(lines[:limit].astype(np.float32) - colour).max(axis=2)
        one = np.quantile(unlike, 0.98, axis=1) <= BORDER_SPREAD
        count = int(np.argmin(one)) if not one.all() else limit
        widths.append(count if count >= 2 else 0)
    left, top, right, bottom = widths[0], widths[1], widths[2], widths[3]
    return left, top, right, bottom


def measure_information(grey: Floats) -> float:
    """Measure the entropy of the luma's histogram, bits.

    Examples:
        >>> measure_information(np.zeros((8, 8), np.float32))
        0.0
    """
    shares = np.bincount(np.clip(np.rint(grey), 0, 255).astype(np.int64).ravel(), minlength=256) / grey.size
    shares = shares[shares > 0]
    return abs(float(-(shares * np.log2(shares)).sum()))


def _list_stroke_colours(picture: RGB, hats: Floats) -> npt.NDArray[np.float64]:
    """List the (n, 3) colours that most pixels of strokes have, at most `STROKE_COLOURS`."""
    strokes = picture[hats > 1.5 * GLYPH_STEP].astype(np.int64)
    bins = (strokes >> 4) @ np.array([256, 16, 1])
    counts = np.bincount(bins, minlength=4096)
    common = np.argsort(-counts, kind="stable")[:STROKE_COLOURS]
    return np.asarray([np.median(strokes[bins == k], axis=0) for k in common if counts[k] >= 30]).reshape(-1, 3)


def _find_letters(picture: RGB, hats: Floats, colour: npt.NDArray[np.float64]) -> Letters:
    """Return (n, 4) x0, y0, x1, y1 of blobs of one colour that may be letters: they are a step from their ground."""
    height, width = hats.shape
    least, most = (share * min(height, width) for share in GLYPH)
    alike = np.abs(picture.astype(np.float32) - colour).max(axis=2) <= GLYPH_SPREAD
    mask = (alike & (hats > GLYPH_STEP)).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    left, top, wide, high, areas = stats[1:].T
    sized = (high >= max(5, least)) & (high <= max(8, most)) & (wide <= 1.6 * high) & (wide >= 0.08 * high)
    sized &= (areas >= 0.12 * wide * high) & (areas <= 0.95 * wide * high)
    return np.asarray(np.stack([left, top, left + wide, top + high], axis=1)[sized], np.float64)


def _count_longest_line(letters: Letters) -> int:
    """Count the letters of the longest line: of about one height, beside each other, not far apart."""
    best = 0
    for letter in letters:
        high = letter[3] - letter[1]
        shared = np.minimum(letters[:, 3], letter[3]) - np.maximum(letters[:, 1], letter[1])
        heights = letters[:, 3] - letters[:, 1]
        near = (shared >= 0.5 * np.minimum(heights, high)) & (np.abs(np.log(heights / high)) < MAX_HEIGHTS)
        line = letters[near][np.argsort(letters[near, 0])]
        run = 1
        for before, after in pairwise(line):
            run = run + 1 if -0.3 * high < after[0] - before[2] < WORD_GAP * high else 1
            best = max(best, run)
    return best


def count_overlay_letters(picture: RGB) -> int:
    """Count the letters in the longest line of text whose letters are of one colour, as captions and watermarks are.

    Signs that were photographed are text, too, though shading spares most of them. Fewer than `LEAST_GLYPHS` count as
    none, and so do those that are less than `LINE_SHARE` of what has their colour and size: textures have lines, too.

    Args:
        picture: (h, w, 3) uint8.
    """
    scale = min(1.0, OVERLAY_SIDE / max(picture.shape[:2]))
    if scale < 1:
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    grey = convert_to_grey(picture)
    side = max(9, int(GLYPH[1] * min(grey.shape) / 3) | 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (side, side))
    counts = [0]
    for operation in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT):
        hats = np.asarray(cv2.morphologyEx(grey, operation, kernel), np.float32)
        colours = _list_stroke_colours(picture, hats)
        for colour in colours:
            letters = _find_letters(picture, hats, colour)
            count = _count_longest_line(letters) if len(letters) <= MOST_LETTERS else 0
            counts.append(count if count >= LINE_SHARE * len(letters) else 0)
    most = max(counts)
    return most if most >= LEAST_GLYPHS else 0


def measure_quality(picture: RGB) -> Quality:
    """Measure the quality of a photograph.

    Args:
        picture: (h, w, 3) uint8, sRGB.
    """
    height, width = picture.shape[:2]
    left, top, right, bottom = find_borders(picture)
    inner = picture[top : height - bottom, left : width - right]
    grey = convert_to_grey(inner)
    low, high = (float(value) for value in np.percentile(grey, (5, 95)))
    brightest, darkest = channel_max(inner), 255 - channel_max(255 - inner)
    return Quality(
        sharpness=measure_sharpness(grey),
        brightness=float(grey.mean(dtype=np.float64)) / 255,
        clipped=float(((brightest <= DARK) | (darkest >= BRIGHT)).mean()),
        contrast=(high - low) / 255,
        noise=measure_noise(grey),
        blocks=measure_blocks(grey, np.ones(grey.shape, bool)),
        information=measure_information(grey),
        flat=float(find_flat_pixels(inner).mean()),
        colour=measure_colour(inner),
        aspect=max(height, width) / max(1, min(height, width)),
        side=float(min(inner.shape[:2])),
        border=1 - inner.shape[0] * inner.shape[1] / (height * width),
        overlay=float(count_overlay_letters(inner)),
    )


def score_quality(measured: Quality) -> float:
    """Score a photograph by one number, to choose the best of near-duplicates: log2 of the pixels that it is worth.

    Pixels are worth less where the picture is blurred (an enlarged copy has more of them and shows no more),
    compressed, noisy, bordered or written upon.

    Examples:
        >>> good = Quality(-1, 0.5, 0, 0.7, 1, 0.05, 7.5, 0, 40, 1.5, 480, 0, 0)
        >>> round(score_quality(good) - score_quality(good._replace(sharpness=-2)), 2)
        2.4
    """
    score = 2 * np.log2(max(measured.side, 1.0)) + np.log2(measured.aspect)
    score += 2.4 * min(0.0, measured.sharpness)
    score -= 4 * max(0.0, measured.blocks - 0.1) + 0.4 * max(0.0, measured.noise - 2)
    score -= 4 * measured.border + (2.0 if measured.overlay else 0.0) + 2 * measured.clipped
    score -= 1.0 if measured.colour < 3 else 0.0
    return float(score)
