"""Before/after pairs of a fixed camera.

They are in `input/` and `gt/` with equal names and optional `mask/`, in one folder with names that end differently
(`001_input.png`, `001_clean.png`), or in Parquet files.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from pydantic import Field

from rasura.manifests.ids import compute_content_id, hash_json
from rasura.manifests.images import MAX_PIXELS, decode_image, decode_mask
from rasura.manifests.schemas import PROVENANCE, Kind
from rasura.manifests.storage import is_remote
from rasura.stages import stage
from rasura.stages.sources.files import (
    ChangedInput,
    InputPath,
    MissingInput,
    Pattern,
    RunContext,
    SourceFile,
    compute_content_ids,
    expand_path,
    extract_scene_id,
    find_files,
    format_origin,
    read_and_verify,
)
from rasura.stages.sources.photos import (
    ParquetRows,
    check_columns,
    list_row_ids,
    list_row_items,
    read_cell,
    shrink_to_fit,
)
from rasura.stages.stage import Kept, Outcome, Record, Rejected, Source

PARTS = ("input", "gt", "mask")


class Endings(stage.Params):
    """Endings of the names of a pair's files, before their suffix."""

    input: str = Field(min_length=1, description="of the picture with the object, e.g. _input")
    gt: str = Field(min_length=1, description="of the picture without, e.g. _clean")
    mask: str | None = Field(None, min_length=1, description="of the object mask, e.g. _mask")


class PairsParams(stage.Params):
    path: InputPath = Field(description="folder with input/, gt/ and maybe mask/, or .parquet files with such columns")
    endings: Endings | None = Field(None, description="endings of the names, where all files are in one folder")
    mask_column: str = Field("mask", description="column of the object mask, where the files are Parquet")
    licence: str = Field("unknown", description="licence of the pictures, kept with every row made from them")
    scene: Pattern | None = Field(None, description="regular expression on the file name; equal matches are one scene")
    max_side: int | None = Field(None, ge=16, description="longer pictures are scaled down to this many pixels")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="pictures with more pixels are refused undecoded")


FilesByName = Mapping[str, Mapping[str, SourceFile]]
"""Files by part, and there by the pair's name."""


def match_partners(files: FilesByName) -> list[dict[str, SourceFile]]:
    """Return each pair's files by part, sorted by the pair's name; a part that is missing is not there."""
    names = sorted(set().union(*files.values()))
    return [{part: files[part][name] for part in PARTS if name in files[part]} for name in names]


def group_by_folder(files: Mapping[str, Sequence[SourceFile]], root: str) -> FilesByName:
    """Group the files of the folders `input`, `gt` and `mask` (and of theirs) by part and name without suffix.

    Raises:
        MissingInput: two files of one folder have one name and differ in their suffix only.
    """
    # the name below input/, gt/ or mask/: a/001.png and b/001.png are two pairs
    return {part: _index_by_name([(_get_stem(file, f"{root}/{part}"), file) for file in files[part]]) for part in PARTS}


def group_by_ending(files: Sequence[SourceFile], root: str, endings: Endings) -> FilesByName:
    """Group the files of one folder by part and by their name before its ending; others belong to no pair.

    Raises:
        MissingInput: two files have one name and differ in their suffix only, or none has such an ending.
    """
    by_part: dict[str, list[tuple[str, SourceFile]]] = {part: [] for part in PARTS}
    by_ending = {part: ending for part in PARTS if (ending := getattr(endings, part))}
    for file in files:
        stem = _get_stem(file, root)
        for part, ending in by_ending.items():
            if stem.endswith(ending):
                by_part[part].append((stem.removesuffix(ending), file))
                break
    if not by_part["input"] and not by_part["gt"]:
        endings_text = f"{by_ending['input']} or {by_ending['gt']}"
        raise MissingInput(f"'{root}' has no file whose name ends in {endings_text} before its suffix")
    return {part: _index_by_name(by_part[part]) for part in PARTS}


def _get_stem(file: SourceFile, folder: str) -> str:
    name = file.path.removeprefix(f"{folder}/")
    return name.removesuffix(PurePath(name).suffix)


def _index_by_name(entries: Sequence[tuple[str, SourceFile]]) -> dict[str, SourceFile]:
    by_name: dict[str, SourceFile] = {}
    for name, file in entries:
        if other := by_name.get(name):
            raise MissingInput(
                f"'{other.path}' and '{file.path}' have one name, so their partners are ambiguous; rename one of them"
            )
        by_name[name] = file
    return by_name


