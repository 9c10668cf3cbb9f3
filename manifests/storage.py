"""A run's folder or bucket prefix: atomic writes, create-if-absent, listings. A local path, or any fsspec URI.

On a file system a file appears at once, complete, by rename (or link, where the first writer must win), after fsync.
On an object store an object appears when it is closed, and create-if-absent is a conditional put.
"""

import contextlib
import fcntl
import os
import re
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from rasura.manifests.remote_files import RangedFile, RemoteFile, check_name, open_file_system, translate_client_errors
from rasura.manifests.remote_files import StoreError as StoreError
from rasura.manifests.stores.lease import Lease
from rasura.manifests.stores.lease import RunLocked as RunLocked
from rasura.manifests.stores.local_files import NO_LOCKS, Root, create_file, open_file, replace_file, write_temporary
from rasura.manifests.uris import check_uri

_TEMPORARY = re.compile(r"\.tmp-.+-[0-9a-f]{8}")


def describe_write_error(place: str, error: OSError) -> str:
    """Describe why a file or folder cannot be written.

    Examples:
        >>> describe_write_error("runs/mine", PermissionError(13, "Permission denied"))
        "cannot write 'runs/mine': permission denied; change its permissions, or choose another place"
    """
    if isinstance(error, PermissionError):
        return f"cannot write '{place}': permission denied; change its permissions, or choose another place"
    return f"cannot write {place}: {error.strerror or error}"


def is_remote(uri: str) -> bool:
    """Return True for s3://…, gs://… and the like; False for a path or file://.

    Examples:
        >>> is_remote("s3://bucket/runs/demo"), is_remote("runs/demo")
        (True, False)
    """
    return "://" in uri and not uri.startswith("file://")


