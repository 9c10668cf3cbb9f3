"""Stage `pair`: lays `gt` on `input`'s pixel grid and exposure, and measures how well the two fit.

`input` is never touched: it becomes the triplet's source. What is measured here (shift, leftover motion, gain,
noise, PSNR) is only stored; whether a camera counts as fixed is decided later, by thresholds on those columns.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from rasura.manifests.images import RGB, Mask
from rasura.manifests.schemas import Kind
from rasura.stages.stage import Kept, Outcome, Params, Record, Rejected, Stage

Floats = npt.NDArray[np.float32]

WORK_SIDE = 1536  # longest side at which motion is measured; larger pictures are scaled down to it
MAX_SHIFT = 0.1  # of the shorter side: what lies beyond is no slipped tripod but another picture
IDENTITY_BONUS = 0.02  # grey levels by which moving gt must win: interpolation alone lowers the residual a little
CALM_TILE = 0.3  # share of a tile that must show the same in both pictures
TILE_RESPONSE = 0.15  # phase correlation peaks below this are noise
UNSHADED = 80  # percentile of the brightness ratio at which no shadow is left: see `exposure_gain`
SMALL_SIDE = 96  # below this, tiles hold too few pixels for a correlation peak


@dataclass(frozen=True)
class Registration:
    """How gt was laid on input: px it moved right and down, and which estimate won."""

    dx: float
    dy: float
    method: str


def grey(picture: RGB) -> Floats:
    """(h, w, 3) uint8 to (h, w) float32 luma, 0 to 255."""
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY), np.float32)


def box_mean(values: npt.NDArray[Any], side: int) -> Floats:
    """Mean over a side × side window, same shape as `values`, borders mirrored."""
    return np.asarray(
        cv2.blur(np.asarray(values, np.float32), (side, side), borderType=cv2.BORDER_REFLECT_101), np.float32
    )


def channel_max(values: npt.NDArray[Any]) -> Floats:
    """(h, w, 3) to the largest of the three, (h, w) float32; numpy is ten times slower over so short an axis."""
    red, green, blue = cv2.split(np.asarray(values, np.float32))
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.float32)


def channel_mean(values: npt.NDArray[Any]) -> Floats:
    """(h, w, 3) to the mean of the three, (h, w) float32."""
    return np.asarray(cv2.transform(np.asarray(values, np.float32), np.full((1, 3), 1 / 3, np.float32)), np.float32)


def blur(values: npt.NDArray[Any], sigma: float) -> Floats:
    """Gaussian of `sigma` px, same shape as `values`."""
    return np.asarray(cv2.GaussianBlur(np.asarray(values, np.float32), (0, 0), sigma), np.float32)


def disc(radius: int) -> npt.NDArray[np.uint8]:
    """Structuring element of a filled circle."""
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)), np.uint8)


def dilate(mask: Mask, radius: int) -> Mask:
    """`mask` grown by `radius` px (a circle); unchanged for 0."""
    if radius <= 0:
        return mask.copy()
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disc(radius)), np.uint8) > 0


def range_distance(first: RGB, second: RGB, reach: int) -> Floats:
    """(h, w) float32, grey levels: how far `first` is from every value that `second` has within `reach` px.

    Zero on edges that only moved a little: a painted line that the camera saw one pixel aside is nothing new.
    """
    seen, other = blur(first, 1.0), blur(second, 1.0)
    kernel = disc(reach)
    over = seen - cv2.dilate(other, kernel)
    under = np.asarray(cv2.erode(other, kernel), np.float32) - seen
    return channel_max(np.maximum(np.maximum(over, under), 0))


def unchanged_pixels(first: Floats, second: Floats, margin: int = 9) -> Mask:
    """(h, w) True where two grey pictures show the same, `margin` px away from anything that differs.

    The common offset is taken off first, so that a flicker of the lamp changes no pixel.
    """
    delta = blur(first, 1.5) - blur(second, 1.5)
    delta -= np.median(delta)
    limit = max(10.0, 4 * 1.4826 * float(np.median(np.abs(delta))))
    return ~dilate(np.abs(delta) > limit, margin)


def _edges(picture: Floats) -> Floats:
    """Sobel magnitude after a blur of 1 px: what phase correlation sees, free of exposure and slow shading."""
    smooth = blur(picture, 1.0)
    return np.asarray(
        cv2.magnitude(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)), np.float32
    )


def _even_fast(length: int) -> int:
    """The smallest even length from `length` on for which the Fourier transform is fast."""
    while (fast := cv2.getOptimalDFTSize(length)) % 2:
        length = fast + 1
    return fast


def _correlate(moving: Floats, fixed: Floats) -> tuple[float, float, float]:
    """px that `moving` has to go right and down to lie on `fixed` (both edges), and the peak's response."""
    height, width = fixed.shape
    if min(height, width) < 4:
        return 0.0, 0.0, 0.0
    window = np.asarray(cv2.createHanningWindow((width, height), cv2.CV_32F), np.float32)
    # Padded here: OpenCV pads to any fast size, and with an odd one its answer is half a pixel off.
    below, right = _even_fast(height) - height, _even_fast(width) - width
    first, second = (cv2.copyMakeBorder(p * window, 0, below, 0, right, cv2.BORDER_CONSTANT) for p in (moving, fixed))
    (dx, dy), response = cv2.phaseCorrelate(first, second)
    if not np.isfinite([dx, dy, response]).all():
        return 0.0, 0.0, 0.0  # a flat picture has no phase
    return float(dx), float(dy), float(response)


