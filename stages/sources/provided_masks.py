"""Masks that come with pictures: read whatever their encoding, and checked against what changed."""

from typing import Any

import cv2
import numpy as np
from pydantic import Field

from rasura.manifests.images import RGB, Mask
from rasura.manifests.masks import EmptyMask, MaskReading, NotAMask, read_mask
from rasura.manifests.schemas import Kind, Schema
from rasura.stages.imaging.mask_change import (
    NoExplanation,
    Polarity,
    PolarityChoice,
    check_rest,
    choose_polarity,
    find_change,
)
from rasura.stages.stage import Record, Rejected

MASK_COLUMNS: Schema = {
    "mask_values": Kind.STRING,  # what the mask's file holds
    "mask_polarity": Kind.STRING,  # white or black: what the object is in the file
    "mask_change": Kind.FLOAT,  # share of the change that is in the mask; null: nothing to compare with
    "mask_changed": Kind.FLOAT,  # share of the mask that changed
}
NO_MASK: Record = dict.fromkeys(MASK_COLUMNS)
LEAST_PIXELS = 9  # of an object that can be removed; fewer are a speck of a drawing or of a scaled mask
LARGEST_UNCHECKED = 0.5  # share of the picture above which a mask could be an inverted one

POLARITY: Any = Field(
    "auto",
    description="what the object is in mask files: white (bright, coloured, of a label, opaque), black (dark or "
    "transparent), or auto: where the picture changed; without a picture to compare with, white",
)


def load_mask(
    data: bytes, source: RGB, clean: RGB | None, polarity: Polarity, max_pixels: int, max_side: int | None = None
) -> tuple[Mask, Record] | Rejected:
    """Read a mask file and check it against what changed between two pictures.

    Args:
        data: contents of the file.
        source: (h, w, 3) with the object.
        clean: (h, w, 3) without it; None where there is none.
        polarity: of the file.
        max_pixels: limit of the file, in px.
        max_side: px to which the mask is scaled down afterwards.

    Returns:
        (h', w') bool and its `MASK_COLUMNS`; or why there is no such mask.

    Raises:
        BadImage: the file cannot be read.
    """
    try:
        reading = read_mask(data, max_pixels)
    except EmptyMask as error:
        return Rejected("empty mask", str(error).removeprefix("empty mask: "))
    except NotAMask as error:
        return Rejected("no mask in its file", str(error).removeprefix("no mask: "))
    if reading.white.shape != source.shape[:2]:
        size, expected = (f"{shape[1]} x {shape[0]}" for shape in (reading.white.shape, source.shape))
        return Rejected("mask of another size", f"mask {size}, picture {expected}")
    if clean is not None and clean.shape == source.shape:
        try:
            change = find_change(source, clean)
            chosen = choose_polarity(reading.white, reading.black, change, polarity)
            check_rest(source, clean, chosen.mask, change)
        except NoExplanation as error:
            return Rejected("mask explains no change", f"{error}; its file: {reading.values}")
    else:
        outcome = _choose_unchecked(reading, polarity)
        if isinstance(outcome, Rejected):
            return outcome
        chosen = outcome
    mask = shrink_mask(chosen.mask, max_side)
    if (fault := explain_extent(mask)) is not None:
        return Rejected("empty mask", f"{fault}; its file: {reading.values}")
    measured = chosen.measured
    columns: Record = {
        "mask_values": reading.values,
        "mask_polarity": chosen.polarity,
        "mask_change": None if measured is None else measured.change,
        "mask_changed": None if measured is None else measured.changed,
    }
    return mask, columns


def _choose_unchecked(reading: MaskReading, polarity: Polarity) -> PolarityChoice | Rejected:
    """Choose a reading where there is no change that could tell it."""
    if polarity == "black":
        if not reading.black:
            return Rejected("empty mask", f"nothing is black; its file: {reading.values}")
        return PolarityChoice(reading.black[0], polarity, None)
    share = float(reading.white.mean())
    if polarity == "auto" and share > LARGEST_UNCHECKED:
        return Rejected(
            "mask polarity unclear",
            f"{share:.0%} of the picture is white, coloured or opaque; say what the object is, white or black: "
            f"`mask_polarity`, of photos `masks: {{polarity: …}}`; its file: {reading.values}",
        )
    return PolarityChoice(reading.white, "white", None)


def explain_extent(mask: Mask) -> str | None:
    """Explain why a mask (h, w), at the size of its picture in the flow, marks no object; None where it may be one."""
    size = f"{mask.shape[1]} x {mask.shape[0]} px"
    if mask.all():
        return f"it marks everything at {size}"
    if (count := int(mask.sum())) < LEAST_PIXELS:
        return f"it marks {count or 'no'} px of {size}"
    return None


def shrink_mask(mask: Mask, max_side: int | None) -> Mask:
    """Scale a mask (h, w) down so that its longer side is at most `max_side` pixels, as `shrink_to_fit` does."""
    height, width = mask.shape
    if max_side is None or max(height, width) <= max_side:
        return mask
    factor = max_side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    levels = np.where(mask, np.uint8(255), np.uint8(0))
    return np.asarray(cv2.resize(levels, size, interpolation=cv2.INTER_AREA)) > 127
