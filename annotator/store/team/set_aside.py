"""All votes of a reviewer set aside, so that the items are dealt again, and brought back: entries of the log."""

import secrets
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from rasura.annotator.store.database import items, log, standing
from rasura.annotator.store.enums import Action
from rasura.annotator.store.leases import recount
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.reviewers import Reviewer
from rasura.annotator.store.vote_log import Submission, append_entry

EFFECTIVE = (Action.VOTE, Action.EDIT, Action.UNDO, Action.SKIP, Action.ASIDE, Action.RESTORE)
"""Entries that change whether a reviewer's verdict on an item counts."""
CHUNK = 200
"""Votes in one transaction, for which reviewers wait."""


def set_votes_aside(connection: Connection, policy: Policy, admin: Reviewer, reviewer: int, now: float) -> int:
    """Set some of the votes of a reviewer aside, the oldest first, and return how many; 0 when none is left."""
    conditions = (standing.c.reviewer == reviewer, standing.c.verdict.is_not(None))
    rows = connection.execute(select(standing).where(*conditions).order_by(standing.c.seq).limit(CHUNK)).all()
    for row in rows:
        submission = _make_entry(row.item, admin, None, None)
        append_entry(connection, reviewer, submission, Action.ASIDE, now, row.seq)
        connection.execute(delete(standing).where(standing.c.seq == row.seq))
        recount(connection, policy, row.item)
    return len(rows)


def restore_votes(connection: Connection, policy: Policy, admin: Reviewer, reviewer: int, now: float) -> int:
    """Bring some of a reviewer's votes back that were set aside, and return how many; 0 when none is left.

    Where the reviewer has judged the item again since, that verdict stays.
    """
    rows = list_set_aside(connection, reviewer)[:CHUNK]
    for row in rows:
        submission = _make_entry(row.item, admin, row.verdict, row.reason)
        seq = append_entry(connection, reviewer, submission, Action.RESTORE, now, row.seq)
        values = {"item": row.item, "reviewer": reviewer, "seq": seq, "verdict": row.verdict}
        connection.execute(insert(standing).values(**values))
        recount(connection, policy, row.item)
    return len(rows)


def list_set_aside(connection: Connection, reviewer: int | None = None) -> list[Any]:
    """List the votes that are set aside, of one reviewer or of all, as they were given.

    Returns:
        Rows of the log; none of items that the reviewer has judged or undone since, or that the run has lost.
    """
    of_reviewer = () if reviewer is None else (log.c.reviewer == reviewer,)
    last = (
        select(func.max(log.c.seq))
        .where(log.c.action.in_(EFFECTIVE), *of_reviewer)
        .group_by(log.c.item, log.c.reviewer)
    )
    aside = log.alias("aside")
    statement = (
        select(log)
        .join(aside, aside.c.replaces == log.c.seq)
        .join(items, items.c.id == log.c.item)
        .where(aside.c.seq.in_(last), aside.c.action == Action.ASIDE, ~items.c.withdrawn)
        .order_by(log.c.seq)
    )
    return list(connection.execute(statement))


def _make_entry(item: str, admin: Reviewer, verdict: str | None, reason: str | None) -> Submission:
    return Submission(item, secrets.token_urlsafe(18), verdict, reason, remark=f"by {admin.name}")
