"""A run's rows as folders of picture files with lists, one folder for each split: RORem's, SmartEraser's and others.

A layout converts one row at a time. Its pictures are written at once, by workers where there are many rows; its lines
of the lists go into a temporary file and are written in the order of the rows' ids, so that memory holds the pictures
of one row. `rows.jsonl` has what a layout's own lists cannot hold, and the sha256 of each file.
"""

import contextlib
import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import starmap
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, unquote

import numpy as np
from PIL import Image

from rasura.manifests.formats.dataset_rows import DatasetRow, NotTriplets, explain_nothing, read_raw_row, render_kinds
from rasura.manifests.formats.sorted_lists import ListFile, SortedLists, render_line
from rasura.manifests.formats.target import LEFT_OUT as LEFT_OUT
from rasura.manifests.formats.target import ROWS as ROWS
from rasura.manifests.formats.target import ExportTarget, check_target, generalize_reason, list_row_files
from rasura.manifests.images import RGB, Mask
from rasura.manifests.json_lines import parse_json_lines
from rasura.manifests.parallel.jobs import MapJobs, cut_into_parts
from rasura.manifests.run_layout import DATASET_CARD
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables

PROVENANCE = ("id", "scene_id", "split", "kind", "label", "origin", "licence", "parents", "remover", "round")
"""Columns of a row that `rows.jsonl` has."""
CLEAN_FOLDERS = ("GT", "gt", "target")
"""Folders of the pictures without the object, in all layouts."""
DEFAULT_SPLIT = "train"
WRITERS = 8
"""Files of a row that are written side by side: each waits for the disk, or for an object store."""
JOB_ROWS = 16
"""Rows that are written by one job."""

_CARD = """# {name}

{rows} of {inputs} rows. {description} `{list}` has each row's id, scene, origin and licence by the name of its files.
Made by Rasura from the recipe `{name}` (hash `{recipe}`).

| {types} |
|{rule}
{splits}

| kind | rows | meaning |
|---|---|---|
{kinds}

Left out: {left_out}.

Licences of the pictures in it: {licences}.
"""


@dataclass(frozen=True)
class ConvertedRow:
    """What a layout makes of a row.

    Attributes:
        files: path from the split's folder -> contents.
        entries: name of a list -> the row's entries in it.
        types: of its examples, for the counts on the card.
        clean: path of the picture without the object, where its folder does not say so (`CLEAN_FOLDERS`).
    """

    files: Mapping[str, bytes]
    entries: Mapping[str, Sequence[str]] = field(default_factory=dict)
    types: Sequence[str] = ()
    clean: str = ""


@dataclass(frozen=True)
class LeftOut:
    """The reason for which a layout cannot take a row, in words that are the same for all such rows."""

    reason: str


class FolderLayout(Protocol):
    """The files and lists of one trainer."""

    name: str
    columns: Sequence[str]
    """Columns of the run that `convert` needs, beside those of `PROVENANCE`."""
    lists: Sequence[ListFile]
    types: Sequence[str]
    """Types of examples, as the card names them."""
    names_by_folder: bool
    """True where `rows.jsonl` names a file by its folder alone: it is `<folder>/<name>.png`."""

    def name_row(self, id: str) -> str:
        """Return the name of a row's files, without folder and suffix: unlike that of any other row."""

    def list_paths(self, name: str) -> Iterable[str]:
        """List all files that a row of this name can get, from the split's folder."""

    def convert(self, row: DatasetRow, raw: Mapping[str, Any], name: str) -> ConvertedRow | LeftOut:
        """Convert a row; its pictures in `raw` are encoded."""

    def describe(self, tally: "Tally") -> str:
        """Describe the files, for the card."""


