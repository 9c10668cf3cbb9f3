"""A loop's triplets as one dataset, though they lie in many runs; and what people said of candidates as another."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from rasura.manifests.tables import NoTable, Table, Tables
from rasura.pipeline.loop import steps as loop_steps
from rasura.pipeline.loop.candidates import Reader, Ref
from rasura.pipeline.loop.state import Loop
from rasura.pipeline.training import votes as loop_votes

Told = Mapping[str, Mapping[str, Any]]
"""More of rows, by their ids: the score or the verdict with which they were chosen."""


class _Part(Table):
    """Some rows of a run's table, under a name that says which run."""

    def __init__(self, of: Table, name: str, ids: set[str]) -> None:
        super().__init__(of.tables, name, of.lines, of.schema, of.whole)
        self.of, self.ids = of, ids

    def light(self, columns: Sequence[str] | None = None) -> pa.Table:
        found = self.of.light(columns)
        return found.filter(pa.array([id in self.ids for id in found["id"].to_pylist()], pa.bool_()))


class LoopTables(Tables):
    """Rows of many runs as tables of one."""

    def __init__(self, loop: Loop, refs: Sequence[Ref], told: Told) -> None:
        super().__init__(loop.store)
        self._reader, self._told = Reader(loop.store), told
        self._ids: dict[tuple[str, str], set[str]] = defaultdict(set)
        for ref in refs:
            self._ids[ref.run, ref.table].add(ref.id)
        self._names = {f"{run} {table}": (run, table) for run, table in self._ids}

    def names(self) -> list[str]:
        return list(self._names)

    def table(self, name: str) -> Table:
        run, table = self._names[name]
        return _Part(self._reader.tables(run).table(table), name, self._ids[run, table])

    def encoded(self, name: str, shard: str, row: int, columns: Sequence[str] | None = None) -> pa.Table:
        """A row with what is told of it; a reference in it names its table as this class does."""
        run, _, table = name.rpartition(" ")
        found = self._reader.tables(run).encoded(table, shard, row, columns)
        if "id" in found.column_names:
            told = self._told.get(found["id"][0].as_py(), {})
            for column in ("score", "verdict"):
                if column in found.column_names and column in told:
                    found = _put(found, column, told[column])
        if "ref_table" in found.column_names and (there := found["ref_table"][0].as_py()) is not None:
            found = _put(found, "ref_table", f"{run} {there}")
        return found


def _put(row: pa.Table, column: str, value: Any) -> pa.Table:
    """A table of one row with another value in a column."""
    at = row.column_names.index(column)
    return row.set_column(at, row.schema.field(at), pa.array([value], row.schema.field(at).type))


def triplets(loop: Loop) -> LoopTables:
    """What the loop's remover learns from now: the initial triplets, and what its rounds kept so far.

    Of a human round they have the verdict, of an automatic one the judge's score.
    """
    found, told = loop_steps.refs(loop, "initial"), dict[str, dict[str, Any]]()
    for number, one in enumerate(loop.recipe.rounds, 1):
        if loop.result("add", number) is None:
            continue
        kept = loop_steps.refs(loop, f"rounds/{number:02d}/kept")
        found += kept
        if loop.recipe.keep != "promise" and (loop.recipe.keep != "humans" or one.kind == "auto"):
            continue  # kept unseen
        scores = _scores(loop, number) if one.kind == "auto" else {}
        told |= {ref.id: {"verdict": "yes"} if one.kind == "human" else {"score": scores.get(ref.id)} for ref in kept}
    return LoopTables(loop, found, told)


def votes(loop: Loop) -> LoopTables:
    """Candidates that the votes of human rounds accept or refuse, with that verdict: what a judge learns from."""
    found, told = list[Ref](), dict[str, dict[str, Any]]()
    for number, one in enumerate(loop.recipe.rounds, 1):
        if one.kind != "human" or loop.result("votes", number) is None:
            continue
        tallies = loop_votes.standing(loop_votes.of_folder(loop.votes(number), loop.recipe.reviewers))
        for item, row in loop_votes.candidates_of(loop.round(number)).items():
            tally = tallies.get(item)
            if tally is not None and tally["yes"] != tally["no"]:
                table, shard, at = row.place
                found.append(Ref(f"./rounds/{number:02d}", table, shard, at, row.id, row.id, row.label))
                told[row.id] = {"verdict": "yes" if tally["yes"] > tally["no"] else "no"}
    return LoopTables(loop, found, told)


FLOWS: Mapping[str, Callable[[Loop], LoopTables]] = {"triplets": triplets, "votes": votes}
"""What of a loop can be exported; the first by default."""


def tables_of(loop: Loop, flow: str) -> LoopTables:
    """One of FLOWS.

    Raises:
        NoTable: there is no such thing, or nothing in it yet.
    """
    if flow not in FLOWS:
        raise NoTable(f"a loop has no flow '{flow}'; it has {', '.join(FLOWS)}")
    if loop.result("initial", 0) is None:
        raise NoTable(f"{loop.folder}: the loop has not begun; run its recipe first")
    found = FLOWS[flow](loop)
    if not found.names():
        raise NoTable(f"{loop.folder}: there are no {flow} yet")
    return found


def _scores(loop: Loop, number: int) -> dict[str, float]:
    """A round's scores by the ids of its candidates."""
    run = loop.round(number)
    by_item = json.loads(run.read("scores.json"))
    rows = loop_votes.candidates_of(run)
    return {rows[item].id: score for item, score in by_item.items()}
