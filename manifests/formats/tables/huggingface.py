"""Rasura's own layout of a dataset: a triplet's columns by their names, and all that was measured."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from rasura.manifests.formats.card import LOAD_DATASET, render_card, render_front
from rasura.manifests.formats.dataset_rows import DatasetRow, DatasetSummary, check_triplets
from rasura.manifests.formats.tables.layout import TableLayout
from rasura.manifests.schemas import PICTURES, TRIPLET, Kind, build_arrow_schema
from rasura.manifests.tables import RUN_REFERENCE, Table

VARIANT = re.compile(r"mask_\w+")
"""Pictures that are exported beside the triplet's own: those that stage `masks` adds."""


def collect_columns(tables: Sequence[Table]) -> dict[str, Kind]:
    """Collect the dataset's columns: the triplet's, the columns without pictures of all flows, variants of the mask.

    Raises:
        NotTriplets: a flow lacks a column of a triplet.
    """
    columns = dict(TRIPLET)
    for table in tables:
        check_triplets(table)
        for name, kind in table.full_schema.items():
            if name not in RUN_REFERENCE and (kind not in PICTURES or VARIANT.fullmatch(name)):
                columns.setdefault(name, kind)
    return columns


class HuggingFaceLayout(TableLayout):
    """The layout of `manifests.formats.tables.table_export` that a run writes."""

    name = "huggingface"

    def __init__(self, parts: Sequence[Table]) -> None:
        self.schema = collect_columns(parts)
        self.columns = list(self.schema)

    def table(self, rows: Sequence[DatasetRow], raws: Sequence[Mapping[str, Any]]) -> pa.Table:
        return pa.Table.from_pylist(list(raws), schema=build_arrow_schema(self.schema))

    def card(self, summary: DatasetSummary) -> str:
        return render_card(summary, render_front(summary, self.schema), LOAD_DATASET)
