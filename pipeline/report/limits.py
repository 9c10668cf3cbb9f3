"""The limits that a recipe's `select` stages set on measures, and how near a value is to its limit."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasura.manifests.run_layout import RECIPE
from rasura.manifests.storage import Store
from rasura.pipeline.recipe.yaml_reader import InvalidYaml, read_yaml


@dataclass(frozen=True)
class Limit:
    """Smallest and largest value of a column that are kept; None where there is no such limit."""

    low: float | None = None
    high: float | None = None

    @property
    def ends(self) -> list[float]:
        """The limits that are set."""
        return [end for end in (self.low, self.high) if end is not None]

    def narrow(self, other: "Limit") -> "Limit":
        """Return the limit of two selections in a row.

        Examples:
            >>> Limit(0, 5).narrow(Limit(high=3))
            Limit(low=0, high=3)
        """
        lows = [limit.low for limit in (self, other) if limit.low is not None]
        highs = [limit.high for limit in (self, other) if limit.high is not None]
        return Limit(max(lows, default=None), min(highs, default=None))

    def describe(self) -> str:
        """Describe the limit in words.

        Examples:
            >>> Limit(low=0.3).describe(), Limit(0.1, 20).describe()
            ('at least 0.3', '0.1 to 20')
        """
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        return f"at least {self.low:g}" if self.low is not None else f"at most {self.high:g}"

    def compute_margins(self, values: NDArray[np.float64], typical: float) -> NDArray[np.float64]:
        """Compute how far values are within the limit: 0 at the limit, 1 at the typical value, negative beyond it.

        Args:
            typical: the median. Where it is the limit itself, nothing is near the limit: the margins are infinite.

        Examples:
            >>> Limit(high=4).compute_margins(np.array([2, 3.5, 5]), typical=2).tolist()
            [1.0, 0.25, -0.5]
        """
        margins = np.full(len(values), np.inf)
        for end, sign in ((self.low, 1), (self.high, -1)):
            if end is not None and end != typical:
                margins = np.fmin(margins, sign * (values - end) / abs(typical - end))
        return np.where(np.isfinite(values), margins, np.inf)


def read_limits(run: Store) -> dict[str, dict[str, Limit]]:
    """Read the limits by flow and column from the recipe that a run was made from; {} where there is none to read."""
    try:
        raw = read_yaml(run.read(RECIPE).decode())[0]
    except (OSError, ValueError, InvalidYaml):
        return {}
    flows = raw.get("flows") if isinstance(raw, Mapping) else None
    result: dict[str, dict[str, Limit]] = {}
    for name, flow in flows.items() if isinstance(flows, Mapping) else ():
        limits: dict[str, Limit] = {}
        for column, limit in _iterate_rules(flow):
            limits[column] = limits[column].narrow(limit) if column in limits else limit
        result[str(name)] = limits
    return result


def _iterate_rules(flow: Any) -> Iterator[tuple[str, Limit]]:
    stages = flow.get("stages") if isinstance(flow, Mapping) else None
    for entry in stages if isinstance(stages, Sequence) else ():
        select = entry.get("select") if isinstance(entry, Mapping) else None
        keep = select.get("keep") if isinstance(select, Mapping) else None
        for column, rule in keep.items() if isinstance(keep, Mapping) else ():
            if isinstance(rule, Mapping):
                ends = [rule.get(key) for key in ("min", "max")]
                # an infinite end limits nothing, and to a number that is none nothing can be near
                low, high = (
                    float(end) if isinstance(end, int | float) and math.isfinite(end) else None for end in ends
                )
                if low is not None or high is not None:
                    yield str(column), Limit(low, high)
