"""Scenes of a source's items: pictures that are equal or nearly equal are of one scene, and stay in one split."""

import io
import json
from collections.abc import Mapping, Sequence
from itertools import starmap

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

from rasura.manifests.fingerprints import compute_fingerprint, find_near_duplicates
from rasura.manifests.ids import compute_content_id
from rasura.manifests.images import BadImage, decode_image, open_image
from rasura.manifests.parallel.jobs import MapJobs
from rasura.manifests.parquet import encode_parquet, read_parquet
from rasura.manifests.run_layout import scenes_path
from rasura.manifests.shards import DamagedFile, explain_damage
from rasura.manifests.storage import Store
from rasura.stages.sources.files import RunContext, make_unreadable_id, read_file, remember
from rasura.stages.sources.listing import SourceFile
from rasura.stages.sources.parquet_rows import iterate_picture_rows, list_row_items, read_cell
from rasura.stages.stage import Record

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


ScenePicture = tuple[bytes, str]
"""The fingerprint of a clean picture, and its scene."""


def join_scenes(
    items: Sequence[Record], known: Sequence[ScenePicture] = (), map_jobs: MapJobs = starmap
) -> list[ScenePicture]:
    """Give the items of nearly equal clean pictures one scene: a known one, or the first of theirs, by name.

    Args:
        items: with the keys `scene_id`, which is changed, and `fingerprint`; `joined` is set where a scene was changed.
            Items that lack one of them, and pictures that cannot be read, stay as they are.
        known: pictures of scenes that keep their names; a picture that is near to several of them gets one.
        map_jobs: has parts of the pictures compared with all.

    Returns:
        The items' pictures with their scenes.
    """
    members = [item for item in items if item.get("scene_id") and item.get("fingerprint") not in (None, _NONE)]
    own = [(bytes.fromhex(item["fingerprint"]), str(item["scene_id"])) for item in members]
    pictures, fixed = [*known, *own], {scene for _, scene in known}
    parents: dict[str, str] = {}

    def find_first(scene: str) -> str:
        while (parent := parents.get(scene, scene)) != scene:
            parents[scene] = parents.get(parent, parent)
            scene = parent
        return scene

    for i, j in find_near_duplicates([fingerprint for fingerprint, _ in pictures], len(known), map_jobs):
        first, second = sorted(
            (find_first(pictures[i][1]), find_first(pictures[j][1])), key=lambda scene: (scene not in fixed, scene)
        )
        if second not in fixed:
            parents[second] = first
    for item in items:
        item.pop("fingerprint", None)
        if item.get("scene_id") and (scene := find_first(item["scene_id"])) != item["scene_id"]:
            item |= {"scene_id": scene, "joined": True}
    return [(fingerprint, find_first(scene)) for fingerprint, scene in own]


def write_scenes(run: Store, flow: str, pictures: Sequence[ScenePicture]) -> None:
    """Write the scenes of a flow's clean pictures, for the flows after it.

    Raises:
        StoreError: the run cannot be written.
    """
    rows = sorted(set(pictures))
    columns = [pa.array([row[0] for row in rows], pa.binary()), pa.array([row[1] for row in rows], pa.string())]
    data = encode_parquet(pa.Table.from_arrays(columns, ["fingerprint", "scene"]), page_checksums=True)
    place = scenes_path(flow)
    if not run.exists(place) or run.read(place) != data:
        run.write(place, data)


def read_scenes(run: Store, flows: Sequence[str]) -> list[ScenePicture]:
    """Read the scenes of the clean pictures of some flows; one without a file has none.

    Raises:
        DamagedFile: a file cannot be read. It is deleted: the next listing of its flow writes it anew.
    """
    pictures: list[ScenePicture] = []
    for flow in flows:
        place = scenes_path(flow)
        if not run.exists(place):
            continue
        try:
            with explain_damage(run, place):
                table = read_parquet(io.BytesIO(run.read(place)), ["fingerprint", "scene"])
        except DamagedFile:
            run.delete(place)
            raise
        pictures += zip(table["fingerprint"].to_pylist(), table["scene"].to_pylist(), strict=True)
    return list(dict.fromkeys(pictures))


def describe_divided_scenes(items: Sequence[Record], path: str) -> str:
    """Describe the nearly equal clean pictures in several splits of a published set, which keeps them; "" if none are.

    Args:
        items: after `join_scenes`, with the keys `scene_id` and `kept_split`; items without them are ignored.
        path: of the set, for the warning.
    """
    splits: dict[str, dict[str, str]] = {}
    for item in items:
        if item.get("kept_split") and item.get("scene_id"):
            splits.setdefault(item["scene_id"], {}).setdefault(item["kept_split"], item["origin"])
    divided = [by_split for by_split in splits.values() if len(by_split) > 1]
    if not divided:
        return ""
    example = " and ".join(f"{origin} in '{split}'" for split, origin in sorted(divided[0].items())[:2])
    return (
        f"'{path}': clean pictures that are in several splits, equal or nearly: {len(divided)} ({example}); "
        "keep_split: false splits anew"
    )
