"""The oracle reviewer: yes or no by measured closeness to the truth, where a candidate has one.

It stands in for people in tests, in the demo and in experiments, on candidates made from captured or simulated
triplets. Its votes carry the reviewer's name `oracle` and lie in files of their own: nothing mixes them with people's.

Lengths follow the hole. The limits were found at 64 px, where a hole is some 23 px wide; on a larger hole closeness is
asked for at the same share of it, for a fill need not repeat what was behind a thing to the pixel.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.ids import stable_hash
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables

Array = npt.NDArray[Any]

NAME = "oracle"
"""The reviewer's name in its votes."""
VERSION = "1"
"""Of the rule; votes say which one they follow."""
TRUE_KINDS = ("captured", "simulated")
HOLE = 23.0
"""Square root of a hole's area, px, at which lengths are as `Limits` has them."""
PICTURE = 64.0
"""Shorter side of a picture at which lengths never grow, px."""
TRUTHS = 64
"""Scenes whose truth is kept in memory: candidates of a shard's scenes come remover by remover."""


class NoTruth(ValueError):
    """A run without a candidate whose truth is known."""


@dataclass(frozen=True)
class Limits:
    """What a yes needs. Differences are in grey levels of 255.

    blur: sigma, px, at which pictures are compared; below it only the amount of texture counts.
    mean, high: of |candidate - truth| over the region, its mean and its 95th percentile.
    flat, busy: ln of the candidate's texture over the truth's; soft: the same of its finest texture alone.
    remnant, alike: grey levels of (source - truth) that are in (candidate - truth) too, and how well both correlate;
        above both, what was to be removed still shows.
    outside: share of the hole's area that may differ from the truth by more than `high` outside the regions.
    """

    blur: float = 1.5
    mean: float = 14.0
    high: float = 42.0
    flat: float = -0.75
    busy: float = 0.6
    soft: float = -1.5
    remnant: float = 6.0
    alike: float = 0.7
    outside: float = 0.02


LIMITS = Limits()


class Closeness(NamedTuple):
    """How a candidate compares with the truth in one region; see `Limits`."""

    mean: float
    high: float
    texture: float
    finest: float
    remnant: float
    alike: float


class Opinion(NamedTuple):
    """Yes or no, and for a no one of the reviewers' reasons (`rasura.annotator.store.enums.Reason`)."""

    verdict: str
    reason: str | None


def scale_of(hole: Array) -> float:
    """How much larger than in `Limits` lengths are for this hole: by its size, never by more than the picture's.

    Args:
        hole: (h, w) bool.
    """
    return float(np.clip(np.sqrt(hole.sum()) / HOLE, 1.0, max(1.0, min(hole.shape) / PICTURE)))


def closeness(candidate: Array, truth: Array, source: Array, region: Array, sigma: float, fine: float) -> Closeness:
    """Measures a candidate in one region.

    Args:
        candidate, truth, source: (h, w, 3) uint8. region: (h, w) bool, not empty.
        sigma, fine: px, as `Limits.blur`: scaled with the hole, and as it is.
    """
    made, true = _blurred(candidate, sigma), _blurred(truth, sigma)
    away = np.abs(made - true).mean(2)[region]
    texture, finest = (
        float(np.log((_texture(candidate, region, width) + 1.5) / (_texture(truth, region, width) + 1.5)))
        for width in (sigma, fine)
    )
    error = (candidate.astype(np.float32) - truth)[region].ravel()
    removed = (source.astype(np.float32) - truth)[region].ravel()
    shared, energy, own = float(error @ removed), float(removed @ removed), float(error @ error)
    remnant = shared / max(energy, 1e-6) * (energy / max(1, len(removed))) ** 0.5
    alike = shared / max((own * energy) ** 0.5, 1e-6)
    return Closeness(float(away.mean()), float(np.percentile(away, 95)), texture, finest, remnant, alike)


