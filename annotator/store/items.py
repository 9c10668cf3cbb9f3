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
from rasura.annotator.store.enums import MISTAKES, ItemKind, Variant, Verdict
from rasura.annotator.store.leases import recount
from rasura.annotator.store.policy import Policy, compute_priority, count_needed_votes, draw_uniform
from rasura.annotator.store.turns import store_turns
from rasura.manifests.errors import ReviewError
from rasura.manifests.ids import hash_json
from rasura.manifests.run_layout import manifest_path, read_plan
from rasura.manifests.schemas import CANDIDATE_KINDS, PICTURES
from rasura.manifests.storage import Store
from rasura.manifests.tables import Table, Tables

CHUNK = 1000
"""Rows in one transaction, for which reviewers wait."""
ASKED = "asked.json"
"""In a run: ids of the items that are to be voted on, where these are not all of its candidates."""
SCENE_CHUNK = 50
"""Scenes whose candidates are ordered in one transaction."""
HONEYPOTS = 2000
"""Rows with a true target that are used, at most."""
EXAMPLES = 2
REQUIRED_PICTURES = ("source", "target", "mask")
LIGHT_COLUMNS = (
    *("scene_id", "kind", "label", "remover", "round", "score", "verdict", "hole_dilation"),
    *("ref_table", "ref_shard", "ref_row", "ref_run"),
)


class NothingToReview(ReviewError):
    """A run has no candidate to review."""


class NeverOpened(ReviewError):
    """A review whose queue has never been loaded from its run."""


@dataclass(frozen=True)
class ReviewableRow:
    """A row of a run that can be reviewed.

    Attributes:
        id: of the row.
        flow: that has it.
        place: table, shard and row of its pictures.
        scene: id of its scene; the row's own id where it has none.
        kind: captured, simulated, inserted or edited.
        label: class of its object.
        remover: that made it.
        round: of the loop in which it was made.
        score: that a discriminator gave it.
        dilation: px by which the remover dilated the mask.
        judged: True where it has a verdict already.
    """

    id: str
    flow: str
    place: tuple[str, str, int]
    scene: str
    kind: str
    label: str | None = None
    remover: str | None = None
    round: int | None = None
    score: float | None = None
    dilation: int | None = None
    judged: bool = False


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
        NothingToReview: the run has no candidate.
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


def check_candidates(run: Store) -> None:
    """Check that a run has something to review.

    Raises:
        NoRun: it is no run.
        NothingToReview: it has no candidate.
    """
    if not any(row.kind in CANDIDATE_KINDS and not row.judged for row in list_rows(run)):
        raise _describe_empty(run)


def _describe_empty(run: Store) -> NothingToReview:
    return NothingToReview(
        f"{run.uri} has no candidate: no complete table with rows of kind 'edited' or 'inserted' and no verdict"
    )


def _store_fingerprint(connection: Connection, value: str) -> None:
    connection.execute(delete(meta).where(meta.c.key == "loaded"))
    connection.execute(insert(meta).values(key="loaded", value=value))


def _iterate_rows(table: Table) -> Iterator[ReviewableRow]:
    if "kind" not in table.schema or not set(REQUIRED_PICTURES) <= set(table.full_schema):
        return
    if not any(kind in PICTURES for kind in table.schema.values()) and "ref_shard" not in table.schema:
        return
    light = table.read_light(LIGHT_COLUMNS)
    columns = {name: light[name].to_pylist() for name in light.column_names}
    nothing = [None] * light.num_rows
    for index, id in enumerate(columns["id"]):
        value = {name: columns.get(name, nothing)[index] for name in LIGHT_COLUMNS}
        place = (table.name, columns["shard"][index], columns["row"][index])
        if value["ref_shard"] is not None and value["ref_run"] is None:  # pictures of another run: by its own place
            place = (value["ref_table"], value["ref_shard"], value["ref_row"])
        yield ReviewableRow(
            id=id,
            flow=table.name,
            place=place,
            scene=value["scene_id"] or id,
            kind=value["kind"],
            label=value["label"],
            remover=value["remover"],
            round=value["round"],
            score=value["score"],
            dilation=None if value["hole_dilation"] is None else int(value["hole_dilation"]),
            judged=value["verdict"] is not None,
        )


def list_rows(run: Store, flows: Sequence[str] = ()) -> list[ReviewableRow]:
    """List the rows that have a source, mask and target.

    A row that is in several flows (made in one, scored or selected in another) is taken from the last of them.

    Args:
        run: to read.
        flows: only these, as far as they are complete; all where none is named.

    Raises:
        NoRun: it is no run.
        NothingToReview: it has no such flow.
    """
    tables, rows = Tables(run), dict[str, ReviewableRow]()
    complete = set(tables.names())
    plan = read_plan(run)
    names = list(plan.flows)
    if unknown := [flow for flow in flows if flow not in names]:
        raise NothingToReview(f"{run.uri} has no flow '{unknown[0]}' (it has: {', '.join(names)})")
    for flow in names:
        if flow in complete and flow in (flows or plan.main_flows):
            rows |= {row.id: row for row in _iterate_rows(tables.table(flow))}
    return list(rows.values())


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


