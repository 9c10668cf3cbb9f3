"""The items of a review: the candidates of a run, and rows with a true target as items whose answer is known.

An item's id is a hash of the place of its pictures. A place is named by a shard, whose id is a hash of the recipe and
the inputs, so that a candidate made again by a changed recipe is another item, and votes never pass to a picture that
nobody has seen.
"""

import hashlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from rasura.annotator.store.database import Database, items, meta, reviewers, standing, turns
from rasura.annotator.store.enums import MISTAKES, TASK_OF_KIND, ItemKind, Task, Variant, Verdict
from rasura.annotator.store.known_answers import cover_labels, read_disguise, store_coverage
from rasura.annotator.store.leases import recount
from rasura.annotator.store.policy import Policy, compute_priority, count_needed_votes, draw_uniform
from rasura.annotator.store.rows import NothingToReview, ReviewableRow, list_reviewed, list_true
from rasura.annotator.store.team.tables import details, pushed, rulings
from rasura.annotator.store.turns import store_turns
from rasura.manifests.errors import ReviewError
from rasura.manifests.ids import hash_json
from rasura.manifests.run_layout import manifest_path, read_plan
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables

CHUNK = 1000
"""Rows in one transaction, for which reviewers wait."""
ASKED = "asked.json"
"""In a run: ids of the items that are to be voted on, where these are not all of its candidates."""
SCENE_CHUNK = 50
"""Scenes whose candidates are ordered in one transaction."""
HONEYPOTS = 2000
"""Rows with a true target that are used, at most."""
EXAMPLES = 2


class NeverOpened(ReviewError):
    """A review whose queue has never been loaded from its run."""


@dataclass(frozen=True)
class LoadResult:
    """The result of loading a run's rows into the queue.

    Attributes:
        candidates: rows to be judged.
        judged: candidates that have a verdict already.
        honeypots: items with a known answer.
        added: items that are new in the queue.
        withdrawn: items that the run no longer has.
    """

    candidates: int
    judged: int
    honeypots: int
    added: int
    withdrawn: int


def compute_item_id(place: tuple[str, str, int], variant: str) -> str:
    """Compute the id of an item.

    Args:
        place: table, shard and row of its pictures.
        variant: a word of `Variant`.
    """
    return hash_json(["item", *place, variant])


def hash_tables(run: Store) -> str:
    """Hash the contents of the run's tables, so that it changes when rows are added."""
    digest = hashlib.sha256()
    for flow in read_plan(run).flows:
        name = manifest_path(flow)
        digest.update(flow.encode() + b"\0" + (run.read(name) if run.exists(name) else b""))
    return digest.hexdigest()


def compute_fingerprint(run: Store, policy: Policy, flows: Sequence[str]) -> str:
    """Compute a hash of the inputs of a queue: the run's rows as they are now, the policy, the flows."""
    asked = [run.read(ASKED).decode()] if run.exists(ASKED) else []
    return hash_json([hash_tables(run), policy.model_dump(), sorted(flows), *asked])


def refresh_queue(
    run: Store, database: Database, policy: Policy, flows: Sequence[str] = (), rest: float = 0.0
) -> LoadResult | None:
    """Call `load_queue`, unless the queue was loaded from the same inputs before.

    A server that starts again is ready at once.

    Returns:
        None where nothing had to be done.

    Raises:
        NoRun: it is no run.
        NothingToReview: the run has no row to review.
    """
    inputs = compute_fingerprint(run, policy, flows)
    with database.read() as connection:
        if connection.execute(select(meta.c.value).where(meta.c.key == "loaded")).scalar() == inputs:
            return None
    loaded = load_queue(run, database, policy, flows, rest)
    database.write(partial(_store_fingerprint, value=inputs))
    return loaded


def check_opened(connection: Connection, run: str) -> None:
    """Check that a review's queue was loaded from its run before.

    Raises:
        NeverOpened: it was not: the database has reviewers at most.
    """
    if connection.execute(select(meta.c.value).where(meta.c.key == "loaded")).first() is None:
        raise NeverOpened(f"the review of {run} was never opened, and has no votes; `rasura review {run}` opens it")


def has_content(database: Database) -> bool:
    """Return True for a review whose queue was loaded, or that has a reviewer."""
    with database.read() as connection:
        is_loaded = connection.execute(select(meta.c.value).where(meta.c.key == "loaded")).first() is not None
        return is_loaded or connection.execute(select(reviewers.c.id)).first() is not None


def check_reviewable(run: Store) -> None:
    """Check that a run has something to review.

    Raises:
        NoRun: it is no run.
        NothingToReview: it has nothing, or all of it has a verdict.
    """
    if all(row.judged for row in list_reviewed(run)):
        raise NothingToReview(f"{run.uri} has no row to review: all of them have a verdict")


def _store_fingerprint(connection: Connection, value: str) -> None:
    connection.execute(delete(meta).where(meta.c.key == "loaded"))
    connection.execute(insert(meta).values(key="loaded", value=value))


