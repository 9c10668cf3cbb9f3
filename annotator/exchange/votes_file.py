"""Votes out of a review and into one: the whole log as Parquet and JSONL, and what it says of each item.

`votes` has every entry of the log with its item's row, so that it can be read beside the dataset for ever.
`verdicts` is computed from it: one row an item, majority or weighted.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, insert, select

from rasura.annotator.stats import agreement
from rasura.annotator.stats.statistics import weights
from rasura.annotator.store.database import Database, items, log, standing
from rasura.annotator.store.enums import Action, ItemKind, Reason, Verdict
from rasura.annotator.store.items import item_id
from rasura.annotator.store.leases import drop, recount
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.reviewers import id_of, names
from rasura.annotator.store.vote_log import entries, fold
from rasura.manifests.parquet import parquet_bytes, read_parquet
from rasura.manifests.storage import Store

CHUNK = 500
ITEM = ("row_id", "flow", "place_table", "place_shard", "place_row", "variant", "kind", "expected")
ENTRY = (
    "seq",
    "time",
    "action",
    "verdict",
    "reason",
    "remark",
    "seconds",
    "replaces",
    "guidelines",
    "version",
    "nonce",
)
_TYPES = {"seq": pa.int64(), "replaces": pa.int64(), "place_row": pa.int64(), "time": pa.float64(),
          "seconds": pa.float64()}  # fmt: skip
VOTES = pa.schema([(name, _TYPES.get(name, pa.string())) for name in ("item", "reviewer", *ENTRY, *ITEM)])
VERDICTS = pa.schema(
    [
        ("item", pa.string()), ("row_id", pa.string()), ("flow", pa.string()), ("verdict", pa.string()),
        ("share", pa.float64()), ("votes", pa.int64()), ("yes", pa.int64()), ("no", pa.int64()), ("unsure", pa.int64()),
        ("reason", pa.string()), ("remover", pa.string()), ("round", pa.int64()), ("score", pa.float64()),
    ]
)  # fmt: skip


class BadVotes(ValueError):
    """A file of votes that cannot be read; the message says where and what."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    entries: int
    verdicts: int


@dataclass(frozen=True)
class TakenIn:
    """What became of imported entries."""

    added: int
    known: int
    unknown: int


def vote_rows(connection: Connection) -> list[dict[str, Any]]:
    """The log with reviewers' names and items' rows, oldest first."""
    people = names(connection)
    of = {row.id: row for row in connection.execute(select(items))}
    return [
        {"item": entry.item, "reviewer": people[entry.reviewer], **{name: getattr(entry, name) for name in ENTRY},
         **{name: getattr(of[entry.item], name) for name in ITEM}}
        for entry in entries(connection)
    ]  # fmt: skip


def verdict_rows(connection: Connection, weighted: bool = False) -> list[dict[str, Any]]:
    """What the votes say of each candidate that has any, ordered by row. `verdict` is null where they tie."""
    folded = fold(entries(connection))
    given = {key: entry for key, entry in folded.items() if entry.verdict}
    of_item: dict[str, dict[int, Any]] = {}
    for (item, who), entry in given.items():
        of_item.setdefault(item, {})[who] = entry
    weight = weights(connection, folded) if weighted else None
    rows = []
    for row in connection.execute(select(items).where(items.c.kind == ItemKind.CANDIDATE)):
        if row.id not in of_item:
            continue
        told = {who: entry.verdict for who, entry in of_item[row.id].items()}
        said = agreement.consensus(told, weight)
        tally = Counter(told.values())
        reasons = Counter(entry.reason for entry in of_item[row.id].values() if entry.reason)
        reason = min(reasons, key=lambda word: (-reasons[word], word)) if reasons and said.verdict == "no" else None
        rows.append(
            {"item": row.id, "row_id": row.row_id, "flow": row.flow, "verdict": said.verdict, "share": said.share,
             "votes": said.votes, **{verdict: tally[verdict] for verdict in map(str, Verdict)}, "reason": reason,
             "remover": row.remover, "round": row.round, "score": row.score}
        )  # fmt: skip
    return sorted(rows, key=lambda row: (row["row_id"], row["item"]))


