"""The oracle reviewer: yes or no by measured closeness to the truth, where a candidate has one.

It stands in for people in tests, in the demo and in experiments, on candidates made from captured or simulated
triplets. Its votes have the reviewer's name `oracle` and files of their own: nothing mixes them with people's.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rasura.manifests.errors import InputError
from rasura.manifests.ids import hash_json
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.networks.trainer import OnProgress
from rasura.stages.judging.truth import (
    LIMITS,
    TRUE_KINDS,
    VERSION,
    Limits,
    Opinion,
    find_effects,
    grow_hole,
    review_candidate,
)

if TYPE_CHECKING:
    from rasura.annotator.store.rows import ReviewableRow

NAME = "oracle"
"""The reviewer's name in its votes."""
TRUTHS = 64
"""Scenes whose truth is kept in memory: candidates of a shard's scenes come remover by remover."""


class NoTruth(InputError):
    """A run without a candidate whose true target is available."""


def review_run(
    run: Store, flows: Sequence[str] = (), limits: Limits = LIMITS, on_progress: OnProgress | None = None
) -> Iterator[dict[str, Any]]:
    """Vote on each candidate of a run whose truth is in it, ordered by id, in the columns of exported votes.

    A candidate's truth is the target of the captured or simulated triplet it was made from (`parents`). The others are
    left out. Times are 0, so that the same run has the same votes, byte for byte.

    Args:
        flows: whose candidates; all where empty.
        on_progress: receives the number of candidates that are compared, of all, and a note.

    Raises:
        NoTruth: there is no such candidate.
        NothingToReview: there is no such flow, or no run.
    """
    from rasura.annotator.store.rows import list_rows

    tables = Tables(run)
    truths = {row.id: row for row in list_rows(run) if row.kind in TRUE_KINDS}
    candidates = [row for row in list_rows(run, flows) if row.kind == "edited"]
    opinions: dict[str, Opinion] = {}

    @lru_cache(TRUTHS)
    def read_truth(table: str, shard: str, row: int) -> dict[str, Any]:
        return tables.row(table, shard, row, ("target", "mask", "foreground_mask", "foreground_visible"))

    for done, row in enumerate(sorted(candidates, key=lambda row: row.place), 1):  # as they are on disk
        pictures = tables.row(*row.place, ("source", "target", "mask", "parents"))
        truth = next((truths[id] for id in pictures.get("parents") or () if id in truths), None)
        if truth is not None:
            opinions[row.id] = _review_row(pictures, read_truth(*truth.place), row.dilation or 0, limits)
        if on_progress:
            on_progress(done, len(candidates), "")
    votable = sorted((row for row in candidates if row.id in opinions), key=lambda row: row.id)
    for position, row in enumerate(votable, 1):
        yield _make_entry(position, row, opinions[row.id])
    if not votable:
        raise describe_missing_truth(run, len(candidates))


def describe_missing_truth(run: Store, candidates: int) -> NoTruth:
    """Return the error of a run whose candidates, so many, have no truth."""
    return NoTruth(
        f"{run.uri}: none of its {candidates} candidates was made from a captured or simulated triplet, so the "
        "ground-truth reviewer has nothing to compare with: have people review them (rasura review)"
    )


def list_votes(run: Store) -> list[dict[str, Any]]:
    """List the votes that follow from a round's flow `measured`, in the form and order of `review_run`."""
    from rasura.annotator.store.rows import list_rows

    light = Tables(run).table("measured").read_light(("id", "truth_verdict", "truth_reason")).to_pylist()
    opinions = {row["id"]: Opinion(row["truth_verdict"], row["truth_reason"]) for row in light if row["truth_verdict"]}
    rows = sorted((row for row in list_rows(run, ["candidates"]) if row.id in opinions), key=lambda row: row.id)
    return [_make_entry(position, row, opinions[row.id]) for position, row in enumerate(rows, 1)]


def _make_entry(position: int, row: "ReviewableRow", opinion: Opinion) -> dict[str, Any]:
    """Make the entry of a vote, in the columns of exported votes."""
    from rasura.annotator.exchange.vote_rows import VOTES
    from rasura.annotator.store.enums import Action, ItemKind, Variant
    from rasura.annotator.store.items import compute_item_id

    table, shard, number = row.place
    item = compute_item_id(row.place, Variant.TARGET)
    return dict.fromkeys(VOTES.names) | {
        "item": item,
        "reviewer": NAME,
        "seq": position,
        "time": 0.0,
        "action": str(Action.VOTE),
        "verdict": opinion.verdict,
        "reason": opinion.reason,
        "version": f"oracle {VERSION}",
        "nonce": hash_json([NAME, VERSION, item]),
        "row_id": row.id,
        "flow": row.flow,
        "place_table": table,
        "place_shard": shard,
        "place_row": number,
        "variant": str(Variant.TARGET),
        "kind": str(ItemKind.CANDIDATE),
    }


def _review_row(row: Mapping[str, Any], truth: Mapping[str, Any], dilation: int, limits: Limits) -> Opinion:
    hole, effects = grow_hole(row["mask"], dilation), find_effects(truth)
    return review_candidate(row["target"], truth["target"], row["source"], hole, effects, limits)


def write_votes(rows: Sequence[Mapping[str, Any]], out: Store) -> None:
    """Write votes as `votes.parquet` and `votes.jsonl`, the files of `rasura votes export`.

    Raises:
        StoreError: they cannot be written.
    """
    from rasura.annotator.exchange.vote_rows import tabulate_votes
    from rasura.manifests.parquet import encode_parquet

    out.write("votes.jsonl", "".join(json.dumps(dict(row)) + "\n" for row in rows).encode())
    out.write("votes.parquet", encode_parquet(tabulate_votes(rows)))
