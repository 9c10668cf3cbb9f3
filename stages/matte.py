"""Stage `matte`: cuts the object with its effects out of a pair, as RGBA that can be laid over another background.

Eq. 1 of OBER: alpha is 1 on the object, the share of light that is missing on its effects, 0 elsewhere. The effect
layer is black, so it can only darken; reflections and bounced light that brighten are left out.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from manifests.images import RGB, Mask
from manifests.schemas import Kind
from stages.pair import blur, box_mean, dilate, disc
from stages.stage import Kept, Outcome, Params, Record, Rejected, Stage

Floats = npt.NDArray[np.float32]
Box = tuple[int, int, int, int]

DARK_PRIOR = 3 * 4.0**2  # grey levels², over three channels: below it, alpha leans on its neighbours
LEAST_CONTRAST = 3 * 12.0**2  # grey levels²: objects closer to the background than this give no soft rim


def shadow_alpha(source: RGB, clean: RGB, where: Mask) -> Floats:
    """(h, w) float32 in [0, 1]: least squares over channels of c = (1 − α) g, that is α = Σ g (g − c) / Σ g².

    Where the background is nearly black the ratio says nothing, and α is drawn to the mean of its neighbours. What
    does not stand out of the noise of pixels outside `where` is smoothed (Wiener, 7 × 7): a shadow that is laid
    elsewhere must not carry this camera's grain along.

    Args:
        source, clean: (h, w, 3) uint8.
        where: (h, w) bool, M_fg. Values outside are meaningless.
    """
    seen, base = source.astype(np.float32), clean.astype(np.float32)
    missing = np.asarray((base * (base - seen)).sum(2), np.float32)
    light = np.asarray((base * base).sum(2), np.float32)
    inside = where.astype(np.float32)
    around = blur(missing * inside, 2.0) / (blur(light * inside, 2.0) + DARK_PRIOR)
    alpha = (missing + DARK_PRIOR * around) / (light + DARK_PRIOR)
    calm = ~dilate(where, 4)
    if calm.mean() > 0.02:
        grain = missing / (light + DARK_PRIOR)
        grain = (grain - box_mean(grain, 5)) * np.sqrt(light)
        sigma = 1.4826 * float(np.median(np.abs(grain[calm])))
        weight = box_mean(inside, 7) + 1e-6
        mean = box_mean(alpha * inside, 7) / weight
        spread = np.maximum(box_mean(alpha * alpha * inside, 7) / weight - mean * mean, 0)
        noise = sigma * sigma / (light + DARK_PRIOR)
        # Twice the noise: codec noise is patchy, and one patch in two would pass a bar at its mean.
        keep = np.maximum(spread - 2 * noise, 0) / (spread + 1e-9)
        alpha = mean + keep * (alpha - mean)
    return np.clip(alpha, 0, 1).astype(np.float32)


def faded(alpha: Floats, where: Mask, width: int, faint: float = 0.06) -> Floats:
    """`alpha` without the step at the end of M_fg, where a soft shadow is cut off at the noise's height.

    Within `width` px of the end, α at or below half of `faint` goes to 0 and α above `faint` stays: a hard shadow
    keeps its edge. The picture's border is no end.
    """
    if width <= 0 or where.all():
        return alpha
    padded = cv2.copyMakeBorder(where.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    depth = np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5), np.float32)[1:-1, 1:-1]
    strong = np.clip(2 * alpha / faint - 1, 0, 1)
    return np.asarray(alpha * np.maximum(np.clip((depth - 1) / width, 0, 1), strong), np.float32)


def rim_alpha(source: RGB, clean: RGB, object_mask: Mask, rim: int) -> tuple[Floats, Mask]:
    """Coverage of pixels just outside the object, which the lens has mixed with the background.

    With F, the mean colour of the object's nearest inner pixels: c = α F + (1 − α) g, least squares over channels.

    Returns:
        (h, w) float32 α, and (h, w) bool where it can be told: within `rim` px of M_o, F unlike g.
    """
    band = dilate(object_mask, rim) & ~object_mask
    inner = np.asarray(cv2.erode(object_mask.astype(np.uint8), disc(1)), np.uint8) > 0
    inner = inner if inner.any() else object_mask
    weight = blur(inner.astype(np.float32), 1.0 + rim)
    seen, base = source.astype(np.float32), clean.astype(np.float32)
    colour = blur(seen * inner[..., None], 1.0 + rim) / (weight[..., None] + 1e-6)
    step = colour - base
    contrast = (step * step).sum(2)
    alpha = ((seen - base) * step).sum(2) / np.maximum(contrast, 1e-3)
    return np.clip(alpha, 0, 1).astype(np.float32), band & (contrast > LEAST_CONTRAST) & (weight > 1e-4)


def alpha_from_pair(
    source: RGB, clean: RGB, object_mask: Mask, foreground_mask: Mask, rim: int = 2, fade: int = 10
) -> Floats:
    """(h, w) float32 in [0, 1]: OBER Eq. 1 with least squares over channels, and a soft rim around the object.

    1 on M_o; on M_e what is missing of the light; on the `rim` px of M_e next to M_o the object's coverage, if that
    is more; 0 outside M_fg.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        object_mask, foreground_mask: (h, w) bool, M_o and M_fg.
        rim: px beside the object that get its coverage.
        fade: px at the end of M_fg over which faint shadow runs out.
    """
    where = foreground_mask | object_mask
    effects = where & ~object_mask
    alpha = np.where(effects, faded(shadow_alpha(source, clean, where), where, fade), 0)
    if rim > 0 and object_mask.any():
        edge, known = rim_alpha(source, clean, object_mask, rim)
        alpha = np.where(known & effects, np.maximum(alpha, edge), alpha)
    return np.where(object_mask, 1, alpha).astype(np.float32)


def cut_out(source: RGB, clean: RGB, alpha: Floats, object_mask: Mask, rim: int = 2) -> npt.NDArray[np.uint8]:
    """(h, w, 4) uint8, straight alpha: source's colours on M_o, black on M_e, and on the rim the colour that with
    its alpha gives back source, so that no light of the old background comes along."""
    colour = np.where(object_mask[..., None], source, 0).astype(np.float32)
    band = dilate(object_mask, rim) & ~object_mask & (alpha > 0)
    solved = (source - (1 - alpha[..., None]) * clean) / np.maximum(alpha[..., None], 1e-3)
    colour = np.where(band[..., None], solved, colour)
    return np.dstack([np.clip(np.rint(colour), 0, 255), np.rint(255 * alpha)]).astype(np.uint8)


def compose(foreground: npt.NDArray[np.uint8], background: RGB, left: int = 0, top: int = 0) -> RGB:
    """`foreground` (h, w, 4) over `background` (H, W, 3), its corner at (left, top), clipped: α F + (1 − α) B."""
    out = background.copy()
    height, width = background.shape[:2]
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(width, left + foreground.shape[1]), min(height, top + foreground.shape[0])
    if x1 <= x0 or y1 <= y0:
        return out
    part = foreground[y0 - top : y1 - top, x0 - left : x1 - left].astype(np.float32)
    alpha = part[..., 3:] / 255
    mixed = alpha * part[..., :3] + (1 - alpha) * background[y0:y1, x0:x1]
    out[y0:y1, x0:x1] = np.rint(mixed).astype(np.uint8)
    return out


def psnr(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float:
    """dB between two uint8 arrays of one shape, at most 99."""
    error = float(np.mean((first.astype(np.float32) - second.astype(np.float32)) ** 2, dtype=np.float64))
    return 99.0 if error < 1e-5 else min(99.0, float(10 * np.log10(255**2 / error)))


class MatteParams(Params):
    rim: int = Field(2, ge=0, description="px around the object that get a soft edge.")
    fade: int = Field(10, ge=0, description="px over which faint shadow runs out at the end of foreground_mask.")


class Matte(Stage):
    """Makes the foreground of a pair: object and effects, cut out."""

    name = "matte"
    needs = {"input": Kind.RGB, "gt": Kind.RGB, "object_mask": Kind.MASK, "foreground_mask": Kind.MASK}
    gives = {
        "foreground": Kind.RGBA,
        "foreground_object": Kind.MASK,
        "foreground_box": Kind.FLOATS,
        "alpha_psnr": Kind.FLOAT,
        "shadow_alpha": Kind.FLOAT,
    }
    Params = MatteParams

    def process_one(self, record: Record) -> Outcome:
        source, clean, object_mask = record["input"], record["gt"], record["object_mask"]
        where = record["foreground_mask"] | object_mask
        if not object_mask.any():
            return Rejected("no object found", "object_mask is empty")
        rim = self.params.rim
        alpha = alpha_from_pair(source, clean, object_mask, where, rim, self.params.fade)
        whole = cut_out(source, clean, alpha, object_mask, rim)
        drawn = whole[..., 3] > 0
        rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
        y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        effects = where & ~object_mask
        return Kept(
            [
                record
                | {
                    "foreground": whole[y0:y1, x0:x1].copy(),
                    "foreground_object": object_mask[y0:y1, x0:x1].copy(),
                    "foreground_box": [float(v) for v in (x0, y0, x1, y1)],
                    "alpha_psnr": psnr(compose(whole, clean), source),
                    "shadow_alpha": float(alpha[effects].mean()) if effects.any() else 0.0,
                }
            ]
        )
