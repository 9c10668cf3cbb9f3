"""Stage `segment`: the object mask M_o (`object_mask`), from the differences of a pair or a prompt on a photo."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from rasura.manifests.images import RGB, Mask
from rasura.manifests.schemas import Kind, Schema
from rasura.networks.memory import Library, NetworkMemory, count_parameters, estimate_memory
from rasura.networks.weights import Reference, Revision, find_single, list_files, resolve
from rasura.stages.imaging.mask_change import MIN_AGREEMENT, measure_mask_change, score_mask
from rasura.stages.imaging.morphology import dilate
from rasura.stages.segmenters.grabcut import cut_box
from rasura.stages.segmenters.object_of_pair import Box, segment_pair, tidy
from rasura.stages.segmenters.sam import Embedding, Floats, Promptable, build_prompt
from rasura.stages.stage import Kept, MissingColumns, Outcome, Params, Record, Rejected, Stage, get_picture_column

MARGIN = 2  # px by which M_fg extends over M_o: an object's rim is mixed with the background behind it
CACHED_EMBEDDINGS = 2  # pictures whose embeddings are kept


def clip_box(box: Any, shape: tuple[int, ...]) -> Box | None:
    """Round a box [x0, y0, x1, y1] outwards and clip it to a picture; None where less than 2 px are left.

    Args:
        box: px of the picture.
        shape: (h, w, …) of the picture.

    Examples:
        >>> clip_box([-3.2, 1.5, 40.1, 20], (30, 40, 3))
        (0, 1, 40, 20)
    """
    height, width = shape[:2]
    x0, y0 = max(0, int(np.floor(box[0]))), max(0, int(np.floor(box[1])))
    x1, y1 = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    return (x0, y0, x1, y1) if x1 - x0 >= 2 and y1 - y0 >= 2 else None


def parse_points(points: Any, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Return the points on and off the object, each (n, 2) x, y, that are inside a picture.

    Args:
        points: flat list x, y, 1 or 0 (on the object or not), x, y, … in px.
        shape: (h, w, …) of the picture.

    Raises:
        ValueError: not a multiple of three numbers, or a third one that is neither 1 nor 0.

    Examples:
        >>> on, off = parse_points([5, 6, 1, 20, 8, 0, 99, 5, 1], (30, 40, 3))
        >>> on.tolist(), off.tolist()
        ([[5.0, 6.0]], [[20.0, 8.0]])
    """
    numbers = np.asarray(points if points is not None else (), np.float32)
    if numbers.size % 3 or not np.isin(numbers[2::3], (0, 1)).all():
        raise ValueError(f"points have to be x, y and 1 or 0 in turn, not {numbers.tolist()[:9]}")
    rows = numbers.reshape(-1, 3)
    inside = (rows[:, :2] >= 0).all(axis=1) & (rows[:, 0] < shape[1]) & (rows[:, 1] < shape[0])
    rows = rows[inside]
    return rows[rows[:, 2] == 1, :2], rows[rows[:, 2] == 0, :2]


class Answer(NamedTuple):
    """A mask with its score, and the IoU that the segmenter predicts for it and its alternatives."""

    mask: Mask
    score: float
    predicted_iou: float | None = None
    alternatives: Sequence[float] | None = None
    alternative_areas: Sequence[float] | None = None


def predict_mask(sam: Promptable, embedding: Embedding, points: Floats, labels: Floats, answer: str) -> Answer:
    """Prompt a segmenter for a mask, with the predicted IoU of it and of all masks that it offers.

    Args:
        sam: the segmenter.
        embedding: of the picture.
        points: (n, 2) x, y of the prompt, px.
        labels: (n,) as `build_prompt` gives them.
        answer: `single`: the mask for prompts that are not ambiguous; `best`: of all masks the one of the highest
            predicted IoU; `auto`: best for a single point, which may mean a part, an object or a group, else single.
    """
    masks, predicted_ious = sam.prompt_all(embedding, points, labels)
    is_ambiguous = int((labels >= 0).sum()) == 1
    if answer == "best" or (answer == "auto" and is_ambiguous):
        best = int(np.argmax(predicted_ious))
        logits, iou = masks[best], float(predicted_ious[best])
    else:
        logits, iou = sam.prompt(embedding, points, labels)
    areas = [float((mask > 0).mean()) for mask in masks]
    return Answer(logits > 0, iou, iou, [float(predicted) for predicted in predicted_ious], areas)


class SegmentParams(Params):
    backend: Literal["sam-onnx", "sam", "sam2", "sam-hf", "grabcut"] = Field(
        "sam-onnx",
        description="Segmenter: a SAM in two ONNX files; SAM of segment-anything; SAM 2 or SAM of "
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
        description="On photos, of the masks that SAM offers: the one for unambiguous prompts (single), the one with "
        "the highest predicted IoU (best), or best for a single point and single for all else (auto).",
    )
    use_given: bool = Field(True, description="Use a pair's given_mask, where it has one, instead of segmenting.")


