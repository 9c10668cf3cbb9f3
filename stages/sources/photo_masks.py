"""Masks of photographs: a file beside each photo, a folder beside the photos, a column, or COCO's annotations."""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import Field, model_validator

from rasura.manifests.formats.coco import (
    BadEntry,
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
from rasura.stages.sources.files import RunContext, compute_content_ids, format_origin, read_file
from rasura.stages.sources.listing import MissingInput, SourceFile, expand_path, find_files, normalize_name
from rasura.stages.sources.provided_masks import NO_MASK, POLARITY, explain_extent, shrink_mask
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
) -> tuple[list[SourceFile], dict[str, SourceFile], dict[str, str]]:
    """Separate photographs from masks, and find the mask of each photograph.

    Args:
        files: those at the source's path.
        root: that path.
        masks: a folder or an ending.
        passed_over: to which the number of masks without a photograph is added.

    Returns:
        The photographs, the mask by the photograph's path, and by the same, why it is ambiguous.
    """
    mask_files: dict[str, list[SourceFile]] = {}
    photos: dict[str, SourceFile] = {}
    if masks.folder is not None:
        folder = expand_path(masks.folder).rstrip("/")
        beside = [file for file in files if not file.path.startswith(f"{folder}/")]
        keys = {file.path: _make_key(file.path, root) for file in beside}
        try:
            listed = find_files(folder, passed_over=Counter())
        except MissingInput as error:
            below = f"{root.rstrip('/')}/{masks.folder}"
            raise MissingInput(f"{error}; it is not looked for in `path`: write '{below}' for that") from None
        for file in listed:
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
    twice = {key: entries for key, entries in mask_files.items() if len(entries) > 1}
    ambiguous = {
        path: f"{' and '.join(repr(format_origin(file.path)) for file in twice[key])} have its name; remove all but one"
        for path, key in keys.items()
        if key in twice
    }
    if twice:
        passed_over["mask of one name with another"] += sum(map(len, twice.values()))
        mask_files = {key: entries for key, entries in mask_files.items() if key not in twice}
    found = {path: mask_files[key][0] for path, key in keys.items() if key in mask_files}
    if spare := len(mask_files) - len({file.path for file in found.values()}):
        passed_over["mask of no photo"] += spare
    return list(photos.values()), found, ambiguous


def _make_key(path: str, root: str) -> str:
    """Make the name below a folder, without suffix, by which photographs and masks are matched."""
    below = path.removeprefix(root.rstrip("/")).lstrip("/") if path.startswith(root.rstrip("/")) else path
    folder, mark, name = below.rpartition("/")
    return normalize_name(f"{folder}{mark}{name.rpartition('.')[0] or name}")


def list_mask_items(
    files: Sequence[SourceFile],
    ids: Mapping[str, str],
    found: Mapping[str, SourceFile],
    ambiguous: Mapping[str, str],
    run: RunContext,
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
                "ambiguous": ambiguous.get(file.path),
            }
        )
    return items


class Annotations(NamedTuple):
    """The annotations of photographs, by their paths.

    Attributes:
        pictures: entries of the file that name the photograph.
        ambiguous: of a photograph whose entry could be that of another one, which they are.
    """

    pictures: Mapping[str, Sequence[CocoPicture]] = MappingProxyType({})
    ambiguous: Mapping[str, str] = MappingProxyType({})


def match_annotations(
    files: Sequence[SourceFile], root: str, masks: PhotoMasks, passed_over: Counter[str]
) -> Annotations:
    """Find the annotations of each photograph in COCO's file.

    An entry names the photograph whose path below the root is the entry's name; else the one whose path ends with it;
    else the one with whose path below the root it ends. Where that is more than one, none of them gets it.

    Args:
        files: the photographs.
        root: path of the source.
        masks: with COCO's file.
        passed_over: to which the numbers of annotations of no photograph, and of bad entries, are added.

    Raises:
        MissingInput: the file is not in COCO's form, or names none of the photographs.
    """
    place = expand_path(masks.coco or "")
    try:
        pictures, contents = parse_coco(read_file(place), place)
    except NotCoco as error:
        raise MissingInput(str(error)) from None
    except FileNotFoundError:
        raise MissingInput(f"there is no file '{place}'") from None
    count_bad_entries(contents.bad_entries, passed_over)
    return match_pictures(files, root, pictures, contents.orphans, place, passed_over)


