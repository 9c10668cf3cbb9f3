"""Votes out of a review and into one: the complete log as Parquet and JSONL, and the verdict on each item.

`votes` has every entry of the log with its item's row, so that it can be read beside the dataset without the database.
`verdicts` is computed from it: one row for each item, by majority or weighted.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from sqlalchemy import Connection, insert, select

from rasura.annotator.exchange.label_studio import read_label_studio
from rasura.annotator.exchange.vote_rows import (
    ENTRY_COLUMNS,
    INCLUSION_COLUMNS,
    ITEM_COLUMNS,
    BadVotes,
    VoteRow,
    check_vote_row,
    tabulate_verdicts,
    tabulate_votes,
)
from rasura.annotator.stats import agreement
from rasura.annotator.stats.statistics import compute_weights
from rasura.annotator.store.database import Database, items, log, standing
from rasura.annotator.store.enums import Action, ItemKind, Variant, Verdict
from rasura.annotator.store.items import compute_item_id
from rasura.annotator.store.leases import drop_lease, recount
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.reviewers import get_or_add_id, list_names
from rasura.annotator.store.team.rulings import store_ruling
from rasura.annotator.store.turns import describe_inclusion
from rasura.annotator.store.vote_log import LogEntry, fold_entries, fold_rulings, read_entries
from rasura.manifests.json_lines import BadJsonLine, parse_json_lines
from rasura.manifests.parquet import encode_parquet, read_parquet
from rasura.manifests.storage import Store

CHUNK = 500
"""Entries that are appended in one transaction."""


def check_imported(result: "ImportResult", file: Path) -> None:
    """Check that a file had votes on items that the run has.

    Raises:
        BadVotes: it had none.
    """
    if result.added or result.duplicates:
        return
    if result.unknown:
        raise BadVotes(f"{file}: its votes ({result.unknown}) are all on items that the run does not have")
    raise BadVotes(f"{file}: there are no votes in it; name a file that `rasura votes export` or Label Studio wrote")


@dataclass(frozen=True)
class ExportResult:
    """The number of entries of the log, and of items with a verdict, that were written."""

    entries: int
    verdicts: int


@dataclass(frozen=True)
class ImportResult:
    """The numbers of entries that were read.

    Attributes:
        added: to the log.
        duplicates: that were in the log already.
        unknown: on items that the run does not have.
    """

    added: int
    duplicates: int
    unknown: int


def list_votes(connection: Connection) -> list[VoteRow]:
    """List the log with reviewers' names and items' rows, oldest entry first."""
    names = list_names(connection)
    rows = {row.id: row for row in connection.execute(select(items))}
    inclusion = describe_inclusion(connection)
    return [
        cast(
            VoteRow,
            {"item": entry.item, "reviewer": names[entry.reviewer]}
            | {name: getattr(entry, name) for name in ENTRY_COLUMNS}
            | {name: getattr(rows[entry.item], name) for name in ITEM_COLUMNS}
            | (dict(zip(INCLUSION_COLUMNS, inclusion.get(entry.item, (None, None)), strict=True)) if inclusion else {}),
        )
        for entry in read_entries(connection)
    ]


def compute_verdicts(connection: Connection, weighted: bool = False) -> list[dict[str, Any]]:
    """Compute the verdict on each candidate that has a vote.

    Args:
        connection: to the database.
        weighted: True to weight the votes by each reviewer's answers on honeypots.

    Returns:
        Rows with the columns `VERDICTS` and `by_expert`, sorted by row; `verdict` is None for a tie. An expert's ruling
        stands in place of the votes, whose counts and share are those of the reviewers all the same.
    """
    entries = read_entries(connection)
    folded, ruled = fold_entries(entries), fold_rulings(entries)
    votes: dict[str, dict[int, LogEntry]] = defaultdict(dict)
    for (item, reviewer), entry in folded.items():
        if entry.verdict:
            votes[item][reviewer] = entry
    weights = compute_weights(connection, entries) if weighted else None
    candidates = connection.execute(select(items).where(items.c.kind == ItemKind.CANDIDATE))
    judged = [row for row in candidates if row.id in votes or row.id in ruled]
    rows = [_compute_verdict(row, votes[row.id], weights, ruled.get(row.id)) for row in judged]
    return sorted(rows, key=lambda row: (row["row_id"], row["item"]))


def _compute_verdict(
    row: Any, votes: Mapping[int, LogEntry], weights: Mapping[int, float] | None, ruling: LogEntry | None
) -> dict[str, Any]:
    verdicts = {reviewer: entry.verdict for reviewer, entry in votes.items() if entry.verdict}
    consensus = agreement.find_consensus(verdicts, weights)
    counts = Counter(verdicts.values())
    reasons = Counter(entry.reason for entry in votes.values() if entry.reason)
    reason = None
    if reasons and consensus.verdict == "no":
        reason = min(reasons, key=lambda word: (-reasons[word], word))
    verdict = consensus.verdict
    if ruling:
        verdict, reason = ruling.verdict, ruling.reason
    return {
        "item": row.id,
        "row_id": row.row_id,
        "flow": row.flow,
        "verdict": verdict,
        "share": consensus.share,
        "votes": consensus.votes,
        **{str(verdict): counts[verdict] for verdict in Verdict},
        "reason": reason,
        "remover": row.remover,
        "round": row.round,
        "score": row.score,
        "by_expert": ruling is not None,
    }


def export_votes(connection: Connection, out: Store, weighted: bool = False) -> ExportResult:
    """Write `votes.parquet`, `votes.jsonl` and `verdicts.parquet`.

    Args:
        connection: to the database.
        out: the folder to write into.
        weighted: True to weight the votes by each reviewer's answers on honeypots.

    Raises:
        StoreError: the target cannot be written.
    """
    votes, verdicts = list_votes(connection), compute_verdicts(connection, weighted)
    out.write("votes.parquet", encode_parquet(tabulate_votes(votes)))
    out.write("votes.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in votes).encode())
    out.write("verdicts.parquet", encode_parquet(tabulate_verdicts(verdicts)))
    return ExportResult(len(votes), len(verdicts))


def read_votes(file: Path) -> list[VoteRow]:
    """Read the entries of a votes.parquet, a votes.jsonl, or Label Studio's JSON.

    Raises:
        BadVotes: there is no such file, it is none of them, or a row of it is wrong.
    """
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "is not there"
        raise BadVotes(f"'{file}' {what}: name the votes.jsonl or votes.parquet that `rasura votes export` wrote")
    if file.suffix == ".parquet":
        try:
            with file.open("rb") as source:
                rows = read_parquet(source).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise BadVotes(f"{file}: not Parquet, as `rasura votes export` writes it: {error}") from None
    elif file.suffix == ".jsonl":
        rows = list(_read_json_lines(file))
    else:
        rows = read_label_studio(file)
    checked = [check_vote_row(row, f"{file}, entry {number}") for number, row in enumerate(rows, 1)]
    _check_nonces(checked, file)
    return checked


def _check_nonces(rows: Sequence[VoteRow], file: Path) -> None:
    """Check that no nonce stands for two different entries.

    Raises:
        BadVotes: one does.
    """
    first: dict[str, tuple[int, VoteRow]] = {}
    for number, row in enumerate(rows, 1):
        before, same = first.setdefault(row["nonce"], (number, row))
        if any(row.get(name) != same.get(name) for name in ("item", "reviewer", "action", "verdict", "remark")):
            raise BadVotes(f"{file}, entry {number}: its nonce is that of entry {before}, which says something else")


def _order_rows(rows: Sequence[VoteRow]) -> list[VoteRow]:
    """Order entries as they came: by their numbers where one log gave these, since clocks jump; else by time."""
    numbers = [row.get("seq") for row in rows]
    if None not in numbers and len(set(numbers)) == len(numbers):
        return sorted(rows, key=lambda row: row.get("seq") or 0)
    return sorted(rows, key=lambda row: (row["time"], row.get("seq") or 0))


def _read_json_lines(file: Path) -> Iterator[Any]:
    try:
        yield from parse_json_lines(file.read_bytes())
    except BadJsonLine as error:
        text = f"not JSON, of which `rasura votes export` writes an object a line: {error.reason}"
        raise BadVotes(f"{file}:{error.number}: {text}") from None


def append_votes(database: Database, policy: Policy, rows: Sequence[VoteRow]) -> ImportResult:
    """Append entries to the log, oldest first, unless their nonce is in it; safe to do twice, and while people review.

    An entry on an item that the run does not have, by its id or by its place, is left out. Imported votes count beyond
    the number that an item needs.

    Args:
        database: of the review.
        policy: of the review.
        rows: checked.
    """
    ordered = _order_rows(rows)
    counts = Counter[str]()
    for start in range(0, len(ordered), CHUNK):
        counts.update(database.write(partial(_append_chunk, policy=policy, rows=ordered[start : start + CHUNK])))
    return ImportResult(counts["added"], counts["duplicates"], counts["unknown"])


def _find_item(connection: Connection, row: VoteRow) -> str | None:
    ids = [row["item"]]
    table, shard, index = row.get("place_table"), row.get("place_shard"), row.get("place_row")
    if table is not None and shard is not None and index is not None:
        ids.append(compute_item_id((table, shard, index), row.get("variant") or "target"))
    for id in ids:
        if connection.execute(select(items.c.id).where(items.c.id == id)).scalar():
            return id
    return _add_known_item(connection, row)


def _add_known_item(connection: Connection, row: VoteRow) -> str | None:
    """Add an item with a known answer that another review made of a row that this one has, too, for the record alone.

    Each review chooses its own ones. It is added as withdrawn: nobody is asked about it.
    """
    variant = row.get("variant")
    if row.get("kind") != ItemKind.HONEYPOT or variant not in tuple(Variant):
        return None
    place = (row.get("place_table") or "", row.get("place_shard") or "", row.get("place_row") or 0)
    columns = (items.c.place_table, items.c.place_shard, items.c.place_row)
    same = select(items).where(*(column == value for column, value in zip(columns, place, strict=True)))
    if (other := connection.execute(same.limit(1)).first()) is None:
        return None
    id = compute_item_id(place, str(variant))
    expected = Verdict.YES if variant == Variant.TARGET else Verdict.NO
    new = {"id": id, "kind": ItemKind.HONEYPOT, "variant": variant, "expected": expected, "withdrawn": True}
    counts = dict.fromkeys(("needed", "votes", "leases", "free"), 0)
    connection.execute(insert(items).values({**other._mapping, **new, **counts}))
    return id


def _append_chunk(connection: Connection, policy: Policy, rows: Sequence[VoteRow]) -> Counter[str]:
    counts, changed = Counter[str](), set[str]()
    for row in rows:
        if connection.execute(select(log.c.seq).where(log.c.nonce == row["nonce"])).first():
            counts["duplicates"] += 1
            continue
        item = _find_item(connection, row)
        if item is None:
            counts["unknown"] += 1
            continue
        _append(connection, item, get_or_add_id(connection, row["reviewer"]), row)
        changed.add(item)
        counts["added"] += 1
    for item in sorted(changed):
        recount(connection, policy, item)
    return counts


def _append(connection: Connection, item: str, reviewer: int, row: VoteRow) -> None:
    conditions = (standing.c.item == item, standing.c.reviewer == reviewer)
    old = connection.execute(select(standing.c.seq).where(*conditions)).scalar()
    action = row["action"]
    if action in (Action.VOTE, Action.EDIT):
        action = Action.EDIT if old else Action.VOTE
    replaces = old if action in (Action.EDIT, Action.UNDO, Action.SKIP, Action.ASIDE) else None
    values = {name: row.get(name) for name in ENTRY_COLUMNS if name not in ("seq", "action", "replaces")}
    values |= {"item": item, "reviewer": reviewer, "action": action, "replaces": replaces}
    seq = connection.execute(insert(log).values(**values).returning(log.c.seq)).scalar_one()
    if action == Action.OVERRULE:
        store_ruling(connection, item, seq, reviewer, row.get("verdict"), row.get("reason"))
    if action in (Action.FLAG, Action.CORRECT, Action.OVERRULE):
        return
    connection.execute(standing.delete().where(*conditions))
    if action not in (Action.UNDO, Action.ASIDE):
        verdict = None if action == Action.SKIP else row.get("verdict")
        connection.execute(insert(standing).values(item=item, reviewer=reviewer, seq=seq, verdict=verdict))
    drop_lease(connection, item, reviewer)
