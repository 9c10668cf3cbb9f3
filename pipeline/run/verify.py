"""Checking of what is on disk against the manifests, down to every picture and pixel."""

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rasura.manifests.checks.rows import find_size_fault
from rasura.manifests.compacted.manifest import read_manifest, read_names
from rasura.manifests.errors import StorageError
from rasura.manifests.fingerprints import compute_fingerprint
from rasura.manifests.formats import folder_export
from rasura.manifests.formats.registry import FORMATS, PICTURE_MEMBERS, TABLE_LAYOUTS, TRIPLET_COLUMNS
from rasura.manifests.formats.tables.data_files import SUFFIXES, find_split, open_data_file
from rasura.manifests.formats.target import DATA
from rasura.manifests.formats.trainers import tars
from rasura.manifests.ids import is_split_name
from rasura.manifests.images import RGB, BadImage, Mask, decode_image
from rasura.manifests.json_lines import parse_json
from rasura.manifests.run_layout import (
    DATASET,
    DATASET_CARD,
    DATASET_MANIFEST,
    LOOP,
    MANIFEST,
    PLAN,
    commit_path,
    read_plan,
    table_path,
)
from rasura.manifests.schemas import TRIPLET, Kind, decode_value, list_required, read_schema
from rasura.manifests.shards import CommitRecord, DamagedFile, find_record_fault, read_commit
from rasura.manifests.storage import Store
from rasura.manifests.tables import RUN_REFERENCE, NoTable, Tables
from rasura.pipeline.run.leaks import SplitPicture, find_leaks

BATCH_ROWS = 16
OnRows = Callable[[int], None]
"""Receives the number of rows that were checked since the last call."""


class NothingToVerify(StorageError):
    """A folder that has neither a run nor a dataset."""


class StageFault(str):
    """A fault that no disk has made: the file is as it was committed, and a stage made what is in it."""

    __slots__ = ()


class Verification(NamedTuple):
    """The result of a check: the faults, a sentence each, and what was checked. Some faults are `StageFault`s."""

    faults: list[str]
    checked: Sequence[str]


def find_equal_region(record: Mapping[str, Any]) -> Mask | None:
    """Find where a triplet's source and target must be equal: outside M_fg, or outside the hole that was filled.

    Args:
        record: a decoded triplet.

    Returns:
        (h, w) bool, or None where the row does not say what may differ.

    Examples:
        >>> find_equal_region({"foreground_mask": np.array([[True, False]])})
        array([[False,  True]])
    """
    if record.get("foreground_mask") is not None:
        return ~np.asarray(record["foreground_mask"], bool)
    if record.get("hole_dilation") is None:
        return None
    size = 2 * int(record["hole_dilation"]) + 1
    hole = np.asarray(record["mask"], np.uint8)
    return np.asarray(cv2.dilate(hole, np.ones((size, size), np.uint8)) == 0, bool)


def count_leaked_pixels(source: RGB, target: RGB, region: Mask) -> int:
    """Count the pixels that differ where they must not.

    Args:
        source, target: (h, w, 3) uint8.
        region: (h, w) bool, where they must be equal.

    Examples:
        >>> source = np.zeros((1, 2, 3), np.uint8)
        >>> count_leaked_pixels(source, source + np.uint8(1), np.array([[True, False]]))
        1
    """
    return int((np.any(source != target, axis=2) & region).sum())


