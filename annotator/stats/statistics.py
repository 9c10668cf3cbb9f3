"""The figures of the admin page and of the progress line, from the log."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, select

from rasura.annotator.stats import agreement
from rasura.annotator.stats.accounting import read_accounting
from rasura.annotator.store.database import items, log, standing
from rasura.annotator.store.enums import Action, ItemKind
from rasura.annotator.store.reviewers import Reviewer, list_names
from rasura.annotator.store.vote_log import (
    ItemReviewer,
    LogEntry,
    collect_flags,
    fold_entries,
    fold_rulings,
    read_entries,
)

BREAK_S = 120.0
"""A longer time between two votes is a break."""
RECENT = 40
"""Number of last votes from which a reviewer's pace is computed."""
BARS = 48
"""Bars of the plot of votes over time, at most."""


def compute_pace(times: Sequence[float]) -> float | None:
    """Compute votes an hour from the times of votes; breaks do not count.

    Args:
        times: in seconds, in any order.

    Returns:
        None where there are no two votes without a break between them.

    Examples:
        >>> compute_pace([0.0, 10.0, 20.0])
        360.0
    """
    gaps = [after - before for before, after in pairwise(sorted(times)) if after - before <= BREAK_S]
    return 3600 * len(gaps) / sum(gaps) if gaps and sum(gaps) > 0 else None


