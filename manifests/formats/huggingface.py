"""A run's triplets as one dataset that `datasets.load_dataset` opens: data files, card, manifest.

The files depend on the rows alone: rows are sorted by id and packed by their own sizes, so neither shard size nor
worker count changes a byte.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import pyarrow as pa

from rasura.manifests.formats.card import card
from rasura.manifests.ids import stable_hash
from rasura.manifests.parquet import parquet_bytes
from rasura.manifests.schemas import PICTURES, TRIPLET, Kind, arrow_schema
from rasura.manifests.storage import Store
from rasura.manifests.tables import REFERENCE, Table, Tables

REQUIRED = ("id", "source", "target", "mask", "kind", "scene_id", "split")
FORMAT = 1


OURS = re.compile(r"\w+-\d{5}-of-\d{5}\.parquet")
VARIANT = re.compile(r"mask_\w+")  # pictures that are exported beside the triplet's own: what stage `masks` adds


class ForeignFolder(ValueError):
    """The target holds files that no export wrote."""


class NotTriplets(ValueError):
    """A flow's rows are no triplets, or two flows have rows of one id."""


@dataclass(frozen=True)
class Row:
    """Where a row of the dataset stands in the run."""

    id: str
    split: str
    bytes: int
    kind: str
    licence: str | None
    table: str
    shard: str
    row: int
    scene: str = ""


class Layout(Protocol):
    """What a dataset looks like on disk; `Plain` is Rasura's own."""

    name: str

    def ordered(self, rows: Sequence[Row]) -> list[Row]:
        """The order of rows in the files. `rows` are sorted by id."""

    def table(self, rows: Sequence[Row], raws: Sequence[Mapping[str, Any]]) -> pa.Table:
        """One data file's rows, from what they are in the run: pictures encoded."""

    @property
    def columns(self) -> Sequence[str]:
        """What `table` needs to know of a row."""

    def card(self, told: "Told") -> str:
        """README.md."""

    def more(self) -> Mapping[str, bytes]:
        """Further files, by their names, when all rows have passed `table`."""


@dataclass(frozen=True)
class Told:
    """What a card says of a dataset."""

    name: str
    recipe_hash: str
    splits: Mapping[str, tuple[int, int]]  # split -> rows, bytes
    kinds: Mapping[str, int]
    licences: Sequence[str]


def dataset_columns(tables: Sequence[Table]) -> dict[str, Kind]:
    """Columns of the dataset: the triplet's, then what else is light in any of the flows, and variants of the mask.

    Raises:
        NotTriplets
    """
    columns = dict(TRIPLET)
    for table in tables:
        if missing := [name for name in REQUIRED if name not in table.whole]:
            raise NotTriplets(f"rows of flow '{table.name}' are no triplets: they have no {', '.join(missing)}")
        for name, kind in table.whole.items():
            if name not in REFERENCE and (kind not in PICTURES or VARIANT.fullmatch(name)):
                columns.setdefault(name, kind)
    return columns


def rows_of(tables: Sequence[Table]) -> list[Row]:
    """All rows, sorted by id.

    Raises:
        NotTriplets: an id stands in two flows.
    """
    rows: list[Row] = []
    for table in tables:
        light = table.light(["split", "bytes", "kind", "licence", "scene_id"])
        for raw in light.to_pylist():
            rows.append(
                Row(
                    raw["id"], raw["split"], raw["bytes"] or 0, raw["kind"], raw["licence"],
                    table.name, raw["shard"], raw["row"], raw["scene_id"] or raw["id"],
                )
            )  # fmt: skip
    rows.sort(key=lambda row: (row.id, row.table))
    for before, after in pairwise(rows):
        if before.id == after.id:
            raise NotTriplets(f"id {after.id} stands in flow '{before.table}' and in flow '{after.table}'")
    return rows


def pack(rows: Sequence[Row], limit: int) -> list[list[Row]]:
    """Consecutive rows in files of at most `limit` bytes of pictures; one that is larger is alone."""
    files: list[list[Row]] = []
    size = 0
    for row in rows:
        if not files or size + row.bytes > limit:
            files.append([])
            size = 0
        files[-1].append(row)
        size += row.bytes
    return files


def raw_row(tables: Tables, row: Row, columns: Sequence[str]) -> dict[str, Any]:
    """A row as it is encoded on disk, references followed; columns it lacks are None."""

    def read(table: str, shard: str, index: int) -> dict[str, Any]:
        raw: dict[str, Any] = tables.encoded(table, shard, index).to_pylist()[0]
        if raw.get("ref_shard") is not None:
            raw = read(raw["ref_table"], raw["ref_shard"], raw["ref_row"]) | raw
        return raw

    raw = read(row.table, row.shard, row.row)
    return {name: raw.get(name) for name in columns}


