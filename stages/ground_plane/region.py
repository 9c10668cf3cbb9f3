"""The ground by the picture alone: the smooth region at its foot, and a default horizon and plane."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

WORK_SIDE = 208  # px: long side at which regions are looked for
MAX_EVEN_RATIO = (
    1.24  # tenth-roughest over median texture, up to which a foot is evenly rough: gravel has 1.20, clutter 1.28
)
MIN_TEXTURE_LIMIT, MAX_TEXTURE_LIMIT = 1.2, 5.0  # grey levels a pixel
DEFAULT_CAMERA_HEIGHT = 1.6  # m: of a camera that is held before the eyes


def find_ground_colours(lab: Array, foot: Array) -> Array:
    """Find the pixels, (h, w) bool, whose colour occurs where the ground surely is; rare colours are ignored.

    Args:
        lab: (h, w, 3), OpenCV's 8-bit Lab as float: colours are counted in bins of 12 x 5 x 5 with their neighbours.
        foot: (h, w) bool, the lower border, or the ground in front of objects.
    """
    bins = (lab / (12, 5, 5)).astype(np.intp) + 1
    counts = np.zeros((24, 54, 54))
    np.add.at(counts, tuple(bins[foot].T), 1.0)
    for axis in range(3):
        counts = counts + np.roll(counts, 1, axis) + np.roll(counts, -1, axis)
    return np.asarray(counts[tuple(np.moveaxis(bins, 2, 0))] >= 0.01 * foot.sum())


def compute_texture_limit(texture: Array, slope: Array, foot: Array) -> tuple[Array, float]:
    """Choose the texture map, and compute the value below which a pixel is smooth.

    Args:
        texture, slope: (h, w) gradient of a Lab picture, with and without smoothing. foot: (h, w) bool.

    What is even at the foot (gravel, turf: its tenth-roughest part hardly rougher than the median) is smooth however
    rough, at a coarser scale. Else only what is not rough: clutter is rough too, and uneven.
    """
    wide = cv2.GaussianBlur(slope, (0, 0), 6)
    middle, rough = np.quantile(wide[foot], [0.5, 0.9])
    if rough < MAX_EVEN_RATIO * middle:
        return wide, max(MIN_TEXTURE_LIMIT, 1.8 * float(middle))
    limit = float(np.clip(1.8 * np.quantile(texture[foot], 0.5), MIN_TEXTURE_LIMIT, MAX_TEXTURE_LIMIT))
    return texture, limit


def find_smooth_region(picture: Array, allowed: Array | None = None, feet: Array | None = None) -> Array:
    """Find the largest region of low texture that reaches the lower border, (h, w) bool in the picture's grid.

    Texture is the gradient of lightness and colours after smoothing. Smooth pixels must also have a colour that occurs
    along the lower border.

    Args:
        picture: (h, w, 3) uint8. allowed: (h, w) bool, limits the search.
        feet: (h, w) bool, the ground in front of objects; where it is not empty it takes the place of the lower border:
            the region is all that goes on from there.
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
    support = np.zeros(lab.shape[:2], bool)
    if feet is not None:
        support = cv2.resize(feet.astype(np.uint8), size, interpolation=cv2.INTER_AREA) > 0
    from_feet = int(support.sum()) >= 12
    down = np.broadcast_to(np.arange(rows)[:, None], lab.shape[:2])
    border, wider = (support, support) if from_feet else (down >= int(0.85 * rows), down >= int(0.8 * rows))
    texture, limit = compute_texture_limit(cv2.GaussianBlur(slope, (0, 0), 2), slope, wider)
    ground_coloured = find_ground_colours(lab, border)
    smooth = (texture < limit) & ground_coloured
    if allowed is not None:
        smooth &= cv2.resize(allowed.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    cleaned = cv2.morphologyEx(smooth.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    cleaned = cv2.morphologyEx(cleaned, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    _, labels = cv2.connectedComponents(cleaned)
    if from_feet:
        share = np.bincount(labels[support], minlength=labels.max() + 1) / int(support.sum())
        share[0] = 0
        region = _fill_pinholes((share >= 0.1)[labels], ground_coloured)
        return np.asarray(cv2.resize(region.astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)) > 0
    touching = np.bincount(labels[int(0.93 * rows) :].ravel(), minlength=labels.max() + 1) > 0.1 * size[0]
    touching[0] = False
    areas = np.bincount(labels[int(0.55 * rows) :].ravel(), minlength=labels.max() + 1) * touching
    if not areas.any():
        return np.zeros((height, width), bool)
    region = _fill_pinholes(labels == int(np.argmax(areas)), ground_coloured)
    # what climbs past the middle is a wall, except where it fills the width: ground that is seen from above
    if region[int(0.2 * rows) : int(0.45 * rows)].mean() < 0.6:
        region[: int(0.45 * rows)] = False
    grown = cv2.resize(region.astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(grown) > 0


def _fill_pinholes(region: Array, ground_coloured: Array) -> Array:
    """Fill the pinholes of a region: holes below 0.3 % of the picture whose colour is the ground's."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats((~region).astype(np.uint8))
    counts = np.bincount(labels.ravel(), ground_coloured.ravel(), len(stats))
    share = counts / np.maximum(stats[:, cv2.CC_STAT_AREA], 1)
    small = (stats[:, cv2.CC_STAT_AREA] < 0.003 * region.size) & (share > 0.5)
    small[0] = False
    return np.asarray(region | small[labels])


def measure_water_likeness(picture: Array, mask: Array) -> float:
    """Measure how much an area looks like open water, 0-1, by colour and ripples; no network, so a hint and no more.

    Share of the area whose hue is green-blue to blue, times how far lightness changes more from row to row than from
    column to column: ripples are flat. Grass is greener, planks are not blue; grey water and wet sand are missed.
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


def find_region_top(region: Array) -> float:
    """Find the uppermost row in which a region is half as wide as at most, as a share of the height; 1 for none."""
    wide = region.mean(axis=1)
    full = np.flatnonzero(wide >= max(0.1, 0.5 * float(wide.max(initial=0.0))))
    return float(full[0]) / len(region) if len(full) else 1.0


def estimate_horizon(region: Array) -> float:
    """Estimate the row of the horizon, px, from a region to stand on: above its top, and no lower than is usual.

    The top is where the region still fills a tenth of the width; a floor mostly ends at a wall or an object well below
    its horizon, which in photographs taken upright is near 42 % of the height. A region that goes through to the upper
    fifth is seen from above (or is a wall): its horizon is taken to be 40 % of a height above the picture.
    """
    height, width = region.shape
    full = np.flatnonzero(region.sum(axis=1) >= 0.1 * width)
    top = float(full[0]) if len(full) else float(height)
    if top < 0.2 * height:
        return -0.4 * float(height)
    return float(min(top - 0.04 * height, 0.42 * height))


def make_default_plane(horizon: float, focal: float, height: int) -> tuple[float, float, float, float]:
    """Return n and d of a level ground plane whose horizon is at a row, for a camera that is held at eye level.

    Examples:
        >>> make_default_plane(50.0, 100.0, 100)
        (0.0, 1.0, 0.0, 1.6)
    """
    pitch = np.arctan2(height / 2 - horizon, focal)
    return 0.0, float(np.cos(pitch)), float(np.sin(pitch)), DEFAULT_CAMERA_HEIGHT


def remove_specks(mask: Array) -> Array:
    """Remove the specks of a (h, w) mask: it is opened by 3 px, and parts below 0.2 % of the picture are removed."""
    cleaned = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(cleaned)
    large = stats[:, cv2.CC_STAT_AREA] >= 0.002 * mask.size
    large[0] = False
    return np.asarray(large[labels])
