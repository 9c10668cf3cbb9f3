"""What is in a picture and where: YOLOX through ONNX.

On photos every detection becomes a record of its own; on pairs the detection that fits the object mask names it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from manifests.ids import child_id
from manifests.schemas import Kind, Schema
from stages import stage
from stages.onnx import network
from stages.stage import Kept, Outcome, Record, Stage, picture_column

Array = npt.NDArray[Any]

STRIDES = (8, 16, 32)
PAD = 114  # grey around the letterboxed picture, as in YOLOX's training
_NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,"
    "wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,"
    "chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,"
    "toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
COCO = tuple(_NAMES.split(","))


class Detection(NamedTuple):
    """One object: COCO name, confidence 0-1, box x0, y0, x1, y1 in pixels of the picture."""

    label: str
    score: float
    box: tuple[float, float, float, float]


def letterbox(picture: Array, height: int, width: int) -> tuple[Array, float]:
    """The network's input (1, 3, height, width) float32, BGR 0-255, of an RGB picture, and the scale it was made with.

    The picture stands in the upper left corner; the rest is grey.
    """
    scale = min(height / picture.shape[0], width / picture.shape[1])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    canvas = np.full((height, width, 3), PAD, np.float32)
    canvas[: small.shape[0], : small.shape[1]] = small[..., ::-1]
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None]), scale


def decode(output: Array, height: int, width: int) -> tuple[Array, Array]:
    """Boxes (n, 4) x0, y0, x1, y1 in input pixels and class scores (n, 80) out of YOLOX's raw rows.

    `output` is (n, 85): centre offsets and log sizes in units of the cell, objectness, classes (both after sigmoid).
    centre = (offset + cell) * stride, size = exp(log size) * stride; the rows run over the strides 8, 16, 32 in turn.

    Raises:
        ValueError: the rows do not belong to an input of this size.
    """
    cells, strides = [], []
    for stride in STRIDES:
        ys, xs = np.mgrid[0 : height // stride, 0 : width // stride]
        cells.append(np.stack([xs.ravel(), ys.ravel()], axis=1))
        strides.append(np.full(xs.size, stride))
    cell, step = np.concatenate(cells), np.concatenate(strides)[:, None]
    if output.ndim != 2 or output.shape != (len(cell), 5 + len(COCO)):
        raise ValueError(
            f"the network gave {output.shape}, a YOLOX for {width} x {height} gives ({len(cell)}, {5 + len(COCO)})"
        )
    centre = (output[:, :2] + cell) * step
    half = np.exp(np.minimum(output[:, 2:4], 20)) * step / 2  # exp(20) cells is beyond every picture
    return np.hstack([centre - half, centre + half]), output[:, 4:5] * output[:, 5:]


def iou(box: Array, others: Array) -> Array:
    """Intersection over union of one box (4,) with others (n, 4)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    overlap = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1) + float(np.prod(box[2:] - box[:2]))
    return np.asarray(overlap / np.maximum(areas - overlap, 1e-9))


def suppress(boxes: Array, scores: Array, limit: float) -> list[int]:
    """Indices that stay after non-maximum suppression, best first. Ties keep the order of the rows."""
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order):
        best, rest = int(order[0]), order[1:]
        kept.append(best)
        order = rest[iou(boxes[best], boxes[rest]) <= limit]
    return kept


def detections(
    output: Array, shape: tuple[int, int], scale: float, size: tuple[int, int], min_score: float, nms: float
) -> list[Detection]:
    """Objects in a picture, best first.

    Args:
        output: (n, 85) raw rows. shape: (height, width) of the network's input. scale: input px per picture px.
        size: (height, width) of the picture. nms: IoU above which the weaker box of one class goes.
    """
    boxes, scores = decode(output, *shape)
    boxes = np.clip(boxes / scale, 0, [size[1], size[0], size[1], size[0]])
    best, value = scores.argmax(axis=1), scores.max(axis=1)
    solid = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) >= 1
    found = []
    for label in np.unique(best[(value >= min_score) & solid]).tolist():
        rows = np.flatnonzero((best == label) & (value >= min_score) & solid)
        for k in suppress(boxes[rows], value[rows], nms):
            x0, y0, x1, y1 = (float(v) for v in boxes[rows[k]])
            found.append(Detection(COCO[label], float(value[rows[k]]), (x0, y0, x1, y1)))
    return sorted(found, key=lambda d: (-d.score, d.label, d.box))


