"""The rows of another flow's table, as the start of a flow of its own.

A flow whose stages use no pictures reads none: its rows refer to the table that has them.

A cap on the rows of one value belongs here and not into a stage: a stage has some of the rows, the source all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from rasura.manifests.ids import compute_seed
from rasura.manifests.schemas import PICTURES, Kind, Schema
from rasura.manifests.tables import REFERENCE, RUN_REFERENCE
from rasura.stages import stage
from rasura.stages.sources.files import RunContext, survey_tables
from rasura.stages.stage import Kept, MissingColumns, Outcome, Record, Rejected, Source

COUNTABLE_KINDS = (Kind.STRING, Kind.INT, Kind.BOOL)


class Cap(stage.Params):
    """A limit of the rows with one value."""

    column: str = Field(description="column whose values are counted, such as `label`")
    most: int = Field(ge=1, description="rows of one value at most; RORem takes 500 a class")


class FlowParams(stage.Params):
    of: str = Field(description="name of the flow whose rows to take")
    cap: Cap | None = Field(None, description="`{column, most}`: of the rows of one value only so many, drawn by lot")
    pictures: bool = Field(True, description="load the pictures; the planner turns this off where no stage uses them")


def find_rows_over_cap(rows: Sequence[Mapping[str, Any]], column: str, most: int, seed: int) -> set[str]:
    """Find the ids of the rows that are too many: of each value all but the `most` whose lots are lowest.

    A row's lot is a hash of its id, so that order, shards and workers change nothing, and a row that is added takes the
    place of at most one other. Rows without a value are one value.
    """
    groups: dict[Any, list[str]] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row["id"])
    lots = {id: compute_seed(seed, "flow.cap", id) for ids in groups.values() if len(ids) > most for id in ids}
    return {id for ids in groups.values() for id in sorted(ids, key=lambda id: (lots.get(id, 0), id))[most:]}


class Flow(Source):
    """Rows of another flow."""

    name = "flow"
    gives_references = True
    Params = FlowParams
    params: FlowParams

    def upstream(self) -> list[str]:
        return [self.params.of]

    def schema(self, columns: Schema) -> Schema:
        cap = self.params.cap
        if cap and columns.get(cap.column) not in COUNTABLE_KINDS:
            raise MissingColumns(self.name, (f"a column of single values '{cap.column}' to cap",), tuple(columns))
        if self.params.pictures:
            return {name: kind for name, kind in columns.items() if name not in RUN_REFERENCE}
        return {name: kind for name, kind in columns.items() if kind not in PICTURES and name != "ref_run"} | dict(
            REFERENCE
        )

    def survey_inputs(self, run: RunContext) -> tuple[str, int]:
        return survey_tables(run, self.upstream())

    def items(self, run: RunContext) -> list[Record]:
        table, cap = run.tables.table(self.params.of), self.params.cap
        columns = list(dict.fromkeys(["id", "origin", *([cap.column] if cap else [])]))
        light = table.read_light(columns) if cap else table.read_names()
        rows: list[Record] = light.select([*columns, "shard", "row"]).to_pylist()
        spare = find_rows_over_cap(rows, cap.column, cap.most, self.seed) if cap else set()
        places = ("id", "origin", "shard", "row")
        items = [{name: row[name] for name in places} for row in rows]
        for item, row in zip(items, rows, strict=True):
            if cap and item["id"] in spare:
                item["over"] = str(row[cap.column])
        return items

    def process_one(self, item: Record) -> Outcome:
        if self.params.cap and "over" in item:
            return Rejected(
                f"{self.params.cap.column} over its cap", f"{item['over']}: {self.params.cap.most} are taken"
            )
        if self.params.pictures:
            place = self.params.of, item["shard"], item["row"]
            return Kept(
                [self.tables.row(*place, self.columns) | (self.tables.locate(*place) if self.references else {})]
            )
        return Kept([self.tables.read_light_row(self.params.of, item["shard"], item["row"])])
