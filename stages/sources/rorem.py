"""RORem's training folders as triplets: its released data, or what was exported here."""

import os
from typing import Any, Literal

from pydantic import Field

from rasura.manifests.formats.dataset_rows import KINDS, parse_kind
from rasura.manifests.formats.rorem import ABOUT, PARTS, Entry, NotRorem, convert_score, get_entry_name, parse_entries
from rasura.manifests.ids import hash_json, is_split_name
from rasura.manifests.images import MAX_PIXELS, decode_image
from rasura.manifests.json_lines import parse_json_lines
from rasura.manifests.schemas import CANDIDATE_KINDS, PROVENANCE, Kind, Schema
from rasura.stages import stage
from rasura.stages.imaging.mask_change import Polarity
from rasura.stages.sources.files import (
    InputPath,
    Pattern,
    RunContext,
    extract_scene_id,
    format_origin,
    read_and_verify,
    read_file,
    survey_files,
)
from rasura.stages.sources.listing import MissingInput, SourceFile, expand_path, find_files, normalize_name
from rasura.stages.sources.photos import shrink_to_fit
from rasura.stages.sources.provided_masks import MASK_COLUMNS, POLARITY, load_mask
from rasura.stages.sources.provided_triplets import MIN_MASK_SCORE, check_triplet
from rasura.stages.sources.scenes import list_pictures
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


TEXTS = ("scene_id", "split", "licence", "kind", "label", "remover")
"""Values of a row of `rows.jsonl` that are texts."""


class RoremParams(stage.Params):
    path: InputPath = Field(
        description="folder with meta.json (or folders that have one), a glob, or one file of that form"
    )
    kind: Literal["captured", "simulated", "edited"] = Field(
        "edited", description="of rows that do not say it: captured where GT is a photograph, as RORD's; else a model's"
    )
    truth: bool = Field(True, description="reject rows without GT; false: keep them without a target, as a test set")
    mask_polarity: Polarity = POLARITY
    min_mask_score: float = MIN_MASK_SCORE
    rejected: bool = Field(
        False, description="keep rows with a score of 0, to which a person said no: as candidates, for judges"
    )
    keep_split: bool = Field(True, description="rows of an export keep their split; otherwise a scene's hash decides")
    scene: Pattern | None = Field(None, description="regular expression on the source's name; equal matches, one scene")
    licence: str = Field("unknown", description="licence of rows that do not say it")
    max_side: int | None = Field(None, ge=16, description="longer pictures are scaled down to this many pixels")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="pictures with more pixels are refused undecoded")


