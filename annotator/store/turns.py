"""The turns of a review that asks a scene's candidates best first: kept in the database, and applied to its queue."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select

from rasura.annotator.store.best_first import Asked, count_likely, is_complete_scene, list_asked, order_candidates
from rasura.annotator.store.database import items, standing, turns
from rasura.annotator.store.enums import Verdict
from rasura.annotator.store.policy import Policy, count_needed_votes, find_majority
from rasura.annotator.store.team.tables import rulings

_SCENE_OF = select(turns.c.scene).where(turns.c.item == bindparam("item"))
_SCENE = (
    select(turns, items.c.score, standing.c.verdict, rulings.c.verdict.label("ruling"))
    .join(items, items.c.id == turns.c.item)
    .outerjoin(standing, standing.c.item == turns.c.item)
    .outerjoin(rulings, rulings.c.item == turns.c.item)
    .where(turns.c.scene == bindparam("scene"), ~items.c.withdrawn)
    .order_by(turns.c.rank)
)


def store_turns(
    connection: Connection, policy: Policy, scenes: Mapping[str, Sequence[str]], scores: Mapping[str, float | None]
) -> None:
    """Store the order of the candidates of scenes, in place of an earlier one.

    Args:
        scenes: ids of their items.
        scores: of the items.
    """
    rows = []
    for scene, ids in scenes.items():
        order = order_candidates(ids, scores, policy.seed)
        likely = count_likely(order, scores, policy.floor)
        share = policy.complete_scenes
        common = {"scene": scene, "complete": is_complete_scene(scene, share, policy.seed), "share": share}
        rows += [{"item": id, "rank": rank, "likely": rank < likely, **common} for rank, id in enumerate(order)]
    for row in rows:
        connection.execute(delete(turns).where(turns.c.item == row["item"]))
    if rows:
        connection.execute(insert(turns), rows)


def find_scene(connection: Connection, item: str) -> str | None:
    """Find the scene of an item that has a turn; None where it has none."""
    scene: str | None = connection.execute(_SCENE_OF, {"item": item}).scalar()
    return scene


def list_turns(connection: Connection, scene: str, policy: Policy | None = None) -> dict[str, Asked | None]:
    """List the candidates of a scene: how each is asked, None where it is not, or not yet.

    A candidate is answered when it has all the votes it needs (without a policy: any); it is accepted when most of them
    are yes. An expert's ruling answers it in any case.
    """
    complete, share = True, 1.0
    verdicts: dict[str, list[str]] = defaultdict(list)
    scores: dict[str, float | None] = {}
    ruled: dict[str, bool] = {}
    likely = 0
    for row in connection.execute(_SCENE, {"scene": scene}):
        likely += row.likely and row.item not in scores
        scores[row.item] = row.score
        complete, share = row.complete, row.share
        if row.verdict is not None:
            verdicts[row.item].append(row.verdict)
        if row.ruling is not None:
            ruled[row.item] = row.ruling == Verdict.YES
    answers = {
        id: find_majority(given) == Verdict.YES
        for id, given in verdicts.items()
        if policy is None or len(given) >= count_needed_votes(policy, given, scores[id])
    }
    asked = list_asked(list(scores), likely, answers | ruled, complete, share)
    return {id: asked.get(id) for id in scores}


def describe_inclusion(connection: Connection) -> dict[str, Asked]:
    """Describe how each candidate was asked, by id; empty where the candidates have no turns."""
    scenes: Iterable[Any] = connection.execute(select(turns.c.scene).distinct()).scalars().all()
    described: dict[str, Asked] = {}
    for scene in scenes:
        described |= {id: asked for id, asked in list_turns(connection, scene).items() if asked}
    return described
