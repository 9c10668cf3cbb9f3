"""Stage `inspect`: measures what may be wrong with a pair or a triplet that somebody else made.

It runs the measurements of `pair`, `effects`, `segment` and `audit` on each row, whatever its layout, and adds what
those take for granted: zoom and turn, what changed outside of the mask and its effects, source and target in the right
order. Nothing is rejected: `faults` decides later.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from rasura.manifests.fingerprints import compute_fingerprint
from rasura.manifests.images import RGB, Mask
from rasura.manifests.schemas import PICTURES, Kind, Schema
from rasura.stages.audit import Audit, AuditParams
from rasura.stages.curation.exposure_change import measure_exposure_change
from rasura.stages.curation.faults import find_faults
from rasura.stages.curation.strips import draw_strip
from rasura.stages.effect_mask.leftovers import measure_leftovers
from rasura.stages.effect_mask.object_core import find_clean_only_blobs
from rasura.stages.effect_mask.segmentation import detect_changes
from rasura.stages.effects import Effects, EffectsParams
from rasura.stages.imaging.comparison import compute_difference
from rasura.stages.imaging.components import flag_near_components, label_components, select_components
from rasura.stages.imaging.filters import Floats
from rasura.stages.imaging.mask_change import compare_outlines, measure_mask_change
from rasura.stages.imaging.morphology import compute_distance_to, dilate
from rasura.stages.pair import Pair, PairParams
from rasura.stages.registration.exposure import IDENTITY, apply_gain, compute_gain_factor
from rasura.stages.registration.motion import MIN_TILED_SIDE
from rasura.stages.registration.resampling import translate_and_fill
from rasura.stages.registration.similarity import NO_MOTION, Similarity, estimate_similarity, warp_and_fill
from rasura.stages.segment import Segment, SegmentParams
from rasura.stages.stage import Kept, MissingColumns, Outcome, Params, Record, Rejected, Stage

LEAST_ZOOM, LEAST_TURN = 4e-4, 0.015  # share, degrees: below, the translation of `pair` alone is used
LEAST_REACH = 10.0  # px that holes are commonly widened by
EFFECT_REACH = 0.03  # of the diagonal: what changed nearer than that to the mask is its effect
RIM = 3  # px around M_fg where a change is its own rim
LEAST_PART = 25  # px: smaller parts of a change outside are specks
STRONG_LEVEL = 16.0  # grey levels that the strongest tenth of a part changes by: below, it is light, or the camera's
SAMPLE = 20  # of the rows without fault or doubt, one in so many gets a strip of pictures


class PairView(NamedTuple):
    """A row as a pair, whatever its layout.

    Attributes:
        source, target: (h, w, 3) uint8, with and without the object.
        mask, foreground: (h, w) bool, M_o and M_fg that came with it; None where there are none.
    """

    source: RGB
    target: RGB
    mask: Mask | None
    foreground: Mask | None


def read_view(record: Record) -> PairView | None:
    """Read a record as a pair; None where it has no target."""
    if record.get("input") is not None:
        names = ("input", "gt", "given_mask", "given_foreground_mask")
    else:
        names = ("source", "target", "mask", "foreground_mask")
    source, target, mask, foreground = (record.get(name) for name in names)
    return None if source is None or target is None else PairView(source, target, mask, foreground)


def find_change_outside(changed: Mask, foreground: Mask, mask: Mask | None, given: Mask | None) -> Mask:
    """Find what changed outside of an object and its effects.

    Args:
        changed, foreground: (h, w) bool, all that changed, and M_fg as it was measured.
        mask, given: (h, w) bool, M_o and M_fg that came with the pair. Without either, M_fg as measured counts.

    Returns:
        (h, w) bool, without specks.
    """
    if given is not None:
        allowed = given if mask is None else given | mask
    elif mask is not None and mask.any():
        both = foreground | mask
        reach = max(2.0, EFFECT_REACH * float(np.hypot(*mask.shape)))
        allowed = select_components(label_components(both)[1], flag_near_components(both, mask, reach))
    else:
        allowed = foreground
    outside = changed & ~dilate(allowed, RIM)
    _, labels, areas = label_components(outside)
    return select_components(labels, areas >= LEAST_PART)


def select_strong_parts(mask: Mask, difference: Floats) -> Mask:
    """Select the parts of a mask (h, w) whose strongest tenth changes by at least `STRONG_LEVEL` grey levels."""
    count, labels, _ = label_components(mask)
    strong = np.bincount(labels[difference >= STRONG_LEVEL], minlength=count + 1)[1:]
    return select_components(labels, strong >= 0.1 * np.bincount(labels.ravel(), minlength=count + 1)[1:])


def add_near_difference(source: RGB, target: RGB, foreground: Mask) -> Mask:
    """Add to M_fg (h, w) all pixels that differ, where no pixel differs far from it: a hole that was filled is larger.

    Of a pair of photographs, pixels differ everywhere, and M_fg stays as it is.
    """
    different = (source != target).any(axis=2)
    reach = max(LEAST_REACH, EFFECT_REACH * float(np.hypot(*foreground.shape)))
    near = compute_distance_to(foreground) <= reach
    return foreground if (different & ~near).any() else foreground | different


def is_exact(view: PairView, registered: RGB, foreground: Mask) -> bool:
    """Return whether a pair needs no registration, and its pictures are equal, bit by bit, outside of M_fg (h, w)."""
    unmoved = registered is view.target or np.array_equal(registered, view.target)
    return unmoved and not (view.source != view.target).any(axis=2)[~foreground].any()


class InspectParams(Params):
    pictures: bool = Field(False, description="Keep the pictures, registered, so that `repair` can follow.")
    split: str | None = Field(None, description="Split that all rows are in; null: their own.")
    side: int = Field(256, ge=64, le=1024, description="Longer side of each picture of the strip, px.")
    backend: Literal["grabcut", "sam-onnx"] = Field("grabcut", description="Segmenter of M_o where no mask came.")
    encoder: str | None = Field(None, description="sam-onnx: ONNX file of the encoder.")
    decoder: str | None = Field(None, description="sam-onnx: ONNX file of the decoder.")


OWN_COLUMNS: Schema = {
    "inspect_shift": Kind.FLOAT,  # px by which the target is moved
    "inspect_zoom": Kind.FLOAT,  # share by which it is larger or smaller
    "inspect_turn": Kind.FLOAT,  # degrees by which it is turned
    "inspect_gain": Kind.FLOAT,  # share by which a channel is brighter or darker, as far as no object explains it
    "inspect_outside": Kind.FLOAT,  # share of the picture that changed outside of the object and its effects
    "inspect_faint": Kind.FLOAT,  # the same of changes by few levels: light, or the camera's own doing
    "inspect_swap": Kind.FLOAT,  # log2 of the step across the object's outline in source over that in target
    "inspect_exact": Kind.BOOL,  # nothing has to be moved, and outside of M_fg both are equal, bit by bit
    "inspect_verdict": Kind.STRING,  # why a stage could not measure it; null where all could
    "inspect_fingerprint": Kind.STRING,  # of the target
    "inspect_strip": Kind.RGB,  # source, target and change beside each other; null for most rows without fault
}
PAIR_PICTURES: Schema = {
    "input": Kind.RGB,
    "gt": Kind.RGB,
    "object_mask": Kind.MASK,
    "foreground_mask": Kind.MASK,
    "given_kind": Kind.STRING,
}


class Inspect(Stage):
    """Measure what may be wrong with a pair or triplet; reject nothing but rows without a target.

    Examples:
        - inspect: {}
    """

    name = "inspect"
    version = "2"
    time_limit_s = 300.0
    Params = InspectParams
    params: InspectParams
    gives = {
        **{name: kind for name, kind in Pair.gives.items() if kind not in PICTURES},
        **{name: kind for name, kind in Effects.gives.items() if kind not in PICTURES},
        "mask_change": Kind.FLOAT,
        "mask_changed": Kind.FLOAT,
        **Audit.gives,
        **OWN_COLUMNS,
    }

    def __init__(self, params: Any, seed: int = 0) -> None:
        super().__init__(params, seed)
        segment = SegmentParams(backend=params.backend, encoder=params.encoder, decoder=params.decoder)
        self.segment = Segment(segment)
        self.pair, self.effects = Pair(PairParams()), Effects(EffectsParams())
        self.audit = Audit(AuditParams())

    def schema(self, columns: Schema) -> Schema:
        if not {"input", "gt"} <= set(columns) and not {"source", "target"} <= set(columns):
            raise MissingColumns(self.name, ("input and gt (or source and target)",), tuple(columns))
        light = {name: kind for name, kind in columns.items() if kind not in PICTURES}
        return light | dict(self.gives) | (dict(PAIR_PICTURES) if self.params.pictures else {})

    def weights(self) -> Any:
        return self.segment.weights()

    def network_memory(self, batch_size: int) -> Any:
        return self.segment.network_memory(batch_size)

    def setup(self) -> None:
        self.segment.setup()

    def process_one(self, record: Record) -> Outcome:
        view = read_view(record)
        if view is None:
            return Rejected("no target", "there is no picture without the object to compare with")
        light = {name: value for name, value in record.items() if not isinstance(value, np.ndarray)}
        measured = dict.fromkeys(self.gives) | self._measure(view)
        measured["inspect_fingerprint"] = compute_fingerprint(view.target).hex()
        pictures = {name: measured.pop(name, None) for name in PAIR_PICTURES if name != "given_kind"}
        if self._needs_strip(record, measured):
            measured["inspect_strip"] = draw_strip(
                view.source, view.target, view.mask, pictures["foreground_mask"], self.params.side
            )
        kept = light | {name: value for name, value in measured.items() if name in self.gives}
        kept["split"] = self.params.split or record.get("split")
        if self.params.pictures:
            kept |= pictures | {"given_kind": record.get("given_kind") or record.get("kind")}
        return Kept([kept])

    def _needs_strip(self, record: Record, measured: Record) -> bool:
        if measured["inspect_verdict"] or find_faults(measured):
            return True
        return int(self.rng(record).integers(SAMPLE)) == 0

    def _measure(self, view: PairView) -> Record:
        """Measure a row as far as the stages go; `inspect_verdict` says where they stopped."""
        if view.source.shape != view.target.shape:
            sizes = " and ".join(f"{p.shape[1]} x {p.shape[0]}" for p in (view.source, view.target))
            return {"inspect_verdict": f"pictures of two sizes: {sizes}", "inspect_exact": False}
        similarity = estimate_similarity(view.source, view.target)
        # `pair` estimates translations: it gets what zoom and turn leave, so that nothing is resampled twice
        wide = abs(similarity.zoom) > LEAST_ZOOM or abs(similarity.turn) > LEAST_TURN
        clean = warp_and_fill(view.target, similarity, view.source) if wide else view.target
        record: Record = {"id": "row", "input": view.source, "gt": clean, "given_mask": view.mask}
        stages: Sequence[Stage] = (self.pair, self.effects, self.segment, self.audit)
        verdict = None
        for stage in stages:
            outcome = stage.process_one(record)
            if isinstance(outcome, Rejected):
                verdict = f"{outcome.reason}: {outcome.detail}" if outcome.detail else outcome.reason
                break
            record = dict(outcome.records[0])
            if stage is self.pair:
                record |= _measure_exposure(view.source, clean, record)
        record |= _measure_motion(similarity if wide else NO_MOTION, record)
        record |= self._measure_masks(view, record)
        if record["inspect_exact"]:
            record["pair_motion"] = 0.0  # tiles that the object fills seem to move
        elif min(view.source.shape[:2]) < MIN_TILED_SIDE:
            record["pair_motion"] = None
        return record | {"inspect_verdict": verdict}

    def _measure_masks(self, view: PairView, record: Record) -> Record:
        """Measure what masks have to do with the change, and make M_o and M_fg whole."""
        measured = record.get("foreground_mask")
        mask = view.mask if view.mask is not None and view.mask.any() else record.get("object_mask")
        empty = np.zeros(view.source.shape[:2], bool)
        foreground = empty if measured is None else measured
        whole = foreground if view.foreground is None else view.foreground
        whole = whole if mask is None else whole | mask
        if view.foreground is None and whole.any():
            whole = add_near_difference(view.source, view.target, whole)
        result: Record = {
            "object_mask": empty if mask is None else mask,
            "foreground_mask": whole,
            "inspect_exact": is_exact(view, record["gt"], whole),
        }
        if measured is None:
            return result
        changed = detect_changes(view.source, record["gt"], record.get("pair_noise") or 0.0)
        outside = find_change_outside(changed, foreground, view.mask, view.foreground)
        strong = select_strong_parts(outside, compute_difference(view.source, record["gt"]))
        result |= {"inspect_outside": float(strong.mean()), "inspect_faint": float((outside & ~strong).mean())}
        if view.mask is not None:
            overlap = measure_mask_change(view.mask, changed)
            result |= {"mask_change": overlap.change, "mask_changed": overlap.changed}
            # `effects` did not know the mask: what is in it is not left
            elsewhere = changed & ~dilate(whole, RIM)
            elsewhere &= ~find_clean_only_blobs(view.source, record["gt"], elsewhere)
            result["effects_left"] = measure_leftovers(view.source, record["gt"], elsewhere, whole)
        if mask is not None and mask.any():
            result["inspect_swap"] = compare_outlines(view.source, record["gt"], mask)
        if view.mask is None and view.foreground is None:
            return result
        # of a mask that came, only what is near it is its effect; the rest is a change outside
        result["foreground_mask"] = whole & ~dilate(outside, RIM) | result["object_mask"]
        result["inspect_exact"] = is_exact(view, record["gt"], result["foreground_mask"])
        return result


def _measure_exposure(source: RGB, clean: RGB, record: Record) -> Record:
    """Measure the change of exposure of a registered pair.

    Where `pair` left it as light of the object, also return the matched target.
    """
    dx, dy = record["pair_shift_x"], record["pair_shift_y"]
    change = measure_exposure_change(source, translate_and_fill(clean, dx, dy, source), record["pair_gain"])
    columns: Record = {"inspect_gain": change.size}
    if change.size and tuple(record["pair_gain"]) == IDENTITY and not record["pair_tone"]:
        columns["gt"] = translate_and_fill(apply_gain(clean, change.gains), dx, dy, source)
        columns["pair_gain"] = list(change.gains)
        columns["pair_gain_max"] = compute_gain_factor(change.gains)
    return columns


def _measure_motion(similarity: Similarity, record: Record) -> Record:
    """Return shift, zoom and turn of the target: what `estimate_similarity` and then `pair` estimated."""
    dx = similarity.dx + (record.get("pair_shift_x") or 0.0)
    dy = similarity.dy + (record.get("pair_shift_y") or 0.0)
    return {
        "inspect_shift": float(np.hypot(dx, dy)),
        "inspect_zoom": abs(similarity.zoom),
        "inspect_turn": abs(similarity.turn),
    }
