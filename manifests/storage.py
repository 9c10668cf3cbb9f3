"""A run's folder or bucket prefix: atomic writes, create-if-absent, listings. A local path, or any fsspec URI.

On a file system a file appears at once, complete, by rename (or link, where the first writer must win), after fsync.
On an object store an object appears when it is closed, and create-if-absent is a conditional put.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import fsspec

from rasura.manifests.errors import RunError
from rasura.manifests.remote_files import RemoteFile, check_name, translate_client_errors
from rasura.manifests.remote_files import StoreError as StoreError
from rasura.manifests.uris import check_uri

LEASE = "lock.json"
LEASE_S = 60.0  # a lock on an object store that is older has lost its owner
_TEMPORARY = re.compile(r"\.tmp-.+-[0-9a-f]{8}")


class RunLocked(RunError):
    """Another driver owns the run."""


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
        self._fs: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.location}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["uri"])  # type: ignore[misc]

    @property
    def location(self) -> str:
        """The absolute path of a local store, the URI of another: the same from every folder."""
        return str(self.local or self.uri)

    @property
    def fs(self) -> Any:
        """The fsspec file system of a remote store (never cached listings: other processes write too)."""
        if self._fs is None:
            self._fs, _ = fsspec.core.url_to_fs(self.uri, use_listings_cache=False)
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

    def sub(self, path: str) -> "Store":
        """Return the store of a folder below this one.

        Raises:
            StoreError: the name, or a link on the way, leads out of this one.
        """
        return Store(self._key(path) if self.local is None else str(self._file(path)))

    # --- writing

    def _write_temporary(self, target: Path, data: bytes | memoryview) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".tmp-{target.name}-{secrets.token_hex(4)}"
        try:
            with temporary.open("wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        return temporary

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
            temporary = self._write_temporary(target, data)
            temporary.replace(target)
            _sync_folder(target.parent)
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
            temporary = self._write_temporary(target, data)
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            finally:
                temporary.unlink()
            _sync_folder(target.parent)
            return True
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

    def read(self, path: str) -> bytes:
        """Read the bytes of a file.

        Raises:
            FileNotFoundError: there is none.
            StoreError: the store cannot be reached.
        """
        if self.local is None:
            with translate_client_errors("read", self._key(path)):
                return cast(bytes, self.fs.cat_file(self._key(path)))
        return self._file(path).read_bytes()

    def open(self, path: str) -> IO[bytes]:
        """Open a file for reading, with seek.

        Raises:
            FileNotFoundError: there is none.
            StoreError: the store cannot be reached.
        """
        if self.local is None:
            with translate_client_errors("read", self._key(path)):
                return cast(IO[bytes], RemoteFile(self.fs.open(self._key(path), "rb"), self._key(path)))
        return self._file(path).open("rb")

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

        On a file system this is `flock`, which ends with the process. On an object store it is a lease of
        `LEASE_S` seconds; should two drivers ever overlap there, both write the same bytes.

        Raises:
            RunLocked: another driver owns it.
            StoreError: the target cannot be written.
        """
        if self.local is None:
            with self._lease():
                yield
            return
        try:
            self.local.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW  # what a link leads to is not ours
            handle = os.fdopen(os.open(self.local / ".lock", flags, 0o666), "a+")
        except FileExistsError:
            raise StoreError(f"cannot write into '{self.uri}': it is a file; name a folder") from None
        except OSError as error:
            raise StoreError(describe_write_error(self.uri, error)) from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                handle.seek(0)
                raise RunLocked(f"{self.uri} is owned by another driver ({handle.read().strip()})") from None
            handle.seek(0)
            handle.truncate()
            handle.write(f"pid {os.getpid()} on {socket.gethostname()}")
            handle.flush()
            yield

    @contextlib.contextmanager
    def _lease(self) -> Iterator[None]:
        owner = secrets.token_hex(8)
        if not self.create(LEASE, _encode_lease(owner)):
            lease = self._read_lease()
            if lease and time.time() - lease["time"] < LEASE_S:
                raise RunLocked(
                    f"{self.uri} is owned by another driver (pid {lease['pid']} on {lease['host']}); if that one is "
                    f"gone, try again in {LEASE_S:.0f} s"
                )
            self.write(LEASE, _encode_lease(owner))
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(LEASE_S / 4):
                with contextlib.suppress(OSError):  # a passing failure; the next renewal comes in time
                    if (lease := self._read_lease()) and lease["owner"] == owner:
                        self.write(LEASE, _encode_lease(owner))

        thread = threading.Thread(target=renew, daemon=True, name="rasura-lease")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            if (lease := self._read_lease()) and lease["owner"] == owner:
                self.delete(LEASE)

    def _read_lease(self) -> dict[str, Any] | None:
        try:
            return cast(dict[str, Any], json.loads(self.read(LEASE)))
        except (FileNotFoundError, ValueError):
            return None


def _encode_lease(owner: str) -> bytes:
    body = {"owner": owner, "host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
    return json.dumps(body).encode()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