class Rorem(Source):
    """Rows of folders in RORem's layout: source, mask, GT and meta.json, with or without score."""

    name = "rorem"
    version = "3"
    input_paths = ("path",)
    input_noun = "entry"
    gives = {**PROVENANCE, **TRIPLET_COLUMNS, **MASK_COLUMNS}
    Params = RoremParams
    params: RoremParams

    def list_inputs(self) -> list[Entry]:
        """List the entries of all lists.

        Raises:
            MissingInput: there is no list, or a file that is none.
        """
        return [entry for _, entries in self._read_lists() for entry in entries]

    def list_candidate_kinds(self) -> frozenset[str]:
        """Return the kinds of rows that a model made and that have no score of 1, and of those with a score of 0."""
        kinds: set[str] = set()
        for path, entries in self._read_lists():
            details = read_row_details(path)
            for entry in entries:
                row = details.get(get_entry_name(entry.paths.get("source") or ""), {})
                kind = parse_kind(str(row.get("kind") or "")) or self.params.kind
                verdict = convert_score(entry.score)
                if entry.fault is None and self._is_candidate(kind, verdict):
                    kinds.add(kind)
        return frozenset(kinds)

    def _is_candidate(self, kind: str, verdict: str | None) -> bool:
        if verdict == "no":
            return self.params.rejected
        return kind in CANDIDATE_KINDS and verdict != "yes"

    def _read_lists(self) -> list[tuple[str, list[Entry]]]:
        root = expand_path(self.params.path)
        lists = find_files(root, "*.json" if root.endswith(".json") else "meta*.json")
        return [(file.path, self._entries(file.path)) for file in lists]

    def survey_inputs(self, run: RunContext) -> tuple[str, int]:
        root = expand_path(self.params.path)
        return survey_files(_parent_folder(root) if root.endswith(".json") else root)

    def items(self, run: RunContext) -> list[Record]:
        entries = self._read_lists()
        files: dict[str, SourceFile] = {}
        for folder in sorted({_parent_folder(path) for path, _ in entries}):
            files |= {_normalize_path(file.path): file for file in find_files(folder, passed_over=run.passed_over)}
        names = {normalize_name(place): place for place in files}
        located = [[_locate_pictures(path, entry, files, names) for entry in rows] for path, rows in entries]
        places = {place for rows in located for row in rows for place in row.values() if place in files}
        listed = {_normalize_path(path) for path, _ in entries}
        if unused := sum(place not in places | listed and not place.endswith(f"/{ABOUT}") for place in files):
            run.passed_over["in no entry of a meta.json"] += unused
        ids, fingerprints = list_pictures([files[place] for place in sorted(places)], run)
        contents = {place: ids[files[place].path] for place in places}
        items: list[Record] = []
        for (path, list_entries), list_places in zip(entries, located, strict=True):
            row_details = read_row_details(path)
            for number, (entry, row_places) in enumerate(zip(list_entries, list_places, strict=True)):
                details = row_details.get(get_entry_name(entry.paths.get("source") or ""), {})
                item = _make_item(f"{format_origin(path)}#{number}", entry, row_places, contents, files, details)
                clean = item["paths"].get("GT") or item["paths"].get("source")
                kept_split = details.get("split") if self.params.keep_split else None
                known = {"scene_id": self._name_scene(item), "kept_split": kept_split}
                items.append(item | known | {"fingerprint": fingerprints.get(clean)})
        _find_contradictions(items)
        return items

    def _name_scene(self, item: Record) -> str | None:
        """Return the scene that an entry belongs to; None for one that has no picture."""
        scene, content = item["row_details"].get("scene_id"), item["contents"].get("source")
        return scene or (content and extract_scene_id(item["name"], self.params.scene, content))

    def _entries(self, path: str) -> list[Entry]:
        try:
            return parse_entries(read_file(path), path, self.params.truth)
        except NotRorem as error:
            raise MissingInput(str(error)) from None

    def process_one(self, item: Record) -> Outcome:
        if item["fault"]:
            reason, detail = item["fault"]
            return Rejected(reason, f"{detail} in {item['origin']}")
        details, params = item["row_details"], self.params
        verdict = convert_score(item["score"])
        if verdict == "no" and not params.rejected:
            return Rejected("verdict no", f"its score is 0 in {item['origin']}; rejected: true keeps it, for judges")
        if wrong := [name for name in TEXTS if not isinstance(details.get(name), str | None)]:
            return Rejected("no text in rows.jsonl", f"{wrong[0]} is {details[wrong[0]]!r} in {item['origin']}")
        kind = params.kind if details.get("kind") is None else parse_kind(details["kind"])
        if kind is None:
            return Rejected(
                "kind unknown", f"{details['kind']!r} in {item['origin']}; known: {', '.join(filter(None, KINDS))}"
            )
        split = details.get("split") if params.keep_split else None
        if split is not None and not is_split_name(split):
            return Rejected("split is no word", f"{split!r} in {item['origin']}; keep_split: false leaves it out")
        data: dict[str, bytes] = {
            column: read_and_verify(item["paths"][part], item["contents"][part])
            for part, column in PARTS.items()
            if item["paths"].get(part)
        }
        source = decode_image(data["source"], params.max_pixels)
        target = decode_image(data["target"], params.max_pixels) if "target" in data else None
        if target is not None and target.shape != source.shape:
            sizes = {"source": source.shape[:2], "target": target.shape[:2]}
            return Rejected("pictures of two sizes", f"{sizes} in {item['origin']}")
        outcome = load_mask(data["mask"], source, target, params.mask_polarity, params.max_pixels, params.max_side)
        if isinstance(outcome, Rejected):
            return Rejected(outcome.reason, f"{outcome.detail}; in {item['origin']}")
        mask, columns = outcome
        source = shrink_to_fit(source, params.max_side)
        target = None if target is None else shrink_to_fit(target, params.max_side)
        if target is not None and verdict != "no":
            is_answer = verdict == "yes" or kind not in CANDIDATE_KINDS
            fault = check_triplet(source, target, mask, columns, params.min_mask_score, is_answer)
            if fault is not None:
                return Rejected(fault.reason, f"{fault.detail}; in {item['origin']}")
        return Kept(
            [
                {
                    "id": item["id"],
                    "origin": item["origin"],
                    "scene_id": item["scene_id"],
                    "split": split,
                    "licence": details.get("licence") or self.params.licence,
                    "parents": [],
                    "kind": kind,
                    "source": source,
                    "target": target,
                    "mask": mask,
                    "foreground_mask": None,
                    "label": details.get("label"),
                    "remover": details.get("remover"),
                    "round": details["round"] if isinstance(details.get("round"), int) else None,
                    "score": item["score"],
                    "verdict": verdict,
                    **columns,
                }
            ]
        )


