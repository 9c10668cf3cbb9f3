"""Ids, seeds and splits: all of them are hashes, so that the same input is the same everywhere."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ID_LENGTH = 32  # hex digits: 128 bits of a sha256


def content_id(*parts: bytes | None) -> str:
    """Id of some content: hash of the parts, each framed by its length; None differs from empty."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"-" if part is None else str(len(part)).encode() + b":")
        digest.update(part or b"")
    return digest.hexdigest()[:ID_LENGTH]


def content_id_of_file(path: Path) -> str:
    """`content_id` of a file's bytes, without holding them all."""
    with path.open("rb") as source:
        digest = hashlib.sha256(f"{os.fstat(source.fileno()).st_size}:".encode())
        while block := source.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:ID_LENGTH]


def stable_hash(value: Any) -> str:
    """Hash of a JSON value that does not depend on the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


def shard_id(part_hash: str, input_ids: Iterable[str]) -> str:
    """Id of a shard: its sorted inputs and the hash of the part of the recipe that produces it."""
    return stable_hash([part_hash, sorted(input_ids)])


def child_id(parent: str, label: object) -> str:
    """Id of one of several records made from `parent`. Children sort next to their parent."""
    return f"{parent}.{label}"


def seed_for(recipe_seed: int, stage: str, record_id: str) -> int:
    """Seed (63 bits) of a stage's randomness for one record: independent of order, batch, worker and resume."""
    digest = hashlib.sha256(f"{recipe_seed}\0{stage}\0{record_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def split_of(scene_id: str, shares: Mapping[str, float]) -> str:
    """Split of a scene, by a hash of its id alone: data that is added later moves no scene.

    `shares` maps split names to shares that sum to 1; the order of the names decides which hashes go where.
    """
    draw = int.from_bytes(hashlib.sha256(f"split\0{scene_id}".encode()).digest()[:8], "big") / 2**64
    total = 0.0
    for name, share in shares.items():
        total += share
        if draw < total:
            return name
    return next(reversed(list(shares)))
