"""The Python API on runs: `rasura.run`, `rasura.open_run`, `rasura.check`."""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import pyarrow as pa

from rasura._checks import MissingPackage, WrongType, check_type, describe_value, read_place
from rasura.manifests.errors import UnknownNameError
from rasura.manifests.run_layout import read_plan
from rasura.manifests.safety.text import LINES, escape_controls
from rasura.manifests.spelling import format_count, suggest
from rasura.manifests.storage import Store
from rasura.manifests.tables import Table, Tables
from rasura.pipeline.run import accounting
from rasura.pipeline.run.accounting import RunAccounting

if TYPE_CHECKING:
    import pandas as pd

    from rasura.pipeline.loop.recipe import LoopRecipe
    from rasura.pipeline.recipe.plan import Plan

PLACES = ("shard", "row")
"""Columns of a listing that say where a row is on disk."""


class NoRow(UnknownNameError, IndexError):
    """An index beyond the rows of a table."""


class NoColumn(UnknownNameError, KeyError):
    """A column that a table does not have."""

    def __str__(self) -> str:  # a KeyError would put quotes around the sentence
        return escape_controls(Exception.__str__(self), LINES)


def run(
    recipe: str | Path,
    into: str | Path | None = None,
    set: Mapping[str, Any] | None = None,
    *,
    only: str | None = None,
    quiet: bool = True,
    retry_failed: bool | Sequence[str] = False,
) -> "Run":
    """Run a recipe, or go on where it was left. What is done is not done again.

    Args:
        recipe: the recipe, a YAML file.
        into: folder or URI of the run; `runs/<name of the recipe>` where None.
        set: values that override the recipe's, by dotted key, as `--set` of the command line.
        only: a flow, or a flow up to a stage (`stage` or `flow.stage`).
        quiet: False shows progress on standard error.
        retry_failed: whether rows that failed are made again, or the errors whose rows are, such as `ValueError`.

    Raises:
        RecipeError: something in the recipe is wrong; nothing was started.
        RunError, StorageError: the run cannot go on, or all inputs of a flow failed; what was committed is whole.

    Warns:
        UserWarning: a flow or the dataset has no rows; the text says why.

    Examples:
        >>> result = run("mine.yaml", into="runs/mine", set={"engine.workers": 1})
        >>> result.tables
        ['captured', 'pairs']
    """
    from rasura.pipeline.run.run import run as carry_out

    place = None if into is None else read_place(into, "run(into)")
    check_type(only or "", str, "run(only)", "a flow or a stage of the recipe")
    errors = () if retry_failed is True else retry_failed or None
    result = carry_out(read_place(recipe, "run(recipe)"), place, _read_set(set, "run"), only, quiet, errors)
    for warning in result.list_warnings():
        warnings.warn(escape_controls(warning, LINES), stacklevel=2)
    result.check()
    return Run(Store(result.run))


def check(recipe: str | Path, set: Mapping[str, Any] | None = None) -> "Plan | LoopRecipe":
    """Check the recipe of a run or of a loop, without starting anything.

    Args:
        recipe: the recipe, a YAML file.
        set: values that override the recipe's, by dotted key.

    Returns:
        Of a run the plan: `flows` by name with their stages and columns, `to_recipe()` with all defaults filled in. Of
        a loop its recipe.

    Raises:
        RecipeError: all faults, a line each, with file, line, column and the nearest right word.

    Examples:
        >>> list(check("mine.yaml").flows)
        ['pairs', 'captured']
    """
    from rasura.pipeline.cli.check import load_checked

    return load_checked(read_place(recipe, "check(recipe)"), _read_set(set, "check"))


def _read_set(set: Mapping[str, Any] | None, function: str) -> Mapping[str, Any]:
    if set is None:
        return {}
    if not isinstance(set, Mapping) or not all(isinstance(key, str) for key in set):
        raise WrongType(
            f"{function}(set) is {describe_value(set)}; give values by dotted key, for example {{'engine.workers': 1}}"
        )
    return {key: _to_plain(value) for key, value in set.items()}


