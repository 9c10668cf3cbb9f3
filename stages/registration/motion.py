"""Motion between two pictures of one scene: the translation that registers them, and what is left of it.

Phase correlation finds the neighbourhood, the enhanced correlation coefficient (ECC) the sub-pixel part; a residual
over unchanged pixels decides between them, since either can be wrong where the background repeats itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import RGB, Mask
from rasura.stages.imaging.comparison import find_unchanged_pixels
from rasura.stages.imaging.filters import Floats, blur, box_mean, compute_gradient_magnitude, convert_to_grey
from rasura.stages.registration.exposure import estimate_modal_gain
from rasura.stages.registration.resampling import translate

Shift = tuple[float, float]  # px to the right and down

WORKING_SIDE = 1536  # longest side at which motion is measured; larger pictures are scaled down to it
MAX_SHIFT_SHARE = 0.1  # of the shorter side: anything beyond is no slipped tripod but another picture
IDENTITY_BONUS = 0.02  # grey levels by which moving gt must win: interpolation alone lowers the residual a little
MIN_UNCHANGED_SHARE = 0.3  # share of a tile that must show the same in both pictures
MIN_PEAK_RESPONSE = 0.15  # phase correlation peaks below this are noise
MIN_TILED_SIDE = 96  # px; below this, tiles hold too few pixels for a correlation peak


@dataclass(frozen=True)
class Registration:
    """The translation that lays gt on input.

    Attributes:
        dx, dy: px by which gt moves right and down.
        method: the estimate with the smallest residual: identity, phase, ecc or tiles.
    """

    dx: float
    dy: float
    method: str


def compute_edge_magnitude(picture: Floats) -> Floats:
    """Return the Sobel magnitude of (h, w) after a blur of 1 px.

    Phase correlation of edges is free of exposure and slow shading.
    """
    return compute_gradient_magnitude(blur(picture, 1.0))


def find_even_dft_size(length: int) -> int:
    """Return the smallest even length from `length` on for which the Fourier transform is fast.

    Examples:
        >>> [find_even_dft_size(length) for length in (8, 11, 125)]
        [8, 12, 128]
    """
    while (fast := cv2.getOptimalDFTSize(length)) % 2:
        length = fast + 1
    return fast


def correlate_phase(moving: Floats, fixed: Floats) -> tuple[float, float, float]:
    """Estimate the translation from `moving` to `fixed`, both (h, w) edges, by phase correlation.

    Returns:
        px that `moving` has to go right and down, and the response of the correlation peak; zeros where the
        pictures are below 4 px or flat.
    """
    height, width = fixed.shape
    if min(height, width) < 4:
        return 0.0, 0.0, 0.0
    window = np.asarray(cv2.createHanningWindow((width, height), cv2.CV_32F), np.float32)
    # Padded here: OpenCV pads to any fast size, and with an odd one its answer is half a pixel off.
    below, right = find_even_dft_size(height) - height, find_even_dft_size(width) - width
    first, second = (cv2.copyMakeBorder(p * window, 0, below, 0, right, cv2.BORDER_CONSTANT) for p in (moving, fixed))
    (dx, dy), response = cv2.phaseCorrelate(first, second)
    if not np.isfinite([dx, dy, response]).all():
        return 0.0, 0.0, 0.0  # a flat picture has no phase
    return float(dx), float(dy), float(response)


def maximize_ecc(moving: Floats, fixed: Floats, mask: Mask, start: Shift) -> Shift | None:
    """Estimate a translation by maximizing the enhanced correlation coefficient on `mask`.

    Source: Evangelidis & Psarakis, Parametric Image Alignment Using Enhanced Correlation Coefficient Maximization,
    2008.

    Returns:
        px that `moving` has to go right and down, or None where it does not converge.
    """
    warp = np.array([[1, 0, -start[0]], [0, 1, -start[1]]], np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-5)
    try:
        _, warp = cv2.findTransformECC(  # type: ignore[assignment]
            blur(fixed, 1.0), blur(moving, 1.0), warp, cv2.MOTION_TRANSLATION, criteria, mask.astype(np.uint8) * 255, 1
        )
    except cv2.error:  # singular: no texture, or the two have nothing in common
        return None
    return (-float(warp[0, 2]), -float(warp[1, 2])) if np.isfinite(warp).all() else None


def measure_tiles(fixed: Floats, moving: Floats) -> npt.NDArray[np.float64]:
    """Estimate the translation of each of 4 × 4 overlapping tiles from `moving` to `fixed`, (h, w) grey both.

    Returns:
        (n, 4): x and y of a tile's centre, px to the right and down; tiles without a clear peak are left out. Pictures
        below 96 px are one tile.
    """
    height, width = fixed.shape
    unchanged = find_unchanged_pixels(fixed, moving)
    small = min(height, width) < MIN_TILED_SIDE
    high, wide = (height, width) if small else (height // 3, width // 3)
    corners = [(row * (height - high) // 3, col * (width - wide) // 3) for row in range(4) for col in range(4)]
    if not small:  # an object would be compared with the background behind it: only unchanged pixels count
        weight = blur(unchanged, 3.0)
        fixed, moving = (
            (e - box_mean(e, 31)) * weight for e in (compute_edge_magnitude(fixed), compute_edge_magnitude(moving))
        )
    else:
        corners, fixed, moving = corners[:1], compute_edge_magnitude(fixed), compute_edge_magnitude(moving)
    vectors = []
    for top, left in corners:
        tile = np.s_[top : top + high, left : left + wide]
        if not small and unchanged[tile].mean() < MIN_UNCHANGED_SHARE:
            continue
        dx, dy, response = correlate_phase(np.ascontiguousarray(moving[tile]), np.ascontiguousarray(fixed[tile]))
        if response > MIN_PEAK_RESPONSE:
            vectors.append((left + wide / 2, top + high / 2, dx, dy))
    return np.asarray(vectors, np.float64).reshape(-1, 4)


def estimate_tile_shifts(fixed: Floats, moving: Floats) -> npt.NDArray[np.float64]:
    """Estimate the translations of `measure_tiles`, (n, 2) px to the right and down."""
    return measure_tiles(fixed, moving)[:, 2:]


def resize_to_working_size(source: RGB, clean: RGB) -> tuple[Floats, Floats, float]:
    """Return both pictures as (h, w) grey, at most `WORKING_SIDE` px, and the scale that was applied."""
    height, width = source.shape[:2]
    scale = min(1.0, WORKING_SIDE / max(height, width))
    fixed, moving = convert_to_grey(source), convert_to_grey(clean)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        fixed = np.asarray(cv2.resize(fixed, size, interpolation=cv2.INTER_AREA), np.float32)
        moving = np.asarray(cv2.resize(moving, size, interpolation=cv2.INTER_AREA), np.float32)
    return fixed, moving, scale


def estimate_global_shifts(fixed: Floats, moving: Floats) -> tuple[dict[str, Shift], Mask]:
    """Return the candidate translations identity, phase and, where it converges, ecc; and the unchanged pixels."""
    size = fixed.shape
    limit = MAX_SHIFT_SHARE * min(size)
    phase = correlate_phase(compute_edge_magnitude(moving), compute_edge_magnitude(fixed))[:2]
    if max(map(abs, phase)) > limit:
        phase = (0.0, 0.0)
    candidates = {"identity": (0.0, 0.0), "phase": phase}
    unchanged = find_unchanged_pixels(fixed, translate(moving, *phase).astype(np.float32))
    if unchanged.mean() > 0.05 and min(size) > 16:
        ecc = maximize_ecc(moving, fixed, unchanged, phase)
        if ecc is not None and max(map(abs, ecc)) <= limit:
            candidates["ecc"] = ecc
    return candidates, unchanged


def select_evaluated_pixels(unchanged: Mask, shifts: Sequence[Shift]) -> Mask:
    """Return the unchanged pixels inside the border that any of the shifts leaves without data; all if none is left."""
    height, width = unchanged.shape
    margin = min(int(np.ceil(max(abs(v) for shift in shifts for v in shift))) + 2, (min(height, width) - 1) // 2)
    inside = np.zeros_like(unchanged)
    inside[margin : height - margin, margin : width - margin] = True
    return unchanged & inside if (unchanged & inside).any() else inside


def estimate_registration(source: RGB, clean: RGB) -> Registration:
    """Estimate the translation that lays `clean` on `source`: the candidate with the smallest residual.

    The residual is the mean |difference|, cut at 30 grey levels, of unchanged pixels; one set of pixels for all
    candidates. Interpolated candidates have to beat the identity by `IDENTITY_BONUS`.

    Args:
        source, clean: (h, w, 3) uint8 of one size.
    """
    fixed, moving, scale = resize_to_working_size(source, clean)
    moving = moving * float(estimate_modal_gain(box_mean(fixed, 5), box_mean(moving, 5)))
    candidates, unchanged = estimate_global_shifts(fixed, moving)
    evaluated = select_evaluated_pixels(unchanged, list(candidates.values()))
    smooth = blur(fixed, 1.0)

    def compute_residual(name: str) -> float:
        delta = np.abs(smooth - blur(translate(moving, *candidates[name]), 1.0))[evaluated]
        return float(np.minimum(delta, 30).mean()) + (IDENTITY_BONUS if name != "identity" else 0.0)

    best = min(candidates, key=compute_residual)
    # A codec's blocks and repeating tiles bias the global estimate; the median of tiles is robust against both.
    vectors = estimate_tile_shifts(fixed, translate(moving, *candidates[best]).astype(np.float32))
    if len(vectors) >= 4:
        dx, dy = (float(a + b) for a, b in zip(candidates[best], np.median(vectors, axis=0), strict=True))
        if max(abs(dx - candidates[best][0]), abs(dy - candidates[best][1])) < 1:
            candidates["tiles"] = (dx, dy)
            best = min((best, "tiles"), key=compute_residual)
    dx, dy = candidates[best]
    return Registration(dx / scale, dy / scale, best)


def measure_residual_motion(source: RGB, clean: RGB) -> float:
    """Return the px of motion that are left between two registered pictures: the median length over tiles.

    Objects move single tiles; a turned or zoomed camera moves most. Tiles without a clear correlation peak (no
    texture) do not vote; 0 when none does.
    """
    fixed, moving, scale = resize_to_working_size(source, clean)
    vectors = estimate_tile_shifts(fixed, moving)
    return float(np.median(np.hypot(vectors[:, 0], vectors[:, 1]))) / scale if len(vectors) else 0.0
