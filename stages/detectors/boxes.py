"""Boxes around objects: the result of every detector, and the arithmetic on it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import RGB, Mask

Array = npt.NDArray[Any]


class Detection(NamedTuple):
    """One object: its class, its confidence from 0 to 1, and its box x0, y0, x1, y1 in pixels of the picture."""

    label: str
    score: float
    box: tuple[float, float, float, float]


class Detector(Protocol):
    """A network that finds objects. It is opened once a worker."""

    batches: bool
    """Whether several pictures at once are faster than one after another."""

    def find(self, pictures: Sequence[RGB]) -> list[list[Detection]]:
        """Find the objects of each picture, boxes inside it, in any order, before suppression."""
        ...


def detect_by_size(
    pictures: Sequence[RGB], find: Callable[[list[RGB]], list[list[Detection]]]
) -> list[list[Detection]]:
    """Find objects in pictures of any sizes, by a function that takes pictures of one size.

    Padding one picture to another's size would change what a network sees, so that it depended on its neighbours.
    """
    detections: list[list[Detection]] = [[] for _ in pictures]
    for shape in sorted({picture.shape for picture in pictures}):
        indices = [k for k, picture in enumerate(pictures) if picture.shape == shape]
        for k, entry in zip(indices, find([pictures[k] for k in indices]), strict=True):
            detections[k] = entry
    return detections


def compute_iou(box: Array, others: Array) -> Array:
    """Compute the intersection over union of one box (4,) with others (n, 4): (n,).

    Examples:
        >>> compute_iou(np.array([0, 0, 2, 2]), np.array([[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6]])).round(2).tolist()
        [1.0, 0.33, 0.0]
    """
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    overlap = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1) + float(np.prod(box[2:] - box[:2]))
    return np.asarray(overlap / np.maximum(areas - overlap, 1e-9))


def suppress(boxes: Array, scores: Array, limit: float) -> list[int]:
    """Return the indices that non-maximum suppression keeps, best first. Ties keep the order of the rows.

    Args:
        boxes: (n, 4) x0, y0, x1, y1.
        scores: (n,).
        limit: IoU with a better box above which a box is removed.

    Examples:
        >>> suppress(np.array([[0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 30, 30]]), np.array([0.5, 0.9, 0.3]), 0.5)
        [1, 2]
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order):
        best, rest = int(order[0]), order[1:]
        kept.append(best)
        order = rest[compute_iou(boxes[best], boxes[rest]) <= limit]
    return kept


def keep_strongest(detections: Sequence[Detection], nms: float, across: float = 1.0) -> list[Detection]:
    """Return the detections, best first, without those that overlap a stronger one too much.

    Args:
        detections: of one picture.
        nms: IoU above which the weaker of two boxes of one class is removed.
        across: the same for two classes: above it they are one object, for example a cat that looks like a dog.

    Examples:
        >>> cat, dog = Detection("cat", 0.8, (0, 0, 10, 10)), Detection("dog", 0.6, (0, 0, 10, 10))
        >>> [detection.label for detection in keep_strongest([dog, cat], 0.45, 0.9)]
        ['cat']
    """
    kept: list[Detection] = []
    for label in sorted({detection.label for detection in detections}):
        kept += _suppress_detections([detection for detection in detections if detection.label == label], nms)
    return _suppress_detections(kept, across)


def _suppress_detections(detections: Sequence[Detection], limit: float) -> list[Detection]:
    best = sorted(detections, key=lambda d: (-d.score, d.label, d.box))
    boxes = np.array([detection.box for detection in best], float).reshape(-1, 4)
    return [best[k] for k in suppress(boxes, np.array([detection.score for detection in best]), limit)]


def match_to_mask(detections: Sequence[Detection], mask: Mask) -> Detection | None:
    """Return the detection that fits a mask's box best, by IoU times confidence, or None where no IoU reaches 0.3.

    Boxes of two classes on one object differ by a pixel, so IoU alone would choose between their names by chance.
    A mask of several parts is a mask of several objects: the largest part is taken.
    """
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count < 2 or not detections:
        return None
    x, y, width, height, _ = stats[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))]
    return match_to_box(detections, (x, y, x + width, y + height))


def match_to_box(detections: Sequence[Detection], box: Sequence[float]) -> Detection | None:
    """Return the detection that fits a box best, by IoU times confidence, or None where no IoU reaches 0.3.

    Examples:
        >>> match_to_box([Detection("cat", 0.8, (0, 0, 10, 10)), Detection("dog", 0.9, (50, 0, 60, 9))], (1, 0, 9, 10))
        Detection(label='cat', score=0.8, box=(0, 0, 10, 10))
    """
    if not detections:
        return None
    overlaps = compute_iou(np.array(box, float), np.array([detection.box for detection in detections], float))
    best = int(np.argmax((overlaps >= 0.3) * overlaps * [detection.score for detection in detections]))
    return detections[best] if overlaps[best] >= 0.3 else None


def measure_box_area(box: Sequence[float], size: tuple[int, int]) -> float:
    """Return the share of a picture of (height, width) that a box covers.

    Examples:
        >>> measure_box_area((0, 0, 50, 20), (100, 100))
        0.1
    """
    return float((box[2] - box[0]) * (box[3] - box[1]) / (size[0] * size[1]))


def measure_box_cut(box: Sequence[float], size: tuple[int, int], px: float = 1.0) -> float:
    """Return the share of a box's outline that is within `px` of the border of a picture of (height, width).

    It is 0 for an object that is entirely visible, and about a quarter for one that the frame cuts on one side.

    Examples:
        >>> measure_box_cut((0, 20, 40, 60), (100, 100))
        0.25
    """
    wide, high = box[2] - box[0], box[3] - box[1]
    upright = (box[0] <= px) + (box[2] >= size[1] - px)
    level = (box[1] <= px) + (box[3] >= size[0] - px)
    return float((upright * high + level * wide) / max(2 * (wide + high), 1e-9))


def clip_boxes(boxes: Array, size: tuple[int, int]) -> Array:
    """Clip boxes (n, 4) to a picture of (height, width)."""
    return np.clip(boxes, 0, [size[1], size[0], size[1], size[0]])
