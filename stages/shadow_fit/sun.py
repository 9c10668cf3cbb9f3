"""The sun that explains a shadow: the one under which the objects' solids cover the umbra best."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from rasura.manifests.images import Mask
from rasura.stages.shadow_fit.solids import Floats, Floor, Solid, agreement, discs_from, fall, picture, prism_from
from rasura.stages.split import objects

Array = npt.NDArray[Any]

ELEVATIONS = (28.0, 36.0, 45.0, 55.0)
STEP = 15.0  # degrees between candidate azimuths
DEPTHS = (0.1, 0.3, 0.5)  # in widths of an object: how far a pile's axis lies behind its front
SHARES = (0.4, 0.6, 0.8)  # of a mask's longest columns: how high a prism is; the rest of them is its depth
MARGIN = 0.01  # by which a prism has to look more like the object than discs do
PEAKS = 3  # azimuths of the coarse grid, so many an umbra, that are looked at closely
RIVAL = 0.75  # of the best agreement, that such a peak has to reach
CLOSE = 6  # of the scenes, so many a peak, for which directions are refined
NEAR = [(turn, factor) for turn, factor in product((-10.0, -5.0, 0.0, 5.0, 10.0), (0.88, 1.0, 1.13))]
ALIKE = 0.93  # of the best agreement: suns that explain the umbra as well


@dataclass(frozen=True)
class Sun:
    """The fitted light: degrees; agreement of the best shadow; how far the good fits agree on the azimuth (0 to
    1)."""

    azimuth: float
    elevation: float
    fit: float
    peak: float
    level: int  # of the umbras that were given, the one that fits


@dataclass(frozen=True, eq=False)
class Guess:
    """A floor and what might stand on it."""

    floor: Floor
    solids: list[Solid]


def solid(mask: Mask, floor: Floor, lies: bool, number: int) -> Solid | None:
    """An object as a prism, if it `lies`, or as discs, in one of three depths."""
    return prism_from(mask, floor, SHARES[number]) if lies else discs_from(mask, floor, DEPTHS[number])


def lies(mask: Mask, floor: Floor) -> bool:
    """Whether one object's silhouette looks more like a prism's than like a pile of discs'."""

    def likeness(prism: bool, number: int) -> float:
        one = solid(mask, floor, prism, number)
        if one is None:
            return 0.0
        return agreement(picture([one], floor, floor.axes[2], mask.shape), mask.astype(np.float32))

    prism, discs = (max(likeness(kind, number) for number in range(len(DEPTHS))) for kind in (True, False))
    return prism >= discs + MARGIN and discs > 0


def guesses(object_mask: Mask, floors: Sequence[Floor], gap: int = 0) -> tuple[list[Guess], list[int]]:
    """What might stand on the floors, and the numbers of those on the middle floor that are of middle depth.

    All objects as discs; and, if one of them lies, the same with a prism for each that does.
    """
    labels = objects(object_mask, gap, 0.1)
    masks = [labels == number for number in range(1, int(labels.max()) + 1)]
    lying = [lies(mask, floors[len(floors) // 2]) for mask in masks]
    found: list[Guess] = []
    usual = []
    for place, floor in enumerate(floors):
        for number in range(len(DEPTHS)):
            for kinds in [[False] * len(masks), lying] if any(lying) else [lying]:
                made = [solid(mask, floor, kind, number) for mask, kind in zip(masks, kinds, strict=True)]
                standing = [one for one in made if one is not None]
                if standing:
                    if place == len(floors) // 2 and number == len(DEPTHS) // 2:
                        usual.append(len(found))
                    found.append(Guess(floor, standing))
    return found, usual or [len(found) // 2]


class Trials:
    """Suns that were tried, and how well their shadows agreed with each umbra."""

    def __init__(self, umbras: Sequence[Floats], open_: Floats):
        self.umbras, self.open = umbras, open_
        self.suns: list[tuple[float, float]] = []
        self.fits: list[list[float]] = []

    def add(self, guess: Guess, azimuth: float, elevation: float) -> list[float]:
        """Tries one sun, degrees. Returns its agreement with each umbra."""
        drawn = picture(guess.solids, guess.floor, fall(guess.floor, azimuth, elevation), self.open.shape)
        self.suns.append((azimuth % 360, elevation))
        self.fits.append([agreement(drawn, umbra, self.open) for umbra in self.umbras])
        return self.fits[-1]

    def best(self) -> Sun:
        """Weighted mean of the suns that explain the best explained umbra about equally well."""
        fits, suns = np.array(self.fits), np.array(self.suns)
        level = int(np.argmax(fits.max(0)))
        best = float(fits[:, level].max())
        chosen = fits[:, level] >= ALIKE * best
        weight, good = fits[chosen, level] ** 4 + 1e-12, suns[chosen]
        mean = complex((weight * np.exp(1j * np.radians(good[:, 0]))).sum() / weight.sum())
        azimuth = math.degrees(math.atan2(mean.imag, mean.real)) % 360
        return Sun(azimuth, float((weight * good[:, 1]).sum() / weight.sum()), best, abs(mean), level)


def peaks(grid: Array) -> list[tuple[int, int]]:
    """Of (azimuths, elevations) agreements the places that are highest among their neighbours in azimuth, best
    first: at most `PEAKS`, none below `RIVAL` of the best."""
    along = grid.max(1)
    local = np.flatnonzero((along >= np.roll(along, 1)) & (along >= np.roll(along, -1)))
    order = local[np.argsort(-along[local], kind="stable")][:PEAKS]
    return [(int(k), int(grid[k].argmax())) for k in order if along[k] >= RIVAL * along.max()]


def fit_sun(object_mask: Mask, umbras: Sequence[Floats], floors: Sequence[Floor], gap: int = 0) -> Sun | None:
    """The sun whose shadows cover the umbra best; None where no object stands on a floor.

    Args:
        object_mask: (h, w) M_o. umbras: (h, w) each, candidates for the umbra. floors: candidates for camera and floor.
        gap: px, how far parts of one object may lie apart.
    """
    found, usual = guesses(object_mask, floors, gap)
    if not found:
        return None
    trials = Trials(umbras, (~object_mask).astype(np.float32))
    azimuths = np.arange(0, 360, STEP)
    grid = np.array(
        [[np.max([trials.add(found[k], float(a), e) for k in usual], 0) for e in ELEVATIONS] for a in azimuths]
    )
    seeds = {place for level in range(len(umbras)) for place in peaks(grid[:, :, level])}
    for a, e in sorted(seeds):
        azimuth, elevation = float(azimuths[a]), ELEVATIONS[e]
        fits = np.array([max(trials.add(guess, azimuth, elevation)) for guess in found])
        for k in np.argsort(-fits, kind="stable")[:CLOSE]:
            for turn, factor in NEAR:
                trials.add(found[k], azimuth + turn, min(75.0, elevation * factor))
    return trials.best()
