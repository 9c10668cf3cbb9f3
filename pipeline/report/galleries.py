"""Tables of a page: the values of many rows as compact JSON, and the pictures of some of them.

What comes from data is JSON inside an element that no browser runs, and the page's script shows it as text only.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rasura.manifests.schemas import Kind, decode_value
from rasura.pipeline.report.limits import Limit

TEXT_LENGTH = 400
"""Letters of a text that are in the page."""
DIGITS = 6
"""Significant digits of a number that are in the page."""
LARGEST = 2**53
"""Integers up to here are the same in JSON and in a browser."""


@dataclass
class Gallery:
    """A table as the page shows it.

    Attributes:
        id: distinguishes it from the others of the page.
        title: from data, or about it.
        total: rows of the table, of which `columns` may have some.
        columns: name -> values of its rows: numbers, texts or None.
        limits: of some columns, with the median as the third entry.
        pictures: row -> its pictures, by `describe_example`.
        of: id of the table that these are the rejected inputs of; "" where they are rows.
        bare: no row has pictures.
        note: a sentence about it.
    """

    id: str
    title: str
    total: int
    columns: dict[str, list[Any]]
    limits: Mapping[str, tuple[Limit, float | None]] = field(default_factory=dict)
    pictures: dict[int, dict[str, Any]] = field(default_factory=dict)
    of: str = ""
    bare: bool = False
    note: str = ""

    @property
    def count(self) -> int:
        """Rows that are in the page."""
        return max(map(len, self.columns.values()), default=0)

    def to_json(self) -> dict[str, Any]:
        """Return the table without its columns and pictures."""
        result: dict[str, Any] = {"id": self.id, "title": self.title[:TEXT_LENGTH], "total": self.total}
        result |= {"count": self.count}
        if self.limits:
            result["limits"] = {
                name: {"low": limit.low, "high": limit.high, "typical": _round(typical)}
                for name, (limit, typical) in self.limits.items()
            }
        if self.of:
            result |= {"rejected": True, "of": self.of}
        if self.bare:
            result["bare"] = True
        if self.note:
            result["note"] = self.note
        return result


def convert_values(kind: Kind, values: Iterable[Any]) -> list[Any]:
    """Convert values as they are stored to numbers and texts of the page.

    Examples:
        >>> convert_values(Kind.FLOAT, [0.123456789, float("nan"), None])
        [0.123457, None, None]
        >>> convert_values(Kind.FLOATS, [[1.0, 2.5]]), convert_values(Kind.INT, [2**60])
        (['1, 2.5'], ['1152921504606846976'])
    """
    if kind is Kind.FLOAT:
        return [_round(value) for value in values]
    if kind is Kind.INT:
        numbers = list(values)
        is_large = any(value is not None and abs(value) > LARGEST for value in numbers)
        return [None if value is None else str(value) for value in numbers] if is_large else numbers
    if kind is Kind.BOOL:
        return [None if value is None else "yes" if value else "no" for value in values]
    return [_shorten(decode_value(kind, value)) for value in values]


def _round(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")


def _shorten(value: Any) -> str | None:
    if value is None or value == [] or value == {}:
        return None
    text = format_value(value)
    return text if len(text) <= TEXT_LENGTH else f"{text[:TEXT_LENGTH]}…"


def format_value(value: Any) -> str:
    """Format a column's value as text.

    Examples:
        >>> format_value({"matte": "1"}), format_value([0.5, 2.0])
        ('matte 1', '0.5, 2')
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {format_value(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(format_value, value))
    return str(value)


def encode_column(values: Sequence[Any]) -> dict[str, Any] | None:
    """Encode a column as briefly as its values allow; None where all are missing.

    Examples:
        >>> encode_column([1.5, None]), encode_column([2, 2])
        ({'numbers': [1.5, None]}, {'all': 2})
        >>> encode_column(["a", "b"]), encode_column(["a", "a", None, "a"])
        ({'texts': ['a', 'b']}, {'words': ['a'], 'codes': [0, 0, -1, 0]})
    """
    distinct = list(dict.fromkeys(values))
    if not distinct or distinct == [None]:
        return None
    if len(distinct) == 1:
        return {"all": distinct[0]}
    present = [value for value in distinct if value is not None]
    if all(isinstance(value, int | float) for value in present):
        return {"numbers": list(values)}
    if len(distinct) > len(values) / 2:
        return {"texts": [None if value is None else str(value) for value in values]}
    codes = {value: index for index, value in enumerate(present)}
    return {"words": [str(word) for word in present], "codes": [codes.get(value, -1) for value in values]}


def write_json(id: str, value: Any) -> str:
    """Write a value as an element of the page that holds JSON; no text in it can end the element.

    Examples:
        >>> write_json("a", ["</script>"])
        '<script type="application/json" id="a">["\\\\u003c/script>"]</script>'
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    # half of a surrogate pair, which no file of UTF-8 can have
    text = text.encode("utf-8", "replace").decode()
    return f'<script type="application/json" id="{id}">{text}</script>'


def write_galleries(galleries: Sequence[Gallery]) -> str:
    """Write tables as elements of the page: columns and pictures of each are read when it is opened."""
    parts = [write_json("galleries", [gallery.to_json() for gallery in galleries])]
    for gallery in galleries:
        encoded = {name: encode_column(values) for name, values in gallery.columns.items()}
        columns = {name: column for name, column in encoded.items() if column is not None}
        parts.append(write_json(f"columns-{gallery.id}", columns))
    parts += [write_json(f"pictures-{gallery.id}", gallery.pictures) for gallery in galleries if gallery.pictures]
    return "\n".join(parts)
