"""Stage `audit`: does what changed in a pair look like one removed object? After OSOR's SAVP audit, with its limits.

OSOR drops what fails. Here everything is measured and one `audit_reason` is written, null where nothing is wrong; what
to drop is for `select` (`audit_reason: {none_of: [high noise], missing: true}`).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rasura.manifests.images import RGB, Mask
from rasura.manifests.schemas import Kind
from rasura.stages.effects import WHITE_SHARE, components, hysteresis, keep_components, near, steady_difference
from rasura.stages.pair import dilate
from rasura.stages.stage import Kept, Outcome, Params, Record, Stage

Box = npt.NDArray[np.float64]

MAIN = 0.3  # of the largest part's area: what is as large is an object, what is smaller is noise
SPECK = 16  # px: parts below do not count, not even as noise


def change(source: RGB, clean: RGB, noise: float) -> Mask:
    """(h, w) bool: everything that differs by more than the noise, whether it belongs to the object or not."""
    return hysteresis(steady_difference(source, clean, noise), max(WHITE_SHARE, 3 * noise))


def main_parts(mask: Mask) -> tuple[int, Mask]:
    """How many parts of a mask are at least `MAIN` of its largest, and these parts."""
    count, labels, areas = components(mask)
    if not count:
        return 0, np.zeros_like(mask)
    wanted = areas >= max(MAIN * areas.max(), 1)
    return int(wanted.sum()), keep_components(labels, wanted)


def noise_share(changed: Mask, objects: Mask, reach: float = 0.03) -> float:
    """Share of the changed area in parts that stay farther than `reach` (of the diagonal) from the main objects."""
    _, labels, areas = components(changed)
    changed = keep_components(labels, areas >= SPECK)
    if not changed.any():
        return 0.0
    _, main = main_parts(objects)
    _, labels, _ = components(changed)
    joined = keep_components(labels, near(changed, main, max(2.0, reach * float(np.hypot(*changed.shape)))))
    return float((changed & ~joined).sum() / changed.sum())


def box_of(mask: Mask) -> Box:
    """x0, y0, x1, y1 around the largest part of a mask that is not empty."""
    _, labels, areas = components(mask)
    largest = labels == int(areas.argmax()) + 1
    rows, columns = np.flatnonzero(largest.any(1)), np.flatnonzero(largest.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)


def agreement(changed: Box, detected: Box) -> tuple[float, float]:
    """IoU of two boxes, and how many times the first is as large as the second."""
    sides = np.minimum(changed[2:], detected[2:]) - np.maximum(changed[:2], detected[:2])
    shared = float(np.prod(np.clip(sides, 0, None)))
    first, second = (float(np.prod(np.maximum(box[2:] - box[:2], 1e-6))) for box in (changed, detected))
    return shared / (first + second - shared), first / second


class AuditParams(Params):
    max_objects: int = Field(4, ge=1, description="More parts of about one size are 'too many objects' (OSOR: 4).")
    max_noise: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Share of the change apart from the objects above which it is 'high noise' (OSOR: .3).",
    )
    max_change: float = Field(
        0.6, gt=0, le=1, description="Changed share of the picture above which it is 'background collapse'."
    )
    min_agreement: float = Field(
        0.3, ge=0, le=1, description="IoU with the detected box below which there is 'no semantic target' (OSOR: .3)."
    )
    max_scale: float = Field(
        2.0, gt=0, description="Times as large as the detected box: more is 'scale overflow' (OSOR: 2)."
    )


class Audit(Stage):
    """Measures whether a pair's change is one object; needs `segment` for effects, `detect` for what the object is."""

    name = "audit"
    needs = {"input": Kind.RGB, "gt": Kind.RGB, "foreground_mask": Kind.MASK}
    gives = {
        "audit_objects": Kind.INT,
        "audit_noise": Kind.FLOAT,
        "audit_change": Kind.FLOAT,
        "audit_effects": Kind.FLOAT,
        "audit_agreement": Kind.FLOAT,
        "audit_scale": Kind.FLOAT,
        "audit_reason": Kind.STRING,
    }
    Params = AuditParams
    params: AuditParams

    def process_one(self, record: Record) -> Outcome:
        foreground, objects = record["foreground_mask"], record.get("object_mask")
        known = objects if objects is not None and objects.any() else foreground
        changed = change(record["input"], record["gt"], record.get("pair_noise") or 0.0)
        effects = None
        if objects is not None and objects.any():
            effects = float((foreground & ~dilate(objects, 3)).sum() / objects.sum())
        found: dict[str, Any] = {
            "audit_objects": main_parts(known)[0],
            "audit_noise": noise_share(changed, known),
            "audit_change": float(changed.mean()),
            "audit_effects": effects,
            "audit_agreement": None,
            "audit_scale": None,
        }
        asked = "box" in record  # a detector has been here, whether it found something or not
        if record.get("box") is not None and known.any():
            overlap, scale = agreement(box_of(known), np.asarray(record["box"], np.float64))
            found |= {"audit_agreement": overlap, "audit_scale": scale}
        return Kept([record | found | {"audit_reason": self._reason(found, asked)}])

    def _reason(self, found: dict[str, Any], asked: bool) -> str | None:
        """The first thing that is wrong, in OSOR's order."""
        params = self.params
        if not found["audit_objects"]:
            return "nothing changed"
        if found["audit_change"] > params.max_change:
            return "background collapse"
        if found["audit_objects"] > params.max_objects:
            return "too many objects"
        if found["audit_noise"] > params.max_noise:
            return "high noise"
        if found["audit_scale"] is not None and found["audit_scale"] > params.max_scale:
            return "scale overflow"
        if asked and (found["audit_agreement"] is None or found["audit_agreement"] < params.min_agreement):
            return "no semantic target"
        return None
