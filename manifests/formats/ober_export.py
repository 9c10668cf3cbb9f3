"""A run's triplets in OBER's Parquet layout, so that ObjectClear's loader and trainer take them as they are.

Only OBER's columns are in the data files. What else a row has to say (its id, licence, origin, label) stands in
`rows.jsonl`, by the name that its pictures carry.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import yaml

from rasura.manifests.formats.huggingface import Row, Told
from rasura.manifests.formats.ober import COLUMNS, PICTURES, TRIPLET, raw_row
from rasura.manifests.schemas import arrow_schema
from rasura.manifests.tables import Table

ABOUT = ("id", "scene_id", "split", "kind", "label", "origin", "licence", "parents")
_CARD = """---
{front}---
# {name}

{rows} pairs in OBER's layout: `input` (with the object), `gt` (without it and its effects), `object_mask` (the object,
white), `object_effect_mask` (object and effects; null where it is not known). `subset` is how a pair was made:
captured, simulated or edited. A picture's `path` is `<scene>_<crop>.<ext>`; all crops of a scene are in one split.
`rows.jsonl` has each pair's id, origin and licence by that name. Made by Rasura from the recipe `{name}` (hash
`{recipe}`).

| split | rows | bytes |
|---|---|---|
{splits}

| subset | rows |
|---|---|
{kinds}

Licences of the pictures in it: {licences}.
"""


class OberLayout:
    """Rows of a scene stand together and are numbered as its crops."""

    name = "ober"

    def __init__(self, parts: Sequence[Table]) -> None:
        self._crops: dict[str, int] = {}
        self._about: list[dict[str, Any]] = []

    @property
    def columns(self) -> Sequence[str]:
        return [*TRIPLET.values(), *ABOUT]

    def ordered(self, rows: Sequence[Row]) -> list[Row]:
        result = sorted(rows, key=lambda row: (row.scene, row.id))
        counts: dict[str, int] = {}
        for row in result:
            self._crops[row.id] = counts[row.scene] = counts.get(row.scene, -1) + 1
        return result

    def table(self, rows: Sequence[Row], raws: Sequence[Mapping[str, Any]]) -> pa.Table:
        made = []
        for row, raw in zip(rows, raws, strict=True):
            made.append(raw_row(raw, row.scene, self._crops[row.id]))
            name = made[-1]["input"]["path"].rpartition(".")[0]
            self._about.append({"name": name} | {column: raw.get(column) for column in ABOUT})
        return pa.Table.from_pylist(made, schema=arrow_schema(COLUMNS))

    def more(self) -> Mapping[str, bytes]:
        lines = [json.dumps(line, ensure_ascii=False) for line in self._about]
        return {"rows.jsonl": "".join(f"{line}\n" for line in lines).encode()}

    def card(self, told: Told) -> str:
        features = [{"name": name, "dtype": "image" if name in PICTURES else "string"} for name in COLUMNS]
        files = [{"split": split, "path": f"data/{split}-*"} for split in told.splits]
        sizes = [{"name": n, "num_examples": rows, "num_bytes": size} for n, (rows, size) in told.splits.items()]
        front = {
            "pretty_name": told.name,
            "task_categories": ["image-to-image"],
            "tags": ["object-removal", "inpainting"],
            "configs": [{"config_name": "default", "data_files": files}],
            "dataset_info": {"features": features, "splits": sizes},
        }
        return _CARD.format(
            front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
            name=told.name,
            rows=sum(rows for rows, _ in told.splits.values()),
            recipe=told.recipe_hash,
            splits="\n".join(f"| {split} | {rows} | {size} |" for split, (rows, size) in told.splits.items()),
            kinds="\n".join(f"| {kind} | {rows} |" for kind, rows in sorted(told.kinds.items())),
            licences=", ".join(told.licences) or "none given",
        )