def _ecc(moving: Floats, fixed: Floats, mask: Mask, start: tuple[float, float]) -> tuple[float, float] | None:
    """Enhanced correlation coefficient (Evangelidis & Psarakis 2008) for a translation, on `mask` only.

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


def _moved(picture: npt.NDArray[Any], dx: float, dy: float) -> npt.NDArray[Any]:
    matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float64)
    height, width = picture.shape[:2]
    # Not INTER_CUBIC: OpenCV's kernel (a = -0.75) lays the picture up to 0.04 px beside where it was sent.
    return np.asarray(
        cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101)
    )


def move(picture: RGB, dx: float, dy: float, fill: RGB, alike: float = 20.0) -> RGB:
    """`picture` moved right by dx and down by dy px (Lanczos); pixels that have no data are taken from `fill`.

    But not from an object that `fill` has there: where it is more than `alike` grey levels from everything that
    `picture` shows near that place, `picture` is mirrored instead.

    Shapes (h, w, 3) uint8, both. A shift of exactly zero returns the same values.
    """
    if dx == 0 and dy == 0:
        return picture
    moved = _moved(np.ascontiguousarray(picture), dx, dy)
    height, width = picture.shape[:2]
    columns, rows = np.arange(width) - dx, np.arange(height) - dy
    known = ((rows >= 0) & (rows <= height - 1))[:, None] & ((columns >= 0) & (columns <= width - 1))[None, :]
    unlike = range_distance(fill, moved, int(np.ceil(max(abs(dx), abs(dy)))) + 3) > alike
    unlike = dilate(np.asarray(cv2.medianBlur(unlike.astype(np.uint8), 3), np.uint8) > 0, 4)
    return np.where((known | unlike)[..., None], moved, fill).astype(np.uint8)


def _tile_vectors(fixed: Floats, moving: Floats) -> npt.NDArray[np.float64]:
    """(n, 2) px that each tile of `moving` has to go to lie on `fixed`; tiles without a clear peak are left out."""
    height, width = fixed.shape
    calm = unchanged_pixels(fixed, moving)
    small = min(height, width) < SMALL_SIDE
    high, wide = (height, width) if small else (height // 3, width // 3)
    corners = [(row * (height - high) // 3, col * (width - wide) // 3) for row in range(4) for col in range(4)]
    if not small:  # an object compares itself with what lies behind it: only what shows the same is asked
        weight = blur(calm, 3.0)
        fixed, moving = ((e - box_mean(e, 31)) * weight for e in (_edges(fixed), _edges(moving)))
    else:
        corners, fixed, moving = corners[:1], _edges(fixed), _edges(moving)
    vectors = []
    for top, left in corners:
        part = np.s_[top : top + high, left : left + wide]
        if not small and calm[part].mean() < CALM_TILE:
            continue
        dx, dy, response = _correlate(np.ascontiguousarray(moving[part]), np.ascontiguousarray(fixed[part]))
        if response > TILE_RESPONSE:
            vectors.append((dx, dy))
    return np.asarray(vectors, np.float64).reshape(-1, 2)


def register(source: RGB, clean: RGB) -> Registration:
    """Translation that lays `clean` on `source`: identity, phase correlation, ECC or tiles, by residual.

    Phase correlation finds the neighbourhood, ECC the sub-pixel part. Neither is trusted: on a floor that repeats
    itself ECC can lock one tile off. The residual is the mean |difference|, cut at 30 levels, of unchanged pixels.

    Args:
        source, clean: (h, w, 3) uint8 of one size.
    """
    height, width = source.shape[:2]
    scale = min(1.0, WORK_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    fixed, moving = (
        cv2.resize(grey(p), size, interpolation=cv2.INTER_AREA).astype(np.float32) if scale < 1 else grey(p)
        for p in (source, clean)
    )
    moving = moving * float(_mode_gain(box_mean(fixed, 5), box_mean(moving, 5)))
    limit = MAX_SHIFT * min(size)
    phase = _correlate(_edges(moving), _edges(fixed))[:2]
    if max(map(abs, phase)) > limit:
        phase = (0.0, 0.0)
    candidates = {"identity": (0.0, 0.0), "phase": phase}
    mask = unchanged_pixels(fixed, _moved(moving, *phase).astype(np.float32))
    if mask.mean() > 0.05 and min(size) > 16:
        found = _ecc(moving, fixed, mask, phase)
        if found is not None and max(map(abs, found)) <= limit:
            candidates["ecc"] = found
    # One set of pixels judges all of them, inside the border that a move leaves without data.
    margin = min(int(np.ceil(max(abs(v) for c in candidates.values() for v in c))) + 2, (min(size) - 1) // 2)
    inside = np.zeros_like(mask)
    inside[margin : size[1] - margin, margin : size[0] - margin] = True
    judged = mask & inside if (mask & inside).any() else inside
    sharp = blur(fixed, 1.0)

    def residual(name: str) -> float:
        delta = np.abs(sharp - blur(_moved(moving, *candidates[name]), 1.0))[judged]
        return float(np.minimum(delta, 30).mean()) + (IDENTITY_BONUS if name != "identity" else 0.0)

    best = min(candidates, key=residual)
    # A codec's blocks and a floor's repeats pull on the whole picture; the median of tiles shrugs them off.
    vectors = _tile_vectors(fixed, _moved(moving, *candidates[best]).astype(np.float32))
    if len(vectors) >= 4:
        dx, dy = (float(a + b) for a, b in zip(candidates[best], np.median(vectors, axis=0), strict=True))
        if max(abs(dx - candidates[best][0]), abs(dy - candidates[best][1])) < 1:
            candidates["tiles"] = (dx, dy)
            best = min((best, "tiles"), key=residual)
    dx, dy = candidates[best]
    return Registration(dx / scale, dy / scale, best)


def tile_motion(source: RGB, clean: RGB) -> float:
    """px of motion left between two registered pictures: the median length over 4 × 4 overlapping tiles.

    Objects move single tiles; a turned or zoomed camera moves most. Tiles without a clear correlation peak (no
    texture) do not vote; 0 when none does. Pictures below 96 px are one tile.
    """
    height, width = source.shape[:2]
    scale = min(1.0, WORK_SIDE / max(height, width))
    fixed, moving = grey(source), grey(clean)
    if scale < 1:
        size = (round(width * scale), round(height * scale))
        fixed = np.asarray(cv2.resize(fixed, size, interpolation=cv2.INTER_AREA), np.float32)
        moving = np.asarray(cv2.resize(moving, size, interpolation=cv2.INTER_AREA), np.float32)
    vectors = _tile_vectors(fixed, moving)
    return float(np.median(np.hypot(vectors[:, 0], vectors[:, 1]))) / scale if len(vectors) else 0.0


def _mode_gain(source: Floats, clean: Floats) -> float:
    """Most frequent ratio source / clean of one channel (both 5 × 5 means), 1 where too few pixels can tell."""
    usable = (clean > 12) & (clean < 247) & (source > 4) & (source < 247)
    if usable.sum() < 200:
        return 1.0
    ratio = np.log(source[usable] / clean[usable])
    counts, edges = np.histogram(ratio, bins=241, range=(-0.6025, 0.6025))  # bins of half a per cent
    smooth = np.convolve(counts, [1, 2, 3, 2, 1], "same")
    peak = int(smooth.argmax())
    centre = float(edges[peak] + edges[peak + 1]) / 2
    for _ in range(3):
        near = ratio[np.abs(ratio - centre) < 0.02]
        if near.size:
            centre = float(near.mean())
    return float(np.exp(centre))


def exposure_gain(source: RGB, clean: RGB, dead_zone: float = 0.0035, far: int = 20) -> tuple[float, float, float]:
    """Gain a channel that brings `clean` (registered) to `source`'s exposure: source ≈ gain · clean.

    What an object does to the light of its scene is mostly to take some, faintly and far around it. So the exposure
    is what the unshaded part shows: the 80th percentile of log(source / clean) over wide means, of pixels at least
    `far` px from large changes; a mode or median would sit in the shade, .3 % too dark. Channels differ from that
    by their median there. Exactly (1, 1, 1) when every channel is within the dead zone, or where an unchanged exposure
    fits as well (1 lies between the 45th and the 95th percentile, and no channel stands out): correcting nothing is
    better than half a level of made-up light over the whole picture.
    """
    rough = _mode_gain(box_mean(grey(source), 5), box_mean(grey(clean), 5))
    reach = min(far, max(1, min(source.shape[:2]) // 16))
    calm = unchanged_pixels(grey(source), grey(clean) * rough, reach)
    side = max(5, min(source.shape[:2]) // 15 | 1)
    mine, theirs = box_mean(source, side), box_mean(clean, side)
    usable = (channel_mean(theirs) > 12) & (channel_max(theirs) < 247)
    usable &= (channel_mean(mine) > 4) & (channel_max(mine) < 247)
    where = usable & calm if (usable & calm).mean() > 0.05 else usable
    if where.sum() < 200:
        return 1.0, 1.0, 1.0
    mine, theirs = mine[where], theirs[where]
    ratio = np.log((mine @ np.ones(3, np.float32)) / (theirs @ np.ones(3, np.float32)))
    lower, level, upper = (float(v) for v in np.percentile(ratio, (45, UNSHADED, 95)))
    near = np.abs(ratio - level) < 0.01
    tints = np.median(np.log((mine[near] + 1) / (theirs[near] + 1)) - ratio[near, None], axis=0)
    gains = np.exp(level + tints)
    fits = lower <= 0 <= upper and bool((np.abs(tints) < dead_zone).all()) and abs(level) < 0.015
    if dead_zone and (fits or (np.abs(gains - 1) < dead_zone).all()):
        return 1.0, 1.0, 1.0
    return float(gains[0]), float(gains[1]), float(gains[2])


def apply_gain(picture: RGB, gains: tuple[float, float, float]) -> RGB:
    """`picture` times a gain a channel, rounded and clipped to uint8."""
    if gains == (1.0, 1.0, 1.0):
        return picture
    return np.asarray(np.clip(np.rint(picture * np.array(gains, np.float32)), 0, 255), np.uint8)


def pair_noise(source: RGB, clean: RGB) -> float:
    """Sigma, in grey levels, of the 5 × 5 mean difference of pixels that show the same; the noisiest channel's.

    Taken from box5(Δ) − box15(Δ): a soft shadow over half the picture is no noise, and a plain median of |Δ|
    would count it as such.
    """
    sigma = 0.0
    calm = unchanged_pixels(grey(source), grey(clean))
    for channel in range(3):
        delta = source[..., channel].astype(np.float32) - clean[..., channel]
        high = box_mean(delta, 5) - box_mean(delta, 15)
        values = high[calm] if calm.mean() > 0.05 else high.ravel()
        sigma = max(sigma, 1.4826 * float(np.median(np.abs(values - np.median(values)))))
    return sigma


def background_psnr(source: RGB, clean: RGB) -> float:
    """PSNR in dB of the pixels that show the same; at most 99 (identical)."""
    calm = unchanged_pixels(grey(source), grey(clean))
    delta = (source.astype(np.float32) - clean)[calm if calm.any() else np.ones_like(calm)]
    error = float(np.mean(delta * delta, dtype=np.float64))
    return 99.0 if error < 1e-5 else min(99.0, float(10 * np.log10(255**2 / error)))


class PairParams(Params):
    register_pictures: bool = Field(True, description="Move gt onto input's pixel grid (translation).")
    match_exposure: bool = Field(True, description="Scale gt's channels to input's exposure.")
    dead_zone: float = Field(0.0035, ge=0, description="Gains closer to 1 than this are left at 1.")


class Pair(Stage):
    """Registers gt to input and matches its exposure."""

    name = "pair"
    version = "2"
    needs = {"input": Kind.RGB, "gt": Kind.RGB}
    gives = {
        "gt": Kind.RGB,
        "pair_shift_x": Kind.FLOAT,
        "pair_shift_y": Kind.FLOAT,
        "pair_motion": Kind.FLOAT,
        "pair_gain": Kind.FLOATS,
        "pair_noise": Kind.FLOAT,
        "pair_psnr": Kind.FLOAT,
    }
    Params = PairParams

    def process_one(self, record: Record) -> Outcome:
        source, clean = record["input"], record["gt"]
        if source.shape != clean.shape:
            sizes = [f"{p.shape[1]}x{p.shape[0]}" for p in (source, clean)]
            return Rejected("frames do not match", f"input {sizes[0]}, gt {sizes[1]}")
        found = register(source, clean) if self.params.register_pictures else Registration(0.0, 0.0, "identity")
        moved = move(clean, found.dx, found.dy, source)
        gains = exposure_gain(source, moved, self.params.dead_zone) if self.params.match_exposure else (1.0, 1.0, 1.0)
        # Gained before it is moved, so that what is filled in from input keeps input's own exposure.
        fitted = move(apply_gain(clean, gains), found.dx, found.dy, source)
        return Kept(
            [
                record
                | {
                    "gt": fitted,
                    "pair_shift_x": found.dx,
                    "pair_shift_y": found.dy,
                    "pair_motion": tile_motion(source, fitted),
                    "pair_gain": list(gains),
                    "pair_noise": pair_noise(source, fitted),
                    "pair_psnr": background_psnr(source, fitted),
                }
            ]
        )
