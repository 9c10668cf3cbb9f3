"""Pictures of rows that were made elsewhere, as pairs, triplets or photographs: read, checked, scaled to fit."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from rasura.manifests.camera_tags import CAMERA_COLUMNS, read_camera
from rasura.manifests.images import MAX_PIXELS, RGB, Mask, decode_image
from rasura.manifests.schemas import CANDIDATE_KINDS, Kind, Schema
from rasura.stages import stage
from rasura.stages.imaging.mask_change import Polarity
from rasura.stages.sources.photos import OBJECT_COLUMNS, shrink_to_fit
from rasura.stages.sources.provided_masks import MASK_COLUMNS, NO_MASK, POLARITY, explain_extent, load_mask, shrink_mask
from rasura.stages.sources.provided_triplets import MIN_MASK_SCORE, check_triplet, equalize_outside, join_foreground
from rasura.stages.stage import Record, Rejected

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
PHOTO_COLUMNS: Schema = {
    "source": Kind.RGB,
    "width": Kind.INT,
    "height": Kind.INT,
    **CAMERA_COLUMNS,
    **OBJECT_COLUMNS,
}
GIVE_PAIR: Any = Field("pairs", description="pairs, to be measured and cut out; or triplets as they are, for a dataset")
OWN_NAMES = {name: name for name in ("source", "target", "mask", "foreground_mask")}


class PictureParams(stage.Params):
    """What is asked of the pictures of a row."""

    licence: str = Field("unknown", description="licence of the pictures, kept with every row made from them")
    max_side: int | None = Field(None, ge=16, description="longer pictures are scaled down to this many pixels")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="pictures with more pixels are refused undecoded")


class PairParams(PictureParams):
    """What is asked of the pictures of a row with a target."""

    mask_polarity: Polarity = POLARITY
    min_mask_score: float = MIN_MASK_SCORE
    keep_split: bool = Field(True, description="rows keep their split; otherwise a scene's hash decides")


def load_pair(
    data: Mapping[str, bytes | None],
    give: str,
    params: PairParams,
    kind: str | None,
    names: Mapping[str, str] = OWN_NAMES,
) -> Record | Rejected:
    """Load the pictures of a row with a target, as a pair or as a triplet.

    Args:
        data: encoded `source`, `target`, and maybe `mask` and `foreground_mask`.
        give: pairs or triplets.
        params: what is asked of them.
        kind: of the row; None where it is unknown.
        names: of the four in their own layout, for messages.

    Returns:
        The columns of `PAIR_COLUMNS` and `GIVEN_KIND`, or of `TRIPLET_COLUMNS`, and of `MASK_COLUMNS`; or why there is
        no such row.

    Raises:
        BadImage: a picture cannot be read.
    """
    for part in ("source", "target"):
        if not data.get(part):
            return Rejected("no partner", f"there is no {names[part]}")
    source, target = (decode_image(data[part] or b"", params.max_pixels) for part in ("source", "target"))
    if source.shape != target.shape:
        sizes = {names["source"]: source.shape[:2], names["target"]: target.shape[:2]}
        return Rejected("pictures of two sizes", str(sizes))
    columns, masks = NO_MASK, dict[str, Mask]()
    for part in ("mask", "foreground_mask"):
        if (encoded := data.get(part)) is None:
            continue
        outcome = load_mask(encoded, source, target, params.mask_polarity, params.max_pixels)
        if isinstance(outcome, Rejected):
            return Rejected(outcome.reason, f"{names[part]}: {outcome.detail}")
        masks[part] = outcome[0]
        columns = outcome[1] if part == "mask" else columns
    pictures = prepare_pair(source, target, masks, columns, kind, give, params)
    return pictures if isinstance(pictures, Rejected) else pictures | columns


def prepare_pair(
    source: RGB,
    clean: RGB,
    masks: Mapping[str, Mask],
    columns: Record,
    kind: str | None,
    give: str,
    params: PairParams,
) -> Record | Rejected:
    """Return the columns of a row's pictures, checked and scaled to fit; or why it cannot be one.

    Args:
        source, clean: (h, w, 3) uint8, with and without the object.
        masks: (h, w) bool, as far as there are `mask` (of the object) and `foreground_mask` (with its effects).
        columns: `MASK_COLUMNS` of the object's mask.
        kind: of the row; None where it is unknown.
        give: pairs or triplets.
        params: what is asked of them.
    """
    object_mask, foreground = masks.get("mask"), masks.get("foreground_mask")
    if object_mask is not None and foreground is not None:
        joined = join_foreground(object_mask, foreground)
        if isinstance(joined, Rejected):
            return joined
        foreground = joined
    side = params.max_side
    small, small_clean = shrink_to_fit(source, side), shrink_to_fit(clean, side)
    small_object = None if object_mask is None else shrink_mask(object_mask, side)
    small_foreground = None if foreground is None else shrink_mask(foreground, side)
    for mask in (small_object, small_foreground):
        if mask is not None and (fault := explain_extent(mask)) is not None:
            return Rejected("empty mask", fault)
    if give == "pairs":
        pictures = (small, small_clean, small_object, small_foreground)
        return {"given_kind": kind} | dict(zip(PAIR_COLUMNS, pictures, strict=True))
    if small_object is None:
        return Rejected(
            "no mask", "a triplet needs a mask of its object; give: pairs finds the object where there is none"
        )
    is_answer = kind not in CANDIDATE_KINDS
    wrong = check_triplet(small, small_clean, small_object, columns, params.min_mask_score, is_answer)
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


def load_photo(data: Mapping[str, bytes | None], params: PictureParams, polarity: Polarity) -> Record | Rejected:
    """Load a photograph with the mask file of an object in it, where there is one.

    Args:
        data: encoded `source`, and maybe `mask`.
        params: what is asked of them.
        polarity: of the mask.

    Returns:
        The columns of `PHOTO_COLUMNS`; or why there is no such row.

    Raises:
        BadImage: a picture cannot be read.
    """
    if not data.get("source"):
        return Rejected("no picture", "there is no source")
    source = decode_image(data["source"] or b"", params.max_pixels)
    if (encoded := data.get("mask")) is None:
        return prepare_photo(source, None, data["source"] or b"", params, NO_MASK)
    outcome = load_mask(encoded, source, None, polarity, params.max_pixels)
    if isinstance(outcome, Rejected):
        return outcome
    return prepare_photo(source, outcome[0], data["source"] or b"", params, outcome[1])


def prepare_photo(
    source: RGB, mask: Mask | None, encoded: bytes, params: PictureParams, columns: Record
) -> Record | Rejected:
    """Return the columns of a photograph and its object, scaled to fit; or why the mask marks none.

    Args:
        source: (h, w, 3) uint8.
        mask: (h, w) bool; None where there is none.
        encoded: the photograph's file, in which a camera may have left its data.
        params: what is asked of them.
        columns: `MASK_COLUMNS` of the mask.
    """
    if mask is not None:
        mask = shrink_mask(mask, params.max_side)
        if (fault := explain_extent(mask)) is not None:
            return Rejected("empty mask", fault)
    source = shrink_to_fit(source, params.max_side)
    return {
        "source": source,
        "width": source.shape[1],
        "height": source.shape[0],
        **read_camera(encoded),
        "object_mask": mask,
        "label": None,
        "mask_area": None if mask is None else float(mask.mean()),
        **columns,
    }


def list_columns(give: str) -> Schema:
    """List the columns of rows that are given as photos, pairs or triplets, beside their provenance."""
    if give == "photos":
        return PHOTO_COLUMNS
    if give == "triplets":
        return {**TRIPLET_COLUMNS, **MASK_COLUMNS}
    return {**PAIR_COLUMNS, **GIVEN_KIND, "label": Kind.STRING, **MASK_COLUMNS}
