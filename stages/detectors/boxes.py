"""Boxes around things: what every detector gives, and the arithmetic on it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import RGB, Mask

Array = npt.NDArray[Any]


class Detection(NamedTuple):
    """One object: its class, confidence 0-1, box x0, y0, x1, y1 in pixels of the picture."""

    label: str
    score: float
    box: tuple[float, float, float, float]


class Detector(Protocol):
    """A network that finds things. Built once a worker."""

    batches: bool
    """Whether several pictures at once are faster than one after another."""

    def find(self, pictures: Sequence[RGB]) -> list[list[Detection]]:
        """What is in each picture, boxes inside it, in any order, before suppression."""
        ...


def by_size(pictures: Sequence[RGB], find: Callable[[list[RGB]], list[list[Detection]]]) -> list[list[Detection]]:
    """Detections in pictures of any sizes, by a `find` that takes those of one size together.

    Padding one picture to another's size would change what a network sees, so that it depended on its neighbours.
    """
    found: list[list[Detection]] = [[] for _ in pictures]
    for shape in sorted({picture.shape for picture in pictures}):
        places = [k for k, picture in enumerate(pictures) if picture.shape == shape]
        for k, some in zip(places, find([pictures[k] for k in places]), strict=True):
            found[k] = some
    return found


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


def strongest(found: Sequence[Detection], nms: float, across: float = 1.0) -> list[Detection]:
    """Detections, best first, without those that overlap a stronger one too much.

    Args:
        nms: IoU above which the weaker of two boxes of one class goes.
        across: the same for two classes: above it they are one object, seen as a cat and as a dog.
    """
    kept: list[Detection] = []
    for label in sorted({one.label for one in found}):
        kept += _suppressed([one for one in found if one.label == label], nms)
    return _suppressed(kept, across)


def _suppressed(found: Sequence[Detection], limit: float) -> list[Detection]:
    best = sorted(found, key=lambda d: (-d.score, d.label, d.box))
    boxes = np.array([one.box for one in best], float).reshape(-1, 4)
    return [best[k] for k in suppress(boxes, np.array([one.score for one in best]), limit)]


def fit_to_mask(found: Sequence[Detection], mask: Mask) -> Detection | None:
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


def box_area(box: Sequence[float], size: tuple[int, int]) -> float:
    """Share of a picture of (height, width) that a box covers."""
    return float((box[2] - box[0]) * (box[3] - box[1]) / (size[0] * size[1]))


def box_cut(box: Sequence[float], size: tuple[int, int], px: float = 1.0) -> float:
    """Share of a box's outline that lies within `px` of the border of a picture of (height, width).

    0 for an object that is seen whole; a quarter or so for one that the frame cuts on one side.
    """
    wide, high = box[2] - box[0], box[3] - box[1]
    upright = (box[0] <= px) + (box[2] >= size[1] - px)
    level = (box[1] <= px) + (box[3] >= size[0] - px)
    return float((upright * high + level * wide) / max(2 * (wide + high), 1e-9))


def clipped(boxes: Array, size: tuple[int, int]) -> Array:
    """Boxes (n, 4) cut to a picture of (height, width)."""
    return np.clip(boxes, 0, [size[1], size[0], size[1], size[0]])
