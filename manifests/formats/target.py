"""The folder that an export writes into: nobody else's files are touched, and its manifest comes last."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from rasura.manifests.errors import InputError
from rasura.manifests.run_layout import DATASET_CARD, DATASET_MANIFEST
from rasura.manifests.storage import Store

_SIGNATURE = b"Made by Rasura"


class ForeignFolder(InputError):
    """The target has files that no export wrote."""


def prepare_target(out: Store, foreign: Sequence[str] = (), owned: Sequence[str] = ()) -> None:
    """Check that a folder is an export's or empty, and delete its manifest: until the end it is visibly no dataset.

    Args:
        out: the folder.
        foreign: names of files in it that no export wrote.
        owned: names that only an export may have written: they need a card of ours beside them.

    Raises:
        ForeignFolder: the folder has other files.
        StoreError: the target cannot be written.
    """
    has_card = out.exists(DATASET_CARD)
    if not (has_card and _SIGNATURE in out.read(DATASET_CARD)):
        foreign = [*foreign, *([DATASET_CARD] if has_card else []), *(name for name in owned if out.exists(name))]
    if foreign:
        raise ForeignFolder(f"{out.uri} holds files of something else ({foreign[0]}); name a new folder")
    out.delete(DATASET_MANIFEST)


def write_data_file(out: Store, name: str, data: bytes, rows: int) -> dict[str, Any]:
    """Write a file of a dataset, and return its entry in the manifest."""
    out.write(name, data)
    return {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "rows": rows}


def write_dataset_manifest(out: Store, manifest: dict[str, Any]) -> None:
    """Write the manifest of a dataset. The folder is a dataset from then on."""
    out.write(DATASET_MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
