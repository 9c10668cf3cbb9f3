"""The layout of a dataset that somebody names, and the source that reads it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from rasura.manifests.errors import InputError
from rasura.manifests.formats.ober import NEEDED_COLUMNS as OBER_COLUMNS
from rasura.manifests.ids import is_split_name
from rasura.manifests.parquet import open_parquet
from rasura.manifests.run_layout import DATASET, PLAN

SPLITS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")
"""Names of folders that are splits of one dataset."""
FOLDERS: Mapping[str, frozenset[str]] = {
    "rord": frozenset({"img", "gt"}),
    "smarteraser": frozenset({"paste", "gt", "mask"}),
}
"""Folders of published sets, by the source that reads them."""
ENDINGS = (
    ("_input", ("_gt", "_clean", "_target", "_GT")),
    ("_source", ("_target", "_gt", "_edited")),
    ("_start", ("_end",)),
    ("_before", ("_after",)),
    ("_with", ("_without",)),
)
"""Endings of the names of pairs in one folder: of the picture with the object, and without. The most pairs decide."""

COLUMNS: Mapping[str, Sequence[str]] = {
    "source": ("source", "input_image", "original_image", "source_image"),
    "target": ("target", "edited_image", "target_image", "output_image"),
    "mask": ("mask", "mask_image", "object_mask"),
    "foreground_mask": ("foreground_mask",),
    "label": ("label",),
    "licence": ("licence",),
    "scene": ("scene_id",),
    "split": ("split",),
    "kind": ("kind",),
}
"""Columns of Parquet files that are tried, by what they are: those of Rasura first."""


class UnknownLayout(InputError):
    """A place in which none of the known layouts is found."""


class Layout(NamedTuple):
    """How a dataset is read: a source of a recipe with its parameters."""

    source: str
    params: Mapping[str, Any]


def find_layout(path: str) -> Layout:
    """Find the layout of a local folder or file.

    Raises:
        UnknownLayout: none fits; the text lists those that are looked for.

    Examples:
        >>> find_layout("no such folder")
        Traceback (most recent call last):
        rasura.pipeline.audit.layouts.UnknownLayout: 'no such folder' is no folder and no file
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise UnknownLayout(f"'{path}' is no folder and no file")
    if place.is_dir() and (place / PLAN).is_file():
        if not (place / DATASET / "manifest.json").is_file():
            raise UnknownLayout(f"'{path}' is a run without a dataset; export it first: `rasura export {path} --out …`")
        place = place / DATASET
    layout = _find_parquet(place) or (_find_folders(place) if place.is_dir() else None)
    if layout is None:
        raise UnknownLayout(
            f"'{path}' has no layout that is known: looked for a run or a dataset of Rasura, Parquet files with the "
            "columns input and gt (or source and target), input/ and gt/, meta.json of RORem, and names that end in "
            "_input and _gt and the like; name its source with --source, and its parameters with --set"
        )
    return layout


def _find_parquet(place: Path) -> Layout | None:
    """Find the layout of Parquet files by the columns of the first."""
    files = [place] if place.is_file() else sorted(place.rglob("*.parquet"))
    file = next((file for file in files if file.suffix.lower() == ".parquet"), None)
    if file is None:
        return None
    try:
        with open_parquet(str(file)) as source:
            names = set(source.schema_arrow.names)
    except (OSError, pa.ArrowException) as error:
        raise UnknownLayout(f"'{file}' cannot be read: {error}") from None
    if {*OBER_COLUMNS, "gt"} <= names:
        return Layout("ober", {"path": str(place)})
    if {"input", "gt"} <= names:
        return Layout("pairs", {"path": str(place)})
    columns = {part: name for part, known in COLUMNS.items() if (name := next((k for k in known if k in names), None))}
    if {"source", "target"} <= set(columns):
        return Layout("table", {"path": str(place), "columns": columns, "give": "pairs"})
    return None


def _find_folders(place: Path) -> Layout | None:
    """Find the layout of a folder of pictures by its folders and the names in it."""
    names = {entry.name.casefold() for entry in place.iterdir()}
    if {"input", "gt"} <= names:
        return Layout("pairs", {"path": str(place)})
    for source, folders in FOLDERS.items():
        if folders <= names or any(all((entry / name).is_dir() for name in folders) for entry in place.iterdir()):
            return Layout(source, {"path": str(place), "give": "pairs"})
    if any(place.rglob("*.tar")):
        return Layout("webdataset", {"path": str(place), "give": "pairs"})
    if any(place.glob("meta*.json")) or any(place.glob("*/meta*.json")):
        return Layout("rorem", {"path": str(place)})
    stems = {entry.stem for entry in place.rglob("*") if entry.is_file()}
    pairs = {
        (ending, partner): [name for name in _cut_ending(stems, ending) if f"{name}{partner}" in stems]
        for ending, partners in ENDINGS
        for partner in partners
    }
    (ending, partner), firsts = max(pairs.items(), key=lambda item: len(item[1]))  # the first of several that are equal
    if not firsts:
        return None
    endings = {"input": ending, "gt": partner}
    if any(f"{name}_mask" in stems for name in firsts):
        endings["mask"] = "_mask"
    return Layout("pairs", {"path": str(place), "endings": endings})


def _cut_ending(stems: Iterable[str], ending: str) -> set[str]:
    """Return the names that end so, without the ending."""
    return {stem.removesuffix(ending) for stem in stems if stem.endswith(ending)}


def find_splits(places: list[str]) -> dict[str, str]:
    """Return the places of each split: `name=place` as it is named, or the folders of one place named as splits are.

    Returns:
        Split to place; "" is the split where rows say themselves what they are in.

    Raises:
        InputError: a name is no word, or there twice.

    Examples:
        >>> find_splits(["train=a", "test=b"])
        {'train': 'a', 'test': 'b'}
        >>> find_splits(["pairs"])
        {'': 'pairs'}
    """
    if len(places) == 1 and ("=" not in places[0] or Path(places[0]).expanduser().exists()):
        place = Path(places[0]).expanduser()
        folders = sorted(entry for entry in place.iterdir() if entry.is_dir()) if place.is_dir() else []
        named = {entry.name: str(entry) for entry in folders if entry.name.casefold() in SPLITS}
        return named if len(named) > 1 and _find_folders(place) is None else {"": places[0]}
    splits: dict[str, str] = {}
    for text in places:
        name, mark, place_text = text.partition("=")
        if not mark or not place_text:
            raise InputError(f"'{text}': of several datasets, name the split of each, such as train={text}")
        if not is_split_name(name):
            raise InputError(f"'{text}': '{name}' is no name of a split: letters, digits and underscores")
        if name in splits:
            raise InputError(f"'{text}': split '{name}' is there twice")
        splits[name] = place_text
    return splits
