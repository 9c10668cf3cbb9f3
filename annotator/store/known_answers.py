"""Items with a known answer, which nobody can tell from candidates by what a server sends.

They come at random turns, which a secret of the database decides: no turn says anything about the next. What they lack
of a candidate (score, dilation, others' votes) they borrow from one that comes soon in the reviewer's queue, since
scores follow its order; and they have the labels of the candidates whose turns they take. Where too few labels have
known answers for that, no item's label is shown.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    Select,
    String,
    Table,
    bindparam,
    delete,
    exists,
    insert,
    or_,
    select,
)

from rasura.annotator.store.database import SECRET, items, leases, meta, standing
from rasura.annotator.store.enums import ItemKind
from rasura.annotator.store.policy import draw_uniform
from rasura.annotator.store.team.tables import metadata

LABELS = "labels"
"""Key of the table `meta`."""
LABEL_COVERAGE = 0.9
"""Share of the candidates whose label an item with a known answer must have, for labels to be shown."""

_META = select(meta.c.key, meta.c.value).where(meta.c.key.in_((SECRET, LABELS)))
LENDERS = 12
"""Candidates at the head of a queue, the last half of which lends."""

lent = Table(  # the candidate from which a reviewer's item with a known answer borrows
    "lent",
    metadata,
    Column("item", String(32), primary_key=True),
    Column("reviewer", Integer, primary_key=True),
    Column("lender", String(32), nullable=False),
    sqlite_with_rowid=False,
)

_LENDER = (
    select(items.c.id, items.c.score, items.c.dilation)
    .join(lent, lent.c.lender == items.c.id)
    .where(lent.c.item == bindparam("item"), lent.c.reviewer == bindparam("reviewer"))
)
_LENDER_HAS_ROOM = (
    select(
        or_(
            items.c.free > 0,
            # what the reviewer has, or has given, of the lender takes no room from others
            *(
                exists().where(table.c.item == items.c.id, table.c.reviewer == bindparam("reviewer"), counts)
                for table, counts in ((standing, standing.c.verdict.is_not(None)), (leases, leases.c.live))
            ),
        )
    )
    .join(lent, lent.c.lender == items.c.id)
    .where(lent.c.item == bindparam("item"), lent.c.reviewer == bindparam("reviewer"))
)
_NO_LENDER = delete(lent).where(lent.c.item == bindparam("item"), lent.c.reviewer == bindparam("reviewer"))


class Disguise(NamedTuple):
    """What decides how items are shown. secret: of the database. has_labels: True where labels are shown."""

    secret: str
    has_labels: bool


def read_disguise(connection: Connection) -> Disguise:
    """Read what decides how items are shown."""
    values: Mapping[str, str] = {row.key: row.value for row in connection.execute(_META)}
    return Disguise(values[SECRET], values.get(LABELS) != "hidden")


def cover_labels(known: Iterable[str | None], candidates: Iterable[str | None]) -> bool:
    """Return True where items with a known answer can have the labels of the candidates, or there are no such items.

    Examples:
        >>> cover_labels(["car", "dog"], ["car", "dog", "car"]), cover_labels(["car"], ["dog"])
        (True, False)
    """
    labels, counts = set(known), Counter(candidates)
    covered = sum(count for label, count in counts.items() if label in labels)
    return not labels or covered >= LABEL_COVERAGE * counts.total()


def store_coverage(connection: Connection, is_covered: bool) -> None:
    """Store whether labels are shown."""
    connection.execute(delete(meta).where(meta.c.key == LABELS))
    connection.execute(insert(meta).values(key=LABELS, value="shown" if is_covered else "hidden"))


def is_known_turn(share: float, secret: str, reviewer: int, turn: int) -> bool:
    """Return True where a reviewer's item number `turn`, from 0, is to have a known answer, all with one chance."""
    return draw_uniform(secret, "turn", reviewer, turn) < share


def _draw_start(secret: str, *words: object) -> str:
    return f"{int(draw_uniform(secret, *words) * 16**8):08x}"


def choose_known_item(
    connection: Connection, disguise: Disguise, unseen: Select[Any], reviewer: int, turn: int, label: str | None
) -> str | None:
    """Choose an item with a known answer: the next in the order of ids after a random place, cyclic.

    Args:
        connection: to the database.
        disguise: how items are shown.
        unseen: ids of items with a known answer that the reviewer (parameter `reviewer`) has not judged or open.
        reviewer: who gets it.
        turn: the number of the item for the reviewer.
        label: of the candidate whose turn it takes.

    Returns:
        None where there is none with that label.
    """
    start = _draw_start(disguise.secret, "item", reviewer, turn)
    if disguise.has_labels:
        unseen = unseen.where(items.c.label.is_not_distinct_from(label))
    for part in (items.c.id >= start, items.c.id < start):
        statement = unseen.where(part).order_by(items.c.id).limit(1)
        if item := connection.execute(statement, {"reviewer": reviewer}).scalar():
            return str(item)
    return None


def store_lender(
    connection: Connection, secret: str, item: str, reviewer: int, turn: int, queue: Sequence[str]
) -> None:
    """Store the candidate from which an item with a known answer borrows.

    Args:
        connection: of the writer.
        secret: of the database.
        item: with a known answer.
        reviewer: who gets it.
        turn: the number of the item for the reviewer.
        queue: ids of the candidates that come next.
    """
    nearest = min(len(queue) - 1, LENDERS // 2)
    place = nearest + int(draw_uniform(secret, "lender", reviewer, turn) * (len(queue) - nearest))
    connection.execute(_NO_LENDER, {"item": item, "reviewer": reviewer})
    connection.execute(insert(lent).values(item=item, reviewer=reviewer, lender=queue[place]))


def _find_lender(connection: Connection, item: Any, reviewer: int) -> Any:
    """Find the row whose score, dilation and other votes are shown for an item: its own, but for a known answer."""
    if item.kind != ItemKind.HONEYPOT:
        return item
    return connection.execute(_LENDER, {"item": item.id, "reviewer": reviewer}).first()


def has_room(connection: Connection, item: Any, reviewer: int) -> bool:
    """Return True where an item that a reviewer has not open needs a vote; one with a known answer as its lender does.

    Args:
        connection: to the database.
        item: with id, kind and free.
        reviewer: who has not judged it.
    """
    if item.kind != ItemKind.HONEYPOT:
        return bool(item.free > 0)
    return connection.execute(_LENDER_HAS_ROOM, {"item": item.id, "reviewer": reviewer}).scalar() is not False


def describe_items(connection: Connection, rows: Sequence[Any], reviewer: int) -> list[dict[str, Any]]:
    """Describe items as a reviewer may see them: without score and remover, and without a sign that an answer is known.

    Args:
        connection: to the database.
        rows: with id, kind, label and dilation.
        reviewer: who sees them.
    """
    disguise, described = read_disguise(connection), []
    for row in rows:
        lender = _find_lender(connection, row, reviewer)
        dilation = 0 if lender is None else lender.dilation or 0
        described.append({"id": row.id, "label": row.label if disguise.has_labels else None, "dilation": dilation})
    return described


def lend_answer(connection: Connection, item: Any, reviewer: int) -> tuple[float | None, str]:
    """Find what is told of an item after the vote: its score, and the item whose other votes are counted."""
    lender = _find_lender(connection, item, reviewer)
    return (None, item.id) if lender is None else (lender.score, lender.id)
