"""Files as sources find them: listing, content ids that are computed once, reading with a check."""

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
from pydantic import AfterValidator

from rasura.manifests.ids import content_id, content_id_of_file
from rasura.manifests.storage import Store, is_remote
from rasura.manifests.tables import Tables


class ChangedInput(RuntimeError):
    """A file is no longer what it was when the run listed it."""


class MissingInput(FileNotFoundError):
    """A source's folder or file is not there, or holds nothing."""


@dataclass
class RunContext:
    """What a source may look at while it lists its items."""

    run: Store
    flow: str
    seed: int = 0
    tables: Tables = field(init=False)

    def __post_init__(self) -> None:
        self.tables = Tables(self.run)


@dataclass(frozen=True)
class Found:
    """A file and what tells whether it has changed: its size and a stamp (mtime in ns, or an ETag)."""

    path: str
    size: int
    stamp: str


def _walk(folder: str) -> Iterable[Found]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)
            elif entry.is_file():
                stat = entry.stat()
                yield Found(entry.path, stat.st_size, str(stat.st_mtime_ns))


def find(path: str, pattern: str = "*") -> list[Found]:
    """Files of a folder and its folders, of a glob, or one file, sorted by path. Hidden ones are left out.

    Raises:
        MissingInput: nothing is there.
    """
    if is_remote(path):
        fs, root = fsspec.core.url_to_fs(path)
        scheme = path.partition("://")[0]
        entries = fs.find(root, detail=True).values()
        found = [
            Found(f"{scheme}://{entry['name']}", entry["size"], str(entry.get("ETag") or entry.get("etag") or ""))
            for entry in entries
        ]
    elif Path(path).is_dir():
        found = list(_walk(path))
    else:
        names = [path] if Path(path).is_file() else glob.glob(path, recursive=True)
        files = [Path(name) for name in names if Path(name).is_file()]
        found = [Found(str(file), file.stat().st_size, str(file.stat().st_mtime_ns)) for file in files]
    found = sorted((file for file in found if fnmatch.fnmatch(Path(file.path).name, pattern)), key=lambda f: f.path)
    if not found:
        raise MissingInput(f"no files at '{path}'" + (f" that match '{pattern}'" if pattern != "*" else ""))
    return found


def read(path: str) -> bytes:
    """The bytes of a local or remote file."""
    if is_remote(path):
        with fsspec.open(path, "rb") as source:
            return cast(bytes, source.read())
    return Path(path).read_bytes()


def read_checked(path: str, expected: str) -> bytes:
    """The bytes of a file that was listed with the content id `expected`.

    Raises:
        ChangedInput: it has other bytes by now.
    """
    data = read(path)
    if (found := content_id(data)) != expected:
        raise ChangedInput(f"'{path}' was listed with content {expected[:12]} and now has {found[:12]}; run again")
    return data


def content_ids(files: Sequence[Found], context: RunContext, of: Callable[[str], str] | None = None) -> dict[str, str]:
    """Content id of each file, by path. A file whose size and stamp are as the run last saw them is not read again.

    Args:
        of: how a path becomes an id (a list of ids as JSON, for a file of many rows); by default, the id of its bytes.
            A file that cannot be read gets the id of its path: the fault will name its row when it is loaded.
    """
    place = f"listings/{context.flow}.json"
    known: Mapping[str, Sequence[str]] = {}
    if context.run.exists(place):
        known = json.loads(context.run.read(place))

    def one(file: Found) -> str | None:
        was = known.get(file.path)
        if was and file.stamp and was[:2] == [str(file.size), file.stamp]:
            return was[2]
        try:
            if of:
                return of(file.path)
            return content_id(read(file.path)) if is_remote(file.path) else content_id_of_file(Path(file.path))
        except MissingInput:
            raise
        except (OSError, pa.ArrowException):
            return None  # not remembered: it may be readable the next time

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as threads:
        found = dict(zip((file.path for file in files), threads.map(one, files), strict=True))
    now = {file.path: [str(file.size), file.stamp, id] for file in files if (id := found[file.path])}
    merged = {**known, **now}
    if merged != known:
        context.run.write(place, json.dumps(merged, ensure_ascii=True).encode())
    return {path: id or unreadable_id(path) for path, id in found.items()}


def unreadable_id(path: str) -> str:
    """Id of a file that cannot be read: its row will fail with the reason where it is loaded."""
    return content_id(b"unreadable", os.fsencode(path))


def origin_of(path: str) -> str:
    """A path as text that can be written anywhere: bytes that are no UTF-8 are spelt out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def check_pattern(pattern: str | None) -> str | None:
    """A regular expression that compiles; for parameters.

    Raises:
        ValueError
    """
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"'{pattern}' is no regular expression: {error}") from None
    return pattern


Pattern = Annotated[str, AfterValidator(check_pattern)]


def scene_of(name: str, pattern: str | None, fallback: str) -> str:
    """Scene id: what `pattern`'s first group (or whole match) finds in the file's name, else `fallback`."""
    if pattern and (match := re.search(pattern, Path(name).name)):
        return match.group(1) if match.groups() else match.group(0)
    return fallback
