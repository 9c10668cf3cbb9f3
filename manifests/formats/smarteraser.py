"""SmartEraser's folders, as its Syn4Removal has them (arXiv 2501.08279): `gt/`, `mask/`, `paste/` and `result.json`.

The three pictures of a row have one name. SmartEraser's trainer lists `gt/` and squeezes everything to 512 × 512 px.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rasura.manifests.boxes import compute_bounds
from rasura.manifests.formats.dataset_rows import JUDGEMENT, DatasetRow, explain_unfit
from rasura.manifests.formats.folder_export import ConvertedRow, LeftOut, Tally, encode_png, name_row, read_parts
from rasura.manifests.formats.sorted_lists import ListFile
from rasura.manifests.images import RGB, Mask, decode_image, decode_mask

NAME = "smarteraser"
RESULT = "result.json"
FOLDERS = {"gt": "target", "mask": "mask", "paste": "source"}
"""SmartEraser's folders -> the pictures of a triplet."""
TRAINER_SIDE = 512
VANISHES = f"its mask vanishes at {TRAINER_SIDE} px, the trainer's size"


def vanishes(mask: Mask, side: int = TRAINER_SIDE) -> bool:
    """Return True where nothing is left of a mask (h, w) when it is squeezed to a square and cut at one half.

    Examples:
        >>> mask = np.zeros((2048, 2048), bool)
        >>> mask[7, 7] = True
        >>> vanishes(mask), vanishes(mask[:64, :64])
        (True, False)
    """
    from PIL import Image

    grey = Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0)))
    return bool(np.asarray(grey.resize((side, side), Image.Resampling.BILINEAR)).max() <= 128)


class SmartEraserLayout:
    """SmartEraser's folders for `manifests.formats.folder_export`."""

    name = NAME
    columns: Sequence[str] = (*FOLDERS.values(), *JUDGEMENT)
    lists: Sequence[ListFile] = (ListFile(RESULT, "{\n", ",\n", "\n}\n"),)
    types: Sequence[str] = ()
    names_by_folder = False

    def name_row(self, id: str) -> str:
        return name_row(id)

    def list_paths(self, name: str) -> Sequence[str]:
        return [f"{folder}/{name}.png" for folder in FOLDERS]

    def convert(self, row: DatasetRow, raw: Mapping[str, Any], name: str) -> ConvertedRow | LeftOut:
        if reason := explain_unfit(raw, "target"):
            return LeftOut(reason)
        target, mask, source = read_parts(raw, row, list(FOLDERS.values()))
        pixels = decode_mask(mask)
        if vanishes(pixels):
            return LeftOut(VANISHES)
        pictures: dict[str, RGB | Mask] = {"gt": decode_image(target), "mask": pixels, "paste": decode_image(source)}
        files = {f"{folder}/{name}.png": encode_png(picture) for folder, picture in pictures.items()}
        entry = [raw.get("label"), list(compute_bounds(pixels)), list(pixels.shape[::-1])]
        text = f"{json.dumps(f'{name}.png')}: {json.dumps(entry, ensure_ascii=False)}"
        return ConvertedRow(files, {RESULT: [text]})

    def describe(self, tally: Tally) -> str:
        return (
            "SmartEraser's layout, a folder for each split: `paste/` (with the object), `mask/` (white is what is "
            f"removed), `gt/` (without it), PNG files of one name; `{RESULT}` has the object's class, its box (x0, y0, "
            "x1, y1 in px) and the picture's size (w, h)."
        )
