"""The statistics of a review as tables: reviewers, pairs of reviewers, items, removers, votes; as CSV and Parquet."""

import io
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv as csv
from sqlalchemy import Connection

from rasura.annotator.exchange.vote_rows import tabulate_verdicts, tabulate_votes
from rasura.annotator.exchange.votes_file import compute_verdicts, list_votes
from rasura.annotator.stats.ratings import rate_removers
from rasura.annotator.stats.statistics import build_overview
from rasura.annotator.store.team.rankings import list_rankings
from rasura.manifests.parquet import encode_parquet

_PAIRS = pa.schema(
    [*((name, pa.string()) for name in ("first", "second")), ("items", pa.int64()), ("agreed", pa.int64()),
     ("kappa", pa.float64())]
)  # fmt: skip
_REVIEWERS = pa.schema(
    [("name", pa.string()), *((name, pa.int64()) for name in ("votes", "yes", "no", "unsure", "right", "wrong")),
     *((name, pa.float64()) for name in ("yes_rate", "accuracy", "median_seconds", "per_hour", "last"))]
)  # fmt: skip
_REMOVERS = pa.schema(
    [("name", pa.string()), *((name, pa.int64()) for name in ("yes", "no", "unsure", "tie", "comparisons")),
     *((name, pa.float64()) for name in ("rating", "low", "high", "won"))]
)  # fmt: skip


def _tabulate_reviewers(connection: Connection) -> pa.Table:
    rows = build_overview(connection, {})["reviewers"]
    return pa.Table.from_pylist([{name: row.get(name) for name in _REVIEWERS.names} for row in rows], _REVIEWERS)


def _tabulate_pairs(connection: Connection) -> pa.Table:
    overview = build_overview(connection, {})
    names = {row["id"]: row["name"] for row in overview["reviewers"]}
    rows = [{**pair, "first": names[pair["one"]], "second": names[pair["other"]]} for pair in overview["pairs"]]
    return pa.Table.from_pylist([{name: row[name] for name in _PAIRS.names} for row in rows], _PAIRS)


def _tabulate_removers(connection: Connection) -> pa.Table:
    rows = {row["name"]: dict(row) for row in build_overview(connection, {})["removers"]}
    for rating in rate_removers(list_rankings(connection)):
        rows.setdefault(rating.name, {"name": rating.name}).update(asdict(rating))
    filled = [{name: rows[key].get(name) for name in _REMOVERS.names} for key in sorted(rows)]
    return pa.Table.from_pylist(filled, _REMOVERS)


TABLES: Mapping[str, Callable[[Connection], pa.Table]] = {
    "reviewers": _tabulate_reviewers,
    "pairs": _tabulate_pairs,
    "items": lambda connection: tabulate_verdicts(compute_verdicts(connection)),
    "removers": _tabulate_removers,
    "votes": lambda connection: tabulate_votes(list_votes(connection)),
}
"""Name of a table of statistics -> what builds it."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def encode_statistics(table: pa.Table, suffix: Literal["csv", "parquet"]) -> bytes:
    """Encode a table as CSV or Parquet.

    In CSV, a text that a spreadsheet would run as a formula begins with an apostrophe, as OWASP advises.
    """
    if suffix == "parquet":
        return encode_parquet(table)
    for index, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            values: list[Any] = [
                f"'{value}" if value and value.startswith(_FORMULA) else value for value in table[index].to_pylist()
            ]
            table = table.set_column(index, field.name, pa.array(values, pa.string()))
    out = io.BytesIO()
    csv.write_csv(table, out)
    return out.getvalue()
