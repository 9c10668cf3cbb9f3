"""Drawings of the ground on photographs: floors and horizons, in versions; the newest counts."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, func, insert, select

from rasura.annotator.store.reviewers import Reviewer
from rasura.annotator.store.team.tables import drawings, has_team_tables
from rasura.annotator.store.vote_log import VoteError


class NewerDrawing(VoteError):
    """Somebody else has drawn on the photograph meanwhile."""


def save_drawing(
    connection: Connection, author: Reviewer, photo: str, value: Mapping[str, Any] | None, based_on: int, now: float
) -> int:
    """Save the next version of a photograph's drawing, and return its number.

    Args:
        photo: its origin.
        value: as JSON, checked; None: none.
        based_on: number of the version that the author has seen; 0 where there was none.

    Raises:
        NewerDrawing: there is a newer one.
    """
    newest = connection.execute(select(func.max(drawings.c.version)).where(drawings.c.photo == photo)).scalar() or 0
    if newest != based_on:
        raise NewerDrawing(f"somebody has saved version {newest} of this drawing meanwhile; load it, and change that")
    text = None if value is None else json.dumps(value)
    values = {"time": now, "reviewer": author.id, "photo": photo, "version": newest + 1, "value": text}
    connection.execute(insert(drawings).values(**values))
    return int(newest) + 1


def read_drawings(connection: Connection) -> dict[str, tuple[int, Mapping[str, Any] | None]]:
    """Read the number and the contents of the newest version, by the photograph's origin."""
    if not has_team_tables(connection):
        return {}
    rows = connection.execute(select(drawings).order_by(drawings.c.version))
    return {row.photo: (row.version, json.loads(row.value) if row.value else None) for row in rows}
