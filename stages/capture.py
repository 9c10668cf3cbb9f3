"""Stage `capture`: a fixed-camera pair becomes a captured triplet.

Outside M_fg the target is the source itself, bit for bit: otherwise a model learns the codec and the camera's noise.
"""

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from rasura.manifests.images import RGB, Mask
from rasura.manifests.schemas import Kind
from rasura.stages.effects import difference
from rasura.stages.pair import dilate, disc
from rasura.stages.stage import Kept, Outcome, Params, Record, Rejected, Stage


def feather_weight(foreground_mask: Mask, object_mask: Mask, feather: int) -> npt.NDArray[np.float32]:
    """(h, w) float32 weight of gt: 0 outside M_fg, rising over `feather` px inside its rim, 1 from there on.

    On the object and 2 px around it (inside M_fg) it is 1 at once: half an object is a ghost. The picture's border
    is no rim.
    """
    where = foreground_mask | object_mask
    padded = cv2.copyMakeBorder(where.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    depth = np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5), np.float32)[1:-1, 1:-1]
    if where.all():
        depth = np.full(where.shape, np.inf, np.float32)  # no rim to measure from
    ramp = np.clip(depth / (feather + 1), 0, 1)
    weight = np.asarray(ramp * ramp * (3 - 2 * ramp), np.float32)
    weight[dilate(object_mask, 2) & where] = 1
    weight[~where] = 0
    return weight


def needs_gt(source: RGB, clean: RGB, feather: int) -> npt.NDArray[np.float32]:
    """(h, w) float32 in [0, 1]: 1 where the pair differs too much for a mix of both, and `feather` / 2 px around it.

    A hard shadow ends where M_fg ends: faded there, its outline would stay in the target as a thin line.
    """
    gate = np.clip((difference(source, clean) - 8) / 8, 0, 1)
    return np.asarray(cv2.dilate(gate, disc(max(1, feather // 2))), np.float32)


def captured_target(source: RGB, clean: RGB, foreground_mask: Mask, object_mask: Mask, feather: int = 6) -> RGB:
    """The triplet's target, (h, w, 3) uint8: gt inside a feathered M_fg, exactly `source` outside.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        foreground_mask, object_mask: (h, w) bool.
        feather: px of the transition, all of them inside M_fg, where the two differ little.
    """
    where = foreground_mask | object_mask
    soft = feather_weight(foreground_mask, object_mask, feather)
    weight = np.where(where, np.maximum(soft, needs_gt(source, clean, feather)), 0)[..., None]
    mixed = np.rint(weight * clean.astype(np.float32) + (1 - weight) * source).astype(np.uint8)
    return np.where(weight > 0, mixed, source)


class CaptureParams(Params):
    feather: int = Field(6, ge=0, description="px over which gt fades in, inside foreground_mask.")


class Capture(Stage):
    """Turns a pair with its masks into a triplet."""

    name = "capture"
    needs = {"input": Kind.RGB, "gt": Kind.RGB, "object_mask": Kind.MASK, "foreground_mask": Kind.MASK}
    gives = {
        "kind": Kind.STRING,
        "source": Kind.RGB,
        "target": Kind.RGB,
        "mask": Kind.MASK,
        "foreground_mask": Kind.MASK,
    }
    drops = frozenset({"input", "gt", "object_mask"})
    Params = CaptureParams

    def process_one(self, record: Record) -> Outcome:
        source, object_mask = record["input"], record["object_mask"]
        where = record["foreground_mask"] | object_mask
        if not object_mask.any():
            return Rejected("no object found", "object_mask is empty")
        triplet = {
            "kind": "captured",
            "source": source,
            "target": captured_target(source, record["gt"], where, object_mask, self.params.feather),
            "mask": object_mask,
            "foreground_mask": where,
        }
        return Kept([{name: value for name, value in record.items() if name not in self.drops} | triplet])
