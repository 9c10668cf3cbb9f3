"""Before/after pairs of a fixed camera.

They are in `input/` and `gt/` with equal names and optional `mask/`, in one folder with names that end differently
(`001_input.png`, `001_clean.png`), or in Parquet files.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from pydantic import Field, model_validator

from rasura.manifests.camera_tags import CAMERA_COLUMNS, read_camera
from rasura.manifests.ids import hash_json
from rasura.manifests.images import MAX_PIXELS, decode_image
from rasura.manifests.schemas import PROVENANCE, Kind
from rasura.manifests.storage import is_remote
from rasura.stages import stage
from rasura.stages.imaging.mask_change import Polarity
from rasura.stages.sources.files import (
    InputPath,
    Pattern,
    RunContext,
    compute_content_ids,
    extract_scene_id,
    format_origin,
    read_and_verify,
    survey_files,
)
from rasura.stages.sources.listing import MissingInput, SourceFile, expand_path, find_files, normalize_name
from rasura.stages.sources.parquet_rows import PictureRows, check_files, is_empty_cell, is_parquet, read_cell
from rasura.stages.sources.photos import shrink_to_fit
from rasura.stages.sources.provided_masks import MASK_COLUMNS, NO_MASK, POLARITY, load_mask
from rasura.stages.sources.scenes import list_pictures, list_tables
from rasura.stages.stage import Kept, Outcome, Record, Rejected, Source

PAIR = ("input", "gt")
PARTS = (*PAIR, "mask")
TWICE = "twice"
FilesByName = Mapping[str, Mapping[str, str]]
"""Paths by part, and there by the pair's name; in `TWICE`, names that two files of a part have."""


class Endings(stage.Params):
    """Endings of the names of a pair's files, before their suffix."""

    input: str = Field(min_length=1, description="of the picture with the object, e.g. _input")
    gt: str = Field(min_length=1, description="of the picture without, e.g. _clean")
    mask: str | None = Field(None, min_length=1, description="of the object mask, e.g. _mask")

    @model_validator(mode="after")
    def _check_differences(self) -> "Endings":
        endings = [ending for part in PARTS if (ending := getattr(self, part))]
        if twice := [ending for ending in endings if endings.count(ending) > 1]:
            raise ValueError(f"'{twice[0]}' is there twice: give each part of a pair an ending of its own")
        return self


class PairsParams(stage.Params):
    path: InputPath = Field(description="folder with input/, gt/ and maybe mask/, or .parquet files with such columns")
    endings: Endings | None = Field(None, description="endings of the names, where all files are in one folder")
    mask_column: str = Field("mask", description="column of the object mask, where the files are Parquet")
    mask_polarity: Polarity = POLARITY
    licence: str = Field("unknown", description="licence of the pictures, kept with every row made from them")
    scene: Pattern | None = Field(None, description="regular expression on the file name; equal matches are one scene")
    max_side: int | None = Field(None, ge=16, description="longer pictures are scaled down to this many pixels")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="pictures with more pixels are refused undecoded")


def match_partners(files: FilesByName) -> list[dict[str, str | None]]:
    """Return the paths of each pair's input, gt and mask; None where one is missing.

    Names that differ only in how their letters are composed, or in upper and lower case, are partners where no other
    file could be meant.

    Args:
        files: by part, the pair's name and the path.

    Examples:
        >>> match_partners({"input": {"A1": "input/A1.png"}, "gt": {"a1": "gt/a1.png"}, "mask": {}})
        [{'input': 'input/A1.png', 'gt': 'gt/a1.png', 'mask': None}]
    """
    shared: Counter[tuple[str, str]] = Counter((part, normalize_name(name)) for part in PARTS for name in files[part])
    ambiguous = {name for (_, name), count in shared.items() if count > 1}
    by_key: dict[str, dict[str, str]] = {}
    for part in PARTS:
        for name, path in files[part].items():
            key = normalize_name(name)
            by_key.setdefault(f"={name}" if key in ambiguous else key, {})[part] = path
    return [{part: by_key[key].get(part) for part in PARTS} for key in sorted(by_key)]


def find_similar(name: str, names: Mapping[str, str]) -> str | None:
    """Find the path of a name that differs in its letters' case or composition only; None where there is none."""
    key = normalize_name(name)
    return next((path for other, path in sorted(names.items()) if normalize_name(other) == key), None)


