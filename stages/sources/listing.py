"""Listing of the files of a source: folders, globs and URIs. Each file is listed, or passed over with a reason."""

import fnmatch
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rasura.manifests.errors import InputError
from rasura.manifests.remote_files import open_file_system, translate_client_errors
from rasura.manifests.storage import is_remote

MAGIC = frozenset("*?[")
WEB = ("http", "https")  # whose addresses have question marks of their own


class MissingInput(InputError):
    """A source's folder or file is missing, empty, or cannot be used."""


@dataclass(frozen=True)
class SourceFile:
    """A file with its size and a stamp, by which a change is detected: mtime and ctime in ns, or an ETag.

    The ctime notices what was written in place of a file with the same size and mtime: no program can set it.
    """

    path: str
    size: int
    stamp: str


@dataclass
class _Walk:
    """What a walk through folders has met: the files, and counts of what it passed over, by the reason."""

    files: list[SourceFile] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)


def expand_path(path: str) -> str:
    """Return a path with `~` expanded and without `file://`; a URI as it is.

    Examples:
        >>> expand_path("file:///data/photos"), expand_path("s3://bucket/photos")
        ('/data/photos', 's3://bucket/photos')
    """
    return path if is_remote(path) else os.path.expanduser(path.removeprefix("file://"))  # noqa: PTH111 - bytes stay


