"""The log of a review: every vote, edit, undo, skip and flag is one more entry, and none is ever changed.

The table `standing` has the entry that counts for each item and reviewer, at most one; it follows from the log
(`fold_entries`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, update

from rasura.annotator.store.database import items, leases, log, standing
from rasura.annotator.store.enums import HISTORY, Action, ItemKind, Verdict
from rasura.annotator.store.known_answers import has_room
from rasura.annotator.store.leases import drop_lease, recount, return_item
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.reviewers import Reviewer
from rasura.annotator.store.team.tables import experts

MAX_SECONDS = 3600.0
"""A longer time was a break."""


class VoteError(Exception):
    """A vote that cannot count:

    VoteError
    ├── UnknownItem    there is no such item, or it was never leased to this reviewer
    ├── WithdrawnItem  the run no longer has it
    ├── CompletedItem  it has all the votes it needs
    ├── ReusedNonce    the nonce belongs to another entry
    └── NothingToUndo  the reviewer has no vote that could be undone
    """


class UnknownItem(VoteError):
    pass


class WithdrawnItem(VoteError):
    pass


class CompletedItem(VoteError):
    pass


class ReusedNonce(VoteError):
    pass


class NothingToUndo(VoteError):
    pass


@dataclass(frozen=True)
class Submission:
    """A vote, skip or remark as a reviewer sends it.

    Attributes:
        item: id of the item.
        nonce: the sender's; the same one sent twice is one entry.
        verdict: None where the item is skipped.
        reason: of a no.
        remark: for the admin.
        seconds: from the picture to the answer.
        guidelines: hash of the guidelines that the reviewer saw.
        version: of this program.
    """

    item: str
    nonce: str
    verdict: str | None = None
    reason: str | None = None
    remark: str | None = None
    seconds: float | None = None
    guidelines: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry of the log; the fields are its columns.

    Attributes:
        seq: its number; the log is in this order.
        time: seconds since 1970.
        item: id of the item.
        reviewer: id of the reviewer.
        action: a word of `Action`.
        verdict: a word of `Verdict`; None for skips, undos and flags.
        reason: of a no, a word of `Reason`.
        remark: for the admin.
        seconds: from the picture to the answer.
        replaces: the entry that an edit, undo or skip is about.
        guidelines: hash of the guidelines that the reviewer saw.
        version: of the program that wrote the entry.
        nonce: the sender's.
    """

    seq: int
    time: float
    item: str
    reviewer: int
    action: str
    verdict: str | None
    reason: str | None
    remark: str | None
    seconds: float | None
    replaces: int | None
    guidelines: str | None
    version: str | None
    nonce: str


ItemReviewer = tuple[str, int]
"""Ids of an item and of a reviewer."""


_COLUMNS = [log.c[name] for name in LogEntry.__dataclass_fields__]
_BY_NONCE = select(*_COLUMNS).where(log.c.nonce == bindparam("nonce"))
_ADD_ENTRY = insert(log).returning(log.c.seq)
_ITEM = (
    select(items, standing.c.seq.label("old"), standing.c.verdict.label("old_verdict"), leases.c.live)
    .outerjoin(standing, and_(standing.c.item == items.c.id, standing.c.reviewer == bindparam("reviewer")))
    .outerjoin(leases, and_(leases.c.item == items.c.id, leases.c.reviewer == bindparam("reviewer")))
    .where(items.c.id == bindparam("item"), items.c.kind != ItemKind.EXAMPLE)
)
_ADD_STANDING = insert(standing).values(
    item=bindparam("of"), reviewer=bindparam("who"), seq=bindparam("to_seq"), verdict=bindparam("to_verdict")
)
_SET_STANDING = (
    update(standing)
    .where(standing.c.item == bindparam("of"), standing.c.reviewer == bindparam("who"))
    .values(seq=bindparam("to_seq"), verdict=bindparam("to_verdict"))
)
_OTHER_VERDICTS = (
    select(standing.c.verdict, func.count())
    .where(standing.c.item == bindparam("item"), standing.c.reviewer != bindparam("reviewer"))
    .where(standing.c.verdict.is_not(None))
    .group_by(standing.c.verdict)
)


def append_entry(
    connection: Connection,
    reviewer: int,
    submission: Submission,
    action: Action,
    now: float,
    replaces: int | None = None,
) -> int:
    """Append an entry to the log, and return its number."""
    seconds = None if submission.seconds is None else min(max(submission.seconds, 0.0), MAX_SECONDS)
    values = {
        "time": now,
        "item": submission.item,
        "reviewer": reviewer,
        "action": action,
        "verdict": submission.verdict,
        "reason": submission.reason,
        "remark": submission.remark,
        "seconds": seconds,
        "replaces": replaces,
        "guidelines": submission.guidelines,
        "version": submission.version,
        "nonce": submission.nonce,
    }
    return int(connection.execute(_ADD_ENTRY, values).scalar_one())