@dataclass
class Tally:
    """The counts of an export: every row is in `rows` or in `left_out`.

    Attributes:
        rows: split -> rows.
        types: split -> type of example -> examples.
        left_out: reason -> rows.
        kinds: kind -> rows.
        licences: of the pictures.
    """

    rows: Counter[str] = field(default_factory=Counter)
    types: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    left_out: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    licences: set[str] = field(default_factory=set)

    def note(self, row: DatasetRow, written: "WrittenRow", lists: SortedLists) -> None:
        """Count a row that was written or left out, and add its entries to the lists."""
        for path, entry in written.entries:
            lists.add(path, row.id, entry)
        if written.reason:
            self.left_out[generalize_reason(written.reason)] += 1
            return
        split = row.split or DEFAULT_SPLIT
        self.rows[split] += 1
        self.types[split].update(written.types)
        self.kinds[row.kind] += 1
        if row.licence:
            self.licences.add(row.licence)

    def render_card(self, name: str, recipe: str, types: Sequence[str], description: str) -> bytes:
        """Render the card."""
        splits = [
            f"| {' | '.join(map(str, (split, rows, *(self.types[split][name] for name in types))))} |"
            for split, rows in sorted(self.rows.items())
        ]
        reasons = [f"{rows} ({reason})" for reason, rows in sorted(self.left_out.items())]
        text = _CARD.format(
            name=name,
            rows=self.rows.total(),
            inputs=self.rows.total() + self.left_out.total(),
            description=description,
            list=ROWS,
            recipe=recipe,
            types=" | ".join(("split", "rows", *types)),
            rule="---|" * (2 + len(types)),
            splits="\n".join(splits),
            kinds=render_kinds(self.kinds),
            left_out=", ".join(reasons) or "none",
            licences=", ".join(sorted(self.licences)) or "none given",
        )
        return text.encode()

    def make_manifest(self, name: str, recipe: str, layout: str, files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make the manifest."""
        manifest = {"name": name, "recipe": recipe, "rows": self.rows.total(), "files": list(files), "layout": layout}
        return manifest | {"left_out": dict(sorted(self.left_out.items()))}


def name_row(id: str) -> str:
    """Name a row's files: percent-encoded, dots too, because some loaders cut a name at its first dot.

    Examples:
        >>> name_row("7fa4.mask_1"), name_row("../x")
        ('7fa4%2Emask_1', '%2E%2E%2Fx')
    """
    return quote(id, safe="").replace(".", "%2E")


def encode_png(pixels: RGB | Mask) -> bytes:
    """Encode an RGB picture (h, w, 3) uint8 as PNG, or a mask (h, w) bool as grey PNG with 0 and 255.

    Examples:
        >>> encode_png(np.eye(2, dtype=bool))[:4]
        b'\\x89PNG'
    """
    values = np.where(pixels, np.uint8(255), np.uint8(0)) if pixels.dtype == bool else pixels
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values)).save(out, "PNG", compress_level=1)
    return out.getvalue()


def read_parts(raw: Mapping[str, Any], row: DatasetRow, columns: Sequence[str]) -> list[bytes]:
    """Read the encoded pictures of a row.

    Raises:
        NotTriplets: it lacks one.
    """
    for column in columns:
        if raw.get(column) is None:
            raise NotTriplets(f"row {row.id} of flow '{row.table}' has no {column}: it is no triplet")
    return [raw[column]["bytes"] for column in columns]


class WrittenRow(NamedTuple):
    """What was written of a row: its files and entries, from the export's folder, or the reason to leave it out."""

    reason: str = ""
    files: Sequence[str] = ()
    entries: Sequence[tuple[str, str]] = ()
    types: Sequence[str] = ()


def leave_out(row: DatasetRow, reason: str, path: str) -> WrittenRow:
    """Return what is written of a row that is left out: a line of the list at a path."""
    return WrittenRow(reason, entries=[(path, render_line({"id": row.id, "reason": reason}))])


def export_folder(
    tables: Tables,
    rows: Sequence[DatasetRow],
    out: Store,
    name: str,
    recipe_hash: str,
    layout: FolderLayout,
    progress: Callable[[int], None] = lambda rows: None,
    excluded: Mapping[str, str] | None = None,
    map_jobs: MapJobs = starmap,
) -> dict[str, Any]:
    """Write the folders and return the manifest.

    Args:
        tables: of the run.
        rows: to write.
        out: the folder to write into.
        name: of the recipe, for the card.
        recipe_hash: its hash.
        layout: of the files.
        progress: called with the number of rows that were read.
        excluded: id of a row -> the reason to leave it out.
        map_jobs: has rows written, by workers for example.

    Raises:
        NotTriplets: a row has no source, mask or target.
        NothingToExport: the layout can take none of the rows; nothing was written.
        ForeignFolder: the target has files that no export wrote.
        StoreError: the target cannot be written.
    """
    names = _list_names(layout, rows)
    check_target(out, names)
    convert = partial(_convert_row, tables, layout, excluded or {})
    ordered = sorted(rows, key=lambda row: row.place)  # each shard is read once
    check_any_fits(layout.name, (convert(row)[1] for row in ordered))
    target, tally = ExportTarget(out, names), Tally()
    parts = list(cut_into_parts(ordered, JOB_ROWS))
    with SortedLists() as lists:
        for (part,), written in zip(parts, map_jobs(partial(_write_rows, convert, out, layout), parts), strict=True):
            for row, result in zip(part, written, strict=True):
                tally.note(row, result, lists)
                target.note_files(result.files)
            progress(len(part))
        files: list[dict[str, Any]] = []
        for split in sorted({row.split or DEFAULT_SPLIT for row in rows}):
            files += _write_lists(lists, target, split, layout.lists if split in tally.rows else ())
    target.write(DATASET_CARD, tally.render_card(name, recipe_hash, layout.types, layout.describe(tally)))
    manifest = tally.make_manifest(name, recipe_hash, layout.name, files)
    target.finish(manifest)
    return manifest


def check_any_fits(layout: str, results: Iterable[Any]) -> None:
    """Check that a layout takes a row, before anything is written.

    Args:
        layout: its name.
        results: what it makes of the rows; they are looked at up to the first one that it takes.

    Raises:
        NothingToExport: it takes none.
    """
    reasons = Counter[str]()
    for result in results:
        if not isinstance(result, LeftOut):
            return
        reasons[generalize_reason(result.reason)] += 1
    raise explain_nothing(layout, reasons)


def _convert_row(
    tables: Tables, layout: FolderLayout, excluded: Mapping[str, str], row: DatasetRow
) -> tuple[Mapping[str, Any], ConvertedRow | LeftOut]:
    """Return what a row is in the run, and what the layout makes of it."""
    if row.id in excluded:
        return {}, LeftOut(excluded[row.id])
    raw = read_raw_row(tables, row, [*layout.columns, *PROVENANCE])
    return raw, layout.convert(row, raw, layout.name_row(row.id))


def _write_rows(
    convert: Callable[[DatasetRow], tuple[Mapping[str, Any], ConvertedRow | LeftOut]],
    out: Store,
    layout: FolderLayout,
    rows: Sequence[DatasetRow],
) -> list[WrittenRow]:
    """Write the files of some rows; a job."""
    written = []
    with ThreadPoolExecutor(WRITERS) as pool:
        for row in rows:
            split = quote(row.split or DEFAULT_SPLIT)
            raw, converted = convert(row)
            if isinstance(converted, LeftOut):
                written.append(leave_out(row, converted.reason, f"{split}/{LEFT_OUT}"))
                continue
            paths = [f"{split}/{path}" for path in converted.files]
            list(pool.map(out.write, paths, converted.files.values()))
            hashes = _hash_files(converted.files, layout.names_by_folder)
            about = {"name": layout.name_row(row.id)} | {key: raw.get(key) for key in PROVENANCE} | {"sha256": hashes}
            about |= {"clean": converted.clean} if converted.clean else {}
            lists = {**converted.entries, ROWS: [render_line(about)]}
            entries = [(f"{split}/{name}", entry) for name, texts in lists.items() for entry in texts]
            written.append(WrittenRow("", paths, entries, converted.types))
    return written


def _write_lists(
    lists: SortedLists, target: ExportTarget, split: str, needed: Sequence[ListFile]
) -> Iterator[dict[str, Any]]:
    """Write the lists of a split, and yield their entries in the manifest.

    Args:
        needed: lists that are written without entries too: a loader opens them.
    """
    for list_file in (*needed, ListFile(ROWS), ListFile(LEFT_OUT)):
        path = f"{quote(split)}/{list_file.name}"
        if path in lists or list_file in needed:
            yield lists.write(target, path, list_file)


def _hash_files(files: Mapping[str, bytes], by_folder: bool) -> dict[str, str]:
    """Hash the files of a row, by the keys that `rows.jsonl` has for them."""
    return {
        path.partition("/")[0] if by_folder else path: hashlib.sha256(data).hexdigest() for path, data in files.items()
    }


def _list_names(layout: FolderLayout, rows: Sequence[DatasetRow]) -> set[str]:
    names = set[str]()
    for row in rows:
        split = quote(row.split or DEFAULT_SPLIT)
        names.update(f"{split}/{path}" for path in layout.list_paths(layout.name_row(row.id)))
    for split in {quote(row.split or DEFAULT_SPLIT) for row in rows}:
        names.update(f"{split}/{name}" for name in (*(file.name for file in layout.lists), ROWS, LEFT_OUT))
    return names


def list_targets(dataset: Store, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """List the clean pictures of an export.

    Yields:
        Split, row id and path; nothing more of a list from where it cannot be read.
    """
    for file in manifest["files"]:
        split, _, name = file["name"].rpartition("/")
        if name == ROWS and dataset.exists(file["name"]):
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                for row in parse_json_lines(dataset.read(file["name"])):
                    for path, _ in list_row_files(row):
                        if path == row["clean"] if "clean" in row else path.partition("/")[0] in CLEAN_FOLDERS:
                            yield unquote(split), row["id"], f"{split}/{path}"


def find_faults(dataset: Store, manifest: Mapping[str, Any]) -> list[str]:
    """Compare an export's lists with its manifest, and its pictures with the lists.

    Returns:
        A text for each file that is gone or changed.
    """
    faults = []
    for file in manifest["files"]:
        if fault := _check_file(dataset, file["name"], file["sha256"]):
            faults.append(fault)
        elif file["name"].rpartition("/")[2] == ROWS:
            folder = file["name"].rpartition("/")[0]
            for row in parse_json_lines(dataset.read(file["name"])):
                paths = ((f"{folder}/{path}", sha) for path, sha in list_row_files(row))
                faults += [fault for path, sha in paths if (fault := _check_file(dataset, path, sha))]
    return faults


def _check_file(dataset: Store, path: str, sha: str) -> str | None:
    if not dataset.exists(path):
        return f"{path}: the file is gone"
    if hashlib.sha256(dataset.read(path)).hexdigest() != sha:
        return f"{path}: its sha256 is not {sha[:12]}…: the file was changed or cut"
    return None
