"""Corrections out of a review: the newest mask of each row, which a run applies (source `corrections`)."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection

from rasura.annotator.store.reviewers import list_names
from rasura.annotator.store.team.corrections import list_corrections
from rasura.manifests.parquet import encode_parquet
from rasura.manifests.schemas import Kind, build_arrow_schema
from rasura.manifests.storage import Store

CORRECTIONS = "corrections.parquet"
SCHEMA = build_arrow_schema(
    {
        **dict.fromkeys(("item", "row_id", "flow", "part"), Kind.STRING),
        "version": Kind.INT,
        "reviewer": Kind.STRING,
        "time": Kind.FLOAT,
        **dict.fromkeys(("steps", "width", "height"), Kind.INT),
        "mask": Kind.MASK,
    }
)
"""Columns of the file, a row for each mask that was corrected."""


def build_corrections(connection: Connection) -> pa.Table:
    """Build the table of corrections, the oldest first."""
    names = list_names(connection)
    rows: list[Mapping[str, Any]] = [
        {
            **{name: getattr(row, name) for name in ("item", "row_id", "flow", "part", "version", "time", "steps")},
            "reviewer": names.get(row.reviewer),
            "width": row.width,
            "height": row.height,
            "mask": {"bytes": bytes(row.png), "path": f"{row.row_id}-{row.part}.png"},
        }
        for row in sorted(list_corrections(connection), key=lambda row: row.seq)
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def export_corrections(connection: Connection, out: Store) -> int:
    """Write `corrections.parquet` where there are any, or were, and return their number."""
    table = build_corrections(connection)
    if table.num_rows or out.exists(CORRECTIONS):
        out.write(CORRECTIONS, encode_parquet(table))
    return int(table.num_rows)
