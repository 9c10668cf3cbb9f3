"""What a program reads of a review, the same over the API and from its database: progress, votes, verdicts, masks."""

import base64
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, select

from rasura.annotator.exchange.vote_rows import ENTRY_COLUMNS, ITEM_COLUMNS
from rasura.annotator.exchange.votes_file import compute_verdicts
from rasura.annotator.stats.accounting import read_accounting
from rasura.annotator.stats.ratings import rate_removers
from rasura.annotator.store.database import items, log, reviewers
from rasura.annotator.store.reviewers import list_names
from rasura.annotator.store.team.corrections import list_corrections
from rasura.annotator.store.team.rankings import list_rankings

MOST_VOTES = 1000
"""Entries of the log in one answer."""


def view_progress(connection: Connection) -> dict[str, Any]:
    """Return the numbers of items that are voted, leased, waiting and not asked, and of votes."""
    return asdict(read_accounting(connection))


def view_votes(connection: Connection, after: int = 0, count: int = MOST_VOTES) -> list[dict[str, Any]]:
    """Return entries of the log after one, oldest first: the columns of a votes file."""
    entry, item = [log.c[name] for name in ENTRY_COLUMNS], [items.c[name] for name in ITEM_COLUMNS]
    statement = (
        select(log.c.item, reviewers.c.name.label("reviewer"), *entry, *item)
        .join(items, items.c.id == log.c.item)
        .join(reviewers, reviewers.c.id == log.c.reviewer)
        .where(log.c.seq > after)
        .order_by(log.c.seq)
        .limit(count)
    )
    return [dict(row._mapping) for row in connection.execute(statement)]


def view_verdicts(connection: Connection) -> list[dict[str, Any]]:
    """Return the verdict on each item that has a vote or a ruling: the columns of a verdicts file."""
    return compute_verdicts(connection)


def view_ratings(connection: Connection) -> list[dict[str, Any]]:
    """Return the ratings of the removers, the best first."""
    return [asdict(rating) for rating in rate_removers(list_rankings(connection))]


def view_corrections(connection: Connection) -> list[dict[str, Any]]:
    """Return the newest version of each corrected mask; `png` is a 1-bit PNG in base64."""
    names: Mapping[int, str] = list_names(connection)
    columns = ("item", "row_id", "flow", "part", "version", "width", "height", "steps", "time")
    return [
        {
            **{name: getattr(row, name) for name in columns},
            "reviewer": names.get(row.reviewer),
            "png": base64.b64encode(row.png).decode(),
        }
        for row in list_corrections(connection)
    ]
