"""A run's folder or bucket prefix: atomic writes, create-if-absent, listings. A local path, or any fsspec URI.

On a file system a file appears whole by rename (or link, where the first writer must win), after fsync.
On an object store an object appears whole when it is closed, and create-if-absent is a conditional put.
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

LEASE = "lock.json"
_TEMPORARY = re.compile(r"\.tmp-.+-[0-9a-f]{8}")
LEASE_S = 60.0  # a lock on an object store that is older has lost its owner


class StoreError(OSError):
    """Something could not be written or read; the message names what, where, and why."""


class RunLocked(RuntimeError):
    """Another driver owns the run."""


def is_remote(uri: str) -> bool:
    """True for s3://…, gs://… and the like; False for a path or file://."""
    return "://" in uri and not uri.startswith("file://")


class Store:
    """Files below one URI, named by relative paths with forward slashes."""

    def __init__(self, uri: str | Path) -> None:
        self.uri = str(uri).removeprefix("file://").rstrip("/") or "/"
        self.local: Path | None = None if is_remote(self.uri) else Path(self.uri).absolute()
        self._fs: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": str(self.local or self.uri)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["uri"])  # type: ignore[misc]

    @property
    def fs(self) -> Any:
        """The fsspec file system of a remote store (never cached listings: other processes write too)."""
        if self._fs is None:
            self._fs, _ = fsspec.core.url_to_fs(self.uri, use_listings_cache=False)
        return self._fs

    def _key(self, path: str) -> str:
        return f"{self.uri}/{path}"

    def _file(self, path: str) -> Path:
        return cast(Path, self.local) / path

    def sub(self, path: str) -> "Store":
        """The store of a folder below this one."""
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
        """Writes a whole file, replacing what was there; a reader sees the old one or the new one.

        Raises:
            StoreError: for example a full disk or a read-only target.
        """
        try:
            if self.local is None:
                self.fs.pipe_file(self._key(path), bytes(data))
                return
            target = self._file(path)
            temporary = self._write_temporary(target, data)
            temporary.replace(target)
            _sync_folder(target.parent)
        except OSError as error:
            raise StoreError(f"cannot write {self._key(path)}: {error.strerror or error}") from error

    def create(self, path: str, data: bytes) -> bool:
        """Writes a whole file if there is none by this name; False where somebody was first.

        Raises:
            StoreError
        """
        try:
            if self.local is None:
                try:
                    self.fs.pipe_file(self._key(path), data, mode="create")
                except FileExistsError:
                    return False
                return True
            target = self._file(path)
            temporary = self._write_temporary(target, data)
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            finally:
                temporary.unlink()
            _sync_folder(target.parent)
            return True
        except OSError as error:
            raise StoreError(f"cannot write {self._key(path)}: {error.strerror or error}") from error

    def delete(self, path: str) -> None:
        """Deletes a file; one that is not there is fine."""
        with contextlib.suppress(FileNotFoundError):
            if self.local is None:
                self.fs.rm_file(self._key(path))
            else:
                self._file(path).unlink()

    # --- reading

    def read(self, path: str) -> bytes:
        """The bytes of a file.

        Raises:
            FileNotFoundError
        """
        if self.local is None:
            return cast(bytes, self.fs.cat_file(self._key(path)))
        return self._file(path).read_bytes()

    def open(self, path: str) -> IO[bytes]:
        """A file opened for reading anywhere in it.

        Raises:
            FileNotFoundError
        """
        if self.local is None:
            return cast(IO[bytes], self.fs.open(self._key(path), "rb"))
        return self._file(path).open("rb")

    def exists(self, path: str) -> bool:
        """True for a file that is there, or a folder that has something in it."""
        if self.local is None:
            return bool(self.fs.exists(self._key(path)))
        return self._file(path).exists()

    def files(self, folder: str = "") -> list[str]:
        """Names of the files right below a folder, sorted; none where there is no folder."""
        if self.local is None:
            try:
                entries = self.fs.ls(self._key(folder).rstrip("/"), detail=True, refresh=True)
            except FileNotFoundError:
                return []
            return sorted(PurePosixPath(entry["name"]).name for entry in entries if entry["type"] == "file")
        root = self._file(folder)
        if not root.is_dir():
            return []
        with os.scandir(root) as entries:
            return sorted(entry.name for entry in entries if entry.is_file() and not entry.name.startswith("."))

    def folders(self, folder: str = "") -> list[str]:
        """Names of the folders right below a folder, sorted."""
        if self.local is None:
            try:
                entries = self.fs.ls(self._key(folder).rstrip("/"), detail=True, refresh=True)
            except FileNotFoundError:
                return []
            return sorted(PurePosixPath(entry["name"]).name for entry in entries if entry["type"] == "directory")
        root = self._file(folder)
        return sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []

    def clear_temporary(self, folders: Sequence[str]) -> int:
        """Deletes what killed writers left in this folder and below `folders`; only the owner may. Returns how many."""
        if self.local is None or not self.local.is_dir():
            return 0
        found = [
            *self.local.glob(".tmp-*"),
            *(path for name in folders for path in (self.local / name).rglob(".tmp-*")),
        ]
        left = [path for path in found if path.is_file() and _TEMPORARY.fullmatch(path.name)]
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    # --- owning

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Owns the run while the context lasts.

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
            handle = (self.local / ".lock").open("a+")
        except OSError as error:
            raise StoreError(f"cannot write {self.uri}: {error.strerror or error}") from error
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
        if not self.create(LEASE, _lease_body(owner)):
            held = self._lease_of()
            if held and time.time() - held["time"] < LEASE_S:
                raise RunLocked(
                    f"{self.uri} is owned by another driver (pid {held['pid']} on {held['host']}); if that one is "
                    f"gone, try again in {LEASE_S:.0f} s"
                )
            self.write(LEASE, _lease_body(owner))
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(LEASE_S / 4):
                with contextlib.suppress(OSError):  # a hiccup; the next one comes in time
                    if (held := self._lease_of()) and held["owner"] == owner:
                        self.write(LEASE, _lease_body(owner))

        thread = threading.Thread(target=renew, daemon=True, name="rasura-lease")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            if (held := self._lease_of()) and held["owner"] == owner:
                self.delete(LEASE)

    def _lease_of(self) -> dict[str, Any] | None:
        try:
            return cast(dict[str, Any], json.loads(self.read(LEASE)))
        except (FileNotFoundError, ValueError):
            return None


def _lease_body(owner: str) -> bytes:
    body = {"owner": owner, "host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
    return json.dumps(body).encode()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
