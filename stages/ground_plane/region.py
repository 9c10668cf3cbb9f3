"""What a picture alone says about where things can stand: the calm region at its foot, and a guessed horizon."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

WORK_SIDE = 208  # px: long side at which regions are found
EVEN = 1.24  # tenth-roughest over middle texture, up to which a foot is evenly rough: gravel has 1.20, clutter 1.28
LEAST_LIMIT, MOST_LIMIT = 1.2, 5.0  # grey levels a pixel
EYE = 1.6  # m: height of a camera that nothing measures


def colours_of_foot(lab: Array, foot: Array) -> Array:
    """(h, w) bool: pixels whose colour occurs where the floor surely is, or nearly; a few odd pixels open no door.

    `lab` (h, w, 3) is OpenCV's 8-bit Lab as float: colours are counted in bins of 12 x 5 x 5 with their neighbours.
    `foot` (h, w) bool: the lower border, or what is under things' feet.
    """
    bins = (lab / (12, 5, 5)).astype(np.intp) + 1
    counts = np.zeros((24, 54, 54))
    np.add.at(counts, tuple(bins[foot].T), 1.0)
    for axis in range(3):
        counts = counts + np.roll(counts, 1, axis) + np.roll(counts, -1, axis)
    return np.asarray(counts[tuple(np.moveaxis(bins, 2, 0))] >= 0.01 * foot.sum())


def texture_limit(texture: Array, slope: Array, foot: Array) -> tuple[Array, float]:
    """The texture map to judge by, and the value below which a pixel is calm.

    Args:
        texture, slope: (h, w) gradient of a Lab picture, with and without smoothing. foot: (h, w) bool.

    What is even at the foot (gravel, turf: its tenth-roughest part hardly rougher than the middle) is calm however
    rough, seen at a coarser scale. Else only what is not rough: clutter is rough too, and uneven.
    """
    wide = cv2.GaussianBlur(slope, (0, 0), 6)
    middle, rough = np.quantile(wide[foot], [0.5, 0.9])
    if rough < EVEN * middle:
        return wide, max(LEAST_LIMIT, 1.8 * float(middle))
    limit = float(np.clip(1.8 * np.quantile(texture[foot], 0.5), LEAST_LIMIT, MOST_LIMIT))
    return texture, limit


def calm_region(picture: Array, allowed: Array | None = None, feet: Array | None = None) -> Array:
    """The largest region of low texture that reaches the lower border, (h, w) bool in the picture's grid.

    Texture is the gradient of lightness and colours after smoothing. Calm pixels must also have a colour that occurs
    along the lower border. `allowed` (h, w) bool limits the search. Where it is known what things stand on (`feet`,
    (h, w) bool), that takes the place of the lower border: the region is all that goes on from there.
    """
    height, width = picture.shape[:2]
    scale = min(1.0, WORK_SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.resize(np.ascontiguousarray(picture), size, interpolation=cv2.INTER_AREA)
    lab = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32), (0, 0), 1.5)
    squares = np.zeros(lab.shape[:2], np.float32)
    for channel in cv2.split(lab):
        squares += cv2.Sobel(channel, cv2.CV_32F, 1, 0, scale=1 / 8) ** 2
        squares += cv2.Sobel(channel, cv2.CV_32F, 0, 1, scale=1 / 8) ** 2
    slope = np.sqrt(squares)
    rows = len(lab)
    stood = np.zeros(lab.shape[:2], bool)
    if feet is not None:
        stood = cv2.resize(feet.astype(np.uint8), size, interpolation=cv2.INTER_AREA) > 0
    known = int(stood.sum()) >= 12
    down = np.broadcast_to(np.arange(rows)[:, None], lab.shape[:2])
    border, wider = (stood, stood) if known else (down >= int(0.85 * rows), down >= int(0.8 * rows))
    texture, limit = texture_limit(cv2.GaussianBlur(slope, (0, 0), 2), slope, wider)
    like = colours_of_foot(lab, border)
    calm = (texture < limit) & like
    if allowed is not None:
        calm &= cv2.resize(allowed.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    calm8 = cv2.morphologyEx(calm.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    calm8 = cv2.morphologyEx(calm8, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    _, labels = cv2.connectedComponents(calm8)
    if known:
        share = np.bincount(labels[stood], minlength=labels.max() + 1) / int(stood.sum())
        share[0] = 0
        region = _filled((share >= 0.1)[labels], like)
        return np.asarray(cv2.resize(region.astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)) > 0
    touching = np.bincount(labels[int(0.93 * rows) :].ravel(), minlength=labels.max() + 1) > 0.1 * size[0]
    touching[0] = False
    areas = np.bincount(labels[int(0.55 * rows) :].ravel(), minlength=labels.max() + 1) * touching
    if not areas.any():
        return np.zeros((height, width), bool)
    region = _filled(labels == int(np.argmax(areas)), like)
    # what climbs past the middle is a wall, except where it fills the width: a floor that is seen from above
    if region[int(0.2 * rows) : int(0.45 * rows)].mean() < 0.6:
        region[: int(0.45 * rows)] = False
    grown = cv2.resize(region.astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(grown) > 0


def _filled(region: Array, like: Array) -> Array:
    """A region without its pinholes: holes below 0.3 % of the picture whose colour is the foot's."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats((~region).astype(np.uint8))
    own = np.bincount(labels.ravel(), like.ravel(), len(stats)) / np.maximum(stats[:, cv2.CC_STAT_AREA], 1)
    small = (stats[:, cv2.CC_STAT_AREA] < 0.003 * region.size) & (own > 0.5)
    small[0] = False
    return np.asarray(region | small[labels])


