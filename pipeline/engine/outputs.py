"""The check of what a stage made: columns that it declares, with values of their kinds."""

from collections.abc import Mapping

import numpy as np

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
        >>> find_output_fault({"id": Kind.STRING}, {"id": "a"}, {"id": None})
        'its row has id None; every row needs a text of its own'
    """
    if "id" in output and not (isinstance(output["id"], str) and output["id"]):
        return f"its row has id {output['id']!r}; every row needs a text of its own"
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
            return f"column '{name}' is {value!r:.60} ({type(value).__name__}), but its kind is {kind}"
        if kind in PICTURES and value is not None and (fault := find_picture_fault(kind, value)):
            return f"column '{name}' is {fault}"
    return None
