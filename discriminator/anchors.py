"""Anchors: examples whose answer needs no votes, made from triplets with a true target.

A discriminator that only learns from removers' fills has never met a perfect one. It then takes the texture that a true
target has and a fill from the rim lacks for a fault, and ranks blurred holes above true ones (`judges/battery.py`). The
true target is a yes, from which a training makes ladders too (`ladders.py`); the untouched source is a no.
"""

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from rasura.discriminator.augment import Case, is_visible
from rasura.discriminator.dataset import Example

Array = npt.NDArray[Any]

TRUTH, UNTOUCHED = "true target", "untouched"


def make_anchors(triplets: Sequence[tuple[Array, Array, Array, str]]) -> list[Example]:
    """Make the anchors of triplets; objects that cannot be seen are left out.

    Args:
        triplets: source and true target (h, w, 3) uint8, mask (h, w) bool, scene.

    Examples:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> source, target = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
        >>> mask = np.zeros((32, 32), bool)
        >>> mask[8:24, 8:24] = True
        >>> [(anchor.remover, anchor.vote) for anchor in make_anchors([(source, target, mask, "a")])]
        [('true target', 1.0), ('untouched', 0.0)]
    """
    anchors = []
    for source, target, mask, scene in triplets:
        anchors.append(Example(source, target, mask, 1.0, scene, TRUTH))
        if is_visible(Case(source, target, mask, None, target), source):
            anchors.append(Example(source, source, mask, 0.0, scene, UNTOUCHED))
    return anchors
