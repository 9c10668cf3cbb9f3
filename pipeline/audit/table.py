"""The table of an audit: a row for each input, worst first, with its outcome, its reason, and what was measured."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rasura.manifests.safety.text import escape_controls
from rasura.manifests.spelling import format_count
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.run.accounting import read_passed_over
from rasura.stages.curation.duplicates import find_near_fingerprints, find_split_leaks
from rasura.stages.curation.faults import LIMITS, Fault, Limit, find_faults
from rasura.stages.curation.repair import UNTOUCHED
from rasura.stages.sources.listing import describe_counts

Outcome = Literal["unreadable", "faulty", "doubtful", "good"]
ORDER: Mapping[Outcome, int] = {"unreadable": 0, "faulty": 1, "doubtful": 2, "good": 3}
LEAK = "near-duplicate in another split"
LIGHT_COLUMNS = (
    *("id", "origin", "split", "inspect_verdict", "inspect_fingerprint", "inspect_exact"),
    *dict.fromkeys(limit.column for limit in LIMITS),
)
MEASURES = tuple(dict.fromkeys(limit.column for limit in LIMITS))
HEAD = ("origin", "split", "outcome", "reason", "all_reasons", "repair", "severity", "id")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters by which a spreadsheet takes a text for a formula."""
UNREPAIRABLE_SEVERITY = 1000.0
"""Added to rows that cannot be mended: they come first."""


@dataclass
class AuditRow:
    """One input of an audit.

    Attributes:
        id, origin, split: of the row.
        outcome: unreadable (no source could load it), faulty, doubtful or good.
        reasons: all that is wrong, a phrase with its value each; the first is why it is listed.
        repairs: what can mend it; empty where nothing has to be mended.
        is_repairable: nothing is wrong that cannot be mended.
        severity: by which rows are ordered, more is worse.
        done: with `--repair`: untouched, repaired or left out.
        place: flow, shard and row of the table that has its strip of pictures.
        measures: by column.
    """

    id: str
    origin: str
    split: str
    outcome: Outcome
    reasons: list[str]
    repairs: list[str]
    is_repairable: bool
    severity: float
    done: str = ""
    place: tuple[str, str, int] | None = None
    measures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """The phrase of the first reason, without its value."""
        return self.reasons[0].partition(": ")[0] if self.reasons else ""


@dataclass
class AuditTable:
    """All rows of an audit.

    Attributes:
        rows: the worst first.
        passed_over: how many files are in no row, by the reason.
    """

    rows: list[AuditRow]
    passed_over: Mapping[str, int] = field(default_factory=dict)

    def count(self, attribute: str = "outcome") -> Counter[str]:
        """Count the rows by an attribute: outcome, reason or done."""
        return Counter(str(getattr(row, attribute)) for row in self.rows)

    def describe(self) -> Iterator[str]:
        """Yield the lines of the printed summary."""
        outcomes = self.count()
        parts = ", ".join(f"{outcomes[name]} {name}" for name in ORDER if outcomes[name])
        yield f"{format_count(len(self.rows), 'row')}: {parts or 'nothing'}"
        for outcome in ("unreadable", "faulty", "doubtful"):
            reasons = Counter(row.reason for row in self.rows if row.outcome == outcome)
            for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
                example = next(row for row in self.rows if (row.outcome, row.reason) == (outcome, reason))
                yield f"  {count:>6}  {outcome:<10}  {reason} (such as {example.origin}: {example.reasons[0]})"
        done = self.count("done")
        if total := sum(done[name] for name in ("repaired", "untouched", "left out")):
            yield (
                f"repaired {done['repaired']} + untouched {done['untouched']} + left out {done['left out']} "
                f"= {total} in"
            )
        if text := self.describe_passed_over():
            yield text

    def describe_passed_over(self) -> str:
        """Describe the files that are in no row; empty where there are none."""
        if not self.passed_over:
            return ""
        number = format_count(sum(self.passed_over.values()), "file")
        return (
            f"{number} passed over, in no row: {describe_counts(self.passed_over)}; where they are pairs, too, audit "
            "them with --param or --source"
        )


def judge(row: Mapping[str, Any], limits: Sequence[Limit]) -> tuple[Outcome, list[str], list[str], bool, float]:
    """Judge a row of `inspect`: its outcome, reasons, repairs, whether these suffice, and its severity."""
    faults = find_faults(row, limits)
    hard = [fault for fault in faults if fault.limit.level == "fault"]
    reasons = [fault.describe() for fault in faults]
    repairs: list[str] = sorted({fault.limit.repair for fault in hard if fault.limit.repair})
    if row.get("inspect_verdict"):
        return "faulty", [str(row["inspect_verdict"]), *reasons], [], False, UNREPAIRABLE_SEVERITY
    unrepairable = [fault for fault in hard if fault.limit.repair is None]
    if unrepairable:  # what leaves a row out is named first
        ordered = [*unrepairable, *(fault for fault in faults if fault not in unrepairable)]
        severity = UNREPAIRABLE_SEVERITY + _measure_severity(unrepairable)
        return "faulty", [fault.describe() for fault in ordered], repairs, False, severity
    outcome: Outcome = "faulty" if hard else "doubtful" if faults else "good"
    return outcome, reasons, repairs, True, _measure_severity(hard or faults)


