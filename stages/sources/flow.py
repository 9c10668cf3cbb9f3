"""The rows of another flow's table, as the start of a flow of its own.

A flow that only judges (no stage of it looks at pictures) reads no picture: its rows refer to where they stand.
"""

from pydantic import Field

from manifests.schemas import PICTURES, Schema
from manifests.tables import REFERENCE
from stages import stage
from stages.sources.files import RunContext
from stages.stage import Kept, Outcome, Record, Source


class FlowParams(stage.Params):
    of: str = Field(description="name of the flow whose rows to take")
    pictures: bool = Field(True, description="load the pictures; the planner turns this off where nobody looks")


class Flow(Source):
    """Rows of another flow."""

    name = "flow"
    Params = FlowParams
    params: FlowParams

    def upstream(self) -> list[str]:
        return [self.params.of]

    def schema(self, given: Schema) -> Schema:
        if self.params.pictures:
            return {name: kind for name, kind in given.items() if name not in REFERENCE}
        return {name: kind for name, kind in given.items() if kind not in PICTURES} | dict(REFERENCE)

    def items(self, run: RunContext) -> list[Record]:
        table = run.tables.table(self.params.of)
        return table.light(["id", "origin"]).select(["id", "origin", "shard", "row"]).to_pylist()  # type: ignore[no-any-return]

    def process_one(self, item: Record) -> Outcome:
        if self.params.pictures:
            return Kept([self.tables.row(self.params.of, item["shard"], item["row"])])
        return Kept([self.tables.light_row(self.params.of, item["shard"], item["row"])])
