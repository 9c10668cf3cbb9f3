"""The formats that datasets can be exported in."""

from collections.abc import Callable, Mapping, Sequence

from rasura.manifests.errors import UnknownNameError
from rasura.manifests.formats import brushdata, lcg, ober, powerpaint, rorem, smarteraser
from rasura.manifests.formats.tables.huggingface import HuggingFaceLayout
from rasura.manifests.formats.tables.lance import LanceLayout
from rasura.manifests.formats.tables.layout import TableLayout
from rasura.manifests.formats.tables.ober_export import OberLayout
from rasura.manifests.formats.trainers import diffusers, pair_folders, webdataset
from rasura.manifests.spelling import suggest

TABLE_LAYOUTS: Mapping[str, Callable[..., TableLayout]] = {
    HuggingFaceLayout.name: HuggingFaceLayout,
    OberLayout.name: OberLayout,
    diffusers.NAME: diffusers.DiffusersLayout,
    LanceLayout.name: LanceLayout,
}
"""Formats of Parquet or Lance, which `table_export.export_dataset` writes: made of the tables, and, where they are in
`PAIR_FORMATS`, of `PairSettings`."""
TRIPLET_COLUMNS: Mapping[str, Mapping[str, str]] = {ober.NAME: ober.TRIPLET, diffusers.NAME: diffusers.TRIPLET}
"""Formats of Parquet files with columns of other names -> those of a triplet that they stand for."""
PICTURE_MEMBERS: Mapping[str, str] = {brushdata.NAME: "image", webdataset.NAME: "target.png"}
"""Formats of tars, which `trainers.tars.export_tars` writes -> the member that is compared between splits."""
PAIR_FORMATS: Sequence[str] = (diffusers.NAME, webdataset.NAME, *pair_folders.TRAINERS)
"""Formats for models that edit by text: they have an instruction, in a language, and a direction."""

FORMATS: Sequence[str] = (
    *TABLE_LAYOUTS,
    *PICTURE_MEMBERS,
    rorem.NAME,
    smarteraser.NAME,
    lcg.NAME,
    powerpaint.NAME,
    *pair_folders.TRAINERS,
)
"""Names of all formats. Those that are no tars and no tables are written by `folder_export.export_folder`."""


def check_format(name: str) -> None:
    """Check that there is a format of this name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in FORMATS:
        raise UnknownNameError(f"unknown format '{name}'; {suggest(name, FORMATS)}")
