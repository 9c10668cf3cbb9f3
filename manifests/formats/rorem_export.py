"""A run's triplets as RORem's training folders, one a split: its loaders read them as they are.

Pictures are PNG files of the same pixels; masks have 8 bits, 0 and 255, because the loaders grow them as numbers.
"""

import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from rasura.manifests.formats.huggingface import ForeignFolder, NotTriplets, Row, raw_row, rows_of
from rasura.manifests.formats.rorem import ABOUT, META, PARTS, TOLD, score_of
from rasura.manifests.images import decode_image, decode_mask
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables

NAME = "rorem"
_CARD = """# {name}

{rows} triplets in RORem's layout: {folders}, each with `meta.json`, a list of `source` (with the object), `mask`
(white is what is removed) and `GT` (without it). {scored} of them have a `score`: 1 or 0 where somebody said yes or no,
else a judge's probability. RORem's discriminator needs it in every entry, its remover in none. `rows.jsonl` has each
entry's id, scene, origin and licence by the name of its pictures. Made by Rasura from the recipe `{name}` (hash
`{recipe}`).

| split | rows | with a score |
|---|---|---|
{splits}

Licences of the pictures in it: {licences}.
"""


def png(data: bytes, mask: bool) -> bytes:
    """An encoded picture as PNG, the same pixels: RGB with 8 bits, or a mask as grey 0 and 255."""
    pixels = np.where(decode_mask(data), np.uint8(255), np.uint8(0)) if mask else decode_image(data)
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "PNG", compress_level=1)
    return out.getvalue()


def export_rorem(tables: Tables, flows: Sequence[str], out: Store, name: str, recipe_hash: str) -> dict[str, Any]:
    """Writes the folders and returns the manifest.

    Raises:
        NotTriplets: a row has no source, mask or target.
        ForeignFolder: the target holds something else.
        StoreError: the target cannot be written.
    """
    parts = [tables.table(flow) for flow in flows]
    rows = rows_of(parts)
    splits = sorted({row.split or "train" for row in rows})
    _check(out, splits)
    out.delete("manifest.json")  # from here on until the end the folder is visibly no dataset
    entries: dict[str, dict[str, Any]] = defaultdict(dict)
    about: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: (row.table, row.shard, row.row)):  # each shard is read once
        split = row.split or "train"
        raw = raw_row(tables, row, [*PARTS.values(), *TOLD, "score", "verdict"])
        entries[split][row.id], about[split][row.id] = _written(out, split, row, raw)
    files, lines = [], []
    for split in splits:
        ids = sorted(entries[split])
        listed = {
            META: json.dumps([entries[split][id] for id in ids], indent=1),
            ABOUT: "".join(json.dumps(about[split][id], ensure_ascii=False) + "\n" for id in ids),
        }
        for file, text in listed.items():
            data = text.encode()
            out.write(f"{quote(split)}/{file}", data)
            sha = hashlib.sha256(data).hexdigest()
            files.append({"name": f"{quote(split)}/{file}", "sha256": sha, "bytes": len(data), "rows": len(ids)})
        _clear(out, split, {_file(id) for id in ids})
        lines.append(f"| {split} | {len(ids)} | {sum('score' in entries[split][id] for id in ids)} |")
    scored = sum("score" in entry for part in entries.values() for entry in part.values())
    licences = ", ".join(sorted(Counter(row.licence for row in rows if row.licence))) or "none given"
    folders = ", ".join(f"`{quote(split)}/`" for split in splits)
    card = _CARD.format(
        name=name, rows=len(rows), folders=folders, scored=scored, recipe=recipe_hash, splits="\n".join(lines),
        licences=licences,
    )  # fmt: skip
    out.write("README.md", card.encode())
    manifest = {"name": name, "recipe": recipe_hash, "rows": len(rows), "files": files, "layout": NAME}
    out.write("manifest.json", (json.dumps(manifest, indent=1) + "\n").encode())
    return manifest


def _check(out: Store, splits: Sequence[str]) -> None:
    ours = out.exists("README.md") and b"Made by Rasura" in out.read("README.md")
    there = [name for name in ("README.md", *(f"{quote(split)}/{META}" for split in splits)) if out.exists(name)]
    if there and not ours:
        raise ForeignFolder(f"{out.uri} holds files of something else ({there[0]}); name a new folder")


def _file(id: str) -> str:
    return f"{quote(id, safe='')}.png"


def _written(out: Store, split: str, row: Row, raw: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    entry: dict[str, Any] = {}
    sha = {}
    for theirs, ours in PARTS.items():
        if raw[ours] is None:
            raise NotTriplets(f"row {row.id} of flow '{row.table}' has no {ours}: it is no triplet")
        data = png(raw[ours]["bytes"], ours == "mask")
        entry[theirs] = f"{theirs}/{_file(row.id)}"
        sha[theirs] = hashlib.sha256(data).hexdigest()
        out.write(f"{quote(split)}/{entry[theirs]}", data)
    score = score_of(raw)
    if score is not None:
        entry["score"] = score
    name = _file(row.id).removesuffix(".png")
    return entry, {"name": name} | {key: raw.get(key) for key in TOLD} | {"sha256": sha}


def _clear(out: Store, split: str, names: set[str]) -> None:
    """Deletes pictures of rows that an earlier export had."""
    for part in PARTS:
        folder = f"{quote(split)}/{part}"
        for stale in set(out.files(folder)) - names:
            out.delete(f"{folder}/{stale}")


def faults(dataset: Store, manifest: Mapping[str, Any]) -> list[str]:
    """What of an export is gone or changed: its lists against the manifest, its pictures against the lists."""
    found = []
    for file in manifest["files"]:
        if not dataset.exists(file["name"]):
            found.append(f"{file['name']}: the file is gone")
            continue
        data = dataset.read(file["name"])
        if hashlib.sha256(data).hexdigest() != file["sha256"]:
            found.append(f"{file['name']}: its sha256 is not {file['sha256'][:12]}…: the file was changed or cut")
        elif file["name"].endswith(ABOUT):
            folder = file["name"].removesuffix(f"/{ABOUT}")
            for line in map(json.loads, data.decode().splitlines()):
                found += _picture_faults(dataset, folder, line)
    return found


def _picture_faults(dataset: Store, folder: str, line: Mapping[str, Any]) -> list[str]:
    found = []
    for part, sha in line["sha256"].items():
        path = f"{folder}/{part}/{line['name']}.png"
        if not dataset.exists(path):
            found.append(f"{path}: the file is gone")
        elif hashlib.sha256(dataset.read(path)).hexdigest() != sha:
            found.append(f"{path}: its sha256 is not {sha[:12]}…: the file was changed or cut")
    return found
