"""Reading of a dataset's data files, Parquet or Lance, by their names."""

import contextlib
import io
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from rasura.manifests.formats.tables.lance import SUFFIX, read_data_file

SUFFIXES = (".parquet", SUFFIX)


class DataFile(NamedTuple):
    """A data file that is open."""

    schema: pa.Schema
    rows: int
    batches: Iterable[pa.RecordBatch]


@contextlib.contextmanager
def open_data_file(name: str, data: bytes, batch_rows: int) -> Iterator[DataFile]:
    """Open the bytes of a data file, to be read in batches of so many rows."""
    if name.endswith(SUFFIX):
        table = read_data_file(data)
        yield DataFile(table.schema, table.num_rows, table.to_batches(batch_rows))
        return
    with pq.ParquetFile(io.BytesIO(data), pre_buffer=False) as source:
        batches = source.iter_batches(batch_size=batch_rows, use_threads=False)
        yield DataFile(source.schema_arrow, source.metadata.num_rows, batches)


def find_split(name: str) -> str:
    """Find the split that the name of a data file has.

    Examples:
        >>> find_split("data/train-00000-of-00002.parquet"), find_split("test.lance/data/00000-of-00001.lance")
        ('train', 'test')
    """
    path = PurePosixPath(name)
    return path.parts[0].removesuffix(SUFFIX) if path.suffix == SUFFIX else path.name.partition("-")[0]
