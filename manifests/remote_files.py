"""Object stores' clients: their errors as this project's own, names that stay below a store, and copies of files."""

import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec

from rasura.manifests.errors import StorageError
from rasura.manifests.ids import hash_json

_CLIENT_ERRORS = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "aiohttp.client_exceptions": ("ClientError",),
    "gcsfs.retry": ("HttpError",),
}
"""Errors of object stores' clients that are no OSError, by the modules that define them."""


class StoreError(StorageError):
    """A file cannot be written or read. The text says which, and why."""


def _list_client_errors() -> tuple[type[Exception], ...]:
    """List those of `_CLIENT_ERRORS` whose module is loaded: the others cannot have been raised."""
    return tuple(
        getattr(sys.modules[module], name)
        for module, names in _CLIENT_ERRORS.items()
        if module in sys.modules
        for name in names
    )


@contextlib.contextmanager
def translate_client_errors(action: str, where: str) -> Iterator[None]:
    """Raise the errors of an object store's client as `StoreError`, except those that say that a file exists or not.

    Raises:
        StoreError: no credentials, no such bucket, an endpoint that cannot be reached.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError, StoreError):
        raise
    except Exception as error:
        if not isinstance(error, (OSError, NotImplementedError, *_list_client_errors())):
            raise
        reason = str(error) or "this kind of store cannot do it"
        raise StoreError(f"cannot {action} {where}: {reason}") from error


class RemoteFile:
    """A file of an object store, opened for reading, whose reads raise `StoreError` where its client fails."""

    def __init__(self, file: IO[bytes], where: str) -> None:
        self._file, self._where = file, where

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes; all that is left where it is negative."""
        with translate_client_errors("read", self._where):
            return self._file.read(size)

    def __enter__(self) -> "RemoteFile":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def check_name(path: str) -> None:
    """Check that a name stays below the store that it is used in.

    Raises:
        StoreError: it is absolute, or a part of it is `..`.

    Examples:
        >>> check_name("tables/photos/manifest.parquet")
        >>> check_name("data/../../x")
        Traceback (most recent call last):
        rasura.manifests.remote_files.StoreError: 'data/../../x' is no name below a store: it would lead out of it
    """
    if path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise StoreError(f"{path!r} is no name below a store: it would lead out of it")


def find_cache() -> Path:
    """Return the folder of this machine for what is fetched; `XDG_CACHE_HOME` moves it."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "rasura" / "files"


def fetch(uri: str) -> Path:
    """Fetch a remote file, or a folder with all below it, once; again only where it has changed.

    Returns:
        Its place on this machine, under its own name.

    Raises:
        StorageError: there is nothing at this URI.
        StoreError: the store cannot be reached.
    """
    uri = uri.rstrip("/")
    fs, root = fsspec.core.url_to_fs(uri, use_listings_cache=False)
    with translate_client_errors("list", uri):
        entries: dict[str, Any] = fs.find(root, detail=True)
    if not entries:
        raise StorageError(f"there is no file or folder '{uri}'")
    names = {key: str(PurePosixPath(key).relative_to(PurePosixPath(root).parent)) for key in sorted(entries)}
    stamps = [
        [name, entries[key].get("size"), str(entries[key].get("ETag") or entries[key].get("mtime"))]
        for key, name in names.items()
    ]
    folder = find_cache() / hash_json([uri, stamps])
    place = folder / PurePosixPath(root).name
    if folder.is_dir():
        return place
    part = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}")
    try:
        for key, name in names.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            with translate_client_errors("read", key):
                fs.get_file(key, str(part / name))
        with contextlib.suppress(OSError):  # another process was first
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return place
