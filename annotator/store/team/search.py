"""Items found by what they are and what was said of them, for admins and experts."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, func, or_, select

from rasura.annotator.store.database import items, standing
from rasura.annotator.store.enums import ItemKind, Task
from rasura.annotator.store.team.tables import corrections, details, rulings


@dataclass(frozen=True)
class ItemFilter:
    """Conditions that an item fulfils; those that are None are none.

    Attributes:
        text: part of the row's id, the item's id, the label, the remover or the flow.
        status: waiting, voted, ruled or corrected.
        verdict: that somebody gave, or an expert's.
        reviewer: id of one who judged it.
        task: a word of `Task`.
    """

    text: str | None = None
    status: str | None = None
    verdict: str | None = None
    reviewer: int | None = None
    task: str | None = None


_STATUS: dict[str, ColumnElement[bool]] = {
    "waiting": and_(items.c.votes < items.c.needed),
    "voted": and_(items.c.votes >= items.c.needed, items.c.votes > 0),
    "ruled": exists().where(rulings.c.item == items.c.id),
    "corrected": exists().where(corrections.c.item == items.c.id),
}
STATUSES = tuple(_STATUS)


def find_items(connection: Connection, wanted: ItemFilter, start: int, count: int) -> tuple[int, list[str]]:
    """Find candidates, and return the number of all and the ids of some, in the order of their rows."""
    conditions: list[ColumnElement[bool]] = [items.c.kind == ItemKind.CANDIDATE, ~items.c.withdrawn]
    if wanted.text:
        columns = (items.c.id, items.c.row_id, items.c.label, items.c.remover, items.c.flow)
        conditions.append(or_(*(column.contains(wanted.text, autoescape=True) for column in columns)))
    if wanted.status:
        conditions.append(_STATUS[wanted.status])
    if wanted.verdict:
        given = exists().where(standing.c.item == items.c.id, standing.c.verdict == wanted.verdict)
        conditions.append(given | exists().where(rulings.c.item == items.c.id, rulings.c.verdict == wanted.verdict))
    if wanted.reviewer is not None:
        conditions.append(exists().where(standing.c.item == items.c.id, standing.c.reviewer == wanted.reviewer))
    if wanted.task:
        conditions.append(exists().where(details.c.item == items.c.id, details.c.task == wanted.task))
    total = connection.execute(select(func.count()).select_from(items).where(*conditions)).scalar_one()
    statement = select(items.c.id).where(*conditions).order_by(items.c.row_id, items.c.id).offset(start).limit(count)
    return total, list(connection.execute(statement).scalars())


def read_tasks(connection: Connection, ids: list[str]) -> dict[str, Any]:
    """Read what is asked about items, by their ids."""
    statement = select(details.c.item, details.c.task).where(details.c.item.in_(ids))
    return {row[0]: row[1] for row in connection.execute(statement)}


def read_task(connection: Connection, item: str) -> Task:
    """Read what is asked about an item; about one without an entry, whether its object was removed."""
    return Task(read_tasks(connection, [item]).get(item, Task.REMOVAL))