def water_likeness(picture: Array, mask: Array) -> float:
    """How much an area looks like open water, 0-1, by colour and ripples; no network, so a hint and no more.

    Share of the area whose hue is green-blue to blue, times how far lightness changes more from row to row than from
    column to column: ripples lie flat. Grass is greener, planks are not blue; grey water and wet sand are not seen.
    """
    height, width = picture.shape[:2]
    scale = min(1.0, WORK_SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    lab = cv2.cvtColor(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB).astype(np.float32)
    inside = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    inner = cv2.erode(inside, np.ones((5, 5), np.uint8)) > 0
    if inner.sum() < 30:
        return 0.0
    a, b = lab[..., 1][inner] - 128, lab[..., 2][inner] - 128
    watery: float = float(np.mean((np.hypot(a, b) > 3) & (b < -a) & (a < 2)))
    across = float((cv2.Sobel(lab[..., 0], cv2.CV_32F, 1, 0)[inner] ** 2).mean())
    down = float((cv2.Sobel(lab[..., 0], cv2.CV_32F, 0, 1)[inner] ** 2).mean())
    return watery * float(np.clip(np.sqrt(down / max(across, 1e-6)) - 1, 0, 1))


def horizon_guess(region: Array) -> float:
    """Row of the horizon, in pixels, that a region to stand on allows: above its top, and no lower than is usual.

    The top is where the region still fills a tenth of the width; a floor mostly ends at a wall or a thing well below
    its horizon, which in photographs taken upright is near 42 % of the height. A region that goes through to the upper
    fifth is seen from above (or is a wall): its horizon is taken to be 40 % of a height above the picture.
    """
    height, width = region.shape
    full = np.flatnonzero(region.sum(axis=1) >= 0.1 * width)
    top = float(full[0]) if len(full) else float(height)
    if top < 0.2 * height:
        return -0.4 * float(height)
    return float(min(top - 0.04 * height, 0.42 * height))


def guessed_plane(horizon: float, focal: float, height: int) -> tuple[float, float, float, float]:
    """n and d of a level floor whose horizon is seen at a row, by a camera that is held at eye level."""
    pitch = np.arctan2(height / 2 - horizon, focal)
    return 0.0, float(np.cos(pitch)), float(np.sin(pitch)), EYE


def tidy(mask: Array) -> Array:
    """A (h, w) mask without specks: opened by 3 px, parts below 0.2 % of the picture dropped."""
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(opened)
    large = stats[:, cv2.CC_STAT_AREA] >= 0.002 * mask.size
    large[0] = False
    return np.asarray(large[labels])
