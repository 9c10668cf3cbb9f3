"""What every row on disk has: an id that no other row has, the pictures of its kind, a reason where it was dropped."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasura.manifests.errors import RunError
from rasura.manifests.schemas import list_required

OUTCOMES = ("rejected", "failed")
DIFFERENT_SIZES = "its pictures differ in size"


def find_size_fault(record: Mapping[str, Any]) -> str | None:
    """Find pictures of a triplet that have another size than the others.

    Examples:
        >>> find_size_fault({"source": np.zeros((4, 6, 3)), "target": np.zeros((8, 8, 3)), "mask": np.ones((8, 8))})
        'its pictures differ in size: source 6 × 4, target 8 × 8, mask 8 × 8'
    """
    sizes = list_sizes(record)
    if len(set(sizes.values())) < 2:
        return None
    texts = (f"{name} {width} × {height}" for name, (height, width) in sizes.items())
    return f"{DIFFERENT_SIZES}: {', '.join(texts)}"


def list_sizes(record: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """List height and width of those pictures of a triplet that a record has."""
    pictures = ((name, record.get(name)) for name in ("source", "target", "mask", "foreground_mask"))
    return {name: picture.shape[:2] for name, picture in pictures if isinstance(picture, np.ndarray)}


class Dropped(Protocol):
    """A rejected or failed input, as `manifests.shards.RejectedRow` is."""

    @property
    def id(self) -> Any: ...
    @property
    def stage(self) -> Any: ...
    @property
    def outcome(self) -> Any: ...
    @property
    def reason(self) -> Any: ...


def check_rows(rows: pa.Table) -> None:
    """Check the rows of a shard before it is written.

    Raises:
        ValueError: an id is null, empty or there twice, or a triplet lacks one of its pictures.

    Examples:
        >>> check_rows(pa.table({"id": ["a", "b", "a"]}))
        Traceback (most recent call last):
        ValueError: id a is there twice
    """
    ids = rows["id"]
    if ids.null_count or (rows.num_rows and pc.any(pc.equal(ids, "")).as_py()):
        raise ValueError("a row has no id")
    if len(pc.unique(ids)) != rows.num_rows:
        counts = pc.value_counts(ids)
        doubled = next(entry["values"].as_py() for entry in counts if entry["counts"].as_py() > 1)
        raise ValueError(f"id {doubled} is there twice")
    for name in list_required(rows.column_names):
        if rows[name].null_count:
            empty = ids.filter(pc.is_null(rows[name]))[0]
            raise ValueError(f"row {empty} has no {name}")


def check_rejections(rows: Iterable[Dropped]) -> None:
    """Check the rejected and failed inputs of a shard before they are written.

    Raises:
        ValueError: one has no id, stage or reason, or another outcome than rejected and failed.
    """
    for row in rows:
        for name in ("id", "stage", "reason"):
            value = getattr(row, name)
            if not isinstance(value, str) or not value:
                raise ValueError(f"a dropped input has {name} {value!r}: {row}")
        if row.outcome not in OUTCOMES:
            raise ValueError(f"a dropped input has outcome {row.outcome!r}: {row}")


class DoubledIds(RunError):
    """Rows of one id in two shards of a table."""


class IdIndex:
    """An index of the ids of a table that finds those which several shards have. It takes 16 bytes a row.

    Examples:
        >>> index = IdIndex()
        >>> index.add("first", ["a", "b"])
        >>> index.add("second", ["c", "b"])
        >>> index.find_doubled()
        ['first', 'second']
    """

    def __init__(self) -> None:
        self._hashes: list[np.ndarray[Any, Any]] = []
        self._shards: list[str] = []

    def add(self, shard: str, ids: Sequence[str]) -> None:
        """Add the ids of a shard."""
        self._hashes.append(np.array([_hash_id(id) for id in ids], "S16"))
        self._shards.append(shard)

    def find_doubled(self) -> list[str]:
        """Find the shards that share the first id that is there twice; none where each id is there once."""
        if not self._hashes:
            return []
        hashes = np.concatenate(self._hashes)
        order = np.sort(hashes)
        repeats = order[1:][order[1:] == order[:-1]]
        if not repeats.size:
            return []
        return [shard for shard, part in zip(self._shards, self._hashes, strict=True) if repeats[0] in part]


def _hash_id(id: str) -> bytes:
    return hashlib.blake2b(id.encode(), digest_size=16).digest()
