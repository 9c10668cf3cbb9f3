"""The lock of a review that is kept in an SQLite file, which one server at a time may serve."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator

from sqlalchemy import Connection, delete, insert, select

from rasura.annotator.store.database import Database, get_lock_file, meta
from rasura.manifests.errors import ReviewError

ADDRESS = "address"
"""Key of the table `meta`: the address at which reviewers find the page."""


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


def store_address(connection: Connection, url: str) -> None:
    """Store the address at which reviewers find the page, for the links of those who are added."""
    connection.execute(delete(meta).where(meta.c.key == ADDRESS))
    connection.execute(insert(meta).values(key=ADDRESS, value=url))


def read_address(connection: Connection) -> str | None:
    """Read the address at which the review was served last; None where it never was."""
    address: str | None = connection.execute(select(meta.c.value).where(meta.c.key == ADDRESS)).scalar()
    return address
