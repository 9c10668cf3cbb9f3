"""Counts over all rows of a table, and places of rows that are evenly spread over it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rasura.manifests.run_layout import table_path
from rasura.manifests.shards import CommitRecord
from rasura.manifests.storage import Store
from rasura.pipeline.report.thumbnails import UNREADABLE, Place, space_evenly

COUNTED_COLUMNS = ("split", "kind", "label", "licence", "remover")


@dataclass
class Survey:
    """Counts over all rows of a table.

    weights: rows by (name, sha256). shards: (id, rows) of those that can be read. scenes: where removers made the rows,
    the shard, the first row and the number of rows of each scene. faults: of the shards that cannot be read.
    """

    rows: int = 0
    bytes: int = 0
    counts: dict[str, Counter[str | None]] = field(
        default_factory=lambda: {name: Counter() for name in COUNTED_COLUMNS}
    )
    weights: Counter[tuple[str, str]] = field(default_factory=Counter)
    shards: list[tuple[str, int]] = field(default_factory=list)
    scenes: list[tuple[str, int, int]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def survey_table(run: Store, flow: str, commits: Sequence[CommitRecord]) -> Survey:
    """Count over a table, one shard at a time. A shard that cannot be read is noted as a fault and left out."""
    survey = Survey()
    for record in commits:
        if record.data is None:
            continue
        try:
            with run.open(f"{table_path(flow)}/{record.data.name}") as source:
                file = pq.ParquetFile(source, pre_buffer=False)
                columns = ("id", *COUNTED_COLUMNS, "bytes", "weights")
                names = [name for name in columns if name in file.schema_arrow.names]
                light = file.read(columns=names, use_threads=False)
        except UNREADABLE as error:
            survey.faults.append(f"{record.data.name}: {error}")
            continue
        survey.rows += light.num_rows
        survey.shards.append((record.shard, light.num_rows))
        for name in COUNTED_COLUMNS:
            column = light[name] if name in names else pa.nulls(light.num_rows, pa.string())
            survey.counts[name].update({e["values"]: e["counts"] for e in pc.value_counts(column).to_pylist()})
        if "remover" in names and light["remover"].null_count < light.num_rows:
            survey.scenes += _group_by_scene(record.shard, light["id"].to_pylist())
        if "bytes" in names:
            survey.bytes += pc.sum(light["bytes"]).as_py() or 0
        if "weights" in names:
            flat = pc.list_flatten(light["weights"]).to_pylist()
            survey.weights.update((entry["name"], entry["value"]) for entry in flat)
    return survey


def _group_by_scene(shard: str, ids: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yield shard, first row and number of rows of each scene: consecutive ids `<scene>.<remover>`."""
    start = 0
    for _, group in groupby(ids, lambda id: id.rpartition(".")[0] or id):
        yield shard, start, (count := len(list(group)))
        start += count


def choose_places(flow: str, survey: Survey, count: int) -> list[Place]:
    """Choose the places of rows that are evenly spread over a table; all removers of a scene, or none."""
    if survey.scenes:
        most = max(rows for _, _, rows in survey.scenes)
        scenes = [survey.scenes[index] for index in space_evenly(len(survey.scenes), max(1, count // most))]
        return [(flow, shard, row) for shard, start, rows in scenes for row in range(start, start + rows)][:count]
    positions, result, start = space_evenly(survey.rows, count), [], 0
    for shard, rows in survey.shards:
        result += [(flow, shard, index - start) for index in positions if start <= index < start + rows]
        start += rows
    return result
