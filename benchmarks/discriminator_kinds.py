"""Kinds of candidates with known truth, good, fair and bad: what a tiny judge learns from and is tested on.

All functions take a case and a generator, and give (h, w, 3) uint8.
"""

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks import loop_removers
from rasura.discriminator.augment import Case, ghost, hallucination, wrong_patch
from rasura.manifests.boxes import bounds

Array = npt.NDArray[Any]
Rng = np.random.Generator


def telea(case: Case, rng: Rng) -> Array:
    return loop_removers.telea(case.source, case.mask)


def stokes(case: Case, rng: Rng) -> Array:
    return np.asarray(cv2.inpaint(case.source, case.mask.astype(np.uint8), 3, cv2.INPAINT_NS))


def smeared(case: Case, rng: Rng) -> Array:
    """Telea's fill without what texture it has."""
    return pasted(cv2.GaussianBlur(telea(case, rng), (0, 0), 3), case)


def left(case: Case, rng: Rng) -> Array:
    return case.source.copy()


def shadow(case: Case, rng: Rng) -> Array:
    """The truth under the object, the shadow still there; where there is none, a ghost."""
    if case.effects is None or not case.effects.any():
        return ghost(case, rng)
    return np.where(case.effects[..., None], case.source, case.truth)


def truth(case: Case, rng: Rng) -> Array:
    return case.truth.copy()


def noisy(case: Case, rng: Rng) -> Array:
    made = case.truth + rng.normal(0, 4, case.truth.shape)
    return pasted(np.clip(np.rint(made), 0, 255).astype(np.uint8), case)


def soft(case: Case, rng: Rng) -> Array:
    """The truth, blurred by 0.6 to 2 px."""
    return pasted(cv2.GaussianBlur(case.truth, (0, 0), rng.uniform(0.6, 2)), case)


def shifted(case: Case, rng: Rng) -> Array:
    """What lies beside the hole, copied into it; round the picture's edge where there is no room beside it."""
    height, width = case.mask.shape
    x0, y0, x1, y1 = bounds(case.mask)
    ways = [(0, x1 - x0), (0, x0 - x1), (y1 - y0, 0), (y0 - y1, 0)]
    inside = [
        (down, right)
        for down, right in ways
        if y0 - down >= 0 and y1 - down <= height and x0 - right >= 0 and x1 - right <= width
    ]
    way = (inside or ways)[int(rng.integers(len(inside or ways)))]
    return pasted(np.roll(case.source, way, (0, 1)), case)


def pasted(fill: Array, case: Case) -> Array:
    """The fill in the hole, the picture elsewhere."""
    return np.where(case.mask[..., None], fill, case.source)


KINDS: Mapping[str, Callable[[Case, Rng], Array]] = {
    "telea": telea,
    "navier-stokes": stokes,
    "smeared": smeared,
    "object left": left,
    "ghost": ghost,
    "wrong patch": wrong_patch,
    "shadow left": shadow,
    "truth": truth,
    "truth, noisy": noisy,
    "truth, soft": soft,
    "hallucination": hallucination,
}
UNSEEN = "shifted copy"
TRUE = ("truth", "truth, noisy")
"""What no remover makes, and a judge may know by its texture; `auc_fills` is without them."""


def displaced(case: Case, rng: Rng) -> Array:
    """The truth, up to 6 px off: edges that do not meet."""
    down, right = rng.integers(-6, 7, 2)
    return pasted(np.roll(case.truth, (int(down), int(right)), (0, 1)), case)


def tinted(case: Case, rng: Rng) -> Array:
    """The truth in other colours, and lit from one side."""
    height, width = case.mask.shape
    down, right = (np.arange(height) / height - 0.5)[:, None], (np.arange(width) / height - 0.5)[None]
    light = 1 + 0.6 * (rng.uniform(-1, 1) * down + rng.uniform(-1, 1) * right)
    made = case.truth * light[..., None] + rng.normal(0, 12, 3)
    return pasted(np.clip(np.rint(made), 0, 255).astype(np.uint8), case)


def mixed(case: Case, rng: Rng) -> Array:
    """Truth and Telea's fill, one showing through the other."""
    share = rng.uniform(0.2, 0.8)
    return pasted(np.rint(case.truth * share + telea(case, rng) * (1 - share)).astype(np.uint8), case)


def membrane(case: Case, rng: Rng) -> Array:
    """The smoothest fill that meets the rim."""
    fill = case.source.astype(np.float32)
    fill[case.mask] = case.source[~case.mask].mean(axis=0)
    for _ in range(300):
        fill[case.mask] = cv2.blur(fill, (3, 3))[case.mask]
    return pasted(np.rint(fill).astype(np.uint8), case)


def warped(case: Case, rng: Rng) -> Array:
    """The truth, bent in waves."""
    height, width = case.mask.shape
    bend = cv2.GaussianBlur(rng.normal(0, 1, (height, width, 2)).astype(np.float32), (0, 0), rng.uniform(2, 8))
    bend *= rng.uniform(1, 6) / max(float(bend.std()), 1e-6)
    down, right = np.mgrid[0:height, 0:width].astype(np.float32)
    made = cv2.remap(
        case.truth, right + bend[..., 0], down + bend[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return pasted(np.asarray(made), case)


def mirrored(case: Case, rng: Rng) -> Array:
    """The clean picture's other side, mirrored."""
    return pasted(np.ascontiguousarray(case.truth[:, ::-1] if rng.random() < 0.5 else case.truth[::-1]), case)


MORE: Mapping[str, Callable[[Case, Rng], Array]] = {
    "displaced": displaced,
    "tinted": tinted,
    "mixed": mixed,
    "membrane": membrane,
    "warped": warped,
    "mirrored": mirrored,
}
"""Only learned from, and only where asked for: does variety help on a kind that was never seen?"""
