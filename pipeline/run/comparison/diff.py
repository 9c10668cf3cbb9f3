"""What differs between two runs, or two datasets: rows added, gone and changed, by the reason.

A row's id is a hash of its inputs, so that rows of one id have the same inputs. Rows that are gone are looked up in
what the other run rejected; columns are compared one by one.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rasura.manifests.errors import InputError
from rasura.manifests.formats.target import LEFT_OUT
from rasura.manifests.json_lines import parse_json_lines
from rasura.manifests.parquet import RowReader, open_parquet
from rasura.manifests.run_layout import DATASET, DATASET_MANIFEST, PLAN
from rasura.manifests.schemas import PICTURES
from rasura.manifests.shards import REJECTED_SCHEMA
from rasura.manifests.spelling import format_count, suggest
from rasura.manifests.storage import Store
from rasura.manifests.tables import RUN_REFERENCE, Tables
from rasura.stages.sources.files import read_file
from rasura.stages.sources.listing import MissingInput, find_files

PLACES = frozenset({"shard", "row", "path", *RUN_REFERENCE})
"""Columns that say where a row is, and nothing of what it is."""
VERSIONS = "stages"
SHOWN = 6
UNRECORDED = "not in the dataset, which does not say why (compare the runs; an export of other flows has other rows)"


class NotComparable(InputError):
    """A place that is no run and no dataset with ids, or two that share no table."""


@dataclass
class Side:
    """The rows of one table of a run, or of a dataset.

    Attributes:
        rows: without pictures, by id.
        pictures: names of the columns of pictures.
        read_picture: returns the encoded picture of a row in a column, from its line in `rows`; None where it has none.
        rejections: of the whole run, or what the dataset's export left out, with the columns of `RejectedRow`.
        has_inputs: whether it is of a run, which accounts for all of its inputs.
    """

    rows: pa.Table
    pictures: Sequence[str]
    read_picture: Callable[[Mapping[str, Any], str], bytes | None]
    rejections: pa.Table
    has_inputs: bool = True


@dataclass
class TableDiff:
    """The difference of two tables of one name.

    Attributes:
        name: of the table.
        before, after: number of rows.
        added, gone: rows by the reason.
        changed: number of rows with a changed value.
        columns: changed rows by column, and stages by their versions.
        columns_gone, columns_added: columns that only one of the two has, which are not compared.
        examples: ids of added, gone and changed rows.
    """

    name: str
    before: int
    after: int
    added: Counter[str] = field(default_factory=Counter)
    gone: Counter[str] = field(default_factory=Counter)
    changed: int = 0
    columns: Counter[str] = field(default_factory=Counter)
    columns_gone: Sequence[str] = ()
    columns_added: Sequence[str] = ()
    examples: dict[str, list[str]] = field(default_factory=dict)

    def describe(self) -> Iterator[str]:
        """Yield the lines of the difference."""
        counts = f"{self.added.total()} added, {self.gone.total()} gone, {self.changed} changed"
        yield f"{self.name}: {self.before} rows before, {self.after} after: {counts}"
        for title, reasons in (("added", self.added), ("gone", self.gone), ("changed", self.columns)):
            if reasons:
                yield f"  {title}, such as {', '.join(id[:12] for id in self.examples.get(title, ()))}"
            for reason, count in sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0])):
                yield f"    {count} {reason}"
        for title, names in (("before", self.columns_gone), ("after", self.columns_added)):
            if names:
                more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                yield f"  {format_count(len(names), 'column')} only {title}: {', '.join(names[:SHOWN])}{more}"

    def to_json_values(self) -> dict[str, Any]:
        """Return its values as JSON has them."""
        return {
            "table": self.name,
            "rows": [self.before, self.after],
            "added": dict(self.added),
            "gone": dict(self.gone),
            "changed": self.changed,
            "columns": dict(self.columns),
            "columns_gone": list(self.columns_gone),
            "columns_added": list(self.columns_added),
            "examples": self.examples,
        }


def diff(before: str, after: str, table: str | None = None, pictures: bool = False) -> list[TableDiff]:
    """Compare two runs, or two datasets; a run and a dataset by the dataset that the run wrote.

    Args:
        before, after: folders or URIs.
        table: only the table of this flow.
        pictures: whether the pictures are compared, too, byte by byte; else by what was measured on them.

    Raises:
        NotComparable: one is neither, or they share no table.
    """
    sides = [open_place(place) for place in (before, after)]
    if any(DATASET in side for side in sides):
        sides = [
            side if DATASET in side else open_place(f"{place.rstrip('/')}/{DATASET}")
            for side, place in zip(sides, (before, after), strict=True)
        ]
    names = [name for name in sides[0] if name in sides[1]]
    if table is not None and table not in names:
        raise NotComparable(f"there is no table '{table}' in both; {suggest(table, names)}")
    if not names:
        listed = [", ".join(side) or "none" for side in sides]
        raise NotComparable(f"they share no table: '{before}' has {listed[0]}, '{after}' has {listed[1]}")
    chosen = names if table is None else [table]
    return [compare_sides(name, sides[0][name](), sides[1][name](), pictures) for name in chosen]


def open_place(place: str) -> Mapping[str, Callable[[], Side]]:
    """Return functions that read the tables of a run, by name, or the one of a dataset.

    Raises:
        NotComparable: the place is neither.
    """
    store = Store(place)
    if store.exists(PLAN):
        tables = Tables(store)
        return {name: partial(_read_run_table, tables, name) for name in tables.names()}
    try:
        files = [file.path for file in find_files(place, "*.parquet")]
    except MissingInput as error:
        is_export = store.exists(DATASET_MANIFEST)
        what = "an export that cannot be compared; export as 'huggingface'" if is_export else "no run, and no dataset"
        raise NotComparable(f"'{place}' is {what}: {error}") from None
    return {DATASET: partial(_read_dataset, place, files)}


def _read_run_table(tables: Tables, name: str) -> Side:
    table = tables.table(name)
    pictures = [column for column, kind in table.full_schema.items() if kind in PICTURES]

    def read_picture(row: Mapping[str, Any], column: str) -> bytes | None:
        place = tables.locate(name, row["shard"], row["row"])
        raw = tables.read_raw(place["ref_table"], place["ref_shard"], place["ref_row"], [column]).to_pylist()[0]
        return (raw.get(column) or {}).get("bytes")

    rejections = [tables.table(other).read_rejections() for other in tables.names()]
    return Side(table.read_light(), pictures, read_picture, pa.concat_tables(rejections))


def _read_dataset(place: str, files: Sequence[str]) -> Side:
    """Read the rows of a dataset's files.

    Raises:
        NotComparable: they have no ids.
    """
    parts, pictures = [], list[str]()
    for path in files:
        with open_parquet(path) as source:
            schema = source.schema_arrow
            if "id" not in schema.names:
                raise NotComparable(f"'{path}' has no column id, by which rows could be compared")
            pictures = [column.name for column in schema if _holds_pictures(column.type)]
            part = source.read(columns=[name for name in schema.names if name not in pictures], use_threads=False)
        part = part.append_column("shard", pa.array([path] * len(part), pa.string()))
        parts.append(part.append_column("row", pa.array(range(len(part)), pa.int64())))
    reader = RowReader(pictures)

    def read_picture(row: Mapping[str, Any], column: str) -> bytes | None:
        cells = reader.read_row(row["shard"], row["row"])
        return ((cells or {}).get(column) or {}).get("bytes")

    rows = pa.concat_tables(parts, promote_options="default").sort_by("id")
    return Side(rows, pictures, read_picture, _read_left_out(place), has_inputs=False)


def _read_left_out(place: str) -> pa.Table:
    """Read what the export of a dataset left out, with the columns of `RejectedRow`.

    Raises:
        NotComparable: a list of it cannot be read.
    """
    try:
        files = [file.path for file in find_files(place, LEFT_OUT)]
    except MissingInput:
        return REJECTED_SCHEMA.empty_table()
    rows = []
    for path in files:
        try:
            entries = [(str(entry["id"]), str(entry["reason"])) for entry in parse_json_lines(read_file(path))]
        except (ValueError, KeyError, TypeError) as error:
            raise NotComparable(f"'{path}' is no list of what an export left out: {error!r}") from None
        rows += [{"id": id, "stage": "export", "outcome": "left out", "reason": reason} for id, reason in entries]
    return pa.Table.from_pylist(rows, schema=REJECTED_SCHEMA)


def _holds_pictures(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)


def compare_sides(name: str, before: Side, after: Side, pictures: bool = False) -> TableDiff:
    """Compare two tables.

    Args:
        name: of the table.
        before, after: its rows.
        pictures: whether the pictures are compared, too.
    """
    ids = [np.asarray(side.rows["id"].to_pylist(), object) for side in (before, after)]
    found = TableDiff(name, len(ids[0]), len(ids[1]))
    places = [{id: index for index, id in enumerate(column)} for column in ids]
    gone = [index for id, index in places[0].items() if id not in places[1]]
    added = [index for id, index in places[1].items() if id not in places[0]]
    only_before = before.rows.take(pa.array(gone, pa.int64()))
    only_after = after.rows.take(pa.array(added, pa.int64()))
    found.gone = _count_reasons(only_before, only_after, after, "its input is not there")
    found.added = _count_reasons(only_after, only_before, before, "its input was not there")
    shared = [id for id in places[0] if id in places[1]]
    pairs = [
        side.rows.take(pa.array([place[id] for id in shared], pa.int64()))
        for side, place in zip((before, after), places, strict=True)
    ]
    changed = np.zeros(len(shared), bool)
    names = [[name for name in side.rows.column_names if name not in PLACES] for side in (before, after)]
    found.columns_gone = [name for name in names[0] if name not in names[1]]
    found.columns_added = [name for name in names[1] if name not in names[0]]
    for column in (name for name in names[0] if name in names[1]):
        unequal = _compare_columns(pairs[0][column], pairs[1][column])
        changed |= unequal
        if column == VERSIONS and unequal.any():
            found.columns.update(_describe_versions(pairs, np.flatnonzero(unequal)))
        elif unequal.any():
            found.columns[column] += int(unequal.sum())
    if pictures:
        changed |= _compare_pictures(before, after, pairs, found.columns)
    found.changed = int(changed.sum())
    found.examples = {
        title: examples[:SHOWN]
        for title, examples in {
            "added": [ids[1][index] for index in added],
            "gone": [ids[0][index] for index in gone],
            "changed": [shared[index] for index in np.flatnonzero(changed)],
        }.items()
        if examples
    }
    return found


def _count_reasons(rows: pa.Table, others: pa.Table, side: Side, otherwise: str) -> Counter[str]:
    """Count why rows are not among those of the other side: what it rejected them or their inputs for.

    Args:
        rows: without partner.
        others: the rows without partner of the other side, among which are those of the same input made otherwise.
        side: the other one.
        otherwise: the reason where the other side has not had the input.
    """
    reasons: dict[str, str] = {}
    for rejection in side.rejections.to_pylist():
        text = f"{rejection['outcome']} by {rejection['stage']}: {rejection['reason']}"
        for key in (rejection["id"], rejection["input_id"], rejection["origin"]):
            if key:
                reasons.setdefault(key, text)
    origins = set(others["origin"].to_pylist()) if "origin" in others.column_names else set()
    counts: Counter[str] = Counter()
    columns = [name for name in ("id", "origin", "parents") if name in rows.column_names]
    for row in rows.select(columns).to_pylist():
        keys = [row["id"], *(row.get("parents") or ()), row.get("origin")]
        reason = next((reasons[key] for key in keys if key in reasons), None)
        if reason is None and row.get("origin") in origins:
            reason = "made of other inputs or by other steps"
        counts[reason or (otherwise if side.has_inputs else UNRECORDED)] += 1
    return counts


def _compare_columns(first: pa.ChunkedArray, second: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Return which rows of two columns differ, bool; two values that are not there, or no numbers, are equal."""
    if first.type == second.type and not pa.types.is_nested(first.type) and not pa.types.is_null(first.type):
        equal = pc.fill_null(pc.equal(first, second), False)
        both_null = pc.and_(pc.is_null(first, nan_is_null=True), pc.is_null(second, nan_is_null=True))
        return ~np.asarray(pc.or_(equal, both_null), bool)
    values = zip(first.to_pylist(), second.to_pylist(), strict=True)
    return np.array([one != other and repr(one) != repr(other) for one, other in values], bool)


def _describe_versions(pairs: Sequence[pa.Table], indices: Iterable[int]) -> Counter[str]:
    """Count the rows by the stages whose versions differ."""
    counts: Counter[str] = Counter()
    columns = [pair[VERSIONS] for pair in pairs]
    for index in indices:
        first, second = ({e["name"]: e["value"] for e in column[int(index)].as_py() or ()} for column in columns)
        for stage in sorted({*first, *second}):
            if first.get(stage) != second.get(stage):
                counts[f"stage {stage}: version {first.get(stage, 'none')} → {second.get(stage, 'none')}"] += 1
    return counts


def _compare_pictures(
    before: Side, after: Side, pairs: Sequence[pa.Table], counts: Counter[str]
) -> npt.NDArray[np.bool_]:
    """Return which rows have other pictures, by their encoded bytes; count the columns."""
    columns = [name for name in before.pictures if name in after.pictures]
    places = [pair.select(["shard", "row"]).to_pylist() for pair in pairs]
    changed = np.zeros(len(places[0]), bool)
    for index, (first, second) in enumerate(zip(*places, strict=True)):
        for column in columns:
            if before.read_picture(first, column) != after.read_picture(second, column):
                changed[index] = True
                counts[column] += 1
    return changed
