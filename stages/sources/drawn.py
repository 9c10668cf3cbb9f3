"""Rows of other runs that were drawn, as references to where they are: no picture is copied."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from rasura.manifests.ids import compute_content_id
from rasura.manifests.run_layout import table_path
from rasura.manifests.schemas import Kind, Schema
from rasura.manifests.storage import Store
from rasura.manifests.tables import RUN_REFERENCE
from rasura.stages import stage
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.listing import MissingInput
from rasura.stages.stage import Kept, Outcome, Record, Source

PLACE = ("id", "run", "table", "shard", "row")
"""Keys that an entry of the list must have."""


class DrawnParams(stage.Params):
    rows: str = Field(
        "scenes.json", description="list of rows in the run's folder, each with run, table, shard, row, id"
    )
    round: int | None = Field(None, ge=0, description="round of a loop for which they were drawn")


class Drawn(Source):
    """Rows of other runs, named one by one in a list of the run.

    Examples:
        - drawn: {rows: scenes.json, round: 1}
    """

    name = "drawn"
    Params = DrawnParams
    params: DrawnParams
    gives = {"kind": Kind.STRING, "label": Kind.STRING, "round": Kind.INT, **RUN_REFERENCE}

    def schema(self, columns: Schema) -> Schema:
        return dict(self.gives)

    def referenced_columns(self) -> Schema:
        masks = ("mask", "object_mask", "foreground_mask", "foreground_visible")
        return {"source": Kind.RGB, "target": Kind.RGB, **dict.fromkeys(masks, Kind.MASK)}

    def survey_inputs(self, run: RunContext) -> tuple[str, int]:
        try:
            data = run.run.read(self.params.rows)
        except FileNotFoundError:
            return "", 0
        return compute_content_id(data), data.count(b"{")

    def items(self, run: RunContext) -> list[Record]:
        try:
            entries: Sequence[dict[str, Any]] = json.loads(run.run.read(self.params.rows))
        except FileNotFoundError:
            raise MissingInput(f"'{run.run.uri}' has no list of rows '{self.params.rows}'") from None
        items = []
        for entry in entries:
            if missing := [name for name in PLACE if name not in entry]:
                raise MissingInput(f"'{self.params.rows}': an entry has no {', '.join(missing)}: {entry!r:.100}")
            place = {name: entry[name] for name in PLACE} | {"run": Store(entry["run"]).location}
            items.append(
                {**place, "origin": f"{place['run']}/{table_path(place['table'])}", "scene": entry.get("scene")}
            )
        return items

    def process_one(self, item: Record) -> Outcome:
        row = self.tables.open_run(item["run"]).read_light_row(item["table"], item["shard"], item["row"])
        if row["id"] != item["id"]:
            raise ValueError(
                f"{item['origin']}: row {item['row']} of shard {item['shard']} is {row['id']}: it was changed"
            )
        row |= {"scene_id": row.get("scene_id") or item["scene"], "round": self.params.round, "ref_run": item["run"]}
        return Kept([{name: row.get(name) for name in self.columns or row}])
