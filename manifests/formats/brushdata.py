"""BrushData's WebDataset tars, as BrushNet's trainers read them (arXiv 2403.06976; train_brushnet.py).

A sample has five members: `image`, `caption`, `height`, `width` (texts), and `segmentation`, JSON with a list `mask` of
run lengths. A run is a pair (start, length); starts count from 1 down the columns (not COCO's counts, which alternate).
A sample is a photograph with the object in it: BrushNet learns to paint what a mask and a caption ask for.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from rasura.manifests.formats.dataset_rows import (
    JUDGEMENT,
    DatasetRow,
    explain_unfit,
    find_repeats,
    list_rows,
    read_raw_rows,
)
from rasura.manifests.formats.folder_export import (
    DEFAULT_SPLIT,
    LEFT_OUT,
    PROVENANCE,
    ROWS,
    ListFile,
    SortedLists,
    Tally,
    name_row,
    read_parts,
    render_line,
)
from rasura.manifests.formats.parquet_export import pack_rows
from rasura.manifests.formats.target import ExportTarget, check_target
from rasura.manifests.images import Mask, decode_mask
from rasura.manifests.run_layout import DATASET_CARD
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables

NAME = "brushdata"
MEMBERS = ("image", "caption", "height", "width", "segmentation")
TAR_BYTES = 128 * 2**20
"""Most bytes of pictures in a tar: one tar is in memory while it is written."""
COLUMNS = ("source", "mask", "foreground_mask", "caption", *JUDGEMENT)
_TYPES = ("masks",)
_DESCRIPTION = (
    "BrushData's WebDataset tars, a folder for each split: `image` is the picture with the object, `caption` its "
    "caption (its label where it has none), `segmentation` the object's mask and, where it is known, that of object "
    "and effects, as runs down the columns."
)


def encode_runs(mask: Mask) -> list[int]:
    """Encode a mask (h, w) as start, length, start, length, …: down the columns, starts from 1.

    Examples:
        >>> encode_runs(np.array([[False, True], [True, True]]))
        [2, 3]
    """
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]]).astype(np.int8)
    starts, ends = np.flatnonzero(np.diff(flat) == 1), np.flatnonzero(np.diff(flat) == -1)
    runs: list[int] = np.stack([starts + 1, ends - starts], axis=1).ravel().tolist()
    return runs


def decode_runs(runs: Sequence[int], height: int, width: int) -> Mask:
    """Decode what `encode_runs` encoded, as BrushNet's trainers do.

    Examples:
        >>> decode_runs([2, 3], 2, 2).tolist()
        [[False, True], [True, True]]
    """
    flat = np.zeros(height * width, bool)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        flat[start - 1 : start - 1 + length] = True
    return flat.reshape((height, width), order="F")


def make_sample(row: DatasetRow, raw: Mapping[str, Any]) -> dict[str, bytes]:
    """Make the members of a row's sample.

    Args:
        row: its place, for errors.
        raw: its columns, pictures encoded.
    """
    image, encoded_mask = read_parts(raw, row, ("source", "mask"))
    mask = decode_mask(encoded_mask)
    masks = [mask]
    # a candidate's is its remover's guess
    if raw.get("foreground_mask") is not None and raw.get("kind") != "edited":
        foreground = decode_mask(raw["foreground_mask"]["bytes"])
        masks += [foreground] if (foreground != mask).any() else []
    texts = {
        "caption": raw.get("caption") or raw.get("label") or "",
        "height": str(mask.shape[0]),
        "width": str(mask.shape[1]),
        "segmentation": json.dumps({"mask": [encode_runs(region) for region in masks]}),
    }
    return {"image": image} | {name: text.encode() for name, text in texts.items()}


def build_tar(samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> bytes:
    """Build a tar of samples, whose bytes depend on nothing else.

    Args:
        samples: name without a dot, members.
    """
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, members in samples:
            for member in MEMBERS:
                info = tarfile.TarInfo(f"{name}.{member}")
                info.size = len(members[member])
                tar.addfile(info, io.BytesIO(members[member]))
    return out.getvalue()


def export_brushdata(
    tables: Tables,
    flows: Sequence[str],
    out: Store,
    name: str,
    recipe_hash: str,
    shard_bytes: int,
    progress: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    """Write the tars and return the manifest.

    Args:
        tables: of the run.
        flows: whose rows to write.
        out: the folder to write into.
        name: of the recipe, for the card.
        recipe_hash: its hash.
        shard_bytes: most bytes of pictures in a tar, if less than `TAR_BYTES`.
        progress: called with the number of rows that were read.

    Raises:
        NotTriplets: a row has no source or mask.
        NothingToExport: no row is fit; nothing was written.
        ForeignFolder: the target has files that no export wrote.
        StoreError: the target cannot be written.
    """
    parts = [tables.table(flow) for flow in flows]
    rows, repeats = list_rows(parts), find_repeats(parts)
    planned = list(_plan_tars(rows, min(shard_bytes, TAR_BYTES)))
    names = [*(file for file, _ in planned), ROWS, LEFT_OUT]
    check_target(out, names)
    target: ExportTarget | None = None
    tally, files = Tally(), list[dict[str, Any]]()
    with SortedLists() as lists:
        for file, part in planned:
            samples: list[tuple[str, Mapping[str, bytes]]] = []
            for row, raw in zip(part, read_raw_rows(tables, part, [*COLUMNS, *PROVENANCE]), strict=True):
                if reason := explain_unfit(raw, "source") or repeats.get(row.id):
                    tally.left_out[reason] += 1
                    lists.add(LEFT_OUT, row.id, render_line({"id": row.id, "reason": reason}))
                    continue
                samples.append((name_row(row.id), make_sample(row, raw)))
                about = {"name": name_row(row.id), "tar": file} | {key: raw.get(key) for key in PROVENANCE}
                lists.add(ROWS, row.id, render_line(about))
                tally.add(row, _TYPES * len(json.loads(samples[-1][1]["segmentation"])["mask"]))
            if samples:
                target = target or ExportTarget(out, names)
                files.append(target.write_data_file(file, build_tar(samples), len(samples)))
            progress(len(part))
        if target is None:
            raise tally.explain_nothing(NAME)
        files += [lists.write(target, path, ListFile(path)) for path in (ROWS, LEFT_OUT) if path in lists]
    target.write(DATASET_CARD, tally.render_card(name, recipe_hash, _TYPES, _DESCRIPTION))
    manifest = tally.make_manifest(name, recipe_hash, NAME, files)
    target.finish(manifest)
    return manifest


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


def find_faults(dataset: Store, manifest: Mapping[str, Any]) -> Iterator[str | tuple[str, str, bytes]]:
    """Yield a text for each fault of an export's files, and split, name and picture of each sample of those without."""
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
                yield unquote(file["name"].partition("/")[0]), name, members["image"]
            if count != file["rows"]:
                yield f"{file['name']}: has {count} samples, its manifest says {file['rows']}"
