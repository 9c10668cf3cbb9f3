"""A run's triplets as RORem's training folders, one for each split: its loaders read them as they are.

Pictures are PNG files of the same pixels; masks have 8 bits, 0 and 255, because the loaders dilate them as grey values.
"""

import contextlib
import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
from PIL import Image

from rasura.manifests.formats.dataset_rows import DatasetRow, NotTriplets, list_rows, read_raw_row, render_kinds
from rasura.manifests.formats.rorem import ABOUT, META, NAME, PARTS, PROVENANCE, get_score
from rasura.manifests.formats.target import ExportTarget
from rasura.manifests.images import decode_image, decode_mask
from rasura.manifests.json_lines import parse_json_lines
from rasura.manifests.run_layout import DATASET_CARD
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables

_CARD = """# {name}

{rows} triplets in RORem's layout: {folders}, each with `meta.json`, a list of `source` (with the object), `mask`
(white is what is removed) and `GT` (without it). {scored} of them have a `score`: 1 or 0 where somebody said yes or no,
else a discriminator's probability. RORem's discriminator needs it in every entry, its remover in none. `rows.jsonl` has
each entry's id, scene, origin and licence by the name of its pictures. Made by Rasura from the recipe `{name}` (hash
`{recipe}`).

| split | rows | with a score |
|---|---|---|
{splits}

| kind | rows | meaning |
|---|---|---|
{kinds}

Licences of the pictures in it: {licences}.
"""


def encode_png(data: bytes, mask: bool) -> bytes:
    """Encode an encoded picture anew as PNG, the same pixels: RGB with 8 bits, or a mask as grey 0 and 255."""
    pixels = np.where(decode_mask(data), np.uint8(255), np.uint8(0)) if mask else decode_image(data)
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "PNG", compress_level=1)
    return out.getvalue()


def export_rorem(
    tables: Tables,
    flows: Sequence[str],
    out: Store,
    name: str,
    recipe_hash: str,
    progress: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    """Write the folders and return the manifest.

    Args:
        tables: of the run.
        flows: whose rows to write.
        out: the folder to write into.
        name: of the recipe, for the card.
        recipe_hash: its hash.
        progress: called with the number of rows that were written.

    Raises:
        NotTriplets: a row has no source, mask or target.
        ForeignFolder: the target has files that no export wrote.
        StoreError: the target cannot be written.
    """
    rows = list_rows([tables.table(flow) for flow in flows])
    splits = sorted({row.split or "train" for row in rows})
    pictures = (f"{quote(row.split or 'train')}/{part}/{_name_file(row.id)}" for row in rows for part in PARTS)
    lists = (f"{quote(split)}/{file}" for split in splits for file in (META, ABOUT))
    target = ExportTarget(out, [*pictures, *lists])
    entries: dict[str, dict[str, Any]] = defaultdict(dict)
    about: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: row.place):  # each shard is read once
        split = row.split or "train"
        raw = read_raw_row(tables, row, [*PARTS.values(), *PROVENANCE, "score", "verdict"])
        entries[split][row.id], about[split][row.id] = _write_pictures(target, split, row, raw)
        progress(1)
    files: list[dict[str, Any]] = []
    for split in splits:
        files += _write_lists(target, split, entries[split], about[split])
    target.write(DATASET_CARD, _render_card(name, recipe_hash, rows, entries).encode())
    manifest = {"name": name, "recipe": recipe_hash, "rows": len(rows), "files": files, "layout": NAME}
    target.finish(manifest)
    return manifest


def _name_file(id: str) -> str:
    return f"{quote(id, safe='')}.png"


def _write_pictures(
    target: ExportTarget, split: str, row: DatasetRow, raw: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the pictures of a row, and return its entries in `meta.json` and in `rows.jsonl`."""
    entry: dict[str, Any] = {}
    sha = {}
    for part, column in PARTS.items():
        if raw[column] is None:
            raise NotTriplets(f"row {row.id} of flow '{row.table}' has no {column}: it is no triplet")
        data = encode_png(raw[column]["bytes"], column == "mask")
        entry[part] = f"{part}/{_name_file(row.id)}"
        sha[part] = hashlib.sha256(data).hexdigest()
        target.write(f"{quote(split)}/{entry[part]}", data)
    score = get_score(raw)
    if score is not None:
        entry["score"] = score
    name = _name_file(row.id).removesuffix(".png")
    return entry, {"name": name} | {key: raw.get(key) for key in PROVENANCE} | {"sha256": sha}


def _write_lists(
    target: ExportTarget, split: str, entries: Mapping[str, Any], about: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Write `meta.json` and `rows.jsonl` of a split, and return their entries in the manifest.

    Args:
        target: the folder of the dataset.
        split: name of the split.
        entries: row id -> entry of `meta.json`.
        about: row id -> entry of `rows.jsonl`.
    """
    ids = sorted(entries)
    texts = {
        META: json.dumps([entries[id] for id in ids], indent=1),
        ABOUT: "".join(json.dumps(about[id], ensure_ascii=False) + "\n" for id in ids),
    }
    return [target.write_data_file(f"{quote(split)}/{file}", text.encode(), len(ids)) for file, text in texts.items()]


def _render_card(
    name: str, recipe_hash: str, rows: Sequence[DatasetRow], entries: Mapping[str, Mapping[str, Any]]
) -> str:
    scored = {split: sum("score" in entry for entry in entries[split].values()) for split in sorted(entries)}
    return _CARD.format(
        name=name,
        rows=len(rows),
        folders=", ".join(f"`{quote(split)}/`" for split in scored),
        scored=sum(scored.values()),
        recipe=recipe_hash,
        splits="\n".join(f"| {split} | {len(entries[split])} | {count} |" for split, count in scored.items()),
        kinds=render_kinds(Counter(row.kind for row in rows)),
        licences=", ".join(sorted({row.licence for row in rows if row.licence})) or "none given",
    )


def list_targets(dataset: Store, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """List the clean pictures of an export.

    Yields:
        Split, row id and path; nothing more of a list from where it cannot be read.
    """
    for file in manifest["files"]:
        split, _, name = file["name"].rpartition("/")
        if name == ABOUT and dataset.exists(file["name"]):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                for row in parse_json_lines(dataset.read(file["name"])):
                    yield unquote(split), row["id"], f"{split}/GT/{row['name']}.png"


def find_faults(dataset: Store, manifest: Mapping[str, Any]) -> list[str]:
    """Compare an export's lists with its manifest, and its pictures with the lists.

    Returns:
        A text for each file that is gone or changed.
    """
    faults = []
    for file in manifest["files"]:
        if fault := _check_file(dataset, file["name"], file["sha256"]):
            faults.append(fault)
        elif file["name"].endswith(ABOUT):
            folder = file["name"].removesuffix(f"/{ABOUT}")
            for row in parse_json_lines(dataset.read(file["name"])):
                paths = ((f"{folder}/{part}/{row['name']}.png", sha) for part, sha in row["sha256"].items())
                faults += [fault for path, sha in paths if (fault := _check_file(dataset, path, sha))]
    return faults


def _check_file(dataset: Store, path: str, sha: str) -> str | None:
    if not dataset.exists(path):
        return f"{path}: the file is gone"
    if hashlib.sha256(dataset.read(path)).hexdigest() != sha:
        return f"{path}: its sha256 is not {sha[:12]}…: the file was changed or cut"
    return None
