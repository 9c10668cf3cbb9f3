"""Scenes of a source's items: pictures that are equal or nearly equal are of one scene, and stay in one split."""

import io
import json
import logging
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageOps

from rasura.manifests.fingerprints import compute_fingerprint, group_near_duplicates
from rasura.manifests.ids import compute_content_id
from rasura.manifests.images import BadImage, decode_image, open_image
from rasura.stages.sources.files import RunContext, make_unreadable_id, read_file, remember
from rasura.stages.sources.listing import SourceFile
from rasura.stages.sources.parquet_rows import iterate_picture_rows, list_row_items, read_cell
from rasura.stages.stage import Record

log = logging.getLogger(__name__)

Texts = Mapping[str, str | None]
"""A text a path; None where the file cannot be read."""

LISTING_SUFFIXES = ("", ".fingerprints")  # of the names of the listings: ids, and fingerprints
_DRAFT_SIDE = 256  # px: a JPEG need not be decoded at a larger size
_NONE = "-"  # of a picture that cannot be read: its row will say why


def read_fingerprint(data: bytes) -> str:
    """Return the fingerprint of an encoded picture as hex digits, or `-` where it cannot be read.

    Examples:
        >>> read_fingerprint(b"no picture")
        '-'
    """
    try:
        image = open_image(data)
        if image.format != "JPEG":
            return compute_fingerprint(decode_image(data)).hex()
        image = Image.open(io.BytesIO(data))
        image.draft("RGB", (_DRAFT_SIDE, _DRAFT_SIDE))
        upright = ImageOps.exif_transpose(image).convert("RGB")
        return compute_fingerprint(np.asarray(upright, np.uint8)).hex()
    except (BadImage, OSError, ValueError):
        return _NONE


def list_pictures(files: Sequence[SourceFile], context: RunContext) -> tuple[dict[str, str], Texts]:
    """Return the content id and the fingerprint of each picture, by path. A file is read once, and not again later."""

    def read(path: str) -> tuple[str, str]:
        data = read_file(path)
        return compute_content_id(data), read_fingerprint(data)

    ids, fingerprints = remember(files, context, read, LISTING_SUFFIXES)
    return {path: id or make_unreadable_id(path) for path, id in ids.items()}, fingerprints


def list_tables(
    files: Sequence[SourceFile], context: RunContext, needed: Sequence[str], columns: Sequence[str], clean: str
) -> list[Record]:
    """Return the items of the rows of Parquet files, with the fingerprints of one column. A file is read once.

    Args:
        files: to list.
        context: the run, which remembers them.
        needed: columns that each file must have.
        columns: all with pictures.
        clean: the column of the clean pictures.

    Raises:
        MissingInput: as `iterate_picture_rows`.
    """

    def read(path: str) -> tuple[str, str]:
        rows = [
            (id, read_fingerprint(read_cell(row[clean]))) for id, row in iterate_picture_rows(path, needed, columns)
        ]
        return json.dumps([id for id, _ in rows]), json.dumps([fingerprint for _, fingerprint in rows])

    ids, fingerprints = remember(files, context, read, LISTING_SUFFIXES)
    items: list[Record] = []
    for file in files:
        rows = list_row_items(file.path, ids[file.path] or make_unreadable_id(file.path))
        texts = json.loads(fingerprints[file.path] or "[]") or [None] * len(rows)
        items += [item | {"fingerprint": text} for item, text in zip(rows, texts, strict=True)]
    return items


def join_scenes(items: Sequence[Record]) -> None:
    """Give the items of nearly equal clean pictures one scene: the first of theirs, by name.

    Args:
        items: with the keys `scene_id`, which is changed, and `fingerprint`; `joined` is set where a scene was changed.
            Items that lack one of them, and pictures that cannot be read, stay as they are.
    """
    members = [item for item in items if item.get("scene_id") and item.get("fingerprint") not in (None, _NONE)]
    parents: dict[str, str] = {}

    def find_first(scene: str) -> str:
        while (parent := parents.get(scene, scene)) != scene:
            parents[scene] = parents.get(parent, parent)
            scene = parent
        return scene

    firsts = group_near_duplicates([bytes.fromhex(item["fingerprint"]) for item in members])
    for item, first in zip(members, firsts, strict=True):
        a, b = find_first(item["scene_id"]), find_first(members[first]["scene_id"])
        parents[max(a, b)] = min(a, b)
    for item in items:
        item.pop("fingerprint", None)
        if item.get("scene_id") and (scene := find_first(item["scene_id"])) != item["scene_id"]:
            item |= {"scene_id": scene, "joined": True}


def warn_of_divided_scenes(items: Sequence[Record], path: str) -> None:
    """Log a warning where nearly equal clean pictures are in several splits of a published set, which keeps them.

    Args:
        items: after `join_scenes`, with the keys `scene_id` and `kept_split`; items without them are ignored.
        path: of the set, for the warning.
    """
    splits: dict[str, dict[str, str]] = {}
    for item in items:
        if item.get("kept_split") and item.get("scene_id"):
            splits.setdefault(item["scene_id"], {}).setdefault(item["kept_split"], item["origin"])
    divided = [by_split for by_split in splits.values() if len(by_split) > 1]
    if divided:
        example = " and ".join(f"{origin} in '{split}'" for split, origin in sorted(divided[0].items())[:2])
        log.warning(
            "'%s': clean pictures that are in several splits, equal or nearly: %d (%s); keep_split: false splits anew",
            path,
            len(divided),
            example,
        )
