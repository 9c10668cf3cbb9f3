"""Triplets that were made elsewhere: checks of what they claim, and the source's own pixels outside of the effects."""

from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from rasura.manifests.images import RGB, Mask
from rasura.stages.capture import blend_target
from rasura.stages.imaging.detail import measure_fill
from rasura.stages.imaging.mask_change import (
    MaskChange,
    compare_outlines,
    find_change,
    measure_change_outside,
    measure_rest,
    score_mask,
)
from rasura.stages.imaging.morphology import dilate
from rasura.stages.registration.noise import estimate_noise
from rasura.stages.stage import Record, Rejected
from rasura.stages.target_fill.seam import estimate_rim_offset, measure_drift

OTHER_SCENE = ((0.02, 0.15), (0.1, 0.6))
"""Shares of a picture that changed outside of the mask, each with the likeness below which that is another scene."""
MIN_OUTLINE = -1.0  # log2 of the step across the object's outline in the source over that in the target
LARGEST_FLAT = 0.35  # share of the object's place that is without any detail, less that around it
LARGEST_UNCOVERED = 0.05  # share of the object that may be outside of M_fg, as by soft edges
LARGEST_OUTSIDE = 0.1  # share of the change that may be outside of M_fg

MIN_MASK_SCORE: Any = Field(
    0.5,
    ge=0,
    le=1,
    description="rows whose mask fits the change worse (F with beta = 1/4, as segment_score of a given mask) are "
    "rejected; masks that are much larger than their object need less",
)


class Target(NamedTuple):
    """The target of a triplet, with the source's own pixels outside of M_fg.

    Attributes:
        target: (h, w, 3) uint8.
        foreground: (h, w) bool, M_fg with the object.
        change: share of the change that was outside of M_fg.
        level: mean difference outside of M_fg before, in grey levels; 0 where the target is as it was.
    """

    target: RGB
    foreground: Mask
    change: float
    level: float


def check_triplet(
    source: RGB, target: RGB, mask: Mask, columns: Record, min_score: float, is_answer: bool
) -> Rejected | None:
    """Check that a triplet shows one scene, with the object of its mask in the source and not in the target.

    Args:
        source, target: (h, w, 3) uint8.
        mask: (h, w) bool.
        columns: `MASK_COLUMNS` of the mask.
        min_score: of the mask by the change, 0 to 1.
        is_answer: whether the target is a photograph, or somebody said yes to it: it has details then.

    Returns:
        Why it is wrong, with the values; None where nothing was found.
    """
    change = find_change(source, target)
    rest = measure_rest(source, target, mask, change)
    if any(rest.change > share and rest.likeness < likeness for share, likeness in OTHER_SCENE):
        return Rejected(
            "pictures of two scenes",
            f"{rest.change:.0%} of the picture changed outside of the mask, where the details of source and target "
            f"correlate by {rest.likeness:.2f}: one of them is moved, or of another place",
        )
    if columns["mask_change"] is not None:
        score = score_mask(MaskChange(columns["mask_change"], columns["mask_changed"], 0.0))
        if score < min_score:
            return Rejected(
                "mask explains no change",
                f"score {score:.2f} is below min_mask_score {min_score:g}: {columns['mask_changed']:.0%} of the mask "
                f"changed, {columns['mask_change']:.0%} of the change is in it",
            )
    if (outline := compare_outlines(source, target, mask)) < MIN_OUTLINE:
        return Rejected(
            "source and target swapped",
            f"the step across the mask's outline is {2**-outline:.1f} times as high in the target as in the source: "
            "the object is in the target",
        )
    if is_answer and (flat := measure_fill(target, mask, mask).flat) > LARGEST_FLAT:
        return Rejected("target painted over", f"{flat:.0%} more of the object's place has no detail than around it")
    return None


def join_foreground(mask: Mask, foreground: Mask) -> Mask | Rejected:
    """Return M_fg with its object in it; or why they are not of one object.

    Args:
        mask, foreground: (h, w) bool, M_o and M_fg.
    """
    uncovered = float((mask & ~foreground).sum() / max(1, int(mask.sum())))
    if uncovered > LARGEST_UNCOVERED:
        return Rejected(
            "object outside its effects",
            f"{uncovered:.0%} of the object mask is outside of the mask of object and effects: they are swapped, or of "
            "two objects",
        )
    return foreground | mask


def equalize_outside(source: RGB, target: RGB, mask: Mask, foreground: Mask, is_scaled: bool) -> Target | Rejected:
    """Make the target equal the source outside of M_fg, where they differ by noise alone.

    As `capture` does for pairs: the camera's noise and a codec are not to be learnt. What really changed outside of
    M_fg is not repaired: such a row is rejected.

    Args:
        source, target: (h, w, 3) uint8.
        mask: (h, w) bool, M_o.
        foreground: (h, w) bool, M_fg.
        is_scaled: whether the pictures were scaled down: pixels of M_fg's rim are partly inside then.
    """
    difference = np.abs(source.astype(np.int16) - target).max(axis=2)
    if not difference[~foreground].any():
        return Target(target, foreground, 0.0, 0.0)
    outside = measure_change_outside(foreground, find_change(source, target))
    if outside > LARGEST_OUTSIDE:
        return Rejected(
            "change outside its effects",
            f"{outside:.0%} of the change is outside of the mask of object and effects; give: pairs measures that mask "
            "anew",
        )
    if is_scaled:
        foreground = dilate(foreground, 1)
    level = float(difference[~foreground].mean(dtype=np.float64)) if not foreground.all() else 0.0
    drift = measure_drift(source, target, foreground)
    offset = estimate_rim_offset(source, target, foreground, estimate_noise(source, target), drift)
    filled = np.clip(np.rint(target + offset), 0, 255).astype(np.uint8)
    return Target(blend_target(source, filled, foreground, mask), foreground, outside, level)