def remove_suffix(name: str) -> str:
    """Return a file's name, with its folders, without its suffix."""
    return name.removesuffix(PurePath(name).suffix)


def group_by_folder(files: Sequence[SourceFile], root: str, passed_over: Counter[str] | None = None) -> FilesByName:
    """Group the files in the folders `input`, `gt` and `mask` (and in theirs) by part and name without suffix.

    Args:
        files: below the root.
        root: the folder.
        passed_over: to which the number of files outside these folders is added.

    Raises:
        MissingInput: input or gt has no file.
    """
    by_part: dict[str, list[tuple[str, str]]] = {part: [] for part in PARTS}
    for file in files:
        # the name below input/, gt/ or mask/: a/001.png and b/001.png are two pairs
        folder, _, name = file.path.removeprefix(root).lstrip("/").partition("/")
        part = normalize_name(folder)
        if name and part in by_part:
            by_part[part].append((remove_suffix(name), file.path))
        elif passed_over is not None:
            passed_over["outside input/, gt/ and mask/"] += 1
    for part in PAIR:
        if not by_part[part]:
            raise MissingInput(_describe_missing(root, part))
    return _index_by_name(by_part, passed_over)


def _describe_missing(root: str, part: str) -> str:
    """Describe that a folder of pairs has no `input` or `gt`, or nothing in it."""
    if is_remote(root) or any(normalize_name(entry.name) == part for entry in Path(root).iterdir()):
        return f"the folder '{root}/{part}' has no file"
    return (
        f"'{root}' has no folder '{part}': pictures with the object are in '{root}/input', those without it in "
        f"'{root}/gt', under equal names (or all in one folder, with `endings`)"
    )


def group_by_ending(
    files: Sequence[SourceFile], root: str, endings: Endings, passed_over: Counter[str] | None = None
) -> FilesByName:
    """Group the files of one folder by part and by their name before its ending; others belong to no pair.

    Args:
        files: below the root.
        root: the folder.
        endings: of the names.
        passed_over: to which the number of files without such an ending is added.

    Raises:
        MissingInput: none has such an ending.
    """
    by_part: dict[str, list[tuple[str, str]]] = {part: [] for part in PARTS}
    by_ending = {part: ending for part in PARTS if (ending := getattr(endings, part))}
    for file in files:
        stem = remove_suffix(file.path.removeprefix(f"{root}/"))
        for part, ending in by_ending.items():
            if normalize_name(stem).endswith(normalize_name(ending)):
                by_part[part].append((stem[: len(stem) - len(ending)], file.path))
                break
        else:
            if passed_over is not None:
                passed_over[f"name has none of the endings {', '.join(by_ending.values())}"] += 1
    if not by_part["input"] and not by_part["gt"]:
        endings_text = f"{by_ending['input']} or {by_ending['gt']}"
        raise MissingInput(f"'{root}' has no file whose name ends in {endings_text} before its suffix")
    return _index_by_name(by_part, passed_over)


def _index_by_name(by_part: Mapping[str, list[tuple[str, str]]], passed_over: Counter[str] | None) -> FilesByName:
    """Index the files of each part by name; of two that differ in their suffix only, which one is meant is unknown."""
    indexed: dict[str, dict[str, str]] = {part: {} for part in (*PARTS, TWICE)}
    for part in PARTS:
        for name, path in by_part[part]:
            other = indexed[part].setdefault(name, path)
            if other != path:
                indexed[TWICE][name] = f"'{format_origin(other)}' and '{format_origin(path)}' have one name"
                if passed_over is not None:
                    passed_over["second file of one name"] += 1
    return indexed


