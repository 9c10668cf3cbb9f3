"""The dataset in a run: what it was exported from, and whether its files are there."""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from rasura.manifests.checks.sealed_json import parse_sealed, seal
from rasura.manifests.formats.target import DATA, JOURNAL
from rasura.manifests.json_lines import parse_json
from rasura.manifests.run_layout import DATASET, DATASET_CARD, DATASET_MANIFEST, EXPORT
from rasura.manifests.storage import Store


class ExportRecord(NamedTuple):
    """The contents of `export.json`: the identity of what was written, and its rows."""

    key: str
    rows: int


def read_export_record(run: Store) -> ExportRecord | None:
    """Read what a run's dataset was exported from; None where no export ended, or the record is damaged."""
    try:
        record = parse_sealed(run.read(EXPORT))
        return ExportRecord(str(record["key"]), int(record["rows"]))
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None


def write_export_record(run: Store, record: ExportRecord) -> None:
    """Write what a run's dataset was exported from.

    Raises:
        StoreError: the target cannot be written.
    """
    run.write(EXPORT, json.dumps(seal(record._asdict())).encode())


def find_missing_file(run: Store) -> str | None:
    """Find a file of a run's dataset that is not there in its size; None where all of them are.

    Returns:
        Its name from the run. Of a manifest that cannot be read, that of the manifest.
    """
    dataset = run.sub(DATASET)
    try:
        expected = {name: size for name, size, _ in _list_files(dataset)}
    except (KeyError, TypeError, ValueError):
        return f"{DATASET}/{DATASET_MANIFEST}"
    folders = dict.fromkeys(name.rpartition("/")[0] for name in expected)
    sizes = {name: size for folder in folders for name, size in dataset.sizes(folder).items()}
    for name, size in expected.items():
        if sizes.get(name) != size:
            return f"{DATASET}/{name}"
    return None if dataset.exists(DATASET_CARD) else f"{DATASET}/{DATASET_CARD}"


def is_export_intact(run: Store) -> bool:
    """Return whether a run's dataset has the bytes that were exported; True where there is none."""
    if not run.exists(EXPORT):
        return True
    if read_export_record(run) is None or find_missing_file(run) is not None:
        return False
    dataset = run.sub(DATASET)
    return all(hashlib.sha256(dataset.read(name)).hexdigest() == sha for name, _, sha in _list_files(dataset))


def drop_damaged_manifest(run: Store) -> None:
    """Delete the manifest of a run's dataset where it cannot be read: an export wrote it, and none is in progress."""
    if run.exists(EXPORT) and find_missing_file(run) == f"{DATASET}/{DATASET_MANIFEST}":
        run.sub(DATASET).delete(DATASET_MANIFEST)


def drop_export(run: Store) -> bool:
    """Delete a run's dataset: the next run writes it anew. Files that no export wrote stay.

    Returns:
        False where the run has none.
    """
    dataset = run.sub(DATASET)
    if not run.exists(EXPORT) and not dataset.exists(DATASET_MANIFEST):
        return False
    run.delete(EXPORT)
    names = [f"{DATA}/{name}" for name in dataset.files(DATA) if _DATA_FILE.fullmatch(name)]
    for name in [DATASET_MANIFEST, *names, DATASET_CARD, JOURNAL]:
        dataset.delete(name)
    return True


_DATA_FILE = re.compile(r"\w+-\d{5}-of-\d{5}\.parquet")


def _list_files(dataset: Store) -> Iterator[tuple[str, int, str]]:
    """Yield the name, the size and the sha256 of each file of a dataset.

    Raises:
        KeyError, TypeError, ValueError: its manifest is missing or damaged.
    """
    for entry in _read_json(dataset, DATASET_MANIFEST)["files"]:
        yield str(entry["name"]), int(entry["bytes"]), str(entry["sha256"])


def _read_json(store: Store, name: str) -> Any:
    """Read a JSON file; None where it is missing or damaged."""
    try:
        return parse_json(store.read(name), name)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
