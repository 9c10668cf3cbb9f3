"""Kinds of candidates with ground truth, good, fair and bad, on which a tiny discriminator is trained and tested.

All functions take a case and a random generator, and return (h, w, 3) uint8.
"""

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks import loop_removers
from rasura.discriminator.augment import Case, fill_with_other, hallucinate, leave_ghost
from rasura.manifests.boxes import compute_bounds

Array = npt.NDArray[Any]
Rng = np.random.Generator


def fill_telea(case: Case, rng: Rng) -> Array:
    return loop_removers.fill_telea(case.source, case.mask)


def fill_navier_stokes(case: Case, rng: Rng) -> Array:
    return np.asarray(cv2.inpaint(case.source, case.mask.astype(np.uint8), 3, cv2.INPAINT_NS))


def smear(case: Case, rng: Rng) -> Array:
    """Blur Telea's fill."""
    return paste(cv2.GaussianBlur(fill_telea(case, rng), (0, 0), 3), case)


def leave_object(case: Case, rng: Rng) -> Array:
    return case.source.copy()


def leave_shadow(case: Case, rng: Rng) -> Array:
    """Leave the shadow and remove the object; where there is no shadow, leave a ghost."""
    if case.effects is None or not case.effects.any():
        return leave_ghost(case, rng)
    return np.where(case.effects[..., None], case.source, case.truth)


def copy_truth(case: Case, rng: Rng) -> Array:
    return case.truth.copy()


def add_noise(case: Case, rng: Rng) -> Array:
    noisy = case.truth + rng.normal(0, 4, case.truth.shape)
    return paste(np.clip(np.rint(noisy), 0, 255).astype(np.uint8), case)


def blur_truth(case: Case, rng: Rng) -> Array:
    """Blur the truth by 0.6 to 2 px."""
    return paste(cv2.GaussianBlur(case.truth, (0, 0), rng.uniform(0.6, 2)), case)


def copy_neighbour(case: Case, rng: Rng) -> Array:
    """Copy the region beside the hole into it; wrap around the picture's edge where there is no room."""
    height, width = case.mask.shape
    x0, y0, x1, y1 = compute_bounds(case.mask)
    shifts = [(0, x1 - x0), (0, x0 - x1), (y1 - y0, 0), (y0 - y1, 0)]
    inside = [
        (down, right)
        for down, right in shifts
        if y0 - down >= 0 and y1 - down <= height and x0 - right >= 0 and x1 - right <= width
    ]
    shift = (inside or shifts)[int(rng.integers(len(inside or shifts)))]
    return paste(np.roll(case.source, shift, (0, 1)), case)


def paste(fill: Array, case: Case) -> Array:
    """Paste a fill into the hole of the picture."""
    return np.where(case.mask[..., None], fill, case.source)


KINDS: Mapping[str, Callable[[Case, Rng], Array]] = {
    "telea": fill_telea,
    "navier-stokes": fill_navier_stokes,
    "smeared": smear,
    "object left": leave_object,
    "ghost": leave_ghost,
    "wrong patch": fill_with_other,
    "shadow left": leave_shadow,
    "truth": copy_truth,
    "truth, noisy": add_noise,
    "truth, soft": blur_truth,
    "hallucination": hallucinate,
}
UNSEEN = "shifted copy"
TRUE = ("truth", "truth, noisy")
"""Kinds that no remover makes and a discriminator may recognize by their texture; `auc_fills` is without them."""


def displace(case: Case, rng: Rng) -> Array:
    """Displace the truth by up to 6 px, so that edges do not meet."""
    down, right = rng.integers(-6, 7, 2)
    return paste(np.roll(case.truth, (int(down), int(right)), (0, 1)), case)


def tint(case: Case, rng: Rng) -> Array:
    """Change the colours of the truth, and light it from one side."""
    height, width = case.mask.shape
    down, right = (np.arange(height) / height - 0.5)[:, None], (np.arange(width) / height - 0.5)[None]
    light = 1 + 0.6 * (rng.uniform(-1, 1) * down + rng.uniform(-1, 1) * right)
    tinted = case.truth * light[..., None] + rng.normal(0, 12, 3)
    return paste(np.clip(np.rint(tinted), 0, 255).astype(np.uint8), case)


def mix(case: Case, rng: Rng) -> Array:
    """Blend the truth with Telea's fill."""
    share = rng.uniform(0.2, 0.8)
    return paste(np.rint(case.truth * share + fill_telea(case, rng) * (1 - share)).astype(np.uint8), case)


def fill_membrane(case: Case, rng: Rng) -> Array:
    """Fill the hole with the smoothest surface that meets its rim."""
    fill = case.source.astype(np.float32)
    fill[case.mask] = case.source[~case.mask].mean(axis=0)
    for _ in range(300):
        fill[case.mask] = cv2.blur(fill, (3, 3))[case.mask]
    return paste(np.rint(fill).astype(np.uint8), case)


def warp(case: Case, rng: Rng) -> Array:
    """Warp the truth by a smooth random field."""
    height, width = case.mask.shape
    bend = cv2.GaussianBlur(rng.normal(0, 1, (height, width, 2)).astype(np.float32), (0, 0), rng.uniform(2, 8))
    bend = np.asarray(bend * (rng.uniform(1, 6) / max(float(bend.std()), 1e-6)), np.float32)
    down, right = np.mgrid[0:height, 0:width].astype(np.float32)
    warped = cv2.remap(
        case.truth, right + bend[..., 0], down + bend[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return paste(np.asarray(warped), case)


def mirror(case: Case, rng: Rng) -> Array:
    """Mirror the clean picture at one of its axes."""
    return paste(np.ascontiguousarray(case.truth[:, ::-1] if rng.random() < 0.5 else case.truth[::-1]), case)


MORE: Mapping[str, Callable[[Case, Rng], Array]] = {
    "displaced": displace,
    "tinted": tint,
    "mixed": mix,
    "membrane": fill_membrane,
    "warped": warp,
    "mirrored": mirror,
}
"""Further kinds to train on (`--more`), which show whether variety helps on an unseen kind."""
