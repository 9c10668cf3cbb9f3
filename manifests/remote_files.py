"""Object stores' clients: their errors as this project's own, and the names that stay below a store."""

import contextlib
import sys
from collections.abc import Iterator
from typing import IO, Any

from rasura.manifests.errors import StorageError

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
