"""What `table_export` asks of a layout: columns, data files and their names, and what is beside them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from rasura.manifests.formats.dataset_rows import DatasetRow, DatasetSummary
from rasura.manifests.formats.target import DATA
from rasura.manifests.parquet import PUBLISHED_GROUP_BYTES, encode_parquet

Entries = Mapping[str, Sequence[Mapping[str, Any]]]
"""Split -> entries of its data files in the manifest."""


class TableLayout(ABC):
    """The columns and the order of a dataset of tables, its data files (Parquet, by default), and its card."""

    name: str
    columns: Sequence[str]
    """Columns of the run that `table` needs."""
    light_columns: Sequence[str] = ()
    """Columns of the run, without pictures, that `note` needs; none where it notes nothing."""

    @abstractmethod
    def table(self, rows: Sequence[DatasetRow], raws: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Convert the rows of one data file from what they are in the run: pictures encoded."""

    @abstractmethod
    def card(self, summary: DatasetSummary) -> str:
        """Return the text of README.md."""

    def order_rows(self, rows: Sequence[DatasetRow]) -> list[DatasetRow]:
        """Return the rows, which are sorted by id, in the order of the files."""
        return list(rows)

    def name_file(self, split: str, index: int, count: int) -> str:
        """Name a data file of a split, of which there are `count`."""
        return f"{DATA}/{split}-{index:05d}-of-{count:05d}.parquet"

    def encode(self, table: pa.Table) -> bytes | memoryview:
        """Encode a data file."""
        return encode_parquet(table, row_group_bytes=PUBLISHED_GROUP_BYTES)

    def note(self, rows: Sequence[DatasetRow], raws: Sequence[Mapping[str, Any]]) -> None:
        """Note what further files say of the rows of one data file."""
        return

    def list_further_files(self, splits: Iterable[str]) -> Iterable[str]:
        """List the files that `render_further_files` returns for these splits."""
        return ()

    def render_further_files(self, entries: Entries) -> Mapping[str, bytes]:
        """Return the contents of further files by their names, when all rows have passed `note`."""
        return {}