def find_earlier_entry(
    connection: Connection, reviewer: int, nonce: str, actions: Sequence[Action], **values: Any
) -> LogEntry | None:
    """Find the entry that a reviewer has sent with a nonce before; None where there is none.

    Args:
        connection: to the database.
        reviewer: id of the sender.
        nonce: of the request.
        actions: that the entry may have.
        values: of columns that the entry must have.

    Raises:
        UnknownItem: the nonce is another reviewer's.
        ReusedNonce: the nonce is that of a different entry.
    """
    row = connection.execute(_BY_NONCE, {"nonce": nonce}).first()
    if row is None:
        return None
    entry = LogEntry(*row)
    if entry.reviewer != reviewer:
        raise UnknownItem("this nonce is somebody else's; make another one")
    if entry.action not in actions or any(getattr(entry, name) != value for name, value in values.items()):
        raise ReusedNonce(f"this nonce was sent with something else (entry {entry.seq}); make another one")
    return entry


def _get_item(connection: Connection, item: str) -> Any:
    row = connection.execute(select(items).where(items.c.id == item, items.c.kind != ItemKind.EXAMPLE)).first()
    if row is None:
        raise UnknownItem(f"there is no item {item}")
    return row


def cast_vote(connection: Connection, policy: Policy, reviewer: Reviewer, submission: Submission, now: float) -> Any:
    """Log a vote or skip, which replaces an earlier one; the same nonce twice is one entry.

    Returns:
        The row of the item.

    Raises:
        UnknownItem: there is no such item, or it was not leased to the reviewer.
        WithdrawnItem: the run no longer has it.
        CompletedItem: the lease has expired, and the item has all the votes it needs.
        ReusedNonce: the nonce is that of a different entry.
    """
    actions = (Action.VOTE, Action.EDIT) if submission.verdict else (Action.SKIP,)
    if find_earlier_entry(
        connection, reviewer.id, submission.nonce, actions, item=submission.item, verdict=submission.verdict
    ):
        return _get_item(connection, submission.item)
    item = connection.execute(_ITEM, {"item": submission.item, "reviewer": reviewer.id}).first()
    if item is None:
        raise UnknownItem(f"there is no item {submission.item}")
    if item.withdrawn:
        raise WithdrawnItem("the run no longer has this item")
    if item.old is None and item.live is None:
        raise UnknownItem("this item was not given to you")
    counts = submission.verdict is not None and item.old_verdict is None
    if counts and not item.live and not has_room(connection, item, reviewer.id):
        raise CompletedItem("this item has all the votes it needs: your lease had expired, and others judged it")
    action = (Action.EDIT if item.old else Action.VOTE) if submission.verdict else Action.SKIP
    seq = append_entry(connection, reviewer.id, submission, action, now, item.old)
    values = {"of": submission.item, "who": reviewer.id, "to_seq": seq, "to_verdict": submission.verdict}
    connection.execute(_SET_STANDING if item.old else _ADD_STANDING, values)
    drop_lease(connection, submission.item, reviewer.id)
    recount(connection, policy, submission.item)
    return item


def undo_vote(
    connection: Connection, policy: Policy, reviewer: Reviewer, nonce: str, now: float, item: str | None = None
) -> tuple[Any, bool]:
    """Undo a reviewer's last vote or skip, or that on an item; the item is leased to the same reviewer again.

    Returns:
        The row of the item; and False where it needs no vote, so that it was not leased again.

    Raises:
        NothingToUndo: the reviewer has no vote, or none on that item.
        UnknownItem: the nonce is another reviewer's.
        ReusedNonce: the nonce is that of a different entry.
    """
    values = {"item": item} if item else {}
    if earlier := find_earlier_entry(connection, reviewer.id, nonce, (Action.UNDO,), **values):
        return _get_item(connection, earlier.item), is_open(connection, reviewer, earlier.item)
    conditions = [standing.c.reviewer == reviewer.id] + ([standing.c.item == item] if item else [])
    old = connection.execute(select(standing).where(*conditions).order_by(standing.c.seq.desc()).limit(1)).first()
    if old is None:
        raise NothingToUndo("there is no vote to take back")
    append_entry(connection, reviewer.id, Submission(old.item, nonce), Action.UNDO, now, old.seq)
    connection.execute(delete(standing).where(standing.c.seq == old.seq))
    is_leased = return_item(connection, policy, old.item, reviewer.id, now, old.verdict is not None)
    return _get_item(connection, old.item), is_leased


