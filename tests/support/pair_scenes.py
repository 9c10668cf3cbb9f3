"""Synthetic fixed-camera pairs with exact truth: an object on a textured floor, its soft shadow, a camera's faults."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.stages.audit import Audit, AuditParams
from rasura.stages.effects import Effects, EffectsParams
from rasura.stages.pair import Pair, PairParams
from rasura.stages.segment import Segment, SegmentParams
from rasura.stages.stage import Kept

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Scene:
    """A pair and its truth.

    Attributes:
        source, clean: (h, w, 3) uint8.
        object_mask, foreground_mask: (h, w) bool, M_o and M_fg.
        alpha: (h, w) float32, the shadow's true alpha.
    """

    source: Array
    clean: Array
    object_mask: Array
    foreground_mask: Array
    alpha: Array


def make_floor(
    height: int = 320, width: int = 400, seed: int = 0, colour: tuple[int, int, int] = (150, 140, 125)
) -> Array:
    """Make a floor with grain of several sizes that never repeats, (h, w, 3) float32."""
    rng = np.random.default_rng(seed)
    out = np.zeros((height, width), np.float32)
    for sigma, strength in ((1.2, 6.0), (4, 8.0), (15, 10.0)):
        grain = cv2.GaussianBlur(rng.normal(size=(height, width)).astype(np.float32), (0, 0), sigma)
        out += strength * grain / grain.std()
    return np.clip(np.array(colour, np.float32) + out[..., None], 5, 250)


def capture(picture: Array, rng: np.random.Generator, noise: float) -> Array:
    """Return a float picture as a camera records it: sensor noise, rounded to uint8."""
    return np.clip(np.rint(picture + rng.normal(0, noise, picture.shape)), 0, 255).astype(np.uint8)


def move_camera(picture: Array, dx: float, dy: float, turn: float = 0.0, zoom: float = 1.0) -> Array:
    """Return a float picture as seen by a camera that moved by dx, dy px, turned by degrees and zoomed."""
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), turn, zoom)
    matrix[:, 2] += (dx, dy)
    return cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101)


def make_scene(
    seed: int = 0,
    height: int = 320,
    width: int = 400,
    noise: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
    gain: float = 1.0,
    darkness: float = 0.45,
    grey: bool = False,
) -> Scene:
    """Make a red-striped blob on a floor with a shadow to its right; `clean` is shifted (px) and dimmed (gain)."""
    rng = np.random.default_rng(1000 + seed)
    background = make_floor(height, width, seed)
    if grey:
        background = np.repeat(background.mean(2, keepdims=True), 3, 2)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    size = min(height, width) / 6
    cx, cy = width * (0.35 + 0.1 * rng.random()), height * (0.4 + 0.15 * rng.random())
    shape = ((columns - cx) / size) ** 2 + ((rows - cy) / (1.3 * size)) ** 2 < 1
    dark = np.exp(
        -((((columns - cx - 1.4 * size) / (1.1 * size)) ** 2 + ((rows - cy - size) / (0.5 * size)) ** 2) ** 1.5)
    )
    alpha = (darkness * dark).astype(np.float32)
    stripes = np.where((columns + rows) % (size / 2) < size / 4, 1.0, 0.6)[..., None]
    colour = np.array((120, 120, 120) if grey else (200, 40, 50), np.float32) * stripes * (1.6 if grey else 1)
    coverage = cv2.GaussianBlur(shape.astype(np.float32), (0, 0), 0.6)[..., None]
    lit = background * (1 - alpha[..., None])
    source = coverage * colour + (1 - coverage) * lit
    effect = cv2.blur(background - lit, (5, 5)).max(2) > 5.1
    return Scene(
        capture(source, rng, noise),
        capture(move_camera(background, *shift) * gain, rng, noise),
        shape,
        shape | effect,
        alpha,
    )


def compute_iou(first: Array, second: Array) -> float:
    """Return the intersection over union of two masks."""
    return float((first & second).sum() / max(1, (first | second).sum()))


def freeze(picture: Array) -> Array:
    """Return a read-only copy, as the object store hands arrays out."""
    copy = picture.copy()
    copy.flags.writeable = False
    return copy


def audit_pair(source: Any, clean: Any, **columns: Any) -> dict[str, Any]:
    """Run a pair through `pair`, `effects`, `segment` with GrabCut, and `audit`; none of them may reject it."""
    record = {"id": "a", "input": freeze(source), "gt": freeze(clean)} | columns
    stages = (Pair(PairParams()), Effects(EffectsParams()), Segment(SegmentParams(backend="grabcut")))
    for stage in (*stages, Audit(AuditParams())):
        outcome = stage.process_one(record)
        assert isinstance(outcome, Kept)
        record = dict(outcome.records[0])
    return record
