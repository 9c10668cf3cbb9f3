"""The origin of a row: its parents in the run, back to the photos, and what every stage did to it."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from rasura.manifests.errors import StorageError, UnknownNameError
from rasura.manifests.run_layout import read_plan
from rasura.manifests.safety.text import escape_controls
from rasura.manifests.schemas import PICTURES, PROVENANCE, TRIPLET, Kind
from rasura.manifests.storage import Store
from rasura.manifests.tables import RUN_REFERENCE, Table, Tables

NO_LETTER = r"\W"  # of a column's name that becomes that of a file
HIDDEN_COLUMNS = {*PROVENANCE, *RUN_REFERENCE, "bytes", "shard", "row"}


class UnknownId(UnknownNameError):
    """An id that no row, and no rejected or failed input, has."""


@dataclass
class LineageNode:
    """A row, or a rejected or failed input, of a table.

    Attributes:
        flow: name of the table.
        row: its values without pictures.
        rejected: it is an input that was rejected or failed.
        parents: what it was made from, filled in by `describe_row`.
    """

    flow: str
    row: dict[str, Any]
    rejected: bool = False
    parents: list["LineageNode"] = field(default_factory=list)


def list_runs() -> list[Store]:
    """List the runs in the folder `runs`, newest first."""
    plans = sorted(Path("runs").glob("*/plan.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [Store(path.parent) for path in plans]


class _Run:
    """The complete tables of a run, each after those that it reads.

    Attributes:
        tables: by their names.
    """

    def __init__(self, run: Store) -> None:
        tables, complete = Tables(run), set(Tables(run).names())
        self._flows = read_plan(run).flows
        self.tables = {name: tables.table(name) for name in self._flows if name in complete}

    def list_upstream(self, flow: str) -> list[Table]:
        """List the tables that a flow was made from, directly or through others."""
        names: set[str] = set()
        waiting = list(self._flows[flow].upstream)
        while waiting:
            if (name := waiting.pop()) not in names and name in self._flows:
                names.add(name)
                waiting += self._flows[name].upstream
        return [table for name, table in self.tables.items() if name in names]


def find(tables: Iterable[Table], id: str) -> list[LineageNode]:
    """Find the rows and the rejected inputs whose id is `id` or begins with it, upstream flows first."""
    nodes = []
    for table in tables:
        for row in table.read_light().to_pylist():
            if row["id"].startswith(id):
                nodes.append(LineageNode(table.name, row))
        for row in table.read_rejections().to_pylist():
            if row["id"].startswith(id) or row["input_id"].startswith(id):
                nodes.append(LineageNode(table.name, row, rejected=True))
    return nodes


def _add_ancestors(run: _Run, node: LineageNode, visited: set[tuple[str, str]]) -> None:
    """Fill in a row's parents: the same id in a flow that its flow was made from, or the ids in `parents`."""
    upstream = run.list_upstream(node.flow)
    for id in dict.fromkeys([node.row["id"], *(node.row.get("parents") or [])]):
        matches = [match for match in find(upstream, id) if match.row["id"] == id and not match.rejected]
        if matches and (matches[-1].flow, id) not in visited:
            visited.add((matches[-1].flow, id))
            _add_ancestors(run, matches[-1], visited)
            node.parents.append(matches[-1])


def _render_value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_render_value, value)) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _select_new(row: dict[str, Any], parents: Sequence[dict[str, Any]], column: str) -> list[dict[str, str]]:
    """Select the entries of a row's stages or weights that no parent has."""
    inherited = [entry for parent in parents for entry in parent[column] or []]
    return [entry for entry in row[column] or [] if entry not in inherited]


def _render(node: LineageNode, depth: int) -> Iterator[str]:
    indent, row = "  " * depth, node.row
    if node.rejected:
        yield f"{indent}{row['id']}  {row['outcome']} in flow {node.flow}, stage {row['stage']}: {row['reason']}"
        if row["detail"]:
            yield f"{indent}    {row['detail']}"
        yield f"{indent}    from {row['origin']}"
        return
    yield f"{indent}{row['id']}  flow {node.flow}"
    # what is written of a parent below is not repeated
    parents = [parent.row for parent in node.parents]
    source = {name: row[name] for name in ("origin", "licence", "split", "scene_id")}
    if not any(source.items() <= parent.items() for parent in parents):
        origin, licence, split, scene = source.values()
        yield f"{indent}    from {origin}  licence {licence}  split {split}  scene {scene}"
    if stages := _select_new(row, parents, "stages"):
        seed = f"  seed {row['seed']}" if not parents else ""
        yield f"{indent}    stages " + ", ".join(f"{entry['name']} {entry['value']}" for entry in stages) + seed
    for entry in _select_new(row, parents, "weights"):
        yield f"{indent}    weights {entry['name']} sha256 {entry['value'][:16]}"
    values = {name: value for name, value in row.items() if name not in HIDDEN_COLUMNS and value is not None}
    values = {name: value for name, value in values.items() if all(other.get(name) != value for other in parents)}
    if values:
        yield f"{indent}    " + "  ".join(f"{name}={_render_value(value)}" for name, value in values.items())
    for parent in node.parents:
        yield from _render(parent, depth + 1)


def describe_row(stores: Sequence[Store], id: str, pictures: Path | None = None) -> str:
    """Describe the origin of a row as text: the row, and indented below it what it was made from.

    Args:
        stores: runs; the first one that has the id counts.
        id: of a row or of a rejected input, or its first letters.
        pictures: a folder for the pictures of the row itself, as PNG.

    Raises:
        UnknownId: no row has it, or more than one.
        NoRun: one of the stores has no run.
        StorageError: the folder for the pictures cannot be made.
    """
    for store in stores:
        run = _Run(store)
        matches = find(run.tables.values(), id)
        if not matches:
            continue
        ids = {match.row["id"] for match in matches}
        if id not in ids and len({name.split(".")[0] for name in ids}) > 1:
            raise UnknownId(f"'{id}' begins {len(ids)} ids: {', '.join(sorted(ids)[:5])} …; give more of it")
        exact = [match for match in matches if match.row["id"] == id] or matches
        last = [match for match in exact if match.flow == exact[-1].flow]
        for match in last:
            if not match.rejected:
                _add_ancestors(run, match, set())
        if pictures:
            _write_pictures(run.tables[last[0].flow], last[0], pictures)
        return f"run {store.uri}\n" + "\n".join(escape_controls(line) for match in last for line in _render(match, 0))
    runs = ", ".join(store.uri for store in stores) or "there is no run below runs/; name one with --run"
    raise UnknownId(f"no row and no rejected input has an id like '{id}' ({runs})")


def _write_pictures(table: Table, node: LineageNode, folder: Path) -> None:
    if node.rejected:
        raise UnknownId(f"{node.row['id']} was {node.row['outcome']}: there are no pictures of it")
    record = table.row(node.row["shard"], node.row["row"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write pictures into {folder}: {error.strerror}") from error
    kinds = {**{name: kind for name, kind in TRIPLET.items() if kind in PICTURES}, **table.schema}
    for name, value in record.items():
        if value is not None and hasattr(value, "shape") and kinds.get(name, Kind.RGB) in PICTURES:
            Image.fromarray(value).save(folder / f"{re.sub(NO_LETTER, '_', name)}.png")
