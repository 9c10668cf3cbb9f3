"""Leases: the items that each reviewer has open. An item never has more leases than votes that it still needs."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, exists, func, insert, select, update

from rasura.annotator.store.database import items, leases, reviewers, standing
from rasura.annotator.store.enums import ItemKind
from rasura.annotator.store.known_answers import (
    LENDERS,
    choose_known_item,
    has_room,
    is_known_turn,
    read_disguise,
    store_lender,
)
from rasura.annotator.store.policy import Policy, count_needed_votes
from rasura.annotator.store.reviewers import Reviewer
from rasura.annotator.store.team.tables import rulings
from rasura.annotator.store.turns import find_scene, list_turns

MAX_OPEN_ITEMS = 12
"""Items that one reviewer can have open."""

# The statements that every call needs are built once: building them costs more than running them.
_has_verdict = exists().where(standing.c.item == items.c.id, standing.c.reviewer == bindparam("reviewer"))
_is_open = exists().where(leases.c.item == items.c.id, leases.c.reviewer == bindparam("reviewer"), leases.c.live)
_live_leases = select(func.count()).where(leases.c.item == bindparam("item"), leases.c.live).scalar_subquery()
_is_ruled = exists().where(rulings.c.item == items.c.id).label("ruled")
_FACTS = select(items.c.kind, items.c.score, items.c.withdrawn, _live_leases.label("leases"), _is_ruled).where(
    items.c.id == bindparam("item")
)
_VERDICTS = select(standing.c.verdict).where(standing.c.item == bindparam("item"), standing.c.verdict.is_not(None))
_SET_COUNTS = (
    update(items)
    .where(items.c.id == bindparam("of"))
    .values({name: bindparam(f"to_{name}") for name in ("needed", "votes", "leases", "free")})
)
_EXPIRE = (
    update(leases).where(leases.c.live, leases.c.expires < bindparam("now")).values(live=False).returning(leases.c.item)
)
_OPEN_ITEMS = (
    select(items.c.id, items.c.kind, items.c.label, items.c.dilation)
    .join(leases, leases.c.item == items.c.id)
    .where(leases.c.reviewer == bindparam("reviewer"), leases.c.live, ~items.c.withdrawn)
    .order_by(leases.c.turn)
)
_EXPIRED_ITEMS = (
    select(items.c.id, items.c.kind, items.c.free, leases.c.turn)
    .join(leases, leases.c.item == items.c.id)
    .where(leases.c.reviewer == bindparam("reviewer"), ~leases.c.live, ~items.c.withdrawn, ~_has_verdict)
    .order_by(leases.c.turn)
)
_RENEW = update(leases).where(leases.c.reviewer == bindparam("who"), leases.c.live).values(expires=bindparam("to"))
_QUEUE = (
    select(items.c.id, items.c.label)
    .where(items.c.free > 0, ~_has_verdict, ~_is_open)
    .order_by(items.c.priority, items.c.id)
    .limit(bindparam("count"))
)
_UNSEEN_HONEYPOTS = select(items.c.id).where(
    items.c.kind == ItemKind.HONEYPOT, ~items.c.withdrawn, ~_has_verdict, ~_is_open
)
_GET_TURN = select(reviewers.c.dealt).where(reviewers.c.id == bindparam("reviewer"))
_SET_TURN = update(reviewers).where(reviewers.c.id == bindparam("who")).values(dealt=bindparam("to"))
_DROP = delete(leases).where(leases.c.item == bindparam("item"), leases.c.reviewer == bindparam("reviewer"))
_DROP_SEVERAL = delete(leases).where(
    leases.c.reviewer == bindparam("reviewer"), leases.c.item.in_(bindparam("several", expanding=True))
)
_ADD_LEASES = insert(leases)
_ROOM = select(items.c.id, items.c.kind, items.c.free).where(items.c.id == bindparam("item"))
_COUNT_LEASES = (
    update(items)
    .where(items.c.id.in_(bindparam("several", expanding=True)))
    .values(leases=items.c.leases + 1, free=items.c.free - 1)
)


def recount(connection: Connection, policy: Policy, item: str) -> None:
    """Update the counts of a candidate in the queue from its votes and leases, and of its scene where it has a turn."""
    scene = find_scene(connection, item) if policy.order == "best_first" else None
    if scene is None:
        _recount_item(connection, policy, item, True)
        return
    for other, asked in list_turns(connection, scene, policy).items():
        _recount_item(connection, policy, other, asked is not None)


def _recount_item(connection: Connection, policy: Policy, item: str, is_asked: bool) -> None:
    row = connection.execute(_FACTS, {"item": item}).one()
    is_asked = is_asked and row.kind == ItemKind.CANDIDATE  # a known answer takes as long as a candidate
    verdicts = list(connection.execute(_VERDICTS, {"item": item}).scalars())
    is_open = is_asked and not row.ruled
    needed = count_needed_votes(policy, verdicts, row.score) if is_open else len(verdicts)
    free = 0 if row.withdrawn else max(0, needed - len(verdicts) - row.leases)
    values = {"of": item, "to_needed": needed, "to_votes": len(verdicts), "to_leases": row.leases, "to_free": free}
    connection.execute(_SET_COUNTS, values)


def expire_leases(connection: Connection, policy: Policy, now: float) -> int:
    """End the leases that have expired, and return their number."""
    expired = list(connection.execute(_EXPIRE, {"now": now}).scalars())
    for item in sorted(set(expired)):
        recount(connection, policy, item)
    return len(expired)


def list_open_items(connection: Connection, reviewer: int) -> Sequence[Any]:
    """List a reviewer's open items in the order in which they were leased."""
    return connection.execute(_OPEN_ITEMS, {"reviewer": reviewer}).all()