def export(connection: Connection, out: Store, weighted: bool = False) -> Exported:
    """Writes `votes.parquet`, `votes.jsonl` and `verdicts.parquet`.

    Raises:
        StoreError
    """
    votes, verdicts = vote_rows(connection), verdict_rows(connection, weighted)
    out.write("votes.parquet", parquet_bytes(pa.Table.from_pylist(votes, VOTES)))
    out.write("votes.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in votes).encode())
    out.write("verdicts.parquet", parquet_bytes(pa.Table.from_pylist(verdicts, VERDICTS)))
    return Exported(len(votes), len(verdicts))


def read_votes(file: Path) -> list[dict[str, Any]]:
    """Entries of a votes.parquet, a votes.jsonl, or Label Studio's JSON.

    Raises:
        BadVotes, FileNotFoundError
    """
    if file.suffix == ".parquet":
        try:
            with file.open("rb") as source:
                rows = read_parquet(source).to_pylist()
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise BadVotes(f"{file}: not Parquet: {error}") from None
    elif file.suffix == ".jsonl":
        rows = list(_json_lines(file))
    else:
        from rasura.annotator.exchange.label_studio import read_label_studio

        rows = read_label_studio(file)
    return [_checked(row, f"{file}, entry {number}") for number, row in enumerate(rows, 1)]


def _json_lines(file: Path) -> Iterator[Any]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise BadVotes(f"{file}:{number}: not JSON: {error}") from None


_WORDS = {"action": Action, "verdict": Verdict, "reason": Reason}


def _checked(row: Any, where: str) -> dict[str, Any]:
    """An entry whose every value is one that the log may hold."""
    if not isinstance(row, Mapping):
        raise BadVotes(f"{where}: not an entry: {row!r:.80}")
    for name in ("item", "reviewer", "time", "action", "nonce"):
        if row.get(name) is None:
            raise BadVotes(f"{where}: '{name}' is missing")
    for name, words in _WORDS.items():
        value = row.get(name)
        if value is not None and value not in tuple(words):
            raise BadVotes(f"{where}: {name} is '{value}'; it can be {', '.join(words)}")
    for name in ("item", "reviewer", "nonce", "remark", "guidelines", "version"):
        value = row.get(name)
        if value is not None and (not isinstance(value, str) or "\0" in value or len(value) > 2000):
            raise BadVotes(f"{where}: {name} is no text of at most 2000 letters")
    for name in ("time", "seconds"):
        value = row.get(name)
        if value is not None and not (isinstance(value, int | float) and 0 <= value < 1e11):
            raise BadVotes(f"{where}: {name} is {value!r}")
    if len(row["item"]) > 32 or len(row["nonce"]) > 64:
        raise BadVotes(f"{where}: item or nonce is too long")
    if row["action"] in (Action.VOTE, Action.EDIT) and row.get("verdict") is None:
        raise BadVotes(f"{where}: a {row['action']} without a verdict")
    return dict(row)


def take_in(database: Database, policy: Policy, rows: Sequence[Mapping[str, Any]]) -> TakenIn:
    """Appends entries to the log, oldest first, unless their nonce is there; safe to do twice, and while people review.

    An entry whose item the run does not hold, by its id or by the place it names, is left out. Votes that come in count
    beyond what an item needs: they were given.
    """
    ordered = sorted(rows, key=lambda row: (row["time"], row.get("seq") or 0))
    told = Counter[str]()
    for start in range(0, len(ordered), CHUNK):
        told.update(database.write(partial(_take_in, policy=policy, rows=ordered[start : start + CHUNK])))
    return TakenIn(told["added"], told["known"], told["unknown"])


def _find(connection: Connection, row: Mapping[str, Any]) -> str | None:
    named = [row["item"]]
    if row.get("place_table") is not None:
        place = (row["place_table"], row["place_shard"], row["place_row"])
        named.append(item_id(place, row.get("variant") or "target"))
    for id in named:
        if connection.execute(select(items.c.id).where(items.c.id == id)).scalar():
            return str(id)
    return None


def _take_in(connection: Connection, policy: Policy, rows: Sequence[Mapping[str, Any]]) -> Counter[str]:
    told, touched = Counter[str](), set[str]()
    for row in rows:
        if connection.execute(select(log.c.seq).where(log.c.nonce == row["nonce"])).first():
            told["known"] += 1
            continue
        item = _find(connection, row)
        if item is None:
            told["unknown"] += 1
            continue
        _append(connection, item, id_of(connection, row["reviewer"]), row)
        touched.add(item)
        told["added"] += 1
    for item in sorted(touched):
        recount(connection, policy, item)
    return told


def _append(connection: Connection, item: str, who: int, row: Mapping[str, Any]) -> None:
    mine = (standing.c.item == item, standing.c.reviewer == who)
    old = connection.execute(select(standing.c.seq).where(*mine)).scalar()
    action = row["action"]
    if action in (Action.VOTE, Action.EDIT):
        action = Action.EDIT if old else Action.VOTE
    replaces = old if action in (Action.EDIT, Action.UNDO, Action.SKIP) else None
    values = {name: row.get(name) for name in ENTRY if name not in ("seq", "action", "replaces")}
    values |= {"item": item, "reviewer": who, "action": action, "replaces": replaces}
    seq = connection.execute(insert(log).values(**values).returning(log.c.seq)).scalar_one()
    if action == Action.FLAG:
        return
    connection.execute(standing.delete().where(*mine))
    if action != Action.UNDO:
        verdict = None if action == Action.SKIP else row["verdict"]
        connection.execute(insert(standing).values(item=item, reviewer=who, seq=seq, verdict=verdict))
    drop(connection, item, who)
