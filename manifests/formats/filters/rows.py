"""Which rows an export takes: by verdict, score, a condition on columns. What is left out has a reason."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import starmap
from typing import Any

from rasura.manifests.formats.dataset_rows import DatasetRow, read_raw_rows
from rasura.manifests.formats.filters.expressions import Condition
from rasura.manifests.parallel.jobs import MapJobs, cut_into_parts
from rasura.manifests.tables import Tables

JOB_ROWS = 256
Explain = Callable[[Mapping[str, Any]], str | None]
"""Explains why a row is left out; None where it is kept."""


@dataclass(frozen=True)
class Check:
    """One reason to leave rows out.

    Attributes:
        columns: that it reads, without `id`.
        explain: gets a row with them, pictures encoded.
    """

    columns: Sequence[str]
    explain: Explain


def explain_first(checks: Sequence[Check], row: Mapping[str, Any]) -> str | None:
    """Return the reason of the first check that leaves a row out; None where all keep it."""
    return next(filter(None, (check.explain(row) for check in checks)), None)


def check_verdict(verdict: str) -> Check:
    """Keep rows with a verdict.

    Examples:
        >>> check_verdict("yes").explain({"verdict": "no"}), check_verdict("yes").explain({"verdict": "yes"})
        ('its verdict is no', None)
    """

    def explain(row: Mapping[str, Any]) -> str | None:
        if row.get("verdict") == verdict:
            return None
        return f"its verdict is {row['verdict']}" if row.get("verdict") else "it has no verdict"

    return Check(["verdict"], explain)


def check_score(least: float) -> Check:
    """Keep rows whose score is at least this.

    Examples:
        >>> check_score(0.9).explain({"score": 0.5}), check_score(0.9).explain({"score": None})
        ('its score is below 0.9', 'it has no score')
    """

    def explain(row: Mapping[str, Any]) -> str | None:
        score = row.get("score")
        if score is None:
            return "it has no score"
        return None if score >= least else f"its score is below {least:g}"

    return Check(["score"], explain)


def check_condition(condition: Condition) -> Check:
    """Keep rows of which a condition is true."""

    def explain(row: Mapping[str, Any]) -> str | None:
        value = condition.evaluate(row)
        if value is None:
            absent = " and no ".join(name for name in condition.columns if row.get(name) is None)
            return f"it has no {absent}, so that {condition.text} is neither true nor false"
        return None if value else f"not true of it: {condition.text}"

    return Check(condition.columns, explain)


def find_excluded(
    tables: Tables,
    rows: Sequence[DatasetRow],
    checks: Sequence[Check],
    change: Callable[[DatasetRow, Mapping[str, Any]], Mapping[str, Any]] = lambda row, raw: raw,
    map_jobs: MapJobs = starmap,
) -> dict[str, str]:
    """Find the rows that are left out, with the first reason of each.

    Args:
        tables: of the run.
        rows: of the dataset.
        checks: in the order in which they count.
        change: what is changed in a row before it is checked: a verdict that is kept elsewhere, say.
        map_jobs: has rows checked, by workers for example.
    """
    if not checks:
        return {}
    parts = cut_into_parts(sorted(rows, key=lambda row: row.place), JOB_ROWS)
    excluded: dict[str, str] = {}
    for reasons in map_jobs(partial(_explain_rows, tables, checks, change), parts):
        excluded |= reasons
    return excluded


def _explain_rows(
    tables: Tables,
    checks: Sequence[Check],
    change: Callable[[DatasetRow, Mapping[str, Any]], Mapping[str, Any]],
    rows: Sequence[DatasetRow],
) -> dict[str, str]:
    """Return the reasons to leave some of the rows out; a job."""
    columns = list(dict.fromkeys(name for check in checks for name in check.columns))
    excluded: dict[str, str] = {}
    for row, raw in zip(rows, read_raw_rows(tables, rows, columns), strict=True):
        values = change(row, raw)
        if reason := explain_first(checks, values):
            excluded[row.id] = reason
    return excluded


def replace_verdicts(verdicts: Mapping[tuple[str, str], str]) -> Callable[..., Mapping[str, Any]]:
    """Return what sets the verdicts of a review in rows, by flow and id; other rows stay as they are."""
    return partial(_replace_verdict, verdicts)


def _replace_verdict(
    verdicts: Mapping[tuple[str, str], str], row: DatasetRow, raw: Mapping[str, Any]
) -> Mapping[str, Any]:
    place = (row.table, row.id)
    return {**raw, "verdict": verdicts[place]} if place in verdicts else raw
