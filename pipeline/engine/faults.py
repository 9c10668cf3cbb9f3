"""Two kinds of fault: a row's, which costs that row, and one of the surroundings, which costs none.

docs/engine.md has the table that this module follows. What is in doubt counts as a row's fault, so that one bad input
never keeps a run from its end; what a disk, a network, a node or a neighbour does is never in doubt.
"""

import errno
from collections.abc import Iterable, Iterator, Sequence

from rasura.manifests.errors import RunError, StorageError
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
FIRST_PAUSE_S = 1.0
LONGEST_TEXT = 300


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
        patience_s: seconds that a shard waits in all; after them it is set aside.

    Examples:
        >>> waits = BackOff(5)
        >>> [waits.lengthen(0) for _ in range(4)]
        [1.0, 2.0, 2.0, None]
    """

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self._next: dict[int, float] = {}
        self._left: dict[int, float] = {}

    def lengthen(self, shard: int) -> float | None:
        """Return the seconds that a shard waits after one more fault; None where its patience has ended."""
        left = self._left.setdefault(shard, self.patience_s)
        if left <= 0:
            return None
        wait = min(left, self._next.get(shard, FIRST_PAUSE_S))
        self._left[shard], self._next[shard] = left - wait, 2 * self._next.get(shard, FIRST_PAUSE_S)
        return wait


def is_fault_of_surroundings(error: BaseException, reads_inputs: bool) -> bool:
    """Return whether an error that a stage raised is one of the surroundings.

    Args:
        reads_inputs: the stage is a source, whose files were there when they were listed.

    Examples:
        >>> is_fault_of_surroundings(OSError(errno.EIO, "Input/output error"), False)
        True
        >>> is_fault_of_surroundings(OSError("image file is truncated"), True)
        False
        >>> missing = FileNotFoundError(errno.ENOENT, "No such file or directory")
        >>> is_fault_of_surroundings(missing, True), is_fault_of_surroundings(missing, False)
        (True, False)
    """
    if isinstance(error, (RunError, StorageError, ImportError)):
        return True
    if reads_inputs and isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return True
    return any(_is_of_surroundings(link) for link in _follow_causes(error))


def is_short_of_memory(error: BaseException) -> bool:
    """Return whether an error says that there was not enough memory, of the machine or of a card."""
    return isinstance(error, MemoryError) or is_out_of_memory(error)


def find_damaged_place(error: BaseException) -> str:
    """Return the path or URI of the damaged file that an error came from; "" where it came from none.

    One that is missing is waited for: its disk may be away.
    """
    damaged = (link for link in _follow_causes(error) if isinstance(link, DamagedFile))
    return next((link.place for link in damaged if not isinstance(link, MissingFile)), "")


def make_text(value: object) -> str:
    """Return what a stage says as text on one line that can be written anywhere, whatever it is.

    Examples:
        >>> make_text("no\\npicture \\udce9"), make_text(["list"])
        ('no picture \\\\udce9', "['list']")
    """
    try:
        text = str(value)
    except Exception as error:
        text = f"(its text cannot be read: {type(error).__name__})"
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())


def describe_error(error: BaseException) -> str:
    """Return the class and the text of an error, on one line.

    Examples:
        >>> describe_error(ValueError("no\\npicture"))
        'ValueError: no picture'
    """
    return f"{type(error).__name__}: {make_text(error)}"[:LONGEST_TEXT]


def _is_of_surroundings(error: BaseException) -> bool:
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    if isinstance(error, OSError) and error.errno in SURROUNDINGS_ERRNOS:
        return True
    package = type(error).__module__.split(".")[0]
    return package in CLIENT_PACKAGES or type(error).__module__ in ("urllib.error", "http.client")


def _follow_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those from which it was raised: a decoder may have wrapped that of a disk."""
    followed: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in followed:
        followed.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
