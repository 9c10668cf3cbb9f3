"""The folder that an export writes into: nobody else's files are touched, and its manifest comes last."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rasura.manifests.checks.committed_files import hash_file
from rasura.manifests.errors import InputError
from rasura.manifests.formats import ober
from rasura.manifests.json_lines import parse_json, parse_json_lines
from rasura.manifests.remote_files import StoreError, check_name
from rasura.manifests.run_layout import DATASET_CARD, DATASET_MANIFEST
from rasura.manifests.schemas import read_schema
from rasura.manifests.storage import Store

DATA = "data"
ROWS, LEFT_OUT = "rows.jsonl", "left_out.jsonl"
CROISSANT = "croissant.json"
JOURNAL = ".rasura-export.json"
"""While an export is being written: the files that it may replace, and those that it has written, so that a killed one
goes on."""
_SIGNATURE = "Made by Rasura"
_ENTRY_KEYS = {"name", "sha256", "bytes", "rows"}


CORRECTED = "corrected by "
"""How the reason begins for which a row is left out, in whose place another one is; the id of that follows."""


def generalize_reason(reason: str) -> str:
    """Return the reason why a row is left out without another row's id, so that rows can be counted by it.

    Examples:
        >>> generalize_reason("corrected by 7fa4.corrected")
        'corrected by another row'
    """
    return f"{CORRECTED}another row" if reason.startswith(CORRECTED) else reason


class ForeignFolder(InputError):
    """The target has files that no export wrote."""


def check_target(out: Store, names: Iterable[str] = ()) -> set[str]:
    """Check that nothing but Rasura's exports is in a folder, and return the files of the last one.

    A folder is an export's if its manifest is one of Rasura's by its contents. Others may have put files beside it,
    but none in `data/` or a Lance dataset, where readers find it, and none by a name that is to be written.

    Args:
        out: the folder.
        names: files that are to be written.

    Raises:
        ForeignFolder: the folder has files of something else.
    """
    names = set(names)
    owned = _list_manifest_files(out)
    is_export = bool(owned)
    owned |= _read_journal(out)
    for path in _walk(out):
        if path in owned and path != DATASET_CARD:
            continue
        in_the_way = path in names or path == DATASET_CARD or path.startswith(f"{DATA}/") or ".lance/" in path
        if is_export and not in_the_way:
            continue
        if not _is_written_by_rasura(out, path):
            raise ForeignFolder(
                f"{out.uri} holds files of something else ({path}), and an export replaces only what Rasura wrote; "
                "name a new folder"
            )
        owned.add(path)
    return owned


def write_data_file(out: Store, name: str, data: bytes | memoryview, rows: int) -> dict[str, Any]:
    """Write a file of a dataset, and return its entry in the manifest.

    Raises:
        StoreError: the target cannot be written.
    """
    out.write(name, data)
    return {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "rows": rows}


class ExportTarget:
    """The folder of an export while it is written.

    Until `finish`, it has no manifest and is visibly no dataset.

    Args:
        out: the folder.
        names: all files that are to be written, without card and manifest.
        key: identity of all that the data files are made from; where it is empty, each of them is written anew.

    Raises:
        ForeignFolder: the folder has files of something else.
        StoreError: the target cannot be written.
    """

    def __init__(self, out: Store, names: Iterable[str], key: str = "") -> None:
        self._out, self._folders, self._key = out, set[str](), key
        names = {*names, DATASET_CARD}
        self._stale = check_target(out, names) | names
        """Files that may be there and have not been written by this export."""
        self._replaceable = sorted(self._stale)
        self._written = _read_written_files(out, key)
        self._write_journal()
        # written after the data files, from what is in them; a Lance dataset without its versions does not open
        versions = [name for name in self._replaceable if "/_versions/" in name]
        for name in (DATASET_MANIFEST, CROISSANT, *versions):
            out.delete(name)

    def _write_journal(self) -> None:
        written = {"key": self._key, "written": list(self._written.values())} if self._key else {}
        journal = {"made_by": _SIGNATURE, "files": self._replaceable, **written}
        self._out.write(JOURNAL, json.dumps(journal).encode())

    def find_written(self, name: str) -> dict[str, Any] | None:
        """Return the manifest's entry of a data file that a killed export of the same rows has written, if it is there.

        All bytes of the file are compared with its sha256.
        """
        entry = self._written.get(name)
        if entry is None:
            return None
        try:
            with self._out.open(name) as file:
                if hash_file(file) != entry["sha256"]:
                    return None
        except FileNotFoundError:
            return None
        self._note_file(name)
        return entry

    def write(self, name: str, data: bytes) -> None:
        """Write a file that the manifest does not list."""
        self._out.write(name, data)
        self._note_file(name)

    def note_files(self, names: Iterable[str]) -> None:
        """Note files that the manifest does not list, which were written by a job."""
        for name in names:
            self._note_file(name)

    def write_data_file(self, name: str, data: bytes | memoryview, rows: int) -> dict[str, Any]:
        """Write a file of the dataset, and return its entry in the manifest."""
        entry = write_data_file(self._out, name, data, rows)
        self.note_data_file(entry)
        return entry

    def note_data_file(self, entry: dict[str, Any]) -> None:
        """Note a file of the dataset that was written by a job."""
        self._note_file(entry["name"])
        if self._key:
            self._written[entry["name"]] = entry
            self._write_journal()

    def _note_file(self, name: str) -> None:
        self._stale.discard(name)
        if "/" in name:
            self._folders.add(name.partition("/")[0])

    def finish(self, manifest: dict[str, Any]) -> None:
        """Delete what only an earlier export had, and write the manifest. The folder is a dataset from then on.

        Files that a killed export was writing are deleted too: some loaders list folders with what is hidden in them.
        """
        for name in sorted(self._stale - {DATASET_MANIFEST}):
            self._out.delete(name)
        self._out.clear_temporary(sorted(self._folders))
        self._out.write(DATASET_MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
        self._out.delete(JOURNAL)


def _walk(out: Store, folder: str = "") -> Iterator[str]:
    """Yield all files of a folder but hidden ones, which belong to other tools (`.git`)."""
    prefix = f"{folder}/" if folder else ""
    yield from (f"{prefix}{name}" for name in out.files(folder) if not name.startswith("."))
    for name in out.folders(folder):
        if not name.startswith("."):
            yield from _walk(out, f"{prefix}{name}")


def _read_json(out: Store, name: str) -> Any:
    try:
        return parse_json(out.read(name))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        return None


def _is_plain(name: Any) -> bool:
    """Return True for a path that stays in its folder."""
    if not isinstance(name, str):
        return False
    try:
        check_name(name)
    except StoreError:
        return False
    return True


def _read_journal(out: Store) -> set[str]:
    journal = _read_json(out, JOURNAL)
    if not isinstance(journal, dict) or journal.get("made_by") != _SIGNATURE:
        return set()
    return set(filter(_is_plain, journal.get("files", ())))


def _read_written_files(out: Store, key: str) -> dict[str, dict[str, Any]]:
    """Read the entries of the files that a killed export with this key has written, by their names."""
    journal = _read_json(out, JOURNAL)
    if not key or not isinstance(journal, dict) or journal.get("key") != key:
        return {}
    entries = journal.get("written")
    if not isinstance(entries, list):
        return {}
    whole = (entry for entry in entries if isinstance(entry, dict) and set(entry) == _ENTRY_KEYS)
    return {entry["name"]: entry for entry in whole if _is_plain(entry["name"])}


def _list_manifest_files(out: Store) -> set[str]:
    """List the files of a finished export, its manifest among them; none where the folder is no export of Rasura's."""
    manifest = _read_json(out, DATASET_MANIFEST)
    if not isinstance(manifest, dict) or not {"name", "recipe", "rows", "files"} <= set(manifest):
        return set()
    entries = manifest["files"]
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and set(entry) == _ENTRY_KEYS and _is_plain(entry["name"]) for entry in entries
    ):
        return set()
    names = {entry["name"] for entry in entries}
    if manifest.get("layout") == ober.NAME:
        names.add(ober.ABOUT)  # the manifests of 0.1.0 do not list it
    if manifest.get("left_out"):
        names.add(LEFT_OUT)
    for about in [name for name in names if PurePosixPath(name).name == ROWS]:
        names |= _list_pictures(out, about)
    return {*names, DATASET_MANIFEST}


