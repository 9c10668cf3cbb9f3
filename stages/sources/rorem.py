"""RORem's training folders as triplets: its released data, or what was exported here."""

import json
import os
from typing import Any, Literal

from pydantic import Field

from rasura.manifests.formats.rorem import ABOUT, PARTS, Entry, NotRorem, entries, name_of, verdict_of
from rasura.manifests.ids import stable_hash
from rasura.manifests.images import MAX_PIXELS, decode_image, decode_mask
from rasura.manifests.schemas import PROVENANCE, Kind, Schema
from rasura.stages import stage
from rasura.stages.sources.files import (
    Found,
    MissingInput,
    Pattern,
    RunContext,
    content_ids,
    find,
    origin_of,
    read,
    read_checked,
    scene_of,
)
from rasura.stages.sources.photos import fit
from rasura.stages.stage import Kept, Outcome, Record, Rejected, Source

MADE: Schema = {
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
    path: str = Field(description="folder with meta.json (or folders that have one), a glob, or one file of that form")
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
    gives = {**PROVENANCE, **MADE}
    Params = RoremParams
    params: RoremParams

    def items(self, run: RunContext) -> list[Record]:
        lists = find(self.params.path, "*.json" if self.params.path.endswith(".json") else "meta*.json")
        listed = [(one.path, self._entries(one.path)) for one in lists]
        there: dict[str, Found] = {}
        for folder in {_folder(path) for path, _ in listed}:
            there |= {_plain(file.path): file for file in find(folder)}
        wanted = {
            place
            for path, found in listed
            for entry in found
            for place in _places(path, entry).values()
            if place in there
        }
        contents = content_ids([there[place] for place in sorted(wanted)], run)
        by_place = {place: contents[there[place].path] for place in wanted}
        items: list[Record] = []
        for path, found in listed:
            about = _about(path)
            for number, entry in enumerate(found):
                items.append(self._item(path, number, entry, by_place, there, about))
        return items

    def _entries(self, path: str) -> list[Entry]:
        try:
            return entries(read(path), path, self.params.truth)
        except NotRorem as error:
            raise MissingInput(str(error)) from None

    def _item(
        self, path: str, number: int, entry: Entry, contents: dict[str, str], there: dict[str, Found],
        about: dict[str, dict[str, Any]],
    ) -> Record:  # fmt: skip
        places, fault = _places(path, entry), entry.fault
        for part, place in places.items():
            if fault is None and place not in there:
                fault = ("missing picture", f"there is no {part} '{place}'")
        origin = f"{origin_of(path)}#{number}"
        found = {part: contents.get(place) for part, place in places.items()}
        id = stable_hash([origin, *(fault or ())] if fault else [found, entry.score])
        files = {part: there[place].path for part, place in places.items() if place in there}
        return {
            "id": id, "origin": origin, "paths": files, "contents": found, "score": entry.score, "fault": fault,
            "name": entry.paths.get("source"), "told": about.get(name_of(entry.paths.get("source") or ""), {}),
        }  # fmt: skip

    def process_one(self, item: Record) -> Outcome:
        if item["fault"]:
            reason, detail = item["fault"]
            return Rejected(reason, f"{detail} in {item['origin']}")
        made: Record = {}
        for part, ours in PARTS.items():
            path = item["paths"].get(part)
            data = read_checked(path, item["contents"][part]) if path else None
            decode = decode_mask if part == "mask" else decode_image
            made[ours] = None if data is None else decode(data, self.params.max_pixels)
        sizes = {name: picture.shape[:2] for name, picture in made.items() if picture is not None}
        if len(set(sizes.values())) > 1:
            return Rejected("pictures of two sizes", f"{sizes} in {item['origin']}")
        mask = fit((made["mask"] * 255).astype("uint8"), self.params.max_side) > 127
        if not mask.any():
            return Rejected("empty mask", f"nothing is to be removed in {item['origin']}")
        told = item["told"]
        return Kept(
            [
                {
                    "id": item["id"],
                    "origin": item["origin"],
                    "scene_id": told.get("scene_id")
                    or scene_of(item["name"], self.params.scene, item["contents"]["source"]),
                    "split": told.get("split") if self.params.keep_split else None,
                    "licence": told.get("licence") or self.params.licence,
                    "parents": [],
                    "kind": told.get("kind") or self.params.kind,
                    "source": fit(made["source"], self.params.max_side),
                    "target": None if made["target"] is None else fit(made["target"], self.params.max_side),
                    "mask": mask,
                    "foreground_mask": None,
                    "label": told.get("label"),
                    "remover": told.get("remover"),
                    "round": told.get("round"),
                    "score": item["score"],
                    "verdict": verdict_of(item["score"]),
                }
            ]
        )


def _places(path: str, entry: Entry) -> dict[str, str]:
    """Where an entry's pictures are, by their part."""
    return {part: _plain(f"{_folder(path)}/{own}") for part, own in entry.paths.items() if own}


def _folder(path: str) -> str:
    return path.rpartition("/")[0] or "."


def _plain(path: str) -> str:
    """A path without `./` and doubled slashes; a URI keeps its scheme."""
    scheme, mark, rest = path.rpartition("://")
    return f"{scheme}{mark}{os.path.normpath(rest)}"


def _about(path: str) -> dict[str, dict[str, Any]]:
    """Rows of the `rows.jsonl` beside a list, by name; none where there is no such file."""
    try:
        lines = read(f"{_folder(path)}/{ABOUT}").decode().splitlines()
    except FileNotFoundError:
        return {}
    try:
        return {one["name"]: one for one in map(json.loads, lines)}
    except (ValueError, KeyError, TypeError) as error:
        raise MissingInput(f"'{_folder(path)}/{ABOUT}' cannot be read: {error!r}") from None
