"""RORem's training folders as triplets: its released data, or what was exported here."""

import json
import os
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

from pydantic import Field

from rasura.manifests.formats.rorem import ABOUT, PARTS, Entry, NotRorem, convert_score, get_entry_name, parse_entries
from rasura.manifests.ids import hash_json
from rasura.manifests.images import MAX_PIXELS, decode_image, decode_mask
from rasura.manifests.schemas import PROVENANCE, Kind, Schema
from rasura.stages import stage
from rasura.stages.sources.files import (
    InputPath,
    MissingInput,
    Pattern,
    RunContext,
    SourceFile,
    compute_content_ids,
    extract_scene_id,
    find_files,
    format_origin,
    read_and_verify,
    read_file,
)
from rasura.stages.sources.photos import shrink_to_fit
from rasura.stages.stage import Kept, Outcome, Record, Rejected, Source

TRIPLET_COLUMNS: Schema = {
    "kind": Kind.STRING,
    "source": Kind.RGB,
    "target": Kind.RGB,
    "mask": Kind.MASK,
    "foreground_mask": Kind.MASK,
    "label": Kind.STRING,
    "remover": Kind.STRING,
    "round": Kind.INT,
    "score": Kind.FLOAT,
    "verdict": Kind.STRING,
}


class RoremParams(stage.Params):
    path: InputPath = Field(
        description="folder with meta.json (or folders that have one), a glob, or one file of that form"
    )
    kind: Literal["captured", "simulated", "edited"] = Field(
        "edited", description="of rows that do not say it: captured where GT is a photograph, as RORD's; else a model's"
    )
    truth: bool = Field(True, description="reject rows without GT; false: keep them without a target, as a test set")
    keep_split: bool = Field(True, description="rows of an export keep their split; otherwise a scene's hash decides")
    scene: Pattern | None = Field(None, description="regular expression on the source's name; equal matches, one scene")
    licence: str = Field("unknown", description="licence of rows that do not say it")
    max_side: int | None = Field(None, ge=16, description="longer pictures are scaled down to this many pixels")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="pictures with more pixels are refused undecoded")


