"""Where a row came from: its parents in the run, back to the photos, and what every step did to it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from rasura.manifests.schemas import PICTURES, PROVENANCE, TRIPLET, Kind
from rasura.manifests.storage import Store
from rasura.manifests.tables import REFERENCE, Table, Tables
from rasura.pipeline.run.accounting import about

HIDDEN = {*PROVENANCE, *REFERENCE, "bytes", "shard", "row"}


class UnknownId(LookupError):
    """No row, and no dropped input, has such an id."""


@dataclass
class Found:
    """A row, or a dropped input, in a table."""

    flow: str
    row: dict[str, Any]
    dropped: bool = False
    parents: list["Found"] = field(default_factory=list)


def runs_here() -> list[Store]:
    """Runs in the folder `runs`, newest first."""
    plans = sorted(Path("runs").glob("*/plan.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [Store(path.parent) for path in plans]


def _tables(run: Store) -> list[Table]:
    tables = Tables(run)
    return [tables.table(name) for name in about(run)["flows"] if name in tables.names()]


def find(tables: Sequence[Table], id: str) -> list[Found]:
    """Rows and dropped inputs whose id is `id` or begins with it, upstream flows first."""
    found = []
    for table in tables:
        for row in table.light().to_pylist():
            if row["id"].startswith(id):
                found.append(Found(table.name, row))
        for row in table.dropped().to_pylist():
            if row["id"].startswith(id) or row["input_id"].startswith(id):
                found.append(Found(table.name, row, dropped=True))
    return found


def _ancestors(tables: Sequence[Table], row: Found, seen: set[tuple[str, str]]) -> None:
    """Fills in a row's parents: the same id in an earlier flow, or the ids in `parents`."""
    names = [table.name for table in tables]
    earlier = tables[: names.index(row.flow)]
    for id in dict.fromkeys([row.row["id"], *(row.row.get("parents") or [])]):
        hits = [hit for hit in find(earlier, id) if hit.row["id"] == id and not hit.dropped]
        if hits and (hits[-1].flow, id) not in seen:
            seen.add((hits[-1].flow, id))
            _ancestors(tables, hits[-1], seen)
            row.parents.append(hits[-1])


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _new(row: dict[str, Any], before: Sequence[dict[str, Any]], column: str) -> list[dict[str, str]]:
    """Entries of a row's stages or weights that no parent has."""
    known = [entry for other in before for entry in other[column] or []]
    return [entry for entry in row[column] or [] if entry not in known]


def _lines(found: Found, depth: int) -> Iterator[str]:
    pad, row = "  " * depth, found.row
    if found.dropped:
        yield f"{pad}{row['id']}  {row['outcome']} in flow {found.flow}, stage {row['stage']}: {row['reason']}"
        if row["detail"]:
            yield f"{pad}    {row['detail']}"
        yield f"{pad}    from {row['origin']}"
        return
    yield f"{pad}{row['id']}  flow {found.flow}"
    # what a parent below has said already is not said again
    before = [parent.row for parent in found.parents]
    place = {name: row[name] for name in ("origin", "licence", "split", "scene_id")}
    if not any(place.items() <= other.items() for other in before):
        where, licence, split, scene = place.values()
        yield f"{pad}    from {where}  licence {licence}  split {split}  scene {scene}"
    if stages := _new(row, before, "stages"):
        seed = f"  seed {row['seed']}" if not before else ""
        yield f"{pad}    stages " + ", ".join(f"{entry['name']} {entry['value']}" for entry in stages) + seed
    for entry in _new(row, before, "weights"):
        yield f"{pad}    weights {entry['name']} sha256 {entry['value'][:16]}"
    told = {name: value for name, value in row.items() if name not in HIDDEN and value is not None}
    told = {name: value for name, value in told.items() if not any(other.get(name) == value for other in before)}
    if told:
        yield f"{pad}    " + "  ".join(f"{name}={_value(value)}" for name, value in told.items())
    for parent in found.parents:
        yield from _lines(parent, depth + 1)


def lineage(stores: Sequence[Store], id: str, pictures: Path | None = None) -> str:
    """The story of a row as text: the row, and indented below it what it was made from.

    Args:
        pictures: a folder for the pictures of the row itself, as PNG.

    Raises:
        UnknownId: nothing, or more than one row, answers to it.
        NoRun
    """
    for store in stores:
        tables = _tables(store)
        hits = find(tables, id)
        if not hits:
            continue
        ids = {hit.row["id"] for hit in hits}
        if id not in ids and len({name.split(".")[0] for name in ids}) > 1:
            raise UnknownId(f"'{id}' begins {len(ids)} ids: {', '.join(sorted(ids)[:5])} …; give more of it")
        exact = [hit for hit in hits if hit.row["id"] == id] or hits
        last = [hit for hit in exact if hit.flow == exact[-1].flow]
        for hit in last:
            if not hit.dropped:
                _ancestors(tables, hit, set())
        if pictures:
            _write_pictures(tables, last[0], pictures)
        return f"run {store.uri}\n" + "\n".join(line for hit in last for line in _lines(hit, 0))
    where = ", ".join(store.uri for store in stores) or "no run found below runs/; give one with --run"
    raise UnknownId(f"no row and no dropped input has an id like '{id}' ({where})")


def _write_pictures(tables: Sequence[Table], found: Found, folder: Path) -> None:
    if found.dropped:
        raise UnknownId(f"{found.row['id']} was {found.row['outcome']}: there are no pictures of it")
    table = next(table for table in tables if table.name == found.flow)
    record = table.row(found.row["shard"], found.row["row"])
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {**{name: kind for name, kind in TRIPLET.items() if kind in PICTURES}, **table.schema}
    for name, value in record.items():
        if value is not None and hasattr(value, "shape") and kinds.get(name, Kind.RGB) in PICTURES:
            Image.fromarray(value).save(folder / f"{name}.png")
