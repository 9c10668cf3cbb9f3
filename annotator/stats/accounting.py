"""The accounting of a review: candidates are voted, leased, waiting or not asked; and checks of queue against log."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, exists, func, select

from rasura.annotator.store.database import items, leases, standing
from rasura.annotator.store.enums import ItemKind
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.reviewers import count_active
from rasura.annotator.store.team.rulings import find_stored_faults
from rasura.annotator.store.team.tables import has_team_tables, rulings
from rasura.annotator.store.vote_log import fold_entries, fold_rulings, read_entries
from rasura.manifests.spelling import format_count


@dataclass(frozen=True)
class ReviewAccounting:
    """The numbers of candidates: candidates = voted + leased + waiting + not asked.

    Attributes:
        candidates: without the withdrawn ones.
        voted: have all the votes that they need.
        leased: need more, and a reviewer has them open.
        waiting: need more, and nobody has them open.
        withdrawn: the run no longer has them.
        votes: on candidates, without those on withdrawn ones.
        not_asked: need none, where candidates of a scene are asked in turn: their turn may come, or never.
    """

    candidates: int
    voted: int
    leased: int
    waiting: int
    withdrawn: int
    votes: int
    not_asked: int = 0

    @property
    def balances(self) -> bool:
        """True where every candidate is accounted for."""
        return self.candidates == self.voted + self.leased + self.waiting + self.not_asked

    def __str__(self) -> str:
        candidates, votes = format_count(self.candidates, "candidate"), format_count(self.votes, "vote")
        rest = f" + {self.not_asked} not asked" if self.not_asked else ""
        return f"{candidates} = {self.voted} voted + {self.leased} leased + {self.waiting} waiting{rest}; {votes}"


def read_accounting(connection: Connection) -> ReviewAccounting:
    """Read the accounting of a review."""
    active = ~items.c.withdrawn
    asked = (items.c.needed > 0) | (items.c.votes > 0)
    if has_team_tables(connection):
        asked |= exists().where(rulings.c.item == items.c.id)
    done = items.c.votes >= items.c.needed

    def count(*conditions: ColumnElement[bool]) -> ColumnElement[int]:
        return func.coalesce(func.sum(case((and_(active, *conditions), 1), else_=0)), 0)

    statement = select(
        count(),
        count(asked, done),
        count(~done, items.c.leases > 0),
        count(~done, items.c.leases <= 0),
        func.count() - count(),
        func.coalesce(func.sum(case((active, items.c.votes), else_=0)), 0),
        count(~asked),
    ).where(items.c.kind == ItemKind.CANDIDATE)
    return ReviewAccounting(*connection.execute(statement).one())


@dataclass(frozen=True)
class TeamProgress:
    """What every reviewer may know of the progress: votes on items with a known answer count in it like all others.

    No number of it depends on what an item is, or on who has one open: who watches them while voting learns nothing.

    Attributes:
        verdicts: by everybody.
        total: verdicts in all, an estimate from the settings, which votes change only once there are more of them.
        is_limit: more are not expected, where candidates of a scene are asked in turn; fewer may be.
        finished: every candidate has the votes that it needs.
        alone: nobody else can sign in.
    """

    verdicts: int
    total: int
    is_limit: bool
    finished: bool
    alone: bool


def read_team_progress(connection: Connection, policy: Policy) -> TeamProgress:
    """Read what every reviewer may know of the progress."""
    active = ~items.c.withdrawn
    candidate, known = (and_(active, items.c.kind == kind) for kind in (ItemKind.CANDIDATE, ItemKind.HONEYPOT))
    near = func.abs(items.c.score - policy.threshold) <= policy.near + 1e-9
    base = case((near, max(policy.votes, policy.near_votes)), else_=policy.votes)

    def add(value: Any, *conditions: ColumnElement[bool]) -> ColumnElement[int]:
        return func.coalesce(func.sum(case((and_(*conditions), value), else_=0)), 0)

    statement = select(
        add(items.c.votes, candidate | known),
        add(base, candidate),
        add(1, known),
        add(1, candidate, items.c.votes < items.c.needed),
    )
    verdicts, asked, answers, open_items = map(int, connection.execute(statement).one())
    people = count_active(connection)
    answers = min(round(asked * policy.honeypots / (1 - policy.honeypots)), answers * people)
    is_limit = policy.order == "best_first"
    return TeamProgress(verdicts, max(verdicts, asked + answers), is_limit, not open_items, people <= 1)


def find_faults(connection: Connection) -> list[str]:
    """Compare the standing votes and the queue's counts with the log.

    Returns:
        A text for each difference; none where all is well.
    """
    faults: list[str] = []
    entries = read_entries(connection)
    counting = fold_entries(entries)
    faults += find_stored_faults(connection, fold_rulings(entries))
    stored = {(row.item, row.reviewer): row for row in connection.execute(select(standing))}
    for item, reviewer in sorted(set(counting) ^ set(stored)):
        faults.append(f"item {item}, reviewer {reviewer}: the log and the standing votes differ")
    for key in sorted(set(counting) & set(stored)):
        if counting[key].seq != stored[key].seq or counting[key].verdict != stored[key].verdict:
            faults.append(
                f"item {key[0]}, reviewer {key[1]}: entry {counting[key].seq} counts, {stored[key].seq} is stored"
            )
    votes = Counter(item for (item, _), entry in counting.items() if entry.verdict)
    live_leases = Counter(connection.execute(select(leases.c.item).where(leases.c.live)).scalars())
    for row in connection.execute(select(items).where(items.c.kind == ItemKind.CANDIDATE)):
        actual = (votes[row.id], live_leases[row.id])
        if (row.votes, row.leases) != actual:
            faults.append(f"item {row.id}: {(row.votes, row.leases)} votes and leases are stored, there are {actual}")
        if row.free != (0 if row.withdrawn else max(0, row.needed - row.votes - row.leases)):
            faults.append(f"item {row.id}: {row.free} of {row.needed} votes are stored as free")
    accounting = read_accounting(connection)
    if not accounting.balances:
        faults.append(f"candidates do not add up: {accounting}")
    return faults
