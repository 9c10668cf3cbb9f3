"""The base of sources that read other people's layouts: it lists rows, chooses by class, and loads their pictures.

A layout says which files, members or cells belong to a row. All else is done here: content ids and fingerprints, each
file read once; classes and their caps; scenes and splits; masks, pairs and triplets with the checks of given ones.
"""

import heapq
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, cast

from pydantic import Field

from rasura.manifests.formats.dataset_rows import KINDS, parse_kind
from rasura.manifests.ids import compute_seed, hash_json, is_split_name
from rasura.manifests.remote_files import open_file_system
from rasura.manifests.schemas import CANDIDATE_KINDS, PROVENANCE, VERDICTS, Kind, Schema
from rasura.manifests.storage import is_remote
from rasura.stages import stage
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
from rasura.stages.sources.foreign.pictures import (
    GIVE_PAIR,
    PairParams,
    PictureParams,
    list_columns,
    load_pair,
    load_photo,
)
from rasura.stages.sources.listing import MissingInput, SourceFile, find_files
from rasura.stages.sources.scenes import list_pictures
from rasura.stages.stage import Kept, Outcome, Params, Record, Rejected, Source

Fault = tuple[str, str]
"""A reason and its detail."""
ENTRY_BYTES = 500
"""Bytes of an annotation, or of a row of a list."""
LONGEST_TEXT = 500
"""Characters of a label, a licence or the like that are kept."""
TEXTS = ("label", "licence", "scene", "split", "kind", "verdict")
"""Texts that a row may have."""
SHARD = re.compile(r"^(\w+)-\d+(?:-of-\d+)?\.(?:parquet|arrow|tar)$")
SPLITS = ("train", "val", "validation", "test")
"""Names of folders that are splits."""


class ForeignRow(NamedTuple):
    """A row as a layout lists it.

    Attributes:
        origin: where it is, for people.
        files: the files of its parts: `source`, `target`, `mask`, `foreground_mask`, or the layout's own.
        details: `TEXTS`, and what the layout needs to load it; values of JSON.
        key: what distinguishes it from other rows of the same files.
        fault: why it cannot be loaded.
        contents: content ids of parts that are no files, such as members of an archive.
        fingerprint: of its clean picture, where that is no file.
    """

    origin: str
    files: Mapping[str, SourceFile]
    details: Record
    key: str = ""
    fault: Fault | None = None
    contents: Mapping[str, str] = {}
    fingerprint: str | None = None


class ForeignParams(PictureParams):
    """Parameters of every such source."""

    path: InputPath = Field(description="folder, file, glob or URI")
    scene: Pattern | None = Field(None, description="regular expression on the file name; equal matches are one scene")


class ClassParams(stage.Params):
    """Which classes are taken."""

    classes: list[str] | None = Field(None, description="only rows of these classes (labels); all where null")
    exclude: list[str] = Field([], description="no rows of these classes")
    max_per_class: int | None = Field(None, ge=1, description="rows of one class at most, by lot; RORem takes 500")


class ForeignPairParams(PairParams, ForeignParams):
    """Parameters of every such source of pairs or triplets."""

    give: Literal["pairs", "triplets"] = GIVE_PAIR


ACCEPTED: Any = Field(
    False, description="what a model made counts as accepted (verdict yes), because the set's makers have judged it"
)


