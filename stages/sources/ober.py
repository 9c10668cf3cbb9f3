"""A dataset in OBER's Parquet layout, ObjectClear's published one or one made here, as pairs or as triplets."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Literal, cast

from pydantic import Field

from rasura.manifests.formats.dataset_rows import parse_kind
from rasura.manifests.formats.ober import NEEDED_COLUMNS, PICTURES, OberReader, list_rows, list_subsets
from rasura.manifests.ids import compute_content_id, find_equal_splits, is_split_name
from rasura.manifests.images import MAX_PIXELS, RGB, Mask, decode_image
from rasura.manifests.parquet import iterate_rows, open_parquet
from rasura.manifests.schemas import CANDIDATE_KINDS, PROVENANCE, Kind, Schema
from rasura.stages import stage
from rasura.stages.imaging.mask_change import Polarity
from rasura.stages.sources.files import (
    ChangedInput,
    InputPath,
    RunContext,
    format_origin,
    make_unreadable_id,
    remember,
    survey_files,
)
from rasura.stages.sources.listing import MissingInput, SourceFile, find_files
from rasura.stages.sources.parquet_rows import CellCheck, check_columns, check_files
from rasura.stages.sources.photos import shrink_to_fit
from rasura.stages.sources.provided_masks import MASK_COLUMNS, NO_MASK, POLARITY, explain_extent, load_mask, shrink_mask
from rasura.stages.sources.provided_triplets import MIN_MASK_SCORE, check_triplet, equalize_outside, join_foreground
from rasura.stages.sources.scenes import LISTING_SUFFIXES, read_fingerprint
from rasura.stages.stage import Kept, Outcome, Record, Rejected, Source

PAIR_COLUMNS: Schema = {"input": Kind.RGB, "gt": Kind.RGB, "given_mask": Kind.MASK, "given_foreground_mask": Kind.MASK}
GIVEN_KIND: Schema = {"given_kind": Kind.STRING}  # of triplets that are given as pairs: what `capture` makes of them
TRIPLET_COLUMNS: Schema = {
    "kind": Kind.STRING,
    "source": Kind.RGB,
    "target": Kind.RGB,
    "mask": Kind.MASK,
    "foreground_mask": Kind.MASK,
    "label": Kind.STRING,
    "outside_change": Kind.FLOAT,  # share of the change that was outside of foreground_mask; null: there is none
    "outside_level": Kind.FLOAT,  # grey levels of the difference there, before target became source; 0: there was none
}


class OberParams(stage.Params):
    path: InputPath = Field(description="folder, glob, file or URI of .parquet files in OBER's layout")
    give: Literal["pairs", "triplets"] = Field(
        "pairs", description="pairs, to be measured and cut out; or triplets as they are, for a dataset"
    )
    subsets: list[str] | None = Field(None, description="only rows of these subsets; all where null")
    splits: list[str] | None = Field(None, description="only rows of these splits; all where null")
    keep_split: bool = Field(True, description="rows keep their split; otherwise a scene's hash decides")
    mask_polarity: Polarity = POLARITY
    min_mask_score: float = MIN_MASK_SCORE
    by_subset: bool = Field(False, description="equal scene names in two subsets are two scenes")
    licence: str = Field("unknown", description="licence of the pictures, kept with every row made from them")
    max_side: int | None = Field(None, ge=16, description="longer pictures are scaled down to this many pixels")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="pictures with more pixels are refused undecoded")


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
        for name in ("input", "gt"):
            if data[name] is None:
                return Rejected("no partner", f"there is no {name} in {item['origin']}")
        subset, split = item["row_details"]
        if self.params.keep_split and split is not None and not is_split_name(split):
            return Rejected("split is no word", f"{split!r} in {item['origin']}; keep_split: false leaves it out")
        source, clean = (decode_image(cast(bytes, data[name]), self.params.max_pixels) for name in ("input", "gt"))
        if source.shape != clean.shape:
            sizes = {"input": source.shape[:2], "gt": clean.shape[:2]}
            return Rejected("pictures of two sizes", f"{sizes} in {item['origin']}")
        columns, masks = NO_MASK, dict[str, Mask]()
        for name in ("object_mask", "object_effect_mask"):
            if (encoded := data[name]) is None:
                continue
            outcome = load_mask(encoded, source, clean, self.params.mask_polarity, self.params.max_pixels)
            if isinstance(outcome, Rejected):
                return Rejected(outcome.reason, f"{name}: {outcome.detail}; in {item['origin']}")
            masks[name] = outcome[0]
            columns = outcome[1] if name == "object_mask" else columns
        pictures = self._prepare(source, clean, masks, columns, parse_kind(subset))
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
                    **columns,
                }
            ]
        )

    def _prepare(
        self, source: RGB, clean: RGB, masks: dict[str, Mask], columns: Record, kind: str | None
    ) -> Record | Rejected:
        """Return the columns of a row's pictures, checked and scaled to fit; or why it cannot be one."""
        object_mask, foreground = masks.get("object_mask"), masks.get("object_effect_mask")
        if object_mask is not None and foreground is not None:
            joined = join_foreground(object_mask, foreground)
            if isinstance(joined, Rejected):
                return joined
            foreground = joined
        side = self.params.max_side
        small, small_clean = shrink_to_fit(source, side), shrink_to_fit(clean, side)
        small_object = None if object_mask is None else shrink_mask(object_mask, side)
        small_foreground = None if foreground is None else shrink_mask(foreground, side)
        for mask in (small_object, small_foreground):
            if mask is not None and (fault := explain_extent(mask)) is not None:
                return Rejected("empty mask", fault)
        if self.params.give == "pairs":
            pictures = (small, small_clean, small_object, small_foreground)
            return {"given_kind": kind} | dict(zip(PAIR_COLUMNS, pictures, strict=True))
        if small_object is None:
            return Rejected(
                "no mask", "a triplet needs an object_mask; give: pairs finds the object where there is none"
            )
        is_answer = kind not in CANDIDATE_KINDS
        wrong = check_triplet(small, small_clean, small_object, columns, self.params.min_mask_score, is_answer)
        if wrong is not None:
            return wrong
        outside: Record = {"outside_change": None, "outside_level": None}
        if foreground is not None and small_foreground is not None:
            if small.shape != source.shape and (source == clean).all(axis=2)[~foreground].all():
                small_foreground |= (small != small_clean).any(axis=2)  # pixels of the rim that are partly inside
            equal = equalize_outside(small, small_clean, small_object, small_foreground, small.shape != source.shape)
            if isinstance(equal, Rejected):
                return equal
            small_clean, small_foreground = equal.target, equal.foreground
            outside = {"outside_change": equal.change, "outside_level": equal.level}
        pictures = (small, small_clean, small_object, small_foreground)
        named = dict(zip(("source", "target", "mask", "foreground_mask"), pictures, strict=True))
        return {"kind": kind or "captured", "label": None} | named | outside
