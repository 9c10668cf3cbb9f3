"""Anchors: examples whose answer needs no votes, made from triplets with a true target.

A discriminator that only learns from removers' fills has never met a perfect one. It then takes the texture that a true
target has and a fill from the rim lacks for a fault, and ranks blurred holes above true ones (`judges/battery.py`). The
true target is a yes, a hole filled from another picture and the untouched source are a no, and a strong blur of the
true target's hole is nearly one.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.discriminator.augment import Case, fill_with_other, is_visible, leave_object
from rasura.discriminator.dataset import Example
from rasura.manifests.ids import compute_seed

Array = npt.NDArray[Any]

TRUTH, BLURRED, SWAPPED, UNTOUCHED = "true target", "blurred", "swapped", "untouched"
BLUR = (0.12, 0.3)
"""Range of a blur's sigma, in square roots of the hole's area."""
BLURRED_VOTE = 0.2
"""Share of yes of a blur: people rank it below the true target, and above a hole filled from another picture."""


def make_anchors(triplets: Sequence[tuple[Array, Array, Array, str]], seed: int = 0) -> list[Example]:
    """Make the anchors of triplets; failures that would not be visible are left out.

    Args:
        triplets: source and true target (h, w, 3) uint8, mask (h, w) bool, scene.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> pictures = rng.integers(0, 256, (2, 2, 32, 32, 3), dtype=np.uint8)
        >>> mask = np.zeros((32, 32), bool)
        >>> mask[8:24, 8:24] = True
        >>> anchors = make_anchors([(source, target, mask, "a") for source, target in pictures])
        >>> [(anchor.remover, anchor.vote) for anchor in anchors[:4]]
        [('true target', 1.0), ('blurred', 0.2), ('swapped', 0.0), ('untouched', 0.0)]
    """
    anchors = []
    for index, (source, target, mask, scene) in enumerate(triplets):
        rng = np.random.default_rng(compute_seed(seed, "anchors", scene))
        case = Case(source, target, mask, None, triplets[(index + 1) % len(triplets)][1])
        sigma = max(0.5, rng.uniform(*BLUR) * float(np.sqrt(mask.sum())))
        blurred = np.where(mask[..., None], cv2.GaussianBlur(target, (0, 0), sigma), target)
        failures = {BLURRED: blurred, SWAPPED: fill_with_other(case, rng), UNTOUCHED: leave_object(case, rng)}
        anchors.append(Example(source, target, mask, 1.0, scene, TRUTH))
        anchors += [
            Example(source, failure, mask, BLURRED_VOTE if name == BLURRED else 0.0, scene, name)
            for name, failure in failures.items()
            if is_visible(case, failure)
        ]
    return anchors
