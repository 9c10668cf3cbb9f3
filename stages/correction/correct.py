"""Stage `correct`: masks that people corrected take the place of a row's own, before the row is made anew."""

from typing import Any, ClassVar

import cv2
import numpy as np

from rasura.manifests.formats.dataset_rows import CORRECTED_LABEL, CORRECTED_ROW
from rasura.manifests.ids import make_child_id
from rasura.manifests.images import RGB, Mask
from rasura.manifests.schemas import Kind, Schema
from rasura.stages.imaging.mask_change import MIN_AGREEMENT, find_change, measure_mask_change
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


def find_row_change(record: Record) -> Mask | None:
    """Find what changed between the two pictures of a pair or of a triplet; None where there is one picture alone.

    Of a pair, what `effects` found counts, too: it is more sensitive.
    """
    names = ("input", "gt") if record.get("input") is not None else ("source", "target")
    first, second = (record.get(name) for name in names)
    if first is None or second is None:
        return None
    change = find_change(first, second)
    effects = record.get("foreground_mask") if names[0] == "input" else None
    if effects is None:
        return change
    size = change.shape[::-1]
    near = cv2.resize(effects.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5
    return np.asarray(change | near, bool)


class Correct(Stage):
    """Puts corrected masks in place of a row's own (source `corrections`).

    A pair or photograph gets them as `object_mask` and `foreground_mask`, so that the stages after it (`matte`,
    `capture`, `inpaint`) make all of the row anew. A triplet gets them as `mask` and `foreground_mask`; outside of M_fg
    its pictures are made equal. The row has a new id, and the corrected row is among its parents. A dataset has it in
    place of the row `corrected_row`, and of what that was made from.

    The evidence is that of masks that come with a pair (`segment`): the share of the change between the two pictures
    that is in the new mask, and the share of the mask that changed. A mask that explains nothing is rejected.

    Examples:
        - correct: {}
    """

    name = "correct"
    version = "2"
    needs: ClassVar[Schema] = {
        "corrected_mask": Kind.MASK,
        "corrected_foreground_mask": Kind.MASK,
        CORRECTED_ROW: Kind.STRING,
    }
    drops: ClassVar[frozenset[str]] = frozenset({"corrected_mask", "corrected_foreground_mask", "verdict", "score"})

    def schema(self, columns: Schema) -> Schema:
        masks = {get_column(columns, self.name): Kind.MASK, "foreground_mask": Kind.MASK}
        return dict(super().schema(columns)) | masks | dict.fromkeys(("mask_change", "mask_changed"), Kind.FLOAT)

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
        values: dict[str, Any] = {
            column: mask,
            "foreground_mask": foreground,
            "mask_change": None,
            "mask_changed": None,
        }
        if (change := find_row_change(record)) is not None:
            measured, whole = (measure_mask_change(new, change) for new in (mask, foreground))
            for name, new, overlap in (("mask", mask, measured), ("mask with the effects", foreground, whole)):
                if overlap.agreement < MIN_AGREEMENT:
                    return Rejected(
                        "correction explains no change",
                        f"{overlap.changed:.1%} of the corrected {name} ({new.mean():.0%} of the picture) changed, "
                        f"{overlap.change:.1%} of the change is in it",
                    )
            values |= {"mask_change": measured.change, "mask_changed": measured.changed}
        if column == "mask" and record.get("target") is not None:
            pictures = restore_outside(record["kind"], record["source"], record["target"], foreground)
            values |= dict(zip(("source", "target"), pictures, strict=True))
        parents = dict.fromkeys([*(record.get("parents") or ()), record["id"], record[CORRECTED_ROW]])
        identity = {"id": make_child_id(record["id"], CORRECTED_LABEL), "parents": list(parents)}
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
