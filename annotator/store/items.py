"""What is reviewed: the candidates of a run, and rows with a true target as items whose answer is known.

An item's id is a hash of the place that its pictures stand in. A place is named by a shard, whose id hashes the recipe
and the inputs, so that a candidate made again by a changed recipe is another item, and votes never pass to a picture
that nobody has seen.
"""

import hashlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from rasura.annotator.store.database import Database, items, meta, standing
from rasura.annotator.store.enums import MISTAKES, ItemKind, Variant, Verdict
from rasura.annotator.store.policy import Policy, draw, needed, priority
from rasura.manifests.ids import stable_hash
from rasura.manifests.schemas import PICTURES
from rasura.manifests.storage import Store
from rasura.manifests.tables import Table, Tables

CHUNK = 1000  # rows in one transaction: reviewers wait for it
HONEYPOTS = 2000  # rows with a true target that are used, at most
EXAMPLES = 2
SHOWN = ("source", "target", "mask")
LIGHT = (
    "scene_id", "kind", "label", "remover", "round", "score", "verdict", "hole_dilation", "ref_table", "ref_shard",
    "ref_row",
)  # fmt: skip


class NothingToReview(FileNotFoundError):
    """A run has no candidate to judge."""


@dataclass(frozen=True)
class Row:
    """A row of a run that can be reviewed."""

    id: str
    flow: str
    place: tuple[str, str, int]  # table, shard, row of its pictures
    scene: str  # its own id where it has none
    kind: str
    label: str | None = None
    remover: str | None = None
    round: int | None = None
    score: float | None = None
    dilation: int | None = None
    judged: bool = False


@dataclass(frozen=True)
class Loaded:
    """What became of a run's rows."""

    candidates: int
    judged: int  # candidates that have a verdict already
    honeypots: int
    added: int
    withdrawn: int


def item_id(place: tuple[str, str, int], variant: str) -> str:
    """Id of an item."""
    return stable_hash(["item", *place, variant])


def flows_of(run: Store) -> list[str]:
    """A run's flows in the order of its plan.

    Raises:
        FileNotFoundError: it is no run.
    """
    try:
        return list(json.loads(run.read("plan.json"))["flows"])
    except FileNotFoundError:
        raise NothingToReview(f"'{run.uri}' is no run: it has no plan.json; give what `rasura run` wrote") from None


def state_of(run: Store) -> str:
    """A hash of what the run's tables hold now: another one where rows were added."""
    digest = hashlib.sha256()
    for flow in flows_of(run):
        name = f"tables/{flow}/manifest.parquet"
        digest.update(flow.encode() + b"\0" + (run.read(name) if run.exists(name) else b""))
    return digest.hexdigest()


def fingerprint(run: Store, policy: Policy, flows: Sequence[str]) -> str:
    """What a queue is made from: the run's rows as they are now, the policy, the flows."""
    return stable_hash([state_of(run), policy.model_dump(), sorted(flows)])


def refresh(
    run: Store, database: Database, policy: Policy, flows: Sequence[str] = (), rest: float = 0.0
) -> Loaded | None:
    """`load`, unless the queue was brought to just this before: a server that starts again is there at once.

    Returns:
        None where nothing had to be done.
    """
    now = fingerprint(run, policy, flows)
    with database.read() as connection:
        if connection.execute(select(meta.c.value).where(meta.c.key == "loaded")).scalar() == now:
            return None
    loaded = load(run, database, policy, flows, rest)
    database.write(partial(_note, value=now))
    return loaded


def _note(connection: Connection, value: str) -> None:
    connection.execute(delete(meta).where(meta.c.key == "loaded"))
    connection.execute(insert(meta).values(key="loaded", value=value))


def _rows(table: Table) -> Iterator[Row]:
    if "kind" not in table.schema or not set(SHOWN) <= set(table.whole):
        return
    if not any(kind in PICTURES for kind in table.schema.values()) and "ref_shard" not in table.schema:
        return
    light = table.light(LIGHT)
    columns = {name: light[name].to_pylist() for name in light.column_names}
    nothing = [None] * light.num_rows
    for index, id in enumerate(columns["id"]):
        value = {name: columns.get(name, nothing)[index] for name in LIGHT}
        place = (table.name, columns["shard"][index], columns["row"][index])
        if value["ref_shard"] is not None:
            place = (value["ref_table"], value["ref_shard"], value["ref_row"])
        yield Row(
            id, table.name, place, value["scene_id"] or id, value["kind"], value["label"], value["remover"],
            value["round"], value["score"],
            None if value["hole_dilation"] is None else int(value["hole_dilation"]), value["verdict"] is not None,
        )  # fmt: skip


def rows_of(run: Store, flows: Sequence[str] = ()) -> list[Row]:
    """Rows that have a source, mask and target, of the named flows or all that are complete.

    A row that several flows hold (one scored or selected what another made) is taken from the last of them.
    """
    tables, found = Tables(run), dict[str, Row]()
    complete = set(tables.names())
    known = flows_of(run)
    if unknown := [flow for flow in flows if flow not in known]:
        raise NothingToReview(f"{run.uri} has no flow '{unknown[0]}' (it has: {', '.join(known)})")
    for flow in known:
        if flow in complete and (not flows or flow in flows):
            found |= {row.id: row for row in _rows(tables.table(flow))}
    return list(found.values())


