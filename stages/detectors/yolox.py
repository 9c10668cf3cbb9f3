"""YOLOX through ONNX: 80 COCO classes."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from rasura.manifests.images import RGB
from rasura.networks.onnx import open_session
from rasura.networks.weights import BadWeights
from rasura.stages.detectors.boxes import Array, Detection, clip_boxes
from rasura.stages.detectors.classes import COCO

STRIDES = (8, 16, 32)
PAD = 114  # grey around the letterboxed picture, as in YOLOX's training


def letterbox(picture: RGB, height: int, width: int) -> tuple[Array, float]:
    """Return the network's input (1, 3, height, width) float32, BGR 0-255, of an RGB picture, and its scale.

    The picture is in the upper left corner; the rest is grey.

    Examples:
        >>> values, scale = letterbox(np.zeros((100, 200, 3), np.uint8), 64, 64)
        >>> values.shape, scale, float(values[0, 0, 40, 0])
        ((1, 3, 64, 64), 0.32, 114.0)
    """
    scale = min(height / picture.shape[0], width / picture.shape[1])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    canvas = np.full((height, width, 3), PAD, np.float32)
    canvas[: small.shape[0], : small.shape[1]] = small[..., ::-1]
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None]), scale


def decode(output: Array, height: int, width: int) -> tuple[Array, Array]:
    """Decode YOLOX's raw rows.

    centre = (offset + cell) * stride, size = exp(log size) * stride; the rows run over the strides 8, 16, 32 in turn.

    Args:
        output: (n, 85): centre offsets and log sizes in units of the cell, objectness, classes (both after sigmoid).
        height: of the network's input, px.
        width: of the network's input, px.

    Returns:
        Boxes (n, 4) x0, y0, x1, y1 in input pixels, and class scores (n, 80).

    Raises:
        BadWeights: the number of rows does not fit an input of this size.
    """
    cells, strides = [], []
    for stride in STRIDES:
        ys, xs = np.mgrid[0 : height // stride, 0 : width // stride]
        cells.append(np.stack([xs.ravel(), ys.ravel()], axis=1))
        strides.append(np.full(xs.size, stride))
    cell, step = np.concatenate(cells), np.concatenate(strides)[:, None]
    if output.ndim != 2 or output.shape != (len(cell), 5 + len(COCO)):
        raise BadWeights(
            f"the network's output is {output.shape}; that of a YOLOX for {width} x {height} is "
            f"({len(cell)}, {5 + len(COCO)})"
        )
    centre = (output[:, :2] + cell) * step
    half = np.exp(np.minimum(output[:, 2:4], 20)) * step / 2  # exp(20) cells is beyond every picture
    return np.hstack([centre - half, centre + half]), output[:, 4:5] * output[:, 5:]


def decode_detections(
    output: Array, shape: tuple[int, int], scale: float, size: tuple[int, int], min_score: float
) -> list[Detection]:
    """Decode the objects in a picture: one a row, with its best class.

    Args:
        output: (n, 85) raw rows.
        shape: (height, width) of the network's input.
        scale: input px per picture px.
        size: (height, width) of the picture.
        min_score: rows with a lower score are left out.
    """
    boxes, scores = decode(output, *shape)
    boxes = clip_boxes(boxes / scale, size)
    best, value = scores.argmax(axis=1), scores.max(axis=1)
    solid = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) >= 1
    rows = np.flatnonzero((value >= min_score) & solid)
    return [Detection(COCO[best[k]], float(value[k]), (*(float(v) for v in boxes[k]),)) for k in rows]  # type: ignore[arg-type]


class YoloxOnnx:
    """A YOLOX in one ONNX file with raw (not decoded) outputs and a fixed input size."""

    batches = False  # exports have a batch of one

    def __init__(self, path: Path, min_score: float) -> None:
        self.session = open_session(path)
        self.input = self.session.get_inputs()[0]
        self.min_score = min_score
        shape, output = list(self.input.shape), list(self.session.get_outputs()[0].shape)
        fixed = len(shape) == 4 and shape[1] == 3 and all(isinstance(side, int) for side in shape[2:])
        rows = sum((shape[2] // stride) * (shape[3] // stride) for stride in STRIDES) if fixed else 0
        if not fixed or output[1:] != [rows, 5 + len(COCO)]:
            expected = f"(1, 3, h, w) to (1, n, {5 + len(COCO)})"
            raise BadWeights(f"'{path}' turns {shape} into {output}, not {expected}: no YOLOX export of a fixed size")
        self.shape = (int(shape[2]), int(shape[3]))

    def find(self, pictures: Sequence[RGB]) -> list[list[Detection]]:
        return [self._detect(picture) for picture in pictures]

    def _detect(self, picture: RGB) -> list[Detection]:
        values, scale = letterbox(picture, *self.shape)
        output = self.session.run(None, {self.input.name: values})[0][0]
        return decode_detections(output, self.shape, scale, picture.shape[:2], self.min_score)