class Pairs(Source):
    """Pairs of a folder or of Parquet files."""

    name = "pairs"
    input_paths = ("path",)
    gives = {**PROVENANCE, "input": Kind.RGB, "gt": Kind.RGB, "given_mask": Kind.MASK}
    Params = PairsParams
    params: PairsParams

    def __init__(self, params: PairsParams, seed: int = 0) -> None:
        super().__init__(params, seed)
        self.has_tables = params.path.endswith(".parquet")
        self.input_noun = "file" if self.has_tables else "pair"

    def _columns(self) -> list[str]:
        return ["input", "gt", self.params.mask_column]

    def list_inputs(self) -> Sequence[Any]:
        """List the pairs of the folders, or the files of rows.

        Raises:
            MissingInput: a folder is not there or has no file, a file has another form, or partners are ambiguous.
        """
        path = expand_path(self.params.path)
        if self.has_tables:
            return check_columns(find_files(path), ("input", "gt"))
        return match_partners(self._group_files(path.rstrip("/")))

    def _group_files(self, root: str) -> FilesByName:
        if Path(root).is_file():
            raise MissingInput(f"'{root}' is a file; pairs are in a folder with input/ and gt/, or in .parquet files")
        if self.params.endings:
            return group_by_ending(find_files(root), root, self.params.endings)
        if not is_remote(root):
            for part in ("input", "gt"):
                if not Path(root, part).is_dir():
                    raise MissingInput(
                        f"'{root}' has no folder '{part}': pictures with the object are in '{root}/input', those "
                        f"without it in '{root}/gt', under equal names (or all in one folder, with `endings`)"
                    )
        files = {part: find_files(f"{root}/{part}") for part in ("input", "gt")}
        try:
            files["mask"] = find_files(f"{root}/mask")
        except MissingInput:
            files["mask"] = []
        return group_by_folder(files, root)

    def items(self, run: RunContext) -> list[Record]:
        inputs = self.list_inputs()
        if self.has_tables:
            ids = compute_content_ids(inputs, run, lambda path: list_row_ids(path, self._columns()))
            return [item for file in inputs for item in list_row_items(file.path, ids[file.path])]
        ids = compute_content_ids([file for pair in inputs for file in pair.values()], run)
        items: list[Record] = []
        for pair in inputs:
            paths = {part: pair[part].path if part in pair else None for part in PARTS}
            contents = {part: ids[path] if path else None for part, path in paths.items()}
            items.append(
                {
                    "id": hash_json(contents),
                    "origin": format_origin(next(iter(pair.values())).path),
                    "paths": paths,
                    "contents": contents,
                }
            )
        return items

    def setup(self) -> None:
        self.parquet = ParquetRows()

    def _bytes(self, item: Record) -> dict[str, bytes | None]:
        if "row" not in item:
            return {
                part: read_and_verify(path, item["contents"][part]) if path else None
                for part, path in item["paths"].items()
            }
        row = self.parquet.read_row(item["path"], item["row"], self._columns())
        if (
            compute_content_id(*(read_cell(row[column]) for column in self._columns() if column in row))
            != item["content"]
        ):
            raise ChangedInput(f"'{item['origin']}' is not what it was when it was listed; run again")
        mask = row.get(self.params.mask_column)
        return {
            "input": read_cell(row["input"]),
            "gt": read_cell(row["gt"]),
            "mask": read_cell(mask) if mask is not None else None,
        }

    def process_one(self, item: Record) -> Outcome:
        data = self._bytes(item)
        for part in ("input", "gt"):
            if data[part] is None:
                return Rejected("no partner", f"there is no {part} for {item['origin']}")
        pictures = {part: decode_image(data[part] or b"", self.params.max_pixels) for part in ("input", "gt")}
        mask = decode_mask(data["mask"], self.params.max_pixels) if data["mask"] is not None else None
        if mask is not None and mask.shape != pictures["input"].shape[:2]:
            height, width = pictures["input"].shape[:2]
            return Rejected("mask of another size", f"mask {mask.shape[1]} x {mask.shape[0]}, input {width} x {height}")
        if mask is not None:
            mask = shrink_to_fit((mask * 255).astype("uint8"), self.params.max_side) > 127
        return Kept(
            [
                {
                    "id": item["id"],
                    "origin": item["origin"],
                    "scene_id": extract_scene_id(item["origin"], self.params.scene, item["content"]),
                    "licence": self.params.licence,
                    "parents": [],
                    "input": shrink_to_fit(pictures["input"], self.params.max_side),
                    "gt": shrink_to_fit(pictures["gt"], self.params.max_side),
                    "given_mask": mask,
                }
            ]
        )
