"""Balanced sampling of foregrounds: compatible lighting, a similar view, and even shares of what they show.

Balance is by minimisation (Pocock and Simon, "Sequential treatment assignment", Biometrics 1975): each draw takes from
the cell (class, size, shadow direction) whose levels were drawn least so far. With few draws that is closer to even
than drawing at random, and no sampling weight is set by hand.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from rasura.manifests.ids import compute_seed
from rasura.stages.compositing.projection import read_view

DIRECTION_BINS = 8  # of 45 degrees, centred on 0, 45, …
SIZE_EDGES = (0.005, 0.02, 0.08)  # shares of the picture between tiny, small, medium and large objects
CELL_LOOKAHEAD = 32  # foregrounds of a cell that are tested before the next cell's turn


@dataclass(frozen=True)
class Lighting:
    """The lighting as it is estimated from a shadow. Angles in degrees; None where it is unknown."""

    azimuth: float | None = None  # into which the shadow falls on the ground; 0 = image right, 90 = away
    elevation: float | None = None  # of the light above the ground
    softness: float | None = None  # width of the penumbra by the object's height; None also where there is no shadow

    def mirror(self) -> "Lighting":
        """Return the lighting of the picture turned left to right.

        Examples:
            >>> Lighting(azimuth=30.0).mirror().azimuth
            150.0
        """
        return self if self.azimuth is None else replace(self, azimuth=(180 - self.azimuth) % 360)

    @property
    def direction_bin(self) -> int:
        """Bin of the direction, -1 where it is unknown."""
        if self.azimuth is None:
            return -1
        return round((self.azimuth % 360) / (360 / DIRECTION_BINS)) % DIRECTION_BINS


@dataclass(frozen=True)
class LightingLimits:
    """How much the lighting of two objects in one picture may differ."""

    turn: float = 45.0  # degrees between shadow directions
    elevation: float = 25.0  # degrees between elevations
    softness: float = 0.25  # between softnesses
    soft: float = 0.3  # softness from which a shadow hardly shows the direction of the light


def are_compatible(first: Lighting, second: Lighting, limits: LightingLimits) -> bool:
    """Return whether two objects could stand in one light.

    Directions must agree; a direction goes with an unknown one only where its shadow is soft, since a hard shadow
    beside an object without one is obvious. Elevations and softnesses must be similar where both are available.

    Examples:
        >>> are_compatible(Lighting(10.0), Lighting(50.0), LightingLimits(turn=45.0))
        True
        >>> are_compatible(Lighting(10.0, softness=0.1), Lighting(None), LightingLimits())
        False
    """
    soft_first, soft_second = first.softness, second.softness
    if soft_first is not None and soft_second is not None and abs(soft_first - soft_second) > limits.softness:
        return False
    if first.azimuth is None or second.azimuth is None:
        directed = second if first.azimuth is None else first
        return directed.azimuth is None or (directed.softness is not None and directed.softness >= limits.soft)
    if abs((first.azimuth - second.azimuth + 180) % 360 - 180) > limits.turn:
        return False
    if first.elevation is None or second.elevation is None:
        return True
    return abs(first.elevation - second.elevation) <= limits.elevation


def estimate_depression(row: Mapping[str, Any]) -> float | None:
    """Return the degrees at which an object was looked down on in its photo, at its foot; None where unknown."""
    box, size = row.get("foreground_box"), (row.get("picture_width"), row.get("picture_height"))
    if not box or None in size:
        return None
    view = read_view(row, [int(side or 0) for side in size])
    depression = None if view is None else float(view.depression((box[0] + box[2]) / 2, box[3]))
    return depression if depression is not None and depression > 0 else None  # on or above the horizon: a wrong plane


def estimate_depression_range(row: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the least and greatest angle, degrees, at which a background's ground is looked down on.

    The picture's size is not among the columns, but its plane and its scale (f n.r / d, pixels per unit) determine it:
    in the middle the scale is f nz / d.

    Returns:
        None where it is unknown.
    """
    scale, view = row.get("ground_scale"), read_view(row, (0, 0))
    if view is None or not scale or scale[1] <= 0:
        return None
    width = 1.15 * view.focal  # as of a field of view of 60 degrees; it only counts where the camera is rolled
    middle_scale = view.focal * view.normal[2] / view.height
    height = 2 * (middle_scale - scale[2] - scale[0] * width / 2) / scale[1]
    if height <= 0:
        return None
    view = replace(view, size=(round(width), round(height)))
    steepest, flattest = (float(view.depression(width / 2, y)) for y in (height, 0))
    return max(0.0, flattest), steepest


