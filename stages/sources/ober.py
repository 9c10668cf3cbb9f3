"""A dataset in OBER's Parquet layout, ObjectClear's published one or one made here, as pairs or as triplets."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from rasura.manifests.formats.dataset_rows import parse_kind
from rasura.manifests.formats.ober import NEEDED_COLUMNS, PICTURES, TRIPLET, OberReader, list_rows, list_subsets
from rasura.manifests.ids import compute_content_id, find_equal_splits, is_split_name
from rasura.manifests.parquet import iterate_rows, open_parquet
from rasura.manifests.schemas import CANDIDATE_KINDS, PROVENANCE, Kind, Schema
from rasura.stages.sources.files import (
    ChangedInput,
    InputPath,
    RunContext,
    format_origin,
    make_unreadable_id,
    remember,
    survey_files,
)
from rasura.stages.sources.foreign.pictures import (
    GIVE_PAIR,
    GIVEN_KIND,
    PAIR_COLUMNS,
    TRIPLET_COLUMNS,
    PairParams,
    load_pair,
)
from rasura.stages.sources.listing import MissingInput, SourceFile, find_files
from rasura.stages.sources.parquet_rows import CellCheck, check_columns, check_files
from rasura.stages.sources.provided_masks import MASK_COLUMNS
from rasura.stages.sources.scenes import LISTING_SUFFIXES, read_fingerprint
from rasura.stages.stage import Kept, Outcome, Record, Rejected, Source

NAMES = {ours: theirs for theirs, ours in TRIPLET.items()}


class OberParams(PairParams):
    path: InputPath = Field(description="folder, glob, file or URI of .parquet files in OBER's layout")
    give: Literal["pairs", "triplets"] = GIVE_PAIR
    subsets: list[str] | None = Field(None, description="only rows of these subsets; all where null")
    splits: list[str] | None = Field(None, description="only rows of these splits; all where null")
    by_subset: bool = Field(False, description="equal scene names in two subsets are two scenes")


def _describe_rows(path: str) -> tuple[str, str]:
    """Return JSON lists of (content id, scene, subset, split) of a file's rows, and of their fingerprints."""
    with open_parquet(path) as source:
        present = check_columns(path, source, NEEDED_COLUMNS, PICTURES)
        first = next(iterate_rows(source, present), None)
        if first is not None:
            CellCheck(path, present).check(first, 0)
    details, fingerprints = [], []
    for row in list_rows(path):
        pictures = dict(zip(PICTURES, row.pictures, strict=True))
        details.append([compute_content_id(*row.pictures), row.scene, row.subset, row.split])
        fingerprints.append(read_fingerprint(pictures["gt"] or b""))
    return json.dumps(details), json.dumps(fingerprints)


class Ober(Source):
    """Rows of a dataset in OBER's layout."""

    name = "ober"
    version = "4"
    input_paths = ("path",)
    gives = {**PROVENANCE, **PAIR_COLUMNS, **GIVEN_KIND, "subset": Kind.STRING, **MASK_COLUMNS}
    Params = OberParams
    params: OberParams

    def schema(self, columns: Schema) -> Schema:
        pictures = {**PAIR_COLUMNS, **GIVEN_KIND} if self.params.give == "pairs" else TRIPLET_COLUMNS
        return {**PROVENANCE, **pictures, "subset": Kind.STRING, **MASK_COLUMNS}

    def list_inputs(self, passed_over: Counter[str] | None = None) -> Sequence[SourceFile]:
        """List the files; others of their folder are added to `passed_over`, by the reason.

        Raises:
            MissingInput: there are none, or one lacks OBER's columns, or has something else than pictures in them.
        """
        return check_files(find_files(self.params.path, "*.parquet", passed_over), NEEDED_COLUMNS, PICTURES)

    def list_candidate_kinds(self) -> frozenset[str]:
        """Return the chosen subsets that are what a model made; the layout has no verdicts."""
        chosen = self.params.subsets
        if chosen is not None and not CANDIDATE_KINDS & frozenset(map(parse_kind, chosen)):
            return frozenset()
        subsets = frozenset().union(*(list_subsets(file.path) for file in self.list_inputs()))
        return CANDIDATE_KINDS & {
            kind for name in subsets if chosen is None or name in chosen if (kind := parse_kind(name))
        }

    def survey_inputs(self, run: RunContext) -> tuple[str, int]:
        return survey_files(self.params.path)

    def items(self, run: RunContext) -> list[Record]:
        files = self.list_inputs(run.passed_over)
        listings, fingerprints = remember(files, run, _describe_rows, LISTING_SUFFIXES)
        items: list[Record] = []
        splits: dict[str, tuple[str | None, str]] = {}
        for file in files:
            details, texts = listings[file.path], fingerprints[file.path]
            if details is None or texts is None:
                unreadable = {"id": make_unreadable_id(file.path), "origin": format_origin(file.path)}
                items.append({**unreadable, "path": file.path, "row": 0})
                continue
            rows = zip(json.loads(details), json.loads(texts), strict=True)
            for row, ((id, scene, subset, split), fingerprint) in enumerate(rows):
                if self.params.subsets is not None and subset not in self.params.subsets:
                    continue
                if self.params.splits is not None and split not in self.params.splits:
                    continue
                scene = f"{subset}/{scene}" if self.params.by_subset and scene else scene or id
                self._check_split(splits, scene, subset, split)
                items.append(
                    {
                        "id": id,
                        "origin": f"{format_origin(file.path)}#{row}",
                        "path": file.path,
                        "row": row,
                        "scene_id": scene,
                        "row_details": [subset, split],
                        "kept_split": split if self.params.keep_split else None,
                        "fingerprint": fingerprint,
                    }
                )
        if self.params.keep_split and (equal := find_equal_splits(split for split, _ in splits.values())):
            raise MissingInput(
                f"'{self.params.path}': splits '{equal[0]}' and '{equal[1]}' differ in their letters' case only; "
                "rename one of them, or set keep_split: false"
            )
        return items

    def _check_split(
        self, splits: dict[str, tuple[str | None, str]], scene: str, subset: str, split: str | None
    ) -> None:
        if not self.params.keep_split:
            return
        first_split, first_subset = splits.setdefault(scene, (split, subset))
        if first_split != split:
            raise MissingInput(
                f"'{self.params.path}': scene '{scene}' is in split '{first_split}' (subset '{first_subset}') and in "
                f"split '{split}' (subset '{subset}'); set by_subset: true where these are two scenes, or "
                "keep_split: false"
            )

    def setup(self) -> None:
        self.reader = OberReader()

    def process_one(self, item: Record) -> Outcome:
        data = self.reader.row(item["path"], item["row"])
        if data is None or compute_content_id(*data.values()) != item["content"]:
            raise ChangedInput(f"'{item['origin']}' is not what it was when it was listed; run again")
        subset, split = item["row_details"]
        if self.params.keep_split and split is not None and not is_split_name(split):
            return Rejected("split is no word", f"{split!r} in {item['origin']}; keep_split: false leaves it out")
        parts = {ours: data[theirs] for ours, theirs in NAMES.items()}
        pictures = load_pair(parts, self.params.give, self.params, parse_kind(subset), NAMES)
        if isinstance(pictures, Rejected):
            return Rejected(pictures.reason, f"{pictures.detail}; in {item['origin']}")
        return Kept(
            [
                {
                    "id": item["id"],
                    "origin": item["origin"],
                    "scene_id": item["scene_id"],
                    "split": split if self.params.keep_split else None,
                    "licence": self.params.licence,
                    "parents": [],
                    "subset": subset,
                    **pictures,
                }
            ]
        )
