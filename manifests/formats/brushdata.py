"""BrushData's WebDataset tars, as BrushNet's trainers read them (arXiv 2403.06976; train_brushnet.py).

A sample has five members: `image`, `caption`, `height`, `width` (texts), and `segmentation`, JSON with a list `mask` of
run lengths. A run is a pair (start, length); starts count from 1 down the columns (not COCO's counts, which alternate).
A sample is a photograph with the object in it: BrushNet learns to paint what a mask and a caption ask for.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rasura.manifests.formats.dataset_rows import JUDGEMENT, DatasetRow, explain_unfit
from rasura.manifests.formats.folder_export import LeftOut, Tally, read_parts
from rasura.manifests.formats.trainers.tars import Sample
from rasura.manifests.images import Mask, decode_mask

NAME = "brushdata"
COLUMNS = ("source", "mask", "foreground_mask", "caption", "label", *JUDGEMENT)
_TYPES = ("masks",)
_DESCRIPTION = (
    "BrushData's WebDataset tars, a folder for each split: `image` is the picture with the object, `caption` its "
    "caption (its label where it has none), `segmentation` the object's mask and, where it is known, that of object "
    "and effects, as runs down the columns."
)


def encode_runs(mask: Mask) -> list[int]:
    """Encode a mask (h, w) as start, length, start, length, …: down the columns, starts from 1.

    Examples:
        >>> encode_runs(np.array([[False, True], [True, True]]))
        [2, 3]
    """
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]]).astype(np.int8)
    starts, ends = np.flatnonzero(np.diff(flat) == 1), np.flatnonzero(np.diff(flat) == -1)
    runs: list[int] = np.stack([starts + 1, ends - starts], axis=1).ravel().tolist()
    return runs


def decode_runs(runs: Sequence[int], height: int, width: int) -> Mask:
    """Decode what `encode_runs` encoded, as BrushNet's trainers do.

    Examples:
        >>> decode_runs([2, 3], 2, 2).tolist()
        [[False, True], [True, True]]
    """
    flat = np.zeros(height * width, bool)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        flat[start - 1 : start - 1 + length] = True
    return flat.reshape((height, width), order="F")


def make_sample(row: DatasetRow, raw: Mapping[str, Any]) -> tuple[Sample, int]:
    """Make the members of a row's sample, and count its masks.

    Args:
        row: its place, for errors.
        raw: its columns, pictures encoded.
    """
    image, encoded_mask = read_parts(raw, row, ("source", "mask"))
    mask = decode_mask(encoded_mask)
    masks = [mask]
    # a candidate's is its remover's guess
    if raw.get("foreground_mask") is not None and raw.get("kind") != "edited":
        foreground = decode_mask(raw["foreground_mask"]["bytes"])
        masks += [foreground] if (foreground != mask).any() else []
    texts = {
        "caption": raw.get("caption") or raw.get("label") or "",
        "height": str(mask.shape[0]),
        "width": str(mask.shape[1]),
        "segmentation": json.dumps({"mask": [encode_runs(region) for region in masks]}),
    }
    return {"image": image} | {name: text.encode() for name, text in texts.items()}, len(masks)


class BrushDataLayout:
    """BrushData's samples for `manifests.formats.trainers.tars`.

    Args:
        repeats: of `find_repeats`.
    """

    name = NAME
    columns: Sequence[str] = COLUMNS
    types: Sequence[str] = _TYPES

    def __init__(self, repeats: Mapping[str, str]) -> None:
        self._repeats = repeats

    def make_sample(self, row: DatasetRow, raw: Mapping[str, Any]) -> tuple[Sample, Sequence[str]] | LeftOut:
        if reason := explain_unfit(raw, "source") or self._repeats.get(row.id):
            return LeftOut(reason)
        sample, masks = make_sample(row, raw)
        return sample, _TYPES * masks

    def describe(self, tally: Tally) -> str:
        return _DESCRIPTION
