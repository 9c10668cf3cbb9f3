"""What reviewers say: every vote, edit, undo, skip and flag is one more entry of a log that only grows.

`standing` holds the entry that counts for each item and reviewer, at most one; it follows from the log (`fold`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, update

from rasura.annotator.store.database import items, leases, log, standing
from rasura.annotator.store.enums import HISTORY, Action, ItemKind, Verdict
from rasura.annotator.store.leases import drop, recount, take_back
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.reviewers import Reviewer

MAX_SECONDS = 3600.0  # a longer look was a break


class Refused(Exception):
    """A vote that cannot count:

    Refused
    ├── UnknownItem    there is no such item, or it was never dealt to this reviewer
    ├── Withdrawn      the run no longer holds it
    ├── Taken          it has all the votes it needs
    ├── NonceUsed      the nonce stands for another entry
    └── NothingToUndo  the reviewer has no vote that could be taken back
    """


class UnknownItem(Refused):
    pass


class Withdrawn(Refused):
    pass


class Taken(Refused):
    pass


class NonceUsed(Refused):
    pass


class NothingToUndo(Refused):
    pass


@dataclass(frozen=True)
class Entry:
    """What a reviewer sends."""

    item: str
    nonce: str
    verdict: str | None = None  # None: skip
    reason: str | None = None
    remark: str | None = None
    seconds: float | None = None
    guidelines: str | None = None
    version: str | None = None


_SENT = select(log).where(log.c.nonce == bindparam("nonce"))
_LOG = insert(log).returning(log.c.seq)
_ITEM = (
    select(items, standing.c.seq.label("old"), standing.c.verdict.label("old_verdict"), leases.c.live)
    .outerjoin(standing, and_(standing.c.item == items.c.id, standing.c.reviewer == bindparam("reviewer")))
    .outerjoin(leases, and_(leases.c.item == items.c.id, leases.c.reviewer == bindparam("reviewer")))
    .where(items.c.id == bindparam("item"), items.c.kind != ItemKind.EXAMPLE)
)
_STAND = insert(standing).values(
    item=bindparam("of"), reviewer=bindparam("who"), seq=bindparam("to_seq"), verdict=bindparam("to_verdict")
)
_RESTAND = (
    update(standing)
    .where(standing.c.item == bindparam("of"), standing.c.reviewer == bindparam("who"))
    .values(seq=bindparam("to_seq"), verdict=bindparam("to_verdict"))
)
_OTHERS = (
    select(standing.c.verdict, func.count())
    .where(standing.c.item == bindparam("item"), standing.c.reviewer != bindparam("reviewer"))
    .where(standing.c.verdict.is_not(None))
    .group_by(standing.c.verdict)
)


def _append(
    connection: Connection, who: int, entry: Entry, action: Action, now: float, replaces: int | None = None
) -> int:
    seconds = None if entry.seconds is None else min(max(entry.seconds, 0.0), MAX_SECONDS)
    values = {
        "time": now, "item": entry.item, "reviewer": who, "action": action, "verdict": entry.verdict,
        "reason": entry.reason, "remark": entry.remark, "seconds": seconds, "replaces": replaces,
        "guidelines": entry.guidelines, "version": entry.version, "nonce": entry.nonce,
    }  # fmt: skip
    return int(connection.execute(_LOG, values).scalar_one())


def sent_before(connection: Connection, who: int, nonce: str, actions: Sequence[Action], **same: Any) -> Any:
    """The log's entry that this reviewer sent under this nonce; None where there is none.

    Args:
        actions: what it may have been noted as.
        same: values that it must have.

    Raises:
        UnknownItem: another reviewer's nonce.
        NonceUsed: the nonce of something else, which must not pass for what is sent now.
    """
    found = connection.execute(_SENT, {"nonce": nonce}).first()
    if found is not None and found.reviewer != who:
        raise UnknownItem("this nonce is somebody else's; make another one")
    if found is not None and (
        found.action not in actions or any(getattr(found, name) != value for name, value in same.items())
    ):
        raise NonceUsed(f"this nonce was sent with something else (entry {found.seq}); make another one")
    return found


def _item(connection: Connection, item: str) -> Any:
    found = connection.execute(select(items).where(items.c.id == item, items.c.kind != ItemKind.EXAMPLE)).first()
    if found is None:
        raise UnknownItem(f"there is no item {item}")
    return found


def cast(connection: Connection, policy: Policy, who: Reviewer, entry: Entry, now: float) -> Any:
    """Notes a vote or skip, or a new one in place of an old one; the same nonce twice is one entry.

    Returns:
        The item.

    Raises:
        UnknownItem, Withdrawn, Taken, NonceUsed
    """
    noted = (Action.VOTE, Action.EDIT) if entry.verdict else (Action.SKIP,)
    if sent_before(connection, who.id, entry.nonce, noted, item=entry.item, verdict=entry.verdict):
        return _item(connection, entry.item)
    item = connection.execute(_ITEM, {"item": entry.item, "reviewer": who.id}).first()
    if item is None:
        raise UnknownItem(f"there is no item {entry.item}")
    if item.withdrawn:
        raise Withdrawn("the run no longer holds this item")
    if item.old is None and item.live is None:
        raise UnknownItem("this item was not dealt to you")
    counts = entry.verdict is not None and item.old_verdict is None
    if counts and not item.live and item.kind == ItemKind.CANDIDATE and item.free <= 0:
        raise Taken("this item has all the votes it needs: your lease had expired, and others judged it")
    action = (Action.EDIT if item.old else Action.VOTE) if entry.verdict else Action.SKIP
    seq = _append(connection, who.id, entry, action, now, item.old)
    values = {"of": entry.item, "who": who.id, "to_seq": seq, "to_verdict": entry.verdict}
    connection.execute(_RESTAND if item.old else _STAND, values)
    drop(connection, entry.item, who.id)
    recount(connection, policy, entry.item)
    return item


def undo(connection: Connection, policy: Policy, who: Reviewer, nonce: str, now: float, item: str | None = None) -> Any:
    """Takes back a reviewer's last vote or skip, or that on an item; the item is dealt to the same reviewer again.

    Returns:
        The item.

    Raises:
        NothingToUndo, UnknownItem, NonceUsed
    """
    same = {"item": item} if item else {}
    if before := sent_before(connection, who.id, nonce, (Action.UNDO,), **same):
        return _item(connection, before.item)
    mine = [standing.c.reviewer == who.id] + ([standing.c.item == item] if item else [])
    old = connection.execute(select(standing).where(*mine).order_by(standing.c.seq.desc()).limit(1)).first()
    if old is None:
        raise NothingToUndo("there is no vote to take back")
    _append(connection, who.id, Entry(old.item, nonce), Action.UNDO, now, old.seq)
    connection.execute(delete(standing).where(standing.c.seq == old.seq))
    take_back(connection, policy, old.item, who.id, now)
    return _item(connection, old.item)


def flag(connection: Connection, who: Reviewer, entry: Entry, now: float) -> None:
    """Notes a remark for the admin on an item that the reviewer has open or has judged; an empty one takes it back.

    Raises:
        UnknownItem
    """
    if sent_before(connection, who.id, entry.nonce, (Action.FLAG,), item=entry.item, remark=entry.remark):
        return
    if not may_see(connection, who, entry.item):
        raise UnknownItem("this item was not dealt to you")
    _append(connection, who.id, entry, Action.FLAG, now)


def may_see(connection: Connection, who: Reviewer, item: str) -> bool:
    """Whether a reviewer may look at an item's pictures: admins at all, others at what they hold or have judged, and
    everybody at the guidelines' examples."""
    kind = connection.execute(select(items.c.kind).where(items.c.id == item)).scalar()
    if kind is None:
        return False
    if who.admin or kind == ItemKind.EXAMPLE:
        return True
    for table in (leases, standing):
        if connection.execute(select(table.c.item).where(table.c.item == item, table.c.reviewer == who.id)).first():
            return True
    return False


