"""Checks what is on disk against what the manifests promise, down to every picture and pixel."""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rasura.manifests.formats import ober
from rasura.manifests.formats import rorem_export as exports_rorem
from rasura.manifests.images import RGB, BadImage, Mask
from rasura.manifests.schemas import TRIPLET, Kind, decode_value, schema_of
from rasura.manifests.shards import Line, read_manifest
from rasura.manifests.storage import Store
from rasura.manifests.tables import REFERENCE, Tables

BATCH_ROWS = 16


def outside(record: Mapping[str, Any]) -> Mask | None:
    """Where a triplet's source and target must be equal: outside M_fg, or outside the hole that a remover filled.

    Returns:
        (h, w) bool, or None where the row does not say what may differ.
    """
    if record.get("foreground_mask") is not None:
        return ~np.asarray(record["foreground_mask"], bool)
    if record.get("hole_dilation") is None:
        return None
    size = 2 * int(record["hole_dilation"]) + 1
    hole = np.asarray(record["mask"], np.uint8)
    return np.asarray(cv2.dilate(hole, np.ones((size, size), np.uint8)) == 0, bool)


def leaked(source: RGB, target: RGB, where: Mask) -> int:
    """Number of pixels that differ where they must not."""
    return int((np.any(source != target, axis=2) & where).sum())


