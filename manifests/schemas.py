"""Columns, their kinds, and how a record becomes a Parquet row that `datasets.load_dataset` decodes.

A schema maps column names to kinds. Every column may be null.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa

from rasura.manifests import images
from rasura.manifests.errors import InputError
from rasura.manifests.spelling import suggest


class UnknownKind(InputError):
    """A kind of column that does not exist."""


class Kind(StrEnum):
    """The kind of values in a column, in memory and on disk."""

    RGB = "rgb"  # (h, w, 3) uint8; lossless WebP
    RGBA = "rgba"  # (h, w, 4) uint8; lossless WebP
    MASK = "mask"  # (h, w) bool, True = object; 1-bit PNG
    DEPTH = "depth"  # (h, w) uint16; 16-bit PNG
    STRING = "string"
    INT = "int64"
    FLOAT = "float64"
    BOOL = "bool"
    STRINGS = "strings"
    FLOATS = "floats"
    VERSIONS = "versions"  # dict name -> text; list of (name, value) sorted by name
    RECORDS = "records"  # list of dicts that one stage hands to the next; never on disk

    @classmethod
    def _missing_(cls, value: object) -> "Kind":
        raise UnknownKind(f"there is no Kind {value!r:.60}; {suggest(str(value), cls)}")


Schema = Mapping[str, Kind]

PICTURES = frozenset({Kind.RGB, Kind.RGBA, Kind.MASK, Kind.DEPTH})

PROVENANCE: Schema = {
    "id": Kind.STRING,
    "scene_id": Kind.STRING,
    "split": Kind.STRING,
    "origin": Kind.STRING,
    "licence": Kind.STRING,
    "parents": Kind.STRINGS,
    "seed": Kind.INT,
    "stages": Kind.VERSIONS,
    "weights": Kind.VERSIONS,
    "bytes": Kind.INT,  # size of the row's encoded pictures, wherever they are stored
}
"""Columns that every record of every table carries."""

CANDIDATE_KINDS = frozenset({"edited", "inserted"})
"""Kinds of rows that a model made: candidates, until somebody or a score has accepted them."""

TRIPLET: Schema = {
    "id": Kind.STRING,
    "kind": Kind.STRING,
    "scene_id": Kind.STRING,
    "split": Kind.STRING,
    "origin": Kind.STRING,
    "source": Kind.RGB,
    "target": Kind.RGB,
    "mask": Kind.MASK,
    "foreground_mask": Kind.MASK,
    "label": Kind.STRING,
    "licence": Kind.STRING,
    "parents": Kind.STRINGS,
    "seed": Kind.INT,
    "stages": Kind.VERSIONS,
    "weights": Kind.VERSIONS,
    "remover": Kind.STRING,
    "round": Kind.INT,
    "score": Kind.FLOAT,
    "verdict": Kind.STRING,
}
"""Columns of the dataset that a run writes. A table may have more; these keep their names."""


def list_required(columns: Iterable[str]) -> Sequence[str]:
    """List the columns that may not be null beside the id: picture and mask, where a table has all of a triplet's.

    A target may be absent: RORem's test set has none, and removers fill photographs whose truth nobody knows.

    Examples:
        >>> list_required(["id", "source", "mask", "score", "target"])
        ('source', 'mask')
        >>> list_required(["id", "source"])
        ()
    """
    return ("source", "mask") if set(columns).issuperset(("source", "target", "mask")) else ()


VERDICTS = ("yes", "no", "unsure")
"""The words of the column `verdict`."""

_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_ARROW: dict[Kind, pa.DataType] = {
    **dict.fromkeys(PICTURES, _PICTURE),
    Kind.STRING: pa.string(),
    Kind.INT: pa.int64(),
    Kind.FLOAT: pa.float64(),
    Kind.BOOL: pa.bool_(),
    Kind.STRINGS: pa.list_(pa.string()),
    Kind.FLOATS: pa.list_(pa.float64()),
    Kind.VERSIONS: pa.list_(pa.struct([("name", pa.string()), ("value", pa.string())])),
}
_ENCODE: dict[Kind, tuple[Callable[[Any], bytes], str]] = {
    Kind.RGB: (images.encode_image, "webp"),
    Kind.RGBA: (images.encode_image, "webp"),
    Kind.MASK: (images.encode_mask, "png"),
    Kind.DEPTH: (images.encode_depth, "png"),
}
_DECODE: dict[Kind, Callable[[bytes], Any]] = {
    Kind.RGB: images.decode_image,
    Kind.RGBA: images.decode_rgba,
    Kind.MASK: images.decode_mask,
    Kind.DEPTH: images.decode_depth,
}


_PIXELS: Mapping[Kind, tuple[type[np.generic], tuple[int, ...]]] = {
    Kind.RGB: (np.uint8, (3,)),
    Kind.RGBA: (np.uint8, (4,)),
    Kind.MASK: (np.bool_, ()),
    Kind.DEPTH: (np.uint16, ()),
}
"""Type of the pixels of a picture in memory, and its dimensions after height and width."""


def find_picture_fault(kind: Kind, pixels: Any) -> str | None:
    """Find what is wrong with a picture in memory; None where it is what its kind says.

    A picture of another type would be stored as something else: a float one black, a mask of 0 and 1 empty.

    Examples:
        >>> find_picture_fault(Kind.RGB, np.zeros((4, 6, 3), np.uint8)) is None
        True
        >>> find_picture_fault(Kind.RGB, np.zeros((4, 6, 3), np.float32))
        'float32 of shape (4, 6, 3), but rgb is uint8 of shape (height, width, 3)'
    """
    dtype, rest = _PIXELS[kind]
    if isinstance(pixels, np.ndarray) and (pixels.dtype, pixels.ndim) == (dtype, 2 + len(rest)):  # noqa: SIM102
        if pixels.shape[2:] == rest and pixels.size:
            return None
    actual = f"{pixels.dtype} of shape {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
    shape = ", ".join(["height", "width", *map(str, rest)])
    return f"{actual}, but {kind} is {np.dtype(dtype).name} of shape ({shape})"


def _feature(kind: Kind) -> dict[str, Any]:
    if kind in PICTURES:
        return {"_type": "Image"}
    text = {"dtype": "string", "_type": "Value"}
    match kind:
        case Kind.STRINGS:
            return {"feature": text, "_type": "List"}
        case Kind.FLOATS:
            return {"feature": {"dtype": "float64", "_type": "Value"}, "_type": "List"}
        case Kind.VERSIONS:
            return {"feature": {"name": text, "value": text}, "_type": "List"}
        case _:
            return {"dtype": str(kind), "_type": "Value"}


def describe_features(schema: Schema) -> dict[str, Any]:
    """Describe a schema as the `datasets` library does, for the `huggingface` key.

    Examples:
        >>> describe_features({"score": Kind.FLOAT})
        {'score': {'dtype': 'float64', '_type': 'Value'}}
    """
    return {name: _feature(kind) for name, kind in schema.items()}


def build_arrow_schema(schema: Schema) -> pa.Schema:
    """Build the Arrow schema, with the `huggingface` key and each column's kind in its own metadata."""
    fields = [pa.field(name, _ARROW[kind], metadata={"kind": str(kind)}) for name, kind in schema.items()]
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": describe_features(schema)}})})