def _measure_severity(faults: Sequence[Fault]) -> float:
    return min(max((fault.severity for fault in faults), default=0.0), UNREPAIRABLE_SEVERITY - 1)


def read_table(store: Store, flows: Sequence[str], repaired: str | None, limits: Sequence[Limit]) -> AuditTable:
    """Read the rows of an audit's run, judge them, and find what is in two splits.

    Args:
        store: the run.
        flows: that were inspected.
        repaired: the flow that repaired them; None where there is none.
        limits: by which rows are judged.
    """
    tables, rows = Tables(store), []
    fingerprints: list[str | None] = []
    for flow in flows:
        table = tables.table(flow)
        for light in table.read_light(LIGHT_COLUMNS).to_pylist():
            outcome, reasons, repairs, repairable, severity = judge(light, limits)
            place = (flow, light["shard"], light["row"])
            measures = {name: light.get(name) for name in MEASURES}
            fingerprints.append(light.get("inspect_fingerprint"))
            rows.append(
                AuditRow(
                    light["id"], light["origin"] or "", light["split"] or "", outcome, reasons, repairs, repairable,
                    severity, place=place, measures=measures,
                )
            )  # fmt: skip
    names = [row.id for row in rows]
    for leak in find_split_leaks(find_near_fingerprints(fingerprints), [row.split for row in rows], names):
        other, row = rows[leak.kept], rows[leak.row]
        row.reasons.insert(0, f"{LEAK}: of {other.origin} in '{other.split}'")
        row.outcome, row.is_repairable, row.severity = "faulty", False, UNREPAIRABLE_SEVERITY
    for flow in flows:
        rows += _read_rejections(tables, flow)
    if repaired:
        _mark_repairs(tables, repaired, rows)
    passed_over: Counter[str] = Counter()
    for flow in flows:
        passed_over.update(read_passed_over(store, flow))
    rows.sort(key=lambda row: (ORDER[row.outcome], -row.severity, row.origin, row.id))
    return AuditTable(rows, passed_over)


def _read_rejections(tables: Tables, flow: str) -> Iterator[AuditRow]:
    """Yield the inputs that the source refused or that failed: they are in no table."""
    split = flow.partition("_")[2]
    for row in tables.table(flow).read_rejections().to_pylist():
        reason = f"{row['reason']}: {row['detail']}" if row["detail"] else row["reason"]
        outcome: Outcome = "unreadable" if row["outcome"] == "failed" else "faulty"
        yield AuditRow(row["id"], row["origin"] or "", split, outcome, [reason], [], False, UNREPAIRABLE_SEVERITY)


def _mark_repairs(tables: Tables, flow: str, rows: Sequence[AuditRow]) -> None:
    """Write into each row what became of it in the copy; one that `repair` rejected has its reason, too."""
    table = tables.table(flow)
    done = {row["id"]: row["repair_done"] for row in table.read_light(["id", "repair_done"]).to_pylist()}
    refused = {row["id"]: f"{row['reason']}: {row['detail']}" for row in table.read_rejections().to_pylist()}
    for row in rows:
        what = done.get(row.id) if row.place is not None and row.is_repairable else None
        row.done = "left out" if what is None else UNTOUCHED if what == UNTOUCHED else "repaired"
        if what is None and row.is_repairable and row.id in refused:
            row.reasons.insert(0, refused[row.id].removesuffix(": "))
            row.outcome, row.is_repairable, row.severity = "faulty", False, UNREPAIRABLE_SEVERITY
        elif what is not None and what != UNTOUCHED:
            row.repairs = what.split(", ")


def protect_cell(value: object) -> object:
    """Return a value that no spreadsheet takes for a formula, and that breaks no line.

    Examples:
        >>> protect_cell("=1+1"), protect_cell(-0.5), protect_cell(None)
        ("'=1+1", -0.5, '')
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    text = escape_controls(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def encode_csv(table: AuditTable) -> bytes:
    """Encode the table as CSV, UTF-8, a line a row, with all measures."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*HEAD, *MEASURES])
    for row in table.rows:
        repair = row.done or ("" if row.outcome == "good" else "left out" if not row.is_repairable else "")
        if row.repairs and row.is_repairable:
            repair = f"{repair or 'repairable'}: {', '.join(row.repairs)}"
        head = (row.origin, row.split, row.outcome, row.reason, "; ".join(row.reasons), repair, row.severity, row.id)
        values = (f"{v:.6g}" if isinstance(v, float) else v for v in (row.measures.get(name) for name in MEASURES))
        writer.writerow([*map(protect_cell, head), *("" if value is None else value for value in values)])
    return out.getvalue().encode()
