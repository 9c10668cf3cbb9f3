"""Memory that networks took on cards, remembered on the driver's machine: a later run places workers by it.

The file is a cache: without it the estimate from the weights' size is used. It changes no byte of a result.
"""

import contextlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rasura.networks.memory import CONTEXT_BYTES, RESERVE
from rasura.pipeline.recipe.specs import Demand, Group

MAX_BYTES = 10_000_000
"""Size of the largest file that is read."""

Figures = dict[str, dict[str, int]]
"""Peak of the tensors' bytes by network (`Demand.key`) and name of the card."""


def find_file() -> Path:
    """Return the place of the file: RASURA_CACHE, XDG_CACHE_HOME or ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("RASURA_CACHE") or Path(home) / "rasura") / "gpu_memory.json"


def read_figures(path: Path) -> Figures:
    """Read the figures; none where there is no file, or it is damaged."""
    try:
        entries = json.loads(path.read_bytes()[:MAX_BYTES])
        return {key: {card: int(size) for card, size in cards.items()} for key, cards in entries.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def merge_figures(before: Figures, new: Figures) -> Figures:
    """Merge figures; the larger of two counts.

    Examples:
        >>> merge_figures({"a": {"H100": 3}, "b": {"H100": 1}}, {"a": {"H100": 2, "L4": 5}})
        {'a': {'H100': 3, 'L4': 5}, 'b': {'H100': 1}}
    """
    merged = {key: dict(cards) for key, cards in before.items()}
    for key, cards in new.items():
        for card, size in cards.items():
            merged.setdefault(key, {})[card] = max(size, merged.get(key, {}).get(card, 0))
    return merged


def write_figures(path: Path, new: Figures) -> None:
    """Add figures to the file; nothing happens where it cannot be written."""
    merged = merge_figures(read_figures(path), new)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(merged, indent=1, sort_keys=True) + "\n")
        part.replace(path)


def apply_figures(group: Group, figures: Figures, cards: Mapping[str, int | None]) -> Group:
    """Return a group with the memory that its network took on the cluster's cards, where that is known for all.

    Args:
        group: the group.
        figures: what was measured.
        cards: the cluster's cards: name to memory. A network that ran into the end of a card is not given more.
    """
    demand, measured = group.demand, figures.get(group.demand.key, {})
    if demand.memory is None or not cards or not all(card in measured for card in cards):
        return group
    needs = [
        min(int(measured[card] * RESERVE) + CONTEXT_BYTES, math.inf if memory is None else memory)
        for card, memory in cards.items()
    ]
    size = int(max(needs))
    return replace(group, demand=Demand(demand.resources, replace(demand.memory, gpu_bytes=size), demand.key))
