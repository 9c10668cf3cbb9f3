"""The datasets of a loop, whose rows are in many runs: its triplets, and the candidates with their verdicts."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from rasura.manifests.schemas import Kind, Schema, build_arrow_schema
from rasura.manifests.storage import Store
from rasura.manifests.tables import NoTable, Table, Tables
from rasura.pipeline.loop.decide import find_verdict
from rasura.pipeline.loop.results import AddResult, InitialResult, VotesResult
from rasura.pipeline.loop.state import DECISIONS, SCORES, Loop, local_run, round_path
from rasura.pipeline.training.rows import RowReader, RowRef
from rasura.pipeline.training.votes import index_candidates, tally_votes

Annotations = Mapping[str, Mapping[str, Any]]
"""Columns to set in rows, by their ids: the score or the verdict with which they were chosen."""
ANNOTATED: Schema = {"score": Kind.FLOAT, "verdict": Kind.STRING}
"""The columns of `Annotations`, which every row has: a candidate's own table is older than its score."""
_ANNOTATED_FIELDS = build_arrow_schema(ANNOTATED)


class _Part(Table):
    """Some rows of a run's table, under a name that includes the run."""

    def __init__(self, table: Table, name: str, ids: set[str]) -> None:
        full_schema = {**table.full_schema, **ANNOTATED}
        super().__init__(table.tables, name, table.commits, table.schema, full_schema)
        self._table, self._ids = table, ids

    def read_light(self, columns: Sequence[str] | None = None) -> pa.Table:
        light = self._table.read_light(columns)
        return light.filter(pa.array([id in self._ids for id in light["id"].to_pylist()], pa.bool_()))


class LoopTables(Tables):
    """Rows of many runs, as tables of one."""

    def __init__(self, home: Store, refs: Sequence[RowRef], annotations: Annotations) -> None:
        super().__init__(home)
        self._reader, self._annotations = RowReader(home), annotations
        self._ids: dict[tuple[str, str], set[str]] = defaultdict(set)
        for ref in refs:
            self._ids[ref.run, ref.table].add(ref.id)
        self._names = {f"{run} {table}": (run, table) for run, table in self._ids}
        self._refs = refs

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.run, self._refs, self._annotations)

    def names(self) -> list[str]:
        return list(self._names)

    def table(self, name: str) -> Table:
        run, table = self._names[name]
        return _Part(self._reader.open_tables(run).table(table), name, self._ids[run, table])

    def read_raw(self, name: str, shard: str, row: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a row with its annotations; a reference in it names its table as this class does."""
        run, _, table = name.rpartition(" ")
        encoded = self._reader.open_tables(run).read_raw(table, shard, row, columns)
        if "id" in encoded.column_names:
            for column, value in self._annotations.get(encoded["id"][0].as_py(), {}).items():
                if columns is None or column in columns:
                    encoded = _set_value(encoded, _ANNOTATED_FIELDS.field(column), value)
        if "ref_table" in encoded.column_names and (ref_table := encoded["ref_table"][0].as_py()) is not None:
            encoded = _set_value(encoded, encoded.schema.field("ref_table"), f"{run} {ref_table}")
        return encoded


def _set_value(row: pa.Table, field: pa.Field, value: Any) -> pa.Table:
    """Return a table of one row with a value in a column, which is added where it is not there."""
    if field.name in row.column_names:
        row = row.drop_columns([field.name])
    return row.append_column(field, pa.array([value], field.type))


def collect_triplets(loop: Loop) -> LoopTables:
    """Collect the training set of the loop's remover: the initial triplets, and those that its rounds kept so far.

    Triplets of a human round have the verdict, those of an automatic one the discriminator's score, and the verdict
    where its spot check asked for one.
    """
    refs, annotations = loop.read_rows("initial"), dict[str, dict[str, Any]]()
    for number, entry in enumerate(loop.recipe.rounds, 1):
        if loop.read_result(AddResult, number) is None:
            continue
        kept = loop.read_rows(f"{round_path(number)}/kept")
        refs += kept
        if loop.recipe.keep != "precision_target" and (loop.recipe.keep != "humans" or entry.kind == "auto"):
            continue  # a control: nobody has judged them
        if entry.kind == "human":
            annotations |= {ref.id: {"verdict": "yes"} for ref in kept}
        else:
            scores, decisions = _read_scores(loop, number), loop.read_json(f"{round_path(number)}/{DECISIONS}", {})
            annotations |= {
                ref.id: {"score": scores.get(ref.id), "verdict": decisions.get(ref.id, {}).get("verdict")}
                for ref in kept
            }
    return LoopTables(loop.store, refs, annotations)


def collect_votes(loop: Loop) -> LoopTables:
    """Collect the training set of the discriminator: what was voted on, with the verdict of most votes.

    These are the candidates of human rounds and those of the spot checks of automatic ones.
    """
    refs, annotations = list[RowRef](), dict[str, dict[str, Any]]()
    for number, entry in enumerate(loop.recipe.rounds, 1):
        if loop.read_result(VotesResult if entry.kind == "human" else AddResult, number) is None:
            continue
        tallies = tally_votes(loop.read_votes(number))
        for item, row in index_candidates(loop.open_round(number)).items():
            tally = tallies.get(item)
            if tally is not None and (verdict := find_verdict(tally)):
                table, shard, position = row.place
                refs.append(RowRef(local_run(number), table, shard, position, row.id, row.id, row.label))
                annotations[row.id] = {"verdict": verdict}
    return LoopTables(loop.store, refs, annotations)


FLOWS: Mapping[str, Callable[[Loop], LoopTables]] = {"triplets": collect_triplets, "votes": collect_votes}
"""The flows of a loop that can be exported; the first is the default."""


def open_flow(loop: Loop, flow: str) -> LoopTables:
    """Open one of `FLOWS`.

    Raises:
        NoTable: there is no such flow, or nothing in it yet.
    """
    if flow not in FLOWS:
        raise NoTable(f"a loop has no flow '{flow}'; it has {', '.join(FLOWS)}")
    if loop.read_result(InitialResult, 0) is None:
        raise NoTable(f"the loop in '{loop.store.uri}' has not begun: run its recipe first")
    tables = FLOWS[flow](loop)
    if not tables.names():
        raise NoTable(f"the loop in '{loop.store.uri}' has no {flow} yet: `rasura loop status` says what comes next")
    return tables


def _read_scores(loop: Loop, number: int) -> dict[str, float]:
    """Read the scores of a round by the ids of its candidates."""
    run = loop.open_round(number)
    candidates = index_candidates(run)
    return {candidates[item].id: score for item, score in json.loads(run.read(SCORES)).items()}