def build_control_items(rows: Sequence[ReviewableRow], policy: Policy) -> Iterator[dict[str, Any]]:
    """Make the items whose answer is known: half of them the true target (yes), half a deliberate mistake (no).

    The first few rows, in the order of a hash, become the guidelines' examples instead, one item for each mistake.

    Args:
        rows: with a true target.
        policy: of the review.
    """
    ordered = sorted(rows, key=lambda row: draw_uniform(policy.seed, "truth", row.id))
    examples = ordered[: EXAMPLES if len(ordered) > 2 * EXAMPLES else min(1, len(ordered))]
    for row in examples:
        for variant in (Variant.TARGET, *MISTAKES):
            yield _make_item(row, ItemKind.EXAMPLE, variant, policy, 0)
    wrong = (Variant.UNTOUCHED, Variant.BLUR, Variant.HALLUCINATED)
    for row in ordered[len(examples) :][:HONEYPOTS]:
        chance = draw_uniform(policy.seed, "answer", row.id)
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
    voted = [id for id, old in existing.items() if old.votes]
    verdicts: dict[str, list[str]] = defaultdict(list)
    of = (standing.c.item.in_(voted), standing.c.verdict.is_not(None))
    for row in connection.execute(select(standing.c.item, standing.c.verdict).where(*of)):
        verdicts[row.item].append(row.verdict)
    changed = []
    for value in values:
        if old := existing.get(value["id"]):
            value |= {"votes": old.votes, "leases": old.leases}
            if value["kind"] == ItemKind.CANDIDATE:
                value["needed"] = count_needed_votes(policy, verdicts[value["id"]], value["score"])
                value["free"] = max(0, value["needed"] - old.votes - old.leases)
            if all(getattr(old, name) == value[name] for name in names):
                continue
        changed.append(value)
    if changed:
        connection.execute(statement, changed)
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


def load_queue(
    run: Store, database: Database, policy: Policy, flows: Sequence[str] = (), rest: float = 0.0
) -> LoadResult:
    """Bring the queue in line with the run's rows. May be called again at any time, while people review.

    Args:
        run: that has the candidates.
        database: of the review.
        policy: of the review.
        flows: only candidates of these; of all flows where none is named.
        rest: pause after each chunk, as a multiple of its own time, in which others have the database.

    Raises:
        NoRun: it is no run.
        NothingToReview: the run has no candidate, and never had one.
    """
    rows = list_rows(run, flows)
    made = [row for row in rows if row.kind in CANDIDATE_KINDS]
    waiting = [row for row in made if not row.judged]
    if run.exists(ASKED):
        asked = set(json.loads(run.read(ASKED)))
        waiting = [row for row in waiting if compute_item_id(row.place, Variant.TARGET) in asked]
    truth = [row for row in list_rows(run) if row.kind in ("captured", "simulated")]
    ranks: Counter[str | None] = Counter()
    values = []
    for row in sorted(waiting, key=lambda row: draw_uniform(policy.seed, row.id)):
        values.append(_make_item(row, ItemKind.CANDIDATE, Variant.TARGET, policy, ranks[row.label]))
        ranks[row.label] += 1
    candidates, added = len(values), 0
    controls = list(build_control_items(truth, policy))
    values += controls
    with database.read() as connection:
        listed = set(connection.execute(select(items.c.id).where(~items.c.withdrawn)).scalars())
    if not candidates and not listed:
        raise _describe_empty(run)
    database.write(partial(_store_fingerprint, value=""))
    for start in range(0, len(values), CHUNK):
        start_time = time.perf_counter()
        added += database.write(partial(_upsert, values=values[start : start + CHUNK], policy=policy))
        time.sleep(rest * (time.perf_counter() - start_time))
    database.write(lambda connection: connection.execute(delete(turns)))
    if policy.order == "best_first":
        _order_scenes(database, policy, waiting)
    withdrawn = sorted(listed - {value["id"] for value in values})
    for start in range(0, len(withdrawn), CHUNK):
        database.write(partial(_withdraw, ids=withdrawn[start : start + CHUNK]))
    honeypots = sum(value["kind"] == ItemKind.HONEYPOT for value in controls)
    return LoadResult(candidates, len(made) - candidates, honeypots, added, len(withdrawn))
