"""Candidates that are wrong on purpose, each with the reason a person would give: hard negatives.

RORem's discriminator was trained on "30K human-annotated samples, supplemented with augmented data"; the recipe was
not released. These are the failures it names (object left, hallucination, blur) and the ones reviewers meet besides.
All functions take and give (h, w, 3) uint8 and (h, w) bool, and draw from the generator they are given.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Rng = np.random.Generator


class Case(NamedTuple):
    """What a candidate can be made of. `truth` is a good answer: the clean picture, or an accepted candidate.

    effects: shadow and reflection beyond the mask, or None where unknown. other: another picture of any size.
    """

    source: Array
    truth: Array
    mask: Array
    effects: Array | None
    other: Array


def _inside(base: Array, change: Array, mask: Array, soft: float = 1.0) -> Array:
    """`change` inside the mask with a rim of `soft` px, `base` elsewhere, bit-exact beyond the rim's reach."""
    weight = mask.astype(np.float32)
    if soft > 0:
        weight = np.where(mask, np.clip(cv2.GaussianBlur(weight, (0, 0), soft) * 2 - 1, 0, 1), 0).astype(np.float32)
        weight = np.maximum(weight, 0)
    mixed = change.astype(np.float32) * weight[..., None] + base.astype(np.float32) * (1 - weight[..., None])
    return np.rint(mixed).astype(np.uint8)


def object_left(case: Case, rng: Rng) -> Array:
    """Nothing was removed."""
    return case.source.copy()


def ghost(case: Case, rng: Rng) -> Array:
    """A pale remnant of the object, 20 to 60 % of it."""
    share = rng.uniform(0.2, 0.6)
    mixed = case.truth * (1 - share) + case.source * share
    return np.where(case.mask[..., None], np.rint(mixed), case.truth).astype(np.uint8)


def part_left(case: Case, rng: Rng) -> Array:
    """The object cut along a line, one side still there."""
    ys, xs = np.nonzero(case.mask)
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * np.arange(case.mask.shape[1])[None] + np.sin(angle) * np.arange(case.mask.shape[0])[:, None]
    cut = np.quantile(along[ys, xs], rng.uniform(0.4, 0.75))
    return np.where((case.mask & (along > cut))[..., None], case.source, case.truth).astype(np.uint8)


def hallucination(case: Case, rng: Rng) -> Array:
    """Something that belongs elsewhere stands in the hole: an ellipse out of another picture."""
    ys, xs = np.nonzero(case.mask)
    height, width = case.mask.shape
    blob = np.zeros((height, width), np.uint8)
    span = max(3.0, np.sqrt(len(ys)))
    axes = (max(2, round(span * rng.uniform(0.25, 0.5))), max(2, round(span * rng.uniform(0.25, 0.5))))
    at = int(rng.integers(len(ys)))
    cv2.ellipse(blob, (int(xs[at]), int(ys[at])), axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    patch = _cropped(case.other, height, width, rng)
    return _inside(case.truth, patch, (blob > 0) & case.mask)


def wrong_patch(case: Case, rng: Rng) -> Array:
    """The hole filled with another picture."""
    return _inside(case.truth, _cropped(case.other, case.mask.shape[0], case.mask.shape[1], rng), case.mask)


def blurred(case: Case, rng: Rng) -> Array:
    """A fill without texture, its strength by the hole's size."""
    sigma = rng.uniform(0.06, 0.15) * np.sqrt(case.mask.sum()) + 1
    return _inside(case.truth, cv2.GaussianBlur(case.truth, (0, 0), sigma), case.mask)


def shadow_left(case: Case, rng: Rng) -> Array:
    """The object is gone, its shadow and reflection are not; nothing is made where effects are unknown."""
    assert case.effects is not None
    return np.where((case.effects & ~case.mask)[..., None], case.source, case.truth).astype(np.uint8)


def outside_changed(case: Case, rng: Rng) -> Array:
    """A right fill, and a patch of the picture beside it that is another now: shifted, tinted or smeared."""
    height, width = case.mask.shape
    side = max(4, round(min(height, width) * rng.uniform(0.15, 0.35)))
    y, x = int(rng.integers(max(1, height - side))), int(rng.integers(max(1, width - side)))
    here = np.zeros_like(case.mask)
    here[y : y + side, x : x + side] = True
    kind = int(rng.integers(3))
    if kind == 0:
        change = np.roll(case.truth, (int(rng.integers(3, 3 + side)), int(rng.integers(3, 3 + side))), (0, 1))
    elif kind == 1:
        change = np.clip(case.truth * rng.uniform(0.6, 1.4, 3), 0, 255)
    else:
        change = cv2.GaussianBlur(case.truth, (0, 0), side / 5)
    return _inside(case.truth, np.asarray(change), here & ~case.mask)


def _cropped(picture: Array, height: int, width: int, rng: Rng) -> Array:
    """A random part of another picture, mirrored half of the time, grown where it is too small."""
    scale = max(1.0, height / picture.shape[0], width / picture.shape[1])
    if scale > 1:
        size = (int(np.ceil(picture.shape[1] * scale)), int(np.ceil(picture.shape[0] * scale)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR))
    y = int(rng.integers(picture.shape[0] - height + 1))
    x = int(rng.integers(picture.shape[1] - width + 1))
    part = picture[y : y + height, x : x + width]
    return np.ascontiguousarray(part[:, ::-1] if rng.random() < 0.5 else part)


FAILURES: Mapping[str, tuple[Callable[[Case, Rng], Array], str]] = {
    "object left": (object_left, "object"),
    "ghost": (ghost, "object"),
    "part left": (part_left, "object"),
    "hallucination": (hallucination, "hallucinated"),
    "wrong patch": (wrong_patch, "hallucinated"),
    "blur": (blurred, "seam"),
    "shadow left": (shadow_left, "shadow"),
    "outside changed": (outside_changed, "outside"),
}
"""Name to function and the reason a reviewer would give."""


def possible(case: Case) -> list[str]:
    """Failures that can be made of a case: a shadow can only be left where one is known and visible."""
    names = [name for name in FAILURES if name != "shadow left"]
    if case.effects is not None:
        beyond = case.effects & ~case.mask
        seen = beyond.any() and np.abs(case.source[beyond].astype(int) - case.truth[beyond]).mean() > 6
        names += ["shadow left"] if seen else []
    return names


def visible(case: Case, made: Array, least: float = 4.0) -> bool:
    """Whether a failure can be seen at all: it must differ from the truth somewhere by more than noise.

    The largest mean difference over a window of about a tenth of the picture's side, grey levels of 255.
    """
    change = np.abs(made.astype(np.float32) - case.truth).mean(axis=2)
    side = max(3, round(min(case.mask.shape) / 10))
    return float(cv2.blur(change, (side, side)).max()) >= least


def make(case: Case, name: str, rng: Rng) -> Array | None:
    """One failure; None where it would not be seen (a ghost of a grey object on grey ground is no failure)."""
    made = FAILURES[name][0](case, rng)
    return made if visible(case, made) else None