def history(connection: Connection, who: Reviewer, count: int = HISTORY) -> list[Mapping[str, Any]]:
    """A reviewer's last verdicts and skips that stand, newest first."""
    statement = (
        select(log.c.seq, log.c.time, log.c.verdict, log.c.reason, log.c.remark, items.c.label, items.c.id,
               items.c.dilation)
        .join(standing, standing.c.seq == log.c.seq)
        .join(items, items.c.id == log.c.item)
        .where(standing.c.reviewer == who.id, ~items.c.withdrawn)
        .order_by(standing.c.seq.desc())
        .limit(count)
    )  # fmt: skip
    return [dict(row._mapping) for row in connection.execute(statement)]


def others(connection: Connection, item: str, who: Reviewer) -> dict[str, int]:
    """How many others say what of an item."""
    return {row[0]: row[1] for row in connection.execute(_OTHERS, {"item": item, "reviewer": who.id})}


def fold(entries: Iterable[Any]) -> dict[tuple[str, int], Any]:
    """The entry that stands for each (item, reviewer), from the log in its order."""
    found: dict[tuple[str, int], Any] = {}
    for entry in entries:
        key = (entry.item, entry.reviewer)
        if entry.action == Action.UNDO:
            found.pop(key, None)
        elif entry.action != Action.FLAG:
            found[key] = entry
    return found


def flags(entries: Iterable[Any]) -> dict[tuple[str, int], Any]:
    """The last flag of each (item, reviewer) that has a remark."""
    found = {(entry.item, entry.reviewer): entry for entry in entries if entry.action == Action.FLAG}
    return {key: entry for key, entry in found.items() if entry.remark}


def entries(connection: Connection) -> list[Any]:
    """The whole log, oldest first."""
    return list(connection.execute(select(log).order_by(log.c.seq)))


def verdicts(connection: Connection) -> list[tuple[str, int, str]]:
    """Verdicts on candidates, (item, reviewer, verdict), from the log."""
    pots = set(connection.execute(select(items.c.id).where(items.c.kind != ItemKind.CANDIDATE)).scalars())
    return [
        (item, reviewer, entry.verdict)
        for (item, reviewer), entry in fold(entries(connection)).items()
        if entry.verdict in tuple(Verdict) and item not in pots
    ]
