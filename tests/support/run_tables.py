"""Tables of a run, written without an engine."""

from collections.abc import Mapping, Sequence
from typing import Any

from rasura.manifests.compacted.manifest import write_manifest
from rasura.manifests.schemas import Kind, encode_records
from rasura.manifests.shards import StageCount, commit
from rasura.manifests.storage import Store


def write_table(
    run: Store, name: str, records: Sequence[Mapping[str, Any]], columns: Mapping[str, Kind], rows: int
) -> None:
    """A table on disk in shards of so many rows."""
    lines = []
    for start in range(0, len(records), rows):
        part = records[start : start + rows]
        count = StageCount("write", len(part), len(part), len(part))
        data = encode_records(part, columns)
        lines.append(commit(run.sub(f"tables/{name}"), f"{name}{start}", "p", len(part), data, [], [count]))
    write_manifest(run.sub(f"tables/{name}"), lines, columns)
