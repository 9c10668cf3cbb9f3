"""Scenes of a source's items: pictures that are equal or nearly equal are of one scene, and stay in one split."""

import io
import json
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageOps

from rasura.manifests.fingerprints import compute_fingerprint, group_near_duplicates
from rasura.manifests.images import BadImage, decode_image, open_image
from rasura.manifests.parquet import iterate_rows, open_parquet
from rasura.stages.sources.files import RunContext, read_file, remember
from rasura.stages.sources.listing import SourceFile
from rasura.stages.sources.parquet_rows import read_cell
from rasura.stages.stage import Record

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


def fingerprint_files(files: Sequence[SourceFile], context: RunContext) -> Mapping[str, str | None]:
    """Return the fingerprint of each picture, by path; those that the run has listed are not read again."""
    return remember(files, context, lambda path: read_fingerprint(read_file(path)), ".fingerprints")


def fingerprint_tables(files: Sequence[SourceFile], context: RunContext, column: str) -> Mapping[str, Sequence[str]]:
    """Return the fingerprints of the rows of each Parquet file, by path; none for a file that cannot be read."""

    def read(path: str) -> str:
        with open_parquet(path) as source:
            return json.dumps([read_fingerprint(read_cell(row[column])) for row in iterate_rows(source, [column])])

    texts = remember(files, context, read, ".fingerprints")
    return {path: json.loads(text) if text else [] for path, text in texts.items()}


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