def _values(row: Row, kind: ItemKind, variant: Variant, policy: Policy, rank: int) -> dict[str, Any]:
    id = item_id(row.place, variant)
    table, shard, number = row.place
    candidate = kind is ItemKind.CANDIDATE
    expected = None if candidate else (Verdict.YES if variant is Variant.TARGET else Verdict.NO)
    wanted = needed(policy, (), row.score) if candidate else 0
    return {
        "id": id, "kind": kind, "row_id": row.id, "flow": row.flow, "place_table": table, "place_shard": shard,
        "place_row": number, "variant": variant, "expected": expected, "label": row.label, "remover": row.remover,
        "round": row.round, "score": row.score, "dilation": row.dilation, "withdrawn": False, "votes": 0, "leases": 0,
        "priority": priority(policy, id, row.score, rank), "needed": wanted, "free": wanted,
    }  # fmt: skip


def known_answers(rows: Sequence[Row], policy: Policy) -> Iterator[dict[str, Any]]:
    """Items from rows with a true target: half of them as they are (yes), half with a known mistake (no).

    The first few, in the order of a hash, become the guidelines' examples instead, one item for each mistake.
    """
    ordered = sorted(rows, key=lambda row: draw(policy.seed, "truth", row.id))
    examples = ordered[: EXAMPLES if len(ordered) > 2 * EXAMPLES else min(1, len(ordered))]
    for row in examples:
        for variant in (Variant.TARGET, *MISTAKES):
            yield _values(row, ItemKind.EXAMPLE, variant, policy, 0)
    wrong = (Variant.UNTOUCHED, Variant.BLUR, Variant.HALLUCINATED)
    for row in ordered[len(examples) :][:HONEYPOTS]:
        chance = draw(policy.seed, "answer", row.id)
        variant = Variant.TARGET if chance < 0.5 else wrong[int((chance - 0.5) * 2 * len(wrong))]
        yield _values(row, ItemKind.HONEYPOT, variant, policy, 0)


def _upsert(connection: Connection, values: Sequence[dict[str, Any]], policy: Policy) -> int:
    """Adds items and brings those that are there up to date. Returns how many are new."""
    ids = [value["id"] for value in values]
    there = {row.id: row for row in connection.execute(select(items).where(items.c.id.in_(ids)))}
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = make(items)
    names = [name for name in values[0] if name != "id"]
    statement = statement.on_conflict_do_update(
        index_elements=["id"], set_={name: statement.excluded[name] for name in names}
    )
    voted = [id for id, old in there.items() if old.votes]
    verdicts: dict[str, list[str]] = defaultdict(list)
    of = (standing.c.item.in_(voted), standing.c.verdict.is_not(None))
    for row in connection.execute(select(standing.c.item, standing.c.verdict).where(*of)):
        verdicts[row.item].append(row.verdict)
    changed = []
    for value in values:
        if old := there.get(value["id"]):
            value |= {"votes": old.votes, "leases": old.leases}
            if value["kind"] == ItemKind.CANDIDATE:
                value["needed"] = needed(policy, verdicts[value["id"]], value["score"])
                value["free"] = max(0, value["needed"] - old.votes - old.leases)
            if all(getattr(old, name) == value[name] for name in names):
                continue
        changed.append(value)
    if changed:
        connection.execute(statement, changed)
    return len(set(ids) - set(there))


def _withdraw(connection: Connection, ids: Sequence[str]) -> None:
    connection.execute(update(items).where(items.c.id.in_(ids)).values(withdrawn=True, free=0))


def load(run: Store, database: Database, policy: Policy, flows: Sequence[str] = (), rest: float = 0.0) -> Loaded:
    """Brings the queue to what the run holds now. May be called again at any time, while people review.

    Args:
        rest: of each chunk's time, how long to leave the database to others after it.

    Raises:
        NothingToReview
    """
    database.write(partial(_note, value=""))
    rows = rows_of(run, flows)
    edited = [row for row in rows if row.kind == "edited"]
    waiting = [row for row in edited if not row.judged]
    truth = [row for row in rows_of(run) if row.kind in ("captured", "simulated")]
    ranks: Counter[str | None] = Counter()
    values = []
    for row in sorted(waiting, key=lambda row: draw(policy.seed, row.id)):
        values.append(_values(row, ItemKind.CANDIDATE, Variant.TARGET, policy, ranks[row.label]))
        ranks[row.label] += 1
    candidates, added = len(values), 0
    known = list(known_answers(truth, policy))
    values += known
    with database.read() as connection:
        listed = set(connection.execute(select(items.c.id).where(~items.c.withdrawn)).scalars())
    if not candidates and not listed:
        raise NothingToReview(
            f"{run.uri} has no candidate: no complete table with rows of kind 'edited' and no verdict"
        )
    for start in range(0, len(values), CHUNK):
        began = time.perf_counter()
        added += database.write(partial(_upsert, values=values[start : start + CHUNK], policy=policy))
        time.sleep(rest * (time.perf_counter() - began))
    gone = sorted(listed - {value["id"] for value in values})
    for start in range(0, len(gone), CHUNK):
        database.write(partial(_withdraw, ids=gone[start : start + CHUNK]))
    pots = sum(value["kind"] == ItemKind.HONEYPOT for value in known)
    return Loaded(candidates, len(edited) - candidates, pots, added, len(gone))


def total(connection: Connection) -> int:
    """Candidates that are not withdrawn."""
    of = (items.c.kind == ItemKind.CANDIDATE, ~items.c.withdrawn)
    return connection.execute(select(func.count()).where(*of)).scalar_one()
