"""The measures of a flow: samples of their values, and the rows whose values are nearest to a limit.

Memory does not grow with rows: of a long table, every n-th row is in the sample; the nearest rows are those of the
whole table, which is read one shard at a time.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasura.manifests.schemas import PROVENANCE, Kind
from rasura.manifests.storage import Store
from rasura.manifests.tables import REFERENCE
from rasura.pipeline.report.flows import ReportFlow, iterate_light, iterate_rejections
from rasura.pipeline.report.limits import Limit
from rasura.pipeline.report.thumbnails import Place

SAMPLED_ROWS = 50_000
NUMBERS = (Kind.INT, Kind.FLOAT)

Values = NDArray[np.float64]


@dataclass
class Measure:
    """The values of one column: of rows that a flow kept, and of inputs that it rejected."""

    kept: Values = field(default_factory=lambda: np.empty(0))
    rejected: Values = field(default_factory=lambda: np.empty(0))

    @property
    def values(self) -> Values:
        """All values."""
        return np.concatenate([self.kept, self.rejected])

    @property
    def typical(self) -> float:
        """The median; NaN where there are no values."""
        return float(np.median(self.values)) if self.values.size else float("nan")


@dataclass(frozen=True)
class StoredRow:
    """A row of a table, by its id: its place, and some of its values."""

    place: Place
    values: Mapping[str, Any]


def list_numbers(flow: ReportFlow) -> list[str]:
    """List the columns of numbers of a flow that measure something."""
    left_out = {*PROVENANCE, *REFERENCE}
    return [name for name, kind in flow.columns.items() if kind in NUMBERS and name not in left_out]


def sample_measures(
    run: Store, flow: ReportFlow, upstream: Sequence[ReportFlow], columns: Sequence[str]
) -> dict[str, Measure]:
    """Sample the values of some columns, of a flow's rows and of the inputs that it rejected.

    A rejected input has the values of the row that it is in an upstream flow, and the one for which it was rejected.
    """
    inputs = sum(record.inputs for record in flow.commits)
    step = max(1, -(-max(inputs, flow.survey.rows) // SAMPLED_ROWS))
    kept: dict[str, list[Values]] = {column: [] for column in columns}
    start = 0
    for _, table in iterate_light(run, flow.name, flow.commits, columns):
        rows = np.arange(-start % step, table.num_rows, step)
        start += table.num_rows
        for column in columns:
            if column in table.column_names:
                kept[column].append(_to_values(table[column])[rows])
    sample = [row for index, row in enumerate(iterate_rejections(run, flow)) if index % step == 0]
    ids = {str(row["input_id"]) for row in sample if row["outcome"] == "rejected"} if columns else set()
    stored = find_rows(run, upstream, ids, columns)
    rejected: dict[str, list[float]] = {column: [] for column in columns}
    for row in sample:
        if row["outcome"] != "rejected":
            continue
        match = stored.get(str(row["input_id"]))
        values = dict(match.values) if match else {}
        values.update(parse_detail(row, flow.limits))
        for column in columns:
            if isinstance(value := values.get(column), int | float):
                rejected[column].append(float(value))
    return {
        column: Measure(_drop_missing(np.concatenate([np.empty(0), *kept[column]])), np.array(rejected[column], float))
        for column in columns
    }


def _to_values(column: pa.ChunkedArray) -> Values:
    return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)  # null becomes NaN


def _drop_missing(values: Values) -> Values:
    return values[np.isfinite(values)]


def parse_detail(row: Mapping[str, Any], limits: Mapping[str, Limit]) -> dict[str, float]:
    """Parse the value for which `select` rejected an input: the reason is `<column> below <limit>`, or above."""
    column = str(row["reason"]).partition(" ")[0]
    if row["stage"] != "select" or column not in limits:
        return {}
    try:
        return {column: float(row["detail"])}
    except ValueError:  # the value is missing
        return {}


def find_rows(
    run: Store, flows: Sequence[ReportFlow], ids: set[str], columns: Sequence[str] = ()
) -> dict[str, StoredRow]:
    """Find rows of some flows by their ids, with the values of some columns; ids that no row has are left out."""
    result: dict[str, StoredRow] = {}
    wanted = pa.array(sorted(ids), pa.string())
    for flow in flows:
        for shard, table in iterate_light(run, flow.name, flow.commits, ["id", *columns]):
            if len(result) == len(ids):
                return result
            numbers = pa.array(np.arange(table.num_rows))
            matches = table.append_column("row number", numbers).filter(pc.is_in(table["id"], value_set=wanted))
            for row in matches.to_pylist():
                place = (flow.name, shard, row.pop("row number"))
                result.setdefault(row["id"], StoredRow(place, row))
    return result


def find_nearest(
    run: Store, flow: ReportFlow, limits: Mapping[str, Limit], measures: Mapping[str, Measure], count: int
) -> list[Place]:
    """Find the rows of a flow that are nearest to one of its limits, the nearest first."""
    nearest: list[tuple[float, str, Place]] = []
    for shard, table in iterate_light(run, flow.name, flow.commits, ["id", *limits]):
        margins = np.full(table.num_rows, np.inf)
        for name, limit in limits.items():
            if name in table.column_names:
                margins = np.fmin(margins, limit.compute_margins(_to_values(table[name]), measures[name].typical))
        first = [row for row in np.argsort(margins, kind="stable")[:count].tolist() if np.isfinite(margins[row])]
        ids = table["id"].take(pa.array(first, pa.int64())).to_pylist()
        rows = [(float(margins[row]), id, (flow.name, shard, row)) for row, id in zip(first, ids, strict=True)]
        nearest = heapq.nsmallest(count, [*nearest, *rows])
    return [place for _, _, place in nearest]
