"""What the admin page and the progress line show, from the log."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, select

from rasura.annotator.stats import agreement
from rasura.annotator.stats.accounting import account
from rasura.annotator.store.database import items, log, standing
from rasura.annotator.store.enums import Action, ItemKind
from rasura.annotator.store.reviewers import Reviewer, names
from rasura.annotator.store.vote_log import entries, flags, fold

BREAK_S = 120.0  # a longer gap between two votes is a break
RECENT = 40
BARS = 48  # of the plot of votes over time


def pace(times: Sequence[float]) -> float | None:
    """Votes an hour, from the times of the last ones; breaks are left out."""
    ordered = sorted(times)
    gaps = [after - before for before, after in pairwise(ordered) if after - before <= BREAK_S]
    return 3600 * len(gaps) / sum(gaps) if gaps and sum(gaps) > 0 else None


def mine(connection: Connection, who: Reviewer) -> dict[str, Any]:
    """A reviewer's own progress."""
    of = (standing.c.reviewer == who.id, standing.c.verdict.is_not(None))
    counted = connection.execute(select(standing.c.seq).where(*of)).all()
    recent = (
        select(log.c.time, log.c.seconds)
        .join(standing, standing.c.seq == log.c.seq)
        .where(standing.c.reviewer == who.id, log.c.action == Action.VOTE)
        .order_by(standing.c.seq.desc())
        .limit(RECENT)
    )
    rows = connection.execute(recent).all()
    seconds = sorted(row.seconds for row in rows if row.seconds is not None)
    median = seconds[len(seconds) // 2] if seconds else None
    return {"votes": len(counted), "per_hour": pace([row.time for row in rows]), "median_seconds": median}


def timeline(times: Sequence[float], bars: int = BARS) -> dict[str, Any]:
    """Counts in equal stretches from the first time to the last, at least a minute each."""
    if not times:
        return {"start": 0.0, "step": 60.0, "counts": []}
    start, end = min(times), max(times)
    step = next((s for s in (60, 300, 900, 3600, 3 * 3600, 86400) if (end - start) / s < bars), (end - start) / bars)
    counts = [0] * (int((end - start) / step) + 1)
    for time in times:
        counts[int((time - start) / step)] += 1
    return {"start": start, "step": float(step), "counts": counts}


def weights(connection: Connection, folded: Mapping[tuple[str, int], Any]) -> dict[int, float]:
    """Each reviewer's weight from the items with a known answer."""
    tally: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for who, verdict, expected in _known(connection, folded):
        tally[who][verdict != expected] += 1
    return {who: agreement.accuracy_weight(right, wrong) for who, (right, wrong) in tally.items()}


def _known(connection: Connection, folded: Mapping[tuple[str, int], Any]) -> list[tuple[int, str, str]]:
    pots = select(items.c.id, items.c.expected).where(items.c.kind == ItemKind.HONEYPOT)
    expected = {row.id: row.expected for row in connection.execute(pots)}
    return [
        (who, entry.verdict, expected[item])
        for (item, who), entry in folded.items()
        if item in expected and entry.verdict
    ]


def overview(connection: Connection, policy: Mapping[str, Any]) -> dict[str, Any]:
    """Everything on the admin page but the pictures."""
    every, people = entries(connection), names(connection)
    folded = fold(every)
    known: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for who, verdict, expected in _known(connection, folded):
        known[who].append((verdict, expected))
    pots = set(connection.execute(select(items.c.id).where(items.c.kind != ItemKind.CANDIDATE)).scalars())
    given = {key: entry for key, entry in folded.items() if entry.verdict and key[0] not in pots}
    votes = [(item, who, entry.verdict) for (item, who), entry in given.items()]
    of: dict[int, list[Any]] = defaultdict(list)
    for (_, who), entry in given.items():
        of[who].append(entry)
    reviewers = []
    for who, name in sorted(people.items(), key=lambda one: one[1].lower()):
        own = of[who]
        seconds = [entry.seconds for entry in own if entry.seconds is not None]
        found = agreement.habits([entry.verdict for entry in own], seconds, known[who])
        reviewers.append(
            {"id": who, "name": name, **vars(found), "yes_rate": found.yes_rate, "accuracy": found.accuracy,
             "per_hour": pace([entry.time for entry in own]),
             "last": max((entry.time for entry in own), default=None)}
        )  # fmt: skip
    by_item = agreement.by_item(votes)
    said = [agreement.consensus(verdicts) for verdicts in by_item.values()]
    return {
        "policy": policy,
        "account": {**vars(account(connection))},
        "reviewers": reviewers,
        "pairs": [vars(pair) for pair in agreement.pairs(votes)],
        "alpha": agreement.krippendorff_alpha(votes),
        "shared": sum(len(verdicts) > 1 for verdicts in by_item.values()),
        "consensus": Counter(one.verdict or "tie" for one in said),
        "reasons": Counter(entry.reason for entry in given.values() if entry.reason),
        "removers": _removers(connection, by_item),
        "timeline": timeline([entry.time for entry in given.values()]),
        "flags": len(flags(every)),
    }


def _removers(connection: Connection, by_item: Mapping[str, Mapping[int, str]]) -> list[dict[str, Any]]:
    tally: dict[str, Counter[str]] = defaultdict(Counter)
    of = items.c.kind == ItemKind.CANDIDATE
    for row in connection.execute(select(items.c.id, items.c.remover).where(of, items.c.votes > 0)):
        said = agreement.consensus(by_item.get(row.id, {})).verdict
        tally[row.remover or "unknown"][said or "tie"] += 1
    return [{"name": name, **counts} for name, counts in sorted(tally.items())]


def disputed(connection: Connection, start: int, count: int) -> dict[str, Any]:
    """Items on which votes differ, the closest first, with who said what."""
    people = names(connection)
    told: dict[str, list[Any]] = defaultdict(list)
    for (item, _), entry in fold(entries(connection)).items():
        if entry.verdict:
            told[item].append(entry)
    split = {item: votes for item, votes in told.items() if len({vote.verdict for vote in votes}) > 1}
    ordered = sorted(split, key=lambda item: (_lead(split[item]), item))
    return {"total": len(ordered), "items": _with_votes(connection, ordered[start : start + count], told, people)}


def flagged(connection: Connection, start: int, count: int) -> dict[str, Any]:
    """Items with a remark, the newest first."""
    people, every = names(connection), entries(connection)
    told: dict[str, list[Any]] = defaultdict(list)
    newest = sorted(flags(every).items(), key=lambda one: -one[1].seq)
    for (item, _), entry in newest:
        told[item].append(entry)
    for (item, _), entry in fold(every).items():
        if item in told and entry.verdict:
            told[item].append(entry)
    ordered = list(dict.fromkeys(item for (item, _), _ in newest))
    return {"total": len(ordered), "items": _with_votes(connection, ordered[start : start + count], told, people)}


def _lead(votes: Sequence[Any]) -> float:
    counts = Counter(vote.verdict for vote in votes)
    return counts.most_common(1)[0][1] / len(votes)


def _with_votes(
    connection: Connection, ids: Sequence[str], told: Mapping[str, Sequence[Any]], people: Mapping[int, str]
) -> list[dict[str, Any]]:
    rows = {row.id: row for row in connection.execute(select(items).where(items.c.id.in_(ids)))}
    found = []
    for row in (rows[id] for id in ids if id in rows):
        votes = [
            {"reviewer": people.get(vote.reviewer, "?"), "action": vote.action, "verdict": vote.verdict,
             "reason": vote.reason, "remark": vote.remark, "seconds": vote.seconds, "time": vote.time}
            for vote in told[row.id]
        ]  # fmt: skip
        facts = {name: getattr(row, name) for name in ("id", "row_id", "flow", "label", "remover", "score", "expected")}
        found.append({**facts, "votes": votes})
    return found
