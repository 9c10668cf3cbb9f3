"""Metrics without truth as judges: ReMOVE and RC-S, with an image encoder whose weights the user gives."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rasura.networks.metrics import rc_s, remove_score
from rasura.networks.metrics.encoders import load_encoder
from rasura.networks.metrics.remove_score import Features
from rasura.networks.trainer import OnProgress

Array = npt.NDArray[Any]

METRICS: Mapping[str, Callable[[Array, Array, Features], float]] = {
    "remove": remove_score.compute_score,
    "rc_s": rc_s.compute_rc_s,
}


class Filled(NamedTuple):
    """A result (h, w, 3) uint8 and its hole (h, w) bool."""

    picture: Array
    hole: Array


class MetricJudge:
    """A metric whose logit is that of its value, taken as a share; both metrics are at most 1.

    Args:
        metric: `remove` or `rc_s`.
        weights: of the encoder, .onnx: SAM's for ReMOVE, DINOv2's for RC-S.

    Raises:
        BadWeights: the file is missing, or is no encoder.
    """

    def __init__(self, metric: str, weights: Path) -> None:
        self.compute, self.features = METRICS[metric], load_encoder(weights)

    def preprocess(self, source: Array, target: Array, mask: Array) -> Filled:
        """Return the result and its hole; the source is not compared."""
        return Filled(target, mask)

    def compute_logits(self, crops: Sequence[Filled], on_progress: OnProgress | None = None) -> Array:
        """Return the logits (n,) of candidates."""
        logits = []
        for crop in crops:
            share = min(max(self.compute(crop.picture, crop.hole, self.features), 1e-6), 1 - 1e-6)
            logits.append(np.log(share / (1 - share)))
            if on_progress:
                on_progress(len(logits), len(crops), "")
        return np.array(logits, float)
