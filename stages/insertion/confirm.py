"""Stage `confirm`: what was painted into a photograph becomes a triplet with the photo as target, if it is one object.

`capture` takes the source as it is and makes the target meet it; here it is the other way round: the target is the
photograph to the last bit, and the source is what was painted inside M_fg and the photograph outside.
"""

from typing import NamedTuple

import numpy as np
from pydantic import Field

from rasura.manifests.images import RGB, Mask
from rasura.manifests.schemas import Kind
from rasura.stages.capture import blend_target
from rasura.stages.compositing.class_sizes import find_class_name
from rasura.stages.effect_mask.object_core import find_object_core
from rasura.stages.imaging.comparison import compute_difference
from rasura.stages.imaging.morphology import dilate, erode
from rasura.stages.stage import Kept, Outcome, Params, Record, Rejected, Stage
from rasura.stages.target_fill.widening import FAINT_REACH, widen_foreground

OBJECT_RIM = 3  # px around M_o where its rim is mixed with what is behind
BORDER = 3  # px inside the region's end where what is cut off shows


class Painted(NamedTuple):
    """What speaks against one complete object.

    Attributes:
        extra: areas of the object: what no shadow explains outside of it, parts that are missing in its mask or a
            background that was painted anew.
        cut: share of the object's outline that is at the end of the region.
        rim: grey levels of its effects there, 95th percentile: a shadow that is cut off.
    """

    extra: float
    cut: float
    rim: float


