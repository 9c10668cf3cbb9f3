"""A run's triplets as one dataset of Parquet files (which `datasets.load_dataset` opens) or Lance, card, manifest.

The files depend on the rows alone: rows are sorted by id and packed by their own sizes, so neither shard size nor
worker count changes a byte.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import starmap
from typing import Any

from rasura.manifests.compacted.manifest import read_manifest
from rasura.manifests.formats.dataset_rows import DatasetRow, DatasetSummary, explain_nothing, list_rows, read_raw_rows
from rasura.manifests.formats.tables.huggingface import HuggingFaceLayout
from rasura.manifests.formats.tables.layout import TableLayout
from rasura.manifests.formats.target import LEFT_OUT, ExportTarget, generalize_reason, write_data_file
from rasura.manifests.ids import hash_json
from rasura.manifests.parallel.jobs import MapJobs
from rasura.manifests.run_layout import DATASET_CARD, table_path
from rasura.manifests.storage import Store
from rasura.manifests.tables import Table, Tables

FORMAT = 2
"""Of the data files and of the key: since 2, row groups are small, and the key covers all that was read."""
COPIES = 4
"""Sizes of a data file that are in memory while it is written: as it was read, as a table, and encoded."""


def pack_rows(rows: Sequence[DatasetRow], limit: int) -> list[list[DatasetRow]]:
    """Pack consecutive rows into files of at most `limit` bytes of pictures; a row that is larger is alone."""
    files: list[list[DatasetRow]] = []
    size = 0
    for row in rows:
        if not files or size + row.bytes > limit:
            files.append([])
            size = 0
        files[-1].append(row)
        size += row.bytes
    return files


def compute_export_key(
    run: Store, flows: Sequence[str], read_flows: Iterable[str], recipe_hash: str, shard_bytes: int
) -> str:
    """Compute the identity of what `export_dataset` would write.

    Args:
        run: the run.
        flows: whose rows are written.
        read_flows: all flows whose tables are read: these, and those that have the pictures of their rows.
        recipe_hash, shard_bytes: as of `export_dataset`.
    """
    contents = {flow: read_manifest(run.sub(table_path(flow)))[0].compute_hash() for flow in read_flows}
    return hash_json([FORMAT, recipe_hash, shard_bytes, list(flows), contents])


def export_dataset(
    tables: Tables,
    flows: Sequence[str],
    out: Store,
    name: str,
    recipe_hash: str,
    splits: Sequence[str],
    shard_bytes: int,
    progress: Callable[[int], None] = lambda rows: None,
    layout: Callable[[Sequence[Table]], TableLayout] = HuggingFaceLayout,
    key: str = "",
    map_jobs: MapJobs = starmap,
    excluded: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write a dataset. Where an export of the same rows was killed, the files that it has written are kept.

    Args:
        tables: of the run.
        flows: whose rows to write.
        out: the folder to write into.
        name: of the recipe, for the card.
        recipe_hash: its hash.
        splits: in the order in which they are written; others come after them.
        shard_bytes: size of a file, of which its pictures count.
        progress: called with the number of rows that were written.
        layout: of the files.
        key: identity of the rows, by `compute_export_key`; all files are written anew where it is empty.
        map_jobs: has data files written, by workers for example.
        excluded: id of a row -> the reason to leave it out.

    Returns:
        The manifest of the dataset.

    Raises:
        NotTriplets: a flow's rows cannot be exported.
        NothingToExport: every row is left out; nothing was written.
        ForeignFolder: the target has files that no export wrote.
        StoreError: the target cannot be written.
    """
    parts = [tables.table(flow) for flow in flows]
    writer, excluded = layout(parts), excluded or {}
    rows = writer.order_rows([row for row in list_rows(parts) if row.id not in excluded])
    left_out = Counter(map(generalize_reason, excluded.values()))
    if excluded and not rows:
        raise explain_nothing(writer.name, left_out)
    planned = list(_plan_files(writer, rows, splits, shard_bytes))
    file_key = hash_json([key, writer.name, list(splits), shard_bytes]) if key else ""
    further = writer.list_further_files(dict.fromkeys(split for split, _, _ in planned))
    names = [*(file for _, file, _ in planned), *further, *([LEFT_OUT] if excluded else [])]
    target = ExportTarget(out, names, file_key)
    entries = {file: target.find_written(file) for _, file, _ in planned}
    todo = [(file, part) for _, file, part in planned if entries[file] is None]
    progress(len(rows) - sum(len(part) for _, part in todo))
    written = map_jobs(partial(_write_file, tables, out, writer), todo)
    for (file, part), entry in zip(todo, written, strict=True):
        target.note_data_file(entry)
        entries[file] = entry
        progress(len(part))
    files: dict[str, list[dict[str, Any]]] = {}
    for split, file, part in planned:
        entry = entries[file]
        assert entry is not None
        if writer.light_columns:
            writer.note(part, read_raw_rows(tables, part, writer.light_columns))
        files.setdefault(split, []).append(entry)
    listed = [entry for entries in files.values() for entry in entries]
    listed += [target.write_data_file(file, data, 0) for file, data in writer.render_further_files(files).items()]
    if excluded:
        lines = [json.dumps({"id": id, "reason": excluded[id]}, ensure_ascii=False) for id in sorted(excluded)]
        target.write(LEFT_OUT, "".join(f"{line}\n" for line in lines).encode())
    kinds = Counter(row.kind for row in rows)
    licences = sorted({row.licence for row in rows if row.licence})
    sizes = {split: (sum(f["rows"] for f in part), sum(f["bytes"] for f in part)) for split, part in files.items()}
    target.write(DATASET_CARD, writer.card(DatasetSummary(name, recipe_hash, sizes, kinds, licences)).encode())
    manifest = {"name": name, "recipe": recipe_hash, "rows": len(rows), "files": listed}
    if writer.name != HuggingFaceLayout.name:
        manifest["layout"] = writer.name
    if left_out:
        manifest["left_out"] = dict(sorted(left_out.items()))
    target.finish(manifest)
    return manifest


def _write_file(
    tables: Tables, out: Store, layout: TableLayout, name: str, rows: Sequence[DatasetRow]
) -> dict[str, Any]:
    """Write one data file, and return its entry in the manifest."""
    raws = read_raw_rows(tables, rows, layout.columns)
    return write_data_file(out, name, layout.encode(layout.table(rows, raws)), len(rows))


def _plan_files(
    layout: TableLayout, rows: Sequence[DatasetRow], splits: Sequence[str], limit: int
) -> Iterator[tuple[str, str, list[DatasetRow]]]:
    """Yield the split, the name and the rows of each data file."""
    for split in [*splits, *sorted({row.split for row in rows} - set(splits))]:
        files = pack_rows([row for row in rows if row.split == split], limit)
        for index, part in enumerate(files):
            yield split, layout.name_file(split, index, len(files)), part