def normalize_name(name: str) -> str:
    """Return a name as two file systems agree on it: composed letters, no difference between upper and lower case.

    Examples:
        >>> normalize_name("Cafe\\u0301.JPG") == normalize_name("caf\\u00e9.jpg")
        True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def match_path(path: str, pattern: str) -> bool:
    """Return whether a relative path matches a glob; `**` stands for any folders, case is ignored.

    Examples:
        >>> match_path("a/b/1.JPG", "**/*.jpg"), match_path("1.jpg", "**/*.jpg"), match_path("a/1.jpg", "*.jpg")
        (True, True, False)
    """
    return _match_parts(normalize_name(path).split("/"), normalize_name(pattern).split("/"))


def _match_parts(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_match_parts(parts[start:], patterns[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], patterns[0]) and _match_parts(parts[1:], patterns[1:])


def find_files(path: str, pattern: str = "*", passed_over: Counter[str] | None = None) -> list[SourceFile]:
    """Find the files of a folder and its folders, of a glob, or one file, sorted by path, without hidden ones.

    Links are followed, unless they lead back to a folder above them. Patterns ignore case.

    Args:
        path: folder, file or glob, local or a URI; `~` is the home folder.
        pattern: that the files' names have to match.
        passed_over: to which the files that lie in the folder and are not returned are added, by the reason.

    Raises:
        MissingInput: nothing is there.
        StoreError: the store cannot be reached.
    """
    path = expand_path(path)
    walk = _Walk()
    glob = _find_glob(path)
    root = path if glob is None else _cut_at_glob(path)
    depth = None if glob is None or "**" in glob else glob.count("/")
    if is_remote(path):
        _walk_store(root, depth, walk)
    elif Path(root).is_dir():
        _walk_folder(root, depth, _identify(root), walk)
    elif Path(root).is_file():
        entry = Path(root).stat()
        walk.files.append(SourceFile(root, entry.st_size, _make_stamp(entry)))
    if glob is not None:
        walk.files = [file for file in walk.files if match_path(_cut_root(file.path, root), glob)]
    files = [file for file in walk.files if match_path(file.path.rpartition("/")[2], pattern)]
    if missed := len(walk.files) - len(files):
        walk.passed_over[f"name does not match '{pattern}'"] += missed
    if passed_over is not None:
        passed_over.update(walk.passed_over)
    if not files:
        suffix = f" that matches '{pattern}'" if pattern != "*" else ""
        is_folder = not is_remote(path) and Path(path).is_dir()
        text = f"the folder '{path}' has no file{suffix}" if is_folder else f"there is no file{suffix} at '{path}'"
        raise MissingInput(text + (f" (passed over: {describe_counts(walk.passed_over)})" if walk.passed_over else ""))
    return sorted(files, key=lambda file: file.path)


def describe_counts(counts: Mapping[str, int]) -> str:
    """Describe counts by their reasons, the largest first.

    Examples:
        >>> describe_counts(Counter({"hidden": 2, "link to nothing": 1}))
        '2 hidden, 1 link to nothing'
    """
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items(), key=lambda c: (-c[1], c[0])))


def _find_glob(path: str) -> str | None:
    """Return the part of a path from its first component with a wildcard; None where it has none, or is a file."""
    scheme = path.partition("://")[0] if is_remote(path) else ""
    if scheme in WEB or not MAGIC & set(path):
        return None
    with translate_client_errors("list", path):
        if open_file_system(path)[0].exists(path) if scheme else os.path.lexists(path):
            return None  # a name with brackets in it
    return path[len(_cut_at_glob(path)) :].lstrip("/")


def _cut_at_glob(path: str) -> str:
    """Return the folder above the first component with a wildcard."""
    start = path.index("://") + 3 if is_remote(path) else 0
    parts = path[start:].split("/")
    count = next((index for index, part in enumerate(parts) if MAGIC & set(part)), len(parts))
    folder = "/".join(parts[:count])
    return path[:start] + (folder or ("/" if path[start:].startswith("/") else "" if start else "."))


def _cut_root(path: str, root: str) -> str:
    """Return a path below a folder."""
    return path.removeprefix("./") if root == "." else path.removeprefix(root.rstrip("/")).lstrip("/")


def _walk_store(root: str, depth: int | None, walk: _Walk) -> None:
    """List the objects below a prefix; names that begin with a dot, or are in such a folder, are hidden."""
    try:
        with translate_client_errors("list", root):
            fs, key = open_file_system(root)
            entries = fs.find(key, detail=True, maxdepth=None if depth is None else depth + 1)
    except FileNotFoundError:
        return
    for entry in entries.values():
        name = str(entry["name"])
        below = name.removeprefix(str(key).rstrip("/")).lstrip("/")
        if name.endswith("/"):
            continue  # an object that stands for a folder
        if any(part.startswith(".") for part in below.split("/")):
            walk.passed_over["hidden"] += 1
            continue
        stamp = str(entry.get("ETag") or entry.get("etag") or entry.get("mtime") or "")
        path = f"{root.rstrip('/')}/{below}" if below else root
        walk.files.append(SourceFile(path, int(entry["size"] or 0), stamp))


def _make_stamp(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns} {status.st_ctime_ns}"


def _identify(path: str) -> frozenset[tuple[int, int]]:
    entry = Path(path).stat()
    return frozenset({(entry.st_dev, entry.st_ino)})


def _walk_folder(folder: str, depth: int | None, above: frozenset[tuple[int, int]], walk: _Walk) -> None:
    """List a folder and those in it; `above` are the folders around it, in which a link would turn in a circle."""
    try:
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError:
        walk.passed_over["folder that cannot be opened"] += 1
        return
    for entry in entries:
        if entry.name.startswith("."):
            walk.passed_over["hidden"] += _count_hidden(entry)
            continue
        try:
            status = entry.stat()
        except OSError:
            walk.passed_over["link to nothing" if entry.is_symlink() else "file that cannot be opened"] += 1
            continue
        if stat.S_ISDIR(status.st_mode):
            key = (status.st_dev, status.st_ino)
            if key in above:
                walk.passed_over["link to a folder above it"] += 1
            elif depth is None or depth > 0:
                _walk_folder(entry.path, None if depth is None else depth - 1, above | {key}, walk)
        elif stat.S_ISREG(status.st_mode):
            walk.files.append(SourceFile(entry.path.removeprefix("./"), status.st_size, _make_stamp(status)))
        else:
            walk.passed_over["no regular file"] += 1


def _count_hidden(entry: os.DirEntry[str]) -> int:
    """Count the files that a hidden entry is or holds; an empty folder is none."""
    if not entry.is_dir(follow_symlinks=False):
        return 1
    return sum(len(names) for _, _, names in os.walk(entry.path))