class Store:
    """Files below one URI, named by relative paths with forward slashes."""

    def __init__(self, uri: str | Path) -> None:
        check_uri(str(uri))
        self.uri = str(uri).removeprefix("file://").rstrip("/") or "/"
        self.local: Path | None = None if is_remote(self.uri) else Path(self.uri).absolute()
        self._root = Root(self.local or Path())
        self._fs: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.location, "root": (self._root.path, self._root.is_known)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["uri"])  # type: ignore[misc]
        self._root = Root(*state["root"])

    @property
    def location(self) -> str:
        """The absolute path of a local store, the URI of another: the same from every folder."""
        return str(self.local or self.uri)

    @property
    def fs(self) -> Any:
        """The fsspec file system of a remote store."""
        if self._fs is None:
            self._fs, _ = open_file_system(self.uri)
        return self._fs

    def _key(self, path: str) -> str:
        check_name(path)
        return f"{self.uri}/{path}"

    def _file(self, path: str, *, follow: bool = True) -> Path:
        """Return the place of a file below a local store.

        Args:
            path: name of the file.
            follow: False where the file itself is replaced or deleted, and not what a link by its name leads to.

        Raises:
            StoreError: the name, or a link on the way, leads out of the store.
        """
        check_name(path)
        root = cast(Path, self.local)
        target = root / path
        home, place = os.path.realpath(root), os.path.realpath(target if follow else target.parent)
        if place != home and not place.startswith(home.rstrip("/") + "/"):
            raise StoreError(f"{target} leads out of {root}, to {place}; remove the link")
        return target

    def find(self, path: str) -> Path | None:
        """Return the place of a file or folder on this machine, for what takes paths; None of a remote store.

        Raises:
            StoreError: the name, or a link on the way, leads out of the store.
        """
        return None if self.local is None else self._file(path)

    def sub(self, path: str) -> "Store":
        """Return the store of a folder below this one.

        Raises:
            StoreError: the name, or a link on the way, leads out of this one.
        """
        store = Store(self._key(path) if self.local is None else str(self._file(path)))
        store._root = self._root
        return store

    # --- writing

    def _write_temporary(self, target: Path, data: bytes | memoryview) -> Path:
        self._root.make_folder(target.parent)
        return write_temporary(target, data)

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Write a complete file in place of an earlier one; a reader sees the old file or the new one.

        Raises:
            StoreError: for example a full disk or a read-only target.
        """
        try:
            if self.local is None:
                with translate_client_errors("write", self._key(path)):
                    self.fs.pipe_file(self._key(path), bytes(data))
                return
            target = self._file(path, follow=False)
            replace_file(self._write_temporary(target, data), target)
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(describe_write_error(self._key(path), error)) from error

    def create(self, path: str, data: bytes) -> bool:
        """Write a complete file if there is none by this name.

        Returns:
            False where another writer was first.

        Raises:
            StoreError: for example a full disk or a read-only target.
        """
        try:
            if self.local is None:
                try:
                    with translate_client_errors("write", self._key(path)):
                        self.fs.pipe_file(self._key(path), data, mode="create")
                except FileExistsError:
                    return False
                return True
            target = self._file(path, follow=False)
            return create_file(self._write_temporary(target, data), target)
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(describe_write_error(self._key(path), error)) from error

    def delete(self, path: str) -> None:
        """Delete a file, if there is one.

        Raises:
            StoreError: the store cannot be reached.
        """
        with contextlib.suppress(FileNotFoundError):
            if self.local is None:
                with translate_client_errors("delete", self._key(path)):
                    self.fs.rm_file(self._key(path))
            else:
                self._file(path, follow=False).unlink()

    # --- reading

    def read(self, path: str, is_small: bool = False) -> bytes:
        """Read the bytes of a file.

        Args:
            path: name of the file.
            is_small: it takes one request of an object store: its size is not asked for, to read it in parts.

        Raises:
            FileNotFoundError: there is none.
            StoreError: the store cannot be reached, or what has that name is no file.
        """
        if self.local is None:
            with translate_client_errors("read", self._key(path)):
                options = {"max_concurrency": 1} if is_small and self.uri.startswith("s3://") else {}
                return cast(bytes, self.fs.cat_file(self._key(path), **options))
        with open_file(self._file(path)) as file:
            data = file.read()
        self._root.note()
        return data

    def open(self, path: str, size: int | None = None) -> IO[bytes]:
        """Open a file for reading, with seek.

        Args:
            path: name of the file.
            size: that it should have, where that is known: an object store is then not asked.

        Raises:
            FileNotFoundError: there is none.
            StoreError: the store cannot be reached.
        """
        if self.local is None:
            if size is not None:
                return cast(IO[bytes], RangedFile(self.fs, self._key(path), size))
            with translate_client_errors("read", self._key(path)):
                return cast(IO[bytes], RemoteFile(self.fs.open(self._key(path), "rb"), self._key(path)))
        return open_file(self._file(path))

    def exists(self, path: str) -> bool:
        """Return True for a file, or a folder that is not empty."""
        if self.local is None:
            with translate_client_errors("read", self._key(path)):
                return bool(self.fs.exists(self._key(path)))
        return self._file(path).exists()

    def files(self, folder: str = "") -> list[str]:
        """List the names of the files right below a folder, sorted; none where there is no folder."""
        if self.local is None:
            return self._list_remote(folder, "file")
        root = self._file(folder)
        if not root.is_dir():
            return []
        with os.scandir(root) as entries:
            return sorted(entry.name for entry in entries if entry.is_file() and not entry.name.startswith("."))

    def folders(self, folder: str = "") -> list[str]:
        """List the names of the folders right below a folder, sorted."""
        if self.local is None:
            return self._list_remote(folder, "directory")
        root = self._file(folder)
        return sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the sizes of the files right below a folder by their names from the store."""
        if self.local is None:
            entries = self._list_entries(folder, "file")
            return {f"{folder}/{PurePosixPath(entry['name']).name}": entry["size"] for entry in entries}
        root = self._file(folder)
        if not root.is_dir():
            return {}
        with os.scandir(root) as local_entries:
            return {f"{folder}/{entry.name}": entry.stat().st_size for entry in local_entries if entry.is_file()}

    def _list_remote(self, folder: str, kind: str) -> list[str]:
        return sorted(PurePosixPath(entry["name"]).name for entry in self._list_entries(folder, kind))

    def _list_entries(self, folder: str, kind: str) -> list[dict[str, Any]]:
        key = self._key(folder).rstrip("/")
        try:
            with translate_client_errors("list", key):
                entries = self.fs.ls(key, detail=True, refresh=True)
        except FileNotFoundError:
            return []
        return [entry for entry in entries if entry["type"] == kind]

    def clear_temporary(self, folders: Sequence[str]) -> int:
        """Delete what killed writers left behind. Only the owner of the lock may.

        Args:
            folders: below which to look, beside this folder itself.

        Returns:
            The number of files that were deleted.
        """
        if self.local is None or not self.local.is_dir():
            return 0
        candidates = [
            *self.local.glob(".tmp-*"),
            *(path for name in folders for path in self._file(name).rglob(".tmp-*")),
        ]
        leftovers = [path for path in candidates if path.is_file() and _TEMPORARY.fullmatch(path.name)]
        for path in leftovers:
            path.unlink(missing_ok=True)
        return len(leftovers)

    # --- owning

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Own the run while the context lasts.

        On a file system this is `flock`, which ends with the process. On an object store, and on a file system without
        locks, it is a lease; should two drivers ever overlap there, both write the same bytes.

        Raises:
            RunLocked: another driver owns it.
            StoreError: the target cannot be written.
        """
        if self.local is None or not (handle := self._flock()):
            with Lease(self).hold():
                yield
            return
        with handle:
            yield

    def _flock(self) -> IO[str] | None:
        """Lock the file `.lock` until it is closed; None where the file system has no locks.

        Raises:
            RunLocked: another process has it.
            StoreError: the folder cannot be written.
        """
        folder = cast(Path, self.local)
        try:
            self._root.make_folder(folder)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW  # what a link leads to is not ours
            handle = os.fdopen(os.open(folder / ".lock", flags, 0o666), "a+")
        except FileExistsError:
            raise StoreError(f"cannot write into '{self.uri}': it is a file; name a folder") from None
        except StoreError:
            raise
        except OSError as error:
            if os.path.lexists(folder / ".lock") and not stat.S_ISREG((folder / ".lock").lstat().st_mode):
                raise StoreError(f"{self.uri}/.lock is no file (a link, a folder, a pipe?); remove it") from None
            raise StoreError(describe_write_error(self.uri, error)) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            handle.seek(0)
            handle.truncate()
            handle.write(f"pid {os.getpid()} on {socket.gethostname()}")
            handle.flush()
            return handle
        except BlockingIOError:
            with handle:
                handle.seek(0)
                raise RunLocked(f"{self.uri} is owned by another driver ({handle.read().strip()})") from None
        except OSError as error:
            handle.close()
            if error.errno in NO_LOCKS:
                return None
            raise StoreError(describe_write_error(f"{self.uri}/.lock", error)) from error