class ForeignSource(Source):
    """Rows of a dataset in somebody else's layout."""

    input_paths: ClassVar[Sequence[str]] = ("path",)
    gives: ClassVar[Schema] = {**PROVENANCE, **list_columns("photos")}
    Params: ClassVar[type[Params]] = ForeignParams
    params: ForeignParams
    default_kind: ClassVar[str | None] = None
    """Kind of rows that do not say it themselves, where the recipe does not either."""
    scene_pattern: str | None = None
    """Pattern of the scene in a file's name, where the recipe has none."""

    def list_rows(self, run: RunContext) -> Iterable[ForeignRow]:
        """List the rows at the source's path; what is none of them is added to `run.passed_over`.

        Raises:
            MissingInput: there is nothing, or nothing of this layout.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define list_rows")

    @property
    def give(self) -> str:
        """What the rows are given as: photos, pairs or triplets."""
        return str(getattr(self.params, "give", "photos"))

    @property
    def clean_part(self) -> str:
        """Part of a row by whose likeness rows are of one scene: of edits the photograph, else the empty picture."""
        return "source" if self.give == "photos" or self.row_kind == "edited" else "target"

    @property
    def accepts(self) -> bool:
        """Whether what a model made counts as accepted."""
        return bool(getattr(self.params, "accepted", False))

    @property
    def row_kind(self) -> str | None:
        """Kind of rows that do not say it themselves."""
        return getattr(self.params, "kind", None) or self.default_kind

    def schema(self, columns: Schema) -> Schema:
        verdict: Schema = {} if self.give == "photos" else {"verdict": Kind.STRING}
        return {**PROVENANCE, **list_columns(self.give), **verdict}

    def list_candidate_kinds(self) -> frozenset[str]:
        """Return the kind of its rows where a model made them and nobody has accepted them."""
        is_open = self.give != "photos" and not self.accepts
        return CANDIDATE_KINDS & {self.row_kind} if is_open and self.row_kind else frozenset()

    def survey_inputs(self, run: RunContext) -> tuple[str, int]:
        return survey_files(self.params.path)

    def items(self, run: RunContext) -> list[Record]:
        rows = self._choose_rows(self.list_rows(run), run)
        clean = {file.path: file for row in rows for part, file in row.files.items() if part == self.clean_part}
        others = {file.path: file for row in rows for file in row.files.values() if file.path not in clean}
        ids, fingerprints = list_pictures([clean[path] for path in sorted(clean)], run) if clean else ({}, {})
        if others:
            ids |= compute_content_ids([others[path] for path in sorted(others)], run)
        return [self._make_item(row, ids, fingerprints) for row in rows]

    def _choose_rows(self, rows: Iterable[ForeignRow], run: RunContext) -> list[ForeignRow]:
        """Return the rows of the chosen classes, no more of each than the cap; count the others."""
        params = self.params if isinstance(self.params, ClassParams) else ClassParams()
        wanted = None if params.classes is None else {name.casefold() for name in params.classes}
        unwanted = {name.casefold() for name in params.exclude}
        faulty: list[ForeignRow] = []
        groups: dict[str, list[tuple[int, int, ForeignRow]]] = {}  # of a class, the lowest lots so far, highest first
        for number, row in enumerate(rows):
            if row.fault is not None:
                faulty.append(row)
                continue
            label = str(row.details.get("label") or "").casefold()
            if label in unwanted or (wanted is not None and label not in wanted):
                run.passed_over["class not chosen"] += 1
                continue
            group = groups.setdefault(label, [])
            if params.max_per_class is None:
                group.append((0, number, row))
                continue
            lot = compute_seed(self.seed, "max_per_class", f"{row.origin}.{row.key}")
            heapq.heappush(group, (-lot, number, row))
            if len(group) > params.max_per_class:
                heapq.heappop(group)
                run.passed_over[f"more than {params.max_per_class} of its class"] += 1
        return faulty + [row for group in groups.values() for _, _, row in group]

    def _make_item(self, row: ForeignRow, ids: Mapping[str, str], fingerprints: Mapping[str, str | None]) -> Record:
        contents = {**row.contents, **{part: ids[file.path] for part, file in row.files.items()}}
        clean = row.files.get(self.clean_part)
        details = row.details
        name = clean.path if clean else row.origin
        scene = extract_scene_id(name, self.params.scene or self.scene_pattern, "")
        scene = scene or details.get("scene") or contents.get(self.clean_part) or ""
        return {
            "id": hash_json([row.origin, *row.fault]) if row.fault else hash_json([contents, row.key]),
            "origin": row.origin,
            "paths": {part: file.path for part, file in row.files.items()},
            "contents": contents,
            "details": details,
            "key": row.key,
            "fault": row.fault,
            "scene_id": scene or None,
            "kept_split": details.get("split") if getattr(self.params, "keep_split", True) else None,
            "fingerprint": fingerprints.get(clean.path) if clean else row.fingerprint,
        }

    def read_part(self, item: Record, part: str) -> bytes | None:
        """Return the bytes of a part of an item, checked against its listing; None where it has no such part."""
        path = item["paths"].get(part)
        return None if path is None else read_and_verify(path, item["contents"][part])

    def load(self, item: Record) -> Record | Rejected:
        """Load the pictures of an item, as `give` says: the columns of its row, or why there is none."""
        parts = ("source", "mask") if self.give == "photos" else ("source", "target", "mask", "foreground_mask")
        data = {part: self.read_part(item, part) for part in parts}
        if self.give == "photos":
            return load_photo(data, self.params, getattr(self.params, "mask_polarity", "auto"))
        assert isinstance(self.params, PairParams)
        return load_pair(data, self.give, self.params, self.get_kind(item))

    def get_kind(self, item: Record) -> str | None:
        """Return the kind of an item's row."""
        return parse_kind(item["details"].get("kind")) or self.row_kind

    def process_one(self, item: Record) -> Outcome:
        if item["fault"]:
            reason, detail = item["fault"]
            return Rejected(reason, f"{detail}; in {item['origin']}")
        details = item["details"]
        if (wrong := find_wrong_text(details, item["kept_split"])) is not None:
            return Rejected(wrong[0], f"{wrong[1]}; in {item['origin']}")
        pictures = self.load(item)
        if isinstance(pictures, Rejected):
            return Rejected(pictures.reason, f"{pictures.detail}; in {item['origin']}")
        row = pictures | {
            "id": item["id"],
            "origin": item["origin"],
            "scene_id": item["scene_id"],
            "split": item["kept_split"],
            "licence": details.get("licence") or self.params.licence,
            "parents": [],
            "label": details.get("label"),
        }
        if self.give != "photos":
            accepted = "yes" if self.accepts and self.get_kind(item) in CANDIDATE_KINDS else None
            row["verdict"] = details.get("verdict") or accepted
        return Kept([row])


