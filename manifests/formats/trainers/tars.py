"""A run's rows as WebDataset tars, a folder for each split: a sample is a row, its members are named by the layout.

Tars are written whole, so that one is in memory while it is written, by workers where there are many rows. `rows.jsonl`
has what the members cannot hold.
"""

import hashlib
import io
import itertools
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import starmap
from typing import Any, Protocol
from urllib.parse import quote, unquote

from rasura.manifests.formats.dataset_rows import DatasetRow, read_raw_row, read_raw_rows
from rasura.manifests.formats.folder_export import (
    DEFAULT_SPLIT,
    LEFT_OUT,
    PROVENANCE,
    ROWS,
    LeftOut,
    Tally,
    WrittenRow,
    check_any_fits,
    leave_out,
    name_row,
)
from rasura.manifests.formats.sorted_lists import ListFile, SortedLists, render_line
from rasura.manifests.formats.tables.table_export import pack_rows
from rasura.manifests.formats.target import ExportTarget, check_target, write_data_file
from rasura.manifests.parallel.jobs import MapJobs
from rasura.manifests.run_layout import DATASET_CARD
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables

TAR_BYTES = 128 * 2**20
"""Most bytes of pictures in a tar: one tar is in memory while it is written."""
Sample = Mapping[str, bytes]


class TarLayout(Protocol):
    """The members of one trainer's samples."""

    name: str
    columns: Sequence[str]
    """Columns of the run that `make_sample` needs, beside those of `PROVENANCE`."""
    types: Sequence[str]
    """Types of examples, as the card names them."""

    def make_sample(self, row: DatasetRow, raw: Mapping[str, Any]) -> tuple[Sample, Sequence[str]] | LeftOut:
        """Make the members of a row's sample, and name the types of its examples."""

    def describe(self, tally: Tally) -> str:
        """Describe the members, for the card."""


def build_tar(samples: Iterable[tuple[str, Sample]]) -> bytes:
    """Build a tar of samples, whose bytes depend on nothing else.

    Args:
        samples: name without a dot, members in their order.
    """
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, members in samples:
            for member, data in members.items():
                info = tarfile.TarInfo(f"{name}.{member}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def export_tars(
    tables: Tables,
    rows: Sequence[DatasetRow],
    out: Store,
    name: str,
    recipe_hash: str,
    layout: TarLayout,
    shard_bytes: int,
    progress: Callable[[int], None] = lambda rows: None,
    excluded: Mapping[str, str] | None = None,
    map_jobs: MapJobs = starmap,
) -> dict[str, Any]:
    """Write the tars and return the manifest.

    Args:
        tables: of the run.
        rows: to write.
        out: the folder to write into.
        name: of the recipe, for the card.
        recipe_hash: its hash.
        layout: of the samples.
        shard_bytes: most bytes of pictures in a tar, if less than `TAR_BYTES`.
        progress: called with the number of rows that were read.
        excluded: id of a row -> the reason to leave it out.
        map_jobs: has tars written, by workers for example.

    Raises:
        NotTriplets: a row has no source or mask.
        NothingToExport: no row is fit; nothing was written.
        ForeignFolder: the target has files that no export wrote.
        StoreError: the target cannot be written.
    """
    excluded = excluded or {}
    planned = list(_plan_tars([row for row in rows if row.id not in excluded], min(shard_bytes, TAR_BYTES)))
    names = [*(file for file, _ in planned), ROWS, LEFT_OUT]
    check_target(out, names)
    columns = [*layout.columns, *PROVENANCE]
    samples = (layout.make_sample(row, read_raw_row(tables, row, columns)) for _, part in planned for row in part)
    check_any_fits(layout.name, itertools.chain(samples, map(LeftOut, excluded.values())))
    target, tally, files = ExportTarget(out, names), Tally(), list[dict[str, Any]]()
    with SortedLists() as lists:
        for row in rows:
            if row.id in excluded:
                tally.note(row, leave_out(row, excluded[row.id], LEFT_OUT), lists)
                progress(1)
        written = map_jobs(partial(_write_tar, tables, out, layout), planned)
        for (_, part), (entry, results) in zip(planned, written, strict=True):
            for row, result in zip(part, results, strict=True):
                tally.note(row, result, lists)
            if entry is not None:
                target.note_data_file(entry)
                files.append(entry)
            progress(len(part))
        files += [lists.write(target, path, ListFile(path)) for path in (ROWS, LEFT_OUT) if path in lists]
    target.write(DATASET_CARD, tally.render_card(name, recipe_hash, layout.types, layout.describe(tally)))
    manifest = tally.make_manifest(name, recipe_hash, layout.name, files)
    target.finish(manifest)
    return manifest


def _write_tar(
    tables: Tables, out: Store, layout: TarLayout, file: str, rows: Sequence[DatasetRow]
) -> tuple[dict[str, Any] | None, list[WrittenRow]]:
    """Write one tar; a job.

    Returns:
        Its entry in the manifest, None where the layout takes none of the rows; and what was written of each row.
    """
    samples: list[tuple[str, Sample]] = []
    results: list[WrittenRow] = []
    for row, raw in zip(rows, read_raw_rows(tables, rows, [*layout.columns, *PROVENANCE]), strict=True):
        result = layout.make_sample(row, raw)
        if isinstance(result, LeftOut):
            results.append(leave_out(row, result.reason, LEFT_OUT))
            continue
        samples.append((name_row(row.id), result[0]))
        about = {"name": name_row(row.id), "tar": file} | {key: raw.get(key) for key in PROVENANCE}
        results.append(WrittenRow("", entries=[(ROWS, render_line(about))], types=result[1]))
    entry = write_data_file(out, file, build_tar(samples), len(samples)) if samples else None
    return entry, results


def _plan_tars(rows: Sequence[DatasetRow], limit: int) -> Iterator[tuple[str, list[DatasetRow]]]:
    """Yield the name and the rows of each tar."""
    for split in sorted({row.split or DEFAULT_SPLIT for row in rows}):
        chosen = [row for row in rows if (row.split or DEFAULT_SPLIT) == split]
        for index, part in enumerate(pack_rows(chosen, limit)):
            yield f"{quote(split)}/{index:05d}.tar", part


def read_tar(data: bytes) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the samples of a tar: name, members. Members of one name are consecutive."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        name, members = "", dict[str, bytes]()
        for info in tar:
            key, _, member = info.name.partition(".")
            if key != name and members:
                yield name, members
                members = {}
            file = tar.extractfile(info)
            name, members[member] = key, file.read() if file else b""
        if members:
            yield name, members


def find_faults(dataset: Store, manifest: Mapping[str, Any], picture: str) -> Iterator[str | tuple[str, str, bytes]]:
    """Yield a text for each fault of an export's files, and split, name and picture of each sample of those without.

    Args:
        dataset: the export.
        manifest: of it.
        picture: the member to yield.
    """
    for file in manifest["files"]:
        if not dataset.exists(file["name"]):
            yield f"{file['name']}: the file is gone"
            continue
        data = dataset.read(file["name"])
        if hashlib.sha256(data).hexdigest() != file["sha256"]:
            yield f"{file['name']}: its sha256 is not {file['sha256'][:12]}…: the file was changed or cut"
        elif file["name"].endswith(".tar"):
            count = 0
            for count, (name, members) in enumerate(read_tar(data), 1):  # noqa: B007
                yield unquote(file["name"].partition("/")[0]), name, members[picture]
            if count != file["rows"]:
                yield f"{file['name']}: has {count} samples, its manifest says {file['rows']}"
