"""The formats that datasets can be exported in."""

from collections.abc import Callable, Mapping, Sequence

from rasura.manifests.errors import UnknownNameError
from rasura.manifests.formats import brushdata, lcg, powerpaint, rorem, smarteraser
from rasura.manifests.formats.huggingface import HuggingFaceLayout
from rasura.manifests.formats.ober_export import OberLayout
from rasura.manifests.formats.parquet_export import Layout
from rasura.manifests.spelling import suggest
from rasura.manifests.tables import Table

PARQUET_LAYOUTS: Mapping[str, Callable[[Sequence[Table]], Layout]] = {
    HuggingFaceLayout.name: HuggingFaceLayout,
    OberLayout.name: OberLayout,
}
"""Formats of Parquet files, which `parquet_export.export_dataset` writes."""

FORMATS: Sequence[str] = (
    *PARQUET_LAYOUTS,
    rorem.NAME,
    smarteraser.NAME,
    brushdata.NAME,
    lcg.NAME,
    powerpaint.NAME,
)
"""Names of all formats. Tars are written by `brushdata.export_brushdata`, folders by `folder_export.export_folder`."""


def check_format(name: str) -> None:
    """Check that there is a format of this name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in FORMATS:
        raise UnknownNameError(f"unknown format '{name}'; {suggest(name, FORMATS)}")
