"""A layout whose rows are changed before it converts them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rasura.manifests.formats.dataset_rows import DatasetRow

Change = Callable[[DatasetRow, Mapping[str, Any]], Mapping[str, Any]]
"""Returns a row, whose pictures are encoded, as the layout is to see it."""


class ChangedRows:
    """A layout of any exporter (Parquet, folders, tars) that sees its rows changed.

    Args:
        layout: that converts the rows.
        change: what is changed.
        columns: that `change` reads, beside the layout's.
    """

    def __init__(self, layout: Any, change: Change, columns: Sequence[str]) -> None:
        self._layout, self._change = layout, change
        self.columns = list(dict.fromkeys((*layout.columns, *columns)))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # it is being unpickled, and has nothing yet
            raise AttributeError(name)
        return getattr(self._layout, name)

    def convert(self, row: DatasetRow, raw: Mapping[str, Any], name: str) -> Any:
        """Convert a row for `folder_export`."""
        return self._layout.convert(row, self._change(row, raw), name)

    def make_sample(self, row: DatasetRow, raw: Mapping[str, Any]) -> Any:
        """Make a sample for `trainers.tars`."""
        return self._layout.make_sample(row, self._change(row, raw))

    def table(self, rows: Sequence[DatasetRow], raws: Sequence[Mapping[str, Any]]) -> Any:
        """Convert the rows of a file for `table_export`."""
        return self._layout.table(rows, [self._change(row, raw) for row, raw in zip(rows, raws, strict=True)])
