"""Rows as pairs for trainers of models that edit by text: the condition, the instruction, the answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rasura.manifests.checks.rows import DIFFERENT_SIZES
from rasura.manifests.formats.dataset_rows import JUDGEMENT, DatasetRow, explain_unfit
from rasura.manifests.formats.folder_export import LeftOut, read_parts
from rasura.manifests.formats.trainers.instructions import render_instruction
from rasura.manifests.images import Mask, decode_image, decode_mask, read_size

COLUMNS: Sequence[str] = (
    *("id", "source", "target", "mask", "foreground_mask", "label", "instruction"),
    *JUDGEMENT,
)
"""Columns of a run that `make_pair` reads."""


@dataclass(frozen=True)
class PairSettings:
    """The direction and the language of an export.

    Attributes:
        direction: removal shows the source and asks for the target, insertion the other way round.
        language: of the texts.
    """

    direction: str = "removal"
    language: str = "en"


@dataclass(frozen=True)
class Pair:
    """One example of a trainer.

    Attributes:
        condition: the picture that the model receives, encoded.
        answer: the one that it learns to make, encoded.
        mask: of the object, (h, w).
        change: where the two pictures may differ: object and effects, or, where the effects are not known, the object
            and all that differs.
        text: the instruction.
    """

    condition: bytes
    answer: bytes
    mask: Mask
    change: Mask
    text: str


def explain_no_pair(raw: Mapping[str, Any]) -> str | None:
    """Explain why a row makes no pair; None where it does.

    Both of its pictures must show what the text says, whichever is the answer.

    Examples:
        >>> explain_no_pair({"kind": "edited"})
        'a model painted its target, and nobody accepted it'
        >>> explain_no_pair({"kind": "captured"}) is None
        True
    """
    return explain_unfit(raw, "source") or explain_unfit(raw, "target")


def make_pair(row: DatasetRow, raw: Mapping[str, Any], settings: PairSettings) -> Pair | LeftOut:
    """Make the pair of a row.

    Args:
        row: its place, for errors.
        raw: its columns, pictures encoded.
        settings: direction and language.

    Raises:
        NotTriplets: it has no source, target or mask.
    """
    if reason := explain_no_pair(raw):
        return LeftOut(reason)
    source, target, encoded = read_parts(raw, row, ("source", "target", "mask"))
    mask = decode_mask(encoded)
    if len({read_size(picture) for picture in (source, target, encoded)}) > 1:
        return LeftOut(DIFFERENT_SIZES)
    # a candidate's foreground mask is its remover's guess
    is_known = raw.get("foreground_mask") is not None and raw.get("kind") != "edited"
    change = mask | (
        decode_mask(raw["foreground_mask"]["bytes"])
        if is_known
        else (decode_image(source) != decode_image(target)).any(axis=2)
    )
    text = render_instruction(raw, mask, settings.direction, settings.language)
    condition, answer = (source, target) if settings.direction == "removal" else (target, source)
    return Pair(condition, answer, mask, change, text)
