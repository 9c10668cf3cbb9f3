"""Pairs as folders of PNG files with texts, as trainers of text-guided editing models read them.

The layouts differ in the names of the files only. Each follows the code of its trainer:

ai-toolkit (0.12.26, toolkit/data_loader.py, dataloader_mixins.py): `folder_path` is searched with all that is below it;
`control_path` and `mask_path` have files of the same names (white: full loss); a text is beside its picture.
OneTrainer (at 23df383, modules/dataLoader/mixin/DataLoaderText2ImageMixin.py): `-condlabel.png` and `-masklabel.png`
beside the picture (white: trained); each line of the text is an alternative.
kohya's musubi-tuner (0.3.4, dataset/datasources.py) and sd-scripts (at 48d368f, library/train_util.py): a folder of
pictures with texts, one of control pictures of equal names and size and no others.
DiffSynth-Studio (2.1.2, diffsynth/core/data/unified_dataset.py): a list with paths from its own folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from json import dumps
from typing import Any
from urllib.parse import quote

from rasura.manifests.formats.dataset_rows import DatasetRow
from rasura.manifests.formats.folder_export import ConvertedRow, LeftOut, Tally, encode_png, name_row
from rasura.manifests.formats.sorted_lists import ListFile
from rasura.manifests.formats.trainers.pairs import COLUMNS, PairSettings, make_pair
from rasura.manifests.images import decode_image


@dataclass(frozen=True)
class PairFiles:
    """The names of the files of a pair, from the split's folder: `{}` is the name of the row.

    Attributes:
        answer, condition, mask, text: of each file; no text where it is in a list.
        lists: name of a list -> its keys for prompt, answer and conditions; a key with `[]` has a list.
        about: what the card says of them, with `{split}` for the folder.
    """

    answer: str
    condition: str
    mask: str
    text: str = ""
    lists: Mapping[str, Sequence[str]] = field(default_factory=dict)
    about: str = ""


TRAINERS: Mapping[str, PairFiles] = {
    "ai-toolkit": PairFiles(
        "target/{}.png",
        "control/{}.png",
        "mask/{}.png",
        "target/{}.txt",
        about="For ai-toolkit: `folder_path: {split}/target`, `control_path: {split}/control`, "
        "`mask_path: {split}/mask`, `caption_ext: txt`.",
    ),
    "onetrainer": PairFiles(
        "{}.png",
        "{}-condlabel.png",
        "{}-masklabel.png",
        "{}.txt",
        about="For OneTrainer: a concept with the path `{split}` and prompts from a text file per sample; "
        "`custom_conditioning_image` reads `-condlabel.png`, `masked_training` reads `-masklabel.png`.",
    ),
    "kohya": PairFiles(
        "target/{}.png",
        "control/{}.png",
        "mask/{}.png",
        "target/{}.txt",
        about='For musubi-tuner: `image_directory = "{split}/target"`, `control_directory = "{split}/control"`, '
        '`caption_extension = ".txt"`. For sd-scripts: `image_dir = "{split}/target"` and `conditioning_data_dir`, '
        "which is `{split}/control` for ControlNets, or `{split}/mask` for `--masked_loss`.",
    ),
    "diffsynth": PairFiles(
        "image/{}.png",
        "edit_image/{}.png",
        "mask/{}.png",
        lists={
            "metadata.json": ("prompt", "image", "edit_image", "kontext_images"),
            "metadata_lists.json": ("prompt", "image", "edit_image[]"),
        },
        about="For DiffSynth-Studio: `--dataset_base_path {split} --dataset_metadata_path {split}/metadata.json`, with "
        "`--data_file_keys image,edit_image` (FLUX.1 Kontext: `image,kontext_images`); `metadata_lists.json` for "
        "models that take several pictures (Qwen-Image-Edit-2509 and later).",
    ),
}
"""Layout -> the names of its files."""


class PairFolderLayout:
    """A layout of `TRAINERS` for `manifests.formats.folder_export`.

    Args:
        name: of the layout.
        settings: direction and language of the pairs.
    """

    columns: Sequence[str] = COLUMNS
    types: Sequence[str] = ()
    names_by_folder = False

    def __init__(self, name: str, settings: PairSettings) -> None:
        self.name, self._settings, self._files = name, settings, TRAINERS[name]
        self.lists: Sequence[ListFile] = [ListFile(path, "[\n", ",\n", "\n]\n") for path in self._files.lists]

    def name_row(self, id: str) -> str:
        return name_row(id).replace("-", "%2D")  # OneTrainer looks for endings with a hyphen

    def list_paths(self, name: str) -> Sequence[str]:
        files = self._files
        return [path.format(name) for path in (files.answer, files.condition, files.mask, files.text) if path]

    def convert(self, row: DatasetRow, raw: Mapping[str, Any], name: str) -> ConvertedRow | LeftOut:
        pair = make_pair(row, raw, self._settings)
        if isinstance(pair, LeftOut):
            return pair
        rules = self._files
        answer, condition = rules.answer.format(name), rules.condition.format(name)
        files = {
            answer: encode_png(decode_image(pair.answer)),
            condition: encode_png(decode_image(pair.condition)),
            rules.mask.format(name): encode_png(pair.change),
        }
        if rules.text:
            files[rules.text.format(name)] = pair.text.encode()
        entries = {path: [_render_entry(keys, pair.text, answer, condition)] for path, keys in rules.lists.items()}
        return ConvertedRow(files, entries, clean=answer if self._settings.direction == "removal" else condition)

    def describe(self, tally: Tally) -> str:
        split = quote(next(iter(sorted(tally.rows, key=lambda name: (name != "train", name)))))
        verb = "without the object" if self._settings.direction == "removal" else "with the object"
        return (
            f"{self._files.about.format(split=split)} The picture to learn is the one {verb}; masks are white where "
            "the two pictures may differ."
        )


def _render_entry(keys: Sequence[str], text: str, answer: str, condition: str) -> str:
    """Render a row's entry of a list: prompt, picture to learn, and conditions."""
    prompt, picture, *conditions = keys
    values: dict[str, Any] = {prompt: text, picture: answer}
    for key in conditions:
        values[key.removesuffix("[]")] = [condition] if key.endswith("[]") else condition
    return dumps(values, ensure_ascii=False)