def triplet_faults(record: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a decoded triplet."""
    pictures = {name: record.get(name) for name in ("source", "target", "mask")}
    if absent := [name for name, picture in pictures.items() if picture is None]:
        yield f"has no {', '.join(absent)}"
        return
    pictures |= {"foreground_mask": record.get("foreground_mask")}
    shapes = {name: picture.shape[:2] for name, picture in pictures.items() if picture is not None}
    if len(set(shapes.values())) > 1:
        yield f"its pictures differ in size: {shapes}"
        return
    if not record["mask"].any():
        yield "its mask is empty"
    where = outside(record)
    if where is not None and (count := leaked(record["source"], record["target"], where)):
        yield f"{count} pixels differ outside the foreground mask"


def _file_faults(store: Store, file: Mapping[str, Any]) -> tuple[bytes | None, list[str]]:
    try:
        data = store.read(file["name"])
    except FileNotFoundError:
        return None, ["the file is gone"]
    if hashlib.sha256(data).hexdigest() != file["sha256"]:
        return None, [f"its sha256 is not {file['sha256'][:12]}…: the file was changed or cut ({len(data)} bytes)"]
    return data, []


def _row_faults(
    raw: Mapping[str, Any], schema: Mapping[str, Kind], triplet: bool, names: Mapping[str, str]
) -> Iterator[str]:
    record: dict[str, Any] = {}
    for name, kind in schema.items():
        try:
            record[names.get(name, name)] = decode_value(kind, raw[name])
        except (BadImage, OSError) as error:
            yield f"its {name} does not decode: {error}"
            return
    if triplet:
        yield from triplet_faults(record)


def _parquet_faults(
    data: bytes, rows: int, ids: set[str], triplet: bool | None, names: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Faults of a data file.

    Args:
        ids: collects the ids seen, to find doubles.
        names: of another layout's columns, to ours; its rows have no ids, and no columns but those.
    """
    with pq.ParquetFile(io.BytesIO(data), pre_buffer=False) as source:
        if source.metadata.num_rows != rows:
            yield f"has {source.metadata.num_rows} rows, its manifest says {rows}"
        try:
            schema = schema_of(source.schema_arrow)
        except ValueError as error:
            yield str(error)
            return
        if b"huggingface" not in (source.schema_arrow.metadata or {}):
            yield "has no 'huggingface' key in its schema"
        is_triplet = triplet if triplet is not None else {"source", "target", "mask"} <= set(schema)
        wanted = names or TRIPLET
        if triplet and (missing := [name for name in wanted if name not in schema]):
            yield f"has no column {', '.join(missing)}"
            return
        number = 0
        for batch in source.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
            for raw in batch.to_pylist():
                row = str(number) if names else raw["id"]
                number += 1
                if not names and row in ids:
                    yield f"row {row}: stands twice"
                ids.add(row)
                for fault in _row_faults(raw, schema, is_triplet, names or {}):
                    yield f"row {row}: {fault}"


def _line_faults(line: Line, part: str | None) -> Iterator[str]:
    if part is not None and line.part != part:
        yield "was made by another recipe than the run's"
    passed = line.inputs
    for count in line.stages:
        if not count.balanced():
            yield f"stage '{count.stage}': in {count.inputs} is not kept + rejected + failed"
        if count.inputs != passed:
            yield f"stage '{count.stage}': {passed} came out before it, {count.inputs} went in"
        passed = count.out
    rows = line.data.rows if line.data else 0
    if passed != rows:
        yield f"{passed} rows came out, {rows} are on disk"
    lost = sum(sum(count.rejected.values()) + sum(count.failed.values()) for count in line.stages)
    if lost != (dropped := line.dropped.rows if line.dropped else 0):
        yield f"{lost} were rejected or failed, {dropped} have a row"


def verify_table(run: Store, flow: str, part: str | None) -> Iterator[str]:
    """Faults of one flow's table."""
    table = run.sub(f"tables/{flow}")
    if not table.exists("manifest.parquet"):
        yield f"tables/{flow}: not complete (no manifest.parquet)"
        return
    try:
        lines, *_ = read_manifest(table)
    except (pa.ArrowException, ValueError, KeyError, TypeError, OSError) as error:
        yield f"tables/{flow}/manifest.parquet: cannot be read: {error}"
        return
    ids: set[str] = set()
    for line in lines:
        where = f"tables/{flow}/{line.shard}"
        yield from (f"{where}: {fault}" for fault in _line_faults(line, part))
        for file in (line.data, line.dropped):
            if file is None:
                continue
            place = f"tables/{flow}/{file.name}"
            data, faults = _file_faults(table, {"name": file.name, "sha256": file.sha256})
            yield from (f"{place}: {fault}" for fault in faults)
            if data is not None and file is line.data:
                yield from (f"{place}: {fault}" for fault in _parquet_faults(data, file.rows, ids, None))
                yield from (f"{place}: {fault}" for fault in _reference_faults(run, data))


def _reference_faults(run: Store, data: bytes) -> Iterator[str]:
    """Rows of a selection whose pictures are not where they should be."""
    with pq.ParquetFile(io.BytesIO(data), pre_buffer=False) as source:
        if "ref_shard" not in source.schema_arrow.names:
            return
        table: pa.Table = source.read(columns=["id", *REFERENCE], use_threads=False)
    tables = Tables(run)
    for raw in table.to_pylist():
        try:
            there = tables.row(raw["ref_table"], raw["ref_shard"], raw["ref_row"], ["id"])["id"]
        except (FileNotFoundError, IndexError, pa.ArrowException):
            there = None
        if there != raw["id"]:
            place = f"{raw['ref_table']}/{raw['ref_shard']} row {raw['ref_row']}"
            yield f"row {raw['id']}: refers to {place}, where it is not"


def verify_dataset(dataset: Store) -> Iterator[str]:
    """Faults of a dataset: files, hashes, counts, columns, pictures, pixels."""
    if not dataset.exists("manifest.json"):
        yield f"{dataset.uri}: not complete (no manifest.json)"
        return
    try:
        manifest = json.loads(dataset.read("manifest.json"))
        files, rows = manifest["files"], manifest["rows"]
    except (ValueError, KeyError, TypeError) as error:
        yield f"manifest.json: cannot be read: {error!r}"
        return
    if manifest.get("layout") == exports_rorem.NAME:
        yield from exports_rorem.faults(dataset, manifest)
        return
    ids: set[str] = set()
    names = ober.TRIPLET if manifest.get("layout") == "ober" else None
    for file in files:
        data, faults = _file_faults(dataset, file)
        yield from (f"{file['name']}: {fault}" for fault in faults)
        if data is not None:
            yield from (f"{file['name']}: {fault}" for fault in _parquet_faults(data, file["rows"], ids, True, names))
    if (total := sum(file["rows"] for file in files)) != rows:
        yield f"manifest.json: its files have {total} rows, it says {rows}"
    listed = {file["name"].removeprefix("data/") for file in files}
    if extra := sorted(set(dataset.files("data")) - listed):
        yield f"data/: files that are not in the manifest: {', '.join(extra)}"
    if not dataset.exists("README.md"):
        yield "README.md: the card is gone"


def verify(where: Store) -> tuple[list[str], Sequence[str]]:
    """All faults of a run or a dataset, and what was checked.

    Raises:
        FileNotFoundError: it is neither.
    """
    if not where.exists("plan.json"):
        if not where.exists("manifest.json"):
            raise FileNotFoundError(f"'{where.uri}' is neither a run (plan.json) nor a dataset (manifest.json)")
        return list(verify_dataset(where)), ["dataset"]
    about = json.loads(where.read("plan.json"))
    faults: list[str] = []
    checked: list[str] = []
    for flow, entry in about["flows"].items():
        faults += verify_table(where, flow, entry["part"])
        checked.append(f"tables/{flow}")
    if about["dataset"]:
        faults += [f"dataset/{fault}" for fault in verify_dataset(where.sub("dataset"))]
        checked.append("dataset")
    return faults, checked
