"""Before/after pairs of a fixed camera.

They are in `input/` and `gt/` with equal names and optional `mask/`, in one folder with names that end differently
(`001_input.png`, `001_clean.png`), or in Parquet files.
"""

from pathlib import PurePath

from pydantic import Field

from rasura.manifests.ids import compute_content_id, hash_json
from rasura.manifests.images import MAX_PIXELS, decode_image, decode_mask
from rasura.manifests.schemas import PROVENANCE, Kind
from rasura.stages import stage
from rasura.stages.sources.files import (
    ChangedInput,
    MissingInput,
    Pattern,
    RunContext,
    SourceFile,
    compute_content_ids,
    extract_scene_id,
    find_files,
    format_origin,
    read_and_verify,
)
from rasura.stages.sources.photos import ParquetRows, list_row_ids, list_row_items, read_cell, shrink_to_fit
from rasura.stages.stage import Kept, Outcome, Record, Rejected, Source

PARTS = ("input", "gt", "mask")


class Endings(stage.Params):
    """Endings of the names of a pair's files, before their suffix."""

    input: str = Field(min_length=1, description="of the picture with the object, e.g. _input")
    gt: str = Field(min_length=1, description="of the picture without, e.g. _clean")
    mask: str | None = Field(None, min_length=1, description="of the object mask, e.g. _mask")


class PairsParams(stage.Params):
    path: str = Field(description="folder with input/, gt/ and maybe mask/, or .parquet files with such columns")
    endings: Endings | None = Field(None, description="endings of the names, where all files are in one folder")
    mask_column: str = Field("mask", description="column of the object mask, where the files are Parquet")
    licence: str = Field("unknown", description="licence of the pictures, kept with every row made from them")
    scene: Pattern | None = Field(None, description="regular expression on the file name; equal matches are one scene")
    max_side: int | None = Field(None, ge=16, description="longer pictures are scaled down to this many pixels")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="pictures with more pixels are refused undecoded")


def match_partners(files: dict[str, dict[str, str]]) -> list[dict[str, str | None]]:
    """Return the paths of each pair's input, gt and mask; None where one is missing.

    Args:
        files: by part, the pair's name and the path.
    """
    names = sorted(set().union(*files.values()))
    return [{part: files[part].get(name) for part in PARTS} for name in names]


def group_by_folder(files: dict[str, list[SourceFile]], root: str) -> dict[str, dict[str, str]]:
    """Group the files of the folders `input`, `gt` and `mask` (and of theirs) by part and name without suffix.

    Raises:
        MissingInput: two files of one folder have one name and differ in their suffix only.
    """
    # the name below input/, gt/ or mask/: a/001.png and b/001.png are two pairs
    names = {
        part: [(file.path.removeprefix(f"{root}/{part}/"), file.path) for file in entries]
        for part, entries in files.items()
    }
    stems = {
        part: [(name.removesuffix(PurePath(name).suffix), path) for name, path in entries]
        for part, entries in names.items()
    }
    return {part: _index_by_name(stems[part]) for part in PARTS}


def group_by_ending(files: list[SourceFile], root: str, endings: Endings) -> dict[str, dict[str, str]]:
    """Group the files of one folder by part and by their name before its ending; others belong to no pair.

    Raises:
        MissingInput: two files have one name and differ in their suffix only, or none has such an ending.
    """
    by_part: dict[str, list[tuple[str, str]]] = {part: [] for part in PARTS}
    by_ending = {part: ending for part in PARTS if (ending := getattr(endings, part))}
    for file in files:
        name = file.path.removeprefix(f"{root}/")
        stem = name.removesuffix(PurePath(name).suffix)
        for part, ending in by_ending.items():
            if stem.endswith(ending):
                by_part[part].append((stem.removesuffix(ending), file.path))
                break
    if not by_part["input"] and not by_part["gt"]:
        endings_text = f"{by_ending['input']} or {by_ending['gt']}"
        raise MissingInput(f"'{root}' has no file whose name ends in {endings_text} before its suffix")
    return {part: _index_by_name(by_part[part]) for part in PARTS}


def _index_by_name(entries: list[tuple[str, str]]) -> dict[str, str]:
    by_name: dict[str, str] = {}
    for name, path in entries:
        if other := by_name.get(name):
            raise MissingInput(
                f"'{other}' and '{path}' have one name, so their partners are ambiguous; rename one of them"
            )
        by_name[name] = path
    return by_name


class Pairs(Source):
    """Pairs of a folder or of Parquet files."""

    name = "pairs"
    input_paths = ("path",)
    gives = {**PROVENANCE, "input": Kind.RGB, "gt": Kind.RGB, "given_mask": Kind.MASK}
    Params = PairsParams
    params: PairsParams

    def _find(self, folder: str) -> list[SourceFile]:
        try:
            return find_files(f"{self.params.path.rstrip('/')}/{folder}")
        except FileNotFoundError:
            if folder == "mask":
                return []
            raise

    def _columns(self) -> list[str]:
        return ["input", "gt", self.params.mask_column]

    def items(self, run: RunContext) -> list[Record]:
        if self.params.path.endswith(".parquet"):
            files = find_files(self.params.path)
            ids = compute_content_ids(files, run, lambda path: list_row_ids(path, self._columns()))
            return [item for file in files for item in list_row_items(file.path, ids[file.path])]
        root = self.params.path.rstrip("/")
        if self.params.endings:
            files = find_files(root)
            pairs = match_partners(group_by_ending(files, root, self.params.endings))
        else:
            by_part = {part: self._find(part) for part in PARTS}
            files = [file for entries in by_part.values() for file in entries]
            pairs = match_partners(group_by_folder(by_part, root))
        used = {path for pair in pairs for path in pair.values()}
        ids = compute_content_ids([file for file in files if file.path in used], run)
        items: list[Record] = []
        for pair in pairs:
            contents = {part: ids[path] if path else None for part, path in pair.items()}
            items.append(
                {
                    "id": hash_json(contents),
                    "origin": format_origin(pair["input"] or pair["gt"] or pair["mask"] or ""),
                    "paths": pair,
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
