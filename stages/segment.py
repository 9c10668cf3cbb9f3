"""Stage `segment`: the object mask M_o: from what differs in a pair (`object_mask`), or from a box on a photo."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from manifests.images import RGB, Mask
from manifests.schemas import Kind, Schema
from stages.effects import difference, object_core
from stages.grabcut import cut_box
from stages.object_mask import Box, cut_from_core, sam_from_core, tidy, with_parts
from stages.pair import dilate
from stages.sam_onnx import Embedding, SamOnnx, points_prompt
from stages.stage import Kept, MissingColumns, Outcome, Params, Record, Rejected, Stage, picture_column

MARGIN = 2  # px by which M_fg reaches over M_o: an object's rim is mixed with what lies behind it


def within(box: Any, shape: tuple[int, ...]) -> Box | None:
    """A float box [x0, y0, x1, y1] as whole pixels inside a picture; None where less than 2 px are left."""
    height, width = shape[:2]
    x0, y0 = max(0, int(np.floor(box[0]))), max(0, int(np.floor(box[1])))
    x1, y1 = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    return (x0, y0, x1, y1) if x1 - x0 >= 2 and y1 - y0 >= 2 else None


class SegmentParams(Params):
    backend: Literal["sam-onnx", "grabcut"] = Field("sam-onnx", description="What draws the mask.")
    encoder: Path | None = Field(None, description="ONNX file of the SAM encoder (sam-onnx).")
    decoder: Path | None = Field(None, description="ONNX file of the SAM decoder (sam-onnx).")
    use_given: bool = Field(True, description="Take a pair's given_mask, where it has one, instead of drawing one.")


class Segment(Stage):
    """Finds M_o. Of a pair, M_fg is widened to hold it."""

    name = "segment"
    gives = {"object_mask": Kind.MASK, "segment_score": Kind.FLOAT, "segment_backend": Kind.STRING}
    Params = SegmentParams

    def __init__(self, params: Any, seed: int = 0) -> None:
        super().__init__(params, seed)
        if params.backend == "sam-onnx" and not (params.encoder and params.decoder):
            raise ValueError("stage 'segment' with backend 'sam-onnx' needs the parameters encoder and decoder")
        self.sam: SamOnnx | None = None
        self.seen: tuple[str, Embedding] | None = None

    def schema(self, given: Schema) -> Schema:
        wanted = ("input", "gt", "foreground_mask") if picture_column(given) == "input" else ("source", "box")
        if missing := tuple(name for name in wanted if name not in given):
            raise MissingColumns(self.name, missing, tuple(given))
        return super().schema(given)

    def weights(self) -> Mapping[str, Path]:
        if self.params.backend != "sam-onnx":
            return {}
        return {"sam-encoder": self.params.encoder, "sam-decoder": self.params.decoder}

    def setup(self) -> None:
        if self.params.backend == "sam-onnx":
            self.sam = SamOnnx(self.params.encoder, self.params.decoder)

    def process_one(self, record: Record) -> Outcome:
        return self._pair(record) if picture_column(record) == "input" else self._photo(record)

    def _pair(self, record: Record) -> Outcome:
        source, clean, foreground = record["input"], record["gt"], record["foreground_mask"]
        given = record.get("given_mask") if self.params.use_given else None
        if given is not None and given.any():
            mask, score, backend = given, 1.0, "given"
        else:
            noise = record.get("pair_noise") or 0.0
            core, tinted = object_core(source, clean, foreground, noise)
            strength = difference(source, clean)
            if not core.any():  # nothing but what a shadow could be: the strongest half of it
                core = tinted = foreground & (strength >= 0.5 * float(strength[foreground].max(initial=0)))
            if not core.any():
                return Rejected("no object found", "nothing differs inside foreground_mask")
            backend = self.params.backend
            if self.sam is not None:
                mask, score = sam_from_core(self.sam, source, core, foreground, tinted, strength)
                mask = tidy(with_parts(mask, cut_from_core(source, core, foreground, tinted, strength)[0]), core)
            else:
                mask, score = cut_from_core(source, core, foreground, tinted, strength)
        return self._kept(record, mask, score, backend) or Rejected("no object found", "the mask is empty")

    def _photo(self, record: Record) -> Outcome:
        picture = record["source"]
        box = None if record.get("box") is None else within(record["box"], picture.shape)
        if box is None:
            return Rejected("no object found", f"box {record.get('box')}")
        score = 0.0
        if self.sam is not None:
            logits, score = self.sam.prompt(self._embedding(self.sam, picture), *points_prompt(box=box))
            mask = logits > 0
        else:
            mask = cut_box(picture, box)
            score = float(mask.sum() / ((box[2] - box[0]) * (box[3] - box[1])))
        found = self._kept(record, tidy(mask), score, self.params.backend)
        return found or Rejected("no object found", f"nothing in box {list(box)}")

    def _embedding(self, sam: SamOnnx, picture: RGB) -> Embedding:
        """The picture's embedding; the last one is kept, as the objects of one photo come one after another."""
        key = hashlib.sha256(str(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()).hexdigest()
        if self.seen is None or self.seen[0] != key:
            self.seen = key, sam.embed(picture)
        return self.seen[1]

    def _kept(self, record: Record, mask: Mask, score: float, backend: str) -> Kept | None:
        if not mask.any():
            return None
        found = {"object_mask": mask, "segment_score": float(score), "segment_backend": backend}
        if "foreground_mask" in record and record["foreground_mask"] is not None:
            found["foreground_mask"] = record["foreground_mask"] | dilate(mask, MARGIN)
        return Kept([record | found])
