"""Masks of photographs: a file beside each photo, a folder beside the photos, a column, or COCO's annotations."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field, model_validator

from rasura.manifests.formats.coco import (
    BadSegmentation,
    CocoObject,
    CocoPicture,
    NotCoco,
    draw_segmentation,
    parse_coco,
)
from rasura.manifests.ids import hash_json
from rasura.manifests.images import RGB, Mask
from rasura.stages import stage
from rasura.stages.imaging.mask_change import Polarity
from rasura.stages.sources.files import RunContext, compute_content_ids, read_file
from rasura.stages.sources.listing import MissingInput, SourceFile, expand_path, find_files, normalize_name
from rasura.stages.sources.provided_masks import NO_MASK, POLARITY, shrink_mask
from rasura.stages.stage import Record, Rejected


class PhotoMasks(stage.Params):
    """Where the masks of photographs are: one of the four."""

    folder: str | None = Field(None, description="folder with masks that have the photos' names")
    ending: str | None = Field(None, min_length=1, description="ending of the masks' names beside the photos, as _mask")
    column: str | None = Field(None, description="column of the mask, where the files are Parquet")
    coco: str | None = Field(None, description="JSON file in COCO's form: one row an object, with its class as label")
    classes: list[str] | None = Field(None, description="coco: only objects of these classes; all where null")
    crowds: bool = Field(False, description="coco: also what marks a group (iscrowd)")
    polarity: Polarity = POLARITY

    @model_validator(mode="before")
    @classmethod
    def _read_short_form(cls, value: Any) -> Any:
        """Take a text for a folder, or for COCO's file where it ends in .json."""
        if isinstance(value, str):
            return {"coco" if value.lower().endswith(".json") else "folder": value}
        return value

    @model_validator(mode="after")
    def _check_one(self) -> "PhotoMasks":
        places = {name: getattr(self, name) for name in ("folder", "ending", "column", "coco")}
        chosen = [name for name, value in places.items() if value is not None]
        if len(chosen) != 1:
            raise ValueError(f"name one of {', '.join(places)}; here are {', '.join(chosen) or 'none'}")
        return self


def match_masks(
    files: Sequence[SourceFile], root: str, masks: PhotoMasks, passed_over: Counter[str]
) -> tuple[list[SourceFile], dict[str, SourceFile]]:
    """Separate photographs from masks, and find the mask of each photograph.

    Args:
        files: those at the source's path.
        root: that path.
        masks: a folder or an ending.
        passed_over: to which the number of masks without a photograph is added.

    Returns:
        The photographs, and the mask by the photograph's path.
    """
    mask_files: dict[str, list[SourceFile]] = {}
    photos: dict[str, SourceFile] = {}
    if masks.folder is not None:
        folder = expand_path(masks.folder).rstrip("/")
        beside = [file for file in files if not file.path.startswith(f"{folder}/")]
        keys = {file.path: _make_key(file.path, root) for file in beside}
        for file in find_files(folder, passed_over=Counter()):
            mask_files.setdefault(_make_key(file.path, folder), []).append(file)
        photos = {file.path: file for file in beside}
    else:
        ending, keys = normalize_name(masks.ending or ""), {}
        for file in files:
            key = _make_key(file.path, root)
            if key.endswith(ending):
                mask_files.setdefault(key.removesuffix(ending), []).append(file)
            else:
                photos[file.path], keys[file.path] = file, key
    if twice := [entries for entries in mask_files.values() if len(entries) > 1]:
        raise MissingInput(f"'{twice[0][0].path}' and '{twice[0][1].path}' have one name; rename one of them")
    found = {path: mask_files[key][0] for path, key in keys.items() if key in mask_files}
    if spare := len(mask_files) - len({file.path for file in found.values()}):
        passed_over["mask of no photo"] += spare
    return list(photos.values()), found


def _make_key(path: str, root: str) -> str:
    """Make the name below a folder, without suffix, by which photographs and masks are matched."""
    below = path.removeprefix(root.rstrip("/")).lstrip("/") if path.startswith(root.rstrip("/")) else path
    folder, mark, name = below.rpartition("/")
    return normalize_name(f"{folder}{mark}{name.rpartition('.')[0] or name}")


