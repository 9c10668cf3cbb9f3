"""Candidates, each with the true picture of the triplet that it was made from, where there is one."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from rasura.manifests.schemas import Kind, Schema
from rasura.manifests.tables import RUN_REFERENCE
from rasura.stages import stage
from rasura.stages.judging.truth import TRUE_KINDS, find_effects
from rasura.stages.sources.files import RunContext, survey_tables
from rasura.stages.stage import Kept, Outcome, Record, Source

PICTURES = ("target", "mask", "object_mask", "foreground_mask", "foreground_visible")


class ComparedParams(stage.Params):
    of: str = Field(description="name of the flow of candidates")
    truth: str = Field(description="name of the flow that they were made from")


class Compared(Source):
    """Rows of a flow of candidates with `truth`, the target of the captured or simulated triplet of each.

    Examples:
        - compared: {of: candidates, truth: drawn}
    """

    name = "compared"
    gives_references = True
    Params = ComparedParams
    params: ComparedParams
    gives = {"truth": Kind.RGB, "truth_effects": Kind.MASK}

    def upstream(self) -> list[str]:
        return [self.params.of, self.params.truth]

    def required_columns(self) -> Mapping[str, Sequence[str]]:
        return {self.params.of: ("source", "target", "mask"), self.params.truth: ("target", "kind")}

    def schema(self, columns: Schema) -> Schema:
        return {name: kind for name, kind in columns.items() if name not in RUN_REFERENCE} | dict(self.gives)

    def survey_inputs(self, run: RunContext) -> tuple[str, int]:
        return survey_tables(run, self.upstream())

    def items(self, run: RunContext) -> list[Record]:
        of, truth = run.tables.table(self.params.of), run.tables.table(self.params.truth)
        truths = {
            row["id"]: (row["shard"], row["row"])
            for row in truth.read_light(["id", "kind"]).to_pylist()
            if row["kind"] in TRUE_KINDS
        }
        items = []
        for row in of.read_light(["id", "origin", "parents"]).to_pylist():
            place = next((truths[id] for id in row["parents"] or () if id in truths), None)
            items.append({name: row[name] for name in ("id", "origin", "shard", "row")} | {"truth": place})
        return items

    def setup(self) -> None:
        self._truth: tuple[Any, dict[str, Any]] = (None, {})

    def process_one(self, item: Record) -> Outcome:
        place = self.params.of, item["shard"], item["row"]
        columns = tuple(name for name in self.columns or () if name not in self.gives) or None
        row = self.tables.row(*place, columns) | (self.tables.locate(*place) if self.references else {})
        return Kept([row | self._read_truth(item["truth"])])

    def _read_truth(self, place: tuple[str, int] | None) -> dict[str, Any]:
        """Read a truth; candidates of one scene come one after another, so that the last one is kept."""
        if place is None:
            return {"truth": None, "truth_effects": None}
        if self._truth[0] != place:
            row = self.tables.row(self.params.truth, *place, PICTURES)
            row["mask"] = row["object_mask"] if row.get("mask") is None else row["mask"]
            self._truth = place, {"truth": row["target"], "truth_effects": find_effects(row)}
        return self._truth[1]
