"""RORem's training folders (arXiv 2501.00740): what is in a `meta.json`, and how a row of ours becomes an entry.

A folder holds `source/`, `mask/`, `GT/` and `meta.json`: a list of {"source", "mask", "GT"}, paths from that folder.
The discriminator's has `score` too: 1 or 0, what a person said, or a number in between. Masks are white where something
is to be removed. `rows.jsonl` beside it is ours: what RORem's entries cannot hold, by the pictures' name.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

META, ABOUT = "meta.json", "rows.jsonl"
PARTS = {"source": "source", "mask": "mask", "GT": "target"}
"""Their pictures, and ours."""
TOLD = ("id", "scene_id", "split", "kind", "label", "origin", "licence", "parents", "remover", "round")
"""What `rows.jsonl` has of a row."""


class NotRorem(ValueError):
    """A file that is no `meta.json` of RORem's."""


@dataclass(frozen=True)
class Entry:
    """One entry. paths: from the folder; of a part that it does not have, None. fault: why it is none, and where."""

    paths: Mapping[str, str | None] = field(default_factory=dict)
    score: float | None = None
    fault: tuple[str, str] | None = None


def entries(data: bytes, where: str, truth: bool = True) -> list[Entry]:
    """The entries of a `meta.json`, in order; one that is wrong has a fault, and costs no other.

    Args:
        where: the file, for messages. truth: whether an entry without `GT` is wrong; a test set has none.

    Raises:
        NotRorem
    """
    try:
        listed = json.loads(data)
    except ValueError as error:
        raise NotRorem(f"'{where}' is not JSON: {error}") from None
    if not isinstance(listed, list):
        raise NotRorem(f"'{where}' holds a {type(listed).__name__}; RORem's meta.json is a list of source, mask and GT")
    return [_entry(one, truth) for one in listed]


def _entry(one: Any, truth: bool) -> Entry:
    if not isinstance(one, dict):
        return Entry(fault=("no entry", f"it is a {type(one).__name__}, not source, mask and GT"))
    paths: dict[str, str | None] = {}
    for part in PARTS:
        path = one.get(part)
        if path is None and part == "GT" and not truth:
            paths[part] = None
            continue
        if not isinstance(path, str) or not path:
            return Entry(fault=("no partner", f"it has no {part}: {json.dumps(one)[:200]}"))
        steps = PurePosixPath(path.replace("\\", "/"))
        if steps.is_absolute() or ".." in steps.parts:
            return Entry(fault=("path outside the folder", f"{part} is '{path}'"))
        paths[part] = str(steps)
    score = one.get("score")
    if score is not None and (
        isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score)
    ):
        return Entry(fault=("score is no number", f"score is {json.dumps(score)[:80]}"))
    return Entry(paths, None if score is None else float(score))


def name_of(path: str) -> str:
    """The name by which `rows.jsonl` knows an entry: its source's, without the suffix."""
    return PurePosixPath(path).stem


def score_of(row: Mapping[str, Any]) -> float | None:
    """An entry's score: 1 or 0 where people said yes or no, else the judge's probability; None without either."""
    said = {"yes": 1, "no": 0}.get(row.get("verdict") or "")
    return said if said is not None else row.get("score")


def verdict_of(score: float | None) -> str | None:
    """What a score of exactly 1 or 0 says."""
    return {1.0: "yes", 0.0: "no"}.get(score) if score is not None else None
