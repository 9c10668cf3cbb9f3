"""The sun that explains a shadow: the one under which the shadows of the objects' solids cover the umbra best.

Grid search over azimuth and elevation with the middle camera, then refinement around the best azimuths over all cameras
and solids. The result is a weighted mean of the suns that fit about equally well.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from rasura.manifests.images import Mask
from rasura.stages.imaging.filters import Floats
from rasura.stages.shadow_fit.camera import Array, GroundCamera, compute_shadow_vector
from rasura.stages.shadow_fit.solids import Solid, compute_soft_iou, fit_disc_stack, fit_prism, render_silhouette
from rasura.stages.split import label_objects

CANDIDATE_ELEVATIONS = (28.0, 36.0, 45.0, 55.0)  # degrees
AZIMUTH_STEP = 15.0  # degrees between candidate azimuths
DISC_DEPTHS = (0.1, 0.3, 0.5)  # in widths of an object: distance of a stack's axis behind its front
PRISM_HEIGHTS = (0.4, 0.6, 0.8)  # of a mask's longest columns: height of a prism; the rest of them is its depth
PRISM_MARGIN = 0.01  # by which a prism has to resemble the object more than discs do
MAX_PEAKS = 3  # azimuths of the coarse grid, for each umbra, that are refined
MIN_PEAK_SHARE = 0.75  # of the best agreement, that such a peak has to reach
MAX_REFINED = 6  # of the hypotheses, for each peak, for which directions are refined
REFINEMENT_STEPS = list(product((-10.0, -5.0, 0.0, 5.0, 10.0), (0.88, 1.0, 1.13)))  # turn in degrees, elevation factor
NEAR_BEST_SHARE = 0.93  # of the best agreement: suns that explain the umbra as well
RIVAL_SHARE = 0.7  # of the best agreement: suns that come near it


@dataclass(frozen=True)
class Sun:
    """The fitted light.

    Attributes:
        azimuth, elevation: degrees, as in `compute_shadow_vector`.
        agreement: soft IoU of the best shadow with the umbra.
        consensus: 0 to 1, how closely the near-best suns agree on the azimuth.
        umbra: index of the umbra that fits best.
        mirror: soft IoU of the objects' mirror image in the ground plane with that umbra.
        spread: degrees of azimuth under which some sun explains the umbra at least `RIVAL_SHARE` as well as the best.
    """

    azimuth: float
    elevation: float
    agreement: float
    consensus: float
    umbra: int
    mirror: float = 0.0
    spread: float = 0.0


@dataclass(frozen=True, eq=False)
class SceneHypothesis:
    """A camera and the solids that the objects may be under it."""

    camera: GroundCamera
    solids: list[Solid]


def fit_solid(mask: Mask, camera: GroundCamera, as_prism: bool, depth_index: int) -> Solid | None:
    """Fit a prism or a stack of discs to one object, in one of three depths; None above the horizon."""
    if as_prism:
        return fit_prism(mask, camera, PRISM_HEIGHTS[depth_index])
    return fit_disc_stack(mask, camera, DISC_DEPTHS[depth_index])


def resembles_prism(mask: Mask, camera: GroundCamera) -> bool:
    """Return whether one object's silhouette is closer to a prism's than to that of a stack of discs."""

    def measure_likeness(as_prism: bool, depth_index: int) -> float:
        solid = fit_solid(mask, camera, as_prism, depth_index)
        if solid is None:
            return 0.0
        silhouette = render_silhouette([solid], camera, camera.axes[2], mask.shape)
        return compute_soft_iou(silhouette, mask.astype(np.float32))

    prism, discs = (max(measure_likeness(kind, index) for index in range(len(DISC_DEPTHS))) for kind in (True, False))
    return prism >= discs + PRISM_MARGIN and discs > 0


def build_hypotheses(
    object_mask: Mask, cameras: Sequence[GroundCamera], gap: int = 0
) -> tuple[list[SceneHypothesis], list[int]]:
    """Build what the objects may be: all as discs; and, if one resembles a prism, the same with a prism for each such.

    Args:
        object_mask: (h, w) M_o.
        cameras: candidates.
        gap: px between parts of one object.

    Returns:
        The hypotheses, and the indices of those under the middle camera that have the middle depth.
    """
    labels = label_objects(object_mask, gap, 0.1)
    masks = [labels == number for number in range(1, int(labels.max()) + 1)]
    middle_camera, middle_depth = len(cameras) // 2, len(DISC_DEPTHS) // 2
    prisms = [resembles_prism(mask, cameras[middle_camera]) for mask in masks]
    hypotheses: list[SceneHypothesis] = []
    typical = []
    for camera_index, camera in enumerate(cameras):
        for depth_index in range(len(DISC_DEPTHS)):
            for kinds in [[False] * len(masks), prisms] if any(prisms) else [prisms]:
                fits = [fit_solid(mask, camera, kind, depth_index) for mask, kind in zip(masks, kinds, strict=True)]
                solids = [solid for solid in fits if solid is not None]
                if solids:
                    if camera_index == middle_camera and depth_index == middle_depth:
                        typical.append(len(hypotheses))
                    hypotheses.append(SceneHypothesis(camera, solids))
    return hypotheses, typical or [len(hypotheses) // 2]


class SunSearch:
    """Suns that were tried, and the agreement of their shadows with each umbra.

    Args:
        umbras: (h, w) float32 each.
        region: (h, w) float32 weight of the pixels that count.
    """

    def __init__(self, umbras: Sequence[Floats], region: Floats):
        self.umbras, self.region = umbras, region
        self.suns: list[tuple[float, float]] = []
        self.agreements: list[list[float]] = []

    def add(self, hypothesis: SceneHypothesis, azimuth: float, elevation: float) -> list[float]:
        """Try one sun, degrees, and return its agreement with each umbra."""
        camera = hypothesis.camera
        vector = compute_shadow_vector(camera, azimuth, elevation)
        shadow = render_silhouette(hypothesis.solids, camera, vector, self.region.shape)
        self.suns.append((azimuth % 360, elevation))
        self.agreements.append([compute_soft_iou(shadow, umbra, self.region) for umbra in self.umbras])
        return self.agreements[-1]

    def average_best(self) -> Sun:
        """Return the weighted mean of the suns that explain the best explained umbra about equally well."""
        agreements, suns = np.array(self.agreements), np.array(self.suns)
        umbra = int(np.argmax(agreements.max(0)))
        best = float(agreements[:, umbra].max())
        chosen = agreements[:, umbra] >= NEAR_BEST_SHARE * best
        weight, good = agreements[chosen, umbra] ** 4 + 1e-12, suns[chosen]
        mean = complex((weight * np.exp(1j * np.radians(good[:, 0]))).sum() / weight.sum())
        azimuth = math.degrees(math.atan2(mean.imag, mean.real)) % 360
        return Sun(azimuth, float((weight * good[:, 1]).sum() / weight.sum()), best, abs(mean), umbra)


def find_azimuth_peaks(grid: Array) -> list[tuple[int, int]]:
    """Find the places of a grid that are highest among their neighbours in azimuth.

    Args:
        grid: (azimuths, elevations) agreements; azimuths go round.

    Returns:
        Row and column of at most `MAX_PEAKS`, the best first, none below `MIN_PEAK_SHARE` of the best.

    Examples:
        >>> find_azimuth_peaks(np.array([[0.1, 0.2], [0.5, 0.8], [0.3, 0.2], [0.7, 0.1]]))
        [(1, 1), (3, 0)]
    """
    best = grid.max(1)
    local = np.flatnonzero((best >= np.roll(best, 1)) & (best >= np.roll(best, -1)))
    order = local[np.argsort(-best[local], kind="stable")][:MAX_PEAKS]
    return [(int(k), int(grid[k].argmax())) for k in order if best[k] >= MIN_PEAK_SHARE * best.max()]


def fit_sun(object_mask: Mask, umbras: Sequence[Floats], cameras: Sequence[GroundCamera], gap: int = 0) -> Sun | None:
    """Fit the sun whose shadows cover the umbra best.

    Args:
        object_mask: (h, w) M_o.
        umbras: (h, w) each, candidates for the umbra.
        cameras: candidates for camera and ground plane.
        gap: px between parts of one object.

    Returns:
        The sun; None where no object is on the ground plane.
    """
    hypotheses, typical = build_hypotheses(object_mask, cameras, gap)
    if not hypotheses:
        return None
    search = SunSearch(umbras, (~object_mask).astype(np.float32))
    azimuths = np.arange(0, 360, AZIMUTH_STEP)
    grid = np.array(
        [
            [np.max([search.add(hypotheses[k], float(a), e) for k in typical], 0) for e in CANDIDATE_ELEVATIONS]
            for a in azimuths
        ]
    )
    seeds = {peak for umbra in range(len(umbras)) for peak in find_azimuth_peaks(grid[:, :, umbra])}
    for a, e in sorted(seeds):
        azimuth, elevation = float(azimuths[a]), CANDIDATE_ELEVATIONS[e]
        agreements = np.array([max(search.add(hypothesis, azimuth, elevation)) for hypothesis in hypotheses])
        for k in np.argsort(-agreements, kind="stable")[:MAX_REFINED]:
            for turn, factor in REFINEMENT_STEPS:
                search.add(hypotheses[k], azimuth + turn, min(75.0, elevation * factor))
    sun = search.average_best()
    mirrors = [
        render_silhouette(hypotheses[k].solids, hypotheses[k].camera, -hypotheses[k].camera.axes[2], object_mask.shape)
        for k in typical
    ]
    mirror = max(compute_soft_iou(image, umbras[sun.umbra], search.region) for image in mirrors)
    best = grid[:, :, sun.umbra].max(1)
    return replace(sun, mirror=mirror, spread=AZIMUTH_STEP * float((best >= RIVAL_SHARE * best.max()).sum()))
