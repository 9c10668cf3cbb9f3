"""An ensemble: the logits of several judges, weighted by a logistic regression on votes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rasura.discriminator.judges.base import Judge
from rasura.discriminator.scaling import minimize_cross_entropy
from rasura.networks.trainer import OnProgress

Array = npt.NDArray[Any]

RIDGE = 1.0
"""Penalty on the weights' distance from an equal share each, on standardized logits."""


def fit_weights(logits: Array, votes: Array, weights: Array | None = None) -> tuple[list[float], float]:
    """Fit the weight of each judge and the intercept.

    Args:
        logits: (n, k), of k judges. votes: (n,), shares of yes. weights: (n,).

    Raises:
        ValueError: a judge gives all candidates the same.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> good, noise = rng.normal(size=(2, 4000))
        >>> votes = (good + rng.logistic(size=4000) > 0).astype(float)
        >>> weights, _ = fit_weights(np.stack([good, noise], axis=1), votes)
        >>> weights[0] > 10 * abs(weights[1])
        True
    """
    logits, votes = np.asarray(logits, float), np.asarray(votes, float)
    spread = logits.std(axis=0)
    if not (spread > 0).all():
        raise ValueError(f"the judge number {int(np.argmin(spread)) + 1} gives all {len(logits)} candidates the same")
    count = logits.shape[1]
    scaled = logits / spread
    columns = np.hstack(
        [scaled.mean(axis=1, keepdims=True), np.ones((len(votes), 1)), scaled - scaled.mean(axis=1, keepdims=True)]
    )
    penalty = np.array([1e-3, 1e-3, *[RIDGE] * count])
    fitted = minimize_cross_entropy(columns, votes, np.ones_like(votes) if weights is None else weights, penalty)
    differences = fitted[2:] - fitted[2:].mean()
    return ((fitted[0] / count + differences) / spread).tolist(), float(fitted[1])


class Ensemble:
    """Judges whose weighted logits are summed.

    Args:
        weights: one each.
    """

    def __init__(self, judges: Sequence[Judge], weights: Sequence[float], intercept: float = 0.0) -> None:
        self.judges, self.weights, self.intercept = judges, np.asarray(weights, float), intercept

    def preprocess(self, source: Array, target: Array, mask: Array) -> list[Any]:
        """Return a candidate as each of the judges takes it."""
        return [judge.preprocess(source, target, mask) for judge in self.judges]

    def compute_member_logits(self, crops: Sequence[Sequence[Any]]) -> Array:
        """Return the logits (n, k) of candidates by each of the k judges."""
        return np.stack(
            [judge.compute_logits([crop[k] for crop in crops]) for k, judge in enumerate(self.judges)], axis=1
        )

    def compute_logits(self, crops: Sequence[Sequence[Any]], on_progress: OnProgress | None = None) -> Array:
        """Return the logits (n,) of candidates."""
        logits = self.compute_member_logits(crops) @ self.weights + self.intercept
        if on_progress:
            on_progress(len(crops), len(crops), "")
        return np.asarray(logits)