def _make_item(row: ReviewableRow, kind: ItemKind, variant: Variant, policy: Policy, rank: int) -> dict[str, Any]:
    """Make the values of an item's columns."""
    id = compute_item_id(row.place, variant)
    table, shard, index = row.place
    candidate = kind is ItemKind.CANDIDATE
    expected = None if candidate else (Verdict.YES if variant is Variant.TARGET else Verdict.NO)
    needed = count_needed_votes(policy, (), row.score) if candidate else 0
    return {
        "id": id,
        "kind": kind,
        "row_id": row.id,
        "flow": row.flow,
        "place_table": table,
        "place_shard": shard,
        "place_row": index,
        "variant": variant,
        "expected": expected,
        "label": row.label,
        "remover": row.remover,
        "round": row.round,
        "score": row.score,
        "dilation": row.dilation,
        "withdrawn": False,
        "votes": 0,
        "leases": 0,
        "priority": compute_priority(policy, id, row.score, rank),
        "needed": needed,
        "free": needed,
    }


def build_control_items(rows: Sequence[ReviewableRow], policy: Policy, secret: str) -> Iterator[dict[str, Any]]:
    """Make the items whose answer is known: half of them the true target (yes), half a deliberate mistake (no).

    The first few rows, in the order of a hash, become the guidelines' examples instead, one item for each mistake.

    Args:
        rows: with a true target.
        policy: of the review.
        secret: of the database, which decides about all of it.
    """
    ordered = sorted(rows, key=lambda row: draw_uniform(secret, "truth", row.id))
    examples = ordered[: EXAMPLES if len(ordered) > 2 * EXAMPLES else min(1, len(ordered))]
    for row in examples:
        for variant in (Variant.TARGET, *MISTAKES):
            yield _make_item(row, ItemKind.EXAMPLE, variant, policy, 0)
    wrong = (Variant.UNTOUCHED, Variant.BLUR, Variant.HALLUCINATED)
    for row in ordered[len(examples) :][:HONEYPOTS]:
        chance = draw_uniform(secret, "answer", row.id)
        variant = Variant.TARGET if chance < 0.5 else wrong[int((chance - 0.5) * 2 * len(wrong))]
        yield _make_item(row, ItemKind.HONEYPOT, variant, policy, 0)


def _upsert(connection: Connection, values: Sequence[dict[str, Any]], policy: Policy) -> int:
    """Add items, update those that exist, and return the number of new ones."""
    ids = [value["id"] for value in values]
    existing = {row.id: row for row in connection.execute(select(items).where(items.c.id.in_(ids)))}
    insert_or_update = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert_or_update(items)
    names = [name for name in values[0] if name != "id"]
    statement = statement.on_conflict_do_update(
        index_elements=["id"], set_={name: statement.excluded[name] for name in names}
    )
    kinds = {value["id"]: value["kind"] for value in values}
    moved = [id for id, old in existing.items() if old.kind != kinds[id]]  # between asked about and known
    voted = [id for id, old in existing.items() if old.votes]
    ruled = set(connection.execute(select(rulings.c.item).where(rulings.c.item.in_(ids))).scalars())
    first = {row[0]: row[1] for row in connection.execute(select(pushed).where(pushed.c.item.in_(ids)))}
    verdicts: dict[str, list[str]] = defaultdict(list)
    of = (standing.c.item.in_(voted), standing.c.verdict.is_not(None))
    for row in connection.execute(select(standing.c.item, standing.c.verdict).where(*of)):
        verdicts[row.item].append(row.verdict)
    changed = []
    for value in values:
        value["priority"] = first.get(value["id"], value["priority"])
        if old := existing.get(value["id"]):
            value |= {"votes": old.votes, "leases": old.leases}
            if value["kind"] == ItemKind.CANDIDATE:
                given = verdicts[value["id"]]
                needed = len(given) if old.id in ruled else count_needed_votes(policy, given, value["score"])
                value["needed"] = needed
                value["free"] = max(0, value["needed"] - old.votes - old.leases)
            if all(getattr(old, name) == value[name] for name in names):
                continue
        changed.append(value)
    if changed:
        connection.execute(statement, changed)
    for id in moved:
        recount(connection, policy, id)
    return len(set(ids) - set(existing))


def _withdraw(connection: Connection, ids: Sequence[str]) -> None:
    connection.execute(update(items).where(items.c.id.in_(ids)).values(withdrawn=True, free=0))


def _order_scenes(database: Database, policy: Policy, rows: Sequence[ReviewableRow]) -> None:
    """Give the candidates of each scene their turns, and take those from the queue whose turn has not come."""
    scenes: dict[str, list[str]] = defaultdict(list)
    scores = {}
    for row in rows:
        id = compute_item_id(row.place, Variant.TARGET)
        scenes[row.scene].append(id)
        scores[id] = row.score

    def store(connection: Connection, part: Mapping[str, Sequence[str]]) -> None:
        store_turns(connection, policy, part, scores)
        for ids in part.values():
            recount(connection, policy, ids[0])

    names = list(scenes)
    for start in range(0, len(names), SCENE_CHUNK):
        part = {name: scenes[name] for name in names[start : start + SCENE_CHUNK]}
        database.write(partial(store, part=part))


