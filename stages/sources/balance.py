"""Which cut-outs go together, and whose turn it is: compatible light, a like view, and balance over what they are.

Balance is by minimisation (Pocock and Simon 1975): each draw takes from the cell (class, size, shadow direction) whose
levels were taken least so far. With few draws that is closer to even than drawing at random, and no share is set by
hand.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from rasura.manifests.ids import seed_for
from rasura.stages.compositing.projection import view_of

DIRECTIONS = 8  # bins of 45 degrees, centred on 0, 45, …
SIZES = (0.005, 0.02, 0.08)  # shares of the picture between tiny, small, middling and large objects
SEEN = 32  # cut-outs of a cell that are looked at before the next cell's turn


@dataclass(frozen=True)
class Light:
    """What a shadow tells. Angles in degrees; None where it tells nothing."""

    azimuth: float | None = None  # into which the shadow falls on the ground; 0 = image right, 90 = away
    elevation: float | None = None  # of the light above the ground
    softness: float | None = None  # width of the penumbra by the object's height; None also where there is no shadow

    def mirrored(self) -> "Light":
        """The light of the picture turned left to right."""
        return self if self.azimuth is None else replace(self, azimuth=(180 - self.azimuth) % 360)

    @property
    def bin(self) -> int:
        """Cluster of the direction, -1 where it is unknown."""
        return -1 if self.azimuth is None else round((self.azimuth % 360) / (360 / DIRECTIONS)) % DIRECTIONS


@dataclass(frozen=True)
class Limits:
    """How unlike the light of two things in one picture may be."""

    turn: float = 45.0  # degrees between shadow directions
    elevation: float = 25.0  # degrees between elevations
    softness: float = 0.25  # between softnesses
    soft: float = 0.3  # softness from which a shadow says little about where the light is


def compatible(one: Light, other: Light, limits: Limits) -> bool:
    """Whether two things could stand in one light.

    Known directions must agree; a known one goes with an unknown one only where its shadow is soft, since a hard
    shadow beside an object that has none is seen at once. Elevations and softnesses must be alike where both are known.
    """
    if one.softness is not None and other.softness is not None and abs(one.softness - other.softness) > limits.softness:
        return False
    if one.azimuth is None or other.azimuth is None:
        known = other if one.azimuth is None else one
        return known.azimuth is None or (known.softness is not None and known.softness >= limits.soft)
    if abs((one.azimuth - other.azimuth + 180) % 360 - 180) > limits.turn:
        return False
    return one.elevation is None or other.elevation is None or abs(one.elevation - other.elevation) <= limits.elevation


def seen_from(row: Mapping[str, Any]) -> float | None:
    """Degrees at which an object was looked down on in its photo, at the foot of its cut-out; None where unknown."""
    box, size = row.get("foreground_box"), (row.get("picture_width"), row.get("picture_height"))
    if not box or None in size:
        return None
    view = view_of(row, [int(side or 0) for side in size])
    found = None if view is None else float(view.depression((box[0] + box[2]) / 2, box[3]))
    return found if found is not None and found > 0 else None  # on or above the horizon: a wrong plane


def views_of(row: Mapping[str, Any]) -> tuple[float, float] | None:
    """Least and greatest angle, degrees, at which a background's floor is looked down on; None where unknown.

    The picture's size is not among the columns, but its plane and its scale (f n.r / d, pixels a unit) know it: in
    the middle the scale is f nz / d.
    """
    scale, view = row.get("ground_scale"), view_of(row, (0, 0))
    if view is None or not scale or scale[1] <= 0:
        return None
    width = 1.15 * view.focal  # as of a field of view of 60 degrees; it only counts where the floor leans sideways
    height = 2 * (view.focal * view.n[2] / view.d - scale[2] - scale[0] * width / 2) / scale[1]
    if height <= 0:
        return None
    view = replace(view, size=(round(width), round(height)))
    steepest, flattest = (float(view.depression(width / 2, y)) for y in (height, 0))
    return max(0.0, flattest), steepest


def view_gap(seen: float | None, views: tuple[float, float] | None) -> float:
    """Degrees by which an object was looked down on more steeply, or less, than any of a floor; 0 where unknown."""
    return 0.0 if seen is None or views is None else max(views[0] - seen, seen - views[1], 0.0)


def size_of(area: float | None) -> int:
    """Bin of an object's share of its own picture."""
    return sum((area or 0.0) >= edge for edge in SIZES)


@dataclass(frozen=True)
class CutOut:
    """A foreground, as far as drawing needs to know it."""

    id: str
    scene: str
    label: str
    size: int
    light: Light
    seen: float | None  # degrees at which it was looked down on
    row: Mapping[str, Any] = field(compare=False, hash=False)  # whatever the caller wants back
    mirror: bool = False

    def mirrored(self) -> "CutOut":
        return replace(self, light=self.light.mirrored(), mirror=not self.mirror)


class Balance:
    """Cut-outs of one split, taken so that classes, sizes and directions come evenly.

    Args:
        mirror: whether each may also be taken turned left to right.
        max_uses: how often one may be taken; any number of times where None.
    """

    def __init__(self, cut_outs: Iterable[CutOut], seed: int, mirror: bool, max_uses: int | None = None) -> None:
        self.max_uses = max_uses
        self.uses: Counter[str] = Counter()
        cells: dict[tuple[Any, ...], deque[CutOut]] = {}
        # by a hash of the id: the order of the table says nothing, and equals do not come in the order of their names
        order = sorted(cut_outs, key=lambda one: (seed_for(seed, "balance", one.id), one.id))
        for one in [*order, *(other.mirrored() for other in order if mirror and other.light.azimuth is not None)]:
            # mirror and view are no levels to balance, but whether one fits mostly depends on them
            seen = None if one.seen is None else round(one.seen / 10)
            cells.setdefault((one.label, one.size, one.light.bin, one.mirror, seen), deque()).append(one)
        names = sorted(cells, key=lambda cell: (seed_for(seed, "balance", repr(cell)), repr(cell)))
        self.cells = [cells[name] for name in names]
        levels = [sorted({name[part] for name in names}) for part in range(3)]
        self.level = np.array([[levels[part].index(name[part]) for part in range(3)] for name in names]).reshape(-1, 3)
        self.taken = [np.zeros(len(some), np.int64) for some in levels]
        self.rows = np.array([len(rows) for rows in self.cells])
        self.used = np.zeros(len(self.cells), np.int64)

    def _order(self) -> list[int]:
        """Cells by how much their levels were taken; equals by their hash."""
        # a level that was taken k times of n levels is k * n ahead of what an even share of one draw gives it
        costs = sum(len(taken) * taken[self.level[:, part]] for part, taken in enumerate(self.taken))
        # a cell with one cut-out of a rare kind would give it again and again: what repeats waits a little
        costs = costs + sum(map(len, self.taken)) / 3 * self.used / self.rows
        return [int(index) for index in np.argsort(costs, kind="stable")]

    def take(self, fits: Callable[[CutOut], bool]) -> CutOut | None:
        """The next cut-out that fits, from the least used cell that has one; None where none does."""
        order = self._order()
        for most in (SEEN, None):  # a few of each cell; all only where that finds nothing
            for cell in order:
                rows = self.cells[cell]
                for index, one in enumerate(islice(rows, most)):
                    if (self.max_uses is None or self.uses[one.id] < self.max_uses) and fits(one):
                        del rows[index]
                        rows.append(one)  # it is the last of its cell to come again
                        self.uses[one.id] += 1
                        self.used[cell] += 1
                        for part, taken in enumerate(self.taken):
                            taken[self.level[cell, part]] += 1
                        return one
        return None
