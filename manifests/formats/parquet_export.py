"""A run's triplets as one dataset that `datasets.load_dataset` opens: Parquet files, card, manifest.

The files depend on the rows alone: rows are sorted by id and packed by their own sizes, so neither shard size nor
worker count changes a byte.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from rasura.manifests.formats.dataset_rows import DatasetRow, DatasetSummary, list_rows, read_raw_rows
from rasura.manifests.formats.huggingface import HuggingFaceLayout
from rasura.manifests.formats.target import DATA, ExportTarget
from rasura.manifests.ids import hash_json
from rasura.manifests.parquet import encode_parquet
from rasura.manifests.run_layout import DATASET_CARD
from rasura.manifests.storage import Store
from rasura.manifests.tables import Table, Tables

FORMAT = 1


class Layout(Protocol):
    """The columns and the order of a dataset of Parquet files, and its card."""

    name: str
    extra_files: Sequence[str]
    """Names of the files that `render_extra_files` returns."""

    def order_rows(self, rows: Sequence[DatasetRow]) -> list[DatasetRow]:
        """Return the rows, which are sorted by id, in the order of the files."""

    def table(self, rows: Sequence[DatasetRow], raws: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Convert the rows of one data file from what they are in the run: pictures encoded."""

    @property
    def columns(self) -> Sequence[str]:
        """Columns of the run that `table` needs."""

    def card(self, summary: DatasetSummary) -> str:
        """Return the text of README.md."""

    def render_extra_files(self) -> Mapping[str, bytes]:
        """Return the contents of further files by their names, when all rows have passed `table`."""


def pack_rows(rows: Sequence[DatasetRow], limit: int) -> list[list[DatasetRow]]:
    """Pack consecutive rows into files of at most `limit` bytes of pictures; a row that is larger is alone."""
    files: list[list[DatasetRow]] = []
    size = 0
    for row in rows:
        if not files or size + row.bytes > limit:
            files.append([])
            size = 0
        files[-1].append(row)
        size += row.bytes
    return files


def compute_export_key(tables: Tables, flows: Sequence[str], recipe_hash: str, shard_bytes: int) -> str:
    """Compute the identity of what `export_dataset` would write."""
    contents = [[record.data.sha256 for record in tables.table(flow).commits if record.data] for flow in flows]
    return hash_json([FORMAT, recipe_hash, shard_bytes, list(flows), contents])


def export_dataset(
    tables: Tables,
    flows: Sequence[str],
    out: Store,
    name: str,
    recipe_hash: str,
    splits: Sequence[str],
    shard_bytes: int,
    progress: Callable[[int], None] = lambda rows: None,
    layout: Callable[[Sequence[Table]], Layout] = HuggingFaceLayout,
) -> dict[str, Any]:
    """Write a dataset.

    Args:
        tables: of the run.
        flows: whose rows to write.
        out: the folder to write into.
        name: of the recipe, for the card.
        recipe_hash: its hash.
        splits: in the order in which they are written; others come after them.
        shard_bytes: size of a file, of which its pictures count.
        progress: called with the number of rows that were written.
        layout: of the files.

    Returns:
        The manifest of the dataset.

    Raises:
        NotTriplets: a flow's rows cannot be exported.
        ForeignFolder: the target has files that no export wrote.
        StoreError: the target cannot be written.
    """
    parts = [tables.table(flow) for flow in flows]
    writer = layout(parts)
    rows = writer.order_rows(list_rows(parts))
    planned = list(_plan_files(rows, splits, shard_bytes))
    target = ExportTarget(out, [*(file for _, file, _ in planned), *writer.extra_files])
    files: list[dict[str, Any]] = []
    sizes: dict[str, tuple[int, int]] = {}
    for split, file, part in planned:
        data = encode_parquet(writer.table(part, read_raw_rows(tables, part, writer.columns)))
        files.append(target.write_data_file(file, data, len(part)))
        count, size = sizes.get(split, (0, 0))
        sizes[split] = (count + len(part), size + len(data))
        progress(len(part))
    for file, data in writer.render_extra_files().items():
        target.write(file, data)
    kinds = Counter(row.kind for row in rows)
    licences = sorted({row.licence for row in rows if row.licence})
    target.write(DATASET_CARD, writer.card(DatasetSummary(name, recipe_hash, sizes, kinds, licences)).encode())
    manifest = {"name": name, "recipe": recipe_hash, "rows": len(rows), "files": files}
    if writer.name != HuggingFaceLayout.name:
        manifest["layout"] = writer.name
    target.finish(manifest)
    return manifest


def _plan_files(
    rows: Sequence[DatasetRow], splits: Sequence[str], limit: int
) -> Iterator[tuple[str, str, list[DatasetRow]]]:
    """Yield the split, the name and the rows of each data file."""
    for split in [*splits, *sorted({row.split for row in rows} - set(splits))]:
        files = pack_rows([row for row in rows if row.split == split], limit)
        for index, part in enumerate(files):
            yield split, f"{DATA}/{split}-{index:05d}-of-{len(files):05d}.parquet", part
