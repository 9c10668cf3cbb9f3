"""The people of a review, as an admin manages them: named, renamed, and what each may do."""

from typing import Any

from sqlalchemy import Connection, func, select, update

from rasura.annotator.store.database import log, reviewers, standing
from rasura.annotator.store.reviewers import BadName, check_distinct, check_name
from rasura.annotator.store.team.set_aside import list_set_aside
from rasura.annotator.store.team.tables import experts


def list_people(connection: Connection) -> list[dict[str, Any]]:
    """List all reviewers with what they may do, their votes that count, and those that are set aside."""
    votes = {
        row[0]: row[1]
        for row in connection.execute(
            select(standing.c.reviewer, func.count())
            .where(standing.c.verdict.is_not(None))
            .group_by(standing.c.reviewer)
        )
    }
    last = {
        row[0]: row[1]
        for row in connection.execute(select(log.c.reviewer, func.max(log.c.time)).group_by(log.c.reviewer))
    }
    expert = set(connection.execute(select(experts.c.reviewer)).scalars())
    aside: dict[int, int] = {}
    for row in list_set_aside(connection):
        aside[row.reviewer] = aside.get(row.reviewer, 0) + 1
    return [
        {
            "id": row.id,
            "name": row.name,
            "admin": row.admin,
            "expert": row.admin or row.id in expert,
            "active": row.token is not None,
            "votes": votes.get(row.id, 0),
            "set_aside": aside.get(row.id, 0),
            "last": last.get(row.id),
        }
        for row in connection.execute(select(reviewers).order_by(func.lower(reviewers.c.name)))
    ]


def get_name(connection: Connection, reviewer: int) -> str:
    """Return a reviewer's name.

    Raises:
        BadName: there is no such reviewer.
    """
    name = connection.execute(select(reviewers.c.name).where(reviewers.c.id == reviewer)).scalar()
    if name is None:
        raise BadName(f"there is no reviewer number {reviewer}")
    return str(name)


def rename_reviewer(connection: Connection, reviewer: int, name: str) -> str:
    """Give a reviewer another name; votes, link and sessions stay. Return the name.

    Raises:
        BadName: it is not allowed, or taken but for letters' case, or there is no such reviewer.
    """
    old, name = get_name(connection, reviewer), check_name(name)
    check_distinct(connection, name, reviewer)
    if name != old and connection.execute(select(reviewers.c.id).where(reviewers.c.name == name)).first():
        raise BadName(f"there is a reviewer '{name}' already")
    connection.execute(update(reviewers).where(reviewers.c.id == reviewer).values(name=name))
    return name


def count_admins(connection: Connection) -> int:
    """Count the admins who can sign in."""
    conditions = (reviewers.c.admin, reviewers.c.token.is_not(None))
    return connection.execute(select(func.count()).where(*conditions)).scalar_one()