class Rorem(Source):
    """Rows of folders in RORem's layout: source, mask, GT and meta.json, with or without score."""

    name = "rorem"
    input_paths = ("path",)
    input_noun = "entry"
    gives = {**PROVENANCE, **TRIPLET_COLUMNS}
    Params = RoremParams
    params: RoremParams

    def list_inputs(self) -> list[tuple[str, Entry]]:
        """List the entries of all lists, each with the path of its list.

        Raises:
            MissingInput: there is no list, or a file that is none.
        """
        lists = find_files(self.params.path, "*.json" if self.params.path.endswith(".json") else "meta*.json")
        return [(file.path, entry) for file in lists for entry in self._entries(file.path)]

    def items(self, run: RunContext) -> list[Record]:
        entries = [(path, [entry for _, entry in group]) for path, group in groupby(self.list_inputs(), itemgetter(0))]
        files: dict[str, SourceFile] = {}
        for folder in {_parent_folder(path) for path, _ in entries}:
            files |= {_normalize_path(file.path): file for file in find_files(folder)}
        places = {
            place
            for path, list_entries in entries
            for entry in list_entries
            for place in _locate_pictures(path, entry).values()
            if place in files
        }
        ids = compute_content_ids([files[place] for place in sorted(places)], run)
        contents = {place: ids[files[place].path] for place in places}
        items: list[Record] = []
        for path, list_entries in entries:
            row_details = _read_row_details(path)
            for number, entry in enumerate(list_entries):
                details = row_details.get(get_entry_name(entry.paths.get("source") or ""), {})
                items.append(self._make_item(path, number, entry, contents, files, details))
        return items

    def _entries(self, path: str) -> list[Entry]:
        try:
            return parse_entries(read_file(path), path, self.params.truth)
        except NotRorem as error:
            raise MissingInput(str(error)) from None

    def _make_item(
        self,
        path: str,
        number: int,
        entry: Entry,
        contents: dict[str, str],
        files: dict[str, SourceFile],
        details: dict[str, Any],
    ) -> Record:
        places, fault = _locate_pictures(path, entry), entry.fault
        for part, place in places.items():
            if fault is None and place not in files:
                fault = ("missing picture", f"there is no {part} '{place}'")
        origin = f"{format_origin(path)}#{number}"
        picture_ids = {part: contents.get(place) for part, place in places.items()}
        return {
            "id": hash_json([origin, *(fault or ())] if fault else [picture_ids, entry.score]),
            "origin": origin,
            "paths": {part: files[place].path for part, place in places.items() if place in files},
            "contents": picture_ids,
            "score": entry.score,
            "fault": fault,
            "name": entry.paths.get("source"),
            "row_details": details,
        }

    def process_one(self, item: Record) -> Outcome:
        if item["fault"]:
            reason, detail = item["fault"]
            return Rejected(reason, f"{detail} in {item['origin']}")
        pictures: Record = {}
        for part, column in PARTS.items():
            path = item["paths"].get(part)
            data = read_and_verify(path, item["contents"][part]) if path else None
            decode = decode_mask if part == "mask" else decode_image
            pictures[column] = None if data is None else decode(data, self.params.max_pixels)
        sizes = {name: picture.shape[:2] for name, picture in pictures.items() if picture is not None}
        if len(set(sizes.values())) > 1:
            return Rejected("pictures of two sizes", f"{sizes} in {item['origin']}")
        mask = shrink_to_fit((pictures["mask"] * 255).astype("uint8"), self.params.max_side) > 127
        if not mask.any():
            return Rejected("empty mask", f"nothing is to be removed in {item['origin']}")
        details, target = item["row_details"], pictures["target"]
        return Kept(
            [
                {
                    "id": item["id"],
                    "origin": item["origin"],
                    "scene_id": details.get("scene_id")
                    or extract_scene_id(item["name"], self.params.scene, item["contents"]["source"]),
                    "split": details.get("split") if self.params.keep_split else None,
                    "licence": details.get("licence") or self.params.licence,
                    "parents": [],
                    "kind": details.get("kind") or self.params.kind,
                    "source": shrink_to_fit(pictures["source"], self.params.max_side),
                    "target": None if target is None else shrink_to_fit(target, self.params.max_side),
                    "mask": mask,
                    "foreground_mask": None,
                    "label": details.get("label"),
                    "remover": details.get("remover"),
                    "round": details.get("round"),
                    "score": item["score"],
                    "verdict": convert_score(item["score"]),
                }
            ]
        )


def _locate_pictures(path: str, entry: Entry) -> dict[str, str]:
    """Return the paths of an entry's pictures, by their part."""
    return {part: _normalize_path(f"{_parent_folder(path)}/{name}") for part, name in entry.paths.items() if name}


def _parent_folder(path: str) -> str:
    return path.rpartition("/")[0] or "."


def _normalize_path(path: str) -> str:
    """Return a path without `./` and doubled slashes; a URI keeps its scheme."""
    scheme, mark, rest = path.rpartition("://")
    return f"{scheme}{mark}{os.path.normpath(rest)}"


def _read_row_details(path: str) -> dict[str, dict[str, Any]]:
    """Read the rows of the `rows.jsonl` beside a list, by name; none where there is no such file."""
    try:
        lines = read_file(f"{_parent_folder(path)}/{ABOUT}").decode().splitlines()
    except FileNotFoundError:
        return {}
    try:
        return {row["name"]: row for row in map(json.loads, lines)}
    except (ValueError, KeyError, TypeError) as error:
        raise MissingInput(f"'{_parent_folder(path)}/{ABOUT}' cannot be read: {error!r}") from None