class Pairs(Source):
    """Pairs of a folder or of Parquet files."""

    name = "pairs"
    input_paths = ("path",)
    version = "3"
    gives = {**PROVENANCE, "input": Kind.RGB, "gt": Kind.RGB, "given_mask": Kind.MASK, **MASK_COLUMNS, **CAMERA_COLUMNS}
    Params = PairsParams
    params: PairsParams

    def _columns(self) -> list[str]:
        return ["input", "gt", self.params.mask_column]

    def list_inputs(self) -> Sequence[Any]:
        """List the pairs of the folders, or the files of rows.

        Raises:
            MissingInput: a folder is not there or has no file, or a file has another form.
        """
        files, names = self._find_inputs(Counter())
        self.input_noun = "file" if names is None else "pair"
        return files if names is None else match_partners(names)

    def _find_inputs(self, passed_over: Counter[str]) -> tuple[Sequence[SourceFile], FilesByName | None]:
        """Find the files, and group them by part and name; None where they are of rows."""
        root = expand_path(self.params.path).rstrip("/")
        try:
            files = find_files(root, passed_over=passed_over)
        except MissingInput:
            if self.params.endings or not Path(root).is_dir():
                raise
            files = []  # the folder that is missing is named below
        if files and all(is_parquet(file.path) for file in files):
            return check_files(files, PAIR, self._columns()), None
        if Path(root).is_file():
            raise MissingInput(f"'{root}' is a file; pairs are in a folder with input/ and gt/, or in .parquet files")
        if self.params.endings:
            return files, group_by_ending(files, root, self.params.endings, passed_over)
        return files, group_by_folder(files, root, passed_over)

    def survey_inputs(self, run: RunContext) -> tuple[str, int]:
        return survey_files(self.params.path)

    def items(self, run: RunContext) -> list[Record]:
        files, names = self._find_inputs(run.passed_over)
        if names is None:
            return self._name_scenes(list_tables(files, run, PAIR, self._columns(), "gt"))
        pairs = match_partners(names)
        used = {path for pair in pairs for path in pair.values()}
        by_path = {path: name for part in PARTS for name, path in names[part].items()}
        clean_paths = {pair["gt"] for pair in pairs}
        ids, fingerprints = list_pictures([file for file in files if file.path in clean_paths], run)
        ids |= compute_content_ids([file for file in files if file.path in used - clean_paths], run)
        items = []
        for pair in pairs:
            contents = {part: ids[path] if path else None for part, path in pair.items()}
            present = pair["input"] or pair["gt"] or pair["mask"] or ""
            missing = next((part for part in PAIR if pair[part] is None), None)
            similar = find_similar(by_path[present], names[missing]) if missing else None
            items.append(
                {
                    "id": hash_json(contents),
                    "origin": format_origin(present),
                    "paths": pair,
                    "contents": contents,
                    "similar": similar and format_origin(similar),
                    "twice": names[TWICE].get(by_path[present]),
                    "fingerprint": fingerprints.get(pair["gt"] or ""),
                }
            )
        return self._name_scenes(items)

    def _name_scenes(self, items: list[Record]) -> list[Record]:
        return [item | {"scene_id": extract_scene_id(item["origin"], self.params.scene, item["id"])} for item in items]

    def setup(self) -> None:
        self.parquet = PictureRows(self._columns())

    def _bytes(self, item: Record) -> dict[str, bytes | None]:
        if "row" not in item:
            return {
                part: read_and_verify(path, item["contents"][part]) if path else None
                for part, path in item["paths"].items()
            }
        row = self.parquet.read_row(item)
        mask = row[self.params.mask_column]
        return {
            "input": read_cell(row["input"]),
            "gt": read_cell(row["gt"]),
            "mask": None if is_empty_cell(mask) else read_cell(mask),
        }

    def process_one(self, item: Record) -> Outcome:
        if item.get("twice"):
            return Rejected("ambiguous partners", f"{item['twice']}; remove or rename one of them")
        data, params = self._bytes(item), self.params
        for part in ("input", "gt"):
            if data[part] is None:
                hint = (
                    f"; '{item['similar']}' differs in its letters' case, as others do" if item.get("similar") else ""
                )
                return Rejected("no partner", f"there is no {part} for {item['origin']}{hint}")
        source, clean = (decode_image(data[part] or b"", params.max_pixels) for part in ("input", "gt"))
        mask, columns = None, NO_MASK
        if data["mask"] is not None:
            outcome = load_mask(data["mask"], source, clean, params.mask_polarity, params.max_pixels, params.max_side)
            if isinstance(outcome, Rejected):
                return outcome
            mask, columns = outcome
        return Kept(
            [
                {
                    "id": item["id"],
                    "origin": item["origin"],
                    "scene_id": item["scene_id"],
                    "licence": params.licence,
                    "parents": [],
                    "input": shrink_to_fit(source, params.max_side),
                    "gt": shrink_to_fit(clean, params.max_side),
                    "given_mask": mask,
                    **columns,
                    **read_camera(data["input"] or b""),
                }
            ]
        )
