"""Mappings from a discriminator's logits to probabilities that a person would say yes, fitted to held-out votes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rasura.discriminator.evaluation import SingleClassVotes

Array = npt.NDArray[Any]

OFFSET_RIDGE = 1.0
"""Penalty on half the square of a remover's offset, in votes' cross entropy: some ten votes begin to move it."""


def sigmoid(values: Array) -> Array:
    """Return 1 / (1 + exp(-x)), without overflow.

    Examples:
        >>> sigmoid(np.array([-1000.0, 0.0])).tolist()
        [0.0, 0.5]
    """
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(values, float))))


@dataclass(frozen=True)
class Scaling:
    """probability = sigmoid(logit / temperature + shift + offset of the remover); a remover without votes has none.

    Examples:
        >>> scaling = Scaling(2.0, 0.5, {"telea": -1.5})
        >>> scaling(np.array([2.0, 2.0]), ["telea", "ns"]).round(3).tolist()
        [0.5, 0.818]
    """

    temperature: float
    shift: float = 0.0
    offsets: Mapping[str, float] = field(default_factory=dict)
    kind: Literal["scaling"] = "scaling"

    def __call__(self, logits: Array, removers: Sequence[str | None]) -> Array:
        values = np.asarray(logits, float) / self.temperature + self.shift
        return sigmoid(values + np.array([self.offsets.get(remover or "", 0.0) for remover in removers]))


@dataclass(frozen=True)
class Isotonic:
    """A rising line through (logit, probability), flat at both ends, the same for all removers."""

    logits: tuple[float, ...]
    probabilities: tuple[float, ...]
    kind: Literal["isotonic"] = "isotonic"

    def __call__(self, logits: Array, removers: Sequence[str | None]) -> Array:
        return np.asarray(np.interp(np.asarray(logits, float), self.logits, self.probabilities))


Calibration = Scaling | Isotonic


def parse_calibration(value: Mapping[str, Any]) -> Calibration:
    """Return the calibration of a JSON object, the inverse of `dataclasses.asdict`."""
    if value["kind"] == "isotonic":
        return Isotonic(tuple(value["logits"]), tuple(value["probabilities"]))
    return Scaling(value["temperature"], value["shift"], value.get("offsets", {}))


def fit_scaling(
    logits: Array,
    votes: Array,
    weights: Array | None = None,
    shift: bool = True,
    removers: Sequence[str] | None = None,
) -> Scaling:
    """Fit temperature (and shift, and an offset of each remover) with the least cross entropy on held-out votes.

    Without the shift it is temperature scaling, with it Platt's. A network trained with softplus and squared error
    needs the shift: its even odds are not at logit 0.

    Args:
        logits, votes, weights: (n,); votes are shares of yes.
        removers: of each candidate, for the offsets; None, or all the same: there are none.

    Raises:
        SingleClassVotes: all votes are the same.
        ValueError: logits are not finite.
    """
    values, votes, weights = _check_votes(logits, votes, weights)
    columns = np.stack([values, np.ones_like(values)] if shift else [values], axis=1)
    # a pinch of ridge: perfectly separated votes would drive the slope to infinity
    penalty = np.full(columns.shape[1], 1e-3)
    names = sorted(set(removers)) if removers is not None else []
    if len(names) > 1:
        columns = np.hstack([columns, np.asarray(removers)[:, None] == np.array(names)])
        penalty = np.append(penalty, np.full(len(names), OFFSET_RIDGE))
    fitted = minimize_cross_entropy(columns, votes, weights, penalty)
    # a slope that is not positive would reverse the order: then the scores say nothing, and all are the base rate
    offsets = dict(zip(names, fitted[-len(names) :].tolist(), strict=True)) if len(names) > 1 else {}
    return Scaling(1 / max(float(fitted[0]), 1e-6), float(fitted[1]) if shift else 0.0, offsets)


def minimize_cross_entropy(columns: Array, votes: Array, weights: Array, penalty: Array) -> Array:
    """Fit a logistic regression by Newton's method.

    Args:
        columns: (n, k); the first is the logit, whose coefficient is drawn to 1, all others to 0.
        votes, weights: (n,).
        penalty: (k,), on half the squared distance from there.

    Returns:
        Coefficients (k,).
    """
    start = np.zeros(columns.shape[1])
    start[0] = 1.0

    def compute_loss(parameters: Array) -> float:
        lines = columns @ parameters
        entropy = weights * (np.logaddexp(0, lines) - votes * lines)
        return float(entropy.sum() + (penalty * (parameters - start) ** 2).sum() / 2)

    fitted = start
    for _ in range(200):
        probability = sigmoid(columns @ fitted)
        gradient = columns.T @ (weights * (probability - votes)) + penalty * (fitted - start)
        hessian = columns.T @ (columns * (weights * probability * (1 - probability))[:, None]) + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        length = 1.0
        # far from the minimum a whole Newton step is too long
        while compute_loss(fitted - length * step) > compute_loss(fitted) and length > 1e-6:
            length /= 2
        fitted = fitted - length * step
        if np.abs(length * step).max() < 1e-9:
            break
    return fitted


def fit_isotonic(logits: Array, votes: Array, weights: Array | None = None) -> Isotonic:
    """Fit the rising step function with the least squared error (pool adjacent violators), joined by lines.

    Args:
        logits, votes, weights: (n,); votes are shares of yes.

    Raises:
        SingleClassVotes: all votes are the same.
        ValueError: logits are not finite.
    """
    values, votes, weights = _check_votes(logits, votes, weights)
    order = np.argsort(values, kind="stable")
    blocks: list[list[float]] = []  # lowest logit, highest logit, sum of votes, weight
    for value, vote, weight in zip(values[order], votes[order], weights[order], strict=True):
        if blocks and value == blocks[-1][1]:
            blocks[-1][2] += vote * weight
            blocks[-1][3] += weight
        else:
            blocks.append([value, value, vote * weight, weight])
        while len(blocks) > 1 and blocks[-2][2] / blocks[-2][3] >= blocks[-1][2] / blocks[-1][3]:
            last = blocks.pop()
            blocks[-1] = [blocks[-1][0], last[1], blocks[-1][2] + last[2], blocks[-1][3] + last[3]]
    knots = [(edge, total / weight) for low, high, total, weight in blocks for edge in dict.fromkeys((low, high))]
    return Isotonic(tuple(float(x) for x, _ in knots), tuple(float(y) for _, y in knots))


def _check_votes(values: Array, votes: Array, weights: Array | None) -> tuple[Array, Array, Array]:
    values, votes = np.asarray(values, float), np.asarray(votes, float)
    weights = np.ones_like(votes) if weights is None else np.asarray(weights, float)
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} of {len(values)} logits are not finite")
    if (votes >= 1).all() or (votes <= 0).all():
        raise SingleClassVotes(
            f"all {len(votes)} votes are the same: a calibration needs votes of both kinds; collect more"
        )
    return values, votes, weights
