"""The composition of a dataset, counted over light columns: shadow directions, objects, and uses of each part."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rasura.manifests.shards import CommitRecord
from rasura.manifests.storage import Store
from rasura.pipeline.report.flows import iterate_light

DIRECTIONS = 8
"""Bins of 45 degrees, centred on 0, 45, …: those of the shadow stage's clusters."""
COLUMNS = ("id", "kind", "remover", "parents", "shadow_azimuth", "objects")


@dataclass
class Spread:
    """Counts over rows.

    directions: rows by their bin, of rows that could have a shadow direction and do not under None.
    objects: simulated rows by the number of their objects. removers: rows by remover.
    backgrounds, cut_outs: simulated rows by the id of what they use.
    """

    directions: Counter[int | None] = field(default_factory=Counter)
    objects: Counter[int] = field(default_factory=Counter)
    removers: Counter[str] = field(default_factory=Counter)
    backgrounds: Counter[str] = field(default_factory=Counter)
    cut_outs: Counter[str] = field(default_factory=Counter)

    def add(self, row: Mapping[str, Any], has_directions: bool) -> None:
        """Count a row.

        Args:
            has_directions: its table has shadow directions.
        """
        if has_directions:
            azimuth = row.get("shadow_azimuth")
            self.directions[None if azimuth is None else round(azimuth % 360 / (360 / DIRECTIONS)) % DIRECTIONS] += 1
        if row.get("remover"):
            self.removers[row["remover"]] += 1
        parents = row.get("parents") or []
        if row.get("kind") == "simulated" and parents:
            self.backgrounds[parents[0]] += 1
            self.cut_outs.update(parents[1:])
            self.objects[row.get("objects") or len(parents) - 1] += 1


def count_spread(run: Store, flows: Iterable[tuple[str, Sequence[CommitRecord]]]) -> Spread:
    """Count over the tables of some flows, one shard at a time. Shards that cannot be read are left out."""
    spread = Spread()
    for flow, commits in flows:
        for _, table in iterate_light(run, flow, commits, COLUMNS):
            for row in table.to_pylist():
                spread.add(row, "shadow_azimuth" in table.column_names)
    return spread
