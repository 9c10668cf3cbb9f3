"""Parquet as Rasura writes and reads it: bytes in memory out, one thread in."""

import io
from collections.abc import Sequence
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP_BYTES = 128 * 2**20


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

    Arrow's readers fetch a Python file ahead in threads of their own by default. Now and then one of them
    outlives the interpreter, which then aborts at exit (apache/arrow#34314, #50482).
    """
    names = list(columns) if columns is not None else None
    with pq.ParquetFile(source, metadata=footer, pre_buffer=False) as file:
        if group is None:
            table = file.read(columns=names, use_threads=False)
        else:
            table = file.read_row_group(group, columns=names, use_threads=False)
    return table if names is None else table.select(names)


def encode_parquet(table: pa.Table, row_group_rows: int | None = None) -> bytes:
    """Encode a table as Parquet: picture columns uncompressed and PLAIN, page index on, row groups of 128 MiB at most.

    Args:
        table: rows to encode.
        row_group_rows: greatest number of rows in a row group, where rows have pictures and are read one by one.
    """
    pictures = [name for name in table.column_names if pa.types.is_struct(table.schema.field(name).type)]
    leaves = [f"{name}.{leaf}" for name in pictures for leaf in ("bytes", "path")]
    others = [name for name in table.column_names if name not in pictures]
    rows = max(1, int(table.num_rows * min(1.0, ROW_GROUP_BYTES / max(1, table.nbytes))))
    if row_group_rows and pictures:
        rows = min(rows, row_group_rows)
    out = io.BytesIO()
    pq.write_table(
        table,
        out,
        row_group_size=rows,
        compression=dict.fromkeys(leaves, "none") | dict.fromkeys(_list_leaves(table, others), "snappy"),
        use_dictionary=_list_leaves(table, others) or False,
        # values in a page at least: with the default of 1024, all pictures of a row group are one page
        write_batch_size=16 if pictures else 1024,
        write_page_index=True,
        write_statistics=True,
    )
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
