"""Solids that stand for an object, read from its silhouette, and the shadows that they cast on the floor.

What is slender is read as a pile of discs, what lies or is boxy as a prism: a car's depth is not its width, and a ring
that lies on the floor is not as high as its picture.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import Mask

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

RING = np.linspace(0, 2 * np.pi, 10, endpoint=False)
FOV = 42.0  # degrees across the picture when nothing is known
BODY = 0.6  # of an object's height, from below: whose width tells how deep it is
HORIZON = 0.02  # slope of a ray below which it meets the floor too far away
FINE = 4  # pixels of an outline in one of the mask


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
        """(..., 2) px to (..., 3) directions with z = 1."""
        across = (points - np.asarray(self.centre)) / self.focal
        return np.concatenate([across, np.ones_like(across[..., :1])], -1)

    def seen(self, points: Array) -> Array:
        """(..., 3) points to (..., 2) px; what lies behind the camera goes far away."""
        depth = np.maximum(points[..., 2:], 1e-3)
        return np.asarray(points[..., :2] / depth * self.focal + np.asarray(self.centre))


def level_floor(pitch: float, size: tuple[int, int], fov: float = FOV) -> Floor:
    """A floor under a camera that looks `pitch` degrees down. `size`: width and height, px."""
    angle = math.radians(pitch)
    focal = max(size) / 2 / math.tan(math.radians(fov) / 2)
    return Floor(np.array([0.0, math.cos(angle), math.sin(angle)]), focal, (size[0] / 2, size[1] / 2))


def _corners(floor: Floor, points: Array) -> npt.NDArray[np.int32]:
    """(..., 3) points to (..., 2) eighths of a px."""
    return np.asarray(np.clip(floor.seen(points) * 8, -30000, 30000), np.int32)


@dataclass(frozen=True, eq=False)
class Discs:
    """(n,) positions to the right of the axis, radii and heights; the axis' foot; pairs of discs between which the
    object goes on."""

    foot: Array  # (3,)
    shift: Array
    radius: Array
    height: Array
    links: list[tuple[int, int]]

    def draw(self, canvas: npt.NDArray[np.uint8], floor: Floor, along: Array) -> None:
        """Sets the pixels of its picture with every height laid `along`."""
        right, away, _ = floor.axes
        middles = self.foot + self.shift[:, None] * right + self.height[:, None] * along
        circle = np.cos(RING)[:, None] * right + np.sin(RING)[:, None] * away
        rings = _corners(floor, middles[:, None] + self.radius[:, None, None] * circle)
        for first, second in self.links or [(0, 0)]:
            hull = cv2.convexHull(np.concatenate([rings[first], rings[second]]))
            cv2.fillConvexPoly(canvas, hull, 1, shift=3)


@dataclass(frozen=True, eq=False)
class Prism:
    """Upright walls of one height over (n, 3) outlines on the floor."""

    outlines: list[Array]
    height: float

    def draw(self, canvas: npt.NDArray[np.uint8], floor: Floor, along: Array) -> None:
        """Sets the pixels of its picture with every height laid `along`."""
        for outline in self.outlines:
            base, top = _corners(floor, outline), _corners(floor, outline + self.height * along)
            cv2.fillPoly(canvas, [base], 1, shift=3)
            cv2.fillPoly(canvas, [top], 1, shift=3)
            walls = np.stack([base, np.roll(base, -1, 0), np.roll(top, -1, 0), top], 1)
            for wall in walls:
                cv2.fillConvexPoly(canvas, wall, 1, shift=3)


Solid = Discs | Prism


def discs_from(mask: Mask, floor: Floor, depth: float = 0.5, rows: int = 20) -> Discs | None:
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
    ray = floor.rays(np.array([middle, ys[-1] + 1.0]))
    slope = float(ray @ floor.normal)
    if slope < HORIZON:
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
    return Discs(foot, shift, radius, height_of, links)


def prism_from(mask: Mask, floor: Floor, share: float) -> Prism | None:
    """The widest prism of one height that `mask` has room for; None above the horizon.

    A pixel of the floor is in it where the mask goes on upwards from there for as long as the prism is high.

    Args:
        mask: (h, w) one object.
        share: its height over that of the mask's longest columns.
    """
    run = np.zeros(mask.shape, np.int32)
    longest = np.zeros(mask.shape[1], np.int32)
    for y, row in enumerate(mask):
        longest = (longest + 1) * row
        run[y] = longest
    high = max(1.0, share * float(np.percentile(run.max(0)[mask.any(0)], 90)))
    rows, columns = np.indices(mask.shape)
    slope = floor.rays(np.stack([columns + 0.5, rows + 1.0], -1)) @ floor.normal  # one over the distance
    nearest = float(slope[mask].max())
    if nearest < HORIZON:
        return None
    base = mask & (slope > HORIZON) & (run >= np.maximum(high * slope / nearest, 1))
    fine = np.repeat(np.repeat(base.astype(np.uint8), FINE, 0), FINE, 1)
    found, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    corners = [floor.rays((cv2.approxPolyDP(one, 1.6, True)[:, 0] + 0.5) / FINE) for one in found]
    outlines = [rays / np.maximum(rays @ floor.normal, HORIZON / 2)[:, None] for rays in corners]
    if not outlines:
        return None
    _, away, up = floor.axes
    points = np.concatenate(outlines)
    foot = points[np.argmin(points @ away)]
    above = floor.rays(floor.seen(foot) - np.array([0.0, high]))
    return Prism(outlines, float((above * (foot @ away) / max(above @ away, 1e-3) - foot) @ up))


def fall(floor: Floor, azimuth: float, elevation: float) -> Array:
    """(3,) along the floor: from a foot to its shadow's end, for a height of 1. Degrees."""
    right, away, _ = floor.axes
    angle = math.radians(azimuth)
    along = (math.cos(angle) * right + math.sin(angle) * away) / math.tan(math.radians(elevation))
    return np.asarray(along)


def picture(solids: Sequence[Solid], floor: Floor, along: Array, shape: tuple[int, int]) -> Floats:
    """(h, w) float32, 0 or 1: the solids with their heights laid `along`: up, as seen; by `fall`, their shadows."""
    canvas = np.zeros(shape, np.uint8)
    for solid in solids:
        solid.draw(canvas, floor, along)
    return canvas.astype(np.float32)


def agreement(drawn: Floats, sure: Floats, open_: Floats | None = None) -> float:
    """Soft IoU of a drawn shape with a found one, where `open_`."""
    both, either = np.minimum(drawn, sure), np.maximum(drawn, sure)
    if open_ is not None:
        both, either = both * open_, either * open_
    return float(both.sum()) / max(float(either.sum()), 1e-6)