def _to_plain(value: Any) -> Any:
    """Convert paths in a value to text, as a recipe has them."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {key: _to_plain(entry) for key, entry in value.items()}
    return [_to_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def open_run(uri: str | Path) -> "Run":
    """Open a run.

    Args:
        uri: the folder or bucket prefix that `rasura run` wrote into.

    Raises:
        StorageError: there is no run.

    Examples:
        >>> opened = open_run("runs/mine")
        >>> len(opened.table("captured"))
        2
    """
    store = Store(read_place(uri, "open_run(uri)"))
    read_plan(store)
    return Run(store)


class Row(Mapping[str, Any]):
    """One row of a table. Pictures are read and decoded when they are asked for, and kept while the row is.

    Examples:
        >>> row = open_run("runs/mine").table("captured")[0]
        >>> row["kind"], row["source"].dtype, row["mask"].shape == row["source"].shape[:2]
        ('captured', dtype('uint8'), True)
    """

    def __init__(self, table: Table, values: dict[str, Any]) -> None:
        self._table = table
        self._place = (values.pop("shard"), values.pop("row"))
        self._values = values

    def __getitem__(self, column: str) -> Any:
        if column not in self._values:
            if column not in self._table.full_schema:
                hint = suggest(str(column), self._table.full_schema)
                raise NoColumn(f"table '{self._table.name}' has no column {column!r}; {hint}")
            self._values |= self._table.row(*self._place, columns=[column])
        return self._values[column]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._table.full_schema, *self._values]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        origin = self._values.get("origin")
        suffix = f" from {origin!r}" if origin else ""
        return f"Row({self._values.get('id')!r} of table {self._table.name!r}{suffix})"


class Rows(Sequence[Row]):
    """The rows of a table, in the order of their ids.

    Examples:
        >>> rows = open_run("runs/mine").table("captured")
        >>> rows.to_pandas()["kind"].tolist()
        ['captured', 'captured']
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._listing: list[dict[str, Any]] | None = None

    @property
    def columns(self) -> dict[str, str]:
        """Columns of the table: name to kind (`rgb`, `mask`, `float64`, …)."""
        return {name: str(kind) for name, kind in self._table.full_schema.items()}

    def __len__(self) -> int:
        return self._table.rows

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if not isinstance(index, slice | SupportsIndex):
            raise WrongType(
                f"rows of table '{self._table.name}' are numbered, but the index is {describe_value(index)}; "
                "Run.show describes the row of an id"
            )
        if self._listing is None:
            self._listing = self._table.read_light().to_pylist()
        if isinstance(index, slice):
            return [Row(self._table, dict(values)) for values in self._listing[index]]
        try:
            return Row(self._table, dict(self._listing[index]))
        except IndexError:
            rows = format_count(len(self), "row")
            raise NoRow(f"table '{self._table.name}' has {rows}; there is no row {index}") from None

    def to_arrow(self) -> pa.Table:
        """Return all rows without their pictures, as an Arrow table."""
        return self._table.read_light().drop_columns(list(PLACES))

    def to_pandas(self) -> "pd.DataFrame":
        """Return all rows without their pictures, as a data frame.

        Raises:
            MissingPackage: pandas is not installed.
        """
        try:
            import pandas  # noqa: F401
        except ModuleNotFoundError as error:
            raise MissingPackage("'pandas' is not installed; install it with pip install pandas") from error
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame

    def __repr__(self) -> str:
        return f"Rows({self._table.name!r}: {len(self)} rows, {len(self.columns)} columns)"


