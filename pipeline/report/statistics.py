"""What a dataset's rows are made of, counted over light columns: directions, companions, what was used how often."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq

from rasura.manifests.shards import Line
from rasura.manifests.storage import Store
from rasura.pipeline.report.thumbnails import UNREADABLE

DIRECTIONS = 8  # bins of 45 degrees, centred on 0, 45, …: those of the shadow stage's clusters
COLUMNS = ("id", "kind", "remover", "parents", "shadow_azimuth", "objects")


@dataclass
class Spread:
    """Counts over rows."""

    directions: Counter[int | None] = field(
        default_factory=Counter
    )  # bin, None where unknown; rows that could have one
    objects: Counter[int] = field(default_factory=Counter)  # objects in a simulated picture
    removers: Counter[str] = field(default_factory=Counter)
    backgrounds: Counter[str] = field(default_factory=Counter)  # id -> simulated rows on it
    cut_outs: Counter[str] = field(default_factory=Counter)  # id -> simulated rows with it

    def add(self, row: Mapping[str, Any], lit: bool) -> None:
        """Counts a row. `lit`: whether its table knows shadow directions at all."""
        if lit:
            azimuth = row.get("shadow_azimuth")
            self.directions[None if azimuth is None else round(azimuth % 360 / (360 / DIRECTIONS)) % DIRECTIONS] += 1
        if row.get("remover"):
            self.removers[row["remover"]] += 1
        parents = row.get("parents") or []
        if row.get("kind") == "simulated" and parents:
            self.backgrounds[parents[0]] += 1
            self.cut_outs.update(parents[1:])
            self.objects[row.get("objects") or len(parents) - 1] += 1


def spread(run: Store, flows: Iterable[tuple[str, Sequence[Line]]]) -> Spread:
    """Counts over the tables of some flows, one shard at a time. What cannot be read is left out."""
    found = Spread()
    for flow, lines in flows:
        for line in lines:
            if line.data is None:
                continue
            try:
                with (
                    run.open(f"tables/{flow}/{line.data.name}") as source,
                    pq.ParquetFile(source, pre_buffer=False) as file,
                ):
                    names = [name for name in COLUMNS if name in file.schema_arrow.names]
                    rows = file.read(columns=names, use_threads=False).to_pylist()
            except UNREADABLE:
                continue  # the survey tells of it
            for row in rows:
                found.add(row, "shadow_azimuth" in names)
    return found