def list_mask_items(
    files: Sequence[SourceFile], ids: Mapping[str, str], found: Mapping[str, SourceFile], run: RunContext
) -> list[Record]:
    """List the items of photographs with the path and the content of their masks; None where one has no mask."""
    mask_ids = compute_content_ids(list(found.values()), run) if found else {}
    items = []
    for file in files:
        mask = found.get(file.path)
        content = None if mask is None else mask_ids[mask.path]
        items.append(
            {
                "id": ids[file.path] + (f".{content[:8]}" if content else ""),
                "path": file.path,
                "photo": ids[file.path],
                "mask": None if mask is None else [mask.path, content],
            }
        )
    return items


def match_annotations(files: Sequence[SourceFile], root: str, masks: PhotoMasks) -> dict[str, CocoPicture]:
    """Find the annotations of each photograph in COCO's file, by the photograph's path.

    Args:
        files: the photographs.
        root: path of the source.
        masks: with COCO's file.

    Raises:
        MissingInput: the file is not in COCO's form, or names none of the photographs.
    """
    place = expand_path(masks.coco or "")
    try:
        pictures = parse_coco(read_file(place), place)
    except NotCoco as error:
        raise MissingInput(str(error)) from None
    except FileNotFoundError:
        raise MissingInput(f"there is no file '{place}'") from None
    by_name = _index_pictures(pictures)
    found: dict[str, CocoPicture] = {}
    for file in files:
        below = normalize_name(file.path.removeprefix(root.rstrip("/")).lstrip("/"))
        if picture := by_name.get(below) or by_name.get(below.rpartition("/")[2]):
            found[file.path] = picture
    if not found:
        raise MissingInput(f"'{place}' names none of the {len(files)} files at '{root}'")
    return found


def list_coco_items(
    files: Sequence[SourceFile], ids: Mapping[str, str], found: Mapping[str, CocoPicture]
) -> list[Record]:
    """List an item for each object of each photograph, and one for each photograph without objects.

    Args:
        files: the photographs.
        ids: content ids, by path.
        found: annotations, by path.
    """
    items: list[Record] = []
    for file in files:
        picture = found.get(file.path)
        common = {"path": file.path, "photo": ids[file.path], "size": picture and picture.size}
        for entry in picture.objects if picture else ():
            id = hash_json([entry.id, entry.label, entry.segmentation])[:8]
            items.append(common | {"id": f"{ids[file.path]}.{id}", "object": vars(entry)})
        if picture is None or not picture.objects:
            items.append(common | {"id": ids[file.path], "object": None})
    return items


def _index_pictures(pictures: Iterable[CocoPicture]) -> dict[str, CocoPicture]:
    """Index pictures by their names, and by the last part of their names where no other has it."""
    by_name: dict[str, CocoPicture] = {}
    short: dict[str, list[CocoPicture]] = {}
    for picture in pictures:
        name = normalize_name(picture.file_name.replace("\\", "/")).removeprefix("./")
        by_name[name] = picture
        short.setdefault(name.rpartition("/")[2], []).append(picture)
    return {name: entries[0] for name, entries in short.items() if len(entries) == 1} | by_name


def draw_object(item: Record, source: RGB, masks: PhotoMasks, max_side: int | None) -> tuple[Mask, Record] | Rejected:
    """Draw the mask of an item of `list_coco_items`.

    Args:
        item: of the source.
        source: (h, w, 3) photograph, at full size.
        masks: parameters.
        max_side: px to which the mask is scaled down.

    Returns:
        (h', w') bool with its label and `MASK_COLUMNS`; or why there is none.
    """
    if item["object"] is None:
        return Rejected("no mask", "the annotations name no object in it")
    entry = CocoObject(**item["object"])
    if masks.classes is not None and entry.label not in masks.classes:
        return Rejected("class not chosen", str(entry.label))
    if entry.crowd and not masks.crowds:
        return Rejected("group of objects", f"annotation {entry.id} is a crowd; crowds: true takes it")
    size = (source.shape[1], source.shape[0])
    if item["size"] is not None and tuple(item["size"]) != size:
        return Rejected("mask of another size", f"annotated at {tuple(item['size'])}, picture {size}")
    try:
        mask = shrink_mask(draw_segmentation(entry.segmentation, size), max_side)
    except BadSegmentation as error:
        return Rejected("no mask in its file", f"annotation {entry.id}: {error}")
    if not mask.any():
        return Rejected("empty mask", f"nothing of annotation {entry.id} is left at {max_side} px")
    return mask, NO_MASK | {"mask_values": "annotation", "label": entry.label}