def compute_view_gap(depression: float | None, view_range: tuple[float, float] | None) -> float:
    """Return the degrees by which an object was looked down on more, or less, than any ground of a background.

    0 where one of them is unknown.

    Examples:
        >>> compute_view_gap(25.0, (5.0, 20.0)), compute_view_gap(None, (5.0, 20.0))
        (5.0, 0.0)
    """
    if depression is None or view_range is None:
        return 0.0
    return max(view_range[0] - depression, depression - view_range[1], 0.0)


def find_size_bin(area: float | None) -> int:
    """Return the bin of an object's share of its own picture.

    Examples:
        >>> find_size_bin(0.001), find_size_bin(0.05), find_size_bin(0.3)
        (0, 2, 3)
    """
    return sum((area or 0.0) >= edge for edge in SIZE_EDGES)


@dataclass(frozen=True)
class Foreground:
    """A foreground, as far as sampling needs it."""

    id: str
    scene: str
    label: str
    size_bin: int
    lighting: Lighting
    depression: float | None  # degrees at which it was looked down on
    row: Mapping[str, Any] = field(compare=False, hash=False)  # the caller's own
    mirror: bool = False

    def mirror_image(self) -> "Foreground":
        """Return the foreground turned left to right."""
        return replace(self, lighting=self.lighting.mirror(), mirror=not self.mirror)


class BalancedSampler:
    """Sampler of the foregrounds of one split, so that classes, sizes and directions come evenly.

    Args:
        foregrounds: to sample from. seed: the recipe's.
        mirror: whether each may also be drawn turned left to right.
        max_uses: quota of draws of one foreground; no limit where None.
    """

    def __init__(self, foregrounds: Iterable[Foreground], seed: int, mirror: bool, max_uses: int | None = None) -> None:
        self.max_uses = max_uses
        self.use_counts: Counter[str] = Counter()
        cells: dict[tuple[Any, ...], deque[Foreground]] = {}
        # by a hash of the id: the order of the table has no influence, and equals do not come in the order of their ids
        order = sorted(foregrounds, key=lambda entry: (compute_seed(seed, "balance", entry.id), entry.id))
        mirrored = [entry.mirror_image() for entry in order if mirror and entry.lighting.azimuth is not None]
        for entry in [*order, *mirrored]:
            # mirror and view are no levels to balance, but whether an entry fits mostly depends on them
            view_bin = None if entry.depression is None else round(entry.depression / 10)
            key = (entry.label, entry.size_bin, entry.lighting.direction_bin, entry.mirror, view_bin)
            cells.setdefault(key, deque()).append(entry)
        names = sorted(cells, key=lambda cell: (compute_seed(seed, "balance", repr(cell)), repr(cell)))
        self.cells = [cells[name] for name in names]
        levels = [sorted({name[factor] for name in names}) for factor in range(3)]
        self.cell_levels = np.array(
            [[levels[factor].index(name[factor]) for factor in range(3)] for name in names]
        ).reshape(-1, 3)
        self.level_counts = [np.zeros(len(values), np.int64) for values in levels]
        self.cell_sizes = np.array([len(entries) for entries in self.cells])
        self.cell_counts = np.zeros(len(self.cells), np.int64)

    def _order_cells(self) -> list[int]:
        """Return the cells by how often their levels were drawn; equals by their hash."""
        # a level that was drawn k times of n levels is k * n ahead of what an even share of one draw gives it
        costs = sum(
            len(counts) * counts[self.cell_levels[:, factor]] for factor, counts in enumerate(self.level_counts)
        )
        # a cell with one foreground of a rare kind would give it again and again: repetition costs a little
        costs = costs + sum(map(len, self.level_counts)) / 3 * self.cell_counts / self.cell_sizes
        return [int(index) for index in np.argsort(costs, kind="stable")]

    def sample(self, fits: Callable[[Foreground], bool]) -> Foreground | None:
        """Draw the next foreground that fits, from the least used cell that has one; None where none does."""
        order = self._order_cells()
        for lookahead in (CELL_LOOKAHEAD, None):  # a few of each cell; all only where that finds nothing
            for cell in order:
                entries = self.cells[cell]
                for index, entry in enumerate(islice(entries, lookahead)):
                    if (self.max_uses is None or self.use_counts[entry.id] < self.max_uses) and fits(entry):
                        del entries[index]
                        entries.append(entry)  # it is the last of its cell to come again
                        self._count(entry, cell)
                        return entry
        return None

    def _count(self, entry: Foreground, cell: int) -> None:
        self.use_counts[entry.id] += 1
        self.cell_counts[cell] += 1
        for factor, counts in enumerate(self.level_counts):
            counts[self.cell_levels[cell, factor]] += 1
