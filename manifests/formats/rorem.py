"""RORem's training folders (arXiv 2501.00740): the contents of `meta.json`.

A folder has `source/`, `mask/`, `GT/` and `meta.json`: a list of {"source", "mask", "GT"}, paths from that folder.
The discriminator's has `score` too: 1 or 0 for a person's verdict, or a number in between. Masks are white where
something is to be removed. Rasura adds `rows.jsonl` for what RORem's entries cannot hold, by the pictures' name.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from rasura.manifests.errors import InputError
from rasura.manifests.json_lines import parse_json

NAME = "rorem"
META, ABOUT = "meta.json", "rows.jsonl"
PARTS = {"source": "source", "mask": "mask", "GT": "target"}
"""RORem's pictures -> those of a triplet."""


class NotRorem(InputError):
    """A file that is no `meta.json` of RORem's."""


@dataclass(frozen=True)
class Entry:
    """One entry of a `meta.json`.

    Attributes:
        paths: picture -> its path from the folder; None for one that it does not have.
        score: where it has one.
        fault: the reason and the detail, where the entry is wrong.
    """

    paths: Mapping[str, str | None] = field(default_factory=dict)
    score: float | None = None
    fault: tuple[str, str] | None = None


def parse_entries(data: bytes, where: str, truth: bool = True) -> list[Entry]:
    """Parse the entries of a `meta.json`, in order; one that is wrong has a fault, and costs no other.

    Args:
        data: contents of the file.
        where: the file, for messages.
        truth: True where an entry without `GT` is wrong; a test set has none.

    Raises:
        NotRorem: the contents are no list.
    """
    try:
        values = parse_json(data)
    except ValueError as error:
        raise NotRorem(f"'{where}' is not JSON: {error}") from None
    if not isinstance(values, list):
        raise NotRorem(f"'{where}' holds a {type(values).__name__}; RORem's meta.json is a list of source, mask and GT")
    return [_parse_entry(value, truth) for value in values]


def _parse_entry(value: Any, truth: bool) -> Entry:
    if not isinstance(value, dict):
        return Entry(fault=("no entry", f"it is a {type(value).__name__}, not source, mask and GT"))
    paths: dict[str, str | None] = {}
    for part in PARTS:
        path = value.get(part)
        if path is None and part == "GT" and not truth:
            paths[part] = None
            continue
        if not isinstance(path, str) or not path:
            return Entry(fault=("no partner", f"it has no {part}: {json.dumps(value)[:200]}"))
        steps = PurePosixPath(path.replace("\\", "/"))
        if steps.is_absolute() or ".." in steps.parts:
            return Entry(fault=("path outside the folder", f"{part} is '{path}'"))
        paths[part] = str(steps)
    score = value.get("score")
    if score is not None and (
        isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score)
    ):
        return Entry(fault=("score is no number", f"score is {json.dumps(score)[:80]}"))
    if score is not None and not 0 <= score <= 1:
        return Entry(fault=("score out of range", f"score is {score:g}; it is 1 or 0 for yes or no, or a probability"))
    return Entry(paths, None if score is None else float(score))


def get_entry_name(path: str) -> str:
    """Return the name of an entry in `rows.jsonl`: its source's, without the suffix."""
    return PurePosixPath(path).stem


def get_score(row: Mapping[str, Any]) -> float | None:
    """Return the score of a row's entry.

    Args:
        row: with `verdict` and `score`, as far as it has them.

    Returns:
        1 or 0 where people said yes or no, else the discriminator's probability; None without either.

    Examples:
        >>> get_score({"verdict": "no", "score": 0.8}), get_score({"score": 0.8})
        (0, 0.8)
    """
    decided = {"yes": 1, "no": 0}.get(row.get("verdict") or "")
    return decided if decided is not None else row.get("score")


def convert_score(score: float | None) -> str | None:
    """Convert a score of exactly 1 or 0 to a verdict; None for any other.

    Examples:
        >>> convert_score(1.0), convert_score(0.5)
        ('yes', None)
    """
    return {1.0: "yes", 0.0: "no"}.get(score) if score is not None else None
