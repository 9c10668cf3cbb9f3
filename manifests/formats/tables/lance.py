"""The columns of `huggingface` as Lance datasets, one for each split: `lance.dataset("…/train.lance")`.

Lance names its data files at random, and its version file lists them. Here they have numbers, as in other layouts, and
are written one by one, by workers or by an export that goes on; the version file comes last. Lance makes both in a
temporary folder, so that the target may be on any store. Data files depend on the rows alone; a version file has the
time at which it was made. Format: https://lance.org/format/table/.
"""

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from rasura.manifests.extras import can_import, describe_missing
from rasura.manifests.formats.card import render_card, render_front
from rasura.manifests.formats.dataset_rows import DatasetSummary
from rasura.manifests.formats.tables.huggingface import HuggingFaceLayout
from rasura.manifests.formats.tables.layout import Entries
from rasura.manifests.formats.target import DATA
from rasura.manifests.remote_files import StoreError
from rasura.manifests.safety.text import make_text
from rasura.manifests.schemas import build_arrow_schema
from rasura.manifests.tables import Table

NAME, SUFFIX = "lance", ".lance"
_STORAGE_VERSION = "2.1"
_READ_ROW = """\
import io, lance, PIL.Image

dataset = lance.dataset("path/to/this/folder/{split}.lance")
row = dataset.take([0], columns=["source", "mask", "target", "label"]).to_pylist()[0]
source = PIL.Image.open(io.BytesIO(row["source"]["bytes"]))
"""


class LanceLayout(HuggingFaceLayout):
    """The layout for `manifests.formats.tables.table_export`; it needs the package pylance (extra `lance`)."""

    name = NAME

    def __init__(self, parts: Sequence[Table]) -> None:
        # said before anything is written; it is not imported here, since it warns of every process that is then forked
        if not can_import("lance"):
            raise ModuleNotFoundError(describe_missing("lance"), name="lance")
        super().__init__(parts)

    def name_file(self, split: str, index: int, count: int) -> str:
        return f"{split}{SUFFIX}/{DATA}/{index:05d}-of-{count:05d}{SUFFIX}"

    def encode(self, table: pa.Table) -> bytes:
        return _make_fragment(table)[0]

    def list_further_files(self, splits: Iterable[str]) -> Iterable[str]:
        return (name_version_file(split) for split in splits)

    def render_further_files(self, entries: Entries) -> Mapping[str, bytes]:
        schema = build_arrow_schema(self.schema)
        return {name_version_file(split): render_version(schema, files) for split, files in entries.items()}

    def card(self, summary: DatasetSummary) -> str:
        return render_card(summary, render_front(summary), _READ_ROW)


def name_version_file(split: str) -> str:
    """Name the file of the first version of a split's dataset: Lance counts down, so that the newest comes first."""
    return f"{split}{SUFFIX}/_versions/{2**64 - 2}.manifest"


@contextlib.contextmanager
def _explain_full_folder() -> Iterator[None]:
    """Raise a StoreError that names the temporary folder where that cannot be written."""
    try:
        yield
    except OSError as error:
        told = make_text(error)
        reason = error.strerror or told.rpartition(", ")[0] or told  # Lance ends with a line of its own source
        raise StoreError(
            f"cannot write Lance's temporary files in {tempfile.gettempdir()} (TMPDIR), which needs room for one data "
            f"file: {reason}"
        ) from error


def _make_fragment(table: pa.Table) -> tuple[bytes, dict[str, Any]]:
    """Make a data file, and Lance's description of it."""
    from lance.fragment import LanceFragment

    with _explain_full_folder(), tempfile.TemporaryDirectory() as folder:
        made = LanceFragment.create(folder, table, schema=table.schema, data_storage_version=_STORAGE_VERSION)
        (file,) = Path(folder, DATA).iterdir()
        return file.read_bytes(), made.to_json()


def render_version(schema: pa.Schema, files: Sequence[Mapping[str, Any]]) -> bytes:
    """Render the version file of a dataset, its first.

    Args:
        schema: of all data files.
        files: entries of the data files in the manifest, in their order.
    """
    import lance
    from lance.fragment import FragmentMetadata

    fragments = []
    # the columns of a file follow from the schema alone: those of a row of nulls are those of all
    described = _make_fragment(pa.Table.from_pylist([dict.fromkeys(schema.names)], schema))[1]
    for number, file in enumerate(files):
        name, size = file["name"].rpartition("/")[2], file["bytes"]
        place = described["files"][0] | {"path": name, "file_size_bytes": size}
        value = described | {"id": number, "physical_rows": file["rows"], "files": [place]}
        fragments.append(FragmentMetadata.from_json(json.dumps(value)))
    with _explain_full_folder(), tempfile.TemporaryDirectory() as folder:
        lance.LanceDataset.commit(folder, lance.LanceOperation.Overwrite(schema, fragments))
        (version,) = Path(folder, "_versions").glob("*.manifest")
        return version.read_bytes()


def read_data_file(data: bytes) -> pa.Table:
    """Read the rows of a data file.

    Raises:
        ValueError, OSError: it is damaged.
        StoreError: the temporary folder cannot be written.
    """
    from lance.file import LanceFileReader

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"file{SUFFIX}")
        with _explain_full_folder():
            path.write_bytes(data)
        return LanceFileReader(str(path)).read_all().to_table()
