"""A run's triplets as RORem's training folders, one for each split: its loaders read them as they are.

Pictures are PNG files of the same pixels; masks have 8 bits, 0 and 255, because the loaders dilate them as grey values.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from rasura.manifests.formats.dataset_rows import DatasetRow
from rasura.manifests.formats.folder_export import ConvertedRow, Tally, encode_png, read_parts
from rasura.manifests.formats.rorem import META, NAME, PARTS, get_score
from rasura.manifests.formats.sorted_lists import ListFile
from rasura.manifests.images import decode_image, decode_mask


class RoremLayout:
    """RORem's folders for `manifests.formats.folder_export`: every row of the flows is in them."""

    name = NAME
    columns: Sequence[str] = (*PARTS.values(), "score", "verdict")
    lists: Sequence[ListFile] = (ListFile(META, "[\n ", ",\n ", "\n]"),)
    types: Sequence[str] = ("with a score",)
    names_by_folder = True

    def name_row(self, id: str) -> str:
        return quote(id, safe="")

    def list_paths(self, name: str) -> Sequence[str]:
        return [f"{part}/{name}.png" for part in PARTS]

    def convert(self, row: DatasetRow, raw: Mapping[str, Any], name: str) -> ConvertedRow:
        pictures = dict(zip(PARTS, read_parts(raw, row, list(PARTS.values())), strict=True))
        decoded = {part: (decode_mask if part == "mask" else decode_image)(data) for part, data in pictures.items()}
        files = {f"{part}/{name}.png": encode_png(pixels) for part, pixels in decoded.items()}
        entry: dict[str, Any] = {part: f"{part}/{name}.png" for part in PARTS}
        score = get_score(raw)
        if score is not None:
            entry["score"] = score
        text = json.dumps(entry, indent=1).replace("\n", "\n ")
        return ConvertedRow(files, {META: [text]}, self.types if score is not None else ())

    def describe(self, tally: Tally) -> str:
        scored = sum(counts[self.types[0]] for counts in tally.types.values())
        folders = ", ".join(f"`{quote(split)}/`" for split in sorted(tally.rows))
        return (
            f"RORem's layout: {folders}, each with `{META}`, a list of `source` (with the object), `mask` (white is "
            f"what is removed) and `GT` (without it). {scored} of them have a `score`: 1 or 0 where somebody said yes "
            "or no, else a discriminator's probability. RORem's discriminator needs it in every entry, its remover in "
            "none."
        )
