"""Pictures of the size that a trainer needs: cut out around the object, and made smaller, never larger.

A picture is scaled by the mean over the area of each new pixel, so that a new pixel depends on nothing outside of it.
Where source and target are identical, they stay so: a new pixel belongs to the foreground mask if any part of it did.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.boxes import Box, compute_bounds
from rasura.manifests.checks.rows import DIFFERENT_SIZES
from rasura.manifests.errors import InputError
from rasura.manifests.formats.filters.rows import Check
from rasura.manifests.images import RGB, Mask, decode_image, decode_mask, encode_image, encode_mask, read_size

PLACES = ("object", "center", "none")
LARGEST = 16_384
_WHOLE = ("source", "target")
MASKS = re.compile(r"mask(_\w+)?|\w+_mask|foreground_visible|change")
"""Names of the masks that are cut with the pictures."""
COLUMNS = ("source", "mask", "target")
"""Columns that decide about a row's cut."""


class BadSize(InputError):
    """A size that no picture can have."""


@dataclass(frozen=True)
class Crop:
    """The cut of an export.

    Attributes:
        width, height: of its pictures, px.
        place: object: the largest cut of these proportions with the object as near to its middle as can be; center:
            around the picture's middle; none: no cut, and the whole picture is made so small that it fits.
    """

    width: int
    height: int
    place: str = "object"

    def __str__(self) -> str:
        return f"{self.width} × {self.height} px"


def parse_size(text: str, place: str = "object") -> Crop:
    """Parse a size: one number for a square, or width and height.

    Raises:
        BadSize: it is none.

    Examples:
        >>> print(parse_size("512"), parse_size("768x512"))
        512 × 512 px 768 × 512 px
        >>> parse_size("0")
        Traceback (most recent call last):
        rasura.manifests.formats.filters.crops.BadSize: no size: '0'; give 512 or 768x512, at most 16384 px
    """
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.strip().lower())
    width, height = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not (0 < width <= LARGEST and 0 < height <= LARGEST):
        raise BadSize(f"no size: '{text}'; give 512 or 768x512, at most {LARGEST} px")
    return Crop(width, height, place)


def find_box(crop: Crop, shape: tuple[int, int], bounds: Box | None, strict: bool = True) -> Box | str:
    """Find the part of a picture that is kept, or the reason why none can be.

    Args:
        crop: the cut.
        shape: of the picture, (h, w).
        bounds: of the object, which has to be in it as a whole; None where there is none.
        strict: False where a cut of part of the object, or one that has to be enlarged, is one too.

    Examples:
        >>> find_box(Crop(10, 10), (40, 60), (50, 0, 58, 10))
        (20, 0, 60, 40)
        >>> find_box(Crop(50, 50), (40, 60), None)
        'it is smaller than 50 × 50 px'
        >>> find_box(Crop(10, 10, "center"), (40, 60), (0, 0, 20, 9))
        'its object does not fit into a cut of 10 × 10 px'
    """
    height, width = shape
    if crop.place == "none":
        return 0, 0, width, height
    scale = min(width / crop.width, height / crop.height)
    if scale < 1 and strict:
        return f"it is smaller than {crop}"
    size = max(1, round(crop.width * scale)), max(1, round(crop.height * scale))
    centre: Sequence[float] = (width, height)
    if bounds is not None and crop.place == "object":
        centre = (bounds[0] + bounds[2], bounds[1] + bounds[3])
    lows = [min(max(0, int(centre[i] - size[i]) // 2), (width, height)[i] - size[i]) for i in (0, 1)]
    box = (lows[0], lows[1], lows[0] + size[0], lows[1] + size[1])
    if strict and bounds and (bounds[0] < box[0] or bounds[1] < box[1] or bounds[2] > box[2] or bounds[3] > box[3]):
        return f"its object does not fit into a cut of {crop}"
    return box


def scale_size(crop: Crop, box: Box) -> tuple[int, int]:
    """Compute width and height of a cut after it is scaled."""
    width, height = box[2] - box[0], box[3] - box[1]
    if crop.place != "none":
        return crop.width, crop.height
    scale = min(1.0, crop.width / width, crop.height / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def scale_picture(pixels: RGB, box: Box, size: tuple[int, int]) -> RGB:
    """Cut a picture (h, w, c) uint8 and scale it to `size` (w, h)."""
    cut = np.ascontiguousarray(pixels[box[1] : box[3], box[0] : box[2]])
    if cut.shape[1::-1] == size:
        return cut
    return np.asarray(cv2.resize(cut, size, interpolation=cv2.INTER_AREA), np.uint8)


def measure_coverage(mask: Mask, box: Box, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Measure the share of each new pixel that a mask covers, (h, w)."""
    cut = mask[box[1] : box[3], box[0] : box[2]].astype(np.float32)
    if cut.shape[1::-1] == size:
        return cut
    return np.asarray(cv2.resize(cut, size, interpolation=cv2.INTER_AREA), np.float32)


def plan_cut(raw: Mapping[str, Any], crop: Crop) -> Box | str:
    """Find the part of a row's pictures that is kept, or the reason why the row is left out.

    Args:
        raw: with `COLUMNS`, encoded.
    """
    if raw.get("source") is None or raw.get("mask") is None:
        return 0, 0, 0, 0  # the layout says what is missing
    sizes = {read_size(raw[name]["bytes"]) for name in COLUMNS if raw.get(name) is not None}
    if len(sizes) > 1:
        return DIFFERENT_SIZES
    shape = sizes.pop()[::-1]
    mask = decode_mask(raw["mask"]["bytes"])
    box = find_box(crop, shape, compute_bounds(mask) if mask.any() else None)
    if isinstance(box, str):
        return box
    if mask.any() and not (measure_coverage(mask, box, scale_size(crop, box)) >= 0.5).any():
        return f"its mask vanishes at {crop}"
    return box


def check_crop(crop: Crop) -> Check:
    """Keep rows that a cut fits."""

    def explain(raw: Mapping[str, Any]) -> str | None:
        box = plan_cut(raw, crop)
        return box if isinstance(box, str) else None

    return Check(COLUMNS, explain)


def cut_row(raw: Mapping[str, Any], crop: Crop) -> dict[str, Any]:
    """Cut and scale the pictures of a row that `check_crop` keeps.

    Args:
        raw: its columns, pictures encoded, `COLUMNS` among them.
    """
    box = plan_cut(raw, crop)
    if isinstance(box, str) or not any(box):
        return dict(raw)
    size = scale_size(crop, box)
    result = dict(raw)
    for name, cell in raw.items():
        if not isinstance(cell, Mapping) or cell.get("bytes") is None:
            continue
        if name in _WHOLE:
            pixels = encode_image(scale_picture(decode_image(cell["bytes"]), box, size))
            result[name] = {"bytes": pixels, "path": f"{raw.get('id')}.webp"}
        elif MASKS.fullmatch(name):
            least = np.finfo(np.float32).tiny if name == "foreground_mask" else 0.5
            mask = measure_coverage(decode_mask(cell["bytes"]), box, size) >= least
            result[name] = {"bytes": encode_mask(mask), "path": f"{raw.get('id')}.png"}
    cells = (cell for cell in result.values() if isinstance(cell, Mapping))
    if result.get("bytes") is not None:
        result["bytes"] = sum(len(cell["bytes"]) for cell in cells if cell.get("bytes"))
    if "hole_dilation" in result:
        result["hole_dilation"] = None  # px of the whole picture
    return result
