"""Files of sources: listing, content ids that are computed once, reading with a check."""

import fnmatch
import glob
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, cast

import fsspec
import pyarrow as pa
from pydantic import AfterValidator, Field

from rasura.manifests.errors import InputError
from rasura.manifests.ids import compute_content_id, compute_file_content_id
from rasura.manifests.run_layout import LISTINGS
from rasura.manifests.storage import Store, is_remote, translate_client_errors
from rasura.manifests.tables import Tables


class ChangedInput(RuntimeError):
    """A file is no longer what it was when the run listed it."""


class MissingInput(InputError, FileNotFoundError):
    """A source's folder or file is missing, empty, or cannot be used."""


@dataclass
class RunContext:
    """The run and flow for which a source lists its items."""

    run: Store
    flow: str
    seed: int = 0
    tables: Tables = field(init=False)

    def __post_init__(self) -> None:
        self.tables = Tables(self.run)


@dataclass(frozen=True)
class SourceFile:
    """A file with its size and a stamp (mtime in ns, or an ETag), by which a change is detected."""

    path: str
    size: int
    stamp: str


def _walk(folder: str) -> Iterable[SourceFile]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)
            elif entry.is_file():
                stat = entry.stat()
                yield SourceFile(entry.path, stat.st_size, str(stat.st_mtime_ns))


def expand_path(path: str) -> str:
    """Return a path without `file://`, with the home folder in place of `~`; a URI of a store as it is.

    Examples:
        >>> expand_path("file:///data/photos"), expand_path("s3://bucket/~")
        ('/data/photos', 's3://bucket/~')
    """
    # not as a pathlib.Path, which would shorten `./photos`: paths are part of the ids of shards
    return path if is_remote(path) else os.path.expanduser(path.removeprefix("file://"))  # noqa: PTH111


def find_files(path: str, pattern: str = "*") -> list[SourceFile]:
    """Find the files of a folder and its folders, of a glob, or one file, sorted by path, without hidden ones.

    Raises:
        MissingInput: nothing is there.
        StoreError: the store cannot be reached.
    """
    path = expand_path(path)
    files = [file for file in _list_files(path) if fnmatch.fnmatch(Path(file.path).name, pattern)]
    if not files:
        suffix = f" that matches '{pattern}'" if pattern != "*" else ""
        if Path(path).is_dir():
            raise MissingInput(f"the folder '{path}' has no file{suffix}")
        raise MissingInput(f"there is no file{suffix} at '{path}'")
    return sorted(files, key=lambda file: file.path)


def _list_files(path: str) -> Iterable[SourceFile]:
    if is_remote(path):
        yield from _list_remote(path)
    elif Path(path).is_dir():
        yield from _walk(path)
    else:
        names = [path] if Path(path).is_file() else glob.glob(path, recursive=True)
        for file in map(Path, names):
            if file.is_file():
                yield SourceFile(str(file), file.stat().st_size, str(file.stat().st_mtime_ns))


def _list_remote(path: str) -> list[SourceFile]:
    scheme = path.partition("://")[0]
    try:
        with translate_client_errors("list", path):
            fs, root = fsspec.core.url_to_fs(path)
            entries = fs.find(root, detail=True).values()
    except FileNotFoundError:
        return []
    return [
        SourceFile(f"{scheme}://{entry['name']}", entry["size"], str(entry.get("ETag") or entry.get("etag") or ""))
        for entry in entries
    ]


def read_file(path: str) -> bytes:
    """Return the bytes of a local or remote file."""
    if is_remote(path):
        with fsspec.open(path, "rb") as source:
            return cast(bytes, source.read())
    return Path(path).read_bytes()


def read_and_verify(path: str, expected: str) -> bytes:
    """Return the bytes of a file that was listed with the content id `expected`.

    Raises:
        ChangedInput: it has other bytes by now.
    """
    data = read_file(path)
    if (actual := compute_content_id(data)) != expected:
        raise ChangedInput(f"'{path}' was listed with content {expected[:12]} and now has {actual[:12]}; run again")
    return data


def compute_content_ids(
    files: Sequence[SourceFile], context: RunContext, compute_id: Callable[[str], str] | None = None
) -> dict[str, str]:
    """Return the content id of each file, by path. A file whose size and stamp the run has listed is not read again.

    Args:
        compute_id: of a path (a list of ids as JSON, for a file of many rows); by default, the id of its bytes. A file
            that cannot be read gets the id of its path: the fault will name its row when it is loaded.
    """
    place = f"{LISTINGS}/{context.flow}.json"
    listing: Mapping[str, Sequence[str]] = {}
    if context.run.exists(place):
        listing = json.loads(context.run.read(place))

    def compute(file: SourceFile) -> str | None:
        entry = listing.get(file.path)
        if entry and file.stamp and entry[:2] == [str(file.size), file.stamp]:
            return entry[2]
        try:
            if compute_id:
                return compute_id(file.path)
            if is_remote(file.path):
                return compute_content_id(read_file(file.path))
            return compute_file_content_id(Path(file.path))
        except MissingInput:
            raise
        except (OSError, pa.ArrowException):
            return None  # not remembered: it may be readable the next time

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as threads:
        ids = dict(zip((file.path for file in files), threads.map(compute, files), strict=True))
    entries = {file.path: [str(file.size), file.stamp, id] for file in files if (id := ids[file.path])}
    merged = {**listing, **entries}
    if merged != listing:
        context.run.write(place, json.dumps(merged, ensure_ascii=True).encode())
    return {path: id or make_unreadable_id(path) for path, id in ids.items()}


def make_unreadable_id(path: str) -> str:
    """Return the id of a file that cannot be read: its row will fail with the reason where it is loaded."""
    return compute_content_id(b"unreadable", os.fsencode(path))


def format_origin(path: str) -> str:
    """Return a path as text that can be written anywhere: bytes that are no UTF-8 are spelt out.

    Examples:
        >>> format_origin("photos/caf\\udce9.jpg")
        'photos/caf\\\\xe9.jpg'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def check_pattern(pattern: str | None) -> str | None:
    """Return a pattern if it is a regular expression that compiles; for parameters.

    Raises:
        ValueError: it does not.
    """
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"'{pattern}' is no regular expression: {error}") from None
    return pattern


Pattern = Annotated[str, AfterValidator(check_pattern)]
InputPath = Annotated[str, Field(min_length=1)]


def extract_scene_id(name: str, pattern: str | None, fallback: str) -> str:
    """Return the scene id: `pattern`'s first group (or complete match) in the file's name, else `fallback`.

    Examples:
        >>> extract_scene_id("in/kitchen_003.jpg", r"(.+)_\\d+", "fallback")
        'kitchen'
    """
    if pattern and (match := re.search(pattern, Path(name).name)):
        return match.group(1) if match.groups() else match.group(0)
    return fallback