def fit_to_mask(found: Sequence[Detection], mask: Array) -> Detection | None:
    """The detection that overlaps the mask's box best, IoU times confidence, of those with IoU 0.3; or None.

    Boxes of two classes on one object differ by a pixel, so IoU alone would draw lots between their names.
    A mask of several parts is a mask of several objects: the largest part is taken.
    """
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count < 2 or not found:
        return None
    x, y, width, height, _ = stats[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))]
    overlaps = iou(np.array([x, y, x + width, y + height], float), np.array([d.box for d in found]))
    best = int(np.argmax((overlaps >= 0.3) * overlaps * [d.score for d in found]))
    return found[best] if overlaps[best] >= 0.3 else None


class DetectParams(stage.Params):
    backend: Literal["yolox-onnx"] = Field("yolox-onnx", description="Kind of network.")
    weights: Path = Field(description="The network, an .onnx file with raw (not decoded) outputs.")
    min_score: float = Field(0.1, ge=0, le=1, description="Detections below are noise; `select` sets the real limit.")
    nms: float = Field(0.45, gt=0, le=1, description="IoU above which the weaker of two boxes of one class goes.")
    include: tuple[str, ...] = Field((), description="COCO names that are wanted; empty: all.")
    exclude: tuple[str, ...] = Field((), description="COCO names that are not wanted.")
    max_per_photo: int = Field(10, ge=1, description="Detections of one photo at most, the best ones.")


class Detect(Stage):
    """Finds objects: one record a detection for photos, a label for pairs."""

    name = "detect"
    gives: ClassVar[Schema] = {"label": Kind.STRING, "box": Kind.FLOATS, "detect_score": Kind.FLOAT}
    Params = DetectParams

    def __init__(self, params: Any, seed: int = 0) -> None:
        super().__init__(params, seed)
        if unknown := sorted({*params.include, *params.exclude} - set(COCO)):
            raise ValueError(f"no COCO classes: {', '.join(unknown)}; the names are {', '.join(COCO)}")

    def schema(self, given: Schema) -> Schema:
        if not {"input", "source"} & set(given):
            raise stage.MissingColumns(self.name, ("source",), tuple(given))
        return super().schema(given)

    def weights(self) -> dict[str, Path]:
        return {"yolox": self.params.weights}

    def setup(self) -> None:
        self.session = network(self.params.weights)
        self.input = self.session.get_inputs()[0]
        self.shape = tuple(self.input.shape[2:])
        if len(self.shape) != 2 or not all(isinstance(side, int) for side in self.shape):
            raise ValueError(f"{self.params.weights}: input {self.input.shape} has no fixed height and width")

    def find(self, picture: Array) -> list[Detection]:
        """Wanted detections of an RGB picture, best first."""
        values, scale = letterbox(picture, *self.shape)
        output = self.session.run(None, {self.input.name: values})[0][0]
        found = detections(output, self.shape, scale, picture.shape[:2], self.params.min_score, self.params.nms)
        include, exclude = self.params.include, self.params.exclude
        return [d for d in found if (not include or d.label in include) and d.label not in exclude]

    def process_one(self, record: Record) -> Outcome:
        found = self.find(record[picture_column(record)])
        if record.get("object_mask") is not None:
            best = fit_to_mask(found, record["object_mask"])
            label, score, box = (best.label, best.score, list(best.box)) if best else (None, None, None)
            return Kept([record | {"label": label, "detect_score": score, "box": box}])
        return Kept(
            [
                record
                | {"id": child_id(record["id"], f"{k:02d}")}
                | {"label": d.label, "box": list(d.box), "detect_score": d.score}
                for k, d in enumerate(found[: self.params.max_per_photo])
            ]
        )