def judge(
    candidate: Array,
    truth: Array,
    source: Array,
    hole: Array,
    effects: Array | None = None,
    limits: Limits = LIMITS,
) -> Opinion:
    """Yes or no on one candidate.

    Args:
        candidate, truth, source: (h, w, 3) uint8.
        hole: (h, w) bool, what was filled: the mask with its dilation.
        effects: (h, w) bool M_e, shadow and reflection, inside the hole or not; None where unknown or none.

    Raises:
        ValueError: shapes do not fit, or the hole is empty.
    """
    if not candidate.shape == truth.shape == source.shape or candidate.shape[:2] != hole.shape:
        raise ValueError(
            f"candidate {candidate.shape}, truth {truth.shape}, source {source.shape} and hole {hole.shape} do not fit"
        )
    if not hole.any():
        raise ValueError("the hole is empty: there is nothing to judge")
    scale = scale_of(hole)
    sigma = limits.blur * scale
    cast = effects if effects is not None and effects.any() else np.zeros_like(hole)
    # the object's own place; where all of the hole is effect, the hole
    place = hole & ~cast if (hole & ~cast).any() else hole
    opinion = _of_object(closeness(candidate, truth, source, place, sigma, limits.blur), limits)
    if opinion.verdict == "yes" and cast.any():
        opinion = _of_effects(closeness(candidate, truth, source, cast, sigma, limits.blur), limits)
    if opinion.verdict == "yes":
        # a paste's own feather reaches a little beyond the hole
        near = cv2.dilate((hole | cast).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        away = np.abs(_blurred(candidate, limits.blur) - _blurred(truth, limits.blur)).mean(2)
        if ((away > limits.high) & ~near).sum() > limits.outside * hole.sum():
            return Opinion("no", "outside")
    return opinion


def _of_object(found: Closeness, limits: Limits) -> Opinion:
    if found.remnant > limits.remnant and found.alike > limits.alike:
        return Opinion("no", "object")
    if found.texture < limits.flat or found.finest < limits.soft:
        return Opinion("no", "seam")
    if found.texture > limits.busy or found.mean >= limits.mean or found.high >= limits.high:
        return Opinion("no", "hallucinated")
    return Opinion("yes", None)


def _of_effects(found: Closeness, limits: Limits) -> Opinion:
    """A region of shadow is mostly intact picture: whatever is wrong there is the shadow or what became of it."""
    left = found.remnant > limits.remnant and found.alike > limits.alike
    off = found.mean >= limits.mean or found.high >= limits.high or not limits.flat < found.texture < limits.busy
    return Opinion("no", "shadow") if left or off else Opinion("yes", None)


def _blurred(picture: Array, sigma: float) -> Array:
    return np.asarray(cv2.GaussianBlur(picture.astype(np.float32), (0, 0), sigma))


def _texture(picture: Array, region: Array, sigma: float) -> float:
    grey = picture.astype(np.float32).mean(2)
    return float(np.abs(grey - cv2.GaussianBlur(grey, (0, 0), sigma))[region].mean())


def votes_on(run: Store, flows: Sequence[str] = (), limits: Limits = LIMITS) -> Iterator[dict[str, Any]]:
    """One vote for each candidate of a run whose truth is in it, ordered by id, in the columns of exported votes.

    A candidate's truth is the target of the captured or simulated triplet it was made from (`parents`). The others are
    left out. Times are 0: the same run has the same votes, byte for byte.

    Args:
        flows: whose candidates; all where empty.

    Raises:
        NoTruth: there is none at all.
        NothingToReview: no such flow, or no run.
    """
    from rasura.annotator.exchange.votes_file import VOTES
    from rasura.annotator.store.enums import Action, ItemKind, Variant
    from rasura.annotator.store.items import item_id, rows_of

    tables = Tables(run)
    truths = {row.id: row for row in rows_of(run) if row.kind in TRUE_KINDS}
    candidates = [row for row in rows_of(run, flows) if row.kind == "edited"]
    opinions: dict[str, Opinion] = {}

    @lru_cache(TRUTHS)
    def true_row(table: str, shard: str, row: int) -> dict[str, Any]:
        return tables.row(table, shard, row, ("target", "mask", "foreground_mask"))

    for row in sorted(candidates, key=lambda row: row.place):  # as they are on disk
        whole = tables.row(*row.place, ("source", "target", "mask", "parents"))
        truth = next((truths[id] for id in whole.get("parents") or () if id in truths), None)
        if truth is not None:
            opinions[row.id] = _on_row(whole, true_row(*truth.place), row.dilation or 0, limits)
    voted = sorted((row for row in candidates if row.id in opinions), key=lambda row: row.id)
    for found, row in enumerate(voted, 1):
        table, shard, number = row.place
        opinion, item = opinions[row.id], item_id(row.place, Variant.TARGET)
        yield dict.fromkeys(VOTES.names) | {
            "item": item, "reviewer": NAME, "seq": found, "time": 0.0, "action": str(Action.VOTE),
            "verdict": opinion.verdict, "reason": opinion.reason, "version": f"oracle {VERSION}",
            "nonce": stable_hash([NAME, VERSION, item]), "row_id": row.id, "flow": row.flow, "place_table": table,
            "place_shard": shard, "place_row": number, "variant": str(Variant.TARGET), "kind": str(ItemKind.CANDIDATE),
        }  # fmt: skip
    if not voted:
        raise NoTruth(
            f"{run.uri}: none of its {len(candidates)} candidates was made from a captured or simulated triplet, so an "
            "oracle has nothing to compare with: have people review them (rasura review)"
        )


def _on_row(row: Mapping[str, Any], true: Mapping[str, Any], dilation: int, limits: Limits) -> Opinion:
    hole = row["mask"]
    if dilation:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * dilation + 1, 2 * dilation + 1))
        hole = cv2.dilate(hole.astype(np.uint8), kernel) > 0
    foreground = true.get("foreground_mask")
    effects = foreground & ~true["mask"] if foreground is not None else None
    return judge(row["target"], true["target"], row["source"], hole, effects, limits)


def write(rows: Sequence[Mapping[str, Any]], out: Store) -> None:
    """Writes votes as `votes.parquet` and `votes.jsonl`, the files of `rasura votes export`.

    Raises:
        StoreError
    """
    import pyarrow as pa

    from rasura.annotator.exchange.votes_file import VOTES
    from rasura.manifests.parquet import parquet_bytes

    out.write("votes.jsonl", "".join(json.dumps(dict(row)) + "\n" for row in rows).encode())
    out.write("votes.parquet", parquet_bytes(pa.Table.from_pylist([dict(row) for row in rows], VOTES)))