def list_row_files(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """List the files of an entry of `rows.jsonl`, with their sha256.

    Yields:
        Path from the split's folder, sha256. RORem's entries name the folder of a PNG file alone.

    Examples:
        >>> list(list_row_files({"name": "7f", "sha256": {"GT": "ab", "mask/7f.png": "cd"}}))
        [('GT/7f.png', 'ab'), ('mask/7f.png', 'cd')]
    """
    for key, sha in row.get("sha256", {}).items():
        yield (key if "/" in key or "." in key else f"{key}/{row['name']}.png"), sha


def _list_pictures(out: Store, about: str) -> set[str]:
    """List the pictures of a split's folder by its `rows.jsonl`; none where that is damaged."""
    folder = PurePosixPath(about).parent
    try:
        rows = parse_json_lines(out.read(about))
        paths = {str(folder / path) for row in rows for path, _ in list_row_files(row)}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return set()
    return set(filter(_is_plain, paths))


def _is_written_by_rasura(out: Store, path: str) -> bool:
    """Return True for a card or a data file of an export that was killed: its contents say so."""
    if path in (DATASET_CARD, CROISSANT):
        card = out.read(path)
        return not card or _SIGNATURE.encode() in card  # one that a disk has emptied is nobody's
    if not (path.startswith(f"{DATA}/") and path.endswith(".parquet")):
        return False
    try:
        with out.open(path) as file:
            read_schema(pq.read_schema(file))
    except (pa.ArrowException, ValueError):
        return False
    return True