class Segment(Stage):
    """Segments M_o. Of a pair, M_fg is widened to contain it. A photo needs a column box, or points (x, y, 1 or 0, …).

    Examples:
        - segment: {backend: sam-onnx, encoder: models/sam-encoder.onnx, decoder: models/sam-decoder.onnx}
    """

    name = "segment"
    version = "8"
    gives = {
        "object_mask": Kind.MASK,
        "segment_score": Kind.FLOAT,
        "segment_backend": Kind.STRING,
        "segment_predicted_iou": Kind.FLOAT,
        "segment_alternatives": Kind.FLOATS,
        "segment_alternative_areas": Kind.FLOATS,
        "mask_change": Kind.FLOAT,  # share of the change that is in a mask that came with the pair
        "mask_changed": Kind.FLOAT,  # share of that mask that changed
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
        self.embeddings: OrderedDict[str, Embedding] = OrderedDict()

    def schema(self, columns: Schema) -> Schema:
        required = ("input", "gt", "foreground_mask") if get_picture_column(columns) == "input" else ("source",)
        missing = tuple(name for name in required if name not in columns)
        if get_picture_column(columns) == "source" and not {"box", "points"} & set(columns):
            missing = (*missing, "box (or points)")
        if missing:
            raise MissingColumns(self.name, missing, tuple(columns))
        return super().schema(columns)

    def weights(self) -> Mapping[str, Path]:
        params = self.params
        if params.backend == "sam-onnx":
            files = list_files("sam-encoder", params.encoder or "", params.revision)
            return files | list_files("sam-decoder", params.decoder or "", params.revision)
        return list_files(params.backend, params.weights, params.revision) if params.weights else {}

    def network_memory(self, batch_size: int) -> NetworkMemory | None:
        if self.params.backend == "grabcut":
            return None
        parameters = count_parameters(self.weights().values())
        # the attention over 64 by 64 tokens is the peak of a ViT; MobileSAM's is cut into windows
        elements = min(600_000_000, 100_000_000 + 4 * parameters)
        library: Library = "onnx" if self.params.backend == "sam-onnx" else "torch"
        return estimate_memory(parameters, elements, "float32", library=library)

    def setup(self) -> None:
        params = self.params
        match params.backend:
            case "sam-onnx":
                from rasura.stages.segmenters.sam_onnx import SamOnnx

                encoder, decoder = (resolve(name or "", params.revision) for name in (params.encoder, params.decoder))
                self.sam = SamOnnx(encoder, decoder)
            case "sam":
                from rasura.stages.segmenters.sam_original import SamTorch

                self.sam = SamTorch(find_single(resolve(params.weights or "", params.revision)))
            case "sam2" | "sam-hf":
                from rasura.stages.segmenters.sam_transformers import SamTransformers

                model = "sam2" if params.backend == "sam2" else "sam"
                self.sam = SamTransformers(resolve(params.weights or "", params.revision), model)

    def process_one(self, record: Record) -> Outcome:
        return self._segment_pair(record) if get_picture_column(record) == "input" else self._segment_photo(record)

    def _segment_pair(self, record: Record) -> Outcome:
        if self.params.use_given and record.get("given_mask") is not None:
            return self._use_mask(record, record["given_mask"])
        source, clean, foreground = record["input"], record["gt"], record["foreground_mask"]
        mask, score = segment_pair(source, clean, foreground, record.get("pair_noise") or 0.0, self.sam)
        if not mask.any():
            return Rejected("no object found", "nothing inside foreground_mask is an object")
        return self._make_outcome(record, Answer(mask, score), self.params.backend)

    def _use_mask(self, record: Record, mask: Mask) -> Outcome:
        """Take the mask that came with a pair, with a score by what changed; never segment in its place."""
        if not mask.any():
            return Rejected("empty mask", "given_mask marks nothing")
        measured = measure_mask_change(mask, record["foreground_mask"])
        if measured.agreement < MIN_AGREEMENT:
            return Rejected(
                "mask explains no change",
                f"{measured.changed:.1%} of the mask changed, {measured.change:.1%} of the change is in it",
            )
        record = record | {"mask_change": measured.change, "mask_changed": measured.changed}
        return self._make_outcome(record, Answer(mask, score_mask(measured)), "given")

    def _segment_photo(self, record: Record) -> Outcome:
        picture = record["source"]
        box = None if record.get("box") is None else clip_box(record["box"], picture.shape)
        on, off = parse_points(record.get("points"), picture.shape)
        if box is None and not len(on):
            return Rejected("no object found", f"box {record.get('box')}, points {record.get('points')}")
        if self.sam is not None:
            prompt = build_prompt(on, off, box)
            answer = predict_mask(self.sam, self._get_embedding(self.sam, picture), *prompt, self.params.answer)
        elif box is not None:
            mask = cut_box(picture, box)
            answer = Answer(mask, float(mask.sum() / ((box[2] - box[0]) * (box[3] - box[1]))))
        else:
            return Rejected("no box", "grabcut takes boxes, not points")
        mask = tidy(answer.mask)
        if not mask.any():
            return Rejected("no object found", f"nothing at box {box}, points {np.concatenate([on, off]).tolist()}")
        return self._make_outcome(record, answer._replace(mask=mask), self.params.backend)

    def _get_embedding(self, sam: Promptable, picture: RGB) -> Embedding:
        """Return the picture's embedding; the latest ones are kept, as the records of one photo follow each other."""
        key = hashlib.sha256(str(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()).hexdigest()
        if key not in self.embeddings:
            self.embeddings[key] = sam.encode(picture)
        self.embeddings.move_to_end(key)
        while len(self.embeddings) > CACHED_EMBEDDINGS:
            self.embeddings.popitem(last=False)
        return self.embeddings[key]

    def _make_outcome(self, record: Record, answer: Answer, backend: str) -> Kept:
        columns = {
            "object_mask": answer.mask,
            "segment_score": float(answer.score),
            "segment_backend": backend,
            "segment_predicted_iou": answer.predicted_iou,
            "segment_alternatives": answer.alternatives,
            "segment_alternative_areas": answer.alternative_areas,
        }
        if record.get("foreground_mask") is not None:
            columns["foreground_mask"] = record["foreground_mask"] | dilate(answer.mask, MARGIN)
        return Kept([record | columns])
