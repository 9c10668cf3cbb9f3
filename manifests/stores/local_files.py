"""Files of a file system: written whole, made once, on those too that have no hard links, locks or sync of folders.

Linux file systems differ in what they can do: exFAT and many FUSE ones have no hard links, NFS may have no locks, CIFS
cannot sync a folder. What is missing is done in another way here, with the same promise.
"""

import contextlib
import errno
import os
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rasura.manifests.remote_files import StoreError

UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
"""Errors of a file system that does not know an operation."""
NO_LINKS = UNSUPPORTED | {errno.EPERM, errno.EACCES, errno.EMLINK, errno.EXDEV}
"""Errors of `os.link` beside a file that was just written: what hinders it is not the folder's permissions."""
NO_LOCKS = UNSUPPORTED | {errno.ENOLCK}
MOVE_AWAY = "move it away; what a run needs, the next `rasura run` makes again"
CLAIM_S = 10.0
"""Age of a claim whose owner is believed dead: it holds one for the time of a rename."""


def open_file(path: Path) -> IO[bytes]:
    """Open a file for reading. What is no file is refused: a pipe would be waited for, a device may have no end.

    Raises:
        FileNotFoundError: there is none.
        StoreError: there is a folder, a pipe, a device or a socket by its name.
    """
    try:
        file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - a path's own `open` takes no opener
    except IsADirectoryError:
        raise StoreError(f"{path} is a folder where a file belongs; {MOVE_AWAY}") from None
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise StoreError(f"{path} is a socket or a device where a file belongs; {MOVE_AWAY}") from None
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise StoreError(f"{path} is a pipe or a device where a file belongs; {MOVE_AWAY}")
    return file


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


@dataclass
class Root:
    """The topmost folder of a store. Nothing is ever made above it once it was there.

    Attributes:
        path: of the folder.
        is_known: it was there before, on this machine or another.
        device: number of the file system that it was on, on this machine; None until it was looked at.
    """

    path: Path
    is_known: bool = False
    device: int | None = None

    def note(self) -> None:
        """Note that the folder is there."""
        if self.device is None:
            with contextlib.suppress(OSError):
                self.device, self.is_known = self.path.stat().st_dev, True

    def make_folder(self, folder: Path) -> None:
        """Make a folder below this one, and this one where it was never there.

        Raises:
            StoreError: this one was there, and is not any more, or is on another file system now.
        """
        if not self.is_known:
            self.path.mkdir(parents=True, exist_ok=True)
        self.note()
        try:
            if self.path.stat().st_dev != self.device:
                raise StoreError(f"{self.path} is on another file system than before: was it mounted or unmounted?")
            missing = []
            while folder != self.path and not folder.is_dir():
                missing.append(folder)
                folder = folder.parent
            for name in reversed(missing):
                name.mkdir(exist_ok=True)
        except FileNotFoundError:
            raise StoreError(f"{self.path} is not there any more: was it deleted, moved or unmounted?") from None


def write_temporary(target: Path, data: bytes | memoryview) -> Path:
    """Write data to a file of a hidden name beside its target, down to the disk, and return that name."""
    temporary = target.parent / f".tmp-{target.name}-{secrets.token_hex(4)}"
    try:
        with temporary.open("wb") as out:
            out.write(data)
            out.flush()
            _sync(out.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return temporary


def replace_file(temporary: Path, target: Path) -> None:
    """Give a temporary file its name, in place of an earlier file."""
    temporary.replace(target)
    _sync_folder(target.parent)


def create_file(temporary: Path, target: Path) -> bool:
    """Give a temporary file its name if no file has it; the first of several processes wins.

    Returns:
        False where another one was first.
    """
    try:
        os.link(temporary, target)
        is_first = True
    except FileExistsError:
        is_first = False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        is_first = _rename_by_claim(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    if is_first:
        _sync_folder(target.parent)
    return is_first


def _rename_by_claim(temporary: Path, target: Path) -> bool:
    """Rename a file unless its target exists, in the time of a claim that one process has.

    A claim is a file that `O_EXCL` makes. That of a process that died is broken after `CLAIM_S`; a process that only
    slept for so long may then write over the file of another, of which a run makes use for equal contents alone.
    """
    claim = target.parent / f".tmp-{target.name}-00000000"  # a name that is cleared away with other leftovers
    deadline = time.monotonic() + CLAIM_S
    while True:
        try:
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError:
            if os.path.lexists(target):
                return False
            if time.monotonic() > deadline:
                claim.unlink(missing_ok=True)
                deadline = time.monotonic() + CLAIM_S
            time.sleep(0.02)
    try:
        if os.path.lexists(target):
            return False
        temporary.replace(target)
        return True
    finally:
        claim.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Have a folder's names on the disk, where its file system can; CIFS, which cannot, changes them on its server."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        _sync(handle)
    finally:
        os.close(handle)


def _sync(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
