"""Leases: who has which items open. An item is never in more hands than it still needs votes."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, exists, func, insert, select, update

from rasura.annotator.store.database import items, leases, reviewers, standing
from rasura.annotator.store.enums import ItemKind
from rasura.annotator.store.policy import Policy, draw, is_honeypot_turn, needed
from rasura.annotator.store.reviewers import Reviewer

HELD = 12  # items that one reviewer can have open

# The statements that every call needs are built once: building them costs more than running them.
_judged = exists().where(standing.c.item == items.c.id, standing.c.reviewer == bindparam("reviewer"))
_opened = exists().where(leases.c.item == items.c.id, leases.c.reviewer == bindparam("reviewer"), leases.c.live)
_leases_of = select(func.count()).where(leases.c.item == bindparam("item"), leases.c.live).scalar_subquery()
_FACTS = select(items.c.kind, items.c.score, items.c.withdrawn, _leases_of.label("held")).where(
    items.c.id == bindparam("item")
)
_VERDICTS = select(standing.c.verdict).where(standing.c.item == bindparam("item"), standing.c.verdict.is_not(None))
_RECOUNTED = (
    update(items)
    .where(items.c.id == bindparam("of"))
    .values({name: bindparam(f"to_{name}") for name in ("needed", "votes", "leases", "free")})
)
_EXPIRED = (
    update(leases).where(leases.c.live, leases.c.expires < bindparam("now")).values(live=False).returning(leases.c.item)
)
_HELD = (
    select(items.c.id, items.c.label, items.c.dilation)
    .join(leases, leases.c.item == items.c.id)
    .where(leases.c.reviewer == bindparam("reviewer"), leases.c.live, ~items.c.withdrawn)
    .order_by(leases.c.turn)
)
_RENEWED = update(leases).where(leases.c.reviewer == bindparam("who"), leases.c.live).values(expires=bindparam("to"))
_QUEUE = (
    select(items.c.id)
    .where(items.c.free > 0, ~_judged, ~_opened)
    .order_by(items.c.priority, items.c.id)
    .limit(bindparam("count"))
)
_pot = (items.c.kind == ItemKind.HONEYPOT, ~items.c.withdrawn, ~_judged, ~_opened)
_POTS = [
    select(items.c.id).where(*_pot, part).order_by(items.c.id).limit(1)
    for part in (items.c.id >= bindparam("start"), items.c.id < bindparam("start"))
]
_DEALT = select(reviewers.c.dealt).where(reviewers.c.id == bindparam("reviewer"))
_SET_DEALT = update(reviewers).where(reviewers.c.id == bindparam("who")).values(dealt=bindparam("to"))
_DROP = delete(leases).where(leases.c.item == bindparam("item"), leases.c.reviewer == bindparam("reviewer"))
_DROP_SEVERAL = delete(leases).where(
    leases.c.reviewer == bindparam("reviewer"), leases.c.item.in_(bindparam("several", expanding=True))
)
_TAKE = insert(leases)
_TAKEN = (
    update(items)
    .where(items.c.id.in_(bindparam("several", expanding=True)))
    .values(leases=items.c.leases + 1, free=items.c.free - 1)
)


def recount(connection: Connection, policy: Policy, item: str) -> None:
    """Brings what the queue knows of a candidate in line with its votes and leases."""
    row = connection.execute(_FACTS, {"item": item}).one()
    if row.kind != ItemKind.CANDIDATE:
        return
    verdicts = list(connection.execute(_VERDICTS, {"item": item}).scalars())
    wanted = needed(policy, verdicts, row.score)
    free = 0 if row.withdrawn else max(0, wanted - len(verdicts) - row.held)
    values = {"of": item, "to_needed": wanted, "to_votes": len(verdicts), "to_leases": row.held, "to_free": free}
    connection.execute(_RECOUNTED, values)


def sweep(connection: Connection, policy: Policy, now: float) -> int:
    """Ends leases that have expired. Returns how many."""
    gone = list(connection.execute(_EXPIRED, {"now": now}).scalars())
    for item in sorted(set(gone)):
        recount(connection, policy, item)
    return len(gone)


def held(connection: Connection, reviewer: int) -> Sequence[Any]:
    """A reviewer's open items in the order in which they were dealt."""
    return connection.execute(_HELD, {"reviewer": reviewer}).all()