def _fetched(tables: Tables, rows: Sequence[Row], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Rows as they are encoded, in their order; fetched shard by shard, so that each row group is read once."""
    order = {row.id: index for index, row in enumerate(rows)}
    fetched: list[dict[str, Any]] = [{}] * len(rows)
    for row in sorted(rows, key=lambda row: (row.table, row.shard, row.row)):
        fetched[order[row.id]] = raw_row(tables, row, columns)
    return fetched


class Plain:
    """Rasura's own layout: a triplet's columns by their names, and all that was measured."""

    name = "huggingface"

    def __init__(self, parts: Sequence[Table]) -> None:
        self._columns = dataset_columns(parts)

    @property
    def columns(self) -> Sequence[str]:
        return list(self._columns)

    def ordered(self, rows: Sequence[Row]) -> list[Row]:
        return list(rows)

    def table(self, rows: Sequence[Row], raws: Sequence[Mapping[str, Any]]) -> pa.Table:
        return pa.Table.from_pylist(list(raws), schema=arrow_schema(self._columns))

    def card(self, told: Told) -> str:
        return card(told.name, told.recipe_hash, self._columns, told.splits, told.kinds, told.licences)

    def more(self) -> Mapping[str, bytes]:
        return {}


def export_key(tables: Tables, flows: Sequence[str], recipe_hash: str, shard_bytes: int) -> str:
    """Identity of what `export` would write."""
    contents = [[line.data.sha256 for line in tables.table(flow).lines if line.data] for flow in flows]
    return stable_hash([FORMAT, recipe_hash, shard_bytes, list(flows), contents])


def export(
    tables: Tables,
    flows: Sequence[str],
    out: Store,
    name: str,
    recipe_hash: str,
    splits: Sequence[str],
    shard_bytes: int,
    progress: Callable[[int], None] = lambda rows: None,
    layout: Callable[[Sequence[Table]], Layout] = Plain,
) -> dict[str, Any]:
    """Writes the dataset and returns its manifest.

    Raises:
        NotTriplets: a flow's rows cannot be exported.
        ForeignFolder: the target holds something else.
        StoreError: the target cannot be written.
    """
    parts = [tables.table(flow) for flow in flows]
    foreign = [name for name in out.files("data") if not OURS.fullmatch(name)]
    if foreign or (out.exists("README.md") and b"Made by Rasura" not in out.read("README.md")):
        raise ForeignFolder(
            f"{out.uri} holds files of something else ({(foreign or ['README.md'])[0]}); name a new folder"
        )
    out.delete("manifest.json")  # from here on until the end the folder is visibly no dataset
    chosen = layout(parts)
    rows = chosen.ordered(rows_of(parts))
    files: list[dict[str, Any]] = []
    sizes: dict[str, tuple[int, int]] = {}
    for split, packed in _packed(rows, splits, shard_bytes):
        for index, part in enumerate(packed):
            file = f"data/{split}-{index:05d}-of-{len(packed):05d}.parquet"
            data = parquet_bytes(chosen.table(part, _fetched(tables, part, chosen.columns)))
            out.write(file, data)
            sha = hashlib.sha256(data).hexdigest()
            files.append({"name": file, "sha256": sha, "bytes": len(data), "rows": len(part)})
            count, size = sizes.get(split, (0, 0))
            sizes[split] = (count + len(part), size + len(data))
            progress(len(part))
    for stale in set(filter(OURS.fullmatch, out.files("data"))) - {
        str(file["name"]).removeprefix("data/") for file in files
    }:
        out.delete(f"data/{stale}")
    for file, data in chosen.more().items():
        out.write(file, data)
    kinds = Counter(row.kind for row in rows)
    licences = sorted({row.licence for row in rows if row.licence})
    out.write("README.md", chosen.card(Told(name, recipe_hash, sizes, kinds, licences)).encode())
    manifest = {"name": name, "recipe": recipe_hash, "rows": len(rows), "files": files}
    if chosen.name != Plain.name:
        manifest["layout"] = chosen.name
    out.write("manifest.json", (json.dumps(manifest, indent=1) + "\n").encode())
    return manifest


def _packed(rows: Sequence[Row], splits: Sequence[str], limit: int) -> Iterator[tuple[str, list[list[Row]]]]:
    order = [*splits, *sorted({row.split for row in rows} - set(splits))]
    for split in order:
        if chosen := [row for row in rows if row.split == split]:
            yield split, pack(chosen, limit)
