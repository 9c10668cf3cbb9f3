"""Source `corrections`: the rows of a flow whose masks people corrected in a review, with the corrected masks."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from pydantic import Field

from rasura.manifests.errors import InputError
from rasura.manifests.images import decode_mask
from rasura.manifests.parquet import read_parquet
from rasura.manifests.run_layout import CORRECTIONS
from rasura.manifests.schemas import Kind, Schema
from rasura.manifests.storage import Store
from rasura.manifests.tables import REFERENCE, RUN_REFERENCE, Tables
from rasura.stages import stage
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.listing import MissingInput
from rasura.stages.stage import Kept, Outcome, Record, Source

PARTS = ("mask", "foreground_mask")
COLUMNS = ("row_id", "flow", "part", "version", "width", "height", "mask")
MAX_BYTES = 64 * 2**20
"""Of one mask."""


class BadCorrections(InputError):
    """A file that is no corrections. The text says which, and why."""


class CorrectionsParams(stage.Params):
    of: str = Field(description="name of the flow whose rows to make anew: that of the rows that were corrected, or of "
                    "what they were made from, such as their pairs")  # fmt: skip
    file: str = Field(CORRECTIONS, description="file of corrections in the run's folder")


class Corrections(Source):
    """Rows of another flow whose masks were corrected, each with `corrected_mask`, `corrected_foreground_mask` or both.

    A correction is of a row of `of`, or of a row that was made from one (by its `parents`).

    Examples:
        - corrections: {of: scenes}
    """

    name = "corrections"
    gives_references = True
    Params = CorrectionsParams
    params: CorrectionsParams
    gives = {
        "corrected_mask": Kind.MASK,
        "corrected_foreground_mask": Kind.MASK,
        "corrected_row": Kind.STRING,  # id of the row that was corrected
    }

    def upstream(self) -> list[str]:
        return [self.params.of]

    def schema(self, columns: Schema) -> Schema:
        return {name: kind for name, kind in columns.items() if name not in RUN_REFERENCE} | dict(self.gives)

    def survey_inputs(self, run: RunContext) -> tuple[str, int]:
        try:
            data = run.run.read(self.params.file)
        except FileNotFoundError:
            return "", 0
        return hashlib.sha256(data).hexdigest(), len(data) // 10_000

    def items(self, run: RunContext) -> list[Record]:
        table = run.tables.table(self.params.of)
        places = {row["id"]: row for row in table.read_names().select(["id", "origin", "shard", "row"]).to_pylist()}
        rows: dict[str, dict[str, Any]] = {}
        corrections = read_corrections(run.run, self.params.file)
        parents = _read_parents(run.tables, {row["flow"] for row in corrections if row["row_id"] not in places})
        for correction in corrections:  # oldest first: of two rows that were made from one, the last correction counts
            origin = next(
                (id for id in (correction["row_id"], *parents.get(correction["row_id"], ())) if id in places), None
            )
            if origin is None:
                continue
            item = rows.setdefault(origin, dict(places[origin]))
            item["corrected"] = correction["row_id"]
            item[correction["part"]] = base64.b64encode(correction["mask"]).decode()
        if corrections and not rows:
            raise MissingInput(
                f"none of the {len(corrections)} corrections in '{self.params.file}' is of a row of flow "
                f"'{self.params.of}', or of one made from it (the first is of row {corrections[0]['row_id']} of flow "
                f"'{corrections[0]['flow']}')"
            )
        return [rows[id] for id in sorted(rows)]

    def process_one(self, item: Record) -> Outcome:
        place = self.params.of, item["shard"], item["row"]
        columns = tuple(name for name in self.columns or () if name not in self.gives) or None
        row = self.tables.row(*place, columns) | (self.tables.locate(*place) if self.references else {})
        masks = {
            f"corrected_{part}": decode_mask(base64.b64decode(item[part])) if item.get(part) else None for part in PARTS
        }
        row = {name: value for name, value in row.items() if name not in RUN_REFERENCE or name in REFERENCE}
        return Kept([row | masks | {"corrected_row": item["corrected"]}])


def read_corrections(run: Store, file: str = CORRECTIONS) -> list[dict[str, Any]]:
    """Read the corrections of a run, in the order of their versions; `mask` is a 1-bit PNG.

    Raises:
        MissingInput: there is no such file.
        BadCorrections: it is none of corrections.
    """
    try:
        with run.open(file) as source:
            rows: Sequence[Mapping[str, Any]] = read_parquet(source).to_pylist()
    except FileNotFoundError:
        raise MissingInput(
            f"'{run.uri}' has no {file}: `rasura review {run.uri}` writes it while and after people correct masks"
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise BadCorrections(f"'{run.uri}/{file}' cannot be read: {error}") from None
    return [_check_correction(row, f"'{run.uri}/{file}', row {number}") for number, row in enumerate(rows, 1)]


def _check_correction(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    if missing := [name for name in COLUMNS if row.get(name) is None]:
        raise BadCorrections(f"{where}: it has no {', '.join(missing)}")
    if row["part"] not in PARTS:
        raise BadCorrections(f"{where}: part is '{row['part']!s:.40}'; it can be {', '.join(PARTS)}")
    picture = row["mask"]
    data = picture.get("bytes") if isinstance(picture, Mapping) else None
    if not isinstance(data, bytes) or len(data) > MAX_BYTES:
        raise BadCorrections(f"{where}: its mask is no picture")
    return {**row, "mask": data}


def _read_parents(tables: Tables, flows: set[str]) -> dict[str, Sequence[str]]:
    """Read the parents of the rows of flows, by their ids."""
    parents: dict[str, Sequence[str]] = {}
    complete = set(tables.names())
    for flow in sorted(flows & complete):
        rows = tables.table(flow).read_light(["id", "parents"]).to_pylist()
        parents |= {row["id"]: row["parents"] or () for row in rows}
    return parents
