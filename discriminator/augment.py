"""Candidates that are wrong on purpose, each with the reason that a person would name: hard negatives.

RORem's discriminator was trained on "30K human-annotated samples, supplemented with augmented data"; the recipe was
not released. These are the failures it names (object left, hallucination, blur) and others that reviewers meet. All
functions take and return (h, w, 3) uint8 and (h, w) bool, and draw from the generator that is passed.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Rng = np.random.Generator


class Case(NamedTuple):
    """The pictures from which a failure can be made.

    truth: a good answer: the clean picture, or an accepted candidate. effects: shadow and reflection beyond the mask,
    or None where they are not available. other: another picture of any size.
    """

    source: Array
    truth: Array
    mask: Array
    effects: Array | None
    other: Array


def _blend_inside(base: Array, change: Array, mask: Array, soft: float = 1.0) -> Array:
    """Return `change` inside the mask with a rim of `soft` px, and `base` elsewhere, bit-exact beyond the rim."""
    weight = mask.astype(np.float32)
    if soft > 0:
        weight = np.where(mask, np.clip(cv2.GaussianBlur(weight, (0, 0), soft) * 2 - 1, 0, 1), 0).astype(np.float32)
        weight = np.maximum(weight, 0)
    mixed = change.astype(np.float32) * weight[..., None] + base.astype(np.float32) * (1 - weight[..., None])
    return np.rint(mixed).astype(np.uint8)


def leave_object(case: Case, rng: Rng) -> Array:
    """Return the source: nothing was removed."""
    return case.source.copy()


def leave_ghost(case: Case, rng: Rng) -> Array:
    """Leave a pale remnant of the object, 20 to 60 % of it."""
    share = rng.uniform(0.2, 0.6)
    mixed = case.truth * (1 - share) + case.source * share
    return np.where(case.mask[..., None], np.rint(mixed), case.truth).astype(np.uint8)


def leave_part(case: Case, rng: Rng) -> Array:
    """Leave one side of the object, which is cut along a line."""
    ys, xs = np.nonzero(case.mask)
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * np.arange(case.mask.shape[1])[None] + np.sin(angle) * np.arange(case.mask.shape[0])[:, None]
    cut = np.quantile(along[ys, xs], rng.uniform(0.4, 0.75))
    return np.where((case.mask & (along > cut))[..., None], case.source, case.truth).astype(np.uint8)


def hallucinate(case: Case, rng: Rng) -> Array:
    """Put something foreign into the hole: an ellipse out of another picture."""
    ys, xs = np.nonzero(case.mask)
    height, width = case.mask.shape
    blob = np.zeros((height, width), np.uint8)
    span = max(3.0, np.sqrt(len(ys)))
    axes = (max(2, round(span * rng.uniform(0.25, 0.5))), max(2, round(span * rng.uniform(0.25, 0.5))))
    center = int(rng.integers(len(ys)))
    cv2.ellipse(blob, (int(xs[center]), int(ys[center])), axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    patch = _crop_randomly(case.other, height, width, rng)
    return _blend_inside(case.truth, patch, (blob > 0) & case.mask)


def fill_with_other(case: Case, rng: Rng) -> Array:
    """Fill the hole with another picture."""
    return _blend_inside(case.truth, _crop_randomly(case.other, case.mask.shape[0], case.mask.shape[1], rng), case.mask)


def blur_fill(case: Case, rng: Rng) -> Array:
    """Fill the hole without texture; the blur grows with the hole's size."""
    sigma = rng.uniform(0.06, 0.15) * np.sqrt(case.mask.sum()) + 1
    return _blend_inside(case.truth, cv2.GaussianBlur(case.truth, (0, 0), sigma), case.mask)


def blur_hole(picture: Array, mask: Array, share: float) -> Array:
    """Blur a picture in its hole, by a sigma of that share of the square root of the hole's area (at least 0.5 px)."""
    sigma = max(0.5, share * float(np.sqrt(mask.sum())))
    return np.where(mask[..., None], cv2.GaussianBlur(picture, (0, 0), sigma), picture)


def leave_shadow(case: Case, rng: Rng) -> Array:
    """Remove the object, but not its shadow and reflection, which `case.effects` has to show."""
    assert case.effects is not None
    return np.where((case.effects & ~case.mask)[..., None], case.source, case.truth).astype(np.uint8)


def change_outside(case: Case, rng: Rng) -> Array:
    """Fill the hole well, but change a patch of the picture beside it: shifted, tinted or smeared."""
    height, width = case.mask.shape
    side = max(4, round(min(height, width) * rng.uniform(0.15, 0.35)))
    y, x = int(rng.integers(max(1, height - side))), int(rng.integers(max(1, width - side)))
    patch = np.zeros_like(case.mask)
    patch[y : y + side, x : x + side] = True
    kind = int(rng.integers(3))
    if kind == 0:
        change = np.roll(case.truth, (int(rng.integers(3, 3 + side)), int(rng.integers(3, 3 + side))), (0, 1))
    elif kind == 1:
        change = np.clip(case.truth * rng.uniform(0.6, 1.4, 3), 0, 255)
    else:
        change = cv2.GaussianBlur(case.truth, (0, 0), side / 5)
    return _blend_inside(case.truth, np.asarray(change), patch & ~case.mask)


def _crop_randomly(picture: Array, height: int, width: int, rng: Rng) -> Array:
    """Return a random part of another picture, mirrored half of the time, enlarged where it is too small."""
    scale = max(1.0, height / picture.shape[0], width / picture.shape[1])
    if scale > 1:
        size = (int(np.ceil(picture.shape[1] * scale)), int(np.ceil(picture.shape[0] * scale)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR))
    y = int(rng.integers(picture.shape[0] - height + 1))
    x = int(rng.integers(picture.shape[1] - width + 1))
    part = picture[y : y + height, x : x + width]
    return np.ascontiguousarray(part[:, ::-1] if rng.random() < 0.5 else part)


FAILURES: Mapping[str, tuple[Callable[[Case, Rng], Array], str]] = {
    "object left": (leave_object, "object"),
    "ghost": (leave_ghost, "object"),
    "part left": (leave_part, "object"),
    "hallucination": (hallucinate, "hallucinated"),
    "wrong patch": (fill_with_other, "hallucinated"),
    "blur": (blur_fill, "seam"),
    "shadow left": (leave_shadow, "shadow"),
    "outside changed": (change_outside, "outside"),
}
"""Name to function and the reason that a reviewer would name."""


def list_failures(case: Case) -> list[str]:
    """List the failures that can be made of a case: a shadow can only be left where one is available and visible."""
    names = [name for name in FAILURES if name != "shadow left"]
    if case.effects is not None:
        beyond = case.effects & ~case.mask
        has_shadow = beyond.any() and np.abs(case.source[beyond].astype(int) - case.truth[beyond]).mean() > 6
        names += ["shadow left"] if has_shadow else []
    return names


def is_visible(case: Case, failure: Array, least: float = 4.0) -> bool:
    """Return whether a failure differs from the truth somewhere by more than noise.

    Args:
        least: the largest mean difference over a window of about a tenth of the picture's side, grey levels of 255.
    """
    change = np.abs(failure.astype(np.float32) - case.truth).mean(axis=2)
    side = max(3, round(min(case.mask.shape) / 10))
    return float(cv2.blur(change, (side, side)).max()) >= least


def make_failure(case: Case, name: str, rng: Rng) -> Array | None:
    """Make one failure; None where it would not be visible: a ghost of a grey object on a grey road is no failure."""
    failure = FAILURES[name][0](case, rng)
    return failure if is_visible(case, failure) else None