def read_own_progress(connection: Connection, reviewer: Reviewer) -> dict[str, Any]:
    """Read a reviewer's own progress: votes, votes an hour, median seconds."""
    conditions = (standing.c.reviewer == reviewer.id, standing.c.verdict.is_not(None))
    votes = connection.execute(select(standing.c.seq).where(*conditions)).all()
    recent = (
        select(log.c.time, log.c.seconds)
        .join(standing, standing.c.seq == log.c.seq)
        .where(standing.c.reviewer == reviewer.id, log.c.action == Action.VOTE)
        .order_by(standing.c.seq.desc())
        .limit(RECENT)
    )
    rows = connection.execute(recent).all()
    seconds = sorted(row.seconds for row in rows if row.seconds is not None)
    median = seconds[len(seconds) // 2] if seconds else None
    return {"votes": len(votes), "per_hour": compute_pace([row.time for row in rows]), "median_seconds": median}


def build_timeline(times: Sequence[float], bars: int = BARS) -> dict[str, Any]:
    """Count votes in intervals of equal length from the first time to the last, at least a minute each.

    Examples:
        >>> build_timeline([0.0, 30.0, 90.0])
        {'start': 0.0, 'step': 60.0, 'counts': [2, 1]}
    """
    if not times:
        return {"start": 0.0, "step": 60.0, "counts": []}
    start, end = min(times), max(times)
    step = next((s for s in (60, 300, 900, 3600, 3 * 3600, 86400) if (end - start) / s < bars), (end - start) / bars)
    counts = [0] * (int((end - start) / step) + 1)
    for time in times:
        counts[int((time - start) / step)] += 1
    return {"start": start, "step": float(step), "counts": counts}


def compute_weights(connection: Connection, entries: Sequence[LogEntry]) -> dict[int, float]:
    """Compute each reviewer's weight from the answers on honeypots.

    Args:
        connection: to the database.
        entries: of the log.

    Returns:
        Reviewer -> weight, for those who have answered any.
    """
    tally: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for reviewer, verdict, expected in _list_answers(connection, entries):
        tally[reviewer][verdict != expected] += 1
    return {reviewer: agreement.compute_accuracy_weight(right, wrong) for reviewer, (right, wrong) in tally.items()}


def _list_answers(connection: Connection, entries: Sequence[LogEntry]) -> list[tuple[int, str, str]]:
    """List (reviewer, verdict, right answer) of each reviewer's first vote on each honeypot.

    Whoever is told the answer, or guesses it later, mends no record by an edit or an undo.
    """
    # imported votes can be on what is an example here
    honeypots = select(items.c.id, items.c.expected).where(items.c.kind != ItemKind.CANDIDATE)
    expected = {row.id: row.expected for row in connection.execute(honeypots)}
    first: dict[ItemReviewer, str] = {}
    for entry in entries:
        if entry.item in expected and entry.verdict and entry.action in (Action.VOTE, Action.EDIT):
            first.setdefault((entry.item, entry.reviewer), entry.verdict)
    return [(reviewer, verdict, expected[item]) for (item, reviewer), verdict in first.items()]


@dataclass(frozen=True)
class Figures:
    """What the admin page shows of the whole log.

    Attributes:
        overview: see `build_overview`.
        disputed: ids of the items on which votes differ, the most divided first.
        flagged: ids of the items with a remark, the newest first.
    """

    overview: dict[str, Any]
    disputed: list[str]
    flagged: list[str]


def build_figures(connection: Connection, policy: Mapping[str, Any]) -> Figures:
    """Build all that the admin page shows of the whole log, which is read once.

    Args:
        connection: to the database.
        policy: of the review, as JSON.
    """
    entries = read_entries(connection)
    newest = sorted(collect_flags(entries).values(), key=lambda entry: -entry.seq)
    flagged = list(dict.fromkeys(entry.item for entry in newest))
    return Figures(build_overview(connection, policy, entries), _find_disputed(entries), flagged)


def build_overview(
    connection: Connection, policy: Mapping[str, Any], entries: Sequence[LogEntry] | None = None
) -> dict[str, Any]:
    """Build the figures of the admin page.

    Args:
        connection: to the database.
        policy: of the review, as JSON.
        entries: of the log; read where they are not given.
    """
    entries = read_entries(connection) if entries is None else entries
    folded = fold_entries(entries)
    controls = set(connection.execute(select(items.c.id).where(items.c.kind != ItemKind.CANDIDATE)).scalars())
    on_candidates = {key: entry for key, entry in folded.items() if entry.verdict and key[0] not in controls}
    votes = [(item, reviewer, entry.verdict) for (item, reviewer), entry in on_candidates.items() if entry.verdict]
    by_item = agreement.group_by_item(votes)
    decided = {item: agreement.find_consensus(verdicts).verdict or "tie" for item, verdicts in by_item.items()}
    ruled = {item: str(entry.verdict) for item, entry in fold_rulings(entries).items()}
    return {
        "policy": policy,
        "account": asdict(read_accounting(connection)),
        "reviewers": _summarize_reviewers(connection, entries, on_candidates),
        "pairs": [_describe_pair(pair) for pair in agreement.compare_reviewers(votes)],
        "alpha": agreement.compute_krippendorff_alpha(votes),
        "shared": sum(len(verdicts) > 1 for verdicts in by_item.values()),
        "consensus": Counter({**decided, **ruled}.values()),
        "reasons": Counter(entry.reason for entry in on_candidates.values() if entry.reason),
        "removers": _count_by_remover(connection, by_item),
        "timeline": build_timeline([entry.time for entry in on_candidates.values()]),
        "flags": len(collect_flags(entries)),
    }


def _describe_pair(pair: agreement.ReviewerPair) -> dict[str, Any]:
    figures = {"items": pair.items, "agreed": pair.agreed, "kappa": pair.kappa}
    return {"one": pair.first, "other": pair.second, **figures}


def _summarize_reviewers(
    connection: Connection, log_entries: Sequence[LogEntry], on_candidates: Mapping[ItemReviewer, LogEntry]
) -> list[dict[str, Any]]:
    """Summarize the votes of each reviewer, sorted by name."""
    answers: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for reviewer, verdict, expected in _list_answers(connection, log_entries):
        answers[reviewer].append((verdict, expected))
    entries: dict[int, list[LogEntry]] = defaultdict(list)
    for (_, reviewer), entry in on_candidates.items():
        entries[reviewer].append(entry)
    summaries = []
    for reviewer, name in sorted(list_names(connection).items(), key=lambda row: row[1].lower()):
        votes = entries[reviewer]
        seconds = [entry.seconds for entry in votes if entry.seconds is not None]
        verdicts = [entry.verdict for entry in votes if entry.verdict]
        statistics = agreement.summarize_reviewer(verdicts, seconds, answers[reviewer])
        rates = {"yes_rate": statistics.yes_rate, "accuracy": statistics.accuracy}
        times = [entry.time for entry in votes]
        pace = {"per_hour": compute_pace(times), "last": max(times, default=None)}
        summaries.append({"id": reviewer, "name": name, **asdict(statistics), **rates, **pace})
    return summaries


def _count_by_remover(connection: Connection, by_item: Mapping[str, Mapping[int, str]]) -> list[dict[str, Any]]:
    tally: dict[str, Counter[str]] = defaultdict(Counter)
    conditions = (items.c.kind == ItemKind.CANDIDATE, items.c.votes > 0)
    for row in connection.execute(select(items.c.id, items.c.remover).where(*conditions)):
        verdict = agreement.find_consensus(by_item.get(row.id, {})).verdict
        tally[row.remover or "unknown"][verdict or "tie"] += 1
    return [{"name": name, **counts} for name, counts in sorted(tally.items())]


def _find_disputed(entries: Sequence[LogEntry]) -> list[str]:
    """Find the items on which votes differ, the most divided first."""
    votes: dict[str, list[LogEntry]] = defaultdict(list)
    for (item, _), entry in fold_entries(entries).items():
        if entry.verdict:
            votes[item].append(entry)
    disputed = {item: entries for item, entries in votes.items() if len({entry.verdict for entry in entries}) > 1}
    return sorted(disputed, key=lambda item: (_compute_lead(disputed[item]), item))


def list_items(connection: Connection, ids: Sequence[str], start: int, count: int, remarks: bool) -> dict[str, Any]:
    """List items of the admin page with their votes.

    Args:
        connection: to the database.
        ids: of all items, in order.
        start: items to skip.
        count: items to list.
        remarks: list remarks, too.
    """
    part = ids[start : start + count]
    entries = {
        item: [entry for entry in of_item if entry.verdict or remarks]
        for item, of_item in read_entries_of(connection, part).items()
    }
    return {"total": len(ids), "items": describe_items(connection, part, entries)}


def _compute_lead(votes: Sequence[LogEntry]) -> float:
    """Compute the share of the most frequent verdict."""
    counts = Counter(vote.verdict for vote in votes)
    return counts.most_common(1)[0][1] / len(votes)


def read_entries_of(connection: Connection, ids: Sequence[str]) -> dict[str, list[LogEntry]]:
    """Read the votes that count, the flags and the rulings on items, by item."""
    columns = [log.c[name] for name in LogEntry.__dataclass_fields__]
    statement = select(*columns).where(log.c.item.in_(ids)).order_by(log.c.seq)
    entries = [LogEntry(*row) for row in connection.execute(statement)]
    chosen = [*fold_entries(entries).values(), *collect_flags(entries).values(), *fold_rulings(entries).values()]
    by_item: dict[str, list[LogEntry]] = defaultdict(list)
    for entry in sorted(chosen, key=lambda entry: (entry.action != Action.FLAG, entry.seq)):
        by_item[entry.item].append(entry)
    return by_item


def describe_items(
    connection: Connection, ids: Sequence[str], entries: Mapping[str, Sequence[LogEntry]] | None = None
) -> list[dict[str, Any]]:
    """Describe items for admins and experts, with entries of the log: those that are given, or all that count."""
    if entries is None:
        entries = read_entries_of(connection, ids)
    names = list_names(connection)
    rows = {row.id: row for row in connection.execute(select(items).where(items.c.id.in_(ids)))}
    columns = ("id", "row_id", "flow", "label", "remover", "score", "expected")
    fields = ("action", "verdict", "reason", "remark", "seconds", "time")
    described = []
    for row in (rows[id] for id in ids if id in rows):
        votes = [
            {"reviewer": names.get(entry.reviewer, "?"), **{field: getattr(entry, field) for field in fields}}
            for entry in entries.get(row.id, ())
        ]
        described.append({**{column: getattr(row, column) for column in columns}, "votes": votes})
    return described