def _list_reviewed(run: Store, database: Database, flows: Sequence[str]) -> list[ReviewableRow]:
    """List the rows that people are asked about; none where the run has lost all that the queue had.

    Raises:
        NothingToReview: the run never had any, or flows are named that have none: the queue is not emptied by a slip.
    """
    try:
        return list_reviewed(run, flows)
    except NothingToReview:
        if flows and set(flows) - (set(read_plan(run).flows) - set(Tables(run).names())):
            raise
        with database.read() as connection:
            if connection.execute(select(items.c.id).limit(1)).first() is None:
                raise
        return []


def _describe_tasks(
    reviewed: Sequence[ReviewableRow],
    truth: Sequence[ReviewableRow],
    controls: Sequence[Mapping[str, Any]],
    secret: str,
) -> list[dict[str, Any]]:
    """Make the rows of `details`. An item with a known answer asks what one of the others asks, drawn by lot."""
    tasks = [TASK_OF_KIND.get(row.kind, Task.REMOVAL) for row in reviewed]
    described = [
        {"item": compute_item_id(row.place, Variant.TARGET), "task": task, "scene": row.scene}
        for row, task in zip(reviewed, tasks, strict=True)
    ]
    scenes = {row.id: row.scene for row in truth}
    for control in controls:
        lot = draw_uniform(secret, "task", control["id"])
        task = tasks[int(lot * len(tasks))] if tasks else Task.REMOVAL
        described.append({"item": control["id"], "task": task, "scene": scenes[control["row_id"]]})
    return described


def _store_details(connection: Connection, values: Sequence[Mapping[str, Any]]) -> None:
    ids = [value["item"] for value in values]
    stored = {row.item: tuple(row) for row in connection.execute(select(details).where(details.c.item.in_(ids)))}
    names = details.c.keys()
    changed = [value for value in values if stored.get(value["item"]) != tuple(value[name] for name in names)]
    if changed:
        connection.execute(delete(details).where(details.c.item.in_([value["item"] for value in changed])))
        connection.execute(insert(details), [{**value, "task": str(value["task"])} for value in changed])


def load_queue(
    run: Store, database: Database, policy: Policy, flows: Sequence[str] = (), rest: float = 0.0
) -> LoadResult:
    """Bring the queue in line with the run's rows. May be called again at any time, while people review.

    Args:
        run: that has the candidates.
        database: of the review.
        policy: of the review.
        flows: all rows of these; where none is named, see `annotator.store.rows.list_reviewed`.
        rest: pause after each chunk, as a multiple of its own time, in which others have the database.

    Raises:
        NoRun: it is no run.
        NothingToReview: the run has no row to review, and never had one.
    """
    made = _list_reviewed(run, database, flows)
    waiting = [row for row in made if not row.judged]
    if run.exists(ASKED):
        asked = set(json.loads(run.read(ASKED)))
        waiting = [row for row in waiting if compute_item_id(row.place, Variant.TARGET) in asked]
    ranks: Counter[str | None] = Counter()
    values = []
    for row in sorted(waiting, key=lambda row: draw_uniform(policy.seed, row.id)):
        values.append(_make_item(row, ItemKind.CANDIDATE, Variant.TARGET, policy, ranks[row.label]))
        ranks[row.label] += 1
    candidates, added = len(values), 0
    truth = list_true(run, made)
    with database.read() as connection:
        secret = read_disguise(connection).secret
        listed = set(connection.execute(select(items.c.id).where(~items.c.withdrawn)).scalars())
    if not candidates and not listed:
        raise NothingToReview(f"{run.uri} has no row to review: all of them have a verdict")
    controls = list(build_control_items(truth, policy, secret))
    values += controls
    known = [value["label"] for value in controls if value["kind"] == ItemKind.HONEYPOT] if policy.honeypots else []
    is_covered = cover_labels(known, [row.label for row in waiting])
    database.write(partial(store_coverage, is_covered=is_covered))
    database.write(partial(_store_fingerprint, value=""))
    for start in range(0, len(values), CHUNK):
        start_time = time.perf_counter()
        added += database.write(partial(_upsert, values=values[start : start + CHUNK], policy=policy))
        time.sleep(rest * (time.perf_counter() - start_time))
    tasks = _describe_tasks(waiting, truth, controls, secret)
    for start in range(0, len(tasks), CHUNK):
        database.write(partial(_store_details, values=tasks[start : start + CHUNK]))
    database.write(lambda connection: connection.execute(delete(turns)))
    if policy.order == "best_first":
        _order_scenes(database, policy, waiting)
    withdrawn = sorted(listed - {value["id"] for value in values})
    for start in range(0, len(withdrawn), CHUNK):
        database.write(partial(_withdraw, ids=withdrawn[start : start + CHUNK]))
    honeypots = sum(value["kind"] == ItemKind.HONEYPOT for value in controls)
    return LoadResult(candidates, len(made) - candidates, honeypots, added, len(withdrawn))