def _make_item(
    origin: str,
    entry: Entry,
    places: dict[str, str],
    contents: dict[str, str],
    files: dict[str, SourceFile],
    details: dict[str, Any],
) -> Record:
    fault = entry.fault
    for part, place in places.items():
        if fault is None and place not in files:
            fault = ("missing picture", f"there is no {part} '{place}'")
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


def _find_contradictions(items: list[Record]) -> None:
    """Give a fault to items of the same three pictures that have several scores: which of them counts is unknown."""
    groups: dict[str, list[Record]] = {}
    for item in items:
        if item["fault"] is None:
            groups.setdefault(hash_json(item["contents"]), []).append(item)
    for group in groups.values():
        scores = sorted({-1.0 if item["score"] is None else item["score"] for item in group})
        if len(scores) == 1:
            continue
        text = ", ".join("no score" if score < 0 else f"score {score:g}" for score in scores)
        places = ", ".join(item["origin"] for item in group)
        for item in group:
            item["fault"] = ("scores contradict", f"{text} for the same source, mask and GT ({places}):")
            item["id"] = hash_json([item["origin"], *item["fault"]])


def _locate_pictures(path: str, entry: Entry, files: dict[str, SourceFile], names: dict[str, str]) -> dict[str, str]:
    """Return the paths of an entry's pictures, by their part: of files, also where only the letters' case differs."""
    places = {part: _normalize_path(f"{_parent_folder(path)}/{name}") for part, name in entry.paths.items() if name}
    return {
        part: place if place in files else names.get(normalize_name(place), place) for part, place in places.items()
    }


def _parent_folder(path: str) -> str:
    return path.rpartition("/")[0] or "."


def _normalize_path(path: str) -> str:
    """Return a path without `./` and doubled slashes; a URI keeps its scheme."""
    scheme, mark, rest = path.rpartition("://")
    return f"{scheme}{mark}{os.path.normpath(rest)}"


def read_row_details(path: str) -> dict[str, dict[str, Any]]:
    """Read the rows of the `rows.jsonl` beside a list, by name; none where there is no such file."""
    place = f"{_parent_folder(path)}/{ABOUT}"
    try:
        data = read_file(place)
    except FileNotFoundError:
        return {}
    try:
        return {row["name"]: row for row in parse_json_lines(data)}
    except (ValueError, KeyError, TypeError) as error:
        raise MissingInput(f"'{place}' cannot be read: {error!r}") from None