def read_texts(values: Mapping[str, Any], names: Mapping[str, str | None]) -> Record | Fault:
    """Read a row's texts from values of JSON or of a table; numbers become text.

    Args:
        values: of the row.
        names: of the values, by text; None for a text that the row does not have.

    Returns:
        The texts by their names here; or what is wrong with one.

    Examples:
        >>> read_texts({"class": "dog", "n": 3}, {"label": "class", "split": None, "scene": "n"})
        {'label': 'dog', 'scene': '3'}
        >>> read_texts({"class": ["dog"]}, {"label": "class"})
        ('no text', "label is ['dog']")
    """
    texts: Record = {}
    for text, name in names.items():
        value = None if name is None else values.get(name)
        if value is None or value == "":
            continue
        if not isinstance(value, str | int | float):
            return ("no text", f"{text} is {str(value)[:60]}")
        texts[text] = str(value)[:LONGEST_TEXT]
    return texts


def find_wrong_text(texts: Mapping[str, Any], split: str | None) -> Fault | None:
    """Find what a row says of itself that cannot be; None where all can.

    Args:
        texts: of the row.
        split: that it is to keep.

    Examples:
        >>> find_wrong_text({"kind": "banana"}, "train")
        ('kind unknown', "'banana'; known: captured, simulated, inserted, edited")
    """
    kind, verdict = texts.get("kind"), texts.get("verdict")
    if split is not None and not is_split_name(split):
        return "split is no word", f"{split!r}; keep_split: false leaves it out"
    if kind is not None and parse_kind(kind) is None:
        return "kind unknown", f"{kind!r}; known: {', '.join(filter(None, KINDS))}"
    if verdict is not None and verdict not in VERDICTS:
        return "verdict unknown", f"{verdict!r}; known: {', '.join(VERDICTS)}"
    return None


def find_split(path: str, root: str) -> str | None:
    """Find the split that a file's name, or a folder between it and a source's path, says: one of `SPLITS`.

    Examples:
        >>> find_split("/data/rord/train/img/1.png", "/data/rord"), find_split("/data/train/1.png", "/data/train")
        ('train', None)
        >>> find_split("set/data/test-00000-of-00001.parquet", "set")
        'test'
    """
    *folders, name = path.removeprefix(root.rstrip("/")).lstrip("/").split("/")
    named = SHARD.match(name)  # as `datasets` names its files
    words = [*folders, named.group(1) if named else ""]
    return next((word.casefold() for word in reversed(words) if word.casefold() in SPLITS), None)


def count_entries(path: str) -> int:
    """Return about how many rows the lists of a set have, by their size: a run lists many on a worker."""
    try:
        return sum(file.size for file in find_files(path)) // ENTRY_BYTES
    except MissingInput:
        return 0


def has_files(path: str) -> bool:
    """Return whether there are files at a path."""
    try:
        return bool(find_files(path))
    except MissingInput:
        return False


def read_range(path: str, start: int, end: int) -> bytes:
    """Return some bytes of a local or remote file: from `start` up to, without, `end`."""
    if is_remote(path):
        store, key = open_file_system(path)
        return cast(bytes, store.cat_file(key, start, end))
    with Path(path).open("rb") as source:
        source.seek(start)
        return source.read(end - start)


def locate(row_origin: str, detail: str) -> str:
    """Return where something in a file is, as text."""
    return f"{format_origin(row_origin)}#{detail}"
