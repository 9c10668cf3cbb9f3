"""JSON lines for latent categories guidance, which PixelHacker and Moebius train on (arXiv 2504.20438, 2606.19195).

A line is {"image", "prompt", "mask"}: the prompt is `foreground` where the hole is to be filled with an object, and
`background` where it is not. A triplet gives one of each: its source with the object's mask, and its target with a
background mask, M_bg = M_scene + M_brush · 0.5 + M_object' · 0.5 (Eq. 1). The scene's part is the place that the object
left, or, in half of the rows that have it, the ground plane; strokes of a brush are in half of the masks, the mask of
another row's object in half of them.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

import numpy as np

from rasura.manifests.formats.dataset_rows import JUDGEMENT, DatasetRow, explain_unfit, read_raw_row
from rasura.manifests.formats.folder_export import (
    DEFAULT_SPLIT,
    ConvertedRow,
    LeftOut,
    Tally,
    encode_png,
    name_row,
    read_parts,
)
from rasura.manifests.formats.ober import get_picture_suffix
from rasura.manifests.formats.random_masks import draw_brush, resize_mask
from rasura.manifests.formats.sorted_lists import ListFile, render_line
from rasura.manifests.ids import compute_seed
from rasura.manifests.images import Mask, decode_mask
from rasura.manifests.tables import Tables

NAME = "lcg"
LINES = "train_data.jsonl"
GROUND_SHARE = BRUSH_SHARE = OBJECT_SHARE = 0.5
LARGEST = 0.7
"""Share of the picture up to which a hole is enlarged: a model needs something around it to learn from."""
Prompt = Literal["foreground", "background"]

_FOREGROUND = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush,banner,blanket,bridge,cardboard,counter,"
    "curtain,door-stuff,flower,fruit,gravel,house,light,mirror-stuff,net,pillow,railroad,roof,shelf,stairs,tent,towel,"
    "window-blind,window-other,tree-merged,fence-merged,cabinet-merged,mountain-merged,dirt-merged,paper-merged,"
    "food-other-merged,building-other-merged,rock-merged,rug-merged,trash can,clothes,shadow"
)
_BACKGROUND = (
    "background,floor-wood,platform,playingfield,river,road,sand,sea,snow,wall-brick,wall-stone,wall-tile,wall-wood,"
    "water-other,ceiling-merged,sky-other-merged,table-merged,floor-other-merged,pavement-merged,grass-merged,"
    "wall-other-merged"
)
FOREGROUND = tuple(_FOREGROUND.split(","))
BACKGROUND = tuple(_BACKGROUND.split(","))
"""PixelHacker's 116 and 21 categories (its supplement): COCO's panoptic ones, and `trash can`, `clothes`, `shadow`,
`background`."""


def _shorten(name: str) -> str:
    """Return a category without what COCO added to tell stuff from things: `wall-other-merged` is `wall`."""
    return name.removesuffix("-merged").removesuffix("-other").removesuffix("-stuff")


_TABLE: Mapping[str, Prompt] = {
    **{name: "background" for full in BACKGROUND for name in (full, _shorten(full), full.partition("-")[0])},
    **{name: "foreground" for full in FOREGROUND for name in (full, _shorten(full))},
    "table": "foreground",  # of an object it means the furniture, not the table top that COCO's `table-merged` is
}


def classify_label(label: str | None) -> Prompt:
    """Return the group of categories that a label is in.

    Args:
        label: of an object; a category with or without COCO's endings. Unknown ones, and none, are foreground: they
            name something that somebody wanted removed.

    Examples:
        >>> classify_label("dog"), classify_label("Wall"), classify_label("floor-wood"), classify_label(None)
        ('foreground', 'background', 'background', 'foreground')
    """
    return _TABLE.get((label or "").strip().lower(), "foreground")


class LcgLayout:
    """The lines and pictures for `manifests.formats.folder_export`.

    Args:
        tables: of the run.
        rows: that are exported.
        repeats: of `find_repeats`.
    """

    name = NAME
    columns: Sequence[str] = ("source", "target", "mask", "foreground_mask", "ground_mask", *JUDGEMENT)
    lists: Sequence[ListFile] = (ListFile(LINES),)
    types: Sequence[str] = ("foreground", "background", "of the ground", "with a brush", "with another object")
    names_by_folder = False

    def __init__(self, tables: Tables, rows: Sequence[DatasetRow], repeats: Mapping[str, str]) -> None:
        self._tables, self._repeats = tables, repeats
        self._splits: dict[str, list[DatasetRow]] = defaultdict(list)
        for row in rows:
            self._splits[row.split or DEFAULT_SPLIT].append(row)

    def name_row(self, id: str) -> str:
        return name_row(id)

    def list_paths(self, name: str) -> Sequence[str]:
        pictures = [f"{folder}/{name}.{suffix}" for folder in ("source", "target") for suffix in ("webp", "png")]
        return [*pictures, f"object/{name}.png", f"background/{name}.png"]

    def convert(self, row: DatasetRow, raw: Mapping[str, Any], name: str) -> ConvertedRow | LeftOut:
        source, target, encoded = read_parts(raw, row, ("source", "target", "mask"))
        mask = decode_mask(encoded)
        split = quote(row.split or DEFAULT_SPLIT)
        files: dict[str, bytes] = {}
        entries: list[str] = []
        types: list[str] = []

        def add(folder: str, picture: bytes, mask_folder: str, hole: Mask, prompt: Prompt) -> None:
            image, hole_file = f"{folder}/{name}.{get_picture_suffix(picture)}", f"{mask_folder}/{name}.png"
            files.update({image: picture, hole_file: encode_png(hole)})
            line = {"image": f"{split}/{image}", "prompt": prompt, "mask": f"{split}/{hole_file}"}
            entries.append(render_line(line))
            types.append(prompt)

        no_source = explain_unfit(raw, "source") or self._repeats.get(row.id)
        no_target = explain_unfit(raw, "target")
        if not no_source:
            add("source", source, "object", mask, classify_label(raw.get("label")))
        if not no_target:
            hole, parts = self._draw_background(row, raw, mask)
            add("target", target, "background", hole, "background")
            types += parts
        if not entries:
            return LeftOut("; ".join(dict.fromkeys(filter(None, (no_source, no_target)))))
        return ConvertedRow(files, {LINES: entries}, types)

    def _draw_background(self, row: DatasetRow, raw: Mapping[str, Any], mask: Mask) -> tuple[Mask, list[str]]:
        """Draw M_bg of Eq. 1, and name what is in it beside the place of the object."""
        rng = np.random.default_rng(compute_seed(0, NAME, row.id))
        of_ground, with_brush, with_object = rng.random(3) < (GROUND_SHARE, BRUSH_SHARE, OBJECT_SHARE)
        shape, parts = (mask.shape[0], mask.shape[1]), []
        brush, other = draw_brush(shape, rng), self._read_other_mask(row, rng)
        place, ground = (_decode_cell(raw, column) for column in ("foreground_mask", "ground_mask"))
        hole = mask if place is None else place
        if of_ground and ground is not None and 0 < ground.mean() <= LARGEST:
            hole = ground
            parts.append("of the ground")
        shape_of_other = resize_mask(other, shape) if with_object and other is not None else None
        for name, more in (("with a brush", brush if with_brush else None), ("with another object", shape_of_other)):
            if more is not None and (hole | more).mean() <= LARGEST:
                hole = hole | more
                parts.append(name)
        return hole, parts

    def _read_other_mask(self, row: DatasetRow, rng: np.random.Generator) -> Mask | None:
        """Read the mask of a random row of the same split and of another scene; None where a few draws meet none."""
        rows = self._splits[row.split or DEFAULT_SPLIT]
        for index in rng.integers(len(rows), size=8).tolist():
            if rows[index].scene != row.scene:
                return _decode_cell(read_raw_row(self._tables, rows[index], ["mask"]), "mask")
        return None

    def describe(self, tally: Tally) -> str:
        return (
            f"JSON lines for PixelHacker and Moebius: `<split>/{LINES}` with `image`, `prompt` and `mask`. Foreground: "
            "the picture with the object, and the object's mask. Background: the picture without it, and the place "
            "that it left or the ground plane, in half of the lines with strokes of a brush, in half with the mask of "
            "another row's object. Paths begin with the split's name: link its folder where the trainer is started."
        )


def _decode_cell(raw: Mapping[str, Any], column: str) -> Mask | None:
    return None if raw.get(column) is None else decode_mask(raw[column]["bytes"])
