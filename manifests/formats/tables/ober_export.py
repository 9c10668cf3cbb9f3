"""A run's triplets in OBER's Parquet layout, so that ObjectClear's loader and trainer take them as they are.

Only OBER's columns are in the data files. The rest of a row (its id, licence, origin, label) is in `rows.jsonl`, by the
name of its pictures.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from rasura.manifests.formats.card import render_front
from rasura.manifests.formats.dataset_rows import DatasetRow, DatasetSummary
from rasura.manifests.formats.ober import ABOUT, COLUMNS, NAME, TRIPLET, convert_row, make_picture_name
from rasura.manifests.formats.tables.layout import Entries, TableLayout
from rasura.manifests.schemas import build_arrow_schema
from rasura.manifests.tables import Table

PROVENANCE = ("id", "scene_id", "split", "kind", "label", "origin", "licence", "parents")
_CARD = """---
{front}---
# {name}

{rows} pairs in OBER's layout: `input` (with the object), `gt` (without it and its effects), `object_mask` (the object,
white), `object_effect_mask` (object and effects; null where it is not known). `subset` is how a pair was made. A
picture's `path` is `<scene>_<crop>.<ext>`; all crops of a scene are in one split.
`rows.jsonl` has each pair's id, origin and licence by that name. Made by Rasura from the recipe `{name}` (hash
`{recipe}`).

| split | rows | bytes |
|---|---|---|
{splits}

| subset | rows | meaning |
|---|---|---|
{kinds}

Licences of the pictures in it: {licences}.
"""


class OberLayout(TableLayout):
    """OBER's layout for `table_export`: rows of a scene are consecutive, numbered as its crops."""

    name = NAME
    columns = (*TRIPLET.values(), *PROVENANCE)
    light_columns = PROVENANCE

    def __init__(self, parts: Sequence[Table]) -> None:
        self._crops: dict[str, int] = {}
        self._about: list[dict[str, Any]] = []

    def order_rows(self, rows: Sequence[DatasetRow]) -> list[DatasetRow]:
        result = sorted(rows, key=lambda row: (row.scene, row.id))
        counts: dict[str, int] = {}
        for row in result:
            self._crops[row.id] = counts[row.scene] = counts.get(row.scene, -1) + 1
        return result

    def table(self, rows: Sequence[DatasetRow], raws: Sequence[Mapping[str, Any]]) -> pa.Table:
        converted = []
        for row, raw in zip(rows, raws, strict=True):
            converted.append(convert_row(raw, row.scene, self._crops[row.id]))
        return pa.Table.from_pylist(converted, schema=build_arrow_schema(COLUMNS))

    def note(self, rows: Sequence[DatasetRow], raws: Sequence[Mapping[str, Any]]) -> None:
        for row, raw in zip(rows, raws, strict=True):
            name = make_picture_name(row.scene, self._crops[row.id], b"").rpartition(".")[0]
            self._about.append({"name": name} | {column: raw.get(column) for column in PROVENANCE})

    def list_further_files(self, splits: Iterable[str]) -> Iterable[str]:
        return (ABOUT,)

    def render_further_files(self, entries: Entries) -> Mapping[str, bytes]:
        lines = [json.dumps(line, ensure_ascii=False) for line in self._about]
        return {ABOUT: "".join(f"{line}\n" for line in lines).encode()}

    def card(self, summary: DatasetSummary) -> str:
        return summary.format(_CARD, front=render_front(summary, COLUMNS))
