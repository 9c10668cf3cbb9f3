"""A judge: anything that gives a candidate one number that rises with its quality."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy.typing as npt

from rasura.networks.trainer import OnProgress

Array = npt.NDArray[Any]


class Judge(Protocol):
    """A judge of candidates. Its logits are no probabilities before they are calibrated on votes."""

    def preprocess(self, source: Array, target: Array, mask: Array) -> Any:
        """Return a candidate as `compute_logits` takes it; (h, w, 3) uint8 twice and (h, w) bool."""
        ...

    def compute_logits(self, crops: Sequence[Any], on_progress: OnProgress | None = None) -> Array:
        """Return the logits (n,) float64 of candidates; higher is better, and the same candidate has the same.

        NaN is the logit of a candidate about which the judge can say nothing.
        """
        ...
