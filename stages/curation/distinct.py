"""Source `distinct`: the rows of other flows without near-duplicates, or without those that are in two splits.

A stage sees one row at a time; which rows are near each other is known where all are listed, on a worker where there
are many.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from rasura.manifests.schemas import PICTURES, Kind, Schema
from rasura.manifests.tables import REFERENCE, RUN_REFERENCE
from rasura.stages import stage
from rasura.stages.curation.crops import find_crops
from rasura.stages.curation.duplicates import (
    MIN_COSINE,
    choose_kept,
    find_near_embeddings,
    find_near_fingerprints,
    find_split_leaks,
)
from rasura.stages.sources.files import RunContext, survey_tables
from rasura.stages.stage import Kept, MissingColumns, Outcome, Record, Rejected, Source

Flows = Annotated[
    tuple[str, ...],
    Field(min_length=1),
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
]


class DistinctParams(stage.Params):
    of: Flows = Field(description="name of the flow whose rows to take, or names of several")
    by: str = Field("fingerprint", description="column that is compared: of `fingerprint`, or of `embed`")
    best: str | None = Field(
        None, description="column of which the largest value stays, such as `quality`; null: the first id stays"
    )
    across: str | None = Field(
        None,
        description="column such as `split`: only rows with different values there exclude each other; those of the "
        "rarer value stay",
    )
    crops: bool = Field(
        False, description="also pictures that are cut out of others: for tables of `fingerprint` with crops: true"
    )
    cosine: float = Field(MIN_COSINE, gt=0, le=1, description="of two embeddings, from which they are near each other")
    pictures: bool = Field(True, description="load the pictures; the planner turns this off where no stage uses them")

    @model_validator(mode="after")
    def _check_crops(self) -> "DistinctParams":
        if self.crops and self.by != "fingerprint":
            raise ValueError(f"crops are found by fingerprints, not by '{self.by}'")
        return self

    @property
    def windows(self) -> str | None:
        """The column of the windows' hashes; None where they are not compared."""
        return "fingerprint_windows" if self.crops else None


class Distinct(Source):
    """Rows of flows, of near-duplicates only the best; the others are rejected with the id of the one that stays.

    Examples:
        - distinct: {of: photos, best: quality}
    """

    name = "distinct"
    gives_references = True
    Params = DistinctParams
    params: DistinctParams

    def upstream(self) -> list[str]:
        return list(self.params.of)

    def required_columns(self) -> Mapping[str, Sequence[str]]:
        columns = [name for name in (self.params.by, self.params.windows, self.params.best, self.params.across) if name]
        return dict.fromkeys(self.params.of, columns)

    def schema(self, columns: Schema) -> Schema:
        params = self.params
        kinds = {params.by: (Kind.STRING, Kind.FLOATS), params.windows: (Kind.STRING,)}
        kinds |= {params.best: (Kind.FLOAT, Kind.INT)}
        for name, allowed in kinds.items():
            if name is not None and columns.get(name) not in allowed:
                words = " or ".join(str(kind) for kind in allowed)
                raise MissingColumns(self.name, (f"a column '{name}' of kind {words}",), tuple(columns))
        if params.pictures:
            return {name: kind for name, kind in columns.items() if name not in RUN_REFERENCE}
        return {name: kind for name, kind in columns.items() if kind not in PICTURES and name != "ref_run"} | dict(
            REFERENCE
        )

    def survey_inputs(self, run: RunContext) -> tuple[str, int]:
        return survey_tables(run, self.upstream())

    def items(self, run: RunContext) -> list[Record]:
        params = self.params
        names = ("id", "origin", params.by, params.windows, params.best, params.across)
        columns = list(dict.fromkeys(name for name in names if name))
        rows: list[Record] = []
        for flow in params.of:
            light = run.tables.table(flow).read_light(columns)
            rows += [row | {"flow": flow} for row in light.select([*columns, "shard", "row"]).to_pylist()]
        rows.sort(key=lambda row: row["id"])
        gone = self._find_duplicates(rows)
        items = [{name: row[name] for name in ("id", "origin", "flow", "shard", "row")} for row in rows]
        for index, other in gone.items():
            place = f" in {params.across} '{rows[other][params.across]}'" if params.across else ""
            items[index]["duplicate"] = f"of {rows[other]['id']} ({rows[other]['origin']}){place}"
        return items

    def _find_duplicates(self, rows: Sequence[Record]) -> dict[int, int]:
        """Return the index of each row that goes, with that of the one that stays."""
        params, names = self.params, [row["id"] for row in rows]
        compared = [row[params.by] for row in rows]
        pairs = find_near_rows(compared, params.cosine)
        if params.windows:
            pairs = sorted({*pairs, *find_crops(compared, [row[params.windows] for row in rows])})
        if params.across:
            leaks = find_split_leaks(pairs, [row[params.across] for row in rows], names)
            return {leak.row: leak.kept for leak in leaks}
        return choose_kept(pairs, [row[params.best] if params.best else None for row in rows], names)

    def process_one(self, item: Record) -> Outcome:
        if "duplicate" in item:
            across = self.params.across
            return Rejected(f"near-duplicate in another {across}" if across else "near-duplicate", item["duplicate"])
        place = item["flow"], item["shard"], item["row"]
        if self.params.pictures:
            located = self.tables.locate(*place) if self.references else {}
            return Kept([self.tables.row(*place, self.columns) | located])
        row = self.tables.read_light_row(*place)
        return Kept([{name: value for name, value in row.items() if self.columns is None or name in self.columns}])


def find_near_rows(values: Sequence[Any], cosine: float = MIN_COSINE) -> list[tuple[int, int]]:
    """Find the near pairs among fingerprints in hex digits, or among embeddings; a row without one has none.

    Raises:
        ValueError: embeddings of two lengths: they are of two networks.
    """
    first = next((value for value in values if value is not None and len(value)), None)
    if first is None or isinstance(first, str):
        return find_near_fingerprints(values)
    lengths = sorted({len(value) for value in values if value is not None and len(value)})
    if len(lengths) > 1:
        raise ValueError(
            f"embeddings of {lengths[0]} and of {lengths[-1]} numbers cannot be compared: one network each"
        )
    zeros = np.zeros(lengths[0], np.float32)
    vectors = np.stack(
        [zeros if value is None or not len(value) else np.asarray(value, np.float32) for value in values]
    )
    return list(find_near_embeddings(vectors, cosine))