def lease_items(connection: Connection, policy: Policy, reviewer: Reviewer, want: int, now: float) -> Sequence[Any]:
    """Renew the leases that a reviewer has, and add new ones.

    Args:
        connection: of the writer.
        policy: of the review.
        reviewer: who asks.
        want: number of open items to reach, as far as there are that many.
        now: seconds since 1970.

    Returns:
        The open items in the order in which they were leased.
    """
    expire_leases(connection, policy, now)
    expires = now + 60 * policy.lease_minutes
    connection.execute(_RENEW, {"who": reviewer.id, "to": expires})
    open_items = list_open_items(connection, reviewer.id)
    missing = min(want, MAX_OPEN_ITEMS) - len(open_items)
    expired = connection.execute(_EXPIRED_ITEMS, {"reviewer": reviewer.id}).all() if missing > 0 else []
    back = [row for row in expired if has_room(connection, row, reviewer.id)][:missing]
    if back:  # before others: from the queue, items with a known answer would not come back
        for row in back:
            grant_lease(connection, policy, row.id, reviewer.id, row.turn, expires)
        open_items = list_open_items(connection, reviewer.id)
        missing -= len(back)
    if missing <= 0:
        return open_items
    count = missing + (LENDERS if policy.honeypots else 0)
    queue = connection.execute(_QUEUE, {"reviewer": reviewer.id, "count": count}).all()
    candidates = queue[:missing]
    if not candidates:
        return open_items
    first = connection.execute(_GET_TURN, {"reviewer": reviewer.id}).scalar_one()
    disguise = read_disguise(connection)
    leased: list[str] = []
    taken: list[str] = []
    for turn in range(first, first + len(candidates)):
        candidate, honeypot = candidates[len(taken)], None
        if is_known_turn(policy.honeypots, disguise.secret, reviewer.id, turn):
            honeypot = choose_known_item(connection, disguise, _UNSEEN_HONEYPOTS, reviewer.id, turn, candidate.label)
        if honeypot is None or honeypot in leased:
            taken.append(candidate.id)
            leased.append(candidate.id)
        else:
            soon = [row.id for row in queue[len(taken) : len(taken) + LENDERS]]
            store_lender(connection, disguise.secret, honeypot, reviewer.id, turn, soon)
            leased.append(honeypot)
    connection.execute(_DROP_SEVERAL, {"reviewer": reviewer.id, "several": leased})
    rows = [
        {"item": item, "reviewer": reviewer.id, "turn": turn, "expires": expires, "live": True}
        for turn, item in enumerate(leased, first)
    ]
    connection.execute(_ADD_LEASES, rows)
    if taken:
        connection.execute(_COUNT_LEASES, {"several": taken})
    connection.execute(_SET_TURN, {"who": reviewer.id, "to": first + len(leased)})
    return list_open_items(connection, reviewer.id)


def grant_lease(connection: Connection, policy: Policy, item: str, reviewer: int, turn: int, expires: float) -> None:
    """Lease an item to a reviewer."""
    drop_lease(connection, item, reviewer)
    values = {"item": item, "reviewer": reviewer, "turn": turn, "expires": expires, "live": True}
    connection.execute(_ADD_LEASES, values)
    recount(connection, policy, item)


def return_item(
    connection: Connection, policy: Policy, item: str, reviewer: int, now: float, was_verdict: bool
) -> bool:
    """Lease an item to a reviewer again, before all others: the vote on it was undone.

    Args:
        was_verdict: True where that was a verdict, which has left its room; False where it was a skip.

    Returns:
        False where the item has, or others have it open for, all the votes that it needs; then it is not leased.
    """
    recount(connection, policy, item)
    row = connection.execute(_ROOM, {"item": item}).one()
    if not has_room(connection, row, reviewer) and not (was_verdict and row.kind == ItemKind.HONEYPOT):
        return False
    first = connection.execute(select(func.min(leases.c.turn)).where(leases.c.reviewer == reviewer)).scalar()
    grant_lease(connection, policy, item, reviewer, (first or 0) - 1, now + 60 * policy.lease_minutes)
    return True


def drop_lease(connection: Connection, item: str, reviewer: int) -> None:
    """End a reviewer's lease of an item. The caller calls `recount`."""
    connection.execute(_DROP, {"item": item, "reviewer": reviewer})


def release_items(connection: Connection, policy: Policy, reviewer: int) -> None:
    """End all leases of a reviewer."""
    statement = delete(leases).where(leases.c.reviewer == reviewer).returning(leases.c.item)
    for item in sorted(connection.execute(statement).scalars()):
        recount(connection, policy, item)
