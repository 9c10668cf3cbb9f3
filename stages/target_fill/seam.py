"""What remains of the difference between the two shots along M_fg: its measurement, and the offset that removes it."""

import cv2
import numpy as np

from rasura.manifests.images import RGB, Mask
from rasura.stages.imaging.filters import Floats, blur, box_mean, channel_max
from rasura.stages.imaging.morphology import compute_distance_inside, compute_distance_to
from rasura.stages.target_fill.membrane import solve_membrane

DRIFT_RING = (0.02, 0.07)  # of the diagonal, distance from M_fg at which the camera's drift is measured
MIN_REGION_SHARE = 0.02  # of the picture: in a smaller region no drift is measured
MIN_RING = (12.0, 40.0)  # px, at least
NO_DRIFT, CERTAIN_DRIFT = 1.0, 1.5  # grey levels: what is left at the rim is the shadow's, is the camera's
PENUMBRA_SHARE = 0.03  # of the diagonal, from M_fg to where the difference is the camera's alone
RIM_SIGMA, FAR_SIGMA = 4.0, 8.0  # px of the Gaussian over the difference at the rim, and beyond the penumbra
DECAY_SHARE = 0.02  # of the diagonal, over which the rest of a penumbra dies away inside
MAX_RIM_LEVEL, MAX_RIM_SIGMAS = 14.0, 4.0  # a larger difference outside the rim is something else that changed
RIM_INSIDE, RIM_OUTSIDE = (7.0, 10.0), (2.0, 6.0)  # px from the rim: the bands whose offsets are compared
RIM_WINDOW = 25  # px, side of the window over which a band is averaged


def measure_drift(source: RGB, clean: RGB, foreground: Mask) -> float:
    """Measure by how many grey levels the two shots differ where the object's effects have ended.

    A camera that sets its own exposure or white balance shows in all of a ring around M_fg, and as much far away: the
    lower quintile of the 11 × 11 mean difference in the ring, or its median in the farther half of what is beyond, less
    where the ring's median is larger. The end of a shadow is on one side of the ring, and light that an object keeps
    off a room fades with distance.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        foreground: (h, w) bool, widened M_fg.

    Returns:
        Grey levels; 0 where there is no ring.
    """
    values = channel_max(np.abs(box_mean(source.astype(np.float32) - clean, 11)))
    distance = compute_distance_to(foreground)
    near, far = (
        max(px, share * float(np.hypot(*foreground.shape))) for px, share in zip(MIN_RING, DRIFT_RING, strict=True)
    )
    if not foreground.any():
        return 0.0
    ring, beyond = values[(distance >= near) & (distance <= far)], distance > far
    smallest = MIN_REGION_SHARE * values.size
    if beyond.sum() <= smallest:
        return float(np.percentile(ring, 20)) if ring.size > smallest else 0.0
    distant = float(np.median(values[distance > np.median(distance[beyond])]))
    if ring.size <= smallest:
        return 0.0
    fading = min(1.0, distant / max(float(np.median(ring)), 0.1))
    return fading * max(float(np.percentile(ring, 20)), distant)


def _continue_inside(delta: Floats, known: Mask, sigma: float, decay: float | None) -> Floats:
    """Continue the smoothed (h, w, 3) difference of the known pixels into the others (`solve_membrane`)."""
    weight = known.astype(np.float32)
    total = blur(weight, sigma)
    values = blur(delta * weight[..., None], sigma) / np.maximum(total, 1e-6)[..., None]
    return solve_membrane(np.asarray(values, np.float32), known & (total > 0.02), decay)


def estimate_rim_offset(source: RGB, clean: RGB, foreground: Mask, noise: float, drift: float) -> Floats:
    """Estimate what to add to `clean` inside M_fg, so that it meets `source` at the rim.

    Where the camera drifted, a membrane over M_fg and a margin around it, under the smoothed difference beyond: what
    the difference is nearer to M_fg is partly the rest of a penumbra. What remains of it at the rim then dies away
    inside (`DECAY_SHARE`): continued unchanged it would bring the shadow back.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        foreground: (h, w) bool, widened M_fg.
        noise: sigma of the 5 × 5 mean difference, grey levels.
        drift: grey levels, from `measure_drift`.

    Returns:
        (h, w, 3) float32, grey levels; 0 outside.
    """
    offset = np.zeros(source.shape, np.float32)
    if not foreground.any() or foreground.all():
        return offset
    diagonal = float(np.hypot(*foreground.shape))
    near = PENUMBRA_SHARE * diagonal
    margin = 48 + round(near)
    ys, xs = np.flatnonzero(foreground.any(1)), np.flatnonzero(foreground.any(0))
    window = np.s_[max(0, ys[0] - margin) : ys[-1] + margin + 1, max(0, xs[0] - margin) : xs[-1] + margin + 1]
    delta, inside = source[window].astype(np.float32) - clean[window], foreground[window]
    alike = channel_max(np.abs(box_mean(delta, 5))) < max(MAX_RIM_LEVEL, MAX_RIM_SIGMAS * noise)
    field = np.zeros_like(delta)
    certainty = float(np.clip((drift - NO_DRIFT) / (CERTAIN_DRIFT - NO_DRIFT), 0, 1))
    if certainty:
        far = alike & (compute_distance_to(inside) >= near)
        if far.mean() > MIN_REGION_SHARE:
            field = np.float32(certainty) * _continue_inside(delta, far, FAR_SIGMA, None)
    field += _continue_inside(delta - field, alike & ~inside, RIM_SIGMA, DECAY_SHARE * diagonal)
    offset[window] = field * inside[..., None]
    return offset


def measure_seam(target: RGB, clean: RGB, foreground: Mask) -> float:
    """Measure the step in the target along the rim of M_fg, in grey levels.

    With e = target − clean, which is free of the scene's own edges: |mean of e just inside − mean of e just outside|,
    largest channel, 95th percentile along the rim.

    Args:
        target, clean: (h, w, 3) uint8.
        foreground: (h, w) bool, M_fg as the target was filled.

    Returns:
        Grey levels; 0 where no rim is long enough to measure.
    """
    error = target.astype(np.float32) - clean
    depth, distance = compute_distance_inside(foreground), compute_distance_to(foreground)
    inside = (depth >= RIM_INSIDE[0]) & (depth <= RIM_INSIDE[1])
    outside = (distance >= RIM_OUTSIDE[0]) & (distance <= RIM_OUTSIDE[1])
    rim = foreground & (depth <= 1.5)
    sides = []
    for band in (inside, outside):
        weight = band.astype(np.float32)
        total = np.asarray(cv2.blur(weight, (RIM_WINDOW, RIM_WINDOW), borderType=cv2.BORDER_CONSTANT), np.float32)
        mean = cv2.blur(error * weight[..., None], (RIM_WINDOW, RIM_WINDOW), borderType=cv2.BORDER_CONSTANT)
        rim = rim & (total > 16 / RIM_WINDOW**2)
        sides.append(np.asarray(mean, np.float32) / np.maximum(total, 1e-6)[..., None])
    if not rim.any():
        return 0.0
    return float(np.percentile(channel_max(np.abs(sides[0] - sides[1]))[rim], 95))
