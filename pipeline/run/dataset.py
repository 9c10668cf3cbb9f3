"""The dataset in a run: what it was exported from, and whether its files are there."""

import json
from typing import Any, NamedTuple

from rasura.manifests.run_layout import DATASET, DATASET_CARD, DATASET_MANIFEST, EXPORT
from rasura.manifests.storage import Store


class ExportRecord(NamedTuple):
    """The contents of `export.json`: the identity of what was written, and its rows."""

    key: str
    rows: int


def read_export_record(run: Store) -> ExportRecord | None:
    """Read what a run's dataset was exported from; None where no export ended, or the record is damaged."""
    record = _read_json(run, EXPORT)
    try:
        return ExportRecord(str(record["key"]), int(record["rows"]))
    except (KeyError, TypeError, ValueError):
        return None


def write_export_record(run: Store, record: ExportRecord) -> None:
    """Write what a run's dataset was exported from.

    Raises:
        StoreError: the target cannot be written.
    """
    run.write(EXPORT, json.dumps(record._asdict()).encode())


def find_missing_file(run: Store) -> str | None:
    """Find a file of a run's dataset that is not there in its size; None where all of them are.

    Returns:
        Its name from the run. Of a manifest that cannot be read, that of the manifest.
    """
    dataset = run.sub(DATASET)
    manifest = _read_json(dataset, DATASET_MANIFEST)
    try:
        expected = {str(entry["name"]): int(entry["bytes"]) for entry in manifest["files"]}
    except (KeyError, TypeError, ValueError):
        return f"{DATASET}/{DATASET_MANIFEST}"
    folders = dict.fromkeys(name.rpartition("/")[0] for name in expected)
    sizes = {name: size for folder in folders for name, size in dataset.sizes(folder).items()}
    for name, size in expected.items():
        if sizes.get(name) != size:
            return f"{DATASET}/{name}"
    return None if dataset.exists(DATASET_CARD) else f"{DATASET}/{DATASET_CARD}"


def _read_json(store: Store, name: str) -> Any:
    """Read a JSON file; None where it is missing or damaged."""
    try:
        return json.loads(store.read(name))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
