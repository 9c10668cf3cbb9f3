"""Experts: their queue of flagged and disputed items, and their verdicts, which stand in place of all votes."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from rasura.annotator.store.database import items, log, standing
from rasura.annotator.store.enums import Action, ItemKind, Verdict
from rasura.annotator.store.leases import recount
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.reviewers import Reviewer
from rasura.annotator.store.team.tables import experts, has_team_tables, rulings
from rasura.annotator.store.vote_log import Submission, UnknownItem, WithdrawnItem, append_entry, find_earlier_entry


def is_expert(connection: Connection, reviewer: Reviewer) -> bool:
    """Return True for admins, and for those whom one of them made an expert."""
    statement = select(experts.c.reviewer).where(experts.c.reviewer == reviewer.id)
    return reviewer.admin or connection.execute(statement).first() is not None


def set_expert(connection: Connection, reviewer: int, on: bool) -> None:
    """Make a reviewer an expert, or none."""
    connection.execute(delete(experts).where(experts.c.reviewer == reviewer))
    if on:
        connection.execute(insert(experts).values(reviewer=reviewer))


def overrule(connection: Connection, policy: Policy, expert: Reviewer, submission: Submission, now: float) -> None:
    """Log an expert's verdict on an item, which counts in place of all votes; without a verdict the votes count again.

    Raises:
        UnknownItem: there is no such item.
        WithdrawnItem: the run no longer has it.
        ReusedNonce: the nonce is that of a different entry.
    """
    known = {"item": submission.item, "verdict": submission.verdict}
    if find_earlier_entry(connection, expert.id, submission.nonce, (Action.OVERRULE,), **known):
        return
    conditions = (items.c.id == submission.item, items.c.kind == ItemKind.CANDIDATE)
    item = connection.execute(select(items.c.withdrawn).where(*conditions)).first()
    if item is None:
        raise UnknownItem(f"there is no item {submission.item}")
    if item.withdrawn:
        raise WithdrawnItem("the run no longer has this item")
    seq = append_entry(connection, expert.id, submission, Action.OVERRULE, now)
    store_ruling(connection, submission.item, seq, expert.id, submission.verdict, submission.reason)
    recount(connection, policy, submission.item)


def store_ruling(
    connection: Connection, item: str, seq: int, reviewer: int, verdict: str | None, reason: str | None
) -> None:
    """Store the ruling that counts on an item; none without a verdict. The caller logs it and calls `recount`."""
    connection.execute(delete(rulings).where(rulings.c.item == item))
    if verdict:
        values = {"item": item, "seq": seq, "reviewer": reviewer, "verdict": verdict, "reason": reason}
        connection.execute(insert(rulings).values(**values))


def read_rulings(connection: Connection, ids: Collection[str] | None = None) -> dict[str, Any]:
    """Read the rulings on items, by their ids; on all where none is named."""
    if not has_team_tables(connection):
        return {}
    statement = select(rulings) if ids is None else select(rulings).where(rulings.c.item.in_(ids))
    return {row.item: row for row in connection.execute(statement)}


def list_expert_queue(connection: Connection) -> list[tuple[str, str]]:
    """List the items that wait for an expert, with the reason: "flag" first, then "disagreement" and "unsure".

    A flagged item waits until an expert has ruled on it after its last flag; one on which votes differ, or on which all
    who voted are unsure, until that has changed, or an expert has ruled.
    """
    ruled = read_rulings(connection)
    candidates = set(
        connection.execute(select(items.c.id).where(items.c.kind == ItemKind.CANDIDATE, ~items.c.withdrawn)).scalars()
    )
    flags: dict[tuple[str, int], Any] = {}
    for row in connection.execute(select(log).where(log.c.action == Action.FLAG).order_by(log.c.seq)):
        flags[row.item, row.reviewer] = row
    waiting = {}
    for (item, _), flag in sorted(flags.items(), key=lambda entry: entry[1].seq):
        if flag.remark and item in candidates and (item not in ruled or ruled[item].seq < flag.seq):
            waiting[item] = "flag"
    for item, why in find_disputed(connection).items():
        if item in candidates and item not in ruled:
            waiting.setdefault(item, why)
    return sorted(waiting.items(), key=lambda entry: (entry[1] != "flag", entry[0]))


def find_disputed(connection: Connection) -> dict[str, str]:
    """Find the items on which the verdicts that count differ, "disagreement", or where nobody is sure, "unsure"."""
    statement = select(standing.c.item, standing.c.verdict).where(standing.c.verdict.is_not(None)).distinct()
    verdicts: dict[str, set[str]] = {}
    for row in connection.execute(statement):
        verdicts.setdefault(row.item, set()).add(row.verdict)
    disputed = {item: "disagreement" for item, words in verdicts.items() if len(words) > 1}
    return disputed | {item: "unsure" for item, words in verdicts.items() if words == {str(Verdict.UNSURE)}}


def find_stored_faults(connection: Connection, logged: Mapping[str, Any]) -> Iterable[str]:
    """Compare the rulings that are stored with those of the log."""
    stored = read_rulings(connection)
    for item in sorted(set(stored) | set(logged)):
        if item not in stored or item not in logged or stored[item].seq != logged[item].seq:
            yield f"item {item}: the log and the ruling that is stored differ"
