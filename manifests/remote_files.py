"""Object stores' clients: their errors as this project's own, names that stay below a store, and copies of files."""

import contextlib
import io
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import fsspec

from rasura.manifests.errors import StorageError
from rasura.manifests.ids import hash_json

_CLIENT_ERRORS = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "aiohttp.client_exceptions": ("ClientError",),
    "gcsfs.retry": ("HttpError",),
}
"""Errors of object stores' clients that are no OSError, by the modules that define them."""
S3_TRIES = 3
"""Times that Amazon's client tries a request (`AWS_MAX_ATTEMPTS` changes it). s3fs above it tries five times, and five
times more to read an answer: with the client's own 5, a read from a store that is away takes minutes to fail."""


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


def open_file_system(uri: str) -> tuple[Any, str]:
    """Open the file system of a URI; its listings are never cached, since other processes write, too.

    Returns:
        fsspec's file system, and the path of the URI in it.
    """
    is_default_s3 = uri.startswith("s3://") and "AWS_MAX_ATTEMPTS" not in os.environ
    options = {"config_kwargs": {"retries": {"total_max_attempts": S3_TRIES}}} if is_default_s3 else {}
    fs, path = fsspec.core.url_to_fs(uri, use_listings_cache=False, **options)
    return fs, str(path)


def open_to_read(uri: str) -> IO[bytes]:
    """Open a file of somebody else's, local or remote, for reading."""
    fs, path = open_file_system(uri)
    return cast(IO[bytes], fs.open(path, "rb"))


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


READ_AHEAD_BYTES = 16 * 2**20
"""What is asked for at a time: a row group, with all its columns, is one request."""


class RangedFile(io.RawIOBase):
    """A file of an object store whose size is known, opened for reading without a request.

    Args:
        fs: the store's client.
        key: of the object.
        size: that it should have.
    """

    def __init__(self, fs: Any, key: str, size: int) -> None:
        self._fs, self._key, self._size = fs, key, size
        self._position = self._start = 0
        self._window = b""  # bytes from `_start`

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Read up to `size` bytes; all that is left where it is negative.

        Raises:
            FileNotFoundError: there is no such object.
            ValueError: it has another size.
            StoreError: the store cannot be reached.
        """
        left = max(0, self._size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        first = self._position - self._start
        if wanted and not 0 <= first <= first + wanted <= len(self._window):
            self._fetch(min(left, max(wanted, READ_AHEAD_BYTES)))
            first = 0
        self._position += wanted
        return self._window[first : first + wanted]

    def _fetch(self, count: int) -> None:
        self._start, self._window = self._position, b""
        try:
            with translate_client_errors("read", self._key):
                window = self._fs.cat_file(self._key, start=self._start, end=self._start + count)
        except StoreError:
            self._check_size()  # a range that an object does not have is an error of its own in each client
            raise
        if len(window) != count:
            self._check_size()
            raise StoreError(f"cannot read {self._key}: {len(window)} of {count} bytes came")
        self._window = window

    def _check_size(self) -> None:
        with translate_client_errors("read", self._key):
            size = self._fs.info(self._key)["size"]
        if size != self._size:
            raise ValueError(f"it has {size} bytes, and {self._size} were committed")


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
    fs, root = open_file_system(uri)
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
