"""The check of what a stage made: columns that it declares, with values of their kinds."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from rasura.manifests.ids import is_row_id
from rasura.manifests.safety.text import read_text
from rasura.manifests.schemas import PICTURES, PROVENANCE, Kind, Schema, find_picture_fault
from rasura.stages.stage import Record

_TYPES: Mapping[Kind, tuple[type, ...]] = {
    Kind.STRING: (str,),
    Kind.INT: (int, np.integer),
    Kind.FLOAT: (int, float, np.integer, np.floating),
    Kind.BOOL: (bool, np.bool_),
    **dict.fromkeys((Kind.STRINGS, Kind.FLOATS), (list, tuple, np.ndarray)),
    **dict.fromkeys(PICTURES, (np.ndarray,)),
}
"""Types of the values of a column, by its kind; a value may also be None."""


KEPT_COLUMNS = ("source", "target", "mask", "scene_id", "split")
"""Columns that no stage may take away from a row that has them."""


def describe_value(value: object) -> str:
    """Describe a value that a stage made in a few letters, whatever it is."""
    return read_text(value, repr)[:60]


def _find_text_fault(values: Iterable[Any]) -> str | None:
    for value in values:
        if value is not None and not isinstance(value, str):
            return f"has {describe_value(value)} ({type(value).__name__}) where a text belongs"
        try:
            (value or "").encode()
        except UnicodeEncodeError:
            return f"is {describe_value(value)}, which no UTF-8 can have: half of a pair of code units"
    return None


def find_change_fault(
    record: Record, row: Record, splits: Collection[str], named: Collection[object] = ()
) -> str | None:
    """Find what a stage may not do to a row: take away what makes it one, or invent a split.

    Args:
        record: that came in.
        row: that comes out.
        splits: of the recipe; any where there is none.
        named: values that the recipe gives to the stage: one of them may be a split, too.

    Examples:
        >>> find_change_fault({"scene_id": "a"}, {"scene_id": None}, ["train"])
        "column 'scene_id' is None, but the row came with a value"
        >>> find_change_fault({"split": "train"}, {"split": "tran"}, ["train", "test"])
        "column 'split' is 'tran'; the recipe's splits are train, test"
    """
    for name in KEPT_COLUMNS:
        if name in row and row[name] is None and record.get(name) is not None:
            return f"column '{name}' is None, but the row came with a value"
    split = row.get("split")
    if splits and split is not None and split not in (record.get("split"), *splits, *named):
        return f"column 'split' is {describe_value(split)}; the recipe's splits are {', '.join(splits)}"
    return None


def find_output_fault(columns: Schema, record: Record, output: Record) -> str | None:
    """Find what is wrong with a record that a stage made; None where it fits the columns after the stage.

    Args:
        columns: after the stage.
        record: that came in.
        output: that the stage made.

    Examples:
        >>> find_output_fault({"sharpness": Kind.FLOAT}, {}, {"sharpness": "high"})
        "column 'sharpness' is 'high' (str), but its kind is float64"
        >>> find_output_fault({"sharpness": Kind.FLOAT}, {}, {})
        "it left out 'sharpness', a column that it declares; give None where there is no value"
        >>> find_output_fault({"id": Kind.STRING}, {"id": "a"}, {"id": None}).partition(",")[0]
        'its row has id None; every row needs a text of its own'
    """
    if "id" in output and not is_row_id(output["id"]):
        rule = "every row needs a text of its own, without control characters, / and \\, of at most 200 bytes"
        return f"its row has id {describe_value(output['id'])}; {rule}"
    if unknown := sorted(set(output) - set(columns) - set(record)):
        return f"it made columns that it does not declare: {', '.join(unknown)}"
    added = set(columns) - set(record) - set(PROVENANCE)
    absent = sorted(added - set(output))
    if absent and len(absent) == len(added):  # what is left out beside others is null
        names = ", ".join(f"'{name}'" for name in absent)
        nouns = "a column" if len(absent) == 1 else "columns"
        return f"it left out {names}, {nouns} that it declares; give None where there is no value"
    for name, value in output.items():
        kind = columns.get(name)
        types = _TYPES.get(kind) if kind else None
        if types and value is not None and not isinstance(value, types):
            return f"column '{name}' is {describe_value(value)} ({type(value).__name__}), but its kind is {kind}"
        texts = [value] if kind is Kind.STRING else value if kind is Kind.STRINGS and value is not None else ()
        if fault := _find_text_fault(texts):
            return f"column '{name}' {fault}"
        if kind in PICTURES and value is not None and (fault := find_picture_fault(kind, value)):
            return f"column '{name}' is {fault}"
    return None
