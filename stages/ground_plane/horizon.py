"""The horizon of a photo from its straight lines, with an error that can be believed.

Lines that are level and parallel in the world meet on the horizon, upright ones at the zenith. Each row and roll of the
horizon is judged by how many more segments point at its vanishing points than would by chance. What comes out is the
*row*, which needs no focal length; the zenith needs one, and is marginalised over it: a fixed focal length was wrong
with confidence. The posterior's deviation is the error, and where it is large nothing is stated.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rasura.stages.ground_plane.line_segments import Segments

Array = npt.NDArray[Any]

ROWS = np.arange(-1.1, 1.3001, 0.04)  # of the height; a picture whose horizon is lower still shows no ground
ROLLS = np.deg2rad(np.arange(-8.0, 8.1, 2.0))
FINE_ROWS, FINE_ROLLS = np.arange(-8, 9) * 0.01, np.deg2rad(np.arange(-4, 5) * 0.5)
FINE_CELL = 1 / 16  # area of a fine cell in coarse ones
AZIMUTHS = np.deg2rad(np.arange(-90.0, 90.0, 2.0))  # of vanishing points on the horizon
FOCALS = np.array([0.75, 0.95, 1.2, 1.6, 2.2, 3.2])  # long sides
USUAL_FOCAL = 2  # of FOCALS
FOCAL_CHANCES = np.exp(-0.5 * (np.log(FOCALS) / 0.4) ** 2)
POINTS, POINT_COST = 3, 5.0  # vanishing points on the horizon, and what each has to gain, nats
LEVEL_SHARE, UPRIGHT_SHARE = 0.3, 0.4  # of segments that point at one vanishing point, at the zenith
STEEP = np.deg2rad(55)  # direction from which a segment may be upright
LEAST_RATIO = 0.5  # how much less probable than by chance a segment can be
TEMPER = 0.3  # segments of one thing are not independent
USUAL_ROWS = ((0.85, -0.06, 0.28), (0.15, -0.6, 0.4))  # share, long sides below the middle, spread: level, or down
USUAL_ROLL = np.deg2rad(2.5)
SOFTNESS, LEAK = 0.015, 3e-4  # of the bounds of sky and ground: share of the height, and chance that one is wrong
MIN_SKY_ERROR = 2.0  # degrees: hills and woods stand before most horizons
MIN_SEGMENTS = 5
PIXELS_TO_DEGREES = float(np.sqrt(3) / 2)  # focal length, long sides, of 60 degrees across: turns rows into degrees
MAX_HORIZON_ERROR = 5.0  # degrees: a horizon that is less certain is not stated


@dataclass(frozen=True)
class Horizon:
    """A horizon: y = row + (x - width / 2) tan(roll), in pixels of the picture."""

    row: float  # px, at the middle column; may be outside
    roll: float  # degrees, positive where it falls to the right
    error: float  # degrees of view, for a picture of 60 degrees across: a standard deviation


def compute_point_ratios(segments: Segments, points: Array, share: float) -> Array:
    """Compute how much more probable each segment is if `share` of all point at a vanishing point than by chance.

    Args:
        points: (..., 3) homogeneous, in the segments' coordinates.

    Returns:
        (..., n) share * (density of the angle to the point / uniform density), without the share of the others.
    """
    x, y, w = (points[..., k, None].astype(np.float32) for k in range(3))
    middles, angles, errors = (
        values.astype(np.float32) for values in (segments.middles, segments.angles, segments.errors)
    )
    cos, sin = np.cos(angles), np.sin(angles)
    # the point's direction along and across each segment; the sine of the angle between them is what counts
    along = x * cos + y * sin - w * (middles[:, 0] * cos + middles[:, 1] * sin)
    across = y * cos - x * sin - w * (middles[:, 1] * cos - middles[:, 0] * sin)
    across *= across
    along *= along
    along += across
    across /= np.maximum(along, np.float32(1e-12))
    across *= np.float32(-0.5) / errors**2
    np.exp(across, out=across)
    across *= np.float32(share * np.sqrt(np.pi / 2)) / errors
    return np.asarray(across)


def score_horizons(segments: Segments, offsets: Array, roll: float) -> Array:
    """Compute the log likelihood of horizons of one roll, against segments by chance; up to three vanishing points.

    Args:
        offsets: (m,) of the horizon below the picture's middle, long sides. roll: radians.

    Returns:
        (m,) nats.
    """
    normal, along = np.array([-np.sin(roll), np.cos(roll)]), np.array([np.cos(roll), np.sin(roll)])
    distance = (offsets * np.cos(roll))[:, None]  # (m, 1) of the horizon from the middle
    reach = np.sqrt(PIXELS_TO_DEGREES**2 + distance**2)
    level = np.empty((len(offsets), len(AZIMUTHS), 3))
    level[..., :2] = np.cos(AZIMUTHS)[:, None] * (distance[..., None] * normal)
    level[..., :2] += (np.sin(AZIMUTHS) * reach)[..., None] * along
    level[..., 2] = np.cos(AZIMUTHS)
    ratios = compute_point_ratios(segments, level, LEVEL_SHARE)  # (m, azimuths, n)
    steep = np.abs(np.sin(segments.angles)) > np.sin(STEEP)
    zenith = np.empty((len(FOCALS), len(offsets), 3))
    zenith[..., :2] = -(FOCALS[:, None, None] ** 2) * normal
    zenith[..., 2] = distance[:, 0]
    upright = np.where(steep, compute_point_ratios(segments, zenith, UPRIGHT_SHARE), 0)  # (focals, m, n)
    chance = np.where(steep, 1 - UPRIGHT_SHARE, 1.0).astype(np.float32)
    weights = segments.weights.astype(np.float32)
    explained = upright[USUAL_FOCAL]  # (m, n): points are chosen at one focal length, and then judged at all
    total = np.log(np.maximum(chance, LEAST_RATIO) + explained) @ weights
    level_part, count = np.zeros_like(explained), np.zeros(len(offsets))
    lines = np.arange(len(offsets))
    for _ in range(POINTS):
        left = np.maximum(chance - LEVEL_SHARE * (count[:, None] + 1), LEAST_RATIO)
        scores = np.log((left + explained)[:, None] + ratios) @ weights  # (m, azimuths)
        best = np.argmax(scores, axis=1)
        gain = scores[lines, best] - total - POINT_COST
        better = gain > 0
        if not better.any():
            break
        step = np.where(better[:, None], ratios[lines, best], 0)
        explained, level_part = explained + step, level_part + step
        count += better
        total = total + np.where(better, gain, 0)
    left = np.maximum(chance - LEVEL_SHARE * count[:, None], LEAST_RATIO)
    by_focal = np.log(left + level_part + upright) @ weights - POINT_COST * count  # (focals, m)
    return np.asarray(by_focal)


def log_usual_rows(offsets: Array) -> Array:
    """Return the log chance of horizons, long sides below the picture's middle: near it, or far up of what is below.

    Examples:
        >>> log_usual_rows(np.array([-0.9, -0.08, 0.6])).round(1).tolist()
        [-1.1, 1.2, -1.6]
    """
    parts = np.zeros_like(offsets, dtype=np.float64)
    for share, middle, spread in USUAL_ROWS:
        parts = parts + share / spread * np.exp(-0.5 * ((offsets - middle) / spread) ** 2)
    return np.asarray(np.log(parts))


def estimate_horizon_from_lines(segments: Segments, shape: tuple[int, int]) -> Horizon | None:
    """Estimate the horizon from straight segments; None where there are too few of them.

    Args:
        shape: height, width of the picture, px.

    Source: Kosecka and Zhang, "Video Compass" (ECCV 2002), for the mixture; the marginal over the focal length and the
    error are this project's.
    """
    if len(segments) < MIN_SEGMENTS:
        return None
    height, long_side = shape[0], max(shape)

    def judge(rows: Array, rolls: Array) -> Array:
        """Return the log posterior (rolls, rows), up to a constant."""
        offsets = (rows - 0.5) * height / long_side
        likelihood = np.stack([score_horizons(segments, offsets, float(roll)) for roll in rolls])
        tempered = TEMPER * likelihood + np.log(FOCAL_CHANCES)[:, None]
        top = tempered.max(axis=1, keepdims=True)
        marginal = (top + np.log(np.exp(tempered - top).sum(axis=1, keepdims=True)))[:, 0]
        usual = log_usual_rows(offsets)[None] - 0.5 * ((rolls / USUAL_ROLL) ** 2)[:, None]
        return np.asarray(marginal + usual)

    coarse = judge(ROWS, ROLLS)
    roll_index, row_index = np.unravel_index(int(np.argmax(coarse)), coarse.shape)
    rows, rolls = ROWS[row_index] + FINE_ROWS, ROLLS[roll_index] + FINE_ROLLS
    fine = judge(rows, rolls)
    # the fine cells take the place of the coarse ones around the best
    outside = (np.abs(ROWS - ROWS[row_index]) > FINE_ROWS[-1] + 0.02)[None] | (
        np.abs(ROLLS - ROLLS[roll_index]) > FINE_ROLLS[-1] + np.deg2rad(1)
    )[:, None]
    top = max(float(fine.max()), float(coarse.max()))
    cell = FINE_CELL
    chance = np.concatenate([(np.exp(coarse - top) * outside).ravel(), cell * np.exp(fine - top).ravel()])
    where = np.concatenate([np.broadcast_to(ROWS, coarse.shape).ravel(), np.broadcast_to(rows, fine.shape).ravel()])
    best = np.unravel_index(int(np.argmax(fine)), fine.shape)
    row = float(rows[best[1]])
    degrees = np.rad2deg(np.arctan((where - row) * height / long_side / PIXELS_TO_DEGREES))
    error = float(np.sqrt((chance @ degrees**2) / chance.sum()))
    return Horizon(row * height, float(np.rad2deg(rolls[best[0]])), error)


def estimate_horizon_from_sky(sky_end: float, region_top: float, shape: tuple[int, int]) -> Horizon | None:
    """Estimate the horizon between the lower end of the sky and the upper end of the ground.

    Both bounds are soft, and each is wrong once in 3000 times; what is left between them is judged by where horizons
    usually are.

    Args:
        sky_end, region_top: rows, shares of the height. shape: height, width, px.

    Returns:
        None where the bounds contradict each other.

    Examples:
        >>> horizon = estimate_horizon_from_sky(0.3, 0.4, (400, 600))
        >>> round(horizon.row), horizon.error < 5
        (140, True)
        >>> estimate_horizon_from_sky(0.5, 0.4, (400, 600)) is None
        True
    """
    if sky_end > region_top:
        return None
    height, long_side = shape[0], max(shape)
    rows = np.arange(-0.2, 1.2, 0.005)
    usual = np.exp(log_usual_rows((rows - 0.5) * height / long_side))
    below, above = (1 / (1 + np.exp(-np.clip(off / SOFTNESS, -60, 60))) for off in (rows - sky_end, region_top - rows))
    chance = usual * (LEAK + below) * (LEAK + above)
    chance /= chance.sum()
    row = float(chance @ rows)
    degrees = np.rad2deg(np.arctan((rows - row) * height / long_side / PIXELS_TO_DEGREES))
    return Horizon(row * height, 0.0, max(MIN_SKY_ERROR, float(np.sqrt(chance @ degrees**2))))


def compute_horizon_pitch(horizon: Horizon, focal: float, shape: tuple[int, int]) -> tuple[float, float]:
    """Compute how far a camera looks down and rolls, degrees as of `known_objects.make_plane`, from its horizon.

    Examples:
        >>> [round(v, 6) for v in compute_horizon_pitch(Horizon(50.0, 0.0, 1.0), 100.0, (300, 400))]
        [45.0, -0.0]
    """
    slope = float(np.tan(np.deg2rad(horizon.roll)))
    ahead = (shape[0] / 2 - horizon.row) / focal
    pitch = np.arcsin(ahead / np.sqrt(slope**2 + 1 + ahead**2))
    return float(np.rad2deg(pitch)), float(np.rad2deg(np.arctan(-slope)))


def compute_plane_horizon(plane: tuple[float, float, float, float], focal: float, shape: tuple[int, int]) -> float:
    """Compute the row, px, at which the horizon of a ground plane crosses the middle column.

    Examples:
        >>> compute_plane_horizon((0.0, 1.0, 0.0, 1.6), 100.0, (300, 400))
        150.0
    """
    _, ny, nz, _ = plane
    return float(shape[0] / 2 - focal * nz / max(ny, 1e-6))
