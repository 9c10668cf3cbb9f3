"""Best of k: the candidates of a scene side by side, of which a reviewer picks the best or ranks all."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from rasura.annotator.store.database import items, standing
from rasura.annotator.store.enums import ItemKind
from rasura.annotator.store.policy import Policy, draw_uniform
from rasura.annotator.store.reviewers import Reviewer
from rasura.annotator.store.team.tables import details, has_team_tables, rankings, scene_leases
from rasura.annotator.store.vote_log import MAX_SECONDS, ReusedNonce, UnknownItem, VoteError

MOST_SHOWN = 6
"""Candidates of a scene on one screen."""

_HAS_JUDGED, _HAS_RANKED = (  # built once: each vote needs one
    select(table.c.reviewer).where(table.c.reviewer == bindparam("reviewer")).limit(1) for table in (standing, rankings)
)


class BadRanking(VoteError):
    """A ranking of items that were not shown together, or with one twice."""


class OtherTask(VoteError):
    """Who has judged items with known answers among them ranks none, and who has ranked judges none."""


def check_task(connection: Connection, policy: Policy, reviewer: Reviewer, ranks: bool) -> None:
    """Check that a reviewer who is no admin does one of both, where there are known answers.

    What is ranked are candidates alone, so that whoever has seen them side by side could tell them from known answers.

    Args:
        ranks: whether the reviewer wants to rank; to judge otherwise.

    Raises:
        OtherTask: the reviewer has done the other.
    """
    if not policy.honeypots or reviewer.admin:
        return
    # items that were dealt and not judged bind nobody: the page opens some
    if connection.execute(_HAS_JUDGED if ranks else _HAS_RANKED, {"reviewer": reviewer.id}).first() is None:
        return
    done, wanted = ("judges", "ranking") if ranks else ("ranks", "judging")
    raise OtherTask(
        f"{reviewer.name} {done} in this review, and some of its items have known answers, which {wanted} would tell "
        "apart: ask an admin for a link under another name"
    )


def lease_scene(connection: Connection, policy: Policy, reviewer: Reviewer, now: float) -> dict[str, Any] | None:
    """Lease the next scene with two candidates or more: the one with the fewest rankings that nobody else has open.

    A scene is ranked by as many reviewers as `votes` says.

    Returns:
        The scene, ids of its items in an order drawn for this reviewer, and how many scenes wait; None where none does.

    Raises:
        OtherTask: the reviewer judges.
    """
    check_task(connection, policy, reviewer, ranks=True)
    connection.execute(delete(scene_leases).where(scene_leases.c.expires < now))
    connection.execute(delete(scene_leases).where(scene_leases.c.reviewer == reviewer.id))
    done: dict[str, set[int]] = {}
    for row in connection.execute(select(rankings.c.scene, rankings.c.reviewer).distinct()):
        done.setdefault(row.scene, set()).add(row.reviewer)
    leased = {
        row[0]: row[1]
        for row in connection.execute(select(scene_leases.c.scene, func.count()).group_by(scene_leases.c.scene))
    }
    conditions = (items.c.kind == ItemKind.CANDIDATE, ~items.c.withdrawn, items.c.remover.is_not(None))
    statement = (
        select(details.c.scene, func.count())
        .join(items, items.c.id == details.c.item)
        .where(*conditions)
        .group_by(details.c.scene)
        .having(func.count() > 1)
    )
    waiting = [
        scene
        for (scene, _) in connection.execute(statement)
        if len(done.get(scene, ())) + leased.get(scene, 0) < policy.votes and reviewer.id not in done.get(scene, ())
    ]
    if not waiting:
        return None
    scene = min(waiting, key=lambda scene: (len(done.get(scene, ())), draw_uniform(policy.seed, "rank", scene)))
    expires = now + 60 * policy.lease_minutes
    connection.execute(insert(scene_leases).values(scene=scene, reviewer=reviewer.id, expires=expires))
    return {"scene": scene, "items": _list_shown(connection, policy, reviewer, scene), "waiting": len(waiting)}


def _list_shown(connection: Connection, policy: Policy, reviewer: Reviewer, scene: str) -> list[str]:
    """List the items of a scene as they are shown to a reviewer: at most `MOST_SHOWN`, in an order drawn by lot."""
    conditions = (items.c.kind == ItemKind.CANDIDATE, ~items.c.withdrawn, items.c.remover.is_not(None))
    statement = (
        select(items.c.id).join(details, details.c.item == items.c.id).where(details.c.scene == scene, *conditions)
    )
    ids = connection.execute(statement).scalars().all()
    return sorted(ids, key=lambda id: draw_uniform(policy.seed, "side", reviewer.id, id))[:MOST_SHOWN]


def may_view_scene(connection: Connection, reviewer: Reviewer, item: str) -> bool:
    """Return True where a reviewer has the scene of an item open for ranking."""
    statement = (
        select(scene_leases.c.scene)
        .join(details, details.c.scene == scene_leases.c.scene)
        .where(details.c.item == item, scene_leases.c.reviewer == reviewer.id)
    )
    return connection.execute(statement).first() is not None


def add_ranking(
    connection: Connection,
    policy: Policy,
    reviewer: Reviewer,
    scene: str,
    ranking: Sequence[Sequence[str]],
    seconds: float | None,
    nonce: str,
    now: float,
) -> None:
    """Store a reviewer's ranking of the candidates of a scene; the same nonce twice is one ranking.

    Args:
        ranking: groups of items, the best first; those of one group are equally good. With the best alone in the first
            group and all others in the second, one was picked. Empty: the scene was skipped.

    Raises:
        UnknownItem: the scene is not open for the reviewer.
        BadRanking: it does not have each of the items that were shown once.
        ReusedNonce: the nonce is that of another ranking.
    """
    text = json.dumps([list(group) for group in ranking])
    earlier = connection.execute(select(rankings).where(rankings.c.nonce == nonce)).first()
    if earlier is not None:
        if (earlier.reviewer, earlier.scene, earlier.ranking) != (reviewer.id, scene, text):
            raise ReusedNonce("this nonce was sent with another ranking; make another one")
        return
    conditions = (scene_leases.c.scene == scene, scene_leases.c.reviewer == reviewer.id)
    if connection.execute(select(scene_leases.c.scene).where(*conditions)).first() is None:
        raise UnknownItem("this scene is not open for you")
    shown = _list_shown(connection, policy, reviewer, scene)
    named = [item for group in ranking for item in group]
    if ranking and (sorted(named) != sorted(shown) or not all(ranking)):
        raise BadRanking("a ranking has each of the candidates that were shown once")
    values = {
        "time": now,
        "reviewer": reviewer.id,
        "scene": scene,
        "shown": json.dumps(shown),
        "ranking": text,
        "seconds": None if seconds is None else min(max(seconds, 0.0), MAX_SECONDS),
        "nonce": nonce,
    }
    connection.execute(insert(rankings).values(**values))
    connection.execute(delete(scene_leases).where(*conditions))


def list_rankings(connection: Connection) -> list[tuple[str, int, list[list[str]]]]:
    """List the rankings that count, (scene, reviewer, groups of removers, best first): each reviewer's last of a scene.

    Of a remover that has several candidates of a scene, each counts.
    """
    if not has_team_tables(connection):
        return []
    removers: Mapping[str, str | None] = {
        row[0]: row[1] for row in connection.execute(select(items.c.id, items.c.remover))
    }
    last = {(row.scene, row.reviewer): row for row in connection.execute(select(rankings).order_by(rankings.c.seq))}
    return [
        (
            scene,
            reviewer,
            [[removers.get(item) or "unknown" for item in group] for group in json.loads(row.ranking)],
        )
        for (scene, reviewer), row in last.items()
        if json.loads(row.ranking)
    ]
