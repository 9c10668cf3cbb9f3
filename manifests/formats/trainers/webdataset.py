"""WebDataset tars with the whole triplet: pictures as PNG files, an instruction text, and the row's values as JSON.

`webdataset` decodes members by their endings, and `datasets.load_dataset("webdataset")` makes a column of each. Every
sample has the same members: both need that.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rasura.manifests.formats.dataset_rows import DatasetRow
from rasura.manifests.formats.folder_export import LeftOut, Tally, encode_png, read_parts
from rasura.manifests.formats.trainers.pairs import COLUMNS, PairSettings, make_pair
from rasura.manifests.formats.trainers.tars import Sample
from rasura.manifests.images import decode_image

NAME = "webdataset"
TEXTS = ("id", "scene_id", "split", "kind", "label", "origin", "licence", "remover", "verdict")
"""Keys of `json`, empty where a row has no value: `datasets` takes the types of all samples from the first ones."""


class WebDatasetLayout:
    """The samples for `manifests.formats.trainers.tars`.

    Args:
        settings: direction and language of the pairs.
    """

    name = NAME
    columns: Sequence[str] = COLUMNS
    types: Sequence[str] = ()

    def __init__(self, settings: PairSettings) -> None:
        self._settings = settings

    def make_sample(self, row: DatasetRow, raw: Mapping[str, Any]) -> tuple[Sample, Sequence[str]] | LeftOut:
        pair = make_pair(row, raw, self._settings)
        if isinstance(pair, LeftOut):
            return pair
        about: dict[str, Any] = {name: raw.get(name) or "" for name in TEXTS}
        about |= {"prompt": pair.text, "height": pair.mask.shape[0], "width": pair.mask.shape[1]}
        source, target = read_parts(raw, row, ("source", "target"))
        members = {
            "source.png": encode_png(decode_image(source)),
            "mask.png": encode_png(pair.mask),
            "foreground_mask.png": encode_png(pair.change),
            "target.png": encode_png(decode_image(target)),
            "txt": pair.text.encode(),
            "json": json.dumps(about, ensure_ascii=False).encode(),
        }
        return members, ()

    def describe(self, tally: Tally) -> str:
        condition, answer = ("source", "target") if self._settings.direction == "removal" else ("target", "source")
        return (
            "WebDataset tars, a folder for each split: `source.png` is the picture with the object, `target.png` the "
            "one without it, `mask.png` the object (white), `foreground_mask.png` where the two may differ, `txt` the "
            f"instruction that makes `{answer}.png` of `{condition}.png`, `json` the row's values."
        )
