"""Stage `capture`: a fixed-camera pair becomes a captured triplet.

Outside `foreground_mask` the target is the source itself, bit for bit: otherwise a model learns the codec and the
camera's noise. That mask is M_fg to its end in the noise: the mask of `effects`, which ends at 2 % of white, widened by
the rest of the penumbra (`widen_foreground`). The mask of `effects` is kept as `foreground_visible`.
"""

import cv2
import numpy as np
from pydantic import Field

from rasura.manifests.images import RGB, Mask
from rasura.manifests.schemas import Kind
from rasura.stages.imaging.comparison import compute_difference
from rasura.stages.imaging.detail import measure_fill
from rasura.stages.imaging.filters import Floats
from rasura.stages.imaging.morphology import compute_distance_inside, dilate, disc
from rasura.stages.registration.noise import estimate_noise
from rasura.stages.stage import Kept, Outcome, Params, Record, Rejected, Stage
from rasura.stages.target_fill.seam import estimate_rim_offset, measure_drift, measure_seam
from rasura.stages.target_fill.widening import FAINT_REACH, widen_foreground


def compute_feather_weight(foreground_mask: Mask, object_mask: Mask, feather: int) -> Floats:
    """Compute the weight of gt: 0 outside M_fg, rising smoothly over `feather` px inside its rim, 1 from there on.

    On the object and 2 px around it (inside M_fg) it is 1 at once: half an object is a ghost. The picture's border
    is no rim.

    Args:
        foreground_mask, object_mask: (h, w) bool.
        feather: px.

    Returns:
        (h, w) float32, 0 to 1.

    Examples:
        >>> mask = np.array([[True, True, True, True, False]])
        >>> compute_feather_weight(mask, np.zeros_like(mask), 7).tolist()
        [[0.5, 0.31640625, 0.15625, 0.04296875, 0.0]]
    """
    area = foreground_mask | object_mask
    depth = compute_distance_inside(area)
    if area.all():
        depth = np.full(area.shape, np.inf, np.float32)  # no rim to measure from
    ramp = np.clip(depth / (feather + 1), 0, 1)
    weight = np.asarray(ramp * ramp * (3 - 2 * ramp), np.float32)
    weight[dilate(object_mask, 2) & area] = 1
    weight[~area] = 0
    return weight


def compute_difference_gate(source: RGB, clean: RGB, feather: int) -> Floats:
    """Compute where the pair differs too much for a mix of both: 1 there and `feather` / 2 px around it.

    A hard shadow ends where M_fg ends: faded there, its outline would stay in the target as a thin line.

    Returns:
        (h, w) float32, 0 (a difference of 8 grey levels) to 1 (16 and more).
    """
    gate = np.clip((compute_difference(source, clean) - 8) / 8, 0, 1)
    return np.asarray(cv2.dilate(gate, disc(max(1, feather // 2))), np.float32)


def blend_target(source: RGB, clean: RGB, foreground_mask: Mask, object_mask: Mask, feather: int = 6) -> RGB:
    """Blend the triplet's target: gt inside a feathered M_fg, exactly `source` outside.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        foreground_mask, object_mask: (h, w) bool.
        feather: px of the transition, all of them inside M_fg, where the two differ little.

    Returns:
        (h, w, 3) uint8.
    """
    area = foreground_mask | object_mask
    soft = compute_feather_weight(foreground_mask, object_mask, feather)
    weight = np.where(area, np.maximum(soft, compute_difference_gate(source, clean, feather)), 0)[..., None]
    blend = np.rint(weight * clean.astype(np.float32) + (1 - weight) * source).astype(np.uint8)
    return np.where(weight > 0, blend, source)


class CaptureParams(Params):
    feather: int = Field(6, ge=0, description="px over which gt fades in, inside foreground_mask.")
    reach: float = Field(
        FAINT_REACH,
        ge=0,
        le=0.2,
        description="Share of the diagonal over which the faint end of a shadow is followed beyond effects' mask.",
    )
    match_rim: bool = Field(True, description="Add a smooth offset to gt, so that it meets input at the mask's rim.")


class Capture(Stage):
    """Turn a pair with its masks into a triplet."""

    name = "capture"
    version = "3"
    needs = {"input": Kind.RGB, "gt": Kind.RGB, "object_mask": Kind.MASK, "foreground_mask": Kind.MASK}
    gives = {
        "kind": Kind.STRING,
        "source": Kind.RGB,
        "target": Kind.RGB,
        "mask": Kind.MASK,
        "foreground_mask": Kind.MASK,
        "foreground_visible": Kind.MASK,
        "capture_seam": Kind.FLOAT,
        "capture_drift": Kind.FLOAT,
        "capture_detail": Kind.FLOAT,  # of gt where the object was: below 0 less than around it, above 0 more
        "capture_flat": Kind.FLOAT,  # share of pixels without any detail there, less the share around it
        "mask_area": Kind.FLOAT,  # share of the picture
    }
    drops = frozenset({"input", "gt", "object_mask", "given_kind"})
    Params = CaptureParams
    params: CaptureParams

    def process_one(self, record: Record) -> Outcome:
        source, clean, object_mask = record["input"], record["gt"], record["object_mask"]
        if not object_mask.any():
            return Rejected("no object found", "object_mask is empty")
        visible = record["foreground_mask"] | object_mask
        noise = record.get("pair_noise")
        noise = estimate_noise(source, clean) if noise is None else noise
        wide = widen_foreground(source, clean, visible, noise, self.params.reach) if self.params.reach else visible
        drift = measure_drift(source, clean, wide)
        filled = clean
        if self.params.match_rim:
            offset = estimate_rim_offset(source, clean, wide, noise, drift)
            filled = np.clip(np.rint(clean + offset), 0, 255).astype(np.uint8)
        target = blend_target(source, filled, wide, object_mask, self.params.feather)
        fill = measure_fill(clean, wide, object_mask)
        triplet = {
            "kind": record.get("given_kind") or "captured",
            "source": source,
            "target": target,
            "mask": object_mask,
            "foreground_mask": wide,
            "foreground_visible": visible,
            "capture_seam": measure_seam(target, clean, wide),
            "capture_drift": drift,
            "capture_detail": fill.detail,
            "capture_flat": fill.flat,
            "mask_area": float(object_mask.mean()),
        }
        return Kept([{name: value for name, value in record.items() if name not in self.drops} | triplet])
