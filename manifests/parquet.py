"""Parquet as Rasura writes and reads it: bytes in memory out, one thread in."""

import io
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rasura.manifests.remote_files import open_to_read

ROW_GROUP_BYTES = 128 * 2**20
PUBLISHED_GROUP_BYTES = 8 * 2**20
"""Size of a row group of a dataset that others read: one row costs its group. At 16 MiB it takes twice as long."""
BATCH_ROWS = 4  # rows of pictures in memory at a time: more than 2 GB in one batch cannot be read


def open_parquet(path: str) -> Any:
    """Open a local or remote Parquet file of somebody else's, to be read in small pieces."""
    return pq.ParquetFile(open_to_read(path), pre_buffer=False, buffer_size=2**20)


def iterate_rows(source: Any, columns: Sequence[str], groups: Sequence[int] | None = None) -> Iterator[dict[str, Any]]:
    """Yield rows one after another, a few in memory at a time, whatever the size of a row group.

    Args:
        source: as `open_parquet` returns it.
        columns: of each row; None where the file lacks one.
        groups: indices of row groups; all where None.
    """
    names = [name for name in columns if name in source.schema_arrow.names]
    row_groups = list(range(source.num_row_groups)) if groups is None else list(groups)
    for batch in source.iter_batches(BATCH_ROWS, row_groups=row_groups, columns=names, use_threads=False):
        for index in range(batch.num_rows):
            row: dict[str, Any] = batch.slice(index, 1).to_pylist()[0]
            yield dict.fromkeys(columns) | row


class RowReader:
    """A reader of single rows of files, undecoded. Consecutive rows are read as a stream.

    Args:
        columns: of the rows; None where a file lacks one.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = columns
        self._rows: Iterator[dict[str, Any]] = iter(())
        self._source: Any = None
        self._position: tuple[str, int, int] = ("", 0, 0)  # path, next row, end of its row group

    def read_row(self, path: str, row: int) -> dict[str, Any] | None:
        """Read the cells of a row; None where the file has no such row."""
        open_path, start, end = self._position
        if open_path != path or not start <= row < end:
            group = self._open(path, row)
            if group is None:
                return None
            start, end = group
        for _ in range(row - start):
            next(self._rows)
        cells = next(self._rows)
        self._position = (path, row + 1, end)
        return cells

    @property
    def file_columns(self) -> Sequence[str]:
        """Names of the columns of the file that was read last."""
        return () if self._source is None else list(self._source.schema_arrow.names)

    def _open(self, path: str, row: int) -> tuple[int, int] | None:
        """Start to read the row group that has a row.

        Returns:
            The first row of the group and the one after its last; None where the file has no such row.
        """
        if self._position[0] != path or self._source is None:
            self.close()
            self._source = open_parquet(path)
        start = 0
        for group in range(self._source.num_row_groups):
            end = start + self._source.metadata.row_group(group).num_rows
            if row < end:
                self._rows = iterate_rows(self._source, self.columns, [group])
                return start, end
            start = end
        return None

    def close(self) -> None:
        """Close the file that is open."""
        if self._source is not None:
            self._source.close(force=True)
        self._source, self._position = None, ("", 0, 0)


def read_parquet(
    source: IO[bytes],
    columns: Sequence[str] | None = None,
    group: int | None = None,
    footer: pq.FileMetaData | None = None,
) -> pa.Table:
    """Read the rows of a file, or those of one row group.

    Args:
        source: the file.
        columns: only these, in this order; all where None.
        group: index of the row group; all where None.
        footer: of the file, where it was read before.

    Raises:
        OSError: a page is not what its checksum says. Pages without one are believed.

    Arrow's readers fetch a Python file ahead in threads of their own by default. Now and then one of them
    outlives the interpreter, which then aborts at exit (apache/arrow#34314, #50482).
    """
    names = list(columns) if columns is not None else None
    with pq.ParquetFile(source, metadata=footer, pre_buffer=False, page_checksum_verification=True) as file:
        if group is None:
            table = file.read(columns=names, use_threads=False)
        else:
            table = file.read_row_group(group, columns=names, use_threads=False)
    return table if names is None else table.select(names)


def pack_row_groups(sizes: Sequence[int], limit: int, most: int | None = None) -> list[int]:
    """Pack consecutive rows into row groups of at most `limit` bytes; a row that is larger is alone.

    Args:
        sizes: of the rows.
        limit: bytes of a group.
        most: greatest number of rows in a group.

    Returns:
        The number of rows in each.

    Examples:
        >>> pack_row_groups([3, 3, 3, 9, 1], limit=6)
        [2, 1, 1, 1]
    """
    groups: list[int] = []
    filled = 0
    for size in sizes:
        if not groups or filled + size > limit or groups[-1] == most:
            groups.append(0)
            filled = 0
        groups[-1] += 1
        filled += size
    return groups


def _measure_rows(table: pa.Table, pictures: Sequence[str]) -> list[int]:
    """Return the bytes of each row: those of its pictures, and its share of the other columns."""
    others = sum(table[name].nbytes for name in table.column_names if name not in pictures)
    sizes = np.full(len(table), others // max(1, len(table)), np.int64)
    for name in pictures:
        lengths = pc.binary_length(pc.struct_field(table[name], "bytes"))
        sizes += pc.fill_null(lengths, 0).to_numpy()
    return list(sizes.tolist())


def encode_parquet(
    table: pa.Table,
    row_group_rows: int | None = None,
    page_checksums: bool = False,
    row_group_bytes: int = ROW_GROUP_BYTES,
) -> bytes:
    """Encode a table as Parquet: picture columns uncompressed and PLAIN, page index on, row groups of limited size.

    Args:
        table: rows to encode.
        row_group_rows: greatest number of rows in a row group, where rows have pictures and are read one by one.
        row_group_bytes: greatest size of a row group with more than one row.
        page_checksums: store a CRC-32 of each page, by which a reader of single rows notices a damaged one.
    """
    pictures = [name for name in table.column_names if pa.types.is_struct(table.schema.field(name).type)]
    leaves = [f"{name}.{leaf}" for name in pictures for leaf in ("bytes", "path")]
    others = [name for name in table.column_names if name not in pictures]
    out = io.BytesIO()
    writer = pq.ParquetWriter(
        out,
        table.schema,
        compression=dict.fromkeys(leaves, "none") | dict.fromkeys(_list_leaves(table, others), "snappy"),
        use_dictionary=_list_leaves(table, others) or False,
        # values in a page at least: with the default of 1024, all pictures of a row group are one page
        write_batch_size=16 if pictures else 1024,
        write_page_index=True,
        write_statistics=True,
        write_page_checksum=page_checksums,
    )
    with writer:
        start, most = 0, row_group_rows if pictures else None
        for rows in pack_row_groups(_measure_rows(table, pictures), row_group_bytes, most) or [0]:
            writer.write_table(table.slice(start, rows), row_group_size=max(1, rows))
            start += rows
    return out.getvalue()


def _list_leaves(table: pa.Table, names: Sequence[str]) -> list[str]:
    """List Parquet's paths of the leaf columns below the named ones."""
    paths = []
    for name in names:
        kind = table.schema.field(name).type
        if pa.types.is_list(kind):
            if pa.types.is_struct(kind.value_type):
                paths += [f"{name}.list.element.{leaf.name}" for leaf in kind.value_type]
            else:
                paths.append(f"{name}.list.element")
        else:
            paths.append(name)
    return paths
