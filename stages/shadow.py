"""Stage `shadow`: from where the light came, told by the shadow it made the objects cast on the floor.

An object's silhouette is read as a pile of discs standing on the floor. Under a candidate sun their shadow is known;
the sun whose shadow best covers the dark region wins. Camera pitch is a nuisance like the sun's height, unless the
floor's plane is known.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from manifests.images import RGB, Mask
from manifests.schemas import Kind
from stages.matting.layers import Floats, shadow_alpha
from stages.pair import blur, dilate
from stages.split import objects
from stages.stage import Kept, Outcome, Params, Record, Stage

Array = npt.NDArray[Any]

WORK_SIDE = 128  # px, longest side at which shadows are drawn
RING = np.linspace(0, 2 * np.pi, 10, endpoint=False)
PITCHES = (13.0, 20.0, 28.0)  # degrees below level that a camera may look when nothing is known
FOV = 42.0  # degrees across the picture, likewise
ELEVATIONS = (28.0, 36.0, 45.0, 55.0)
DEPTHS = (0.1, 0.3, 0.5)  # in widths of an object: how far its axis lies behind its front
LEVELS = (60.0, 85.0)  # percentiles of α that may be the cast shadow's
SEEDS = 2  # of the coarse grid's suns, so many a level are looked at closely
BODY = 0.6  # of an object's height, from below: whose width tells how deep it is
STEP = 15.0  # degrees between candidate azimuths
SOFT_EDGE, HARD_EDGE = 0.035, 0.10  # strength of a shadow's border that only skies make, that only suns and lamps make


@dataclass(frozen=True, eq=False)
class Floor:
    """Camera and floor: points P of the floor satisfy n·P = 1 (x right, y down, z forward)."""

    normal: Array  # (3,)
    focal: float  # px
    centre: tuple[float, float]  # px

    @property
    def axes(self) -> Array:
        """(3, 3): unit vectors to the right, away from the camera, and up, as rows."""
        up = -self.normal / np.linalg.norm(self.normal)
        right = np.array([1.0, 0.0, 0.0]) - up[0] * up
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(up, right), up])

    def rays(self, points: Array) -> Array:
        """(n, 2) px to (n, 3) directions with z = 1."""
        x, y = (points - np.asarray(self.centre)).T / self.focal
        return np.stack([x, y, np.ones_like(x)], 1)

    def seen(self, points: Array) -> Array:
        """(..., 3) points to (..., 2) px; what lies behind the camera goes far away."""
        depth = np.maximum(points[..., 2:], 1e-3)
        return np.asarray(points[..., :2] / depth * self.focal + np.asarray(self.centre))


def level_floor(pitch: float, size: tuple[int, int], fov: float = FOV) -> Floor:
    """A floor under a camera that looks `pitch` degrees down. `size`: width and height, px."""
    angle = math.radians(pitch)
    focal = max(size) / 2 / math.tan(math.radians(fov) / 2)
    return Floor(np.array([0.0, math.cos(angle), math.sin(angle)]), focal, (size[0] / 2, size[1] / 2))


@dataclass(frozen=True, eq=False)
class Solid:
    """An object as discs: (n,) positions to the right of the axis, radii and heights; the axis' foot; pairs of discs
    between which the object goes on."""

    foot: Array  # (3,)
    shift: Array
    radius: Array
    height: Array
    links: list[tuple[int, int]]


def solid_from(mask: Mask, floor: Floor, depth: float = 0.5, rows: int = 20) -> Solid | None:
    """The pile of discs whose picture is `mask`, standing where its lowest row is; None above the horizon.

    Args:
        mask: (h, w) one object.
        depth: how far its axis lies behind its front, in widths: 0 for a ball, half for a box.
        rows: number of rows that are looked at.
    """
    ys = np.flatnonzero(mask.any(1))
    right, away, up = floor.axes
    body = mask[max(ys[0], ys[-1] - max(1, int(len(ys) * BODY))) : ys[-1] + 1]
    columns = np.flatnonzero(body.any(0))
    middle, wide = (columns[0] + columns[-1] + 1) / 2, columns[-1] + 1 - columns[0]
    ray = floor.rays(np.array([[middle, ys[-1] + 1.0]]))[0]
    slope = float(ray @ floor.normal)
    if slope < 0.02:
        return None
    front = ray / slope
    foot = front + away * (depth * wide * front[2] / floor.focal)
    discs: list[tuple[float, float, float]] = []
    links: list[tuple[int, int]] = []
    before: list[tuple[int, int, int]] = []
    for y in np.unique(np.linspace(ys[0], ys[-1], min(rows, len(ys))).astype(int)):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], mask[y].astype(np.int8), [0]])))
        runs = []
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            ends = floor.rays(np.array([[start, y + 0.5], [end, y + 0.5]]))
            points = ends * ((foot @ away) / np.maximum(ends @ away, 1e-3))[:, None] - foot
            left, end_at = points @ right
            height = max(0.0, float((points @ up).mean()))
            runs.append((int(start), int(end), len(discs)))
            discs.append(((left + end_at) / 2, abs(end_at - left) / 2, height))
        links += [(old[2], new[2]) for old in before for new in runs if old[0] < new[1] and new[0] < old[1]]
        before = runs
    shift, radius, height_of = np.array(discs).T
    return Solid(foot, shift, radius, height_of, links)


def cast(solids: Sequence[Solid], floor: Floor, azimuth: float, elevation: float, shape: tuple[int, int]) -> Floats:
    """(h, w) float32, 0 or 1: the shadows on the floor under a sun that makes them fall towards `azimuth`."""
    right, away, _ = floor.axes
    angle = math.radians(azimuth)
    along = (math.cos(angle) * right + math.sin(angle) * away) / math.tan(math.radians(elevation))
    canvas = np.zeros(shape, np.uint8)
    for solid in solids:
        middles = solid.foot + solid.shift[:, None] * right + solid.height[:, None] * along
        circle = np.cos(RING)[:, None] * right + np.sin(RING)[:, None] * away
        rings = floor.seen(middles[:, None] + solid.radius[:, None, None] * circle)
        drawn = np.clip(rings * 8, -30000, 30000).astype(np.int32)
        for first, second in solid.links or [(0, 0)]:
            hull = cv2.convexHull(np.concatenate([drawn[first], drawn[second]]))
            cv2.fillConvexPoly(canvas, hull, 1, shift=3)
    return canvas.astype(np.float32)


def umbra(alpha: Floats, effects: Mask, percentile: float) -> tuple[Floats, float]:
    """(h, w) float32 0 to 1: how surely a pixel lies in the cast shadow; and α of that shadow.

    Its border is at half of that percentile of α. The line of contact under an object is darker than its shadow, and
    what the object mirrors in the floor is paler: which percentile is the shadow's own, the fit has to find out.
    """
    if effects.sum() < 8:
        return np.zeros(alpha.shape, np.float32), 0.0
    deep = float(np.percentile(alpha[effects], percentile))
    sure = np.clip((alpha / max(deep, 1e-3) - 0.3) / 0.4, 0, 1) * effects
    return np.asarray(sure, np.float32), deep


def agreement(drawn: Floats, sure: Floats, open_: Floats) -> float:
    """Soft IoU of a drawn shadow with the umbra, where the objects do not hide it."""
    both = float((np.minimum(drawn, sure) * open_).sum())
    return both / max(float((np.maximum(drawn, sure) * open_).sum()), 1e-6)


@dataclass(frozen=True)
class Sun:
    """The fitted light: degrees; agreement of the best shadow; how far the good fits agree on the azimuth (0 to
    1)."""

    azimuth: float
    elevation: float
    fit: float
    peak: float
    level: int  # of the umbras that were given, the one that fits


def fit_sun(object_mask: Mask, umbras: Sequence[Floats], floors: Sequence[Floor], gap: int = 0) -> Sun | None:
    """The sun whose shadows cover the umbra best; None where no object stands on a floor.

    Args:
        object_mask: (h, w) M_o. umbras: (h, w) each, candidates for the umbra. floors: candidates for camera and floor.
    """
    labels = objects(object_mask, gap, 0.1)
    open_ = (~object_mask).astype(np.float32)
    tried: list[tuple[float, float]] = []  # azimuth, elevation
    fits: list[list[float]] = []  # agreement with each umbra
    piles: list[tuple[Floor, list[Solid]]] = []
    for floor in floors:
        for depth in DEPTHS:
            found = [solid_from(labels == number, floor, depth) for number in range(1, int(labels.max()) + 1)]
            piles.append((floor, [solid for solid in found if solid is not None]))

    def trial(azimuth: float, elevation: float, index: int) -> None:
        floor, solids = piles[index]
        drawn = cast(solids, floor, azimuth, elevation, object_mask.shape)
        tried.append((azimuth % 360, elevation))
        fits.append([agreement(drawn, sure, open_) for sure in umbras])

    usable = [index for index, pile in enumerate(piles) if pile[1]]
    if not usable:
        return None
    middle = usable[len(usable) // 2]
    for azimuth in np.arange(0, 360, STEP):
        for elevation in ELEVATIONS:
            trial(float(azimuth), elevation, middle)
    seeds = {int(k) for level in np.argsort(fits, axis=0).T for k in level[-SEEDS:]}
    for azimuth, elevation in [tried[k] for k in sorted(seeds)]:
        for index in usable:
            for turn in (-10.0, -5.0, 0.0, 5.0, 10.0):
                for factor in (0.88, 1.0, 1.13):
                    trial(azimuth + turn, min(75.0, elevation * factor), index)
    scores, suns = np.array(fits), np.array(tried)
    level = int(np.argmax(scores.max(0)))
    best = float(scores[:, level].max())
    chosen = scores[:, level] >= 0.93 * best
    weight, good = scores[chosen, level] ** 4 + 1e-12, suns[chosen]
    turn = np.exp(1j * np.radians(good[:, 0]))
    mean = complex((weight * turn).sum() / weight.sum())
    return Sun(
        azimuth=math.degrees(math.atan2(mean.imag, mean.real)) % 360,
        elevation=float((weight * good[:, 1]).sum() / weight.sum()),
        fit=best,
        peak=abs(mean),
        level=level,
    )


def penumbra(alpha: Floats, sure: Floats, object_mask: Mask, deep: float) -> float | None:
    """Width of the shadow's border as a share of the objects' height: px in which α falls from all to nothing.

    The usual α over the slope across the border, median over the border away from the objects; None without one.
    """
    smooth = blur(alpha, 0.8)
    slope = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)) / 8
    border = (dilate(sure > 0.5, 1) & ~(sure > 0.5)) & ~dilate(object_mask, 4)
    if border.sum() < 8 or deep <= 0.02:
        return None
    return float(np.median(deep / np.maximum(slope[border], 1e-3))) / max(1, int(object_mask.any(1).sum()))


def border_strength(alpha: Floats, effects: Mask, object_mask: Mask) -> float:
    """How abruptly the darkest shadow ends: what a sun or a lamp makes and an overcast sky does not.

    95th percentile of the slope of α over a hundredth of the picture's longest side, times the root of that of α
    itself, away from the objects' own outline.
    """
    side = max(alpha.shape)
    away = effects & ~dilate(object_mask, max(3, round(0.012 * side)))
    if away.sum() < 8:
        return 0.0
    smooth = blur(alpha, max(0.8, 0.006 * side))
    slope = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)) / 8
    abrupt = float(np.percentile(slope[away], 95)) * side / 100
    return float(abrupt * math.sqrt(max(0.0, float(np.percentile(alpha[away], 95)))))


def cluster(azimuth: float | None) -> int:
    """The eighth of the circle, 0 to 7 in bins of 45° around 0, 45, …; −1 where the azimuth is unknown."""
    return -1 if azimuth is None else int(((azimuth + 22.5) % 360) // 45)


def confidence(strength: float, sun: Sun) -> float:
    """0 to 1: that there is a cast shadow at all, times how well and how uniquely a sun explains it."""
    edge = math.log(max(strength, 1e-6) / SOFT_EDGE) / math.log(HARD_EDGE / SOFT_EDGE)
    return float(np.clip(edge, 0, 1) * np.clip(sun.fit / 0.5, 0, 1) * sun.peak)


@dataclass(frozen=True)
class Light:
    """What a pair tells about its light; null where it tells nothing."""

    sun: Sun | None
    confidence: float
    softness: float | None


def light_of(
    source: RGB,
    clean: RGB,
    object_mask: Mask,
    foreground_mask: Mask,
    plane: Sequence[float] | None = None,
    focal: float | None = None,
) -> Light:
    """The light of a pair.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        object_mask, foreground_mask: (h, w) bool, M_o and M_fg.
        plane: nx, ny, nz, d of the floor, and focal: px, if they are known.
    """
    height, width = object_mask.shape
    effects = foreground_mask & ~object_mask
    if not effects.any() or not object_mask.any():
        return Light(None, 0.0, None)
    alpha = shadow_alpha(source, clean, effects, ~dilate(foreground_mask | object_mask, 8)) * effects
    scale = min(1.0, WORK_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))

    def small(values: Array) -> Floats:
        return np.asarray(cv2.resize(values.astype(np.float32), size, interpolation=cv2.INTER_AREA), np.float32)

    mask, share = small(object_mask) > 0.5, small(effects)
    mean = np.where(share > 0.05, small(alpha) / np.maximum(share, 0.05), 0)
    levels = [umbra(np.asarray(mean, np.float32), (share > 0.3) & ~mask, level) for level in LEVELS]
    if not levels[0][0].any() or not mask.any():
        return Light(None, 0.0, None)
    if plane is not None and focal is not None:
        middle = (size[0] / 2, size[1] / 2)
        floors = [Floor(np.asarray(plane[:3], np.float64) / max(plane[3], 1e-9), focal * scale, middle)]
    else:
        floors = [level_floor(pitch, size) for pitch in PITCHES]
    sun = fit_sun(mask, [sure for sure, _ in levels], floors)
    sure, deep = levels[sun.level if sun else 0]
    wide = np.asarray(cv2.resize(sure, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    softness = penumbra(alpha, wide, object_mask, deep)
    if sun is None:
        return Light(None, 0.0, softness)
    return Light(sun, confidence(border_strength(alpha, effects, object_mask), sun), softness)


class ShadowParams(Params):
    confident: float = Field(0.4, ge=0, le=1, description="Confidence below which the direction counts as unknown.")


class Shadow(Stage):
    """Tells a pair's light direction from the shadow that its objects cast."""

    name = "shadow"
    needs = {"input": Kind.RGB, "gt": Kind.RGB, "object_mask": Kind.MASK, "foreground_mask": Kind.MASK}
    gives = {
        "shadow_azimuth": Kind.FLOAT,
        "shadow_elevation": Kind.FLOAT,
        "shadow_confidence": Kind.FLOAT,
        "shadow_cluster": Kind.INT,
        "shadow_softness": Kind.FLOAT,
    }
    Params = ShadowParams
    params: ShadowParams

    def process_one(self, record: Record) -> Outcome:
        light = light_of(
            record["input"],
            record["gt"],
            record["object_mask"],
            record["foreground_mask"],
            record.get("ground_plane"),
            record.get("ground_focal"),
        )
        known = light.sun if light.confidence >= self.params.confident else None
        azimuth = known.azimuth if known else None
        measured = {
            "shadow_azimuth": azimuth,
            "shadow_elevation": known.elevation if known else None,
            "shadow_confidence": light.confidence,
            "shadow_cluster": cluster(azimuth),
            "shadow_softness": light.softness,
        }
        return Kept([record | measured])
