"""Before/after pairs of a fixed camera: `input/` and `gt/` with equal names and optional `mask/`; one folder whose
names tell them apart (`001_input.png`, `001_clean.png`); or Parquet."""

from pathlib import PurePath

from pydantic import Field

from rasura.manifests.ids import content_id, stable_hash
from rasura.manifests.images import MAX_PIXELS, decode_image, decode_mask
from rasura.manifests.schemas import PROVENANCE, Kind
from rasura.stages import stage
from rasura.stages.sources.files import (
    ChangedInput,
    Found,
    MissingInput,
    Pattern,
    RunContext,
    content_ids,
    find,
    origin_of,
    read_checked,
    scene_of,
)
from rasura.stages.sources.photos import ParquetRows, cell_bytes, fit, row_ids, row_items
from rasura.stages.stage import Kept, Outcome, Record, Rejected, Source

PARTS = ("input", "gt", "mask")


class Endings(stage.Params):
    """How the names of a pair's files end, before their suffix."""

    input: str = Field(min_length=1, description="of the picture with the object, e.g. _input")
    gt: str = Field(min_length=1, description="of the picture without, e.g. _clean")
    mask: str | None = Field(None, min_length=1, description="of the object mask, e.g. _mask")


class PairsParams(stage.Params):
    path: str = Field(description="folder with input/, gt/ and maybe mask/, or .parquet files with such columns")
    endings: Endings | None = Field(None, description="how names end, where all files are in one folder")
    mask_column: str = Field("mask", description="column of the object mask, where the files are Parquet")
    licence: str = Field("unknown", description="licence of the pictures, kept with every row made from them")
    scene: Pattern | None = Field(None, description="regular expression on the file name; equal matches are one scene")
    max_side: int | None = Field(None, ge=16, description="longer pictures are scaled down to this many pixels")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="pictures with more pixels are refused undecoded")


def partners(files: dict[str, dict[str, str]]) -> list[dict[str, str | None]]:
    """Paths of each pair's input, gt and mask; None where one is missing.

    Args:
        files: by part, the pair's name and the path.
    """
    names = sorted(set().union(*files.values()))
    return [{part: files[part].get(name) for part in PARTS} for name in names]


def by_folder(files: dict[str, list[Found]], root: str) -> dict[str, dict[str, str]]:
    """Files of the folders `input`, `gt` and `mask` (and of theirs) by part and name without suffix.

    Raises:
        MissingInput: two files of one folder have one name and differ in their suffix only.
    """
    # the name below input/, gt/ or mask/: a/001.png and b/001.png are two pairs
    cut = {part: [(f.path.removeprefix(f"{root}/{part}/"), f.path) for f in found] for part, found in files.items()}
    stems = {
        part: [(name.removesuffix(PurePath(name).suffix), path) for name, path in found] for part, found in cut.items()
    }
    return {part: _unique(stems[part]) for part in PARTS}


def by_ending(files: list[Found], root: str, endings: Endings) -> dict[str, dict[str, str]]:
    """Files of one folder by part and what comes before the ending of their name; others are no part of a pair.

    Raises:
        MissingInput: two files have one name and differ in their suffix only, or none has such an ending.
    """
    found: dict[str, list[tuple[str, str]]] = {part: [] for part in PARTS}
    told = {part: ending for part in PARTS if (ending := getattr(endings, part))}
    for file in files:
        name = file.path.removeprefix(f"{root}/")
        stem = name.removesuffix(PurePath(name).suffix)
        for part, ending in told.items():
            if stem.endswith(ending):
                found[part].append((stem.removesuffix(ending), file.path))
                break
    if not found["input"] and not found["gt"]:
        raise MissingInput(f"'{root}' has no file whose name ends in {told['input']} or {told['gt']} before its suffix")
    return {part: _unique(found[part]) for part in PARTS}


def _unique(found: list[tuple[str, str]]) -> dict[str, str]:
    by_name: dict[str, str] = {}
    for name, path in found:
        if other := by_name.get(name):
            raise MissingInput(f"'{other}' and '{path}' have one name, so their partners cannot be told apart")
        by_name[name] = path
    return by_name


class Pairs(Source):
    """A folder or Parquet of pairs."""

    name = "pairs"
    gives = {**PROVENANCE, "input": Kind.RGB, "gt": Kind.RGB, "given_mask": Kind.MASK}
    Params = PairsParams
    params: PairsParams

    def _find(self, folder: str) -> list[Found]:
        try:
            return find(f"{self.params.path.rstrip('/')}/{folder}")
        except FileNotFoundError:
            if folder == "mask":
                return []
            raise

    def _columns(self) -> list[str]:
        return ["input", "gt", self.params.mask_column]

    def items(self, run: RunContext) -> list[Record]:
        if self.params.path.endswith(".parquet"):
            found = find(self.params.path)
            ids = content_ids(found, run, lambda path: row_ids(path, self._columns()))
            return [item for file in found for item in row_items(file.path, ids[file.path])]
        root = self.params.path.rstrip("/")
        if self.params.endings:
            found = find(root)
            named = by_ending(found, root, self.params.endings)
        else:
            files = {part: self._find(part) for part in PARTS}
            found = [file for part in files.values() for file in part]
            named = by_folder(files, root)
        pairs = partners(named)
        used = {path for pair in pairs for path in pair.values()}
        ids = content_ids([file for file in found if file.path in used], run)
        items: list[Record] = []
        for pair in pairs:
            contents = {part: ids[path] if path else None for part, path in pair.items()}
            items.append(
                {
                    "id": stable_hash(contents),
                    "origin": origin_of(pair["input"] or pair["gt"] or pair["mask"] or ""),
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
                part: read_checked(path, item["contents"][part]) if path else None
                for part, path in item["paths"].items()
            }
        row = self.parquet.row(item["path"], item["row"], self._columns())
        if content_id(*(cell_bytes(row[column]) for column in self._columns() if column in row)) != item["content"]:
            raise ChangedInput(f"'{item['origin']}' is not what it was when it was listed; run again")
        mask = row.get(self.params.mask_column)
        return {
            "input": cell_bytes(row["input"]),
            "gt": cell_bytes(row["gt"]),
            "mask": cell_bytes(mask) if mask is not None else None,
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
            mask = fit((mask * 255).astype("uint8"), self.params.max_side) > 127
        return Kept(
            [
                {
                    "id": item["id"],
                    "origin": item["origin"],
                    "scene_id": scene_of(item["origin"], self.params.scene, item["content"]),
                    "licence": self.params.licence,
                    "parents": [],
                    "input": fit(pictures["input"], self.params.max_side),
                    "gt": fit(pictures["gt"], self.params.max_side),
                    "given_mask": mask,
                }
            ]
        )
