"""The listing of a flow: its inputs, cut into shards, as Parquet parts of which few shards are in memory at a time."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rasura.manifests.checks.sealed_json import parse_sealed, seal
from rasura.manifests.ids import hash_json
from rasura.manifests.parquet import read_parquet
from rasura.manifests.run_layout import LISTINGS
from rasura.manifests.shards import DamagedFile, explain_damage
from rasura.manifests.storage import Store

INDEX = "index.json"
GROUP_SHARDS = 128  # in a row group: what is read for one shard
PART_SHARDS = 32 * GROUP_SHARDS
_SCHEMA = pa.schema({"shard": pa.string(), "inputs": pa.int64(), "items": pa.string()})

Item = Mapping[str, Any]


@dataclass(frozen=True)
class ListingIndex:
    """What `listings/<flow>/index.json` says of a listing.

    Attributes:
        key: identity of what the inputs were listed from; empty where that is unknown, so that they are listed anew.
        parts: names of the files from the run's folder, each with `PART_SHARDS` shards but the last one.
        inputs: the number of all inputs.
        warning: that was logged when they were listed; empty where there was none.
    """

    key: str
    parts: Sequence[str]
    inputs: int
    warning: str = ""


class Listing:
    """The inputs of a flow, cut into shards.

    Attributes:
        index: of its files.
        ids: of its shards, in order.
        counts: the number of inputs of each.
    """

    def __init__(self, run: Store, index: ListingIndex) -> None:
        self._run, self.index = run, index
        tables = [self._read(name, ["shard", "inputs"]) for name in index.parts]
        table = pa.concat_tables(tables) if tables else _SCHEMA.empty_table()
        self.ids: list[str] = table["shard"].to_pylist()
        self.counts: list[int] = table["inputs"].to_pylist()
        self._group: tuple[tuple[str, int], list[str]] = (("", 0), [])

    def _read(self, name: str, columns: Sequence[str], group: int | None = None) -> pa.Table:
        with explain_damage(self._run, name), self._run.open(name) as source:
            return read_parquet(source, columns, group)

    def read_items(self, shard: int) -> list[dict[str, Any]]:
        """Read the inputs of a shard.

        Args:
            shard: its place in `ids`.

        Raises:
            DamagedFile: the file that has them is missing or damaged.
        """
        part, place = divmod(shard, PART_SHARDS)
        name, (group, row) = self.index.parts[part], divmod(place, GROUP_SHARDS)
        if self._group[0] != (name, group):
            self._group = (name, group), self._read(name, ["items"], group)["items"].to_pylist()
        with explain_damage(self._run, name):
            return list(json.loads(self._group[1][row]))


def encode_items(items: Sequence[Item]) -> str:
    """Encode the inputs of a shard.

    Raises:
        TypeError: one has a value that JSON does not.
    """
    return json.dumps(items, separators=(",", ":"), ensure_ascii=True)


def write_listing(
    run: Store, flow: str, shards: Iterable[tuple[str, Sequence[Item]]], key: str, warning: str = ""
) -> ListingIndex:
    """Write the inputs of a flow, and delete those that were listed before.

    Args:
        run: the run.
        flow: name of the flow.
        shards: ids and inputs, in order.
        key, warning: of the index.

    Raises:
        TypeError: an input has a value that JSON does not.
        StoreError: the run cannot be written.
    """
    folder = f"{LISTINGS}/{flow}"
    before = {f"{folder}/{name}" for name in run.files(folder) if name != INDEX}
    parts: list[str] = []
    inputs, iterator = 0, iter(shards)
    while chunk := list(islice(iterator, PART_SHARDS)):
        columns = [
            pa.array([id for id, _ in chunk], pa.string()),
            pa.array([len(items) for _, items in chunk], pa.int64()),
            pa.array([encode_items(items) for _, items in chunk], pa.string()),
        ]
        out = io.BytesIO()
        table = pa.Table.from_arrays(columns, schema=_SCHEMA)
        pq.write_table(table, out, row_group_size=GROUP_SHARDS, compression="zstd", write_page_checksum=True)
        # by its shards: the files of the present listing are whole until the index names others
        name = f"{folder}/{hash_json([id for id, _ in chunk])}.parquet"
        run.write(name, out.getbuffer())
        parts.append(name)
        inputs += sum(len(items) for _, items in chunk)
    index = ListingIndex(key, parts, inputs, warning)
    values = {"key": key, "parts": parts, "inputs": inputs, "warning": warning}
    run.write(f"{folder}/{INDEX}", json.dumps(seal(values)).encode())
    for name in before - set(parts):
        run.delete(name)
    return index


def read_listing_index(run: Store, flow: str) -> ListingIndex | None:
    """Read what a flow's inputs were listed from; None where they were not listed, or the index is damaged."""
    try:
        raw = parse_sealed(run.read(f"{LISTINGS}/{flow}/{INDEX}"))
        return ListingIndex(raw["key"], raw["parts"], raw["inputs"], raw["warning"])
    except (FileNotFoundError, NotADirectoryError, KeyError, TypeError, ValueError):
        return None


def open_listing(run: Store, index: ListingIndex) -> Listing | None:
    """Open a listing; None where a file of it is missing or damaged."""
    try:
        return Listing(run, index)
    except DamagedFile:
        return None
