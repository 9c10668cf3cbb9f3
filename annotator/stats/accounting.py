"""What has become of every candidate: voted, leased or waiting; and whether the queue's numbers follow from the log."""

from collections import Counter
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, case, func, select

from rasura.annotator.store.database import items, leases, standing
from rasura.annotator.store.enums import ItemKind
from rasura.annotator.store.vote_log import entries, fold


@dataclass(frozen=True)
class ReviewAccount:
    """candidates = voted + leased + waiting."""

    candidates: int
    voted: int  # have all the votes that they need
    leased: int  # need more, and somebody has them open
    waiting: int  # need more, and nobody has them open
    withdrawn: int  # the run no longer holds them; not among the candidates
    votes: int  # on candidates, withdrawn ones not counted

    @property
    def balanced(self) -> bool:
        """True when every candidate is accounted for."""
        return self.candidates == self.voted + self.leased + self.waiting


def account(connection: Connection) -> ReviewAccount:
    """The account of a review."""
    here = ~items.c.withdrawn
    done = items.c.votes >= items.c.needed

    def count(*conditions: ColumnElement[bool]) -> ColumnElement[int]:
        return func.coalesce(func.sum(case((and_(here, *conditions), 1), else_=0)), 0)

    statement = select(
        count(),
        count(done),
        count(~done, items.c.leases > 0),
        count(~done, items.c.leases <= 0),
        func.count() - count(),
        func.coalesce(func.sum(case((here, items.c.votes), else_=0)), 0),
    ).where(items.c.kind == ItemKind.CANDIDATE)
    return ReviewAccount(*connection.execute(statement).one())


def faults(connection: Connection) -> list[str]:
    """What does not add up; nothing where all is well."""
    found = []
    folded = fold(entries(connection))
    stands = {(row.item, row.reviewer): row for row in connection.execute(select(standing))}
    for key in sorted(set(folded) ^ set(stands)):
        found.append(f"item {key[0]}, reviewer {key[1]}: the log and the standing votes differ")
    for key in sorted(set(folded) & set(stands)):
        if folded[key].seq != stands[key].seq or folded[key].verdict != stands[key].verdict:
            found.append(
                f"item {key[0]}, reviewer {key[1]}: entry {folded[key].seq} counts, {stands[key].seq} is noted"
            )
    votes = Counter(item for (item, _), entry in folded.items() if entry.verdict)
    held = Counter(connection.execute(select(leases.c.item).where(leases.c.live)).scalars())
    for row in connection.execute(select(items).where(items.c.kind == ItemKind.CANDIDATE)):
        numbers = (row.votes, row.leases)
        if numbers != (votes[row.id], held[row.id]):
            found.append(
                f"item {row.id}: {numbers} votes and leases are noted, {votes[row.id], held[row.id]} are there"
            )
        if row.free != (0 if row.withdrawn else max(0, row.needed - row.votes - row.leases)):
            found.append(f"item {row.id}: {row.free} votes are said to be free of {row.needed}")
    counted = account(connection)
    if not counted.balanced:
        found.append(f"candidates do not add up: {counted}")
    return found
