"""Members of a tar as byte ranges: nothing is unpacked, and no name in it becomes a path."""

import tarfile
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

LARGEST_HEADER = 2**20
"""Bytes that a header may have; those of long names and of PAX are read whole."""
PADDING = 64 * 512
"""Bytes of padding at the end of a tar; GNU's blocks have 20 × 512."""


class Member(NamedTuple):
    """A file in a tar.

    Attributes:
        name: as the tar has it: any text.
        start, end: its bytes in the tar.
        fault: why it cannot be read; None where it can.
    """

    name: str
    start: int
    end: int
    fault: str | None


class DamagedTar(ValueError):
    """A tar whose rest cannot be read from a header on."""


class _Bounded:
    """An open file that refuses long reads: the members of a tar are not read while it is listed."""

    def __init__(self, source: IO[bytes]) -> None:
        self.source = source

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= LARGEST_HEADER:
            raise DamagedTar(f"a header of {size} bytes, limit {LARGEST_HEADER}")
        return self.source.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)


def iterate_members(source: IO[bytes]) -> Iterator[Member]:
    """Yield the members of a tar in their order, without folders.

    A member that is a link, or whose data the tar does not have completely, has a fault.

    Args:
        source: the open tar, which can seek; not compressed.

    Raises:
        DamagedTar: it is no tar, or something follows that is none. The members before it were yielded.
    """
    size = source.seek(0, 2)
    source.seek(0)
    bounded: Any = _Bounded(source)
    try:
        with tarfile.open(fileobj=bounded, mode="r:") as tar:
            while (entry := _next(tar)) is not None:
                if entry.isdir():
                    continue
                if entry.size < 0 or tar.offset <= entry.offset:
                    raise DamagedTar(f"member {entry.name[:60]!r} has {entry.size} bytes")
                start, end = entry.offset_data, entry.offset_data + entry.size
                if entry.issparse() or not entry.isreg():
                    yield Member(entry.name, start, start, "it is a link, or no plain file")
                    continue
                if end > size:
                    yield Member(entry.name, start, end, f"the tar ends {end - size} bytes before its end")
                    return
                yield Member(entry.name, start, end, None)
            _check_rest(source, tar.offset, size)
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        if isinstance(error, DamagedTar) or (isinstance(error, OSError) and not isinstance(error, tarfile.TarError)):
            raise
        raise DamagedTar(str(error) or type(error).__name__) from None


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    """Return the next entry; None at the end. `tarfile` keeps all that it has read, which would grow."""
    entry = tar.next()
    tar.members.clear()  # type: ignore[attr-defined]
    return entry


def _check_rest(source: IO[bytes], offset: int, size: int) -> None:
    """Check that nothing but padding is behind the last header that could be read."""
    if offset >= size:
        raise DamagedTar(f"it ends at byte {size} without the mark of its end: members after that may be missing")
    source.seek(offset)
    rest = source.read(PADDING)
    if rest.strip(b"\0") or offset + len(rest) < size:
        raise DamagedTar(f"from byte {offset} on there is no header of a member, and {size - offset} bytes follow")
