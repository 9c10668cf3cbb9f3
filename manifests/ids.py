"""Ids, seeds and splits: all of them are hashes, so that the same input is the same everywhere."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ID_LENGTH = 32  # hex digits: 128 bits of a sha256
LONGEST_ROW_ID = 200  # bytes: exports have files by the names of rows


def compute_content_id(*parts: bytes | None) -> str:
    """Compute the id of some content: a hash of its parts, each framed by its length.

    Args:
        parts: None is not the same as empty.

    Returns:
        32 hex digits, 128 bits of a sha256.

    Examples:
        >>> compute_content_id(b"abc")
        'aab5f9ae99b2e38fb462025c8f72f570'
        >>> compute_content_id(b"ab", b"c") == compute_content_id(b"a", b"bc")
        False
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"-" if part is None else str(len(part)).encode() + b":")
        digest.update(part or b"")
    return digest.hexdigest()[:ID_LENGTH]


def compute_file_content_id(path: Path) -> str:
    """Compute the `compute_content_id` of a file's bytes, without holding all of them in memory."""
    with path.open("rb") as source:
        digest = hashlib.sha256(f"{os.fstat(source.fileno()).st_size}:".encode())
        while block := source.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:ID_LENGTH]


def hash_json(value: Any) -> str:
    """Hash a JSON value, whatever the order of its keys.

    Examples:
        >>> hash_json({"a": 1, "b": 2}) == hash_json({"b": 2, "a": 1})
        True
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


def compute_shard_id(part_hash: str, input_ids: Iterable[str]) -> str:
    """Compute the id of a shard from its inputs and the part of the recipe that produces it.

    Args:
        part_hash: hash of that part of the recipe.
        input_ids: in any order.

    Returns:
        32 hex digits.
    """
    return hash_json([part_hash, sorted(input_ids)])


def make_child_id(parent: str, label: object) -> str:
    """Make the id of one of several records that descend from `parent`. Children sort next to their parent.

    Examples:
        >>> make_child_id("7fa4", "mask_1")
        '7fa4.mask_1'
    """
    return f"{parent}.{label}"


def compute_seed(recipe_seed: int, stage: str, record_id: str) -> int:
    """Compute the seed of a stage's randomness for one record, independent of order, batch, worker and resume.

    Returns:
        A number of 63 bits.

    Examples:
        >>> compute_seed(0, "composite", "7fa4") == compute_seed(0, "composite", "7fa5")
        False
    """
    digest = hashlib.sha256(f"{recipe_seed}\0{stage}\0{record_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def is_row_id(value: object) -> bool:
    """Return whether a value may be the id of a row: a text that can be written anywhere and leads to no other folder.

    Examples:
        >>> is_row_id("7fa4.mask_1"), is_row_id("../x"), is_row_id("a\\nb"), is_row_id(""), is_row_id(7)
        (True, False, False, False, False)
    """
    if not isinstance(value, str) or value in ("", ".", "..") or {*"/\\"} & {*value}:
        return False
    return value.isprintable() and len(value.encode()) <= LONGEST_ROW_ID  # nothing printable is half a surrogate


def is_split_name(name: object) -> bool:
    """Return whether a text from data may be the name of a split: letters, digits and underscores, at most 64.

    Splits are parts of file names, so that no other text may become one.

    Examples:
        >>> is_split_name("train"), is_split_name("../x"), is_split_name("test\\n")
        (True, False, False)
    """
    return isinstance(name, str) and len(name) <= 64 and re.fullmatch(r"\w+", name) is not None


def find_equal_splits(names: Iterable[str | None]) -> tuple[str, str] | None:
    """Find two names of splits that differ in upper and lower case only: on some file systems they are one file.

    Examples:
        >>> find_equal_splits(["train", "test", "Train"]), find_equal_splits(["train", None])
        (('Train', 'train'), None)
    """
    by_key: dict[str, str] = {}
    for name in sorted({name for name in names if name is not None}):
        if (other := by_key.setdefault(name.casefold(), name)) != name:
            return other, name
    return None


def assign_split(scene_id: str, shares: Mapping[str, float]) -> str:
    """Assign a scene to a split, by a hash of its id alone: data that is added later moves no scene.

    Args:
        scene_id: of the scene.
        shares: split name -> share; they sum to 1. The order of the names decides which hashes go where.

    Returns:
        The name of the split.

    Examples:
        >>> assign_split("kitchen", {"train": 0.9, "test": 0.1})
        'train'
    """
    draw = int.from_bytes(hashlib.sha256(f"split\0{scene_id}".encode()).digest()[:8], "big") / 2**64
    total = 0.0
    for name, share in shares.items():
        total += share
        if draw < total:
            return name
    return next(reversed(list(shares)))