def count_bad_entries(entries: Sequence[BadEntry], passed_over: Counter[str]) -> None:
    """Count entries that are not in COCO's form, by their list and reason, with the place of the first.

    Examples:
        >>> passed_over = Counter()
        >>> bad = [BadEntry("annotations", number, "has no 'image_id'") for number in (17, 21)]
        >>> count_bad_entries(bad, passed_over)
        >>> passed_over
        Counter({"entry that has no 'image_id' (first: annotations[17])": 2})
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        groups.setdefault((entry.key, entry.reason), []).append(entry.place)
    for (_, reason), places in groups.items():
        passed_over[f"entry that {reason} (first: {places[0]})"] += len(places)


def match_pictures(
    files: Sequence[SourceFile],
    root: str,
    entries: Sequence[CocoPicture],
    orphans: int,
    place: str,
    passed_over: Counter[str],
) -> Annotations:
    """Find the photographs that the entries of a file of annotations name, as `match_annotations` says.

    Args:
        files: the photographs.
        root: path of the source.
        entries: of the file.
        orphans: number of annotations of no entry.
        place: of the file, for messages.
        passed_over: to which the number of annotations of no photograph is added.

    Raises:
        MissingInput: the file names none of the photographs.
    """
    by_last_part: dict[str, list[SourceFile]] = {}
    for file in files:
        by_last_part.setdefault(normalize_name(file.path.rpartition("/")[2]), []).append(file)
    matches = [(picture, *_find_photos(picture.file_name, by_last_part, root)) for picture in entries]
    annotations = _assign_pictures(matches)
    if not annotations.pictures and not annotations.ambiguous:
        raise MissingInput(f"'{place}' names none of the {len(files)} files at '{root}'")
    assigned = {id(picture) for pictures in annotations.pictures.values() for picture in pictures}
    for picture, _, paths in matches:
        if id(picture) not in assigned:
            reason = "annotation whose photo is ambiguous" if paths else "annotation of a photo that is not there"
            passed_over[reason] += len(picture.objects)
    passed_over["annotation of no photo in `images`"] += orphans
    for reason in [reason for reason, count in passed_over.items() if not count]:
        del passed_over[reason]
    return annotations


EXACT, END, BEGINNING = range(3)  # how an entry's name fits a photograph's path, the surest first


def _find_photos(
    file_name: str, by_last_part: Mapping[str, Sequence[SourceFile]], root: str
) -> tuple[int, Sequence[str]]:
    """Find the photographs that the name of an entry fits best; how, and their paths."""
    name = normalize_name(file_name.replace("\\", "/")).removeprefix("./")
    fits: dict[int, list[str]] = {EXACT: [], END: [], BEGINNING: []}
    for file in by_last_part.get(name.rpartition("/")[2], ()):
        below = normalize_name(file.path.removeprefix(root.rstrip("/")).lstrip("/"))
        if below == name:
            fits[EXACT].append(file.path)
        elif normalize_name(f"/{file.path}").endswith(f"/{name}"):
            fits[END].append(file.path)
        elif name.endswith(f"/{below}") and ".." not in name.split("/"):
            fits[BEGINNING].append(file.path)
    best = next((rank for rank, paths in fits.items() if paths), BEGINNING)
    return best, fits[best]


def _assign_pictures(matches: Sequence[tuple[CocoPicture, int, Sequence[str]]]) -> Annotations:
    """Assign entries to photographs, the surest first; what fits several ones, or the like, is ambiguous."""
    certain: dict[str, list[CocoPicture]] = {}
    ambiguous: dict[str, str] = {}
    for rank in (EXACT, END):
        for picture, _, paths in (match for match in matches if match[1] == rank):
            if rank == EXACT or len(paths) == 1:
                for path in paths:
                    certain.setdefault(path, []).append(picture)
            else:
                text = f"'{picture.file_name}' could be {' or '.join(sorted(paths))}"
                ambiguous |= {path: text for path in paths if path not in certain}
    loose: dict[str, list[CocoPicture]] = {}
    for picture, _, paths in (match for match in matches if match[1] == BEGINNING):
        for path in paths:
            loose.setdefault(path, []).append(picture)
    shared = Counter(id(picture) for pictures in loose.values() for picture in pictures)
    for path, pictures in loose.items():
        if path in certain or path in ambiguous:
            continue
        if len(pictures) == 1 and shared[id(pictures[0])] == 1:
            certain[path] = pictures
        else:
            names = " and ".join(sorted(f"'{picture.file_name}'" for picture in pictures))
            ambiguous[path] = f"{names} could be this one or another of its name"
    return Annotations(certain, {path: text for path, text in ambiguous.items() if path not in certain})


def list_coco_items(files: Sequence[SourceFile], ids: Mapping[str, str], annotations: Annotations) -> list[Record]:
    """List an item for each object of each photograph, and one for each photograph without objects.

    Args:
        files: the photographs.
        ids: content ids, by path.
        annotations: of the photographs.
    """
    items: list[Record] = []
    for file in files:
        common = {"path": file.path, "photo": ids[file.path], "size": None, "object": None}
        pictures = annotations.pictures.get(file.path, ())
        first: dict[str, str] = {}
        for picture in pictures:
            for entry in picture.objects:
                id = hash_json([entry.id, entry.label, entry.segmentation])[:8]
                same = first.setdefault(
                    hash_json([entry.label, entry.segmentation, entry.crowd, picture.size]), entry.id
                )
                row = {"id": f"{ids[file.path]}.{id}", "object": vars(entry), "size": picture.size}
                items.append(common | row | {"same_as": None if same == entry.id else same})
        if not any(picture.objects for picture in pictures):
            items.append(common | {"id": ids[file.path], "ambiguous": annotations.ambiguous.get(file.path)})
    return items


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
    if item.get("ambiguous"):
        return Rejected("annotations ambiguous", item["ambiguous"])
    if item["object"] is None:
        return Rejected("no mask", "the annotations name no object in it")
    entry = CocoObject(**item["object"])
    if item.get("same_as") is not None:
        return Rejected("duplicate", f"annotation {entry.id} marks what annotation {item['same_as']} does")
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
    if (fault := explain_extent(mask)) is not None:
        return Rejected("empty mask", f"annotation {entry.id}: {fault}")
    return mask, NO_MASK | {"mask_values": "annotation", "label": entry.label}
