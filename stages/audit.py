"""Stage `audit`: does what changed in a pair look like one removed object? After OSOR's SAVP audit, with its limits.

OSOR removes what fails. Here everything is measured and one `audit_reason` is written, null where nothing is wrong;
`select` rejects by it (`audit_reason: {none_of: [high noise], missing: true}`).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rasura.manifests.boxes import compute_bounds
from rasura.manifests.images import Mask
from rasura.manifests.schemas import Kind
from rasura.stages.effect_mask.clean_faults import measure_cut_rim, measure_residue, measure_strange_ground
from rasura.stages.effect_mask.doubts import (
    measure_clean_only_parts,
    measure_moving_details,
    measure_object_evidence,
    measure_outside_shadow,
    measure_parts_beside,
)
from rasura.stages.effect_mask.segmentation import detect_changes
from rasura.stages.imaging.components import flag_near_components, label_components, select_components
from rasura.stages.imaging.morphology import dilate
from rasura.stages.stage import Kept, Outcome, Params, Record, Stage

Box = npt.NDArray[np.float64]

MAIN_PART_SHARE = 0.3  # of the largest part's area: larger parts are objects, smaller ones are noise
DOUBTS = (
    *("audit_evidence", "audit_missed", "audit_moving", "audit_outside", "audit_ghost"),
    *("audit_residue", "audit_cut", "audit_strange", "audit_second"),
)
MIN_PART_AREA = 16  # px: smaller parts do not count, not even as noise


def select_main_parts(mask: Mask) -> tuple[int, Mask]:
    """Count and select the parts of a mask that are at least `MAIN_PART_SHARE` of its largest.

    Examples:
        >>> select_main_parts(np.array([[True, True, True, True, False, True]]))
        (1, array([[ True,  True,  True,  True, False, False]]))
    """
    count, labels, areas = label_components(mask)
    if not count:
        return 0, np.zeros_like(mask)
    main = areas >= max(MAIN_PART_SHARE * areas.max(), 1)
    return int(main.sum()), select_components(labels, main)


def measure_noise_share(changed: Mask, objects: Mask, reach: float = 0.03) -> float:
    """Return the share of the changed area in parts that are farther than `reach` from the main objects.

    Args:
        changed, objects: (h, w) bool.
        reach: share of the diagonal.
    """
    _, labels, areas = label_components(changed)
    changed = select_components(labels, areas >= MIN_PART_AREA)
    if not changed.any():
        return 0.0
    _, main = select_main_parts(objects)
    px = max(2.0, reach * float(np.hypot(*changed.shape)))
    joined = select_components(label_components(changed)[1], flag_near_components(changed, main, px))
    return float((changed & ~joined).sum() / changed.sum())


def compute_largest_box(mask: Mask) -> Box:
    """Return x0, y0, x1, y1 around the largest part of a mask that is not empty."""
    _, labels, areas = label_components(mask)
    return np.array(compute_bounds(labels == int(areas.argmax()) + 1), np.float64)


def compare_boxes(changed: Box, detected: Box) -> tuple[float, float]:
    """Return the IoU of two boxes, and how many times the first is as large as the second.

    Examples:
        >>> compare_boxes(np.array([0.0, 0, 4, 4]), np.array([0.0, 0, 4, 2]))
        (0.5, 2.0)
    """
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
        description="Share of the change apart from the objects above which it is 'high noise' (OSOR: 0.3).",
    )
    max_change: float = Field(
        0.6, gt=0, le=1, description="Changed share of the picture above which it is 'background collapse'."
    )
    min_agreement: float = Field(
        0.3, ge=0, le=1, description="IoU with the detected box below which there is 'no semantic target' (OSOR: 0.3)."
    )
    max_scale: float = Field(
        2.0, gt=0, description="Times as large as the detected box: more is 'scale overflow' (OSOR: 2)."
    )


class Audit(Stage):
    """Measure whether a pair's change is one object; needs `segment` for effects, `detect` for what the object is."""

    name = "audit"
    version = "5"
    needs = {"input": Kind.RGB, "gt": Kind.RGB, "foreground_mask": Kind.MASK}
    gives = {
        "audit_objects": Kind.INT,
        "audit_noise": Kind.FLOAT,
        "audit_change": Kind.FLOAT,
        "audit_effects": Kind.FLOAT,
        "audit_agreement": Kind.FLOAT,
        "audit_scale": Kind.FLOAT,
        "audit_evidence": Kind.FLOAT,
        "audit_missed": Kind.FLOAT,
        "audit_moving": Kind.FLOAT,
        "audit_outside": Kind.FLOAT,
        "audit_ghost": Kind.FLOAT,
        "audit_residue": Kind.FLOAT,
        "audit_cut": Kind.FLOAT,
        "audit_strange": Kind.FLOAT,
        "audit_second": Kind.FLOAT,
        "audit_reason": Kind.STRING,
    }
    Params = AuditParams
    params: AuditParams

    def process_one(self, record: Record) -> Outcome:
        foreground, objects = record["foreground_mask"], record.get("object_mask")
        segmented = objects is not None and bool(objects.any())
        mask: Mask = record["object_mask"] if segmented else foreground
        changed = detect_changes(record["input"], record["gt"], record.get("pair_noise") or 0.0)
        measurements: dict[str, Any] = {
            "audit_objects": select_main_parts(mask)[0],
            "audit_noise": measure_noise_share(changed, mask),
            "audit_change": float(changed.mean()),
            "audit_effects": float((foreground & ~dilate(mask, 3)).sum() / mask.sum()) if segmented else None,
            "audit_agreement": None,
            "audit_scale": None,
            **self._measure_doubts(record, mask, changed),
        }
        if record.get("box") is not None and mask.any():
            overlap, scale = compare_boxes(compute_largest_box(mask), np.asarray(record["box"], np.float64))
            measurements |= {"audit_agreement": overlap, "audit_scale": scale}
        detected = "box" in record  # a detector ran before, whether it detected an object or not
        return Kept([record | measurements | {"audit_reason": self._find_reason(measurements, detected)}])

    def _measure_doubts(self, record: Record, objects: Mask, changed: Mask) -> dict[str, float | None]:
        """Measure what speaks against one object with its own effects; None where nothing is segmented."""
        if not objects.any():
            return dict.fromkeys(DOUBTS)
        source, clean, foreground = record["input"], record["gt"], record["foreground_mask"]
        noise = record.get("pair_noise") or 0.0
        missed, second = measure_parts_beside(source, clean, foreground, objects, noise)
        return {
            "audit_evidence": measure_object_evidence(source, clean, objects, noise),
            "audit_missed": missed,
            "audit_moving": measure_moving_details(source, clean, foreground, objects),
            "audit_outside": measure_outside_shadow(source, clean, foreground, objects),
            "audit_ghost": measure_clean_only_parts(source, clean, foreground, objects),
            "audit_residue": measure_residue(source, clean, objects),
            "audit_cut": measure_cut_rim(source, clean, changed & foreground, objects),
            "audit_strange": measure_strange_ground(clean, foreground, objects),
            "audit_second": second,
        }

    def _find_reason(self, measurements: dict[str, Any], detected: bool) -> str | None:
        """Return the first criterion that fails, in OSOR's order; None where none does."""
        params = self.params
        overlap, scale = measurements["audit_agreement"], measurements["audit_scale"]
        if not measurements["audit_objects"]:
            return "nothing changed"
        if measurements["audit_change"] > params.max_change:
            return "background collapse"
        if measurements["audit_objects"] > params.max_objects:
            return "too many objects"
        if measurements["audit_noise"] > params.max_noise:
            return "high noise"
        if scale is not None and scale > params.max_scale:
            return "scale overflow"
        if detected and (overlap is None or overlap < params.min_agreement):
            return "no semantic target"
        return None
