"""Pairs as Parquet with the columns of diffusers' scripts: `input_image`, `edit_prompt`, `edited_image`.

`train_instruct_pix2pix.py` has these names as its defaults; the scripts for FLUX.1 Kontext, FLUX.2 and Qwen-Image take
them as `--cond_image_column`, `--caption_column` and `--image_column` (diffusers 0.40, examples/). Pictures keep their
bytes. No column is null where the run's is not: a script decodes all of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from rasura.manifests.formats.card import render_front
from rasura.manifests.formats.dataset_rows import DatasetRow, DatasetSummary, NotTriplets
from rasura.manifests.formats.folder_export import LeftOut
from rasura.manifests.formats.tables.layout import TableLayout
from rasura.manifests.formats.trainers import pairs
from rasura.manifests.formats.trainers.pairs import PairSettings, make_pair
from rasura.manifests.images import encode_mask
from rasura.manifests.schemas import Kind, Schema, build_arrow_schema
from rasura.manifests.tables import Table

NAME = "diffusers"
TEXTS = ("id", "scene_id", "split", "kind", "label", "origin", "licence")
SCHEMA: Schema = {
    "input_image": Kind.RGB,
    "edit_prompt": Kind.STRING,
    "edited_image": Kind.RGB,
    "mask": Kind.MASK,
    "change": Kind.MASK,
    **dict.fromkeys(TEXTS, Kind.STRING),
}
_NAMES = ("input_image", "edited_image", "mask", "change", "split")
TRIPLET = dict(zip(_NAMES, ("source", "target", "mask", "foreground_mask", "split"), strict=True))
"""Columns -> those of a triplet that they are checked as."""
_CARD = """---
{front}---
# {name}

{rows} pairs for models that edit by text: `input_image` (the picture {condition} the object), `edit_prompt`,
`edited_image` (the one {answer} it). `mask` is the object (white), `change` where the two may differ. Made by Rasura
from the recipe `{name}` (hash `{recipe}`).

| split | rows | bytes |
|---|---|---|
{splits}

| kind | rows | meaning |
|---|---|---|
{kinds}

Licences of the pictures in it: {licences}.
"""


class DiffusersLayout(TableLayout):
    """The columns for `manifests.formats.tables.table_export`. Rows that make no pair are left out before.

    Args:
        parts: tables of the rows.
        settings: direction and language of the pairs.
    """

    name = NAME
    columns = (*pairs.COLUMNS, *TEXTS)

    def __init__(self, parts: Sequence[Table], settings: PairSettings) -> None:
        self._settings = settings

    def table(self, rows: Sequence[DatasetRow], raws: Sequence[Mapping[str, Any]]) -> pa.Table:
        converted = [self._convert(row, raw) for row, raw in zip(rows, raws, strict=True)]
        return pa.Table.from_pylist(converted, schema=build_arrow_schema(SCHEMA))

    def _convert(self, row: DatasetRow, raw: Mapping[str, Any]) -> dict[str, Any]:
        pair = make_pair(row, raw, self._settings)
        if isinstance(pair, LeftOut):
            raise NotTriplets(f"row {row.id} of flow '{row.table}' is no pair: {pair.reason}")
        condition, answer = ("source", "target") if self._settings.direction == "removal" else ("target", "source")
        pictures = {
            "input_image": raw[condition],
            "edited_image": raw[answer],
            "mask": raw["mask"],
            "change": {"bytes": encode_mask(pair.change), "path": raw["mask"]["path"]},
        }
        return pictures | {"edit_prompt": pair.text} | {name: raw.get(name) or "" for name in TEXTS}

    def card(self, summary: DatasetSummary) -> str:
        condition, answer = ("with", "without") if self._settings.direction == "removal" else ("without", "with")
        return summary.format(_CARD, front=render_front(summary, SCHEMA), condition=condition, answer=answer)
