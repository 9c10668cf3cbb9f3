"""Rows of runs to learn from and to make candidates of: their places, and the reader of their pictures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rasura.manifests.errors import InputError
from rasura.manifests.ids import compute_seed
from rasura.manifests.run_layout import read_plan
from rasura.manifests.spelling import suggest
from rasura.manifests.storage import Store
from rasura.manifests.tables import NoTable, Table, Tables
from rasura.pipeline.training.settings import FlowRows

PICTURES = ("source", "mask")
"""Columns of a picture with a hole: those that a remover fills."""
TRIPLET = (*PICTURES, "target")
"""Columns of a triplet."""
FOREGROUND = "foreground_mask"
"""Column of the object and its effects, M_fg."""

LOCAL = "./"
"""Prefix of a run that is named from the reader's own folder, as a loop's rounds are."""


class WrongRows(InputError):
    """Rows of a flow that cannot be used for what they were chosen for."""


@dataclass(frozen=True)
class RowRef:
    """The place of a row, and what it can be chosen by without opening its pictures."""

    run: str
    table: str
    shard: str
    row: int
    id: str
    scene: str
    label: str | None = None


class RowReader:
    """A reader of rows in any number of runs; each run is opened once.

    Args:
        home: the folder that runs named with `./` are below.
    """

    def __init__(self, home: Store) -> None:
        self.home = home
        self._tables: dict[str, Tables] = {}

    def open_tables(self, run: str) -> Tables:
        """Return the tables of a run."""
        if run not in self._tables:
            local = run.startswith(LOCAL)
            self._tables[run] = Tables(self.home.sub(run.removeprefix(LOCAL)) if local else Store(run))
        return self._tables[run]

    def open_flow(self, run: str, flow: str, columns: Sequence[str] = PICTURES) -> Table:
        """Return the table of a flow whose rows have some columns; `object_mask` counts as the mask.

        Raises:
            NoRun: there is no such run.
            NoTable: the run has no such flow, or it is not complete.
            WrongRows: the rows lack a column.
        """
        tables = self.open_tables(run)
        if flow not in (flows := read_plan(tables.run).flows):
            raise NoTable(f"'{run}' has no flow '{flow}'; {suggest(flow, flows)}")
        table = tables.table(flow)
        present = {"mask" if name == "object_mask" else name for name in table.full_schema}
        if missing := [name for name in columns if name not in present]:
            noun = "no triplets" if "target" in columns else "no pictures with a mask"
            fitting = [name for name in tables.names() if set(columns) <= set(tables.table(name).full_schema)]
            remedy = f"flows that fit: {', '.join(fitting)}" if fitting else "none of the run's flows fits"
            raise WrongRows(f"rows of '{flow}' in {run} are {noun}: they have no {', '.join(missing)}; {remedy}")
        return table

    def read_row(self, ref: RowRef) -> dict[str, Any]:
        """Read a row with its pictures. Its `mask` is the object mask, whichever column has it."""
        row = self.open_tables(ref.run).row(ref.table, ref.shard, ref.row)
        if row.get("mask") is None:
            row["mask"] = row.get("object_mask")
        return row

    def list_rows(self, selections: Sequence[FlowRows], seed: int) -> list[RowRef]:
        """List the rows of some flows, each flow's in a random order that follows from the seed.

        Raises:
            NoTable: a run has no such flow.
        """
        refs = []
        for selection in selections:
            table = self.open_tables(selection.run).table(selection.flow)
            flow_refs = [
                RowRef(
                    run=selection.run,
                    table=selection.flow,
                    shard=row["shard"],
                    row=row["row"],
                    id=row["id"],
                    scene=row.get("scene_id") or row["id"],
                    label=row.get("label"),
                )
                for row in table.read_light(("id", "scene_id", "label", "split")).to_pylist()
                if selection.split in (None, row.get("split"))
            ]
            flow_refs.sort(key=lambda ref: (compute_seed(seed, "loop", ref.id), ref.id))
            refs += flow_refs[: selection.limit]
        return refs

    def read_batches(self, refs: Sequence[RowRef], size: int) -> Iterator[list[dict[str, Any]]]:
        """Yield rows with their pictures, at most `size` at a time."""
        for start in range(0, len(refs), size):
            yield [self.read_row(ref) for ref in refs[start : start + size]]
