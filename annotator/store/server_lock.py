"""The lock of a review that is kept in an SQLite file, which one server at a time may serve."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator

from rasura.annotator.store.database import Database, get_lock_file
from rasura.manifests.errors import ReviewError


class AlreadyServed(ReviewError):
    """Another process serves the review."""


@contextlib.contextmanager
def lock_server(database: Database) -> Iterator[Callable[[str], None]]:
    """Own a review's SQLite file as its server; PostgreSQL may have several.

    The lock is on a file beside the database, and ends with the process, however it ends.

    Yields:
        A function that notes the server's address, for the message of a second one.

    Raises:
        AlreadyServed: another process has it.
    """
    if database.file is None:
        yield lambda address: None
        return
    with get_lock_file(database.file).open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            raise AlreadyServed(
                f"the review in {database.file} is served already ({handle.read().strip() or 'by another process'}); "
                "stop that server, or keep the review in PostgreSQL (--database postgresql://…), which allows several"
            ) from None

        def note(address: str) -> None:
            handle.seek(0)
            handle.truncate()
            handle.write(f"at {address}, process {os.getpid()}")
            handle.flush()

        note("an address that is not known yet")
        yield note
