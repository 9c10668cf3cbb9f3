"""Two kinds of fault: a row's, which costs that row, and one of the surroundings, which costs none.

docs/engine.md has the table that this module follows. What is in doubt counts as a row's fault, so that one bad input
never keeps a run from its end; what a disk, a network, a node or a neighbour does is never in doubt.
"""

import errno
import os
import socket
import ssl
from collections.abc import Iterable, Iterator, Sequence

from rasura.manifests.errors import RunError, StorageError
from rasura.manifests.safety.text import read_text
from rasura.manifests.shards import DamagedFile, MissingFile
from rasura.networks.batches import is_out_of_memory

_ERRNO_NAMES = (
    *("EIO", "ENOSPC", "EDQUOT", "EROFS", "ENODEV", "ENXIO", "ESTALE", "EREMOTEIO", "ENOLCK", "EBUSY", "EAGAIN"),
    *("ENOMEM", "EMFILE", "ENFILE", "EFBIG", "EINTR", "EPIPE", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH"),
    *("ENETDOWN", "ENETUNREACH", "ENETRESET", "ECONNABORTED", "ECONNRESET", "ECONNREFUSED"),
)
SURROUNDINGS_ERRNOS = frozenset(getattr(errno, name) for name in _ERRNO_NAMES if hasattr(errno, name))
"""Error numbers of disks, limits and networks. Those of names and permissions are not among them."""
CLIENT_PACKAGES = frozenset(
    ["botocore", "aiobotocore", "aiohttp", "s3fs", "gcsfs", "adlfs", "requests", "urllib3", "httpx", "httpcore"]
)
"""Clients of object stores and servers: what they raise is about the connection, not about a row."""
SURROUNDINGS_TEXTS = (
    *map(os.strerror, (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE)),
    *map(os.strerror, (errno.EMFILE, errno.ENFILE, errno.ENOMEM)),
    "can't start new thread",
    *("database or disk is full", "disk I/O error", "database is locked"),  # SQLite's
)
"""Texts of errors without a number: of Python, SQLite, and libraries in C++ and Rust, which pass on the system's."""
FIRST_PAUSE_S = 1.0


class SurroundingsFault(RuntimeError):
    """A fault of the surroundings, on which a shard's work stopped. It stays uncommitted.

    Attributes:
        stage: that was running; "" where none was.
        ids: of the records that it had.
        text: class and text of the error.
        memory: there was not enough memory for a single record.
        passed: how many other records had passed the stage in the same attempt.
        damaged: path or URI of a file of a table that is not what was committed; "" where that is not the fault.
    """

    def __init__(
        self, stage: str, ids: Sequence[str], text: str, memory: bool = False, passed: int = 0, damaged: str = ""
    ) -> None:
        super().__init__(stage, tuple(ids), text, memory, passed, damaged)
        self.stage, self.ids, self.text, self.memory, self.passed = stage, tuple(ids), text, memory, passed
        self.damaged = damaged

    def __str__(self) -> str:
        return f"in stage '{self.stage}', {self.text}" if self.stage else self.text


class DamagedTables(RunError):
    """A flow that cannot be made, since files of the tables that it reads are not what was committed.

    Attributes:
        places: paths or URIs of the files.
    """

    def __init__(self, text: str, places: Iterable[str] = ()) -> None:
        super().__init__(text)
        self.places = frozenset(places)


class BackOff:
    """How long shards wait before they are tried again: 1 s, then twice as long each time.

    Args:
        patience_s: seconds after its first fault for which a shard is tried again; after them it is set aside. The
            tries count: a server that is away may have each of them wait for most of a minute.

    Examples:
        >>> waits = BackOff(5.0)
        >>> [waits.lengthen(0, now) for now in (0, 1, 3, 5)]
        [1.0, 2.0, 2.0, None]
        >>> waits.lengthen(1, 0), waits.lengthen(1, 40)
        (1.0, None)
    """

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self._next: dict[int, float] = {}
        self._first: dict[int, float] = {}

    def lengthen(self, shard: int, now: float) -> float | None:
        """Return the seconds that a shard waits after one more fault; None where its patience has ended."""
        left = self.patience_s - (now - self._first.setdefault(shard, now))
        if left <= 0:
            return None
        wait = min(left, self._next.get(shard, FIRST_PAUSE_S))
        self._next[shard] = 2 * self._next.get(shard, FIRST_PAUSE_S)
        return wait

    def forget(self, shard: int) -> None:
        """Forget the faults of a shard: it has got further."""
        self._first.pop(shard, None)
        self._next.pop(shard, None)


def is_fault_of_surroundings(error: BaseException, reads_inputs: bool) -> bool:
    """Return whether an error that a stage raised is one of the surroundings.

    Args:
        reads_inputs: the stage is a source, whose files were there when they were listed.

    Examples:
        >>> is_fault_of_surroundings(OSError(errno.EIO, "Input/output error"), False)
        True
        >>> is_fault_of_surroundings(OSError("image file is truncated"), True)
        False
        >>> is_fault_of_surroundings(RuntimeError("I/O error: No space left on device (os error 28)"), False)
        True
        >>> missing = FileNotFoundError(errno.ENOENT, "No such file or directory")
        >>> is_fault_of_surroundings(missing, True), is_fault_of_surroundings(missing, False)
        (True, False)
    """
    kinds = (RunError, StorageError, ImportError, *((FileNotFoundError, NotADirectoryError) if reads_inputs else ()))
    if any(isinstance(member, kinds) for member in _list_members(error)):
        return True
    return any(_is_of_surroundings(link) for link in _follow_causes(error))


def is_short_of_memory(error: BaseException) -> bool:
    """Return whether an error says that there was not enough memory, of the machine or of a card.

    Examples:
        >>> is_short_of_memory(ExceptionGroup("two views", [MemoryError(), ValueError("no horizon")]))
        True
    """
    return any(is_out_of_memory(link) for link in _follow_causes(error))


def find_damaged_place(error: BaseException) -> str:
    """Return the path or URI of the damaged file that an error came from; "" where it came from none.

    One that is missing is waited for: its disk may be away.
    """
    damaged = (link for link in _follow_causes(error) if isinstance(link, DamagedFile))
    return next((link.place for link in damaged if not isinstance(link, MissingFile)), "")


def _is_of_surroundings(error: BaseException) -> bool:
    if isinstance(error, (ConnectionError, TimeoutError, socket.gaierror, socket.herror, ssl.SSLError)):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in SURROUNDINGS_ERRNOS or _is_of_client(error)
    text = read_text(error)
    return _is_of_client(error) or any(part in text for part in SURROUNDINGS_TEXTS)


def _is_of_client(error: BaseException) -> bool:
    module = type(error).__module__
    return module.split(".")[0] in CLIENT_PACKAGES or module in ("urllib.error", "http.client")


def _list_members(error: BaseException) -> list[BaseException]:
    """List the errors of a group, of groups in it, too; an error that is no group alone."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [member for part in error.exceptions for member in _list_members(part)]


def _follow_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, the members of a group, and those from which each was raised: a decoder may have wrapped that of
    a disk."""
    followed: set[int] = set()
    waiting = [error]
    while waiting:
        link = waiting.pop()
        if id(link) in followed:
            continue
        followed.add(id(link))
        yield link
        waiting += _list_members(link)
        waiting += [cause for cause in (link.__cause__ or link.__context__,) if cause is not None]