def make_region_mask(box: tuple[float, ...], shape: tuple[int, ...], dilation: int) -> Mask:
    """Return the region, grown by half of the px over which the painting fades out, (h, w) bool.

    Examples:
        >>> int(make_region_mask((1.0, 1.0, 3.0, 3.0), (4, 4), 0).sum())
        4
    """
    x0, y0, x1, y1 = (round(value) for value in box)
    mask = np.zeros(shape[:2], bool)
    mask[max(0, y0) : y1, max(0, x0) : x1] = True
    return dilate(mask, dilation // 2)


def measure_painted(
    painted: RGB, photo: RGB, object_mask: Mask, foreground: Mask, region: Mask, noise: float
) -> Painted:
    """Measure what was painted into a photograph.

    Args:
        painted, photo: (h, w, 3) uint8.
        object_mask, foreground, region: (h, w) bool: M_o, what differs, and where could be painted.
        noise: `pair_noise`.
    """
    core = find_object_core(painted, photo, foreground, noise).mask
    extra = core & ~dilate(object_mask, OBJECT_RIM)
    border = region & ~erode(region, BORDER)
    outline = object_mask & ~erode(object_mask, 1)
    effects = compute_difference(painted, photo)[border & foreground]
    return Painted(
        float(extra.sum() / object_mask.sum()),
        float((outline & ~erode(region, BORDER)).sum() / max(1, outline.sum())),
        float(np.percentile(effects, 95)) if effects.size else 0.0,
    )


class ConfirmParams(Params):
    min_score: float = Field(0.5, ge=0, le=1, description="segment_score below which no object is confirmed.")
    min_area: float = Field(0.001, ge=0, lt=1, description="Share of the picture below which no object is confirmed.")
    max_outside: float = Field(
        24.0, ge=0, description="Grey levels by which an inserter may change what lies outside of the region."
    )
    max_extra: float = Field(
        0.3, ge=0, description="What may be painted besides the object, in areas of it; above, it is no single object."
    )
    max_cut: float = Field(0.02, ge=0, le=1, description="Share of the object's outline that the region may cut.")
    max_rim: float = Field(16.0, ge=0, description="Grey levels that a shadow may have where the region ends.")
    require_label: bool = Field(False, description="Reject what stage `detect` does not see as the class asked for.")
    feather: int = Field(6, ge=0, description="px over which the painting fades in, inside foreground_mask.")


class Confirm(Stage):
    """Reject paintings that are not one object, and turn the others into triplets whose target is the photograph."""

    name = "confirm"
    needs = {
        "input": Kind.RGB,
        "gt": Kind.RGB,
        "object_mask": Kind.MASK,
        "foreground_mask": Kind.MASK,
        "segment_score": Kind.FLOAT,
        "insert_box": Kind.FLOATS,
        "insert_class": Kind.STRING,
        "insert_outside": Kind.FLOAT,
    }
    gives = {
        "kind": Kind.STRING,
        "source": Kind.RGB,
        "target": Kind.RGB,
        "mask": Kind.MASK,
        "foreground_mask": Kind.MASK,
        "label": Kind.STRING,
        "insert_extra": Kind.FLOAT,  # areas of the object that were painted besides it
        "insert_cut": Kind.FLOAT,  # share of the object's outline that is at the end of the region
        "insert_rim": Kind.FLOAT,  # grey levels of its effects there
        "insert_seen": Kind.STRING,  # what stage `detect` sees in it; null: nothing, or it did not run
        "mask_area": Kind.FLOAT,
    }
    drops = frozenset({"input", "gt", "object_mask", "given_kind"})
    Params = ConfirmParams
    params: ConfirmParams

    def process_one(self, record: Record) -> Outcome:
        painted, photo, object_mask = record["input"], record["gt"], record["object_mask"]
        if not object_mask.any():
            return Rejected("no object found", "object_mask is empty")
        noise = record.get("pair_noise") or 0.0
        region = make_region_mask(record["insert_box"], photo.shape, record.get("hole_dilation") or 0)
        measured = measure_painted(painted, photo, object_mask, record["foreground_mask"], region, noise)
        if (rejection := self.check(record, measured)) is not None:
            return rejection
        area = widen_foreground(painted, photo, record["foreground_mask"] | object_mask, noise, FAINT_REACH)
        triplet = {
            "kind": "inserted",
            "source": blend_target(photo, painted, area, object_mask, self.params.feather),
            "target": photo,
            "mask": object_mask,
            "foreground_mask": area,
            "label": record["insert_class"],
            "insert_extra": measured.extra,
            "insert_cut": measured.cut,
            "insert_rim": measured.rim,
            "insert_seen": record.get("label") if "box" in record else None,
            "mask_area": float(object_mask.mean()),
        }
        return Kept([{name: value for name, value in record.items() if name not in self.drops} | triplet])

    def check(self, record: Record, measured: Painted) -> Rejected | None:
        """Return why a painting is not one object in a photograph that stayed as it was; None where it is."""
        p, score, area = self.params, record["segment_score"], float(record["object_mask"].mean())
        outside = record["insert_outside"]
        if outside is not None and outside > p.max_outside:
            return Rejected("changed what lies outside", f"{outside:.1f} grey levels, more than {p.max_outside:g}")
        if score is None or score < p.min_score:
            return Rejected("not confirmed", f"segment_score {score}, less than {p.min_score:g}")
        if area < p.min_area:
            return Rejected("not confirmed", f"{area:.2%} of the picture, less than {p.min_area:.2%}")
        if measured.extra > p.max_extra:
            text = f"{measured.extra:.2f} areas of the object besides it, more than {p.max_extra:g}"
            return Rejected("more than an object was painted", text)
        if measured.cut > p.max_cut:
            return Rejected("cut off by the region", f"{measured.cut:.1%} of the outline, more than {p.max_cut:.1%}")
        if measured.rim > p.max_rim:
            text = f"a shadow of {measured.rim:.1f} grey levels where it ends, more than {p.max_rim:g}"
            return Rejected("cut off by the region", text)
        if p.require_label and "box" in record:
            seen, asked = record.get("label"), record["insert_class"]
            if find_class_name(seen) != find_class_name(asked):
                return Rejected("not confirmed", f"{seen or 'nothing'} is seen where {asked} was asked for")
        return None