def next_items(connection: Connection, policy: Policy, who: Reviewer, want: int, now: float) -> Sequence[Any]:
    """The items that a reviewer has open, renewed, with new ones up to `want`; fewer where there are no more."""
    sweep(connection, policy, now)
    expires = now + 60 * policy.lease_minutes
    connection.execute(_RENEWED, {"who": who.id, "to": expires})
    mine = held(connection, who.id)
    missing = min(want, HELD) - len(mine)
    if missing <= 0:
        return mine
    candidates = list(connection.execute(_QUEUE, {"reviewer": who.id, "count": missing}).scalars())
    if not candidates:
        return mine
    first = connection.execute(_DEALT, {"reviewer": who.id}).scalar_one()
    dealt: list[str] = []
    taken: list[str] = []
    for turn in range(first, first + len(candidates)):
        pot = _honeypot(connection, policy, who.id, turn) if is_honeypot_turn(policy, who.id, turn) else None
        if pot is None or pot in dealt:
            taken.append(candidates[len(taken)])
            dealt.append(taken[-1])
        else:
            dealt.append(pot)
    connection.execute(_DROP_SEVERAL, {"reviewer": who.id, "several": dealt})
    rows = [
        {"item": item, "reviewer": who.id, "turn": turn, "expires": expires, "live": True}
        for turn, item in enumerate(dealt, first)
    ]
    connection.execute(_TAKE, rows)
    if taken:
        connection.execute(_TAKEN, {"several": taken})
    connection.execute(_SET_DEALT, {"who": who.id, "to": first + len(dealt)})
    return held(connection, who.id)


def _honeypot(connection: Connection, policy: Policy, reviewer: int, turn: int) -> str | None:
    """One that this reviewer has not seen, from a place in the order of ids that is drawn; round to the first."""
    start = f"{int(draw(policy.seed, 'pot', reviewer, turn) * 16**8):08x}"
    for statement in _POTS:
        if found := connection.execute(statement, {"reviewer": reviewer, "start": start}).scalar():
            return str(found)
    return None


def take(connection: Connection, policy: Policy, item: str, reviewer: int, turn: int, expires: float) -> None:
    """Gives a reviewer an item to hold."""
    drop(connection, item, reviewer)
    values = {"item": item, "reviewer": reviewer, "turn": turn, "expires": expires, "live": True}
    connection.execute(_TAKE, values)
    recount(connection, policy, item)


def take_back(connection: Connection, policy: Policy, item: str, reviewer: int, now: float) -> None:
    """Gives a reviewer an item again, before all others: the vote on it was taken back."""
    first = connection.execute(select(func.min(leases.c.turn)).where(leases.c.reviewer == reviewer)).scalar()
    take(connection, policy, item, reviewer, (first or 0) - 1, now + 60 * policy.lease_minutes)


def drop(connection: Connection, item: str, reviewer: int) -> None:
    """Takes an item out of a reviewer's hands; `recount` is the caller's."""
    connection.execute(_DROP, {"item": item, "reviewer": reviewer})


def release(connection: Connection, policy: Policy, reviewer: int) -> None:
    """Takes all items out of a reviewer's hands."""
    mine = delete(leases).where(leases.c.reviewer == reviewer).returning(leases.c.item)
    for item in sorted(connection.execute(mine).scalars()):
        recount(connection, policy, item)


def public(row: Any) -> Mapping[str, Any]:
    """What the page may know of an item before the vote: neither score nor remover, nor whether its answer is known."""
    return {"id": row.id, "label": row.label, "dilation": row.dilation or 0}
