"""Rows that are to be judged first, as a program says that knows which verdicts it needs."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, func, insert, select, update

from rasura.annotator.store.database import items
from rasura.annotator.store.enums import ItemKind
from rasura.annotator.store.team.tables import pushed


def push_rows(connection: Connection, rows: Sequence[str]) -> list[str]:
    """Put the items of rows at the head of the queue, in this order, before what was pushed earlier.

    Args:
        rows: ids of rows of the run.

    Returns:
        Those that the queue does not have.
    """
    statement = select(items.c.row_id, items.c.id).where(
        items.c.row_id.in_(rows), items.c.kind == ItemKind.CANDIDATE, ~items.c.withdrawn
    )
    ids = {row[0]: row[1] for row in connection.execute(statement)}
    named = [ids[row] for row in dict.fromkeys(rows) if row in ids]
    if named:
        lowest = min(0.0, connection.execute(select(func.min(pushed.c.priority))).scalar() or 0.0)
        values = [{"item": id, "priority": lowest - len(named) + rank} for rank, id in enumerate(named)]
        connection.execute(delete(pushed).where(pushed.c.item.in_(named)))
        connection.execute(insert(pushed), values)
        for value in values:
            connection.execute(update(items).where(items.c.id == value["item"]).values(priority=value["priority"]))
    return [row for row in dict.fromkeys(rows) if row not in ids]