class Run:
    """A run on disk: a folder or bucket prefix that a recipe was run into.

    Examples:
        >>> open_run("runs/mine")
        Run('runs/mine': pairs 3 rows, captured 2 rows)
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def uri(self) -> str:
        """Folder or URI of the run."""
        return self.store.uri

    @property
    def tables(self) -> list[str]:
        """Names of the tables that are complete."""
        return Tables(self.store).names()

    def table(self, name: str) -> Rows:
        """Open a table, that is the rows of a flow.

        Raises:
            StorageError: the run has no complete table of this name.

        Examples:
            >>> open_run("runs/mine").table("captured").columns["source"]
            'rgb'
        """
        check_type(name, str, "Run.table(name)", f"the name of a table: {', '.join(self.tables)}")
        return Rows(Tables(self.store).table(name))

    def status(self) -> RunAccounting:
        """Account for every input: in, kept, rejected by reason, failed by error, at each stage of each flow.

        Examples:
            >>> pairs = open_run("runs/mine").status().flows[0]
            >>> [(stage.stage, stage.inputs, stage.kept) for stage in pairs.stages][:2]
            [('pairs', 3, 3), ('pair', 3, 3)]
        """
        return accounting.compute_accounting(self.store)

    def verify(self) -> list[str]:
        """Check hashes, counts, every picture, and that source = target outside the foreground mask.

        Returns:
            The faults, a sentence each; empty where all is well.

        Examples:
            >>> open_run("runs/mine").verify()
            []
        """
        from rasura.pipeline.run.verify import verify

        faults, _ = verify(self.store)
        return faults

    def report(self, out: str | Path | None = None) -> Path:
        """Write the report, one HTML page; where its pictures are many, they are in a folder beside it.

        Args:
            out: the file; `report.html` in the run where None.

        Examples:
            >>> open_run("runs/mine").report("mine.html").name
            'mine.html'
        """
        from rasura.pipeline.report.run_page import write

        return Path(write(self.store, Path(read_place(out, "Run.report(out)")) if out else None))

    def export(
        self,
        out: str | Path,
        format: str = "huggingface",
        flows: str | Sequence[str] = (),
        *,
        verdict: str | None = None,
        min_score: float | None = None,
        where: str = "",
        size: int | str = "",
        crop: str = "object",
        direction: str = "removal",
        language: str = "en",
    ) -> int:
        """Write the dataset to another place, in a layout that trainers read.

        Args:
            out: folder or URI; `hf://datasets/OWNER/NAME` pushes it.
            format: one of `rasura export --help`.
            flows: flows in place of the dataset's.
            verdict: only rows with this one.
            min_score: only rows with at least this score.
            where: only rows of which this is true.
            size: of the pictures: `512` or `"768x512"`.
            crop: `object`, `center` or `none`.
            direction: of the formats with an instruction text: `removal` or `insertion`.
            language: of that text.

        Returns:
            The number of rows written.

        Raises:
            UnknownNameError: there is no such format or language.
            StorageError: there is no such flow, or it is not complete.
            InputError: an option is wrong, there is nothing to export, or the folder has files that no export wrote.

        Examples:
            >>> open_run("runs/mine").export("elsewhere")
            2
        """
        from rasura.manifests.formats.registry import FORMATS
        from rasura.pipeline.export import read_options
        from rasura.pipeline.hub import export_anywhere

        check_type(format, str, "Run.export(format)", f"one of {', '.join(FORMATS)}")
        place = read_place(out, "Run.export(out)")
        options = read_options(verdict, min_score, where, str(size), crop, direction, language)
        return int(export_anywhere(self.store, place, format, flows or (), options=options)["rows"])

    def show(self, id: str, pictures: str | Path | None = None) -> str:
        """Describe a row, back to its photos; or where an input that was rejected or failed ended.

        Args:
            id: a row's id, or its first letters.
            pictures: a folder that the row's pictures are written into, as PNG.

        Raises:
            UnknownNameError: no row, or more than one, has such an id.

        Examples:
            >>> opened = open_run("runs/mine")
            >>> print(opened.show(opened.table("captured")[0]["id"]))  # doctest: +ELLIPSIS
            run runs/mine
            ...  flow captured
            ...
        """
        from rasura.pipeline.run.lineage import describe_row

        check_type(id, str, "Run.show(id)", "a row's id or its first letters")
        folder = Path(read_place(pictures, "Run.show(pictures)")) if pictures else None
        return describe_row([self.store], id, folder)

    def __repr__(self) -> str:
        parts = (
            f"{flow.flow} {format_count(flow.rows, 'row')}" + ("" if flow.complete else ", not complete")
            for flow in self.status().flows
        )
        return f"Run({self.uri!r}: {', '.join(parts)})"