def read_schema(arrow: pa.Schema) -> dict[str, Kind]:
    """Read the schema of a table on disk from the metadata of its columns.

    Raises:
        ValueError: a column has no kind: the file was not written by Rasura.
    """
    for field in arrow:
        if not field.metadata or b"kind" not in field.metadata:
            raise ValueError(f"column '{field.name}' has no kind in its metadata: not one of Rasura's tables")
    return {field.name: Kind(field.metadata[b"kind"].decode()) for field in arrow}


def encode_value(kind: Kind, value: Any, name: str) -> Any:
    """Encode a value as Arrow stores it.

    Args:
        kind: of the column.
        value: None becomes null.
        name: file name that a picture carries, without its suffix.

    Raises:
        ValueError: a picture is not what its kind says.
    """
    if value is None:
        return None
    if kind in PICTURES:
        if fault := find_picture_fault(kind, value):
            raise ValueError(f"a picture of row {name} is {fault}")
        encode, suffix = _ENCODE[kind]
        return {"bytes": encode(value), "path": f"{name}.{suffix}"}
    if kind is Kind.VERSIONS:
        return [{"name": key, "value": value[key]} for key in sorted(value)]
    return value


def decode_value(kind: Kind, value: Any) -> Any:
    """Decode a value that `encode_value` encoded."""
    if value is None:
        return None
    if kind in PICTURES:
        return _DECODE[kind](value["bytes"])
    if kind is Kind.VERSIONS:
        return {entry["name"]: entry["value"] for entry in value}
    return value


def encode_records(records: Sequence[Mapping[str, Any]], schema: Schema) -> pa.Table:
    """Encode records as an Arrow table, pictures included. Columns that a record lacks are null.

    Raises:
        ValueError: a record has a column that the schema does not, no id, or a picture that is not what its kind says.
    """
    if unwritable := [name for name, kind in schema.items() if kind is Kind.RECORDS]:
        raise ValueError(f"columns that are never on disk: {', '.join(unwritable)}; a stage should have removed them")
    required = list_required(schema)
    for record in records:
        if extra := set(record) - set(schema):
            raise ValueError(f"record {record.get('id')} has undeclared columns: {', '.join(sorted(extra))}")
        if not isinstance(record.get("id"), str) or not record["id"]:
            raise ValueError(f"a record has id {record.get('id')!r}; every row needs a text of its own")
        if absent := [name for name in required if record.get(name) is None]:
            raise ValueError(f"record {record['id']} is a triplet without {', '.join(absent)}")
    values = {name: [encode_value(kind, r.get(name), r["id"]) for r in records] for name, kind in schema.items()}
    pictures = [values[name] for name, kind in schema.items() if kind in PICTURES]
    if pictures and "bytes" in schema:
        values["bytes"] = [sum(len(cell["bytes"]) for cell in row if cell) for row in zip(*pictures, strict=True)]
    columns = [pa.array(values[name], type=_ARROW[kind]) for name, kind in schema.items()]
    return pa.Table.from_arrays(columns, schema=build_arrow_schema(schema))


def decode_records(table: pa.Table, schema: Schema) -> list[dict[str, Any]]:
    """Decode the records of a table, pictures included."""
    return [{name: decode_value(schema[name], row[name]) for name in table.column_names} for row in table.to_pylist()]
