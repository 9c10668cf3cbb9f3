"""Stage `correct`: masks that people corrected take the place of a row's own, before the row is made anew."""

from typing import Any, ClassVar

import numpy as np

from rasura.manifests.ids import make_child_id
from rasura.manifests.images import RGB, Mask
from rasura.manifests.schemas import Kind, Schema
from rasura.stages.stage import Kept, MissingColumns, Outcome, Record, Rejected, Stage, get_picture_column

MADE_TARGETS = frozenset({"captured", "edited"})
"""Kinds of triplets whose source is a photograph; of the others the target is one."""


def join_masks(
    mask: Mask, foreground: Mask | None, new_mask: Mask | None, new_foreground: Mask | None
) -> tuple[Mask, Mask]:
    """Return the masks of object and of object with effects after a correction of one of them, or of both.

    What was object and is none any more is no effect either, unless the mask with the effects was corrected, too.

    Args:
        mask, foreground: (h, w) bool, of the row.
        new_mask, new_foreground: the corrected ones.

    Examples:
        >>> old, new = np.array([[True, True, False]]), np.array([[False, True, True]])
        >>> join_masks(old, old, new, None)[1].tolist()
        [[False, True, True]]
    """
    result = mask if new_mask is None else new_mask
    if new_foreground is not None:
        return result, new_foreground | result
    if foreground is None:
        return result, result
    return result, (foreground & ~(mask & ~result)) | result


def restore_outside(kind: str, source: RGB, target: RGB, foreground: Mask) -> tuple[RGB, RGB]:
    """Return source and target, equal outside M_fg: the one that is a photograph is the other's pixels there."""
    outside = ~foreground[..., None]
    if kind in MADE_TARGETS:
        return source, np.where(outside, source, target)
    return np.where(outside, target, source), target


class Correct(Stage):
    """Puts corrected masks in place of a row's own (source `corrections`).

    A pair or photograph gets them as `object_mask` and `foreground_mask`, so that the stages after it (`matte`,
    `capture`, `inpaint`) make all of the row anew. A triplet gets them as `mask` and `foreground_mask`; outside of M_fg
    its pictures are made equal. The row has a new id, and the corrected row is among its parents.

    Examples:
        - correct: {}
    """

    name = "correct"
    needs: ClassVar[Schema] = {
        "corrected_mask": Kind.MASK,
        "corrected_foreground_mask": Kind.MASK,
        "corrected_row": Kind.STRING,
    }
    drops: ClassVar[frozenset[str]] = frozenset({"corrected_mask", "corrected_foreground_mask", "verdict", "score"})

    def schema(self, columns: Schema) -> Schema:
        return dict(super().schema(columns)) | {get_column(columns, self.name): Kind.MASK, "foreground_mask": Kind.MASK}

    def process_one(self, record: Record) -> Outcome:
        column = get_column(record, self.name)
        own: Mask | None = record.get(column)
        picture = record[get_picture_column(record)]
        corrected = (record["corrected_mask"], record["corrected_foreground_mask"])
        for mask in corrected:
            if mask is not None and mask.shape != picture.shape[:2]:
                size, of = (f"{shape[1]} x {shape[0]}" for shape in (mask.shape, picture.shape))
                return Rejected("correction of another size", f"the mask has {size} px, the picture {of}")
        if own is None and corrected[0] is None:
            return Rejected("no object mask", f"only the mask with the effects was corrected, and there is no {column}")
        mask, foreground = join_masks(
            own if own is not None else corrected[0], record.get("foreground_mask"), *corrected
        )
        if not mask.any():
            return Rejected("no object found", "the corrected mask is empty")
        values: dict[str, Any] = {column: mask, "foreground_mask": foreground}
        if column == "mask" and record.get("target") is not None:
            pictures = restore_outside(record["kind"], record["source"], record["target"], foreground)
            values |= dict(zip(("source", "target"), pictures, strict=True))
        parents = dict.fromkeys([*(record.get("parents") or ()), record["id"], record["corrected_row"]])
        identity = {"id": make_child_id(record["id"], "corrected"), "parents": list(parents)}
        rest = {name: value for name, value in record.items() if name not in self.drops}
        return Kept([rest | values | identity])


def get_column(columns: Any, stage: str) -> str:
    """Return the column that has the object's mask: a triplet's `mask`, else `object_mask`.

    Raises:
        MissingColumns: there are no pictures that a mask could be of.
    """
    if not {"source", "input"} & set(columns):
        raise MissingColumns(stage, ("source",), tuple(columns))
    return "mask" if "mask" in columns and "input" not in columns else "object_mask"