def flag_item(connection: Connection, reviewer: Reviewer, submission: Submission, now: float) -> None:
    """Log a remark for the admin on an item that the reviewer has open or has judged; an empty one withdraws it.

    Raises:
        UnknownItem: the item was not leased to the reviewer.
        ReusedNonce: the nonce is that of a different entry.
    """
    if find_earlier_entry(
        connection, reviewer.id, submission.nonce, (Action.FLAG,), item=submission.item, remark=submission.remark
    ):
        return
    if not may_view(connection, reviewer, submission.item):
        raise UnknownItem("this item was not given to you")
    append_entry(connection, reviewer.id, submission, Action.FLAG, now)


def is_open(connection: Connection, reviewer: Reviewer, item: str) -> bool:
    """Return True where a reviewer has an item open."""
    of_item = (leases.c.item == item, leases.c.reviewer == reviewer.id, leases.c.live)
    return connection.execute(select(leases.c.item).where(*of_item)).first() is not None


def may_view(connection: Connection, reviewer: Reviewer, item: str) -> bool:
    """Return True where a reviewer may view an item's pictures.

    Admins and experts may view all, everybody the guidelines' examples, and reviewers the items that they have open or
    have judged.
    """
    kind = connection.execute(select(items.c.kind).where(items.c.id == item)).scalar()
    if kind is None:
        return False
    if reviewer.admin or kind == ItemKind.EXAMPLE:
        return True
    if connection.execute(select(experts.c.reviewer).where(experts.c.reviewer == reviewer.id)).first():
        return True
    for table in (leases, standing):
        if connection.execute(
            select(table.c.item).where(table.c.item == item, table.c.reviewer == reviewer.id)
        ).first():
            return True
    return False


def read_history(connection: Connection, reviewer: Reviewer, count: int = HISTORY) -> Sequence[Any]:
    """Read a reviewer's last verdicts and skips that count, newest first."""
    statement = (
        select(
            log.c.seq,
            log.c.time,
            log.c.verdict,
            log.c.reason,
            log.c.remark,
            items.c.label,
            items.c.kind,
            items.c.id,
            items.c.dilation,
        )
        .join(standing, standing.c.seq == log.c.seq)
        .join(items, items.c.id == log.c.item)
        .where(standing.c.reviewer == reviewer.id, ~items.c.withdrawn)
        .order_by(standing.c.seq.desc())
        .limit(count)
    )
    return connection.execute(statement).all()


def count_other_verdicts(connection: Connection, item: str, reviewer: Reviewer) -> dict[str, int]:
    """Count the verdicts of other reviewers on an item."""
    return {row[0]: row[1] for row in connection.execute(_OTHER_VERDICTS, {"item": item, "reviewer": reviewer.id})}


def fold_entries(entries: Iterable[LogEntry]) -> dict[ItemReviewer, LogEntry]:
    """Find the entry that counts for each item and reviewer.

    Args:
        entries: of the log, in its order.
    """
    counting: dict[ItemReviewer, LogEntry] = {}
    for entry in entries:
        key = (entry.item, entry.reviewer)
        if entry.action in (Action.UNDO, Action.ASIDE):
            counting.pop(key, None)
        elif entry.action in (Action.VOTE, Action.EDIT, Action.SKIP, Action.RESTORE):
            counting[key] = entry
    return counting


def fold_rulings(entries: Iterable[LogEntry]) -> dict[str, LogEntry]:
    """Find the ruling of an expert on each item that has one.

    Args:
        entries: of the log, in its order.
    """
    rulings = {entry.item: entry for entry in entries if entry.action == Action.OVERRULE}
    return {item: entry for item, entry in rulings.items() if entry.verdict}


def collect_flags(entries: Iterable[LogEntry]) -> dict[ItemReviewer, LogEntry]:
    """Collect the last flag of each item and reviewer, where it has a remark."""
    flags = {(entry.item, entry.reviewer): entry for entry in entries if entry.action == Action.FLAG}
    return {key: entry for key, entry in flags.items() if entry.remark}


def read_entries(connection: Connection) -> list[LogEntry]:
    """Read the complete log, oldest entry first."""
    return [LogEntry(*row) for row in connection.execute(select(*_COLUMNS).order_by(log.c.seq))]


def list_verdicts(connection: Connection) -> list[tuple[str, int, str]]:
    """List the verdicts on candidates, (item, reviewer, verdict), from the log."""
    controls = set(connection.execute(select(items.c.id).where(items.c.kind != ItemKind.CANDIDATE)).scalars())
    return [
        (item, reviewer, entry.verdict)
        for (item, reviewer), entry in fold_entries(read_entries(connection)).items()
        if entry.verdict in tuple(Verdict) and item not in controls
    ]