def find_triplet_faults(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the faults of a decoded triplet."""
    pictures = {name: record.get(name) for name in ("source", "target", "mask")}
    if absent := [name for name, picture in pictures.items() if picture is None]:
        yield f"has no {', '.join(absent)}"
        return
    if fault := find_size_fault(record):
        yield fault
        return
    if not record["mask"].any():
        yield "its mask is empty"
    region = find_equal_region(record)
    if region is not None and (count := count_leaked_pixels(record["source"], record["target"], region)):
        yield f"{count} pixels differ outside the foreground mask"


def _read_file(store: Store, file: Mapping[str, Any]) -> tuple[bytes | None, list[str]]:
    """Read a file; None and its faults where it is not what its manifest says."""
    try:
        data = store.read(file["name"])
    except FileNotFoundError:
        return None, ["the file is gone"]
    if hashlib.sha256(data).hexdigest() != file["sha256"]:
        return None, [f"its sha256 is not {file['sha256'][:12]}…: the file was changed or cut ({len(data)} bytes)"]
    return data, []


def _find_place_faults(record: Mapping[str, Any], split: str | None) -> Iterator[str]:
    """Yield what is wrong with a row's scene and split; `split` is that of its file, where a file has one."""
    if "scene_id" in record and not record["scene_id"]:
        yield "has no scene_id"
    if "split" in record and not is_split_name(record["split"]):
        yield f"its split is {record['split']!r}, no word"
    elif split is not None and record.get("split") != split:
        yield f"its split is {record.get('split')}, but the file is of {split}"


def _find_row_faults(
    raw: Mapping[str, Any],
    schema: Mapping[str, Kind],
    triplet: bool,
    names: Mapping[str, str],
    pictures: list[SplitPicture] | None,
    split: str | None,
) -> Iterator[str]:
    record: dict[str, Any] = {}
    for name, kind in schema.items():
        try:
            record[names.get(name, name)] = decode_value(kind, raw[name])
        except (BadImage, OSError) as error:
            yield f"its {name} does not decode: {error}"
            return
    if triplet:
        yield from find_triplet_faults(record)
        if not names:
            yield from _find_place_faults(record, split)
    if pictures is not None and record.get("target") is not None:
        row = str(raw.get("id") or (raw.get("gt") or {}).get("path"))
        pictures.append(SplitPicture(record["split"], row, compute_fingerprint(record["target"])))


def _find_data_faults(
    data: bytes,
    name: str,
    rows: int,
    ids: set[str],
    triplet: bool | None,
    on_rows: OnRows,
    names: Mapping[str, str] | None = None,
    pictures: list[SplitPicture] | None = None,
    split: str | None = None,
) -> Iterator[StageFault]:
    """Yield the faults of a data file that is as it was committed.

    Args:
        data: its bytes.
        name: of the file, whose suffix is that of its format.
        rows: the number of rows that its manifest states.
        ids: collects the ids, to find doubles.
        triplet: the rows are triplets; None where their columns decide.
        names: of another layout's columns, to ours; its rows have no ids, and no columns but those.
        pictures: collects the clean pictures, to find those that are in two splits.
        split: of its rows, where that is known.
    """
    with open_data_file(name, data, BATCH_ROWS) as source:
        if source.rows != rows:
            yield StageFault(f"has {source.rows} rows, its manifest says {rows}")
        try:
            schema = read_schema(source.schema)
        except ValueError as error:
            yield StageFault(error)
            return
        if b"huggingface" not in (source.schema.metadata or {}):
            yield StageFault("has no 'huggingface' key in its schema")
        is_triplet = triplet if triplet is not None else bool(list_required(schema))
        if triplet and (missing := [name for name in names or TRIPLET if name not in schema]):
            yield StageFault(f"has no column {', '.join(missing)}")
            return
        number = 0
        for batch in source.batches:
            on_rows(batch.num_rows)
            for raw in batch.to_pylist():
                row = str(number) if names else raw["id"]
                number += 1
                if not names and row in ids:
                    yield StageFault(f"row {row}: is there twice")
                ids.add(row)
                for fault in _find_row_faults(raw, schema, is_triplet, names or {}, pictures, split):
                    yield StageFault(f"row {row}: {fault}")


def _find_record_faults(table: Store, record: CommitRecord, part: str | None) -> Iterator[str]:
    """Yield the faults of a record that a manifest has, and of the shard's own one."""
    if part is not None and record.part != part:
        yield "was made by another recipe than the run's"
    if fault := find_record_fault(record):
        yield fault
    try:
        if read_commit(table, record.shard) != record:
            yield f"{commit_path(record.shard)} says something else than {MANIFEST}"
    except DamagedFile as error:
        yield str(error)


def verify_table(run: Store, flow: str, part: str | None, on_rows: OnRows = lambda rows: None) -> Iterator[str]:
    """Yield the faults of one flow's table."""
    place, table = table_path(flow), run.sub(table_path(flow))
    if not table.exists(MANIFEST):
        yield f"{place}: not complete (no {MANIFEST})"
        return
    try:
        records, *_ = read_manifest(table)
        read_names(table)
    except StorageError as error:
        yield str(error)
        return
    ids: set[str] = set()
    for record in records:
        yield from (f"{place}/{record.shard}: {fault}" for fault in _find_record_faults(table, record, part))
        for file in (record.data, record.rejected):
            if file is None:
                continue
            data, faults = _read_file(table, {"name": file.name, "sha256": file.sha256})
            if data is not None and file is record.data:
                faults += _find_data_faults(data, file.name, file.rows, ids, None, on_rows)
                faults += _find_reference_faults(run, data)
            yield from _add_place(f"{place}/{file.name}: ", faults)


def _add_place(place: str, faults: Iterable[str]) -> Iterator[str]:
    """Yield faults with their place before them; what no disk has made stays that."""
    yield from ((StageFault if isinstance(fault, StageFault) else str)(f"{place}{fault}") for fault in faults)


def _find_reference_faults(run: Store, data: bytes) -> Iterator[str]:
    """Yield the rows of a selection whose pictures are not where they should be."""
    with pq.ParquetFile(io.BytesIO(data), pre_buffer=False) as source:
        if "ref_shard" not in source.schema_arrow.names:
            return
        names = [name for name in ("id", *RUN_REFERENCE) if name in source.schema_arrow.names]
        table: pa.Table = source.read(columns=names, use_threads=False)
    tables, damaged = Tables(run), set[str]()
    for raw in table.to_pylist():
        try:
            place = (raw["ref_table"], raw["ref_shard"], raw["ref_row"])
            target = tables.open_run(raw.get("ref_run")).row(*place, ["id"])["id"]
        except DamagedFile as error:
            if error.place not in damaged:  # once, and not for each row
                damaged.add(error.place)
                yield f"its rows refer to rows of a damaged file: {error}"
            continue
        except (NoTable, IndexError):
            target = None
        if target != raw["id"]:
            run_name = f"{raw['ref_run']}: " if raw.get("ref_run") else ""
            text = f"{run_name}{raw['ref_table']}/{raw['ref_shard']} row {raw['ref_row']}"
            yield f"row {raw['id']}: refers to {text}, where it is not"


def _read_fingerprint(split: str, row: str, data: bytes) -> Iterator[SplitPicture]:
    """Yield the fingerprint of an encoded picture; none of one that cannot be read, which is a fault of its own."""
    with contextlib.suppress(BadImage, OSError):
        yield SplitPicture(split, row, compute_fingerprint(decode_image(data)))


def _find_folder_faults(dataset: Store, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield the faults of an export whose pictures are files, or members of tars."""
    pictures: list[SplitPicture] = []
    if manifest["layout"] in PICTURE_MEMBERS:
        for fault in tars.find_faults(dataset, manifest, PICTURE_MEMBERS[manifest["layout"]]):
            if isinstance(fault, str):
                yield fault
            else:
                pictures += _read_fingerprint(*fault)
    else:
        yield from folder_export.find_faults(dataset, manifest)
        for split, row, path in folder_export.list_targets(dataset, manifest):
            pictures += _read_fingerprint(split, row, dataset.read(path) if dataset.exists(path) else b"")
    yield from find_leaks(pictures)


def verify_dataset(dataset: Store, on_rows: OnRows = lambda rows: None) -> Iterator[str]:
    """Yield the faults of a dataset: files, hashes, counts, columns, pictures, pixels."""
    if not dataset.exists(DATASET_MANIFEST):
        yield f"{dataset.uri}: not complete (no {DATASET_MANIFEST})"
        return
    try:
        manifest = parse_json(dataset.read(DATASET_MANIFEST), DATASET_MANIFEST)
        files: list[dict[str, Any]] = [
            {"name": str(file["name"]), "sha256": str(file["sha256"]), "rows": int(file["rows"])}
            for file in manifest["files"]
        ]
        rows = int(manifest["rows"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        yield f"{DATASET_MANIFEST}: is damaged; run the recipe again, or export again, which writes the dataset anew"
        return
    if manifest.get("layout") in FORMATS and manifest["layout"] not in TABLE_LAYOUTS:
        yield from _find_folder_faults(dataset, manifest)
        on_rows(rows)
        return
    ids: set[str] = set()
    pictures: list[SplitPicture] = []
    names = TRIPLET_COLUMNS.get(str(manifest.get("layout")))
    for file in files:
        data, faults = _read_file(dataset, file)
        if data is not None and (name := str(file["name"])).endswith(SUFFIXES):
            split = None if names else find_split(name)
            faults += _find_data_faults(data, name, file["rows"], ids, True, on_rows, names, pictures, split)
        yield from _add_place(f"{file['name']}: ", faults)
    yield from find_leaks(pictures)
    if (total := sum(file["rows"] for file in files)) != rows:
        yield f"{DATASET_MANIFEST}: its files have {total} rows, it says {rows}"
    listed = {file["name"] for file in files}
    for folder in sorted({*(name.rpartition("/")[0] for name in listed), DATA} - {""}):
        if extra := sorted(name for name in dataset.files(folder) if f"{folder}/{name}" not in listed):
            yield f"{folder}/: files that are not in the manifest: {', '.join(extra)}"
    if not dataset.exists(DATASET_CARD):
        yield f"{DATASET_CARD}: the card is missing"


def count_rows(store: Store) -> int:
    """Count the rows that `verify` will check, from the manifests alone; damaged ones count for nothing."""
    rows = 0
    if store.exists(PLAN):
        plan = read_plan(store)
        for flow in plan.flows:
            with contextlib.suppress(OSError):
                rows += sum(record.rows for record in read_manifest(store.sub(table_path(flow)))[0])
        store = store.sub(DATASET)
    with contextlib.suppress(ValueError, KeyError, TypeError, OSError):
        rows += int(parse_json(store.read(DATASET_MANIFEST), DATASET_MANIFEST)["rows"])
    return rows


def verify(store: Store, on_rows: OnRows = lambda rows: None) -> Verification:
    """Check a run or a dataset.

    Args:
        store: the folder or bucket prefix.
        on_rows: receives the number of rows that were checked since the last call.

    Raises:
        NothingToVerify: it is neither.
    """
    if not store.exists(PLAN) and not store.exists(LOOP):  # of a loop, `read_plan` says what to verify
        if not store.exists(DATASET_MANIFEST):
            raise NothingToVerify(f"'{store.uri}' is neither a run ({PLAN}) nor a dataset ({DATASET_MANIFEST})")
        return Verification(list(verify_dataset(store, on_rows)), ["dataset"])
    plan = read_plan(store)
    faults: list[str] = []
    checked: list[str] = []
    for name, flow in plan.flows.items():
        faults += verify_table(store, name, flow.part, on_rows)
        checked.append(table_path(name))
    if plan.dataset:
        faults += _add_place(f"{DATASET}/", verify_dataset(store.sub(DATASET), on_rows))
        checked.append(DATASET)
    return Verification(faults, checked)
