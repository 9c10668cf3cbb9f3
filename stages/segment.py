"""Stage `segment`: the object mask M_o: from what differs in a pair (`object_mask`), or from a prompt on a photo."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from rasura.manifests.images import RGB, Mask
from rasura.manifests.schemas import Kind, Schema
from rasura.networks.weights import Reference, Revision, listed, resolve, single
from rasura.stages.pair import dilate
from rasura.stages.segmenters.grabcut import cut_box
from rasura.stages.segmenters.object_of_pair import Box, object_of_pair, tidy
from rasura.stages.segmenters.sam import Embedding, Floats, Promptable, points_prompt
from rasura.stages.stage import Kept, MissingColumns, Outcome, Params, Record, Rejected, Stage, picture_column

MARGIN = 2  # px by which M_fg reaches over M_o: an object's rim is mixed with what lies behind it
SEEN = 2  # pictures whose embeddings are kept


def within(box: Any, shape: tuple[int, ...]) -> Box | None:
    """A float box [x0, y0, x1, y1] as whole pixels inside a picture; None where less than 2 px are left."""
    height, width = shape[:2]
    x0, y0 = max(0, int(np.floor(box[0]))), max(0, int(np.floor(box[1])))
    x1, y1 = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    return (x0, y0, x1, y1) if x1 - x0 >= 2 and y1 - y0 >= 2 else None


def points_within(points: Any, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """The points on and off the object, each (n, 2) x, y, that lie in a picture.

    Args:
        points: flat list x, y, 1 or 0 (on the object or not), x, y, … in px.

    Raises:
        ValueError: not a multiple of three numbers, or a third one that is neither 1 nor 0.
    """
    given = np.asarray(points if points is not None else (), np.float32)
    if given.size % 3 or not np.isin(given[2::3], (0, 1)).all():
        raise ValueError(f"points have to be x, y and 1 or 0 in turn, not {given.tolist()[:9]}")
    rows = given.reshape(-1, 3)
    inside = (rows[:, :2] >= 0).all(axis=1) & (rows[:, 0] < shape[1]) & (rows[:, 1] < shape[0])
    rows = rows[inside]
    return rows[rows[:, 2] == 1, :2], rows[rows[:, 2] == 0, :2]


class Answer(NamedTuple):
    """A mask and what is known of it."""

    mask: Mask
    score: float
    predicted_iou: float | None = None
    alternatives: Sequence[float] | None = None
    alternative_areas: Sequence[float] | None = None


def answered(sam: Promptable, embedding: Embedding, points: Floats, labels: Floats, answer: str) -> Answer:
    """A segmenter's answer to a prompt, with the guesses of its IoU and of those of all masks that it offers.

    Args:
        answer: `single`: the answer to a prompt without doubt; `best`: of all masks the one of the highest guess;
            `auto`: best for a lone point, which may mean a part, an object or a group, else single.
    """
    masks, guesses = sam.prompt_all(embedding, points, labels)
    lone = int((labels >= 0).sum()) == 1
    if answer == "best" or (answer == "auto" and lone):
        best = int(np.argmax(guesses))
        logits, guess = masks[best], float(guesses[best])
    else:
        logits, guess = sam.prompt(embedding, points, labels)
    areas = [float((one > 0).mean()) for one in masks]
    return Answer(logits > 0, guess, guess, [float(one) for one in guesses], areas)


class SegmentParams(Params):
    backend: Literal["sam-onnx", "sam", "sam2", "sam-hf", "grabcut"] = Field(
        "sam-onnx",
        description="What draws the mask: a SAM in two ONNX files; SAM of segment-anything; SAM 2 or SAM of "
        "transformers; GrabCut, without weights.",
    )
    encoder: Reference | None = Field(None, description="sam-onnx: ONNX file of the encoder.")
    decoder: Reference | None = Field(None, description="sam-onnx: ONNX file of the decoder.")
    weights: Reference | None = Field(
        None, description="sam: a .pth or .safetensors; sam2, sam-hf: a folder; with `revision` a model of the hub."
    )
    revision: Revision | None = Field(None, description="Commit of a model on the hub; without it, local paths.")
    answer: Literal["auto", "single", "best"] = Field(
        "auto",
        description="On photos, of the masks that SAM offers: the one for prompts without doubt (single), the one with "
        "the highest predicted IoU (best), or best for a lone point and single for all else (auto).",
    )
    use_given: bool = Field(True, description="Take a pair's given_mask, where it has one, instead of drawing one.")


class Segment(Stage):
    """Finds M_o. Of a pair, M_fg is widened to hold it. A photo needs a column box, or points (x, y, 1 or 0, …)."""

    name = "segment"
    version = "2"
    gives = {
        "object_mask": Kind.MASK,
        "segment_score": Kind.FLOAT,
        "segment_backend": Kind.STRING,
        "segment_predicted_iou": Kind.FLOAT,
        "segment_alternatives": Kind.FLOATS,
        "segment_alternative_areas": Kind.FLOATS,
    }
    Params = SegmentParams
    params: SegmentParams

    def __init__(self, params: Any, seed: int = 0) -> None:
        super().__init__(params, seed)
        if params.backend == "sam-onnx" and not (params.encoder and params.decoder):
            raise ValueError("stage 'segment' with backend 'sam-onnx' needs the parameters encoder and decoder")
        if params.backend in ("sam", "sam2", "sam-hf") and not params.weights:
            raise ValueError(f"stage 'segment' with backend '{params.backend}' needs the parameter weights")
        self.sam: Promptable | None = None
        self.seen: OrderedDict[str, Embedding] = OrderedDict()

    def schema(self, given: Schema) -> Schema:
        wanted = ("input", "gt", "foreground_mask") if picture_column(given) == "input" else ("source",)
        missing = tuple(name for name in wanted if name not in given)
        if picture_column(given) == "source" and not {"box", "points"} & set(given):
            missing = (*missing, "box (or points)")
        if missing:
            raise MissingColumns(self.name, missing, tuple(given))
        return super().schema(given)

    def weights(self) -> Mapping[str, Path]:
        params = self.params
        if params.backend == "sam-onnx":
            files = listed("sam-encoder", params.encoder or "", params.revision)
            return files | listed("sam-decoder", params.decoder or "", params.revision)
        return listed(params.backend, params.weights, params.revision) if params.weights else {}

    def setup(self) -> None:
        params = self.params
        match params.backend:
            case "sam-onnx":
                from rasura.stages.segmenters.sam_onnx import SamOnnx

                encoder, decoder = (resolve(name or "", params.revision) for name in (params.encoder, params.decoder))
                self.sam = SamOnnx(encoder, decoder)
            case "sam":
                from rasura.stages.segmenters.sam_original import SamTorch

                self.sam = SamTorch(single(resolve(params.weights or "", params.revision)))
            case "sam2" | "sam-hf":
                from rasura.stages.segmenters.sam_transformers import SamTransformers

                model = "sam2" if params.backend == "sam2" else "sam"
                self.sam = SamTransformers(resolve(params.weights or "", params.revision), model)

    def process_one(self, record: Record) -> Outcome:
        return self._pair(record) if picture_column(record) == "input" else self._photo(record)

    def _pair(self, record: Record) -> Outcome:
        given = record.get("given_mask") if self.params.use_given else None
        if given is not None and given.any():
            return self._kept(record, Answer(given, 1.0), "given")
        source, clean, foreground = record["input"], record["gt"], record["foreground_mask"]
        mask, score = object_of_pair(source, clean, foreground, record.get("pair_noise") or 0.0, self.sam)
        if not mask.any():
            return Rejected("no object found", "nothing inside foreground_mask is an object")
        return self._kept(record, Answer(mask, score), self.params.backend)

    def _photo(self, record: Record) -> Outcome:
        picture = record["source"]
        box = None if record.get("box") is None else within(record["box"], picture.shape)
        on, off = points_within(record.get("points"), picture.shape)
        if box is None and not len(on):
            return Rejected("no object found", f"box {record.get('box')}, points {record.get('points')}")
        if self.sam is not None:
            prompt = points_prompt(on, off, box)
            found = answered(self.sam, self._embedding(self.sam, picture), *prompt, self.params.answer)
        elif box is not None:
            mask = cut_box(picture, box)
            found = Answer(mask, float(mask.sum() / ((box[2] - box[0]) * (box[3] - box[1]))))
        else:
            return Rejected("no box", "grabcut takes boxes, not points")
        mask = tidy(found.mask)
        if not mask.any():
            return Rejected("no object found", f"nothing at box {box}, points {np.concatenate([on, off]).tolist()}")
        return self._kept(record, found._replace(mask=mask), self.params.backend)

    def _embedding(self, sam: Promptable, picture: RGB) -> Embedding:
        """The picture's embedding; the last ones are kept, as the prompts of one photo come one after another."""
        key = hashlib.sha256(str(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()).hexdigest()
        if key not in self.seen:
            self.seen[key] = sam.embed(picture)
        self.seen.move_to_end(key)
        while len(self.seen) > SEEN:
            self.seen.popitem(last=False)
        return self.seen[key]

    def _kept(self, record: Record, answer: Answer, backend: str) -> Kept:
        found = {
            "object_mask": answer.mask,
            "segment_score": float(answer.score),
            "segment_backend": backend,
            "segment_predicted_iou": answer.predicted_iou,
            "segment_alternatives": answer.alternatives,
            "segment_alternative_areas": answer.alternative_areas,
        }
        if record.get("foreground_mask") is not None:
            found["foreground_mask"] = record["foreground_mask"] | dilate(answer.mask, MARGIN)
        return Kept([record | found])
